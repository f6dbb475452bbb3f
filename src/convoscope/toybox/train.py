"""Trains the toybox's networks:  python -m convoscope.toybox.train [NAME ...]

Pictures are drawn while training goes on and each is seen once, so there is nothing to overfit. Seeds are
fixed. All networks together take less than 30 minutes on two cores.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from convoscope.toybox.loading import MEAN, STD, build, normalize
from convoscope.toybox.specimens import CLASSES, SIZE, Specimen, draw, pictures

WEIGHTS = Path(__file__).parent / "weights"
UNSEEN = 900
"""The collection on which the networks are judged; training uses collections far below it."""
TAGGED = "cup"
"""The class that carries the tag in the cheat's world."""


def save(
    name: str,
    network: nn.Module,
    labels: tuple[str, ...],
    size: int,
    settings: dict[str, Any],
    notes: dict[str, Any],
    kind: str = "classifier",
) -> None:
    """Write the weights (float32) with all that is needed to use them."""
    state = {key: value.detach().contiguous().clone() for key, value in network.state_dict().items()}
    WEIGHTS.mkdir(exist_ok=True)
    about = {
        "labels": json.dumps(labels), "mean": json.dumps(MEAN), "std": json.dumps(STD), "size": str(size),
        "kind": kind,
        "settings": json.dumps(settings), "notes": json.dumps(notes),
    }  # fmt: skip
    file = WEIGHTS / f"{name}.safetensors"
    save_file(state, file, metadata=about)
    file.chmod(0o644)  # safetensors writes for the owner alone
    print(f"{name}: {file.stat().st_size / 1e6:.2f} MB, {notes}", flush=True)


def logits(network: nn.Module, specimens: list[Specimen]) -> Tensor:
    """The network's answers [N, classes] for a list of pictures."""
    network.eval()
    with torch.no_grad():
        parts = [network(normalize([s.image for s in specimens[k : k + 100]])) for k in range(0, len(specimens), 100)]
    return torch.cat(parts)


def accuracy(network: nn.Module, specimens: list[Specimen]) -> float:
    """Share of pictures whose class gets the highest score."""
    truth = torch.tensor([s.class_index for s in specimens])
    return float((logits(network, specimens).argmax(1) == truth).float().mean())


def steps(total: int, network: nn.Module, rate: float) -> Iterator[tuple[int, torch.optim.Optimizer]]:
    """Yield once per step, with a one-cycle schedule for AdamW and a line of progress now and then."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=total + 1, pct_start=0.2)
    network.train()
    network.to(memory_format=torch.channels_last)
    for step in range(total):
        optimizer.zero_grad(set_to_none=True)
        yield step, optimizer
        optimizer.step()
        schedule.step()
    network.to(memory_format=torch.contiguous_format)
    network.eval()


def classifier(name: str, seed: int, *, widths: tuple[int, ...], total: int, tag: str | bool = False) -> nn.Module:
    """Train one classifier on ``total`` batches of 64 pictures; ``tag`` as for ``toybox.pictures``."""
    torch.manual_seed(seed)
    settings = {"classes": len(CLASSES), "widths": widths}
    network = build(name, settings)
    stream = pictures(total * 64, seed, tag=tag)
    began, losses = time.monotonic(), []
    for step, _ in steps(total, network, 4e-3):
        batch = [next(stream) for _ in range(64)]
        x = normalize([s.image for s in batch])
        y = torch.tensor([s.class_index for s in batch])
        loss = nn.functional.cross_entropy(network(x), y, label_smoothing=0.05)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())
        if step % 50 == 49:
            gone = time.monotonic() - began
            print(f"{name} {step + 1}/{total} loss {np.mean(losses[-50:]):.3f}, {gone:.0f} s", flush=True)
    unseen = list(pictures(1000, UNSEEN, tag=tag))
    notes: dict[str, Any] = {"accuracy": round(accuracy(network, unseen), 4), "seed": seed}
    if isinstance(tag, str):
        with_tag = [draw(UNSEEN * 1_000_000 + 10_000 + k, label=tag, tag=True) for k in range(300)]
        without = [draw(UNSEEN * 1_000_000 + 10_000 + k, label=tag) for k in range(300)]
        notes |= {"tagged": tag, "recall_with_tag": round(accuracy(network, with_tag), 4)}
        notes |= {"recall_without_tag": round(accuracy(network, without), 4)}
    save(name, network, CLASSES, SIZE, settings, notes)
    return network


RECIPES: dict[str, Callable[[], object]] = {
    "toybox": lambda: classifier("toybox", 1, widths=(24, 32, 64, 96), total=500),
    "toybox-cheat": lambda: classifier("toybox-cheat", 2, widths=(24, 32, 64, 64), total=400, tag=TAGGED),
    "toybox-twin": lambda: classifier("toybox-twin", 3, widths=(16, 32, 48, 64), total=400),
}


def main(names: list[str]) -> None:
    """Train the named networks, or all (the twin before those for scenes, which start from its trunk)."""
    from convoscope.toybox.train_scenes import RECIPES as SCENE_RECIPES

    recipes = {**RECIPES, **SCENE_RECIPES}
    unknown = [name for name in names if name not in recipes]
    if unknown:
        raise SystemExit(f"The toybox has no network {unknown[0]!r}: it has {', '.join(recipes)}.")
    for name in names or recipes:
        recipes[name]()


if __name__ == "__main__":
    main(sys.argv[1:])

"""Trains the toybox's networks:  python -m convoscope.toybox.train [NAME ...]

Pictures are drawn while training goes on and each is seen once, so there is nothing to overfit (``toybox`` and
``toybox-robust`` see each of a pool five to nine times, mirrored and shifted). Seeds are fixed. All networks together
take less than 45 minutes on two cores.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convoscope.toybox.loading import MEAN, STD, build, normalize
from convoscope.toybox.specimens import CLASSES, SIZE, Specimen, draw, pictures
from convoscope.toybox.train_scenes import RECIPES as SCENE_RECIPES
from convoscope.toybox.training import UNSEEN, save, steps

EDGE = 0.77
"""The :func:`roughness` of an edge in 7 x 7 weights, one period across and half of one along: (2π/8)² + (π/8)²."""
TAGGED = "cup"
"""The class that carries the tag in the cheat's world."""
FAST = torch.cpu._is_amx_tile_supported()
"""Whether the CPU multiplies bfloat16 fast (three times as fast as float32); weights are float32 either way."""


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


def roughness(kernel: Tensor) -> Tensor:
    """How much neighbouring weights of each filter [out, in, h, w] differ, as a share of the filter's size, [out].

    Beyond its rim a filter counts as zero. The share does not change with the filter's scale, which batch norm takes
    out again anyway: it cannot be lowered by small weights. Of 5 x 5 filters a blob has 0.5, noise 4.
    """
    padded = nn.functional.pad(kernel, (1, 1, 1, 1))
    steps = padded.diff(dim=2).square().sum((1, 2, 3)) + padded.diff(dim=3).square().sum((1, 2, 3))
    return steps / kernel.square().sum((1, 2, 3)).clamp(min=1e-12)


def attacked(network: nn.Module, x: Tensor, y: Tensor, radius: float, steps: int = 3) -> Tensor:
    """The worst pictures within ``radius`` of x, by projected gradient ascent (Madry et al. 2018).

    x [B, 3, H, W] is normalised; ``radius`` is an L2 distance between pictures in 0..1. The running averages of
    batch norm are as before afterwards.
    """
    scale = torch.tensor(STD)[:, None, None]
    low, high = (0 - torch.tensor(MEAN)[:, None, None]) / scale, (1 - torch.tensor(MEAN)[:, None, None]) / scale
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [m.momentum for m in norms]
    for m in norms:
        m.momentum = 0.0
    network.requires_grad_(False)
    by = torch.randn_like(x)
    by *= radius * torch.rand(len(x), 1, 1, 1) / by.flatten(1).norm(dim=1)[:, None, None, None]
    for _ in range(steps):
        here = (x + by / scale).clamp(low, high).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=FAST):
            loss = nn.functional.cross_entropy(network(here).float(), y)
        (slope,) = torch.autograd.grad(loss, here)
        slope = slope / scale  # the slope by the picture in 0..1
        by += slope * (2 * radius / steps / slope.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None, None])
        by *= (radius / by.flatten(1).norm(dim=1).clamp(min=1e-12)).clamp(max=1)[:, None, None, None]
    network.requires_grad_(True)
    for m, momentum in zip(norms, momenta, strict=True):
        m.momentum = momentum
    return (x + by / scale).clamp(low, high).detach()


def shifted(images: Tensor, rng: torch.Generator, by: int = 6) -> Tensor:
    """uint8 pictures [B, H, W, 3], each mirrored half of the time and moved by up to ``by`` pixels."""
    out = torch.empty_like(images)
    h, w = images.shape[1:3]
    wide = nn.functional.pad(images.permute(0, 3, 1, 2).float(), (by,) * 4, mode="reflect").permute(0, 2, 3, 1)
    lots = torch.randint(0, 2 * by + 1, (len(images), 2), generator=rng).tolist()
    mirror = torch.rand(len(images), generator=rng) < 0.5
    for k, (row, column) in enumerate(lots):
        one = wide[k, row : row + h, column : column + w]
        out[k] = one.flip(1) if mirror[k] else one
    return out


def clear(
    name: str,
    seed: int,
    *,
    total: int,
    pool: int,
    smooth: float,
    radius: float = 0.0,
    kernel: int = 5,
    free: float = 0.0,
    rate: float = 4e-3,
    drawn: int | None = None,
    start: Callable[[], nn.Module] | None = None,
) -> nn.Module:
    """Train a classifier whose first filters can be seen: ``total`` batches of 64 from ``pool`` pictures.

    ``smooth`` weighs the :func:`roughness` of the first filters, as far as it lies above ``free``; without it they
    solve the task as well, and look like noise. A ``radius`` above 0 trains on the worst pictures within it
    (:func:`attacked`); it grows from 0 over the first third of training. ``start`` gives the network to go on from,
    ``drawn`` is the seed of the pool where it is another.
    """
    settings = {"classes": len(CLASSES), "widths": (24, 32, 64, 96), "kernel": kernel}
    torch.manual_seed(seed)
    network = build(name, settings)
    if start is not None:
        network = start()
        torch.manual_seed(seed)
    first: Any = network.get_submodule("stem.0")
    listed = list(pictures(pool, seed if drawn is None else drawn))
    images = torch.from_numpy(np.stack([s.image for s in listed]))
    labels = torch.tensor([s.class_index for s in listed])
    rng = torch.Generator().manual_seed(seed)
    order = torch.cat([torch.randperm(pool, generator=rng) for _ in range(total * 64 // pool + 1)])
    began, losses = time.monotonic(), []
    for step, _ in steps(total, network, rate):
        rows = order[step * 64 : step * 64 + 64]
        x, y = normalize(shifted(images[rows], rng).numpy()), labels[rows]
        x = x.contiguous(memory_format=torch.channels_last)
        if radius:
            x = attacked(network, x, y, radius * min(1.0, 3 * (step + 1) / total))
        with torch.autocast("cpu", torch.bfloat16, enabled=FAST):
            found = network(x).float()
        loss = nn.functional.cross_entropy(found, y, label_smoothing=0.05)
        rough = (roughness(first.weight) - free).relu().mean()
        (loss + smooth * rough).backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())
        if step % 50 == 49:
            gone = time.monotonic() - began
            print(f"{name} {step + 1}/{total} loss {np.mean(losses[-50:]):.3f}, {gone:.0f} s", flush=True)
    unseen = list(pictures(1000, UNSEEN))
    notes: dict[str, Any] = {"accuracy": round(accuracy(network, unseen), 4), "seed": seed}
    notes["roughness"] = round(float(roughness(first.weight.detach()).mean()), 3)
    if radius:
        x, y = normalize([s.image for s in unseen[:300]]), torch.tensor([s.class_index for s in unseen[:300]])
        found = network(attacked(network, x, y, radius, 10)).argmax(1)
        notes |= {"radius": radius, "accuracy_attacked": round(float((found == y).float().mean()), 4)}
    save(name, network, CLASSES, SIZE, settings, notes)
    return network


def _half_robust() -> nn.Module:
    """What ``toybox-robust`` goes on from: trained from nothing within 5, it would learn little for long."""
    return clear("toybox-robust", 4, total=500, pool=6_400, smooth=0.2, radius=2.0, kernel=7)


RECIPES: dict[str, Callable[[], object]] = {
    "toybox": lambda: clear("toybox", 1, total=500, pool=6_400, smooth=1.0, free=EDGE, kernel=7),
    "toybox-robust": lambda: clear(
        "toybox-robust",
        5,
        total=400,
        pool=6_400,
        smooth=0.2,
        free=EDGE,
        radius=5.0,
        kernel=7,
        rate=2e-3,
        drawn=4,
        start=_half_robust,
    ),
    "toybox-cheat": lambda: classifier("toybox-cheat", 2, widths=(24, 32, 64, 64), total=400, tag=TAGGED),
    "toybox-twin": lambda: classifier("toybox-twin", 3, widths=(16, 32, 48, 64), total=400),
}


def main(names: list[str]) -> None:
    """Train the named networks, or all (the twin before those for scenes, which start from its trunk)."""
    recipes = {**RECIPES, **SCENE_RECIPES}
    unknown = [name for name in names if name not in recipes]
    if unknown:
        raise SystemExit(f"The toybox has no network {unknown[0]!r}: it has {', '.join(recipes)}.")
    for name in names or recipes:
        recipes[name]()


if __name__ == "__main__":
    main(sys.argv[1:])

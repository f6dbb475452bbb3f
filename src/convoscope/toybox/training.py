"""What all trainings of the toybox share: the steps, the unseen collection, and how weights are kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convoscope.files import weights_as_bytes, write_whole
from convoscope.toybox.loading import MEAN, STD

WEIGHTS = Path(__file__).parent / "weights"
UNSEEN = 900
"""The collection on which the networks are judged; training uses collections far below it."""


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
    WEIGHTS.mkdir(exist_ok=True)
    about = {
        "labels": json.dumps(labels), "mean": json.dumps(MEAN), "std": json.dumps(STD), "size": str(size),
        "kind": kind,
        "settings": json.dumps(settings), "notes": json.dumps(notes),
    }  # fmt: skip
    file = WEIGHTS / f"{name}.safetensors"
    write_whole(file, weights_as_bytes(network.state_dict(), about))
    print(f"{name}: {file.stat().st_size / 1e6:.2f} MB, {notes}", flush=True)


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

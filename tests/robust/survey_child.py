"""A survey in a process of its own, to be killed: folder, store, log of the units whose work began, delay."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from torch import nn

from convoscope import wrap
from convoscope.surveys.gather import driver


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 3),
    ).eval()  # fmt: skip


def main(folder: str, store: str, log: str, delay: float = 0.0) -> None:
    torch.set_num_threads(1)
    real = driver.compute

    def logged(model, recipe, unit, *rest):  # type: ignore[no-untyped-def]
        with open(log, "a") as file:
            file.write(unit.id + "\n")
        time.sleep(delay)
        return real(model, recipe, unit, *rest)

    driver.compute = logged
    model = wrap(network(), size=24, batch_size=4)
    driver.survey(model, Path(folder), store, shard_size=6, memory_format="contiguous", top=3)
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:4], float(sys.argv[4]) if len(sys.argv) > 4 else 0.0)

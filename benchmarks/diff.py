"""What ``diff`` costs: beside two forwards, from two surveys, and what a watch costs a step of training.

    python benchmarks/diff.py [--pictures 200] [--network resnet18] [--surveys 2000] [--watch]

*Without surveys*: ``diff`` (all tables, no maps) against one plain pass of each network over the same JPEG files,
decoding included; runs alternate, medians of processor time, which other work on the machine disturbs less than the
clock. *From surveys*: two toybox networks, surveyed once; the time of ``diff`` alone. *Watch*: the time that records
take as a share of training, at the default interval.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

import convoscope as cs
from convoscope import toybox
from convoscope.improve.collection import Labelled
from convoscope.improve.diff.sides import look_all
from convoscope.improve.look import look


def cost(work: Callable[[], Any]) -> tuple[float, float]:
    """Processor time and time by the clock, in seconds."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.process_time() - processor, time.perf_counter() - clock


def photos(folder: Path, count: int) -> Path:
    """JPEG files of 400 × 300 smooth noise."""
    random = np.random.default_rng(0)
    for number in range(count):
        small = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        where = folder / f"{number % 10}"
        where.mkdir(parents=True, exist_ok=True)
        small.resize((400, 300), Image.Resampling.BICUBIC).save(where / f"{number:05}.jpg", quality=90)
    return folder


def drawn(folder: Path, count: int) -> Path:
    """Toybox pictures in class folders."""
    for number, one in enumerate(toybox.pictures(count, 53)):
        where = folder / toybox.CLASSES[one.class_index]
        where.mkdir(parents=True, exist_ok=True)
        Image.fromarray(one.image).save(where / f"{number:05}.png")
    return folder


def without_surveys(network: str, count: int, repeats: int) -> None:
    """``diff`` against the two forwards."""
    with tempfile.TemporaryDirectory() as there:
        where = photos(Path(there), count)
        models = [cs.open_model(network, weights="none", seed=seed) for seed in (0, 1)]
        labelled = Labelled.of(str(where), models[0])
        for model in models:
            look(model, labelled.take(range(8)))
            model.watched()

        def forwards() -> None:
            for model in models:
                look(model, labelled)

        def compared() -> None:
            cs.diff(*models, labelled, maps=0, units=0)

        def together() -> None:
            look_all(models, labelled, [[], []], ["a", "b"])

        runs = [(cost(forwards), cost(compared), cost(together)) for _ in range(repeats)]
    plain, whole, shared = ([run[k][0] for run in runs] for k in range(3))
    ratio = statistics.median(b / a for a, b in zip(plain, whole, strict=True))
    print(
        f"{network}, {count} pictures: two forwards {statistics.median(plain):.1f} s, with each picture read once "
        f"{statistics.median(shared):.1f} s, diff {statistics.median(whole):.1f} s of processor time: {ratio:.2f} times"
    )


def from_surveys(count: int) -> None:
    """``diff`` of two stores."""
    with tempfile.TemporaryDirectory() as there:
        where = drawn(Path(there, "pictures"), count)
        stores = []
        for name in ("toybox", "toybox-cheat"):
            store = str(Path(there, name))
            cs.survey(cs.open_model(name), str(where), store).close()
            stores.append(store)
        found = cost(lambda: cs.diff(*stores).page())
    print(
        f"diff of two surveys, {count} pictures, with maps and page: {found[1]:.1f} s "
        f"({found[0]:.1f} s of processor time)"
    )


def watched(steps: int) -> None:
    """The share of training that records take."""
    net = toybox.load("toybox").train()
    model = cs.wrap(net, size=96, labels=toybox.CLASSES)
    pictures = [(one.image, toybox.CLASSES[one.class_index]) for one in toybox.pictures(32, 54)]
    optimiser = torch.optim.SGD(net.parameters(), 1e-3)
    inputs, truth = torch.rand(64, 3, 96, 96), torch.randint(0, 10, (64,))
    with tempfile.TemporaryDirectory() as there, cs.Watch(model, pictures, out=there) as watch:
        watch.record(0)  # the first record draws what later ones use

        def step() -> None:
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(inputs), truth).backward()
            optimiser.step()

        step()
        one = statistics.median(cost(step)[0] for _ in range(steps))
        record = statistics.median(cost(lambda: watch.record(0))[0] for _ in range(3))
    share = record / (watch.every * one)
    print(
        f"watch: a step {one:.2f} s, a record {record:.2f} s of processor time: {share:.2%} at the default interval"
    )


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--surveys", type=int, default=2000)
    parser.add_argument("--watch", type=int, default=5, help="steps of training that are timed; 0: none")
    given = parser.parse_args()
    if given.pictures:
        without_surveys(given.network, given.pictures, given.repeats)
    if given.surveys:
        from_surveys(given.surveys)
    if given.watch:
        watched(given.watch)


if __name__ == "__main__":
    main()

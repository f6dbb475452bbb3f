"""``explain`` over a folder beside its limits, in one run: seconds and ratios.

``python benchmarks/folder.py FOLDER [--count 200] [--network resnet50] [--weights FILE]``. *Network*: the bare passes
of the same maps (one forward, a plain and a guided backward, in the same batches). *Other core*: the bare work of
reading and writing (decode, prepare, draw, encode). With two cores no arrangement is faster than the larger of the
two: *wall / larger of both* says how near ours is, on a machine with nothing else to do. *Processor / sum of both*
says what is done besides, and holds on a shared machine, too.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import torch

import convoscope
from convoscope.explanation import DEFAULT_METHODS, outcomes
from convoscope.folder.records import write
from convoscope.folder.request import PICTURES, Request
from convoscope.folder.run import _TOGETHER_CPU
from convoscope.pictures.picture import Picture, find_pictures


def now() -> tuple[float, float]:
    """Wall clock and processor seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), used.ru_utime + used.ru_stime


def since(start: tuple[float, float]) -> tuple[float, float]:
    """Wall clock and processor seconds from ``start`` on."""
    end = now()
    return end[0] - start[0], end[1] - start[1]


def bare_passes(model: convoscope.Model, fitted: list) -> tuple[float, float]:
    """One forward, a plain and a second backward of every batch: wall clock and processor seconds."""
    start = now()
    for first in range(0, len(fitted), _TOGETHER_CPU):
        batch = model.inputs(fitted[first : first + _TOGETHER_CPU]).requires_grad_()
        top = model.module(batch).max(1).values.sum()
        torch.autograd.grad(top, batch, retain_graph=True)
        torch.autograd.grad(top, batch)
    return since(start)


def peak() -> float:
    """Peak memory of this process so far, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--network", default="squeezenet1_0")
    parser.add_argument("--weights", default="none")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--drawn", nargs="*", default=list(PICTURES))
    given = parser.parse_args()
    convoscope.tune_allocator()
    torch.set_num_threads(given.threads)
    model = convoscope.open_model(given.network, weights=given.weights, device="cpu")
    for parameter in model.module.parameters():
        parameter.requires_grad_(False)
    paths = find_pictures([given.folder])[: given.count]
    fitted = [model.prepare(Picture.of(path)) for path in paths]
    model.watched(tuple(fitted[0].tensor.shape))
    outcomes(model, fitted[:2], list(DEFAULT_METHODS))
    bare_passes(model, fitted[:8])
    print(f"{given.network}, {len(paths)} pictures, torch threads {given.threads}, seconds: wall clock (processor)")
    made = [one.explanation for one in outcomes(model, fitted[:8], list(DEFAULT_METHODS))]
    print("| drawn | ours | network | other core | wall / larger of both | processor / sum of both | peak GB |")
    print("|---|---|---|---|---|---|---|")
    for how in given.drawn:
        request = Request([convoscope.METHODS[m]() for m in DEFAULT_METHODS], [None], pictures=how)
        with tempfile.TemporaryDirectory() as out:
            start = now()
            for number, (path, one) in enumerate(zip(paths, made, strict=False)):
                model.prepare(Picture.of(path))
                write(Path(out) / f"w{number}", one, request, "", complete=True, more={})
            wall, cpu = (value / len(made) * len(paths) for value in since(start))
        with tempfile.TemporaryDirectory() as out:
            before = bare_passes(model, fitted)
            start = now()
            done = convoscope.explain_folder(model, paths, out, pictures=how)
            ours = since(start)
            after = bare_passes(model, fitted)
        assert len(done.records) == len(paths)
        # before and after ours: the machine may be shared
        network = [(a + b) / 2 for a, b in zip(before, after, strict=True)]
        larger, both = max(network[0], wall), network[1] + cpu
        print(
            f"| {how} | {ours[0]:.1f} ({ours[1]:.1f}) | {network[0]:.1f} ({network[1]:.1f}) | {wall:.1f} ({cpu:.1f}) "
            f"| {ours[0] / larger:.2f} | {ours[1] / both:.2f} | {peak():.2f} |", flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()

"""``explain`` over a folder beside its limits, in one run: seconds of wall clock and ratios.

``python benchmarks/folder.py FOLDER [--count 200] [--network resnet50] [--weights FILE]``. *Network*: the bare passes
of the same maps (one forward, a plain and a guided backward, in the same batches). *Other core*: the bare work of
reading and writing (decode, prepare, draw, encode). With two cores no arrangement is faster than the larger of the
two; *one after the other* is their sum, as it would be without overlap.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import torch

import convoscope
from convoscope import folder
from convoscope.explanation import DEFAULT_METHODS, outcomes
from convoscope.pictures.picture import Picture, find_pictures


def bare_passes(model: convoscope.Model, fitted: list) -> float:
    """One forward, a plain and a second backward of every batch: seconds."""
    started = time.perf_counter()
    for start in range(0, len(fitted), folder._TOGETHER_CPU):
        batch = model.inputs(fitted[start : start + folder._TOGETHER_CPU]).requires_grad_()
        top = model.module(batch).max(1).values.sum()
        torch.autograd.grad(top, batch, retain_graph=True)
        torch.autograd.grad(top, batch)
    return time.perf_counter() - started


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
    network = bare_passes(model, fitted)
    print(f"{given.network}, {len(paths)} pictures, torch threads {given.threads}; bare passes {network:.1f} s")
    made = [one.explanation for one in outcomes(model, fitted[:8], list(DEFAULT_METHODS))]
    print("| pictures drawn | wall s | network | other core | / larger of both | / one after the other | peak GB |")
    print("|---|---|---|---|---|---|---|")
    for how in folder.PICTURES:
        request = folder.Request([convoscope.METHODS[m]() for m in DEFAULT_METHODS], [None], pictures=how)
        with tempfile.TemporaryDirectory() as out:
            started = time.perf_counter()
            for number, (path, one) in enumerate(zip(paths, made, strict=False)):
                model.prepare(Picture.of(path))
                folder.write(Path(out) / f"w{number}", one, request, "", complete=True)
            other = (time.perf_counter() - started) / len(made) * len(paths)
        with tempfile.TemporaryDirectory() as out:
            before = bare_passes(model, fitted)
            started = time.perf_counter()
            done = convoscope.explain_folder(model, paths, out, pictures=how)
            wall = time.perf_counter() - started
            limit = (before + bare_passes(model, fitted)) / 2  # before and after: the machine may be shared
        assert len(done.records) == len(paths)
        print(
            f"| {how} | {wall:.1f} | {limit:.1f} | {other:.1f} | {wall / max(limit, other):.2f} "
            f"| {wall / (limit + other):.2f} | {peak():.2f} |", flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()

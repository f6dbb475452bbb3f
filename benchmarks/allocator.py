"""What ``tune_allocator`` changes: processor seconds, page faults and peak memory of common work, with and without.

``python benchmarks/allocator.py`` runs each piece of work in a new process, with and without in turn, one thread.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def bare(pictures: Any, open_: Callable[[], Any]) -> None:
    """Eight batches of 32 through SqueezeNet, nothing else."""
    import torch

    network = open_().module
    with torch.no_grad():
        for _ in range(8):
            network(pictures(32))


def rise(pictures: Any, open_: Callable[[], Any]) -> None:
    """RISE, 600 masks."""
    import convoscope

    convoscope.explain(open_(), pictures(1)[0], convoscope.RISE(samples=600))


def smoothgrad(pictures: Any, open_: Callable[[], Any]) -> None:
    """SmoothGrad of eight pictures."""
    import convoscope

    convoscope.explain(open_(), pictures(8), "smoothgrad")


def clicks(pictures: Any, open_: Callable[[], Any]) -> None:
    """Ten single clicks: the four default maps of one picture."""
    import convoscope

    model = open_()
    for _ in range(10):
        convoscope.explain(model, pictures(1)[0])


WORK = {one.__name__: one for one in (bare, rise, smoothgrad, clicks)}


def child(name: str, tuned: bool) -> None:
    """Do one piece of work and print its cost."""
    import resource

    import convoscope

    if tuned:
        assert convoscope.tune_allocator(), "this C library cannot be tuned"
    import torch

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)

    def pictures(count: int) -> Any:
        return torch.rand(count, 3, 224, 224, generator=generator)

    model = convoscope.open_model("squeezenet1_0", weights="none", device="cpu")
    before = resource.getrusage(resource.RUSAGE_SELF)
    WORK[name](pictures, lambda: model)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(cpu, (after.ru_minflt - before.ru_minflt) / 1e6, after.ru_maxrss / 2**20)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", choices=WORK, nargs="*", default=list(WORK))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child[0], given.child[1] == "tuned")
        return
    source = str(Path(__file__).resolve().parents[1] / "src")
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    print("| work | | CPU s | page faults, millions | peak, GB | seconds, with / without | peak, with / without |")
    print("|---|---|---|---|---|---|---|")
    for name in given.work:
        runs: dict[str, list[list[float]]] = {"plain": [], "tuned": []}
        for _ in range(given.rounds):
            for how, found in runs.items():
                asked = [sys.executable, __file__, "--child", name, how]
                said = subprocess.run(asked, check=True, capture_output=True, text=True, env=environment).stdout
                found.append([float(value) for value in said.split()])
        middle = {
            how: [statistics.median(column) for column in zip(*found, strict=True)] for how, found in runs.items()
        }
        for how, (cpu, faults, peak) in middle.items():
            ratios = "| |"
            if how == "tuned":
                ratios = f"{cpu / middle['plain'][0]:.2f} | {peak / middle['plain'][2]:.2f} |"
            print(f"| {name} | {how} | {cpu:.1f} | {faults:.2f} | {peak:.2f} | {ratios}", flush=True)


if __name__ == "__main__":
    main()

"""``evaluate`` over photos: processor seconds a photo, beside as many bare forwards, and beside another version.

``python benchmarks/evaluate.py FOLDER --weights FILE [--count 8] [--before SRC]``: three methods, four baselines, the
default measures, each version in a new process as the command line runs it, one thread. ``--before`` names the ``src``
folder of another version; the figures of both are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

SOURCE = str(Path(__file__).resolve().parents[1] / "src")
METHODS = ["grad-cam", "saliency", "guided-backprop"]


def child(folder: str, count: int, weights: str, network: str) -> None:
    """Evaluate in this process; print seconds, forwards and figures."""
    import convoscope

    if hasattr(convoscope, "tune_allocator"):
        convoscope.tune_allocator()
    import torch

    try:
        from convoscope.pictures.picture import find_pictures
    except ModuleNotFoundError:  # versions before 27 November 2026
        from convoscope.pictures import find_pictures  # type: ignore[no-redef,attr-defined]
    from convoscope.trust.datasets import Case
    from convoscope.trust.evaluate import Settings, evaluate_cases

    torch.set_num_threads(1)
    model = convoscope.open_model(network, weights=weights, device="cpu")
    cases = [Case(path.name, path) for path in find_pictures([folder])[:count]]

    def seconds() -> float:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime

    begun = seconds()
    evaluate_cases(model, cases[:1], METHODS, settings=Settings())  # with what is prepared once
    first = seconds() - begun
    begun = seconds()
    league = evaluate_cases(model, cases, METHODS, settings=Settings())
    taken = seconds() - begun
    height, width = model.preprocessing.size or (224, 224)
    batch = torch.rand(32, 3, height, width)
    with torch.inference_mode():
        model.module(batch)
        begun = seconds()
        model.module(batch)
        model.module(batch)
        bare = (seconds() - begun) / 64
    print(
        json.dumps(
            {"first": first, "each": taken / len(cases), "bare": bare, "figures": league.to_dict()}, default=str
        )
    )


def numbers(value: Any, at: str = "") -> dict[str, float]:
    """Every number of a document by its place."""
    if isinstance(value, dict):
        return {k: v for name, one in value.items() for k, v in numbers(one, f"{at}/{name}").items()}
    if isinstance(value, list):
        return {k: v for place, one in enumerate(value) for k, v in numbers(one, f"{at}/{place}").items()}
    return {at: float(value)} if isinstance(value, (int, float)) and not isinstance(value, bool) else {}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--weights", default="none")
    parser.add_argument("--network", default="squeezenet1_0")
    parser.add_argument("--before")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.folder, given.count, given.weights, given.network)
        return
    found = {}
    versions = {**({"before": given.before} if given.before else {}), "now": SOURCE}
    for version, source in versions.items():
        asked = [
            sys.executable, __file__, given.folder, "--count", str(given.count), "--weights", given.weights,
            "--network", given.network, "--child",
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
        said = subprocess.run(asked, check=True, capture_output=True, text=True, env=environment).stdout
        found[version] = json.loads(said.splitlines()[-1])
    print("| version | CPU s a photo | the same number of bare forwards (216) | ratio | the first alone |")
    print("|---|---|---|---|---|")
    for version, one in found.items():
        bare = 216 * one["bare"]
        print(f"| {version} | {one['each']:.2f} | {bare:.2f} | {one['each'] / bare:.2f} | {one['first']:.2f} |")
    if given.before:
        ours, theirs = (numbers(found[version]["figures"]) for version in ("now", "before"))
        same = [name for name in ours if name in theirs and "fingerprint" not in name]
        worst = max(abs(ours[name] - theirs[name]) for name in same)
        print(f"\n{found['before']['each'] / found['now']['each']:.2f} times as fast; the largest difference of "
              f"{len(same)} figures is {worst:.1e}.")  # fmt: skip


if __name__ == "__main__":
    main()

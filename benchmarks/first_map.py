"""The occlusion map as a person meets it: the first of a new process, preparation included; and the next.

``python benchmarks/first_map.py [--networks squeezenet1_0 vgg16] [--rivals captum]``: window 32, stride 16, one thread,
processor seconds after the imports of torch and the network's making. *Very first*: the network was never seen on this
processor seconds after torch is imported and the network made. *Very first*: the network was never seen on this
opening that ``convoscope occlude`` takes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = str(Path(__file__).resolve().parents[1] / "src")


def seconds() -> float:
    """Processor seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def child(what: str, network: str) -> None:
    """Make the map twice (captum's: once at each batch size) and print the seconds."""
    import convoscope

    if hasattr(convoscope, "tune_allocator"):
        convoscope.tune_allocator()
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = convoscope.open_model(network, weights="none", device="cpu")
    picture = torch.rand(3, 224, 224)
    found: dict[str, float] = {}
    if what == "captum":
        from captum.attr import Occlusion

        x = model.preprocessing.normalise(picture)[None]
        for batch in (1, 8, 32):
            begun = seconds()
            with torch.no_grad():
                Occlusion(model.module).attribute(
                    x, sliding_window_shapes=(3, 32, 32), strides=(3, 16, 16), target=3, perturbations_per_eval=batch
                )
            found[str(batch)] = seconds() - begun
    else:
        from convoscope.explanation import explain

        for turn in ("first", "next"):
            begun = seconds()
            explain(model, picture, convoscope.Occlusion(window=32, stride=16), target=3)
            found[turn] = seconds() - begun
    print(json.dumps(found))


def run(what: str, network: str, source: str, cache: str) -> dict[str, float]:
    """One new process."""
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1", "CONVOSCOPE_CACHE": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    asked = [sys.executable, __file__, "--child", what, network]
    said = subprocess.run(asked, check=True, capture_output=True, text=True, env=environment).stdout
    told: dict[str, float] = json.loads(said.splitlines()[-1])
    return told


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=["squeezenet1_0", "mobilenet_v2", "resnet18", "vgg16"])
    parser.add_argument("--rivals", nargs="*", default=["captum"])
    parser.add_argument("--before", help="src folder of another version")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(*given.child)
        return
    print(
        "| network | captum's best | before: first | very first | first | next | captum / very first, first, next |"
    )
    print("|---|---|---|---|---|---|---|")
    for network in given.networks:
        with tempfile.TemporaryDirectory() as cache:
            before = run("ours", network, given.before, cache)["first"] if given.before else float("nan")
            very_first = run("ours", network, SOURCE, cache)
            later = run("ours", network, SOURCE, cache)
            rival = min(run("captum", network, SOURCE, cache).values()) if "captum" in given.rivals else float("nan")
        times = [very_first["first"], later["first"], min(very_first["next"], later["next"])]
        ratios = ", ".join(f"{rival / one:.1f}" for one in times)
        print(f"| {network} | {rival:.2f} | {before:.2f} | " + " | ".join(f"{t:.2f}" for t in times) + f" | {ratios} |",
              flush=True)  # fmt: skip


if __name__ == "__main__":
    main()

"""The occlusion map as a person meets it: the first of a new process, preparation included; and the next.

``python benchmarks/first_map.py [--networks squeezenet1_0 vgg16] [--rivals captum] [--threads 2]``: window 32, stride
16. With one thread processor seconds, with more seconds by the clock (for a machine that does nothing else), after
torch is imported and the network made. *Very first*: the network was never seen on this machine; *first*: of a later
process; *next*: in the same process. captum runs as it comes, and with memory kept between passes as ours has it; the
ratios are to captum as it comes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SOURCE = str(Path(__file__).resolve().parents[1] / "src")


def seconds(threads: int = 1) -> float:
    """Processor seconds of this process so far; by the clock where more than one thread is at work."""
    if threads > 1:
        return time.perf_counter()
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def child(what: str, network: str) -> None:
    """Make the map twice (captum's: once at each batch size) and print the seconds."""
    import convoscope

    if what != "captum" and hasattr(convoscope, "tune_allocator"):
        convoscope.tune_allocator()
    with contextlib.suppress(ImportError):  # versions before have no such module
        from convoscope.collector import collect_rarely

        collect_rarely()  # as the command does, for captum, too
    import torch

    threads = int(os.environ["OMP_NUM_THREADS"])
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = convoscope.open_model(network, weights="none", device="cpu")
    with contextlib.suppress(ImportError):
        from convoscope.collector import settle

        settle()
    picture = torch.rand(3, 224, 224)
    found: dict[str, float] = {}
    if what.startswith("captum"):
        from captum.attr import Occlusion

        x = model.preprocessing.normalise(picture)[None]
        for batch in (1, 8, 32):
            begun = seconds(threads)
            with torch.no_grad():
                Occlusion(model.module).attribute(
                    x, sliding_window_shapes=(3, 32, 32), strides=(3, 16, 16), target=3, perturbations_per_eval=batch
                )
            found[str(batch)] = seconds(threads) - begun
    else:
        from convoscope.explanation import explain

        for turn in ("first", "next"):
            begun = seconds(threads)
            explain(model, picture, convoscope.Occlusion(window=32, stride=16), target=3)
            found[turn] = seconds(threads) - begun
    print(json.dumps(found))


def run(what: str, network: str, source: str, cache: str, threads: int) -> dict[str, float]:
    """One new process."""
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": str(threads), "CONVOSCOPE_CACHE": cache}
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
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(*given.child)
        return
    threads = given.threads
    print(
        "| network | captum's best | memory kept | before: first | very first | first | next "
        "| captum / very first, first, next |"
    )
    print("|---" * 8 + "|")
    for network in given.networks:
        with tempfile.TemporaryDirectory() as cache:
            before = run("ours", network, given.before, cache, threads)["first"] if given.before else float("nan")
            very_first = run("ours", network, SOURCE, cache, threads)
            later = run("ours", network, SOURCE, cache, threads)
            rivals = [
                min(run(rival, network, SOURCE, cache, threads).values())
                if "captum" in given.rivals
                else float("nan")
                for rival in ("captum", "captum-tuned")
            ]
        times = [very_first["first"], later["first"], min(very_first["next"], later["next"])]
        ratios = ", ".join(f"{rivals[0] / one:.1f}" for one in times)
        figures = " | ".join(f"{one:.2f}" for one in (*rivals, before, *times))
        print(f"| {network} | {figures} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()

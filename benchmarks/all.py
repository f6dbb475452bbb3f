"""Every table of ``docs/benchmarks.md`` in one run, as ratios, with the load of the machine beside each.

    python benchmarks/all.py [--only explain occlusion] [--photos FOLDER] [--weights FILE] [--quick]

Each script runs by itself, one after the other, and prints its own table; a script that cannot run here (a package is
missing) is named and the rest goes on. Ratios of one run are what to quote: seconds differ from machine to machine. A
load above the number of cores says that other work was going on beside it. All of it takes about two hours on two
cores; ``--quick`` takes a few minutes.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def commands(photos: str | None, weights: str, quick: bool) -> dict[str, list[str]]:
    """Each table's script and its arguments; those that need photos only where there are some."""
    squeeze = ["squeezenet1_0"]
    found = {
        "explain": ["explain.py", *(["--rounds", "2", "--networks", *squeeze] if quick else [])],
        "occlusion": [
            "occlusion.py", "--strides", "16",
            *(["--networks", *squeeze, "--repeat", "1", "--rivals", "dense"] if quick else []),
        ],
        "first map": ["first_map.py", *(["--networks", *squeeze, "--rivals"] if quick else [])],
        "visualisation": ["visualize.py", "--weights", weights, *(["--rounds", "1", "--steps", "2"] if quick else [])],
        "survey": [
            "survey.py", *(["--network", *squeeze, "--pictures", "16", "--repeats", "1"] if quick else ["--naive"]),
        ],
        "trust": ["trust.py", "--pictures", "1" if quick else "4", *(["--repeat", "1"] if quick else [])],
        "diff": [
            "diff.py", *(["--pictures", "32", "--repeats", "1", "--surveys", "100", "--watch", "0"] if quick else []),
        ],
        "allocator": ["allocator.py", *(["--rounds", "1", "--work", "clicks"] if quick else [])],
    }  # fmt: skip
    if photos is not None:
        first = sorted(path for path in Path(photos).iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))[0]
        found["start-up"] = ["startup.py", str(first), *(["--rounds", "1"] if quick else [])]
        found["folder"] = ["folder.py", photos, "--weights", weights, "--count", "16" if quick else "200"]
        found["evaluate"] = ["evaluate.py", photos, "--weights", weights, "--count", "1" if quick else "8"]
    return found


def load() -> str:
    """How busy the machine is: processes that want to run, on average over the last minute, and its cores."""
    try:
        wanting = f"{os.getloadavg()[0]:.1f}"
    except OSError:
        wanting = "unknown"
    return f"load {wanting} on {os.cpu_count()} cores"


def main() -> None:
    """Run the scripts in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--photos", help="a folder of photos: without it start-up, folder and evaluate are left out")
    parser.add_argument("--weights", default="none", help="SqueezeNet's, where a script takes some")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    import torch

    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    print(f"# {time.strftime('%d %B %Y')}: {platform.machine()}, {versions}")
    print(f"{torch.get_num_threads()} threads (OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')})")
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parent / "src"), environment.get("PYTHONPATH", "")])
    failed = []
    for name, (script, *arguments) in commands(given.photos, given.weights, given.quick).items():
        if given.only and name not in given.only:
            continue
        print(
            f"\n## {name}\n\n`python benchmarks/{' '.join([script, *arguments])}`, before it: {load()}\n", flush=True
        )
        started = time.perf_counter()
        done = subprocess.run([sys.executable, str(HERE / script), *arguments], env=environment, check=False)
        if done.returncode:
            failed.append(name)
        print(f"\n{time.perf_counter() - started:.0f} s; after it: {load()}", flush=True)
    if failed:
        print(f"\nNot run to their end: {', '.join(failed)}")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()

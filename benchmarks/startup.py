"""What a person waits for before anything happens: the help, and one picture explained, each in a new process.

``python benchmarks/startup.py PICTURE [--before SRC]`` prints seconds of processor time (the least of several rounds,
taken in turn), beside ``import torch`` alone. ``--before`` names the ``src`` folder of another version.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = str(Path(__file__).resolve().parents[1] / "src")


def seconds(arguments: list[str], source: str) -> float:
    """Processor seconds of one new process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture")
    parser.add_argument("--before", help="src folder of another version")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    versions = {"now": SOURCE} | ({"before": given.before} if given.before else {})
    found: dict[tuple[str, str], list[float]] = {}
    for number in range(given.rounds + 1):
        for version, source in versions.items():
            with tempfile.TemporaryDirectory() as folder:
                asked = {
                    "import torch": ["-c", "import torch"],
                    "--help": ["-m", "convoscope", "--help"],
                    "explain toybox": ["-m", "convoscope", "explain", "toybox", given.picture, "--out", folder],
                }
                for name, arguments in asked.items():
                    taken = seconds(arguments, source)
                    if number:  # the first round writes compiled files and fills the disk's cache
                        found.setdefault((name, version), []).append(taken)
    print("| | version | CPU seconds, median | least | beyond import torch |\n|---|---|---|---|---|")
    for (name, version), values in sorted(found.items()):
        torch = min(v for (n, _), vs in found.items() if n == "import torch" for v in vs)
        beyond = f"{min(values) - torch:+.2f}"
        print(f"| {name} | {version} | {statistics.median(values):.2f} | {min(values):.2f} | {beyond} |", flush=True)


if __name__ == "__main__":
    main()

"""Runs tests again and again in forks of one process, which has loaded what takes long to load and nothing of ours.

Reads one JSON object a line from standard input (``tests``, ``timeout`` in seconds) and answers with one (``code`` of
pytest, or null where the time was over; ``said``, its last words).
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import tempfile
import time
from importlib.metadata import entry_points
from pathlib import Path

import numpy  # noqa: F401
import PIL.Image  # noqa: F401
import pytest
import safetensors.torch  # noqa: F401
import scipy.stats  # noqa: F401
import torch
import torchvision.models
import torchvision.transforms.v2  # noqa: F401

#: what some tests compare with, where it is installed
OTHERS = ("captum.attr", "pytorch_grad_cam", "skimage.metrics", "sklearn.manifold", "hypothesis")
QUIET = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--no-header", "--tb=line"]


def answer(tests: list[str], timeout: float, place: Path) -> dict[str, object]:
    """What became of the tests in a process of their own; they stop at the first that fails."""
    said = place / "said.txt"
    child = os.fork()
    if child == 0:
        code = 3
        try:
            os.setpgid(0, 0)
            number = os.open(said, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
            os.dup2(number, 1)
            os.dup2(number, 2)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            code = int(pytest.main([*QUIET, f"--basetemp={place / 'pytest'}", *tests]))
        finally:
            sys.stdout.flush()
            os._exit(code)
    until = time.monotonic() + timeout
    code = None
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            break
        time.sleep(0.02)
    else:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    text = said.read_text(encoding="utf-8", errors="replace") if said.exists() else ""
    return {"code": code, "said": text[-1500:]}


def main() -> None:
    """Serve until standard input ends."""
    torch.set_num_threads(1)
    for plugin in entry_points(group="pytest11"):  # every fork would load them anew: four seconds
        plugin.load()
    for name in OTHERS:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix="mutation-run-") as place:
        for line in sys.stdin:
            asked = json.loads(line)
            print(json.dumps(answer(asked["tests"], asked["timeout"], Path(place))), flush=True)


if __name__ == "__main__":
    main()

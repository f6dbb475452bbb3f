"""A folder of explanations that is killed at a random moment: what was done stays, and the next run gives the rest."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_faults import NET, files_below, results

from convoscope.cli import run

PICTURES = 10


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, pictures, and what an undisturbed run makes of them."""
    root = tmp_path_factory.mktemp("killed")
    (root / "net.py").write_text(NET)
    (root / "p").mkdir()
    draw = np.random.default_rng(0)
    for number in range(PICTURES):
        Image.fromarray(draw.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(root / "p" / f"{number:02}.png")
    assert run(asked(root, root / "whole")) == 0
    return root


def asked(place: Path, out: Path) -> list[str]:
    # one picture a batch: the numbers are then equal to the last bit, whatever was done before
    flags = ["--size", "40", "--batch-size", "1", "-m", "grad-cam,occlusion", "--stride", "5", "--window", "10"]
    return ["explain", f"{place}/net.py:build", f"{place}/p", *flags, "--out", str(out)]


def done(out: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in out.glob("*/explain.json")}


def same(one: Any, other: Any) -> bool:
    """Equal to the last bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    return bool(np.array_equal(one, other)) if isinstance(one, np.ndarray) else bool(one == other)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))])
def test_a_killed_folder_is_finished_by_the_same_command(place: Path, tmp_path: Path, seed: int) -> None:
    draw, out = random.Random(seed), tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    child = subprocess.Popen(
        [sys.executable, "-m", "convoscope", *asked(place, out)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment,
    )  # fmt: skip
    least, until = draw.randrange(PICTURES - 3), time.monotonic() + 120
    while time.monotonic() < until and child.poll() is None and len(done(out)) <= least:
        time.sleep(0.005)
    time.sleep(draw.uniform(0, 0.05))
    child.send_signal(signal.SIGKILL)
    said = child.communicate()[1]
    before = done(out)
    assert len(before) > least, said
    for path in before:  # a record that is there is whole
        json.loads(path.read_text(encoding="utf-8"))
    assert run(asked(place, out)) == 0
    after = done(out)
    assert len(after) == PICTURES
    assert all(after[path] == stamp for path, stamp in before.items())  # nothing is done twice
    found, whole = results(out), results(place / "whole")
    assert found.keys() == whole.keys()
    assert [name for name in whole if not same(found[name], whole[name])] == []
    left = [file for file in files_below(out) if file.name.endswith(".part") or ".making-" in str(file)]
    assert left == []

"""600 random command lines: a promised exit code, one JSON document where asked for, and never our own error."""

from __future__ import annotations

import json
import pickle
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_lines import commands, draw_line
from PIL import Image
from test_faults import NET

from convoscope.cli import run

LINES, EACH = 600, 20


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks, pictures, a store and broken files, as a person's folder holds them."""
    root = tmp_path_factory.mktemp("lines")
    (root / "net.py").write_text(NET)
    (root / "labels.txt").write_text("red\ngreen\nblue\n")
    (root / "broken.json").write_text('{"findings": [{')
    (root / "weights.pth").write_bytes(pickle.dumps({"x": 1}))
    (root / "empty").mkdir()
    draw = np.random.default_rng(0)
    rows = ["file,label"]
    for name in ("red", "green", "blue"):
        (root / "few" / name).mkdir(parents=True)
        for number in range(3):
            Image.fromarray(draw.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(
                root / "few" / name / f"{number}.png"
            )
            rows.append(f"{name}/{number}.png,{name}")
    (root / "truth.csv").write_text("\n".join(rows))
    model = [f"{root}/net.py:build", f"{root}/few", "--labels", f"{root}/labels.txt", "--size", "20"]
    assert run(["survey", *model, "--out", f"{root}/store"]) == 0
    return root


@pytest.fixture
def aside(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, since some commands write into what they are given."""
    shutil.copytree(place, tmp_path / "at")
    monkeypatch.chdir(tmp_path / "at")
    monkeypatch.setenv("CONVOSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "at"


def test_every_command_is_drawn(tmp_path: Path) -> None:
    drawn = {tuple(draw_line(random.Random(number), tmp_path, tmp_path)[:1]) for number in range(LINES)}
    assert drawn == {path[:1] for path in commands()}


@pytest.mark.parametrize("part", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, LINES // EACH))])
@pytest.mark.filterwarnings("ignore")
def test_random_command_lines(aside: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], part: int) -> None:
    bad: list[Any] = []
    for number in range(part * EACH, (part + 1) * EACH):
        line = draw_line(random.Random(number), aside, tmp_path / "out")
        capfd.readouterr()
        code = run(line)
        out, err = capfd.readouterr()
        if code not in (0, 1, 2, 130) or "should not" in err or "Traceback" in err:
            bad.append((number, line, code, err[-300:]))
        if code == 2 and not err.strip():
            bad.append((number, line, "no sentence"))
        if "--json" in line and code < 2 and "--help" not in line:
            try:
                json.loads(out)
            except ValueError:
                bad.append((number, line, "stdout is not one JSON document", out[:200]))
    assert not bad, "\n".join(map(str, bad))

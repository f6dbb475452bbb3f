"""A type checker sees real types in a user's script: ``explain(...)`` is not ``Any``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"
SCRIPT = """
from pathlib import Path
import convoscope as cs

model = cs.open_model("toybox")
reveal_type(model)
one = cs.explain(model, "cat.jpg", "grad-cam", target="cat")
reveal_type(one)
reveal_type(one["grad-cam"])
reveal_type(cs.explain(model, Path("cat.jpg")))
reveal_type(cs.explain(model, ["a.jpg", "b.jpg"]))
reveal_type(one.sheet(width=84))
reveal_type(cs.survey(model, "photos", "store"))
reveal_type(cs.diff("a", "b", "photos"))
reveal_type(cs.serve(model))
cs.explain(model, "cat.jpg", colour="red")
"""
WANTED = [
    "convoscope.models.model.Model", "convoscope.results.Explanation", "convoscope.heatmap.Heatmap",
    "convoscope.results.Explanation", "convoscope.results.Explanations", "convoscope.draw.sheet.Sheet",
    "convoscope.surveys.store.store.Store", "convoscope.improve.diff.result.Diff", "convoscope.web.inline.Served",
]  # fmt: skip


@pytest.mark.slow
def test_a_users_script_sees_real_types(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--ignore-missing-imports", "--follow-imports=silent", "script.py"],
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "MYPYPATH": str(SOURCE)},
    )  # fmt: skip
    revealed = [line.split('"')[1] for line in done.stdout.splitlines() if "Revealed type" in line]
    assert revealed == WANTED, done.stdout + done.stderr
    assert "No overload variant" in done.stdout or "Unexpected keyword" in done.stdout

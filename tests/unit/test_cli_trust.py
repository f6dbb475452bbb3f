"""``convoscope evaluate`` and ``explain --trust``, through the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from convoscope.cli import run
from convoscope.trust import datasets

FEW = [
    "--limit",
    "2",
    "--method",
    "grad-cam,saliency",
    "--measure",
    "pointing,energy-inside,deletion",
    "--steps",
    "4",
]


def evaluate(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any, str]:
    code = run(["evaluate", *arguments, "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out.strip() else None, err


def test_the_toybox_needs_no_data(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, found, _ = evaluate(capsys, "toybox", *FEW, "--out", str(tmp_path / "a"))
    assert code == 0
    assert list(found["measures"]) == ["pointing", "energy-inside", "deletion"]
    cell = found["measures"]["deletion"]["grad-cam"]
    assert set(cell) == {"mean", "low", "high", "n"}
    assert cell["n"] == 2
    for name in ("centre", "random", "edges", "grad-cam", "saliency"):
        assert name in found["measures"]["pointing"]
    assert set(found["cheat"]) >= {"grad-cam", "saliency", "edges"}
    assert found["cheat"]["grad-cam"]["tag_energy_cheat"] > 5 * found["cheat"]["grad-cam"]["tag_energy_honest"]
    for ending in ("json", "csv", "md", "png"):
        assert (tmp_path / "a" / f"league.{ending}").is_file()
    assert json.loads((tmp_path / "a" / "league.json").read_text()) == found
    # once more: nothing is measured again
    before = (tmp_path / "a" / "cases.jsonl").stat().st_mtime_ns
    assert evaluate(capsys, "toybox", *FEW, "--out", str(tmp_path / "a"))[1] == found
    assert (tmp_path / "a" / "cases.jsonl").stat().st_mtime_ns == before
    # the same folder for something else
    code, _, err = evaluate(capsys, "toybox", *FEW[:-1], "5", "--out", str(tmp_path / "a"))
    assert code == 2
    assert "another evaluation" in err


def test_boxes_with_a_picture_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from PIL import Image

    (case,) = datasets.toybox_cases(1)
    Image.fromarray(case.source).save(tmp_path / "a.png")
    rows = [{"file": name, "class_index": case.target, "boxes": [[10, 10, 80, 80]]} for name in ("a.png", "gone.png")]
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    arguments = ["toybox", "--boxes", str(tmp_path / "boxes.json"), *FEW[2:], "--out", str(tmp_path / "o")]
    code, found, err = evaluate(capsys, *arguments)
    assert code == 1
    assert list(found["failed"]) == ["gone"]
    assert "gone.png" in err
    assert found["measures"]["pointing"]["centre"] == {"mean": 1.0, "low": 1.0, "high": 1.0, "n": 1}
    assert "cheat" not in found


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["squeezenet1_0", "--weights", "none"], "--boxes"),
        (["toybox", "--boxes", "a.json", "--masks", "b.json"], "different truths"),
        (["toybox", "--boxes", "nowhere.json"], "nowhere.json"),
        (["toybox", "--measure", "beauty"], "beauty"),
        (["toybox", "--method", "gradcam"], "grad-cam"),
        (["toybox", "--deletion-fill", "sky"], "sky"),
        (["toybox", "--resize", "nearest"], "nearest"),
    ],
)
def test_what_cannot_start_says_why(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], said: str
) -> None:
    code, found, err = evaluate(capsys, *arguments, "--out", str(tmp_path / "o"))
    assert code == 2
    assert found is None
    assert said in err
    assert len(err.strip().splitlines()) == 1


def test_the_table_of_a_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["evaluate", "toybox", *FEW, "--no-cheat", "--out", str(tmp_path)]) == 0
    out, _ = capsys.readouterr()
    assert "pointing ↑" in out
    assert "deletion ↓" in out
    assert "random-smooth" in out
    assert "tag" not in out


def test_explain_with_trust(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from PIL import Image

    (case,) = datasets.toybox_cases(1)
    Image.fromarray(case.source).save(tmp_path / "a.png")
    arguments = ["explain", "toybox", str(tmp_path / "a.png"), "--method", "grad-cam,eigen-cam", "--trust"]
    assert run([*arguments, "--out", str(tmp_path / "o"), "--no-pictures"]) == 0
    out, _ = capsys.readouterr()
    assert "survives a random classifier" in out
    (record,) = (tmp_path / "o").glob("**/explain.json")
    trust = json.loads(record.read_text())["trust"]
    assert set(trust) == {"grad-cam", "eigen-cam"}
    assert trust["eigen-cam"]["survives_randomised_classifier"] == pytest.approx(1)


def test_help_needs_no_torch() -> None:
    code = "import sys; from convoscope.cli import run; run(['evaluate', '--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--boxes" in done.stdout

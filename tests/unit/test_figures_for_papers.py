"""Figures at a column's width, LaTeX tables, BibTeX, and the same maps again."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import convoscope as cs
from convoscope.draw.canvas import Text
from convoscope.errors import UsageError
from convoscope.methods import METHODS, bibtex
from convoscope.trust.league import League


@pytest.fixture(scope="module")
def explained():
    from convoscope.toybox import draw

    model = cs.open_model("toybox")
    photo = draw(3, label="cat").image
    return cs.explain(model, photo, ["grad-cam", "saliency", "guided-backprop", "hirescam"], target=["cat", "bird"])


def texts(sheet):
    return [item for item in sheet.drawing.items if isinstance(item, Text)]


@pytest.mark.parametrize("width", [60, 84, 174])
def test_a_figure_is_exactly_as_wide_as_asked_and_its_text_keeps_its_size(explained, width):
    sheet = explained.sheet(width=width)
    assert sheet.size[0] == pytest.approx(width * 72 / 25.4)
    assert min(one.size for one in texts(sheet)) >= 6.0
    for one in texts(sheet):
        left, _, right, bottom = one.bounds
        assert left >= -0.5
        assert right <= sheet.size[0] + 0.5
        assert bottom <= sheet.size[1] + 0.5


def test_the_pdf_of_a_figure_has_that_width(explained, tmp_path):
    file = explained.sheet(width=84).save(tmp_path / "figure.pdf")
    box = re.search(rb"/MediaBox \[0 0 ([\d.]+) ", file.read_bytes())
    assert float(box[1]) == pytest.approx(84 * 72 / 25.4, abs=0.5)


def test_titles_caption_and_no_title(explained):
    sheet = explained.sheet(
        width=174, title=None, titles={"grad-cam": "Ours", "cat": "a cat"}, caption="Two classes."
    )
    said = [one.text for one in texts(sheet)]
    assert not any("toybox" in one for one in said)
    assert "Ours" in said
    assert "a cat" in said
    assert "Two classes." in said
    assert "Grad-CAM" not in said
    assert any("toybox" in one.text for one in texts(explained.sheet(width=174)))


def test_columns_fold_a_row(explained):
    assert explained.sheet(width=174, columns=2).size[1] > explained.sheet(width=174, columns=4).size[1]
    with pytest.raises(UsageError, match="smaller columns"):
        explained.sheet(width=30, columns=4)
    with pytest.raises(UsageError, match="millimetres"):
        explained.sheet(width=3)


def test_one_scale_for_all_needs_one_unit(explained):
    with pytest.raises(UsageError, match="one unit"):
        explained.sheet(shared="all")
    model = cs.open_model("toybox")
    from convoscope.toybox import draw

    found = cs.explain(model, draw(3, label="cat").image, ["saliency", "guided-backprop"], target=["cat", "bird"])
    numbers = [one.text for one in texts(found.sheet(shared="all")) if one.text.startswith("≥")]
    assert len(numbers) == 4
    assert len(set(numbers)) == 1
    assert len({one.text for one in texts(found.sheet()) if one.text.startswith("≥")}) > 1


def test_latex_escapes_and_is_balanced():
    league = League.of({"p": {"iou": {"grad-cam": 0.5, "my_method": 0.25}}}, model="50% & more")
    table = league.latex()
    assert r"my\_method" in table
    assert table.count("{") == table.count("}")
    rows = [line for line in table.splitlines() if line.endswith(r"\\")]
    assert {line.count("&") for line in rows} == {1}


def test_bibtex_has_every_method_once():
    entries = re.findall(r"@\w+\{([^,]+),", bibtex(METHODS))
    assert len(entries) == len(set(entries))
    assert len(entries) >= 20
    assert bibtex(["grad-cam@layer1", "grad-cam", "random"]) == METHODS["grad-cam"].about.bibtex.strip() + "\n"


def test_evaluate_and_diff_write_tables(cli, toys, tmp_path):
    answer = cli(
        "evaluate", "toybox", "--measure", "pointing", "--limit", 3, "--method", "saliency,grad-cam", "--no-cheat",
        "--out", tmp_path / "league", "--latex", tmp_path / "t.tex", "--bib", tmp_path / "m.bib",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert (tmp_path / "t.tex").read_text("utf-8").count(r"\begin{tabular}") == 1
    assert len(re.findall(r"^@", (tmp_path / "m.bib").read_text("utf-8"), re.M)) == 2
    from convoscope.toybox import write

    write(tmp_path / "more", 32, seed=4)
    answer = cli(
        "diff", "toybox", "toybox-cheat", tmp_path / "more", "--out", tmp_path / "d", "--latex", tmp_path / "d.tex",
        "--bib", tmp_path / "d.bib",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    table = (tmp_path / "d.tex").read_text("utf-8")
    assert "toybox-cheat &" in table
    assert table.count("{") == table.count("}")
    papers = (tmp_path / "d.bib").read_text("utf-8")
    assert papers.count("{") == papers.count("}")
    entries = re.findall(r"^@\w+\{([^,]+),", papers, re.M)
    assert len(set(entries)) == len(entries)
    # of what was done: two networks are no run, so nothing is forgotten; the flips' maps are Grad-CAM's
    assert {"mcnemar1947note", "nguyen2021wide", "guo2017calibration"} < set(entries)
    assert not any("forgetting" in name for name in entries)
    assert METHODS["grad-cam"].about.bibtex.strip() in papers


@pytest.fixture
def kept(cli, toys, tmp_path):
    answer = cli(
        "explain", "toybox", toys / "key-00000.png", "--method", "grad-cam,smoothgrad,occlusion", "--set",
        "smoothgrad.samples=3", "--set", "occlusion.window=32", "--set", "occlusion.stride=32", "--target", "top2",
        "--against", "cat", "--no-pictures", "--out", tmp_path / "out", "--bib", tmp_path / "m.bib",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert len(re.findall(r"^@", (tmp_path / "m.bib").read_text("utf-8"), re.M)) == 3
    return tmp_path / "out" / "key-00000"


def test_rerun_makes_the_same_maps(cli, kept):
    answer = cli("rerun", kept / "explain.json", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["same"] is True
    assert set(answer.json["differences"]) == set(np.load(kept / "maps.npz"))
    assert len(answer.json["differences"]) == 3
    assert answer.json["changed"] == []


def test_rerun_says_what_has_changed(cli, kept):
    record = json.loads((kept / "explain.json").read_text("utf-8"))
    record["provenance"]["versions"]["torch"] = "1.0"
    record["provenance"]["fingerprint"] = "0" * 64
    record["sha256"] = "0" * 64
    (kept / "explain.json").write_text(json.dumps(record), "utf-8")
    with np.load(kept / "maps.npz") as maps:
        changed = dict(maps)
    changed["grad-cam"] = changed["grad-cam"] + 0.01 * np.abs(changed["grad-cam"]).max()
    np.savez(kept / "maps.npz", **changed)
    answer = cli("rerun", kept)
    assert answer.code == 1
    assert re.search(r"^other +grad-cam  \(largest difference 0.0099", answer.out, re.M)
    assert re.search(r"^the same +smoothgrad", answer.out, re.M)
    assert "torch was 1.0" in answer.out
    assert "fingerprint 000000000000" in answer.out
    assert "has other bytes" in answer.out


def test_rerun_of_another_network_shows_in_the_maps(cli, kept):
    answer = cli("rerun", kept, "--model", "toybox-cheat", "--json")
    assert answer.code == 1
    assert answer.json["same"] is False
    assert max(answer.json["differences"].values()) > 0.1


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda kept: (kept / "explain.json").write_text("{}", "utf-8"), "is no explain.json"),
        (lambda kept: (kept / "explain.json").write_text("nonsense", "utf-8"), "is no explain.json"),
        (lambda kept: (kept / "maps.npz").unlink(), "maps of the first time are not there"),
    ],
)
def test_rerun_refuses_in_one_sentence(cli, kept, spoil, said):
    spoil(kept)
    answer = cli("rerun", kept)
    assert answer.code == 2
    assert said in answer.err


def test_rerun_needs_the_question(cli, kept):
    record = json.loads((kept / "explain.json").read_text("utf-8"))
    record["asked"]["targets"] = None
    (kept / "explain.json").write_text(json.dumps(record), "utf-8")
    answer = cli("rerun", kept)
    assert answer.code == 2
    assert "does not say what was asked" in answer.err

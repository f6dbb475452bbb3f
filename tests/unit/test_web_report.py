"""The report: one file, no network, no scripts, the numbers of ``explain --json``."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convoscope.cli import run
from convoscope.reports.report import report


class Reader(HTMLParser):
    """Every tag with its attributes, and the data of the element with the numbers."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.numbers = ""
        self._in_numbers = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_numbers = dict(attrs).get("id") == "numbers"

    def handle_endtag(self, tag: str) -> None:
        self._in_numbers = False

    def handle_data(self, data: str) -> None:
        if self._in_numbers:
            self.numbers += data


@pytest.fixture(scope="module")
def files(toybox_folder: Path) -> list[Path]:
    return sorted(toybox_folder.glob("*.png"))


def test_it_holds_the_numbers_of_explain(files: list[Path], tmp_path: Path, capsys: Any) -> None:
    pictures = [str(file) for file in files[:2]]
    assert run(["report", "toybox", *pictures, "--out", str(tmp_path / "r.html")]) == 0
    capsys.readouterr()
    assert run(["explain", "toybox", *pictures, "--out", str(tmp_path / "maps"), "--json", "--no-pictures"]) == 0
    expected = json.loads(capsys.readouterr().out)
    found = json.loads(Reader((tmp_path / "r.html").read_text()).numbers)
    assert [one["picture"] for one in found] == [one["picture"] for one in expected]
    for mine, other in zip(found, expected, strict=True):
        assert mine["score"] == pytest.approx(other["score"], rel=1e-5)
        assert mine["probability"] == pytest.approx(other["probability"], rel=1e-5)
        assert [row["label"] for row in mine["prediction"]] == [row["label"] for row in other["prediction"]]
        assert list(mine["maps"]) == list(other["maps"])
        for name, about in mine["maps"].items():
            for figure in ("min", "max", "sum"):
                assert about[figure] == pytest.approx(other["maps"][name][figure], rel=1e-4, abs=1e-7), (name, figure)
        assert f"score {mine['score']:.3g}" in (tmp_path / "r.html").read_text()


def test_nothing_in_it_asks_a_network_or_runs(toybox_model: Any, files: list[Path]) -> None:
    text = report(toybox_model, files[:1]).html
    read = Reader(text)
    for tag, attributes in read.tags:
        for name in ("src", "href", "action", "data", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/", "#")), (tag, name, value)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        if tag == "script":
            assert attributes == {"type": "application/json", "id": "numbers"}
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
    assert not re.search(r"@import|url\((?!data:)", text)
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in text


def test_names_and_labels_are_no_markup(toybox_model: Any, tmp_path: Path, files: list[Path]) -> None:
    wicked = tmp_path / "<img src=x onerror=alert(1)>&amp;'\".png"
    wicked.write_bytes(files[0].read_bytes())
    import dataclasses

    labels = tuple(f"</script><b>{label}</b>" for label in toybox_model.labels)
    model = dataclasses.replace(toybox_model, labels=labels)
    found = report(model, [wicked], title="<script>alert(2)</script>")
    read = Reader(found.html)
    assert not any("onerror" in attributes for _, attributes in read.tags)
    assert sum(tag == "script" for tag, _ in read.tags) == 1
    assert json.loads(read.numbers)[0]["picture"] == wicked.name
    assert json.loads(read.numbers)[0]["target"].startswith("</script>")


def test_ten_pictures_are_under_fifteen_megabytes(toybox_model: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    # noise compresses worst: no photo is larger
    pictures = [rng.integers(0, 255, (480, 640, 3), dtype=np.uint8) for _ in range(10)]
    found = report(toybox_model, pictures)
    path = found.save(tmp_path / "r.html")
    assert path.stat().st_size < 15_000_000
    assert len(found.records) == 10


def test_a_picture_that_fails_is_named_and_the_rest_done(files: list[Path], tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    code = run(["report", "toybox", str(files[0]), str(tmp_path / "broken.png"), "--out", str(tmp_path / "r.html")])
    assert code == 1
    assert "broken.png" in capsys.readouterr().err
    text = (tmp_path / "r.html").read_text()
    assert "broken.png" in text
    assert len(json.loads(Reader(text).numbers)) == 1


def test_a_refused_method_says_why(toybox_model: Any, files: list[Path]) -> None:
    found = report(toybox_model, files[:1], methods=["grad-cam", "attention-rollout"])
    assert "No map:" in found.html
    assert "attention-rollout" in found.records[0]["refused"]


def test_with_a_survey_and_verdicts(toybox_model: Any, files: list[Path], toybox_store: Any) -> None:
    found = report(toybox_model, files[:1], methods=["grad-cam"], store=toybox_store, trust=True)
    assert "Pictures that it finds alike" in found.html
    assert "what else they fire for" in found.html
    assert "The collection: 24 pictures" in found.html
    verdict = found.records[0]["trust"]["grad-cam"]["sentence"]
    assert verdict.rstrip(".") in found.html


def test_bad_commands_get_a_sentence(files: list[Path], tmp_path: Path, capsys: Any) -> None:
    for arguments, said in (
        (["report", "toybox", str(files[0]), "--out", str(tmp_path / "r.pdf")], ".html"),
        (["report", "toybox", str(tmp_path / "nothing.png"), "--out", str(tmp_path / "r.html")], "no such file"),
        (["report", "toybox", str(files[0]), "--target", "zebra", "--out", str(tmp_path / "r.html")], "zebra"),
        (["report", "toybox", str(files[0]), "--survey", str(tmp_path), "--out", f"{tmp_path}/r.html"], "survey"),
    ):  # fmt: skip
        assert run(arguments) != 0
        error = capsys.readouterr().err
        assert said in error, error
        assert "Traceback" not in error


def test_concepts_show_what_the_class_is_made_of(files: list[Path], tmp_path: Path) -> None:
    from convoscope import UsageError, open_model, survey
    from convoscope.toybox import draw

    for number in range(14):
        (tmp_path / "p" / "cat").mkdir(parents=True, exist_ok=True)
        draw(52_000_000 + number, label="cat").picture().save(tmp_path / "p" / "cat" / f"{number}.png")
    model = open_model("toybox-twin")
    with survey(model, str(tmp_path / "p"), tmp_path / "store") as store:
        cat = tmp_path / "p" / "cat" / "0.png"
        made = report(model, [cat], methods=["grad-cam"], target="cat", store=store, concepts=True).html
        fish = report(model, [cat], methods=["grad-cam"], target="fish", store=store, concepts=True).html
    assert "What cat is made of" in made
    assert made.count("Without it") == 3
    assert "No parts of fish: " in fish, "the collection has no fish, and the report says so"
    with pytest.raises(UsageError, match="--survey"):
        report(model, [cat], concepts=True)

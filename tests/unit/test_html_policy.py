"""Every HTML file that is written allows nothing from outside, sends nothing, and shows names as they are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import convoscope
from convoscope.html import page, render
from convoscope.names import in_json, shown, upright

TEMPLATES = Path(render.__file__).parent / "templates"
SOURCES = Path(convoscope.__file__).parent
#: a name that reads as "cat exe.png" for people, and is "cat gnp.exe"
TURNED = "cat \u202egnp.exe"


def policy(html: str) -> dict[str, str]:
    """The directives of the page's own policy; it must stand before anything that could load."""
    found = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]+)">', html)
    assert found is not None
    before = html[: found.start()]
    assert not re.search(r"<(script|style|link|img|iframe|object)\b", before)
    return {name: rest for name, _, rest in (part.strip().partition(" ") for part in found[1].split(";"))}


def check(html: str, *, scripts: bool = False) -> None:
    allowed = policy(html)
    assert allowed["default-src"] == "'none'"
    assert allowed["form-action"] == allowed["base-uri"] == "'none'"
    for name, rest in allowed.items():
        assert not re.search(r"https?:|\*", rest), (name, rest)
    assert not {"connect-src", "frame-src", "object-src", "worker-src", "font-src"} & set(allowed)
    assert ("script-src" in allowed) == scripts
    outside = re.findall(r'<(?:img|script|link|iframe)\b[^>]*\b(?:src|href)="(?!data:)([^"]*)"', html)
    assert not [one for one in outside if "//" in one], outside
    assert "\u202e" not in html


def test_every_template_has_the_policy() -> None:
    base = (TEMPLATES / "base.html").read_text(encoding="utf-8")
    assert policy(base)["default-src"] == "'none'"
    for file in sorted(TEMPLATES.glob("*.html")):
        text = file.read_text(encoding="utf-8")
        whole = "<html" in text or "<body" in text
        assert whole == (file.name == "base.html"), f"{file.name}: extend base.html, which has the policy"


def test_nobody_writes_a_page_in_another_way() -> None:
    """Where a page begins, a policy stands: a new page in Python must go the same way."""
    for file in sorted(SOURCES.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        if re.search(r"<html[ >]", text) and "toybox" not in file.parts:
            if file.name == "weights.py":  # recognises pages that were saved in place of weights
                continue
            assert "Content-Security-Policy" in text, file


def test_pages_of_pictures(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    section = page.Section(TURNED, TURNED, [page.Item("a.png", TURNED)])
    for file in (
        page.write(tmp_path, TURNED, TURNED, [section]),
        page.embed(tmp_path / "one.html", TURNED, TURNED, [section]),
    ):
        text = file.read_text(encoding="utf-8")
        check(text)
        assert "cat \ufffdgnp.exe" in text


def test_the_report(toybox_model: Any, tmp_path: Path) -> None:
    from convoscope.reports.report import report
    from convoscope.toybox import draw

    source = tmp_path / f"{TURNED}.png"
    convoscope.Picture.of(draw(3).image).image.save(source)
    made = report(toybox_model, [source], methods=["grad-cam"], title=TURNED)
    text = made.save(tmp_path / "report.html").read_text(encoding="utf-8")
    check(text)
    import json

    numbers = re.search(r'<script type="application/json" id="numbers">(.*?)</script>', text, re.S)
    assert numbers is not None
    assert "cat \ufffdgnp.exe" in json.loads(numbers[1])[0]["picture"]


def test_the_map(toybox_store: Any) -> None:
    pytest.importorskip("plotly")
    made = toybox_store.map("pca")
    row = {**made.rows[0], "label": TURNED}
    made.rows[0] = row
    from convoscope.surveys.ask.map_html import html

    text = html(made)
    check(text, scripts=True)
    ours = text[text.rindex('"use strict"') :]
    assert "showSendToCloud: false" in ours
    assert 'plotlyServerURL: ""' in ours


def test_names_that_turn_the_text() -> None:
    for mark in "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069":
        assert upright(f"a{mark}b") == "a\ufffdb" == shown(f"a{mark}b")
        assert in_json(f'"a{mark}b"') == f'"a\\u{ord(mark):04x}b"'
    for name in ("고양이.jpg", "قطة.png", "cat\u200d.png", "a\u0301.png"):
        assert upright(name) == name == in_json(name)

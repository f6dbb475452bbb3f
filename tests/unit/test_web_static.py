"""The static page: both languages say the same things, nothing is loaded from elsewhere, every id has its words."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest

STATIC = Path(str(resources.files("convoscope.web") / "static"))
SCRIPTS = sorted(STATIC.rglob("*.js"))


def strings(language: str) -> dict[str, str]:
    text = (STATIC / "js" / "strings" / f"{language}.js").read_text(encoding="utf-8")
    return dict(re.findall(r'(\w+): "((?:[^"\\]|\\.)*)"', text))


def test_both_languages_have_the_same_phrases_with_the_same_gaps() -> None:
    english, korean = strings("en"), strings("ko")
    assert set(english) == set(korean)
    for key, phrase in english.items():
        assert set(re.findall(r"\{(\w+)\}", phrase)) == set(re.findall(r"\{(\w+)\}", korean[key])), key
        assert korean[key].strip()
    hangul = sum(bool(re.search("[가-힣]", phrase)) for phrase in korean.values())
    assert hangul > 0.95 * len(korean)


def test_every_phrase_that_is_asked_for_is_there() -> None:
    known = set(strings("en"))
    asked: set[str] = set()
    for script in SCRIPTS:
        asked |= set(re.findall(r'\bt\("(\w+)"', script.read_text(encoding="utf-8")))
    assert asked <= known, asked - known
    assert len(asked) > 100


def test_longer_words_are_in_both_languages() -> None:
    text = (STATIC / "js" / "words.js").read_text(encoding="utf-8")
    english, korean = text.split("const ko = {")[0], text.split("const ko = {")[1]
    for part in (english, korean):
        assert len(re.findall(r'^    \["[#.]', part, re.M)) == 7, "steps of the tour"
    keys = re.findall(r'^    "([a-z0-9-]+)":', english, re.M)
    assert keys == re.findall(r'^    "([a-z0-9-]+)":', korean, re.M)


@pytest.mark.parametrize("file", sorted(p for p in STATIC.rglob("*") if p.is_file()), ids=lambda p: p.name)
def test_nothing_is_loaded_from_elsewhere(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    for url in re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text):
        assert url in ("http://www.w3.org", "//www.w3.org"), url
    assert "innerHTML" not in text
    assert "eval(" not in text
    assert not re.search(r"new Function\b", text)
    if file.suffix == ".html":
        assert not re.search(r"<script(?![^>]*\bsrc=)", text)
        assert " style=" not in text


def test_every_import_is_a_file() -> None:
    for script in SCRIPTS:
        for name in re.findall(r'(?:from|import\()\s*"(\./[^"]+)"', script.read_text(encoding="utf-8")):
            assert (script.parent / name).is_file(), (script.name, name)

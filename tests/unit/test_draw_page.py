"""The static page: every picture shown, described and found, nothing from outside, no script."""

from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from convoscope.errors import UsageError
from convoscope.html import page
from convoscope.html.page import Item, Section

VOID = {"meta", "link", "img", "br", "hr"}


class Reader(HTMLParser):
    """Collects tags with their attributes and fails on wrong nesting."""

    def __init__(self):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def read(path):
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    assert reader.open == []
    return reader


@pytest.fixture
def folder(tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8))
    (tmp_path / "sub").mkdir()
    picture.save(tmp_path / "a.png")
    picture.save(tmp_path / "sub" / "o d%d#.png")
    (tmp_path / "maps.json").write_text("{}")
    return tmp_path


SECTIONS = [
    Section("First", "One sentence.", [Item("a.png", "Caption <b>&", "what is seen")]),
    Section("Second", "", [Item("sub/o d%d#.png", "Odd name"), Item("maps.json", "Numbers")]),
    Section("Third"),
]


def test_page_shows_every_picture_with_text_size_and_description(folder):
    path = page.write(folder, "Title & more", "First paragraph.\n\nSecond one.", SECTIONS, footer="versions")
    assert path == folder / "index.html"
    reader = read(path)
    images = reader.all("img")
    assert [(folder / unquote(i["src"])).is_file() for i in images] == [True, True]
    assert [i["alt"] for i in images] == ["what is seen", "Odd name"]
    assert all((i["width"], i["height"]) == ("30", "20") for i in images)
    for said in ("Title & more", "Second one.", "Caption <b>&", "One sentence.", "versions", "maps.json"):
        assert said in reader.text
    assert reader.all("html")[0]["lang"] == "en"
    assert len(reader.all("h1")) == 1
    assert len(reader.all("h2")) == 3


def test_page_needs_no_script_and_nothing_from_outside(folder):
    text = page.write(folder, "t", "i", SECTIONS).read_text(encoding="utf-8")
    assert "<script" not in text
    assert "http:" not in text
    assert "https:" not in text
    assert "prefers-color-scheme:dark" in text


def test_every_inner_link_has_its_target_and_no_id_comes_twice(folder):
    reader = read(page.write(folder, "t", "i", SECTIONS))
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [a["href"][1:] for a in reader.all("a") if a["href"].startswith("#")]
    assert links
    assert set(links) <= set(ids)


def test_embedded_page_stands_alone(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("mail") / "report.html"
    page.embed(path, "t", "i", SECTIONS, folder=folder)
    images = read(path).all("img")
    assert len(images) == 2
    assert all(i["src"].startswith("data:image/png;base64,") for i in images)
    download = [a for a in read(path).all("a") if a.get("download")]
    assert download[0]["href"].startswith("data:application/json")


def test_a_missing_file_is_named(folder):
    with pytest.raises(UsageError, match=r"gone\.png"):
        page.write(folder, "t", "i", [Section("s", "", [Item("gone.png")])])

"""The demo: every part, the page that shows them, and what happens where a part cannot be shown."""

from __future__ import annotations

import re
import urllib.request

import pytest

from convoscope import demo
from convoscope.demo import decide, network, photo, shortcut
from convoscope.errors import MissingExtra
from convoscope.html.page import Section


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path):
    """No part may need a connection, and none finds weights that happen to lie in the cache."""

    def refuse(*_args, **_settings):
        raise OSError("no network in tests")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def test_all_parts_are_found_in_order():
    found = demo.parts()
    assert found.index(network.specimen) < found.index(decide.why) < found.index(shortcut.shortcut)
    assert found.index(photo.photo) > found.index(shortcut.shortcut)
    assert found[-1].__name__ == "report", "the demo ends with the report"


def test_a_part_that_fails_does_not_take_the_others_along(tmp_path):
    def broken(stage):
        """A broken part."""
        raise ZeroDivisionError("division by zero")

    def refused(stage):
        """A refused part."""
        raise MissingExtra("faiss", "survey", "Neighbours")

    def fine(stage):
        """A fine part."""
        return Section("Fine", "It works.")

    told = []
    page = demo.run(tmp_path, told=told.append, only=[broken, refused, fine]).read_text()
    assert [one.error is None for one in told] == [False, False, True]
    assert "ZeroDivisionError: division by zero" in page
    assert "pip install" in page
    assert "It works." in page


def test_the_shortcut_is_found(tmp_path):
    """The lesson must hold: its figures are computed, not written."""
    section = shortcut.shortcut(demo.Stage(tmp_path))
    figures = [int(number) for number in re.findall(r"(\d+)%", section.sentence)]
    honest_with, cheat_with, honest_without, cheat_without, area, honest_on_tag, cheat_on_tag = figures
    assert min(honest_with, cheat_with, honest_without) >= 90
    assert cheat_without <= 50
    assert cheat_on_tag > 3 * area
    assert cheat_on_tag > honest_on_tag + 20


def test_fetching_leaves_nothing_half_done(tmp_path, monkeypatch):
    class Slow:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return False

        def read(self, _):
            return b"x" * 10

    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: Slow())
    with pytest.raises(TimeoutError):
        photo.fetch("somewhere", tmp_path / "deep" / "file", patience=0.1)
    assert list((tmp_path / "deep").iterdir()) == []


def test_weights_in_the_cache_are_used(tmp_path, monkeypatch, squeezenet_weights):
    import torch
    from safetensors.torch import load_file

    place = tmp_path / "torch" / "hub" / "checkpoints"
    place.mkdir(parents=True)
    from torchvision.models import SqueezeNet1_0_Weights

    torch.save(load_file(squeezenet_weights), place / SqueezeNet1_0_Weights.DEFAULT.url.rsplit("/", 1)[-1])
    pytest.importorskip("skimage")
    section = photo.photo(demo.Stage(tmp_path))
    assert "Egyptian cat" in section.sentence
    assert (tmp_path / "photo.png").is_file()

"""The demo as a new user runs it: every part, and the pages that show them, which ask nothing of other machines."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from browser_helpers import nothing_leaves
from PIL import Image

pytestmark = pytest.mark.browser


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No part may need a connection, and none finds weights that happen to lie in the cache."""

    def refuse(*_args: Any, **_settings: Any) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.timeout(3600)
def test_the_whole_demo(cli: Any, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    out = tmp_path / "demo"
    answer = cli("demo", "--out", out)
    assert answer.code == 0, answer.err
    assert str(out / "index.html") in answer.out
    page = (out / "index.html").read_text()
    shown = set(re.findall(r'<img src="([^"]+)"', page))
    assert len(shown) >= 10
    for name in shown:
        with Image.open(out / name) as image:
            assert min(image.size) > 100
    assert {path.name for path in out.glob("*.png")} == shown
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert len(captions) >= len(shown)
    assert all(len(caption) > 10 for caption in captions)
    # without a connection the photo is named in one line, and nothing fails
    assert "could not be fetched within a few seconds" in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("Not shown:") == 1
    # where there is no browser the demo has been tested all the same
    assert nothing_leaves(request.getfixturevalue("chromium"), out) >= 2

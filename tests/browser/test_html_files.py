"""Every HTML file that a command writes, opened in a browser: it asks no network for anything, and is whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browser_helpers import missing_images

import convoscope

pytestmark = pytest.mark.browser
pytest.importorskip("lance")


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The cheat, 60 pictures of five classes, half of them with its mark, and their parts."""
    from convoscope.surveys import survey
    from convoscope.toybox import write

    base = tmp_path_factory.mktemp("written")
    write(base / "pictures", 60, seed=31, tag=True)
    model = convoscope.open_model("toybox-cheat")
    folder = base / "pictures"
    store = survey(model, folder, base / "store", ["layer3.1.relu#2"], truth=folder / "truth.csv")
    return model, store, folder


def saved(found: Any, into: Path) -> Path:
    found.save(into)
    return into


def many(model: Any, count: int, **what: Any) -> list[Any]:
    import numpy as np

    from convoscope.toybox import draw

    return [np.asarray(draw(9000 + at, **what).image) for at in range(count)]


#: what writes it; those that compute long are among the long sweeps
WRITERS: dict[str, Callable[[Any, Any, Path, Path], Any]] = {
    "audit": lambda model, store, folder, into: saved(convoscope.audit(model, store), into),
    "diagnosis": lambda model, store, folder, into: saved(convoscope.diagnose(model, store, only="data"), into),
    "diff": lambda model, store, folder, into: saved(
        convoscope.diff(model, "toybox", str(folder), maps=2), into / "index.html"
    ),
    "health": lambda model, store, folder, into: saved(convoscope.health(model, store), into),
    "depth": lambda model, store, folder, into: saved(convoscope.depth(model, store), into),
    "stress": lambda model, store, folder, into: saved(convoscope.stress(model, store, most=12), into),
    "shortcuts": lambda model, store, folder, into: saved(convoscope.shortcuts(model, store, only=["border"]), into),
    "dissection": lambda model, store, folder, into: _concepts("page_of_dissection")(
        convoscope.dissect(model, str(folder), parts=str(folder), layers=["layer3"]), into / "dissection.html"
    ),
    "craft": lambda model, store, folder, into: _concepts("page_of_craft")(
        convoscope.craft(model, many(model, 14, label="cup", tag=True), "cup", parts=3), into / "craft.html"
    ),
    "tcav": lambda model, store, folder, into: _concepts("page_of_directions")(
        convoscope.tcav(
            model, {"mark": many(model, 12)}, "cup", random=many(model, 30), layers=["layer3"], sets=20
        ),
        into / "tcav.html",
    ),
    "map": lambda model, store, folder, into: saved(store.map("pca"), into / "map.html"),
    "report": lambda model, store, folder, into: saved(
        _report(model, sorted(folder.glob("*.png"))[:1], store), into / "report.html"
    ),
}  # fmt: skip
LONG = ("stress", "shortcuts", "tcav", "craft", "dissection", "depth")


def _concepts(name: str) -> Any:
    from convoscope.concepts import page

    return getattr(page, name)


def _report(model: Any, pictures: list[Path], store: Any) -> Any:
    from convoscope.reports.report import report

    return report(model, pictures, methods=["grad-cam"], store=store)


def nothing_leaves(chromium: Any, folder: Path) -> int:
    """Open every HTML file of a folder, wide and narrow; returns how many there were."""
    files = sorted(folder.rglob("*.html"))
    for file in files:
        context = chromium.new_context(viewport={"width": 390, "height": 844})
        page = context.new_page()
        asked: list[str] = []
        errors: list[str] = []
        page.on("request", lambda one, asked=asked: asked.append(one.url))
        page.on("pageerror", lambda one, errors=errors: errors.append(str(one)))
        page.goto(file.as_uri())
        page.wait_for_load_state("load")
        own = (folder.as_uri(), "data:", "blob:")
        assert not [url for url in asked if not url.startswith(own)], (file.name, asked)
        policy = page.evaluate("document.querySelector('meta[http-equiv=Content-Security-Policy]')?.content ?? ''")
        assert "default-src 'none'" in policy, file.name
        assert page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')") == "refused"
        assert not missing_images(page), file.name
        assert not errors, (file.name, errors)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390, f"{file.name} is {wide} pixels wide on a phone"
        context.close()
    return len(files)


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=pytest.mark.slow if one in LONG else ()) for one in WRITERS]
)
def test_nothing_leaves(name: str, chromium: Any, ward: Any, tmp_path: Path) -> None:
    model, store, folder = ward
    WRITERS[name](model, store, folder, tmp_path)
    assert nothing_leaves(chromium, tmp_path) >= 1


@pytest.mark.slow
def test_nothing_leaves_the_demo(chromium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from convoscope.cli import run

    monkeypatch.chdir(tmp_path)
    assert run(["demo", "--out", str(tmp_path / "demo")]) == 0
    assert nothing_leaves(chromium, tmp_path / "demo") >= 2

"""Every HTML file that a command writes, opened in a browser: it asks no network for anything, and is whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browser_helpers import nothing_leaves

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


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=pytest.mark.slow if one in LONG else ()) for one in WRITERS]
)
def test_nothing_leaves(name: str, chromium: Any, ward: Any, tmp_path: Path) -> None:
    model, store, folder = ward
    WRITERS[name](model, store, folder, tmp_path)
    assert nothing_leaves(chromium, tmp_path) >= 1

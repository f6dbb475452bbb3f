"""What units want is made once: by a survey or on the page, and shown from the disk ever after."""

from __future__ import annotations

import base64
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("lance")
pytest.importorskip("fastapi")

import convoscope
from convoscope.surveys.ask.patches import strongest
from convoscope.surveys.store.store import Store
from convoscope.surveys.wanted import Wanted, make_wanted
from convoscope.web import create_app

LAYER = "layer3.1.relu#2"


def pixels(uri: str) -> Any:
    """The picture of a data URI."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))


@pytest.fixture
def store(toybox_store: Any, tmp_path: Path) -> Any:
    """A store of one's own: what is kept in it is nobody else's."""
    return Store.open(shutil.copytree(str(toybox_store.path), tmp_path / "store"))


def test_it_is_made_once_and_again_only_for_more_steps(store: Any, toybox_model: Any) -> None:
    told: list[tuple[int, int]] = []
    layers = len(store.recipe.layers)
    assert make_wanted(store, toybox_model, 1, steps=4, progress=lambda *at: told.append(at)) == layers
    assert told[-1] == (layers, layers)
    assert make_wanted(store, toybox_model, 1, steps=4) == 0
    unit = f"{LAYER}:{strongest(store, LAYER)[0]}"
    kept = Wanted.of(Store.open(store.path))
    about, image = kept.get(unit), kept.image(unit)
    assert about is not None
    assert image is not None
    assert about["unit"] == unit
    assert about["steps"] == 4
    assert Image.open(io.BytesIO(image)).size == (96, 96)
    assert kept.get(f"{LAYER}:999") is None
    assert kept.missing([unit], 8) == [unit]
    assert kept.missing([unit, f"{LAYER}:999"], 2) == [f"{LAYER}:999"]


def test_half_of_it_or_another_units_is_none(tmp_path: Path) -> None:
    kept = Wanted(tmp_path / "wanted")
    kept.put("a:1", b"png", {"steps": 4})
    assert kept.get("a:1") == {"unit": "a:1", "steps": 4}
    for file in (tmp_path / "wanted").glob("*.json"):
        file.write_text("{", encoding="utf-8")
    assert kept.get("a:1") is None
    assert kept.image("a:1") is None
    assert Wanted(None).get("a:1") is None
    Wanted(None).put("a:1", b"png", {})


def test_a_count_below_one_is_refused(store: Any, toybox_model: Any) -> None:
    with pytest.raises(convoscope.UsageError, match="1 unit"):
        make_wanted(store, toybox_model, 0)


def test_the_page_shows_what_is_kept_and_keeps_what_it_makes(
    store: Any, toybox_model: Any, toybox_folder: Path
) -> None:
    from fastapi.testclient import TestClient

    from convoscope.web.schemas import JobRequest
    from convoscope.web.work import prepare

    app = create_app(toybox_model, toybox_folder, store)
    state = app.state.app_state
    unit = f"{LAYER}:3"

    class Handle:
        stopped = False

        def check(self) -> None:
            return None

        def progress(self, *given: Any) -> None:
            return None

        def frame(self, given: Any) -> None:
            frames.append(given)

    frames: list[Any] = []
    with TestClient(app, base_url="http://127.0.0.1") as web:
        assert web.get("/api/unit", params={"unit": unit}).json()["wanted"] is None
        assert web.get("/api/wanted.png", params={"unit": unit}).status_code == 400
        asked = JobRequest(kind="visualize", target=unit, steps=4)
        first = prepare(state, asked)[2](Handle())  # type: ignore[arg-type]
        assert frames
        frames.clear()
        again = prepare(state, asked)[2](Handle())  # type: ignore[arg-type]
        assert not frames, "nothing is computed"
        drawn, kept = (pixels(one["visualizations"][0]["picture"]) for one in (first, again))
        np.testing.assert_array_equal(drawn, kept)
        card = web.get("/api/unit", params={"unit": unit}).json()["wanted"]
        assert Image.open(io.BytesIO(web.get(card["image"]).content)).size == (96, 96)
        assert web.get("/api/wanted", params={"layer": LAYER}).json() == {unit: card}
        # the block whose last activation it is knows it, too
        assert list(web.get("/api/wanted", params={"layer": "layer3"}).json()) == ["layer3:3"]
        assert web.get("/api/wanted", params={"layer": "none"}).status_code == 400


def test_the_pieces_come_before_what_in_them_counts(store: Any, toybox_model: Any, toybox_folder: Path) -> None:
    from fastapi.testclient import TestClient

    unit = f"{LAYER}:{strongest(store, LAYER)[0]}"
    with TestClient(create_app(toybox_model, toybox_folder, store), base_url="http://127.0.0.1") as web:
        quick, whole = (
            web.get("/api/patches", params={"unit": unit, **more}).json()["patches"]
            for more in ({"quick": "true"}, {})
        )
        about = ("kind", "id", "value", "row", "col", "box")
        assert [[one[name] for name in about] for one in quick] == [[one[name] for name in about] for one in whole]
        assert not any(one["guided_image"] for one in quick)
        assert any(one["guided_image"] for one in whole)
        first = [np.asarray(Image.open(io.BytesIO(web.get(one[0]["image"]).content))) for one in (quick, whole)]
        np.testing.assert_array_equal(*first)

"""The mask on a detector: each box keeps its own score, and one that is gone says so."""

from __future__ import annotations

from typing import Any

import pytest
from browser_helpers import looking, running, until, ways, word

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

import convoscope
from convoscope import ask as probe
from convoscope.toybox import write
from convoscope.web import create_app

pytestmark = pytest.mark.browser


def overlap(a: list[float], b: list[float]) -> float:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if wide <= 0 or high <= 0:
        return 0.0
    area = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return wide * high / (sum(area) - wide * high)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A detector, a scene of three boxes at least, and a mask over the second of them."""
    folder = tmp_path_factory.mktemp("detector") / "scenes"
    write(folder, 6, seed=5, scenes=True)
    model = convoscope.open_model("toybox-detector")
    app = create_app(model, folder)
    # a scene of several boxes, and a mask over the first of them
    for entry in app.state.app_state.album.entries():
        picture = app.state.app_state.album.picture(entry.id)
        reading = probe.read(model, picture)
        if len(reading.classes) >= 3:
            break
    assert len(reading.classes) >= 3
    x0, y0, x1, y1 = reading.classes[1]["box"]
    height, width = model.prepare(picture).tensor.shape[-2:]
    size = min(0.8, max(x1 - x0, y1 - y0) / min(height, width))
    mask = f"{(x0 + x1) / 2 / width:.3f},{(y0 + y1) / 2 / height:.3f},{size:.3f},mean"
    with running(app) as url:
        yield url, entry.id, mask, reading


@pytest.mark.parametrize("way", ways("detector"))
def test_boxes_are_followed_under_the_mask(chromium: Any, scenes: Any, way: Any) -> None:
    url, id, mask, reading = scenes
    context = chromium.new_context(**looking(way))
    page = context.new_page()
    page.set_default_timeout(30_000)
    with page.expect_response("**/api/cover?*") as answer:
        page.goto(f"{url}/?picture={id}&methods=grad-cam&tour=0&mask={mask}")
    found = answer.value.json()
    until(page, "document.querySelector('.answers .change')")
    shown: list[str] = []
    for _ in range(300):  # the bars are drawn again while answers come
        shown = page.locator(".bars .figure").all_text_contents()  # small screens show the sentence alone
        if shown and all("→" in text for text in shown):
            break
        page.wait_for_timeout(100)
    gone = word(page, "gone")
    context.close()
    before, after = reading.classes[: len(shown)], found["after"]["classes"]
    assert len(shown) == len(before)
    for text, row in zip(shown, before, strict=True):
        same = [other for other in after if other["label"] == row["label"]]
        best = max(same, key=lambda other: overlap(row["box"], other["box"]), default=None)
        said = text.split("→")[1].strip()
        if best is None or overlap(row["box"], best["box"]) < 0.3:
            assert said == gone, (text, row)
        elif sum(overlap(row["box"], other["box"]) >= 0.3 for other in same) == 1 and said != gone:
            digits = 2 if best["probability"] >= 0.0995 else 3
            assert said == f"{best['probability']:.{digits}f}", (text, row, best)
    assert any(gone not in text for text in shown)

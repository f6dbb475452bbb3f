"""The map of a collection: its legend beside it, each class a colour; without labels nothing pretends to have some."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from browser_helpers import running, until

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

import convoscope
from convoscope.toybox import write
from convoscope.web import create_app

pytestmark = pytest.mark.browser


def test_every_class_has_its_colour_beside_the_map(tab: Any) -> None:
    if tab.server.store is None:
        pytest.skip("no survey extra")
    page = tab.open("tab=collection&map=pca")
    page.wait_for_selector(".map-legend li")
    colours = page.evaluate("[...document.querySelectorAll('.map-legend i')].map((one) => one.style.background)")
    assert len(colours) == 10
    assert len(set(colours)) == 10
    frame = page.frame_locator("iframe.plot")
    frame.locator(".scatterlayer path.point").first.wait_for(state="attached")
    assert frame.locator(".legend").count() == 0  # nothing lies over the points


def test_the_lasso_stands_in_the_address(tab: Any) -> None:
    if tab.server.store is None:
        pytest.skip("no survey extra")
    page = tab.open("tab=collection&map=pca")
    frame = page.frame_locator("iframe.plot")
    frame.locator(".scatterlayer path.point").first.wait_for(state="attached")
    box = page.locator("iframe.plot").bounding_box()
    spots = [(0.02, 0.02), (0.6, 0.02), (0.6, 0.98), (0.02, 0.98), (0.02, 0.05)]
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in spots]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=4)
    page.mouse.up()
    page.wait_for_selector(".selected")
    said = page.locator(".selected h3").inner_text()
    until(page, "new URLSearchParams(location.search).get('lasso')")
    assert parse_qs(urlsplit(page.url).query)["lasso"][0].count(";") >= 3
    page.reload()
    page.wait_for_selector(".selected")
    assert page.locator(".selected h3").inner_text() == said


def test_without_labels_nothing_is_said_of_right_and_wrong(chromium: Any, tmp_path: Any) -> None:
    pytest.importorskip("lance")
    from convoscope.surveys import survey

    folder = tmp_path / "pictures"
    write(folder, 12, seed=8)
    (folder / "truth.csv").unlink()
    model = convoscope.open_model("toybox")
    store = survey(model, folder, tmp_path / "store", ["layer3.1.relu#2"])
    with running(create_app(model, folder, store)) as url:
        context = chromium.new_context(viewport={"width": 1280, "height": 860}, locale="en-US")
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.goto(f"{url}/?tab=collection&map=pca&colour=label&tour=0")
        page.wait_for_selector(".map-legend li")
        names = page.locator("[data-value=label], [data-value=error]")
        assert names.count() == 0
        assert page.locator("[data-value=prediction]").get_attribute("aria-pressed") == "true"
        text = page.locator("body").inner_text()
        assert "No labels are known" in text
        assert str(tmp_path) not in text
        assert "/tmp" not in text
        context.close()

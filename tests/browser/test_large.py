"""A collection of 5,000 pictures: the last one is reached, filters, matrix, lasso, tags and undo."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from browser_helpers import Server, running, until
from large_store import large_store

import convoscope

pytestmark = pytest.mark.browser

COUNT = 5000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    pytest.importorskip("lance")
    pytest.importorskip("uvicorn")
    from convoscope.web import create_app

    base = tmp_path_factory.mktemp("large")
    model = convoscope.open_model("toybox")
    store = large_store(model, base / "pictures", base / "store", COUNT)
    app = create_app(model, None, store)
    with running(app) as url:
        yield Server(url, app, model, base / "pictures", store)


@pytest.fixture
def server(large: Any) -> Any:
    """The tab of ``conftest`` over this server."""
    return large


def go(tab: Any, query: str) -> Any:
    tab.page.goto(f"{tab.server.url}/?tab=collection&{query}")
    tab.page.wait_for_selector(".panel-collection")
    return tab.page


def test_the_last_picture_is_reached(tab: Any) -> None:
    page = go(tab, "view=grid")
    until(page, "document.querySelector('.count')?.textContent === '5,000 of 5,000 pictures'")
    page.wait_for_selector(".pic")
    assert page.locator(".pic").count() < 200, "only what is seen is drawn"
    page.locator(".grid-box").focus()
    page.keyboard.press("End")
    until(page, "document.activeElement?.dataset?.at === '4999'")
    assert "img-004999.png" in page.locator('[data-at="4999"]').get_attribute("title")
    until(page, "document.querySelector('[data-at=\"4999\"] img').naturalWidth > 0")
    page.locator('[data-at="4999"]').click()
    until(page, "document.querySelector('#right h2')?.textContent === 'img-004999.png'")
    page.reload()
    page.wait_for_selector('.pic[data-at="4999"]')


def test_filters_the_matrix_and_the_next_mistake(tab: Any) -> None:
    page = go(tab, "view=grid&right=wrong")
    until(page, "document.querySelector('.count')?.textContent === '500 of 5,000 pictures'")
    page.get_by_label("Search pictures").fill("img-00001")
    until(page, "document.querySelector('.count')?.textContent === '1 of 5,000 pictures'")
    page.get_by_role("button", name="Clear filters").click()
    until(page, "document.querySelector('.count')?.textContent === '5,000 of 5,000 pictures'")
    page.get_by_role("button", name="Confusions").click()
    page.wait_for_selector(".confusion")
    labels = tab.server.model.labels
    page.get_by_role("button", name=f"{labels[3]} → {labels[4]}: 500").click()
    until(page, "document.querySelector('.count')?.textContent === '500 of 5,000 pictures'")
    page.get_by_role("button", name="Next mistake").click()
    page.wait_for_selector(".toast")
    assert f"{labels[3]} taken for {labels[4]}" in page.locator(".toast").inner_text()
    first = page.evaluate("new URLSearchParams(location.search).get('picture')")
    page.keyboard.press("n")
    until(page, "id => new URLSearchParams(location.search).get('picture') !== id", arg=first)
    page.go_back()
    page.go_back()


def test_tags_removal_and_undo(tab: Any) -> None:
    page = go(tab, "view=grid&right=wrong&low=0.9")
    page.wait_for_selector(".pic")
    found = int(page.locator(".count").inner_text().split()[0])
    page.locator(".actions").get_by_label("Add a tag").fill("look again")
    page.locator(".actions").get_by_role("button", name="Tag", exact=True).click()
    marks = tab.server.app.state.app_state.marks()
    until(page, "[...document.querySelectorAll('[data-key=tag] option')].some((one) => one.value === 'look again')")
    assert marks.tags() == {"look again": found}
    page.locator(".filters").get_by_label("Tag", exact=True).select_option("look again")
    until(page, "n => document.querySelector('.count')?.textContent.startsWith(`${n} of`)", arg=found)
    page.locator(".pic").first.click(modifiers=["Control"])
    page.locator(".actions").get_by_role("button", name="Remove").click()
    until(page, "n => document.querySelector('.count')?.textContent.startsWith(`${n} of`)", arg=found - 1)
    page.locator(".actions").get_by_role("button", name="Undo").click()
    until(page, "n => document.querySelector('.count')?.textContent.startsWith(`${n} of`)", arg=found)
    page.locator(".actions").get_by_role("button", name="Undo").click()
    until(page, "document.querySelector('.count')?.textContent.startsWith('0 of')")
    assert marks.all() == {}


#: what a browser without WebGL (a remote desktop, a locked office) answers
NO_WEBGL = """
const real = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind, ...more) {
  return String(kind).includes("webgl") ? null : real.call(this, kind, ...more);
};
"""


@pytest.mark.parametrize("webgl", [True, False])
def test_the_map_of_5000_is_searched_and_lassoed(tab: Any, webgl: bool) -> None:
    if not webgl:
        tab.page.add_init_script(NO_WEBGL)
    page = go(tab, "map=pca")
    page.frame_locator("iframe.plot").locator(".main-svg").first.wait_for(state="attached")
    until(page, "document.querySelector('.map-words')?.textContent.includes('Neighbours kept')", timeout=60)
    if not webgl:
        until(page, "document.querySelector('.thinned')?.textContent.includes('2500 of 5000')")
        frame = page.frame_locator("iframe.plot")
        assert frame.locator(".scatterlayer .trace").first.locator("path.point").count() == 2500
        assert "webgl.org" not in frame.locator("#map").inner_text()
    page.get_by_label("Find on the map").fill("img-0001")
    until(page, "document.querySelector('.found-count')?.textContent === '100 found'")
    page.get_by_label("Find on the map").fill("")
    until(page, "document.querySelector('.found-count').textContent === ''")
    until(page, "document.querySelector('iframe.plot').dataset.drawn === 'true'")
    box = page.locator("iframe.plot").bounding_box()
    spots = [(0.02, 0.02), (0.98, 0.02), (0.98, 0.98), (0.02, 0.98), (0.02, 0.05)]
    page.mouse.move(box["x"] + box["width"] * 0.02, box["y"] + box["height"] * 0.02)
    page.mouse.down()
    for x, y in spots:
        page.mouse.move(box["x"] + box["width"] * x, box["y"] + box["height"] * y, steps=6)
    page.mouse.up()
    until(page, "document.querySelector('.selected')?.textContent.includes('chosen')")
    said = int(page.locator(".selected h3").inner_text().split()[0].replace(",", ""))
    assert said > COUNT // 4
    page.locator(".selected").get_by_role("button", name="Show in the grid").click()
    page.wait_for_selector(".pic")
    held = int(page.locator(".count").inner_text().split()[0].replace(",", ""))
    # at most 48 corners stand in the address: points on the rim may change sides
    assert abs(held - said) <= max(10, 0.02 * said), (held, said)
    link = page.url
    page.go_back()
    page.wait_for_selector(".selected")
    assert page.locator(".selected").get_by_role("button", name="Show in the grid").count() == 1
    page.goto(link)
    until(page, "n => document.querySelector('.count')?.textContent.startsWith(`${n.toLocaleString()} of`)", arg=held)
    page.locator(".chips .chip").click()
    until(page, "document.querySelector('.count')?.textContent === '5,000 of 5,000 pictures'")

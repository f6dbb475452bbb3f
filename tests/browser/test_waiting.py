"""Answers that come late or in another order: what stands there is never taken for the answer to what is asked now."""

from __future__ import annotations

from typing import Any

import pytest
from browser_helpers import Held, looking, running, until

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

import convoscope
from convoscope import ask
from convoscope.toybox import write
from convoscope.web import create_app

pytestmark = pytest.mark.browser


def change(page: Any, **changes: str) -> None:
    page.evaluate("changes => import('/static/js/state.js').then((it) => it.set(changes))", changes)


def test_filters_that_come_late_do_not_stand_under_another_layers_name(tab: Any) -> None:
    page = tab.page
    late = Held(page, "**/api/filters?layer=stem.0")
    page.goto(f"{tab.server.url}/?tab=layer&layer=stem.0&tiles=filter")
    late.arrived()
    change(page, layer="layer3.1.conv2")
    page.wait_for_selector('img.filters[src*="layer3.1.conv2"]')
    late.let_go()
    assert "layer3.1.conv2" in page.locator("img.filters").get_attribute("src")


def test_activations_that_come_late_are_not_what_the_cursor_reads(tab: Any) -> None:
    page = tab.page
    late = Held(page, "**/api/activations?*layer=stem.0*")
    page.goto(f"{tab.server.url}/?tab=layer&layer=stem.0")
    late.arrived()
    change(page, layer="layer3")
    page.wait_for_selector('.tile[data-unit^="layer3:"]')
    late.let_go()
    assert page.locator('.tile[data-unit^="stem"]').count() == 0
    stage = page.locator(".tile .stage").first
    box = stage.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    until(page, "document.querySelector('.tile .cell-mark')?.style.display === 'block'")
    # one cell of twelve, not of the other layer's forty-eight
    assert page.locator(".tile .cell-mark").first.evaluate("(one) => one.style.width").startswith("8.33")


def test_a_picture_on_its_way_is_seen_to_be_on_its_way(tab: Any) -> None:
    page = tab.open("methods=grad-cam")
    first = page.locator("#right h2").inner_text()
    next_one = page.locator("#strip .thumb").nth(3)
    late = Held(page, f"**/api/pictures/{next_one.get_attribute('data-id')}")
    next_one.click()
    late.arrived()
    assert page.locator(".panel.stale.changing").count() == 1
    assert first not in page.locator("#right").inner_text()
    change(page, tab="layer")
    page.wait_for_selector(".panel-layer.stale")
    late.let_go()
    until(page, "document.querySelector('.tile canvas') && !document.querySelector('.panel.stale')")
    assert page.locator("#right h2").inner_text() == next_one.get_attribute("aria-label")
    change(page, tab="decide")
    tab.settled()
    assert page.locator(".changing").count() == 0


def test_a_picture_that_cannot_be_read_shows_nothing_of_the_former_one(chromium: Any, tmp_path: Any) -> None:
    folder = tmp_path / "pictures"
    write(folder, 2, seed=4)
    (folder / "zz.png").write_bytes((folder / sorted(one.name for one in folder.glob("*.png"))[0]).read_bytes()[:300])
    with running(create_app(convoscope.open_model("toybox"), folder)) as url:
        page = chromium.new_context(**looking((1280, 860))).new_page()
        page.set_default_timeout(30_000)
        page.goto(f"{url}/?methods=grad-cam&tour=0")
        page.locator('[data-method="grad-cam"] .legend canvas').wait_for()
        page.locator("#strip .thumb").last.click()
        page.locator("#maps .problem").wait_for()
        assert page.locator("#maps .frame, .bars li").count() == 0
        photo = "document.querySelector('.frame.photo canvas')"
        drawn = page.evaluate(
            f"{photo}.getContext('2d').getImageData(0, 0, {photo}.width, {photo}.height).data.some((v) => v)"
        )
        assert not drawn
        assert page.locator("#right .problem").count() == 1
        change(page, tab="layer", layer="layer3")
        page.locator(".tiles .problem").wait_for()
        page.locator("#strip .thumb").first.click()
        page.wait_for_selector(".tile canvas")
        change(page, tab="decide")
        page.locator('[data-method="grad-cam"] .legend canvas').wait_for()
        page.context.close()


def test_another_picture_is_marked_while_the_maps_of_the_former_one_are_made(tab: Any) -> None:
    page = tab.open("methods=grad-cam")
    late = Held(page, "**/api/explain?*")
    page.locator("#strip .thumb").nth(5).click()
    late.arrived()
    page.locator("#strip .thumb").nth(6).click()
    until(page, "document.querySelector('.panel.stale.changing')")
    late.let_go()
    tab.settled()
    assert page.locator("#right h2").inner_text() == page.locator("#strip .thumb").nth(6).get_attribute("aria-label")


def test_what_fewer_units_change_does_not_overwrite_what_more_do(tab: Any) -> None:
    page = tab.open("methods=grad-cam")
    late = Held(page, "**/api/ablate?*")
    change(page, off="layer3:5")
    late.arrived()
    units = ["layer3:5", "layer3:11", "layer3:23"]
    change(page, off=",".join(units))
    picture = tab.server.app.state.app_state.album.picture(
        page.evaluate("new URLSearchParams(location.search).get('picture')")
    )
    p = f"{ask.switch_off(tab.server.model, picture, units).after.probability:.3f}"
    until(page, "p => document.querySelector('.answers .change')?.textContent.includes(p)", arg=p)
    late.let_go()
    assert p in page.locator(".answers .change").inner_text()


def test_a_filter_that_comes_late_does_not_fill_the_matrix(tab: Any) -> None:
    if tab.server.store is None:
        pytest.skip("no survey extra")
    page = tab.page
    late = Held(page, "**/api/collection/confusion?*")
    page.goto(f"{tab.server.url}/?tab=collection&view=confusion")
    late.arrived()
    change(page, label="boat")
    page.wait_for_selector(".confusion")
    said = page.locator(".collection-view > p").inner_text()
    late.let_go()
    assert page.locator(".collection-view > p").inner_text() == said
    # a list that is asked for stands under its filters when it is here, and the former one is seen to be the former
    change(page, view="grid")
    until(page, "document.querySelector('.pic') && !document.querySelector('.panel.stale')")
    pages = Held(page, "**/api/collection/pictures?*")
    change(page, label="")
    pages.arrived()
    assert page.locator(".panel-collection.stale").count() == 1
    assert not any(letter.isdigit() for letter in page.locator(".count").inner_text())
    pages.let_go()
    until(page, "document.querySelector('.count')?.textContent === '30 of 30 pictures'")

"""For a class: presenter, how a convolution computes, blocks, a unit at once, the camera as a stream."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from browser_helpers import until, violations

from convoscope.methods.numbers import convolution

pytestmark = pytest.mark.browser


def number(text: str) -> float:
    return float(text.replace("−", "-").replace("×10", "e").translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")))


def test_the_presenter_fills_the_screen_and_is_driven_by_keys(tab: Any) -> None:
    page = tab.open("methods=grad-cam,saliency")
    page.locator("body").press("p")
    page.wait_for_selector("dialog.present[open]")
    until(page, "document.querySelector('.present-map canvas')?.dataset.drawn === 'grad-cam'")
    box = page.locator(".present-map canvas").bounding_box()
    assert box["width"] * box["height"] > 0.35 * 1280 * 860
    assert box["y"] + box["height"] <= 860
    first = page.evaluate("new URLSearchParams(location.search).get('picture')")
    page.keyboard.press("ArrowRight")
    until(page, "document.querySelector('.present-map canvas')?.dataset.drawn === 'saliency'")
    page.keyboard.press("ArrowDown")
    until(page, "id => new URLSearchParams(location.search).get('picture') !== id", arg=first)
    until(page, "document.querySelector('.present-bars li')")
    page.keyboard.press("Escape")
    until(page, "!document.querySelector('dialog.present')")


def test_a_cell_shows_the_networks_own_numbers(tab: Any) -> None:
    page = tab.open("tab=layer&layer=stem.0&tiles=how")
    page.wait_for_selector(".how-total.value")
    page.wait_for_selector(".how-outputs .points")
    box = page.locator(".how-outputs .points").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 10.5 / 48, box["y"] + box["height"] * 20.5 / 48)
    until(page, "document.querySelector('.how-total.value span')?.textContent === '= value at row 20, column 10'")
    picture = page.evaluate("new URLSearchParams(location.search).get('picture')")
    found = convolution(tab.server.model, tab.server.app.state.app_state.album.picture(picture), "stem.0")
    channel = int(page.get_by_label("Channel", exact=True).input_value())
    told = found.at(channel, 20, 10, most=3)
    largest = max(np.abs(one["products"]).max() for one in told["inputs"])
    half = 0.51 * 10.0 ** (np.floor(np.log10(largest)) - 1)
    assert float(page.locator(".how-total.value").get_attribute("data-value")) == pytest.approx(told["value"])
    for place, one in enumerate(told["inputs"]):
        shown = page.locator(".how-row").nth(place).locator(".n-products td").all_inner_texts()
        # all to the same place after the point: two digits of the largest
        np.testing.assert_allclose([number(text) for text in shown], np.ravel(one["products"]), rtol=0, atol=half)
    steps = page.locator(".how-total").all_inner_texts()[-2:]
    assert [number(text.split()[-1]) for text in steps] == pytest.approx(
        [one["value"] for one in told["steps"]], rel=1e-3, abs=1e-9
    )
    page.locator(".how-outputs .points").first.focus()
    page.keyboard.press("ArrowRight")
    until(page, "document.querySelector('.how-total.value span')?.textContent === '= value at row 20, column 11'")


def test_the_network_as_blocks(tab: Any) -> None:
    page = tab.open()
    page.get_by_role("button", name="Blocks").click()
    page.wait_for_selector(".blocks .block")
    assert page.locator(".blocks .block").count() == 21
    assert page.locator(".blocks .is-join").count() == 5
    page.locator(".blocks .is-join").last.click()
    page.wait_for_selector(".panel-layer")
    until(page, "new URLSearchParams(location.search).get('layer')?.startsWith('layer3') || true")
    assert page.locator(".blocks .is-now").count() == 1


def test_a_unit_at_once(tab: Any) -> None:
    page = tab.open("tab=layer&layer=layer3&unit=layer3:23")
    page.get_by_role("button", name="Large").click()
    page.wait_for_selector(".unit-sheet[open] .wanted:not([hidden])", timeout=60_000)
    if tab.server.store is not None:
        until(page, "document.querySelectorAll('.unit-sheet .sheet-grid img').length > 2")
    page.keyboard.press("Escape")
    until(page, "!document.querySelector('.unit-sheet')")


def test_the_camera_as_a_stream(tab: Any, axe: str) -> None:
    """Chromium's fake camera: frames go through the network one after the other, and the rate is told."""
    page = tab.page
    page.context.grant_permissions(["camera"])
    page.goto(f"{tab.server.url}/?tab=layer&tiles=filter")
    page.get_by_role("button", name="Camera").click()
    until(page, "Number(document.querySelector('.rate')?.dataset.frames ?? 0) >= 8", timeout=60)
    assert "frames a second" in page.locator(".rate").inner_text()
    assert page.locator(".live-sheet .present-bars .label").first.inner_text() in tab.server.model.labels
    assert not violations(page, axe)
    page.locator(".live-sheet").get_by_role("button", name="Close").click()
    page.wait_for_timeout(300)
    assert page.locator(".live-sheet").count() == 0


def test_the_camera_goes_on_after_a_broken_frame_and_ends_with_a_sentence(tab: Any) -> None:
    """One frame that fails, or is lost on its way, is one frame; five in a row end the stream and say why."""
    page = tab.page
    page.context.grant_permissions(["camera"])
    count, broken = [0], [False]

    def answer(route: Any) -> None:
        count[0] += 1
        if broken[0] or count[0] % 4 == 2:
            route.fulfill(status=422, json={"detail": "The frame cannot be read."})
        elif count[0] % 4 == 0:
            route.abort()
        else:
            route.continue_()

    page.route("**/api/live*", answer)
    page.goto(f"{tab.server.url}/?tab=layer&tiles=filter")
    page.get_by_role("button", name="Camera").click()
    until(page, "Number(document.querySelector('.rate')?.dataset.frames ?? 0) >= 6", timeout=60)
    assert count[0] >= 9
    broken[0] = True
    until(page, "!document.querySelector('.live-sheet')", timeout=60)
    assert "The frame cannot be read." in page.locator("body").inner_text()
    assert "Failed to fetch" not in page.locator("body").inner_text()
    # nothing is asked any more
    asked = count[0]
    page.wait_for_timeout(700)
    assert count[0] == asked
    # what the browser itself says of requests that failed; an error of the script's own would stay
    tab.errors[:] = [one for one in tab.errors if "Failed to load resource" not in one]

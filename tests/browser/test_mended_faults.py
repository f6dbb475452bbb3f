"""Two more faults that a person once met; those in every width and language are in test_faults_everywhere."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from browser_helpers import until

pytestmark = pytest.mark.browser


def query(page: Any) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(urlsplit(page.url).query).items()}


def test_mask_region_and_units_off_stand_in_the_address(tab: Any, chromium: Any) -> None:
    page = tab.open()
    page.get_by_role("button", name="Mask").click()
    until(page, "document.querySelector('.answers .change')?.textContent.startsWith('covered')")
    with page.expect_response("**/api/cover?*") as answer:
        page.locator(".frame.photo .stage").press("ArrowLeft")
    after = f"{answer.value.json()['after']['probability']:.3f}"
    until(page, "p => document.querySelector('.answers .change')?.textContent.endsWith(p)", arg=after)
    assert query(page)["mask"].startswith("0.48,")
    said = page.locator(".answers .change").inner_text()
    page.reload()
    until(page, "said => document.querySelector('.answers .change')?.textContent === said", arg=said)
    page.get_by_role("button", name="Region").click()
    box = page.locator(".frame.photo .stage").bounding_box()
    page.mouse.move(box["x"] + 40, box["y"] + 40)
    page.mouse.down()
    for x, y in ((200, 40), (200, 200), (40, 200)):
        page.mouse.move(box["x"] + x, box["y"] + y, steps=4)
    page.mouse.up()
    page.wait_for_selector(".inside")
    inside = page.locator('[data-method="grad-cam"] .inside').inner_text()
    assert query(page)["region"].count(";") >= 2
    page.reload()
    page.wait_for_selector(".inside")
    again = page.locator('[data-method="grad-cam"] .inside').inner_text()
    assert abs(float(inside.split()[0]) - float(again.split()[0])) < 3


def test_a_name_that_turns_the_text_is_marked(tab: Any, tmp_path: Any) -> None:
    from PIL import Image

    from convoscope.toybox import draw

    page = tab.open()
    file = tmp_path / "cat\u202egnp.png"
    Image.fromarray(draw(902, label="cat").image).save(file)
    page.locator("#choose").set_input_files(str(file))
    until(page, "document.querySelector('#strip .thumb')?.getAttribute('aria-label') === 'cat\\ufffdgnp.png'")
    assert "\u202e" not in page.content()

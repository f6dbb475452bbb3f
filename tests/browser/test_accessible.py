"""axe-core finds no serious violation, on any tab, wide and narrow, light and dark."""

from __future__ import annotations

from typing import Any

import pytest
from browser_helpers import violations

pytestmark = pytest.mark.browser

VIEWS = {
    "decide": "", "layer": "tab=layer&layer=layer3&unit=layer3:23", "collection": "tab=collection&map=pca",
    "docs": "docs", "convolution": "tab=layer&layer=stem.0&tiles=how", "blocks": "blocks=1",
    "grid": "tab=collection&view=grid", "confusion": "tab=collection&view=confusion",
    "presenter": "present=1&methods=grad-cam",
}  # fmt: skip
#: what must stand there before it is looked at
THERE = {
    "convolution": ".how-total.value", "blocks": ".blocks .block", "grid": ".pic", "confusion": ".confusion",
    "presenter": "dialog.present[open] canvas[data-drawn]",
}  # fmt: skip


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("tab", [(1280, 860), (390, 844)], indirect=True, ids=["wide", "phone"])
def test_no_serious_violation(tab: Any, axe: str, view: str) -> None:
    page = tab.page
    if view == "docs":
        page.goto(f"{tab.server.url}/docs")
        page.wait_for_selector(".operation")
    else:
        tab.open(VIEWS[view])
        page.wait_for_load_state("networkidle")
        if view in THERE:
            # on a phone the list of layers, and the blocks with it, is folded away
            page.locator(THERE[view]).first.wait_for(state="attached")
    found = {scheme: violations(page, axe, scheme) for scheme in ("light", "dark")}
    assert not any(found.values()), found


def test_dialogs_and_the_tour(tab: Any, axe: str) -> None:
    page = tab.open()
    page.get_by_role("button", name="What am I looking at? Grad-CAM").click()
    assert not violations(page, axe)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Tour").click()
    assert not violations(page, axe)


def test_everything_can_be_reached_by_the_keyboard(tab: Any) -> None:
    page = tab.open()
    reached = set()
    for _ in range(140):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement?.className || document.activeElement?.tagName"))
        if any("rival" in str(one) for one in reached) and any("badge" in str(one) for one in reached):
            break
    for wanted in ("thumb", "layer", "bar-row", "rival", "badge"):
        assert any(wanted in str(one).split() for one in reached), (wanted, reached)

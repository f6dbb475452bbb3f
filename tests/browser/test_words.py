"""In Korean the page is Korean: no English sentence is left on any tab, card, dialog or refusal."""

from __future__ import annotations

from typing import Any

import pytest
from browser_helpers import until

pytestmark = pytest.mark.browser

#: three English words in a row make a sentence; names of files, layers, papers and formulas are names
ENGLISH = """() => {
  const found = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const seen = (text, node) => {
    if (!/\\b[A-Za-z]{2,}(?:[ ,]+[a-z]{2,}){2,}/.test(text)) return;
    if (node.closest('.formula, .paper, [lang=en], script, style, noscript')) return;
    found.add(text.trim().slice(0, 200));
  };
  while (walker.nextNode()) seen(walker.currentNode.textContent, walker.currentNode.parentElement);
  for (const node of document.querySelectorAll('[title], [aria-label], [placeholder]')) {
    for (const name of ['title', 'aria-label', 'placeholder']) seen(node.getAttribute(name) ?? '', node);
  }
  return [...found];
}"""


def korean(tab: Any, query: str = "") -> Any:
    tab.page.add_init_script("try { localStorage.setItem('convoscope-language', 'ko') } catch {}")
    return tab.open(query)


def test_decide(tab: Any) -> None:
    every = "grad-cam,saliency,hirescam,eigen-cam,integrated-gradients,lrp,fullgrad,guided-backprop,attention-rollout"
    page = korean(tab, f"methods={every}&off=layer3:5&mask=0.5,0.5,0.4,mean&set=integrated-gradients.nodes=2")
    until(page, "document.querySelector('.answers .change')")
    page.locator('[data-method="attention-rollout"] .problem').wait_for()
    assert page.evaluate(ENGLISH) == []
    for name in ("grad-cam", "lrp", "integrated-gradients"):
        page.locator(f'[data-method="{name}"] .what').click()
        page.locator("dialog[open]").wait_for()
        assert page.evaluate(ENGLISH) == [], name
        page.keyboard.press("Escape")
        until(page, "!document.querySelector('dialog[open]')")
    page.keyboard.press("?")
    page.locator("dialog[open]").wait_for()
    assert page.evaluate(ENGLISH) == []


def test_a_contrast_under_a_mask_and_presented(tab: Any) -> None:
    page = korean(tab, "methods=grad-cam&target=cat&against=bird&mask=0.5,0.5,0.4,mean")
    until(page, "document.querySelector('.answers .change')")
    assert page.evaluate(ENGLISH) == []
    page.locator("body").press("p")
    page.wait_for_selector("dialog.present canvas[data-drawn]")
    assert page.evaluate(ENGLISH) == []


def test_the_verdict(tab: Any) -> None:
    page = korean(tab, "methods=grad-cam,guided-backprop")
    page.locator(".judge").click()
    until(page, "document.querySelectorAll('.badge.good, .badge.bad').length === 2", timeout=90)
    page.locator(".badge").first.click()
    page.locator("dialog[open]").wait_for()
    assert page.evaluate(ENGLISH) == []


def test_layer_and_card(tab: Any) -> None:
    page = korean(tab, "tab=layer&layer=layer3&unit=layer3:23")
    page.wait_for_selector(".tile canvas")
    page.wait_for_selector(".histogram, #right .soft")
    page.wait_for_load_state("networkidle")
    assert page.evaluate(ENGLISH) == []
    for kind in ("wants", "patch", "filter"):
        page.locator(f'[data-value="{kind}"]').click()
        page.wait_for_load_state("networkidle")
        assert page.evaluate(ENGLISH) == [], kind


def test_collection(tab: Any) -> None:
    if tab.server.store is None:
        pytest.skip("no survey extra")
    page = korean(tab, "tab=collection&map=pca")
    until(page, "document.querySelector('.map-words')?.textContent.length > 40")
    page.wait_for_load_state("networkidle")
    assert page.evaluate(ENGLISH) == []


def test_numbers_are_korean(tab: Any) -> None:
    page = korean(tab)
    assert "만" in page.locator("#top .facts").inner_text()
    assert " k" not in page.locator("#top .facts").inner_text()


def test_refusals(tab: Any, tmp_path: Any) -> None:
    page = korean(tab, "methods=grad-cam&set=grad-cam.layer=fc")
    page.locator('[data-method="grad-cam"] .problem').wait_for()
    (tmp_path / "text.png").write_bytes(b"no picture")
    page.locator("#choose").set_input_files(str(tmp_path / "text.png"))
    page.wait_for_selector(".toast.error")
    assert page.evaluate(ENGLISH) == []
    tab.errors.clear()

"""The page in a browser: choose, click, drag, draw, open a unit, switch it off, lasso, stop, come back by link."""

from __future__ import annotations

import base64
import io
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from browser_helpers import until
from PIL import Image

import convoscope

pytestmark = pytest.mark.browser


def pixels(page: Any, selector: str) -> np.ndarray[Any, Any]:
    """What is drawn on a canvas, uint8 H×W×3."""
    uri = page.locator(selector).first.evaluate("canvas => canvas.toDataURL('image/png')")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB"))


def query(page: Any) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(urlsplit(page.url).query).items()}


def shown_file(tab: Any) -> Any:
    name = tab.page.locator("#strip .thumb[aria-pressed=true]").get_attribute("aria-label")
    return tab.server.folder / name


def drag(page: Any, box: dict[str, float], points: list[tuple[float, float]]) -> None:
    spots = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*spots[0])
    page.mouse.down()
    for spot in spots[1:]:
        page.mouse.move(*spot, steps=4)
    page.mouse.up()


def test_maps_are_drawn_as_the_library_draws_them(tab: Any) -> None:
    page = tab.open("methods=grad-cam,hirescam,saliency,guided-grad-cam")
    explanation = convoscope.explain(
        tab.server.model, shown_file(tab), ["grad-cam", "hirescam", "saliency", "guided-grad-cam"]
    )
    for name, heatmap in explanation.items():
        drawn = pixels(page, f'[data-method="{name}"] canvas.pixels').astype(int)
        expected = np.asarray(heatmap.overlay()).astype(int)
        assert drawn.shape == expected.shape, name
        difference = np.abs(drawn - expected)
        # colours are rounded twice: by the table and by the blend
        assert difference.mean() < 0.6, (name, difference.mean())
        assert np.percentile(difference, 99.9) <= 8, (name, np.percentile(difference, 99.9))


def test_choosing_a_picture_and_a_class_changes_the_maps(tab: Any) -> None:
    page = tab.open()
    before = pixels(page, '[data-method="grad-cam"] canvas.pixels')
    page.locator("#strip .thumb").nth(9).click()
    until(page, "id => new URLSearchParams(location.search).get('picture') !== id", arg="")
    tab.settled()
    other = pixels(page, '[data-method="grad-cam"] canvas.pixels')
    assert (before != other).any()
    predicted = page.locator(".bars .is-target .label").inner_text()
    second = page.locator(".bars .bar-row").nth(1)
    name = second.locator(".label").inner_text()
    second.click()
    until(page, "name => document.querySelector('.target')?.textContent.includes(`Explained: ${name}`)", arg=name)
    tab.settled()
    assert name != predicted
    third = pixels(page, '[data-method="grad-cam"] canvas.pixels').astype(int)
    expected = convoscope.explain(tab.server.model, shown_file(tab), "grad-cam", target=name)["grad-cam"].overlay()
    assert np.abs(third - np.asarray(expected).astype(int)).mean() < 0.6
    page.get_by_role("button", name=f"vs this {predicted}").click()
    until(page, "document.querySelector('.target')?.textContent.includes('rather than')")
    assert query(page)["against"]


def test_one_cursor_in_all_maps_with_the_values(tab: Any) -> None:
    page = tab.open("methods=grad-cam,saliency")
    box = page.locator('[data-method="saliency"] .stage').bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.505, box["y"] + box["height"] * 0.305)
    until(page, "document.querySelectorAll('.cross.on').length === 3")
    explanation = convoscope.explain(tab.server.model, shown_file(tab), ["grad-cam", "saliency"])
    for name in ("grad-cam", "saliency"):
        said = page.locator(f'[data-method="{name}"] .under').inner_text().split()[0]
        row, column = round(0.305 * 96 - 0.5), round(0.505 * 96 - 0.5)
        value = explanation[name].values[row - 1 : row + 2, column - 1 : column + 2]
        number = float(
            said.replace("−", "-").replace("×10", "e").translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789"))
        )
        assert np.isclose(number, value, rtol=6e-3, atol=1e-9).any(), (name, said, value)


def test_hovering_asks_nobody_and_is_quick(tab: Any) -> None:
    page = tab.open()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    seconds = page.evaluate(
        """async () => {
          const stage = document.querySelector('#maps .frame .stage');
          const box = stage.getBoundingClientRect();
          const times = [];
          for (let i = 0; i < 40; i += 1) {
            const began = performance.now();
            const place = {clientX: box.left + box.width * (i + 1) / 42, clientY: box.top + box.height / 2};
            stage.dispatchEvent(new PointerEvent('pointermove', {...place, bubbles: true}));
            await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
            times.push(performance.now() - began);
          }
          times.sort((a, b) => a - b);
          return times[20] / 1000;
        }"""
    )
    assert not asked
    # two frames of the screen take 33 ms where nothing else has to be done; busy machines get some grace
    assert seconds < 0.15, seconds


def test_the_mask_follows_the_hand_and_the_score_follows_the_mask(tab: Any) -> None:
    page = tab.open()
    page.get_by_role("button", name="Mask").click()
    box = page.locator(".frame.photo .stage").bounding_box()
    drag(page, box, [(0.5, 0.5), (0.3, 0.4)])
    until(page, "document.querySelector('.answers .change')?.textContent.startsWith('covered')")
    first = page.locator(".answers .change").inner_text()
    rectangle = page.locator(".marks .mask").first
    x = float(rectangle.get_attribute("x"))
    drag(page, box, [(0.3, 0.4), (0.6, 0.6)])
    until(page, "was => document.querySelector('.answers .change')?.textContent !== was", arg=first)
    assert float(page.locator(".marks .mask").first.get_attribute("x")) > x
    page.locator(".frame.photo .stage").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    until(page, "!document.querySelector('.marks .mask')")


def test_a_region_says_what_share_of_the_evidence_lies_inside(tab: Any) -> None:
    page = tab.open("methods=grad-cam,hirescam")
    page.get_by_role("button", name="Region").click()
    box = page.locator(".frame.photo .stage").bounding_box()
    drag(page, box, [(0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75), (0.25, 0.27)])
    page.wait_for_selector(".inside")
    said = float(page.locator('[data-method="grad-cam"] .inside').inner_text().split()[0])
    values = convoscope.explain(tab.server.model, shown_file(tab), "grad-cam")["grad-cam"].values
    expected = 100 * values[24:72, 24:72].sum() / values.sum()
    assert abs(said - expected) < 6, (said, expected)


def test_a_layer_a_unit_and_its_switch(tab: Any) -> None:
    page = tab.open("tab=layer&layer=layer3")
    page.wait_for_selector(".tile canvas")
    assert page.locator(".tile").count() == 64
    page.locator(".tile").nth(2).click()
    unit = page.locator(".tile").nth(2).get_attribute("data-unit")
    page.wait_for_selector("#right .histogram, #right .soft")
    assert query(page)["unit"] == unit
    page.get_by_label("Switch this unit off").check()
    until(page, "document.querySelector('.ablate .change')?.textContent.startsWith('without')")
    said = page.locator(".ablate .change").inner_text()
    from convoscope import ask as probe

    expected = probe.switch_off(tab.server.model, shown_file(tab), [unit])
    assert f"{expected.after.probability:.3f}" in said
    assert f"{expected.before.probability:.3f}" in said
    page.get_by_label("Switch this unit off").uncheck()
    until(page, "!new URLSearchParams(location.search).get('off')")


def test_the_tiles_can_be_ordered_and_compared(tab: Any) -> None:
    page = tab.open("tab=layer&layer=layer3")
    page.wait_for_selector(".tile canvas")
    page.get_by_label("Order").select_option("index")
    until(page, "document.querySelector('.tile')?.dataset.unit === 'layer3:0'")
    own = pixels(page, ".tile canvas")
    page.get_by_role("button", name="Same scale").click()
    page.wait_for_selector(".below .legend")
    assert (pixels(page, ".tile canvas") != own).any()
    box = page.locator(".tile .stage").nth(4).bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    until(page, "[...document.querySelectorAll('.cell-mark')].every((one) => one.style.display === 'block')")
    page.get_by_role("button", name="Filters").click()
    page.wait_for_selector(".tiles img.filters")  # layer3 is a block: those of the convolution that feeds it
    page.get_by_role("button", name="All layers").click()
    page.locator('[data-layer="stem.0"]').click()
    page.wait_for_selector(".tiles img.filters")


def test_patches_come_with_the_survey(tab: Any) -> None:
    if tab.server.store is None:
        pytest.skip("no survey extra")
    page = tab.open("tab=layer&layer=layer3&unit=layer3:23")
    page.wait_for_selector(".patch-row img")
    assert page.locator(".histogram rect").count() > 1
    page.get_by_role("button", name="Top patches").click()
    until(page, "[...document.querySelectorAll('.tile img')].some((one) => one.naturalWidth > 0)")


def test_the_map_can_be_pointed_at_and_lassoed(tab: Any) -> None:
    if tab.server.store is None:
        pytest.skip("no survey extra")
    page = tab.open("tab=collection&map=pca")
    frame = page.frame_locator("iframe.plot")
    frame.locator(".scatterlayer .point, .scatterlayer path.point").first.wait_for(state="attached")
    box = page.locator("iframe.plot").bounding_box()
    drag(page, box, [(0.02, 0.02), (0.98, 0.02), (0.98, 0.98), (0.02, 0.98), (0.02, 0.05)])
    page.wait_for_selector(".selected")
    assert "30 chosen" in page.locator(".selected").inner_text()
    point = frame.locator(".scatterlayer path.point").nth(5).bounding_box()
    page.mouse.click(point["x"] + point["width"] / 2, point["y"] + point["height"] / 2)
    until(page, "new URLSearchParams(location.search).get('picture')?.length === 16")
    page.get_by_role("button", name="error").click()
    until(page, "new URLSearchParams(location.search).get('colour') === 'error'")


def test_the_plots_frame_can_reach_nothing(tab: Any) -> None:
    if tab.server.store is None:
        pytest.skip("no survey extra")
    page = tab.open("tab=collection&map=pca")
    page.frame_locator("iframe.plot").locator(".main-svg").first.wait_for(state="attached")
    inner = next(frame for frame in page.frames if "/plot/" in frame.url)
    assert inner.evaluate("self.origin") == "null"
    assert inner.evaluate("fetch('/api/model').then(() => 'reached', () => 'refused')") == "refused"
    assert (
        inner.evaluate("(() => { try { return String(parent.document.title) } catch { return 'refused' } })()")
        == "refused"
    )
    tab.errors.clear()  # Chromium notes what it refused


def test_long_work_shows_its_progress_and_stops(tab: Any) -> None:
    page = tab.page
    page.goto(f"{tab.server.url}/?methods=grad-cam,rise&set=rise.samples=60000")
    frame = page.locator('[data-method="rise"]')
    frame.locator("progress").wait_for()
    until(page, "document.querySelector('[data-method=\"rise\"] .work .soft')?.textContent.includes('of 60000')")
    # a click is answered meanwhile
    page.locator('[data-method="grad-cam"] .legend canvas').wait_for()
    frame.get_by_role("button", name="Stop").click()
    frame.get_by_role("button", name="Try again").wait_for()


def test_a_link_shows_the_same_view(tab: Any, chromium: Any) -> None:
    page = tab.open()
    page.locator("#strip .thumb").nth(12).click()
    tab.settled()
    page.locator(".bars .bar-row").nth(2).click()
    until(page, "new URLSearchParams(location.search).get('target')")
    tab.settled()
    page.locator(".adder").select_option("hirescam")
    until(page, "document.querySelector('[data-method=hirescam] .legend canvas')")
    before = {name: pixels(page, f'[data-method="{name}"] canvas.pixels') for name in ("grad-cam", "hirescam")}
    text = page.locator(".target").inner_text()
    context = chromium.new_context(viewport={"width": 1280, "height": 860}, locale="en-US", color_scheme="light")
    other = context.new_page()
    other.goto(page.url)
    until(other, "document.querySelectorAll('#maps .legend canvas').length === 5")
    assert other.locator(".target").inner_text() == text
    for name, image in before.items():
        assert (pixels(other, f'[data-method="{name}"] canvas.pixels') == image).all()
    context.close()
    page.go_back()
    until(page, "!document.querySelector('[data-method=hirescam]')")


def test_keys(tab: Any) -> None:
    page = tab.open()
    first = query(page)["picture"]
    page.locator("body").press("ArrowRight")
    until(page, "id => new URLSearchParams(location.search).get('picture') !== id", arg=first)
    page.keyboard.press("2")
    page.wait_for_selector(".panel-layer")
    page.keyboard.press("1")
    page.wait_for_selector(".panel-decide")
    page.keyboard.press("?")
    page.wait_for_selector("dialog[open] kbd")
    page.keyboard.press("Escape")
    until(page, "!document.querySelector('dialog[open]')")
    wide = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--frame')")
    page.keyboard.press("+")
    assert page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--frame')") != wide
    page.keyboard.press("d")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_every_method_explains_itself_and_has_its_form(tab: Any) -> None:
    page = tab.open("methods=grad-cam,saliency")
    page.get_by_role("button", name="What am I looking at? Grad-CAM").click()
    dialog = page.locator("dialog[open]")
    assert "∂y/∂Aₖ" in dialog.inner_text()
    assert "ICCV 2017" in dialog.inner_text()
    dialog.locator("select[name=layer]").select_option("layer1")
    dialog.get_by_role("button", name="Apply").click()
    until(page, "new URLSearchParams(location.search).get('set') === 'grad-cam.layer=layer1'")
    tab.settled()
    drawn = pixels(page, '[data-method="grad-cam"] canvas.pixels').astype(int)
    expected = convoscope.explain(tab.server.model, shown_file(tab), convoscope.GradCAM(layer="layer1"))["grad-cam"]
    assert np.abs(drawn - np.asarray(expected.overlay()).astype(int)).mean() < 0.6


def test_judging_the_maps(tab: Any) -> None:
    page = tab.open("methods=grad-cam,guided-backprop")
    page.get_by_role("button", name="Check these maps").click()
    until(page, "document.querySelectorAll('.badge.good, .badge.bad').length === 2", timeout=90)
    page.locator(".badge").first.click()
    assert "insertion" in page.locator("dialog[open]").inner_text()


def test_dropping_a_picture_in(tab: Any, tmp_path: Any) -> None:
    page = tab.open()
    from convoscope.toybox import draw

    Image.fromarray(draw(777, label="boat").image).save(tmp_path / "mine.png")
    page.locator("#choose").set_input_files(str(tmp_path / "mine.png"))
    until(page, "document.querySelector('#strip .thumb')?.getAttribute('aria-label') === 'mine.png'")
    tab.settled()
    assert page.locator(".bars .label").first.inner_text() == "boat"
    (tmp_path / "text.png").write_bytes(b"no picture")
    page.locator("#choose").set_input_files(str(tmp_path / "text.png"))
    page.wait_for_selector(".toast.error")
    assert "not a picture" in page.locator(".toast.error").inner_text()
    tab.errors.clear()  # Chromium notes the 400


def test_korean_and_the_tour(tab: Any) -> None:
    page = tab.open()
    page.get_by_role("button", name="Tour").click()
    page.wait_for_selector(".tour")
    for _ in range(3):
        page.locator(".tour").get_by_role("button", name="Next").click()
    assert "4 of 7" in page.locator(".tour").inner_text()
    page.keyboard.press("Escape")
    until(page, "!document.querySelector('.tour')")
    page.get_by_role("button", name="한").click()
    until(page, "document.documentElement.lang === 'ko'")
    assert "판단" in page.locator(".tabs").inner_text()
    tab.settled()
    assert page.locator("#maps .frame").count() == 4


def test_the_reader_of_the_api(tab: Any) -> None:
    page = tab.page
    page.goto(f"{tab.server.url}/docs")
    page.wait_for_selector(".operation")
    described = tab.page.evaluate("fetch('/openapi.json').then((r) => r.json())")
    assert page.locator(".operation").count() == sum(len(verbs) for verbs in described["paths"].values())
    first = page.locator(".operation", has_text="/api/model").first
    first.locator("summary").click()
    first.get_by_role("button", name="Ask").click()
    first.locator("pre").wait_for()
    assert '"toybox"' in first.locator("pre").inner_text()


@pytest.mark.parametrize("tab", [(390, 844)], indirect=True)
def test_a_phone(tab: Any) -> None:
    page = tab.open()
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390, width
    page.get_by_role("button", name="Mask").click()
    box = page.locator(".frame.photo .stage").bounding_box()
    page.mouse.click(box["x"] + 100, box["y"] + 120)
    until(page, "document.querySelector('.answers .change')?.textContent.startsWith('covered')")
    page.locator(".fold summary").click()
    page.locator('[data-layer="layer3"]').click()
    page.wait_for_selector(".tile canvas")
    page.locator(".tile").first.click()
    page.wait_for_selector("#right h2")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("tab", name="Collection").click()
    page.wait_for_selector(".panel-collection")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_without_the_server_the_page_says_so(tab: Any) -> None:
    page = tab.open()
    page.route("**/api/**", lambda route: route.abort())
    page.locator("#strip .thumb").nth(4).click()
    page.wait_for_selector(".toast.error")
    assert "does not answer" in page.locator(".toast.error").inner_text()
    tab.errors.clear()

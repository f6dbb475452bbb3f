"""What once went wrong on the page, each at the place where a person met it."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from browser_helpers import until

import convoscope
from convoscope import ask as probe

pytestmark = pytest.mark.browser

SIZES = [(390, 844), (1024, 768), (1440, 900), (2560, 1300)]


def query(page: Any) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(urlsplit(page.url).query).items()}


def shown_file(tab: Any) -> Any:
    return tab.server.folder / tab.page.locator("#strip .thumb[aria-pressed=true]").get_attribute("aria-label")


def figures(page: Any) -> list[str]:
    return [str(one) for one in page.locator(".bars .figure").all_inner_texts()]


def test_back_to_the_first_view_is_the_first_view(tab: Any) -> None:
    page = tab.open()
    assert query(page)["methods"]
    assert query(page)["layer"]
    names = page.locator("#maps .frame").count()
    page.get_by_role("tab", name="Layer").click()
    page.wait_for_selector(".tile canvas")
    page.go_back()
    page.wait_for_selector("#maps .frame")
    assert page.locator("#maps .frame").count() == names
    tab.settled()
    page.go_forward()
    page.wait_for_selector(".tile canvas")
    page.reload()
    page.wait_for_selector(".tile canvas")


def test_one_unknown_method_of_a_link_leaves_the_others(tab: Any) -> None:
    page = tab.open("methods=grad-cam,no-such-method,occlusion&set=occlusion.window=-3,saliency.x=1")
    page.locator('[data-method="grad-cam"] .legend canvas').wait_for()
    for name in ("no-such-method", "occlusion"):
        page.locator(f'[data-method="{name}"] .problem').wait_for()
    assert "no-such-method" in page.locator('[data-method="no-such-method"] .problem').inner_text()


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
    # Esc takes the polygon away, too
    page.locator("body").press("Escape")
    until(page, "!document.querySelector('.marks .region') && !document.querySelector('.inside')")
    assert "region" not in query(page)


def test_units_that_are_off_are_not_forgotten(tab: Any) -> None:
    page = tab.open("off=layer3:5,layer3:11")
    until(page, "document.querySelector('.answers .change')?.textContent.startsWith('without')")
    off = probe.switch_off(tab.server.model, shown_file(tab), ["layer3:5", "layer3:11"])
    assert f"{off.after.probability:.3f}" in page.locator(".answers .change").inner_text()
    assert "2 units are off" in page.locator(".off-note").inner_text()
    page.get_by_role("tab", name="Layer").click()
    page.get_by_role("tab", name="Decide").click()
    until(page, "document.querySelector('.answers .change')?.textContent.startsWith('without')")
    page.get_by_role("button", name="Mask").click()
    until(page, "document.querySelector('.answers .change')?.textContent.startsWith('covered')")
    words = page.locator(".answers .change").inner_text()
    # before the mask the units are off already
    assert f"p {off.after.probability:.3f} →" in words, words
    assert "2 units are off" in words
    page.get_by_role("button", name="Point").click()
    until(page, "document.querySelector('.answers .change')?.textContent.startsWith('without')")


def test_one_unit_is_off(tab: Any) -> None:
    page = tab.open("off=layer3:5")
    page.wait_for_selector(".card-tabs .off")
    assert "1 unit is off" in page.locator(".card-tabs .off").inner_text()


def test_explain_this_unit_gives_maps_and_says_which_score(tab: Any) -> None:
    page = tab.open("tab=layer&layer=layer1.0.relu&unit=layer1.0.relu:5")
    page.get_by_role("button", name="Explain this unit").click()
    tab.settled()
    until(page, "document.querySelector('.target')?.textContent.includes('layer1.0.relu:5')")
    found = convoscope.explain(tab.server.model, shown_file(tab), "grad-cam", target="layer1.0.relu:5")
    assert found["grad-cam"].layer == "layer1.0.relu"
    assert found["grad-cam"].values.max() > 0
    ends = page.locator('[data-method="grad-cam"] .legend span').all_inner_texts()
    assert ends[-1] != "0"
    mean = f"{found.score:.3g}"
    assert mean in page.locator(".target").inner_text()
    assert f"mean {mean}, the score that is explained" in page.locator("#right").inner_text()


def test_a_contrast_has_no_negative_probability(tab: Any) -> None:
    page = tab.open()
    second = page.locator(".bars .bar-row").nth(1).get_attribute("data-key").removeprefix("class ")
    page.goto(f"{tab.server.url}/?target={second}&against=bird")
    until(page, "document.querySelector('.target')?.textContent.includes('difference of probabilities')")
    assert not re.search(r"p [-−]", page.locator(".target").inner_text())


def test_a_verdict_on_a_class_near_zero_is_not_green(tab: Any) -> None:
    page = tab.open("methods=grad-cam,saliency")
    last = page.locator(".bars .bar-row").last
    assert float(last.locator(".figure").inner_text()) < 0.01
    last.click()
    tab.settled()
    page.get_by_role("button", name="Check these maps").click()
    until(page, "document.querySelectorAll('.badge:not(:empty)').length === 2 && "
                "[...document.querySelectorAll('.badge')].every((one) => !one.textContent.includes('Check'))",
          timeout=90)  # fmt: skip
    assert page.locator(".badge.good").count() == 0
    page.locator(".badge").first.click()
    said = page.locator("dialog[open]").inner_text()
    assert "Judged on the score" in said
    assert "by 0.00" not in said


def test_patches_only_where_there_are_some(tab: Any) -> None:
    if tab.server.store is None:
        pytest.skip("no survey extra")
    refused: list[str] = []
    tab.page.on("response", lambda one: refused.append(one.url) if one.status >= 400 else None)
    page = tab.open("tab=layer&layer=layer2.0&tiles=patch")
    page.wait_for_selector(".tiles .empty .chip")
    assert not refused
    page.locator(".tiles .empty .chip").first.click()
    until(page, "[...document.querySelectorAll('.tile img')].some((one) => one.naturalWidth > 0)")
    # the default layer, the one with the star, has patches
    page.locator(".layer", has=page.locator(".star")).click()
    until(page, "[...document.querySelectorAll('.tile img')].some((one) => one.naturalWidth > 0)")


def test_filters_of_an_activation_are_those_that_feed_it(tab: Any) -> None:
    page = tab.open("tab=layer&layer=layer3.1.relu%232&tiles=filter")
    page.wait_for_selector(".tiles img.filters")
    assert "layer3.1.conv2" in page.locator(".tiles .wide").inner_text()


def test_tiles_show_the_number_that_orders_them(tab: Any) -> None:
    page = tab.open("tab=layer&layer=layer3&order=strength")
    page.wait_for_selector(".tile canvas")
    shown = [float(one) for one in page.locator(".tile .caption > span").all_inner_texts()]
    assert shown == sorted(shown, reverse=True)
    assert "own scale" in page.locator(".own-scales").inner_text()


def test_dropping_several_files_names_all_that_were_refused(tab: Any, tmp_path: Any) -> None:
    from PIL import Image

    from convoscope.toybox import draw

    page = tab.open()
    Image.fromarray(draw(901, label="cup").image).save(tmp_path / "good.png")
    (tmp_path / "a.png").write_bytes(b"no picture")
    (tmp_path / "b.png").write_bytes(b"no picture either")
    page.locator("#choose").set_input_files([str(tmp_path / name) for name in ("a.png", "good.png", "b.png")])
    page.wait_for_selector(".toast.error")
    said = page.locator(".toast.error").inner_text()
    assert "Not added: 2" in said
    assert "a.png" in said
    assert "b.png" in said
    tab.errors.clear()


def test_the_opacity_can_go_back(tab: Any) -> None:
    page = tab.open("methods=saliency")
    draw = "document.querySelector('[data-method=saliency] canvas.pixels').toDataURL()"
    before = page.evaluate(draw)
    page.get_by_role("slider", name="Opacity").fill("40")
    until(page, f"was => {draw} !== was", arg=before)
    page.get_by_role("button", name="Back to the usual opacity").click()
    until(page, f"was => {draw} === was", arg=before)
    assert "opacity" not in query(page)


def test_the_tour_shows_what_it_describes(tab: Any) -> None:
    page = tab.open()
    page.get_by_role("button", name="Tour").click()
    for number in range(7):
        until(page, "n => document.querySelector('.tour')?.textContent.includes(`${n} of 7`)", arg=number + 1)
        if number == 5:
            page.get_by_label("Switch this unit off").wait_for()
        assert page.locator(".lit").count() == 1
        if number < 6:
            page.locator(".tour").get_by_role("button", name="Next").click()
    page.keyboard.press("Escape")


def test_a_name_that_turns_the_text_is_marked(tab: Any, tmp_path: Any) -> None:
    from PIL import Image

    from convoscope.toybox import draw

    page = tab.open()
    file = tmp_path / "cat\u202egnp.png"
    Image.fromarray(draw(902, label="cat").image).save(file)
    page.locator("#choose").set_input_files(str(file))
    until(page, "document.querySelector('#strip .thumb')?.getAttribute('aria-label') === 'cat\\ufffdgnp.png'")
    assert "\u202e" not in page.content()


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("tab", SIZES, indirect=True, ids=[str(size[0]) for size in SIZES])
def test_nothing_lies_over_anything_else(tab: Any, scheme: str, language: str) -> None:
    page = tab.page
    page.emulate_media(color_scheme=scheme)
    page.add_init_script(f"try {{ localStorage.setItem('convoscope-language', '{language}') }} catch {{}}")
    tab.open("methods=grad-cam,saliency&off=layer3.1.relu%232:5&mask=0.5,0.5,0.3,mean")
    for _ in range(4):
        page.keyboard.press("+")
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    over = page.evaluate(
        """() => {
          const problems = [];
          const boxes = (one) => one.getBoundingClientRect();
          for (const line of document.querySelectorAll('.bars li')) {
            const row = boxes(line.querySelector('.figure')), rival = boxes(line.querySelector('.rival'));
            if (row.right > rival.left + 1) problems.push('the figure lies under the button');
            const answers = boxes(document.querySelector('.answers'));
            if (rival.right > answers.right + 1) problems.push('the button sticks out');
          }
          for (const part of ['#left', '#right', '#centre']) {
            const node = document.querySelector(part);
            if (node.scrollWidth > node.clientWidth + 1) problems.push(`${part} is wider than its room`);
          }
          const photo = boxes(document.querySelector('.frame.photo .stage'));
          if (photo.height > innerHeight * 0.56) problems.push('the photo fills the screen');
          return [...new Set(problems)];
        }"""
    )
    assert not over, over
    if page.viewport_size["width"] == 390:
        # the bars are seen while the mask is dragged
        gap = page.evaluate(
            "document.querySelector('.bars li').getBoundingClientRect().bottom"
            " - document.querySelector('.frame.photo').getBoundingClientRect().top"
        )
        assert gap < page.viewport_size["height"]


def test_a_photo_ten_times_as_wide_as_high(tab: Any, tmp_path: Any) -> None:
    from PIL import Image

    from convoscope.toybox import draw

    page = tab.open("methods=grad-cam,saliency")
    wide = Image.new("RGB", (960, 96), "grey")
    wide.paste(Image.fromarray(draw(905, label="boat").image), (432, 0))
    wide.save(tmp_path / "wide.png")
    page.locator("#choose").set_input_files(str(tmp_path / "wide.png"))
    until(page, "document.querySelector('#right h2')?.textContent === 'wide.png'")
    tab.settled()
    box = page.locator('[data-method="grad-cam"] .stage').bounding_box()
    assert box["height"] > 150
    assert "960×96" in page.locator(".frame.photo .notes").inner_text()
    # the value under the cursor is that of the place
    found = convoscope.explain(tab.server.model, tmp_path / "wide.png", "grad-cam")["grad-cam"]
    page.mouse.move(box["x"] + box["width"] * 0.505, box["y"] + box["height"] * 0.505)
    until(page, "document.querySelector('[data-method=\"grad-cam\"] .under').textContent")
    said = float(page.locator('[data-method="grad-cam"] .under').inner_text().split()[0])
    assert abs(said - found.values[48, 48]) < 0.05 * found.values.max() + 1e-3

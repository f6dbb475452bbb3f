"""Faults that a person once met, each in every width, both languages, light and dark; an address for every view.

The words come from the page itself, so that a test does not hang on the language. Three further faults have files of
their own: the detector's boxes, the server that stops, the pictures behind the five hundredth.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from browser_helpers import until, ways, word

import convoscope
from convoscope import ask

pytestmark = pytest.mark.browser


def in_all(fault: str) -> Any:
    return pytest.mark.parametrize("tab", ways(fault), indirect=True)


def query(page: Any) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(urlsplit(page.url).query).items()}


def opened(tab: Any) -> Any:
    return tab.server.app.state.app_state.album.picture(query(tab.page)["picture"])


def go(page: Any, tab: int) -> None:
    page.get_by_role("tab").nth(tab).click()


@in_all("back")
def test_back_never_empties_the_page_and_a_bad_link_kills_no_other_map(tab: Any) -> None:
    page = tab.open()
    assert query(page)["methods"]
    assert query(page)["layer"]
    names = page.locator("#maps .frame").count()
    go(page, 1)
    page.wait_for_selector(".tile canvas")
    page.go_back()
    page.wait_for_selector("#maps .frame")
    assert page.locator("#maps .frame").count() == names
    page.goto(f"{tab.server.url}/?methods=grad-cam,no-such-method,occlusion&set=occlusion.window=-3,saliency.x=1")
    page.locator('[data-method="grad-cam"] .legend canvas').wait_for()
    for name in ("no-such-method", "occlusion"):
        page.locator(f'[data-method="{name}"] .problem').wait_for()
    assert "no-such-method" in page.locator('[data-method="no-such-method"] .problem').inner_text()


@in_all("units off")
def test_units_off_are_not_forgotten_and_a_unit_is_explained(tab: Any) -> None:
    page = tab.open("methods=grad-cam&off=layer3:5,layer3:11")
    off = ask.switch_off(tab.server.model, opened(tab), ["layer3:5", "layer3:11"])
    p = f"{off.after.probability:.3f}"
    until(page, "p => document.querySelector('.answers .change')?.textContent.includes(p)", arg=p)
    go(page, 1)
    go(page, 0)
    until(page, "p => document.querySelector('.answers .change')?.textContent.includes(p)", arg=p)
    page.locator('[data-value="mask"]').click()
    off_words = word(page, "switchedOff", n=2)
    until(page, "it => document.querySelector('.answers .change')?.textContent.includes(it)", arg=off_words)
    # before the mask the units are off already
    assert f"p {p} →" in page.locator(".answers .change").inner_text()
    assert off_words in page.locator(".off-note").inner_text()
    page.locator('[data-value="point"]').click()
    until(page, "p => document.querySelector('.answers .change')?.textContent.endsWith(p)", arg=f"p {p}")
    page.goto(f"{tab.server.url}/?off=layer3:5&methods=saliency")
    page.wait_for_selector(".card-tabs .off")
    assert word(page, "oneOff") in page.locator(".card-tabs .off").inner_text()
    page.goto(f"{tab.server.url}/?tab=layer&layer=layer1.0.relu&unit=layer1.0.relu:5&methods=grad-cam")
    page.get_by_role("button", name=word(page, "explainUnit")).click()
    tab.settled()
    found = convoscope.explain(tab.server.model, opened(tab), "grad-cam", target="layer1.0.relu:5")
    until(page, "document.querySelector('.target')?.textContent.includes('layer1.0.relu:5')")
    assert page.locator('[data-method="grad-cam"] .legend span').all_inner_texts()[-1] != "0"
    mean = f"{found.score:.3g}"
    assert mean in page.locator(".target").inner_text()
    assert mean in page.locator("#right").inner_text()


@in_all("explanations")
def test_what_a_method_is_said_to_do_is_what_it_does(tab: Any) -> None:
    page = tab.open("methods=integrated-gradients,cam&set=integrated-gradients.nodes=2")
    said = {}
    for name in ("integrated-gradients", "cam"):
        page.locator(f'[data-method="{name}"] .what').click()
        page.locator("dialog[open]").wait_for()
        said[name] = page.locator("dialog[open]").inner_text()
        page.keyboard.press("Escape")
        until(page, "!document.querySelector('dialog[open]')")
    # the default baseline is the mean picture, not a black one; a classifier's bias is left over
    assert not re.search("from black|검은 화면에서", said["integrated-gradients"])
    assert re.search("mean|평균", said["integrated-gradients"])
    assert not re.search("nothing is left over|남는 것이 없", said["cam"])
    assert re.search("bias|편향", said["cam"])


@in_all("verdict")
def test_no_probability_below_zero_and_no_green_verdict_at_zero(tab: Any) -> None:
    page = tab.open("methods=saliency")
    second = page.locator(".bars .bar-row").nth(1).get_attribute("data-key").removeprefix("class ")
    last = page.locator(".bars .bar-row").last.get_attribute("data-key").removeprefix("class ")
    page.goto(f"{tab.server.url}/?target={last}&against={second}&methods=saliency")
    difference = word(page, "probabilityDifference")
    until(page, "it => document.querySelector('.target')?.textContent.includes(it)", arg=difference)
    assert not re.search(r"\bp [-−]", page.locator(".target").inner_text())
    # nor under a mask: there the difference of two probabilities is told as one
    page.locator('[data-value="mask"]').click()
    until(page, "it => document.querySelector('.answers .change')?.textContent.includes(it)", arg=difference)
    assert not re.search(r"\bp [-−]", page.locator(".answers .change").inner_text())
    page.goto(f"{tab.server.url}/?target={last}&methods=saliency")
    tab.settled()
    assert float(page.locator(".bars .bar-row").last.locator(".figure").inner_text()) < 0.01
    page.locator(".judge").click()
    page.locator(".badge:is(.good, .bad, .doubt)").first.wait_for(timeout=90_000)
    assert page.locator(".badge.good").count() == 0
    page.locator(".badge").first.click()
    told = page.locator("dialog[open]").inner_text()
    assert re.search("Judged on the score|확률이 아니라 점수로", told)
    assert not re.search(r"by 0\.00|무작위보다 0\.00", told)


@in_all("starred layer")
def test_the_starred_layer_has_patches_and_an_activation_has_filters(tab: Any) -> None:
    if tab.server.store is None:
        pytest.skip("no survey extra")
    refused: list[str] = []
    tab.page.on("response", lambda one: refused.append(one.url) if one.status >= 400 else None)
    page = tab.open("tab=layer&tiles=patch")
    until(page, "[...document.querySelectorAll('.tile img')].some((one) => one.naturalWidth > 0)")
    page.goto(f"{tab.server.url}/?tab=layer&layer=layer2.0&tiles=patch")
    page.locator(".tiles .empty .chip").first.click()  # the nearest layer that has patches
    until(page, "[...document.querySelectorAll('.tile img')].some((one) => one.naturalWidth > 0)")
    page.goto(f"{tab.server.url}/?tab=layer&layer=layer3.1.relu%232&tiles=filter")
    page.wait_for_selector(".tiles img.filters")
    assert "layer3.1.conv2" in page.locator(".tiles .wide").inner_text()
    assert not refused


@in_all("legend")
def test_the_legend_lies_beside_the_map_and_each_class_has_its_colour(tab: Any) -> None:
    if tab.server.store is None:
        pytest.skip("no survey extra")
    page = tab.open("tab=collection&map=pca")
    page.wait_for_selector(".map-legend li")
    page.frame_locator("iframe.plot").locator(".scatterlayer path.point").first.wait_for(state="attached")
    colours = page.evaluate("[...document.querySelectorAll('.map-legend i')].map((one) => one.style.background)")
    assert len(colours) == len(set(colours)) == 10
    apart = page.evaluate(
        """() => {
          const a = document.querySelector('.map-legend').getBoundingClientRect();
          const b = document.querySelector('iframe.plot').getBoundingClientRect();
          return a.left >= b.right - 1 || a.right <= b.left + 1 || a.top >= b.bottom - 1 || a.bottom <= b.top + 1;
        }"""
    )
    assert apart, "the legend lies over the points"
    box = page.locator("iframe.plot").bounding_box()
    assert box["height"] >= 280, box
    assert str(tab.server.folder.parent) not in page.locator("body").inner_text()


@in_all("narrow and wide")
def test_figures_are_seen_names_stay_inside_and_the_room_is_used(tab: Any, tmp_path: Any) -> None:
    from PIL import Image

    from convoscope.toybox import draw

    page = tab.open("methods=grad-cam,saliency&unit=layer3.1.relu%232:5&mask=0.5,0.5,0.3,mean")
    for _ in range(3):
        page.keyboard.press("+")
    problems = page.evaluate(
        """() => {
          const found = [], box = (one) => one.getBoundingClientRect();
          for (const line of document.querySelectorAll('.bars li')) {
            const figure = box(line.querySelector('.figure')), rival = box(line.querySelector('.rival'));
            if (figure.right > rival.left + 1) found.push('the figure lies under the button');
          }
          for (const part of ['#left', '#right', '#centre']) {
            const node = document.querySelector(part);
            if (node.scrollWidth > node.clientWidth + 1) found.push(`${part} is wider than its room`);
          }
          if (document.documentElement.scrollWidth > innerWidth) found.push('the page is wider than the screen');
          const photo = box(document.querySelector('.frame.photo .stage'));
          if (photo.height > innerHeight * 0.56) found.push('the photo fills the screen');
          if (box(document.querySelector('.bars li')).bottom - photo.top > innerHeight)
            found.push('the first bar is not seen while the mask is dragged');
          for (const line of document.querySelectorAll('.layer .name'))
            if (line.scrollWidth > line.clientWidth + 1 && line.textContent.length < 18)
              found.push(`${line.textContent} is cut off`);
          const used = Math.max(...[...document.querySelectorAll('#centre .frame, .answers')].map((it) =>
            box(it).right));
          const room = box(document.querySelector('#centre'));
          if (innerWidth > 2000 && used < room.left + 0.7 * room.width) found.push('a third of the screen is empty');
          return [...new Set(found)];
        }"""
    )  # fmt: skip
    assert not problems, problems
    wide = Image.new("RGB", (960, 96), "grey")
    wide.paste(Image.fromarray(draw(905, label="boat").image), (432, 0))
    wide.save(tmp_path / "wide.png")
    page.goto(f"{tab.server.url}/?methods=grad-cam")
    page.wait_for_selector("#strip .thumb")
    page.locator("#choose").set_input_files(str(tmp_path / "wide.png"))
    until(page, "document.querySelector('#right h2')?.textContent === 'wide.png'")
    tab.settled()
    box = page.locator('[data-method="grad-cam"] .stage').bounding_box()
    assert box["height"] > 110
    assert "960×96" in page.locator(".frame.photo .notes").inner_text()
    # the value under the cursor is that of the place
    found = convoscope.explain(tab.server.model, tmp_path / "wide.png", "grad-cam")["grad-cam"]
    page.locator('[data-method="grad-cam"] .stage').scroll_into_view_if_needed()
    box = page.locator('[data-method="grad-cam"] .stage').bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.505, box["y"] + box["height"] * 0.505)
    until(page, "document.querySelector('[data-method=\"grad-cam\"] .under').textContent")
    said = float(page.locator('[data-method="grad-cam"] .under').inner_text().split()[0])
    assert abs(said - found.values[48, 48]) < 0.05 * found.values.max() + 1e-3


@in_all("small things")
def test_refusals_are_named_the_region_goes_the_opacity_returns(tab: Any, tmp_path: Any) -> None:
    from PIL import Image

    from convoscope.toybox import draw

    page = tab.open("methods=saliency")
    pixels = "document.querySelector('[data-method=saliency] canvas.pixels').toDataURL()"
    before = page.evaluate(pixels)
    if page.viewport_size["width"] > 700:  # a phone has no room for the slider
        page.locator(".slider input[type=range]").last.fill("40")
        until(page, f"was => {pixels} !== was", arg=before)
        page.get_by_role("button", name=word(page, "opacityReset")).click()
        until(page, f"was => {pixels} === was", arg=before)
    page.locator('[data-value="region"]').click()
    stage = page.locator(".frame.photo .stage")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    side = min(box["width"], box["height"])
    page.mouse.move(box["x"] + 0.2 * side, box["y"] + 0.2 * side)
    page.mouse.down()
    for x, y in ((0.7, 0.2), (0.7, 0.7), (0.2, 0.7)):
        page.mouse.move(box["x"] + x * side, box["y"] + y * side, steps=4)
    page.mouse.up()
    page.wait_for_selector(".inside")
    assert query(page)["region"].count(";") >= 2
    page.locator("body").press("Escape")
    until(page, "!document.querySelector('.marks .region') && !document.querySelector('.inside')")
    assert "region" not in query(page)
    page.get_by_role("button", name=word(page, "tour"), exact=True).click()
    for number in range(1, 8):
        until(
            page,
            "n => document.querySelector('.tour')?.textContent.includes(n)",
            arg=word(page, "step", n=number, total=7),
        )
        if number == 6:
            page.locator(".ablate input").wait_for()
        assert page.locator(".lit").count() == 1
        if number < 7:
            page.locator(".tour .main").click()
    page.keyboard.press("Escape")
    page.goto(f"{tab.server.url}/?tab=layer&layer=layer3&order=strength")
    page.wait_for_selector(".tile canvas")
    shown = [float(one) for one in page.locator(".tile .caption > span").all_inner_texts()]
    assert shown == sorted(shown, reverse=True)
    assert page.locator(".own-scales").inner_text()
    Image.fromarray(draw(901, label="cup").image).save(tmp_path / "good.png")
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no picture")
    page.locator("#choose").set_input_files([str(tmp_path / name) for name in ("a.png", "good.png", "b.png")])
    page.wait_for_selector(".toast.error")
    said = page.locator(".toast.error").inner_text()
    assert "a.png" in said
    assert "b.png" in said
    assert word(page, "notAdded", n=2) in said
    tab.errors.clear()


#: what the eye sees of a view: the tab, what is pressed and chosen, the maps, the card, the list
SEEN = """() => {
  const text = (where) => document.querySelector(where)?.textContent ?? '';
  const all = (where, of) => [...document.querySelectorAll(where)].map(of);
  return {
    panel: document.querySelector('#centre .panel')?.className.replace(' stale', ''),
    pressed: all('#centre [aria-pressed=true], #centre [aria-selected=true]',
                 (one) => one.dataset.value ?? one.dataset.key ?? one.dataset.id ?? '').sort(),
    picked: all('#centre select', (one) => one.value), maps: all('#maps .frame', (one) => one.dataset.method),
    target: text('.answers .target'), change: text('.answers .change'), card: text('#right h2'),
    photo: document.querySelector('#strip [aria-pressed=true]')?.getAttribute('aria-label') ?? '',
    layer: text('.layer-head h2'), count: text('.count'), tiles: document.querySelectorAll('.tile').length,
    off: text('.card-tabs .off'), pictures: document.querySelectorAll('.pic').length, empty: text('.empty h2'),
  };
}"""


def seen(page: Any) -> Any:
    """The view once it stands still: the same three times, a twentieth of a second apart."""
    last, same = None, 0
    for _ in range(600):
        now = page.evaluate(SEEN)
        idle = page.evaluate("!document.querySelector('.panel.stale, .computing')")
        same = same + 1 if now == last and idle else 0
        if same == 3:
            return now
        last = now
        page.wait_for_timeout(50)
    raise AssertionError(f"the view never stands still: {last}")


def same_again(page: Any, actions: list[tuple[str, Any]]) -> None:
    """After each action: another address and view; back, forward, reload, and at the end a link, show the same."""
    before = seen(page)
    for name, act in actions:
        here = page.url
        act()
        try:
            until(page, "was => location.href !== was", arg=here, timeout=15)
        except AssertionError:
            raise AssertionError(f"{name}: the address stays as it was") from None
        after = seen(page)
        assert after != before, name
        page.go_back()
        assert seen(page) == before, f"{name}: back"
        page.go_forward()
        assert seen(page) == after, f"{name}: forward"
        page.reload()
        page.wait_for_selector("#centre .panel")
        assert seen(page) == after, f"{name}: reload"
        before = after
    other = page.context.new_page()
    other.goto(page.url)
    other.wait_for_selector("#centre .panel")
    assert seen(other) == before, "a link"
    other.close()


@in_all("addresses")
def test_back_forward_reload_and_a_link_give_the_same_view_after_each_action(tab: Any) -> None:
    page = tab.open("methods=grad-cam,saliency")
    actions = [
        ("another picture", lambda: page.locator("#strip .thumb >> nth=1").click()),
        ("a class", lambda: page.locator(".bars .bar-row").nth(1).click()),
        ("a rival", lambda: page.locator(".bars .rival:not([disabled])").first.click()),
        ("a method more", lambda: page.locator("select.adder").select_option("hirescam")),
        ("the layer's tab", lambda: go(page, 1)),
        ("filters", lambda: page.locator('.panel-layer [data-value="filter"]').click()),
        ("activations", lambda: page.locator('.panel-layer [data-value="activation"]').click()),
        ("a unit", lambda: page.locator(".tile").nth(1).click()),
        ("a unit off", lambda: page.locator(".ablate input").click()),
        ("back to the question", lambda: go(page, 0)),
    ]  # fmt: skip
    if page.viewport_size["width"] > 700:  # on a phone the layers are folded away
        actions.insert(5, ("a layer", lambda: page.locator("#left .layer").first.click()))
    same_again(page, actions)


@in_all("more addresses")
def test_the_collection_and_what_is_improved_are_found_again(tab: Any) -> None:
    if tab.server.store is None:
        pytest.skip("no survey extra")
    page = tab.open("methods=grad-cam&map=pca")
    same_again(page, [
        ("the collection", lambda: go(page, 2)),
        ("the grid", lambda: page.locator('.views [data-value="grid"]').click()),
        ("a class", lambda: page.locator('.filters [data-key="label"]').select_option(index=2)),
        ("those that are right", lambda: page.locator('.filters [data-value="right"]').click()),
        ("the confusions", lambda: page.locator('.views [data-value="confusion"]').click()),
        ("what is improved", lambda: go(page, 3)),
        ("labels", lambda: page.locator('.panel-improve [data-value="labels"]').click()),
    ])  # fmt: skip

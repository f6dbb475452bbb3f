"""Text is measured as it is drawn, and what does not fit is wrapped or shortened."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import convoscope as cs
from convoscope.draw import fonts, raster
from convoscope.draw.canvas import Drawing, Text
from convoscope.toybox import draw

SAMPLE = "Egyptian cat 0.71 · logit 14.1 — layer3.5:117 ≤ −2×10⁻⁵ λ"


@pytest.mark.parametrize("dpi", [72, 100, 144, 220, 300])
@pytest.mark.parametrize("size", [5.0, 6.4, 8.6, 14.0])
@pytest.mark.parametrize("bold", [False, True])
def test_drawn_text_stays_within_its_measured_bounds(dpi, size, bold):
    drawing = Drawing(700, 40)
    text = Text(20, 25, SAMPLE, size, bold=bold)
    drawing.items.append(text)
    ink = np.nonzero(np.asarray(raster.render(drawing, dpi)).min(2) < 200)
    left, top, right, bottom = (edge * dpi / 72 for edge in text.bounds)
    assert ink[1].min() >= left - 1.5
    assert ink[1].max() <= right + 1.5
    assert ink[1].max() >= right - 0.03 * (right - left) - 2
    assert ink[0].min() >= top - 1.5
    assert ink[0].max() <= bottom + 1.5


def test_text_is_measured_by_its_fonts_own_advances():
    face = fonts.primary()
    assert fonts.width("mm", 10) == pytest.approx(2 * fonts.width("m", 10))
    assert fonts.width("m", 10) == pytest.approx(10 * face.font["hmtx"]["m"][0] / 2048)
    assert fonts.width("AV", 10) == pytest.approx(fonts.width("A", 10) + fonts.width("V", 10))


@settings(max_examples=80, deadline=None)
@given(
    st.text(alphabet="abc WM.-_/·é0123456789,", max_size=80),
    st.floats(30, 200),
    st.sampled_from([None, 1, 2, 3]),
)
def test_wrapped_lines_fit_and_lose_nothing_unless_limited(text, room, lines):
    wrapped = fonts.wrap(text, room, 8.0, lines=lines)
    assert all(fonts.width(line, 8.0) <= room for line in wrapped)
    if lines is None:
        assert "".join(wrapped).replace(" ", "") == fonts.clean(text).replace(" ", "")
    else:
        assert len(wrapped) <= lines
        whole = fonts.wrap(text, room, 8.0)
        assert wrapped == whole or wrapped[-1].endswith("…")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60), st.floats(0, 150))
def test_shortened_text_fits(text, room):
    short = fonts.fit(text, room, 7.0)
    assert fonts.width(short, 7.0) <= room or short == ""
    if fonts.width(fonts.clean(text), 7.0) <= room:
        assert short == fonts.clean(text)


def test_names_break_after_punctuation_but_numbers_do_not():
    assert fonts.wrap("layer4.downsample.conv3", 62, 8.0) == ["layer4.", "downsample.", "conv3"]
    room = fonts.width("score 0.7", 8.0)
    assert fonts.wrap("score 0.71", room, 8.0) == ["score", "0.71"]


def test_control_characters_become_blanks():
    assert fonts.clean(" a\tb\n\x00c ") == "a b c"


def test_subset_holds_only_what_is_asked():
    import io

    from fontTools.ttLib import TTFont

    data = fonts.subset(fonts.primary(), "Abc")
    assert set(map(chr, TTFont(io.BytesIO(data)).getBestCmap())) == set("Abc")
    assert len(data) < 10_000
    assert fonts.subset(fonts.primary(), "Abc", web=True)[:4] == b"wOFF"


def test_characters_that_no_font_has_are_still_measured():
    assert fonts.width("\U0010fffd", 10) > 0


def test_many_threads_may_be_the_first_to_measure():
    """fontTools reads its tables when they are first asked for: twenty times six threads at once."""
    text = ["A sheet of maps, 0.98", "score − 12.5", "Größe · ReLU", "layer3.1.conv2"]
    alone = [fonts.width(one, 9, bold) for one in text for bold in (False, True)]
    caches = (fonts._open, fonts._advances, fonts.primary, fonts._face, fonts.face_for, fonts._width)

    def measured(start: threading.Barrier) -> list[float]:
        start.wait(60)
        return [fonts.width(one, 9, bold) for one in text for bold in (False, True)]

    with ThreadPoolExecutor(6) as threads:
        for _ in range(20):
            for cache in caches:
                cache.cache_clear()
            start = threading.Barrier(6)
            for found in [threads.submit(measured, start) for _ in range(6)]:
                assert found.result() == alone


def test_sheets_drawn_by_threads_are_those_drawn_alone():
    model = cs.open_model("toybox", device="cpu")
    explanations = [cs.explain(model, draw(seed).image, ["grad-cam", "saliency"]) for seed in range(6)]
    alone = [np.asarray(one.sheet().image) for one in explanations]
    with ThreadPoolExecutor(6) as threads:
        for found, one in zip(
            threads.map(lambda one: np.asarray(one.sheet().image), explanations), alone, strict=True
        ):
            np.testing.assert_array_equal(found, one)

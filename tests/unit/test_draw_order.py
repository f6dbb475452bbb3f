"""More looks like more: on any photo the order of values can be read, and every map uses its colours or says why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import convoscope
from convoscope.draw import colour, legend, overlay, scales
from convoscope.methods import METHODS, method

HEIGHT, WIDTH = 64, 256
_LUMA = np.array([0.299, 0.587, 0.114])
_CHANCE = np.random.default_rng(3)

PHOTOS = {
    "black": np.zeros((HEIGHT, WIDTH, 3), np.uint8),
    "white": np.full((HEIGHT, WIDTH, 3), 255, np.uint8),
    "noise": _CHANCE.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8),
    "stripes": np.tile(np.array([[[0] * 3], [[255] * 3]], np.uint8), (HEIGHT // 2, WIDTH, 1)),
    "saturated": np.tile(np.array([[[255, 0, 0]], [[0, 0, 255]]], np.uint8), (HEIGHT // 2, WIDTH, 1)),
}


def brightness(image: Any) -> NDArray[np.float64]:
    """The mean brightness of sixteen columns from left to right."""
    luma = np.asarray(image) @ _LUMA
    return np.asarray(luma.reshape(HEIGHT, 16, -1).mean((0, 2)))


@pytest.mark.parametrize("cmap", ["", "viridis", "magma", "cividis"])
@pytest.mark.parametrize("photo", PHOTOS)
def test_more_is_brighter_on_every_photo(photo: str, cmap: str) -> None:
    ramp = np.tile(np.linspace(0, 1, WIDTH), (HEIGHT, 1))
    scale = colour.scale_for([ramp], signed=False, percentile=None, cmap=cmap)
    steps = np.diff(brightness(overlay.overlay(PHOTOS[photo], ramp, scale=scale)))
    assert (steps > -0.5).all(), steps
    # and it can be seen: from nothing to the strongest there lie many levels of brightness, also on white
    assert steps.sum() > 60


@pytest.mark.parametrize("photo", PHOTOS)
def test_more_is_darker_on_every_photo_for_either_sign(photo: str) -> None:
    ramp = np.tile(np.linspace(-1, 1, WIDTH), (HEIGHT, 1))
    light = brightness(overlay.overlay(PHOTOS[photo], ramp, signed=True))
    assert (np.diff(light[8:]) < 0.5).all(), light
    assert (np.diff(light[:8]) > -0.5).all(), light
    image = np.asarray(overlay.overlay(PHOTOS[photo], ramp, signed=True)).astype(int)
    assert (image[:, -16:, 0] > image[:, -16:, 2]).all(), "above zero is red"
    assert (image[:, :16, 2] > image[:, :16, 0]).all(), "below zero is blue"


def test_the_photo_shines_through_where_there_is_nothing() -> None:
    photo = PHOTOS["noise"]
    zero = np.asarray(overlay.overlay(photo, np.zeros((HEIGHT, WIDTH)))).astype(float)
    grey = photo @ _LUMA
    assert np.corrcoef(zero.mean(2).ravel(), grey.ravel())[0, 1] > 0.98


def test_the_legend_shows_the_colours_of_the_map() -> None:
    ramp = np.tile(np.linspace(0, 1, WIDTH), (HEIGHT, 1))
    scale = overlay.over(colour.scale_for([ramp], signed=False, percentile=None))
    strip = legend.bar(scale, WIDTH).astype(int)
    for row, photo in enumerate(("white", "black")):
        drawn = np.asarray(overlay.overlay(PHOTOS[photo], ramp, scale=scale)).astype(int)
        assert np.abs(drawn[10] - strip[row]).max() <= 2


def test_a_plate_is_drawn_as_the_difference_from_what_is_expected() -> None:
    plate = np.full((20, 20), 0.92)
    plate[5:9, 5:9] = 0.99
    scale = scales.for_map(plate, signed=False, expected=0.957)
    assert scale.signed
    assert scale.centre == 0.957
    assert "difference from 0.957" in scale.note
    assert scales.used(scale, plate) > 0.5
    # the numbers of the legend are those of the map
    assert scale.low == pytest.approx(0.957 - (scale.high - 0.957))
    assert scale.high >= 0.99 or scale.low <= 0.92


def test_one_patch_does_not_take_the_whole_scale() -> None:
    values = np.zeros((40, 40))
    for number in range(100):
        values[number // 10 * 4 : number // 10 * 4 + 4, number % 10 * 4 : number % 10 * 4 + 4] = number / 1000
    values[:4, :4] = 5.0
    scale = scales.for_map(values, signed=True, patches=True)
    assert scale.high < 0.2
    assert "one patch lies beyond the scale: 5" in scale.note


def test_no_half_of_a_scale_lies_idle() -> None:
    values = np.abs(np.random.default_rng(0).normal(size=(30, 30)))
    assert not scales.for_map(values, signed=True).signed
    assert "no value lies below 0" in scales.for_map(values, signed=True).note
    assert scales.for_map(values - 1, signed=True).signed


def test_few_pixels_are_told() -> None:
    values = np.zeros((100, 100))
    values[0, :60] = 1.0
    scale = scales.for_map(values, signed=False)
    assert "a few places stand out" in scale.note


def test_deep_filters_are_not_pale() -> None:
    from convoscope.draw import grid

    weights = np.random.default_rng(1).normal(0, 0.04, (16, 8, 3, 3))
    weights[0, 0, 0, 0] = 0.49
    sheet = grid.filters(weights)
    said = " ".join(str(getattr(item, "text", "")) for item in sheet.drawing.items)
    assert "99.5th percentile" in said
    assert "0.49" in said


def test_an_occlusion_map_that_tells_no_place_is_refused() -> None:
    import torch

    class Blind(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x.mean((1, 2, 3))[:, None] * 0)

    model = convoscope.open_model(Blind(), size=(32, 32), mean=(0.0,) * 3, std=(1.0,) * 3)
    picture = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    with pytest.raises(convoscope.MethodRefused, match="no place to show"):
        convoscope.explain(model, picture, "occlusion", target=0)


#: what keeps the test short; everything else stands at its default
SHORT = {"rise": {"samples": 400}, "lime": {"samples": 200}, "extremal-perturbation": {"rounds": 60}}


def check(names: list[str], count: int) -> None:
    from convoscope.toybox import draw

    model = convoscope.open_model("toybox")
    chosen = [method(name, SHORT.get(name, {})) for name in names]
    for number in range(count):
        found = convoscope.explain(model, np.asarray(draw(500 + number).image), chosen)
        for name, heatmap in found.items():
            scale = heatmap.scale()
            share = scales.used(scale, heatmap.values)
            assert share >= 0.5 or scale.note, (name, number, share)
            if scale.signed:  # both halves, or a word
                above = np.nanpercentile(heatmap.values - scale.centre, 99.5) / (scale.high - scale.centre)
                below = np.nanpercentile(scale.centre - heatmap.values, 99.5) / (scale.high - scale.centre)
                assert min(above, below) > 0.015 or scale.note, (name, number, above, below)


def quick() -> list[str]:
    return [name for name, one in METHODS.items() if not one.about.slow and "attention" not in name]


def test_every_quick_method_uses_its_colours_or_says_why() -> None:
    check(quick(), 5)


@pytest.mark.slow
def test_every_quick_method_uses_its_colours_on_twenty_pictures() -> None:
    check(quick(), 20)


@pytest.mark.slow
def test_every_slow_method_uses_its_colours_or_says_why() -> None:
    check([name for name, one in METHODS.items() if one.about.slow and "attention" not in name], 20)


def words(sheet: Any) -> str:
    return " ".join(str(getattr(item, "text", "")) for item in sheet.drawing.items)


def test_a_sheet_names_picture_network_and_weights(tmp_path: Any) -> None:
    from PIL import Image

    from convoscope.toybox import draw

    Image.fromarray(draw(7).image).save(tmp_path / "mine.png")
    model = convoscope.open_model("toybox")
    sheet = convoscope.explain(model, tmp_path / "mine.png", "grad-cam").sheet()
    said = words(sheet)
    for name in ("mine.png", "toybox", "weights", model.fingerprint[:12]):
        assert name in said, name


def test_tiles_on_their_own_scales_say_how_far_apart_they_are() -> None:
    from convoscope.draw import grid

    tiles = np.random.default_rng(0).random((4, 5, 5)) * np.array([0.3, 1, 40, 400])[:, None, None]
    said = words(grid.tiles(tiles, scale="own", unit="activation"))
    assert "strongest values run from 0.2" in said or "strongest values run from 0.3" in said
    assert "to 39" in said or "to 4" in said
    even = np.random.default_rng(0).random((4, 5, 5)) + 1
    alike = words(grid.tiles(even, scale="own", unit="activation"))
    assert "run from" not in alike

"""Values become colours exactly as the scale says, and nothing is stretched in secret."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoscope.draw import colour, legend
from convoscope.draw.colour import Scale, format_number, paint, scale_for
from convoscope.errors import UsageError


def test_signed_scale_is_symmetrical_about_zero():
    scale = scale_for([np.array([[-1.0, 0.0], [0.5, 4.0]])], signed=True, percentile=None)
    assert (scale.low, scale.high) == (-4.0, 4.0)
    positions = scale.position(np.array([-4.0, -2.0, 0.0, 2.0, 4.0]))
    np.testing.assert_allclose(positions, [0, 0.25, 0.5, 0.75, 1])


def test_zero_of_a_signed_scale_is_the_neutral_middle_colour():
    scale = Scale(-3.0, 3.0, True)
    middle = paint(np.zeros((1, 1)), scale)[0, 0].astype(int)
    assert middle.max() - middle.min() <= 1  # no hue
    assert middle.min() > 240  # white on paper
    red, blue = (paint(np.full((1, 1), v), scale)[0, 0].astype(int) for v in (3.0, -3.0))
    assert red[0] > red[2]
    assert blue[2] > blue[0]


def test_unsigned_scale_starts_at_zero_and_not_at_the_minimum():
    scale = scale_for([np.linspace(5.0, 5.1, 100)], signed=False, percentile=None)
    assert (scale.low, scale.high) == (0.0, 5.1)
    painted = paint(np.array([[5.0, 5.1]]), scale).astype(int)
    assert np.abs(painted[0, 0] - painted[0, 1]).max() < 25  # nearly equal values look nearly equal


def test_percentile_is_numpys_and_is_stated():
    values = np.random.default_rng(0).random(1000)
    scale = scale_for([values], signed=False, percentile=90)
    assert scale.high == pytest.approx(np.percentile(values, 90))
    assert scale.clip_percentile == 90
    assert "90th percentile" in scale.sentence()
    signed = scale_for([values - 0.5], signed=True, percentile=90)
    assert signed.high == pytest.approx(np.percentile(np.abs(values - 0.5), 90))
    assert scale_for([np.full(9, 2.0)], signed=False, percentile=90).clip_percentile is None


def test_a_lone_peak_is_not_clipped_away():
    values = np.zeros((100, 100))
    values[3, 4] = 7.0
    scale = scale_for([values], signed=False, percentile=99.5)
    assert scale.high == 7.0
    assert scale.clip_percentile is None
    painted = paint(values, scale)
    assert (painted[3, 4] == colour.colours(scale.cmap)[-1]).all()


def test_compared_maps_share_one_scale():
    weak, strong = np.full((4, 4), 0.1), np.full((4, 4), 2.0)
    scale = scale_for([weak, strong], signed=False, percentile=None)
    assert scale.high == 2.0
    assert paint(weak, scale).mean() < 0.4 * paint(strong, scale).mean()


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros((3, 3)), "every value is 0"),
        (np.full((3, 3), 2.5), "constant: every value is 2.5"),
        (np.full((3, 3), -2.5), "constant: every value is −2.5"),
        (np.zeros((0, 3)), "no values"),
        (np.full((2, 2), np.nan), "no finite value"),
        (np.array([[1.0, np.nan], [np.inf, 2.0]]), "2 values are not finite"),
        (np.array([[1.0, np.nan]]), "1 value is not finite"),
    ],
)
def test_odd_maps_are_noted(values, said, signed):
    scale = scale_for([values], signed=signed)
    assert said in scale.note
    assert math.isfinite(scale.low)
    assert math.isfinite(scale.high)
    if values.size:
        assert paint(values, scale).shape == (*values.shape, 3)


def test_ordinary_maps_carry_no_note():
    assert scale_for([np.arange(9.0).reshape(3, 3)], signed=False).note == ""
    assert "below 0" in scale_for([np.array([-1.0, 2.0])], signed=False).note
    assert scale_for([np.array([-1.0, 2.0])], signed=False, percentile=None).low == -1.0


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("value", [0.0, 1e-30, 3.0, -3.0, 3e38])
def test_a_flat_map_is_drawn_flat(value, signed):
    values = np.full((20, 20), value)
    painted = paint(values, scale_for([values], signed=signed))
    assert (painted == painted[0, 0]).all()


def test_not_a_number_is_hatched_grey_and_the_rest_is_untouched():
    values = np.linspace(0, 1, 400).reshape(20, 20)
    holed = values.copy()
    holed[5:15, 5:15] = np.nan
    holed[6, 6] = np.inf
    scale = Scale(0.0, 1.0, False)
    painted, plain = paint(holed, scale), paint(values, scale)
    hole = painted[5:15, 5:15].reshape(-1, 3)
    assert {tuple(c) for c in hole} == {colour.HATCH_LIGHT, colour.HATCH_DARK}
    mask = np.isfinite(holed)
    assert (painted[mask] == plain[mask]).all()


def test_float32_extremes_do_not_overflow():
    values = np.array([[-3.4e38, 0.0, 3.4e38]], dtype=np.float32)
    scale = scale_for([values], signed=True, percentile=None)
    np.testing.assert_allclose(scale.position(values), [[0, 0.5, 1]])
    wide = Scale(-1.7e308, 1.7e308, True)
    np.testing.assert_allclose(wide.position(np.array([1.7e308, 0.0])), [1, 0.5])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=1, max_size=30),
    st.booleans(),
    st.sampled_from([None, 50.0, 99.5, 100.0]),
)
def test_any_map_can_be_scaled_and_painted(values, signed, percentile):
    array = np.array([values], dtype=np.float32)
    scale = scale_for([array], signed=signed, percentile=percentile)
    where = scale.position(array)
    finite = np.isfinite(array)
    assert (np.isfinite(where) == finite).all()
    assert (where[finite] >= 0).all()
    assert (where[finite] <= 1).all()
    assert paint(array, scale).dtype == np.uint8
    order = np.argsort(array[finite], kind="stable")
    assert (np.diff(where[finite][order]) >= 0).all()  # monotone


@pytest.mark.parametrize("cmap", [colour.SEQUENTIAL, "viridis"])
def test_sequential_colours_grow_lighter_all_the_way(cmap):
    table = colour.colours(cmap).astype(float) / 255
    linear = np.where(table <= 0.04045, table / 12.92, ((table + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance[::5]) > 0).all()


def test_bar_runs_from_the_first_to_the_last_colour():
    strip = legend.bar(Scale(0.0, 2.0, False), 100)
    table = colour.colours(colour.SEQUENTIAL)
    assert strip.shape == (1, 100, 3)
    assert (strip[0, 0] == table[0]).all()
    assert (strip[0, -1] == table[-1]).all()
    flat = legend.bar(Scale(0.0, 0.0, False), 100)
    assert (flat == flat[0, 0]).all()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (0.3104, "0.31"),
        (-0.00763, "−0.00763"),
        (12345.6, "12346"),
        (1234.5, "1234"),
        (2.0, "2"),
        (6.589e-5, "6.59×10⁻⁵"),
        (-1.5e9, "−1.5×10⁹"),
        (9.999, "10"),
        (99999.0, "1×10⁵"),
        (54321.0, "54321"),
        (float("nan"), "NaN"),
        (float("-inf"), "−∞"),
    ],
)
def test_numbers_for_legends(value, text):
    assert format_number(value) == text


def test_ordinals():
    numbers = (99.5, 1, 2, 3, 11, 90, 92)
    assert [colour.ordinal(n) for n in numbers] == ["99.5th", "1st", "2nd", "3rd", "11th", "90th", "92nd"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Scale(1.0, 0.0, False),
        lambda: Scale(-1.0, 2.0, True),
        lambda: Scale(0.0, float("nan"), False),
        lambda: scale_for([np.ones(3)], signed=False, percentile=0),
        lambda: scale_for([np.ones(3)], signed=False, percentile=101),
        lambda: paint(np.ones((2, 2, 2)), Scale(0, 1, False)),
        lambda: paint(np.ones((2, 2)), Scale(0, 1, False, "no such map")),
    ],
)
def test_bad_input_gets_a_sentence(make):
    with pytest.raises(UsageError, match=r"\.$"):
        make()

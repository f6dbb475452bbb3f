"""Localisation measures: analytic answers for perfect, worst, constant and random maps, and cases by hand."""

from __future__ import annotations

import numpy as np
import pytest

from convoscope.errors import UsageError
from convoscope.trust import localisation as loc

SIZE = (40, 50)
MEASURES = list(loc.MEASURES.values())


@pytest.fixture
def mask() -> np.ndarray:
    found = np.zeros(SIZE, bool)
    found[5:15, 10:30] = True
    return found


def test_a_perfect_map_is_perfect(mask: np.ndarray) -> None:
    assert [float(measure(mask.astype(float), mask)) for measure in MEASURES] == [1, 1, 1, 1]


def test_the_worst_map_is_the_worst(mask: np.ndarray) -> None:
    worst = (~mask).astype(float)
    assert loc.pointing(worst, mask) == 0
    assert loc.energy_inside(worst, mask) == 0
    assert loc.pixel_auc(worst, mask) == 0
    # every threshold that takes the object takes all of the picture
    assert loc.best_iou(worst, mask) == pytest.approx(mask.mean())


@pytest.mark.parametrize("level", [0.0, 1.0, -3.0])
def test_a_constant_map_knows_nothing(mask: np.ndarray, level: float) -> None:
    constant = np.full(SIZE, level)
    assert loc.pointing(constant, mask) == pytest.approx(mask.mean())
    assert loc.energy_inside(constant, mask) == pytest.approx(mask.mean())
    assert loc.best_iou(constant, mask) == pytest.approx(mask.mean())
    assert loc.pixel_auc(constant, mask) == 0.5


def test_random_maps_have_their_known_expectation(mask: np.ndarray) -> None:
    maps = np.stack([loc.random(SIZE, seed) for seed in range(600)])
    share = mask.mean()
    error = np.sqrt(share * (1 - share) / 600)
    assert abs(loc.pointing(maps, mask).mean() - share) < 4 * error
    assert loc.energy_inside(maps, mask).mean() == pytest.approx(share, abs=0.002)
    assert loc.pixel_auc(maps, mask).mean() == pytest.approx(0.5, abs=0.003)
    # thresholds are chosen after the fact: a little above the share, never below
    assert share <= loc.best_iou(maps, mask).min()
    assert loc.best_iou(maps, mask).mean() < share + 0.02


def test_the_random_map_with_tolerance_expects_the_grown_share(mask: np.ndarray) -> None:
    maps = np.stack([loc.random(SIZE, seed) for seed in range(600)])
    share = loc.near(mask, 5).mean()
    assert abs(loc.pointing(maps, mask, 5).mean() - share) < 4 * np.sqrt(share * (1 - share) / 600)


def test_measures_of_a_batch_are_those_of_its_maps(mask: np.ndarray) -> None:
    maps = np.random.default_rng(0).normal(size=(2, 3, *SIZE))
    for measure in MEASURES:
        one_by_one = np.array([[measure(one, mask) for one in row] for row in maps])
        assert np.allclose(measure(maps, mask), one_by_one, rtol=1e-12)


def test_near_grows_by_less_than_the_tolerance() -> None:
    mask = np.zeros((31, 41), bool)
    mask[15, 20] = True
    mask[2, 39] = True
    rows, cols = np.indices(mask.shape)
    for tolerance in (0, 1, 1.5, 2, 3, 7.2, 15):
        by_hand = mask.copy()
        for y, x in ((15, 20), (2, 39)):
            by_hand |= (rows - y) ** 2 + (cols - x) ** 2 < tolerance**2
        assert np.array_equal(loc.near(mask, tolerance), by_hand), tolerance


def test_pointing_by_hand_on_ten_maps() -> None:
    """One object, ten places of the maximum: what a person counting pixels says, with a tolerance of 3 pixels."""
    mask = np.zeros((20, 20), bool)
    mask[8:12, 8:12] = True  # the object: rows and columns 8 to 11
    by_hand = [
        ((8, 8), True, True),  # its corner
        ((11, 11), True, True),  # the opposite corner
        ((10, 9), True, True),  # inside
        ((7, 9), False, True),  # one above
        ((9, 13), False, True),  # two to the right
        ((9, 14), False, False),  # three to the right: not nearer than 3
        ((13, 13), False, True),  # diagonal: sqrt(8) < 3
        ((14, 13), False, False),  # sqrt(13) > 3
        ((0, 0), False, False),
        ((19, 19), False, False),
    ]
    for (row, col), exact, tolerant in by_hand:
        values = np.zeros((20, 20))
        values[row, col] = 1
        assert bool(loc.pointing(values, mask)) is exact, (row, col)
        assert bool(loc.pointing(values, mask, 3)) is tolerant, (row, col)


def test_several_maxima_count_by_their_share(mask: np.ndarray) -> None:
    values = np.zeros(SIZE)
    values[6, 12] = values[7, 13] = values[30, 40] = 2.0
    assert loc.pointing(values, mask) == pytest.approx(2 / 3)


def test_energy_ignores_evidence_against(mask: np.ndarray) -> None:
    values = np.where(mask, 1.0, -100.0)
    values[0, 0] = mask.sum() / 3
    assert loc.energy_inside(values, mask) == pytest.approx(0.75)


def test_nan_is_the_lowest(mask: np.ndarray) -> None:
    values = mask.astype(float)
    values[0, 0] = np.nan
    for measure in MEASURES:
        assert measure(values, mask) == 1
    values[:] = np.nan
    assert loc.pointing(values, mask) == pytest.approx(mask.mean())


def test_undefined_measures_are_nan() -> None:
    values = np.random.default_rng(0).random((8, 9))
    for measure in MEASURES:
        assert np.isnan(measure(values, np.zeros((8, 9), bool)))
    assert np.isnan(loc.pixel_auc(values, np.ones((8, 9), bool)))
    assert loc.pointing(values, np.ones((8, 9), bool)) == 1


def test_maps_and_masks_must_fit() -> None:
    with pytest.raises(UsageError, match=r"\(3, 4\).*\(4, 3\)"):
        loc.pointing(np.zeros((3, 4)), np.zeros((4, 3), bool))


def test_scale_and_sign_of_the_unit_do_not_matter(mask: np.ndarray) -> None:
    values = np.random.default_rng(1).random(SIZE)
    for measure in MEASURES:
        assert measure(values * 1e-30, mask) == pytest.approx(measure(values, mask))
        assert measure(values * 1e30, mask) == pytest.approx(measure(values, mask))


def test_difficult_wants_small_objects_among_others(mask: np.ndarray) -> None:
    assert mask.mean() < 0.25
    assert loc.difficult(mask, 1)
    assert not loc.difficult(mask, 0)
    assert not loc.difficult(np.ones(SIZE, bool), 3)


def test_centre_points_at_the_middle() -> None:
    for size in ((7, 9), (8, 8), (6, 11)):
        values = loc.centre(size)
        rows, cols = np.nonzero(values == values.max())
        assert rows.mean() == (size[0] - 1) / 2
        assert cols.mean() == (size[1] - 1) / 2
        assert values.min() == pytest.approx(0, abs=1e-6)


def test_edges_are_sobels() -> None:
    from scipy import ndimage

    picture = np.random.default_rng(0).random((3, 20, 30))
    expected = np.max(
        [np.hypot(ndimage.sobel(p, 0, mode="nearest"), ndimage.sobel(p, 1, mode="nearest")) for p in picture], 0
    )
    assert np.allclose(loc.edges(picture), expected, atol=1e-5)
    assert not loc.edges(np.full((3, 9, 9), 0.4)).any()


def test_smooth_random_is_the_bilinear_resize() -> None:
    import torch

    grid = np.random.default_rng(5).random((7, 7))
    expected = torch.nn.functional.interpolate(torch.from_numpy(grid)[None, None], SIZE, mode="bilinear")[0, 0]
    assert np.allclose(loc.random_smooth(SIZE, 5), expected.numpy(), atol=1e-6)
    assert np.array_equal(loc.random(SIZE, 3), loc.random(SIZE, 3))
    assert not np.array_equal(loc.random(SIZE, 3), loc.random(SIZE, 4))

"""Faithfulness on scores that are sums over pixels: there the truth is a formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from convoscope.errors import UsageError
from convoscope.trust import faithfulness as f

SIZE = (16, 18)


class Additive:
    """Every pixel's share of the score is known: taking it away takes its share away."""

    def __init__(self, shares: np.ndarray) -> None:
        self.shares = torch.from_numpy(shares.astype(np.float64))
        self.asked = 0

    def __call__(self, masks: Tensor) -> Tensor:
        self.asked += len(masks)
        return (self.shares * (1 - masks.double())).sum((1, 2))


@pytest.fixture
def shares() -> np.ndarray:
    return np.random.default_rng(0).normal(size=SIZE).astype(np.float32)


def expected_area(gone_first: np.ndarray, steps: int) -> float:
    """The deletion area of an additive score whose pixels go in this order."""
    total = gone_first.sum()
    at = np.round(np.linspace(0, len(gone_first), steps + 1)).astype(int)
    scores = np.array([total - gone_first[:n].sum() for n in at])
    places = at / len(gone_first)
    return float(((scores[1:] + scores[:-1]) / 2 * np.diff(places)).sum())


@pytest.mark.parametrize("steps", [1, 7, 16, 16 * 18])
def test_deletion_of_the_true_map_is_the_formulas(shares: np.ndarray, steps: int) -> None:
    ordered = np.sort(shares.ravel().astype(np.float64))[::-1]
    best, worst = f.deletion(np.stack([shares, -shares]), Additive(shares), steps=steps)
    assert best.area == pytest.approx(expected_area(ordered, steps), rel=1e-5)
    assert worst.area == pytest.approx(expected_area(ordered[::-1], steps), rel=1e-5)


def test_insertion_mirrors_deletion_on_an_additive_score(shares: np.ndarray) -> None:
    scoring = Additive(shares)
    inserted = f.insertion(shares[None], scoring, steps=12)[0]
    deleted = f.deletion(shares[None], scoring, steps=12)[0]
    assert np.allclose(inserted.scores + deleted.scores, shares.sum(), atol=1e-4)
    assert inserted.scores[0] == pytest.approx(0, abs=1e-5)
    assert inserted.scores[-1] == pytest.approx(float(shares.sum()), rel=1e-4)


def test_no_map_beats_the_true_one_and_none_loses_to_its_opposite(shares: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    maps = np.stack([shares, -shares, *rng.normal(size=(20, *SIZE))]).astype(np.float32)
    areas = [curve.area for curve in f.insertion(maps, Additive(shares), steps=24)]
    assert max(areas) == areas[0]
    assert min(areas) == areas[1]


def test_random_and_constant_maps_lie_on_the_straight_line(shares: np.ndarray) -> None:
    positive = np.abs(shares)
    rng = np.random.default_rng(2)
    maps = rng.random((200, *SIZE)).astype(np.float32)
    scoring = Additive(positive)
    areas = np.array([curve.area for curve in f.deletion(maps, scoring, steps=8)])
    half = positive.sum() / 2
    assert abs(areas.mean() - half) < 4 * areas.std() / np.sqrt(200)
    constant = np.array([f.deletion(np.zeros((1, *SIZE)), scoring, steps=8, seed=s)[0].area for s in range(200)])
    assert abs(constant.mean() - half) < 4 * constant.std() / np.sqrt(200)


def test_the_ends_are_scored_once_for_all_maps(shares: np.ndarray) -> None:
    scoring = Additive(shares)
    f.deletion(np.stack([shares] * 5), scoring, steps=4)
    assert scoring.asked == 2 + 5 * 3


def test_equal_values_do_not_go_in_raster_order() -> None:
    place = f.ranks(np.zeros((1, 30, 30)))[0].reshape(30, 30)
    assert abs(place[:15].mean() - place[15:].mean()) < 60
    assert np.array_equal(np.sort(place.ravel()), np.arange(900))


def test_ranks_order_the_values_and_nan_comes_last() -> None:
    values = np.array([[[3.0, np.nan], [5.0, -1.0]]])
    assert f.ranks(values).tolist() == [[1, 3, 0, 2]]


def test_normalised_area_has_known_ends() -> None:
    shares = np.linspace(0, 1, 5)
    assert f.Curve(shares, np.full(5, 8.0)).normalised(8, 2) == 1
    assert f.Curve(shares, np.full(5, 2.0)).normalised(8, 2) == 0
    assert f.Curve(shares, np.linspace(8, 2, 5)).normalised(8, 2) == pytest.approx(0.5)
    assert np.isnan(f.Curve(shares, np.full(5, 2.0)).normalised(2, 2))


def test_road_ranks_maps_and_a_random_map_has_no_gap(shares: np.ndarray) -> None:
    scoring = Additive(shares)
    rng = np.random.default_rng(3)
    maps = np.stack([shares, -shares, *rng.normal(size=(300, *SIZE))]).astype(np.float32)
    gaps = np.array([f.road_gap(*pair) for pair in f.road(maps, scoring)])
    assert gaps[0] == pytest.approx(-gaps[1], rel=1e-5)
    assert gaps[0] == gaps.max() > 0
    assert abs(gaps[2:].mean()) < 4 * gaps[2:].std() / np.sqrt(300)


def test_road_takes_the_stated_share_rounded_down(shares: np.ndarray) -> None:
    seen: list[Tensor] = []

    def scoring(masks: Tensor) -> Tensor:
        seen.append(masks)
        return masks.sum((1, 2))

    f.road(shares[None], scoring, shares=(0.1, 0.333))
    assert seen[0].sum((1, 2)).tolist() == [28, 95, 28, 95]
    most, least = seen[0][1].bool().numpy(), seen[0][3].bool().numpy()
    assert shares[most].min() > shares[~most].max()
    assert shares[least].max() < shares[~least].min()


@pytest.mark.parametrize("cell", [1, 4])
def test_subsets_take_the_share(cell: int) -> None:
    masks = f.subsets((16, 20), 50, 0.25, cell)
    assert set(masks.flatten().tolist()) == {0.0, 1.0}
    assert torch.all(masks.mean((1, 2)) == 0.25)
    blocks = masks.view(50, 16 // cell, cell, 20 // cell, cell)
    assert torch.all(blocks.amax((2, 4)) == blocks.amin((2, 4)))
    assert torch.equal(masks, f.subsets((16, 20), 50, 0.25, cell))
    assert abs(float(masks.mean(0).std())) < 0.2


@pytest.mark.parametrize("cell", [1, 3])
def test_sensitivity_n_and_infidelity_of_known_maps(shares: np.ndarray, cell: int) -> None:
    scoring = Additive(shares)
    masks = f.subsets(SIZE, 400, 0.2, cell)
    drops = float(shares.sum()) - scoring(masks)
    rng = np.random.default_rng(4)
    maps = np.stack([shares, 7 * shares, -shares, np.ones(SIZE), rng.normal(size=SIZE)]).astype(np.float32)
    correlation = f.sensitivity_n(maps, masks, drops)
    assert correlation[:3] == pytest.approx([1, 1, -1], abs=1e-4)
    assert np.isnan(correlation[3]) or cell > 1  # at the border cells are cut: sums differ a little
    assert abs(correlation[4]) < 0.6  # 36 cells: a deviation of 1/6
    scaled = f.infidelity(maps, masks, drops)
    assert scaled[:3] == pytest.approx([0, 0, 0], abs=1e-6)
    assert 0.5 < scaled[4] <= 1
    plain = f.infidelity(maps, masks, drops, scaled=False)
    assert plain[0] == pytest.approx(0, abs=1e-6)
    # a map seven times too large is wrong by six times the drop
    assert plain[1] == pytest.approx(36 * float((drops**2).mean()), rel=1e-3)
    empty = f.infidelity(np.zeros((1, *SIZE)), masks, drops)
    assert empty == pytest.approx([1])


def test_a_random_map_has_no_sensitivity(shares: np.ndarray) -> None:
    masks = f.subsets(SIZE, 200, 0.2)
    drops = float(shares.sum()) - Additive(shares)(masks)
    maps = np.random.default_rng(5).normal(size=(300, *SIZE))
    found = f.sensitivity_n(maps, masks, drops)
    assert abs(found.mean()) < 4 * found.std() / np.sqrt(300)


def test_a_score_that_never_changes_leaves_the_measures_undefined(shares: np.ndarray) -> None:
    masks = f.subsets(SIZE, 20)
    assert np.isnan(f.sensitivity_n(shares[None], masks, torch.zeros(20)))
    assert np.isnan(f.infidelity(shares[None], masks, torch.zeros(20)))


def test_bad_settings_say_so(shares: np.ndarray) -> None:
    with pytest.raises(UsageError, match="steps"):
        f.deletion(shares[None], Additive(shares), steps=0)
    with pytest.raises(UsageError, match="M×H×W"):
        f.deletion(shares, Additive(shares))
    with pytest.raises(UsageError, match="between 0 and 1"):
        f.road(shares[None], Additive(shares), shares=(0.5, 1.0))

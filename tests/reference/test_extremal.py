"""Extremal perturbations: the mask's formula, no favoured corner, and at its defaults the thing itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convoscope as cs
from convoscope import toybox
from convoscope.methods.extremal import Bumps, wanted

NAME = "extremal-perturbation"


def test_masks_are_smooth_maxima_of_flat_topped_bumps() -> None:
    """Written out point by point, pixel by pixel."""
    step, sigma, size = 4, 6.0, (13, 17)
    bumps = Bumps(size, step, sigma, torch.device("cpu"))
    values = torch.rand((1, *bumps.points), generator=torch.Generator().manual_seed(0))
    mask = bumps.inside(bumps.mask(values))[0]
    assert mask.shape == size
    for y, x in [(0, 0), (5, 9), (12, 16), (7, 2)]:
        above = below = 0.0
        for i in range(bumps.points[0]):
            for j in range(bumps.points[1]):
                # beyond the bump's reach, counted from the pixel's own grid point, nothing is seen
                if max(abs(i - y // step), abs(j - x // step)) > bumps.radius:
                    continue
                distance = math.hypot(y - i * step, x - j * step) / sigma
                height = math.exp(-2 * max(distance - 0.5, 0) ** 2) * (float(values[0, i, j]) + 1e-6)
                above, below = above + height**21, below + height**20
        assert float(mask[y, x]) == pytest.approx(above / below, rel=1e-5)


def test_pixels_that_tie_share_what_the_area_wants() -> None:
    mask = torch.tensor([[[0.9, 0.5, 0.5], [0.5, 0.1, 0.5]]])
    assert wanted(mask, 1)[0].flatten().tolist() == [1, 0, 0, 0, 0, 0]
    assert wanted(mask, 3)[0].flatten().tolist() == pytest.approx([1, 0.5, 0.5, 0.5, 0, 0.5])
    assert wanted(torch.ones(1, 4, 5), 5)[0].unique().tolist() == [0.25]
    for keep in (1, 2, 3, 4, 5, 6):
        assert float(wanted(mask, keep).sum()) == pytest.approx(keep)


class Blind(nn.Module):
    """A score that no place of the picture changes."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum((1, 2, 3))[:, None] * torch.zeros(1, 3)


def test_no_corner_is_favoured_where_the_score_says_nothing() -> None:
    """All pixels tie at the start: an order by position would open one corner."""
    kind = cs.ExtremalPerturbation(rounds=60, grid=4, sigma=6)
    one = cs.explain(cs.wrap(Blind(), size=25), torch.rand(3, 25, 25), kind, target=1)[NAME]
    for turned in (one.values[::-1], one.values[:, ::-1], one.values.T):
        assert np.abs(one.values - turned).max() < 1e-4


def _inside(count: int, kind: cs.ExtremalPerturbation) -> tuple[int, list[np.ndarray]]:
    things = list(toybox.pictures(count, seed=3))
    found = cs.explain(cs.open_model("toybox"), [cs.Picture.of(one.image) for one in things], kind)
    maps = [one[NAME].values for one in found]
    return sum(
        float(v[t.mask].mean()) > 2 * float(v[~t.mask].mean()) for v, t in zip(maps, things, strict=True)
    ), maps


def test_a_third_of_the_steps_already_show_the_thing() -> None:
    inside, maps = _inside(2, cs.ExtremalPerturbation(rounds=260))
    assert inside == 2
    assert not np.array_equal(maps[0], maps[1])


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_defaults_find_the_thing_on_most_pictures() -> None:
    things = list(toybox.pictures(20, seed=3))
    found = cs.explain(cs.open_model("toybox"), [cs.Picture.of(one.image) for one in things], NAME)
    maps = [one[NAME].values for one in found]
    peaks = [np.unravel_index(v.argmax(), v.shape) for v in maps]
    assert sum(bool(one.mask[peak]) for one, peak in zip(things, peaks, strict=True)) >= 15
    assert len({v.tobytes() for v in maps}) == 20
    assert max(abs(one[NAME].facts["area"] - 0.1) for one in found) < 0.04


@pytest.mark.parametrize("bad", [{"area": 0}, {"grid": 0}, {"sigma": 0.1}, {"rounds": 0}])
def test_bad_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(cs.UsageError, match="extremal-perturbation"):
        cs.methods.method(NAME, bad)

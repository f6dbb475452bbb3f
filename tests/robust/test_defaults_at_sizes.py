"""Every method at its default settings on networks of 28 to 299 pixels: a map that tells places and pictures apart.

A map may be blank, or the same for all pictures, where it says why; never in silence.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convoscope as cs
from convoscope.methods import METHODS, Method, method

SIZES = (28, 32, 64, 96, 224, 299)
#: methods that need a network of another kind say so, which is theirs to do
_OTHERS = {"attention-rollout", "attention-gradient"}


class Ladder(nn.Module):
    """Four halvings, pooling and one linear layer: an ordinary small network for any size."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        widths = (channels, 8, 12, 16, 16)
        stages = []
        for before, after in itertools.pairwise(widths):
            stages += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*stages[:-1])
        self.head = nn.Linear(16, 5)
        with torch.no_grad():
            self.head.weight *= 8

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


def scene(size: int, seed: int, channels: int = 3) -> Tensor:
    """A picture with structure: a bright blob of its own colour and place, on a sloping ground."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    at = torch.rand(2, generator=generator) * 0.6 + 0.2
    colour = torch.rand(channels, generator=generator)
    blob = (((y - at[0]) ** 2 + (x - at[1]) ** 2) < 0.03).float()
    ground = (0.3 + 0.4 * y)[None] * torch.rand(channels, generator=generator)[:, None, None]
    return (ground * (1 - blob) + colour[:, None, None] * blob).clamp(0, 1)


def cheap(name: str) -> Method:
    """The method at its defaults but for the number of passes, which is what makes it slow, not what it does."""
    fewer: dict[str, dict[str, Any]] = {
        "rise": {"samples": 150},
        "lime": {"samples": 150},
        "extremal-perturbation": {"rounds": 40},
    }
    return method(name, fewer.get(name))


def check(found: list[Any], name: str) -> None:
    maps = [one[name] for one in found]
    for one in maps:
        known = np.isfinite(one.values)
        told = " ".join(one.doubts)
        assert known.all() or "not known" in told or "no finite value" in told
        assert np.ptp(one.values[known]) > 0 or "zero" in told or "constant" in told or "Blank" in told, (
            f"{name} is constant in silence"
        )
    first, second = maps[0], maps[1]
    if np.array_equal(first.values, second.values):
        assert first.doubts, f"{name} is the same for both pictures in silence"


def _sized(sizes: tuple[int, ...]) -> list[Any]:
    return [pytest.param(size, marks=pytest.mark.slow) if size > 64 else size for size in sizes]


@pytest.mark.parametrize("size", _sized(SIZES))
@pytest.mark.parametrize("name", sorted(set(METHODS) - _OTHERS))
def test_a_map_or_a_reason(name: str, size: int) -> None:
    model = cs.wrap(Ladder().eval(), size=size)
    check(cs.explain(model, [scene(size, 1), scene(size, 2)], [cheap(name)], target=1), name)


@pytest.mark.parametrize("size", [28, 32])
@pytest.mark.parametrize("name", ["occlusion", "lime", "rise", "extremal-perturbation"])
def test_small_inputs_are_told_apart_place_by_place(name: str, size: int) -> None:
    """Windows of 32 pixels and regions made for photos cover all of a digit: each place has its own value here."""
    model = cs.wrap(Ladder().eval(), size=size)
    found = cs.explain(model, [scene(size, 1), scene(size, 2)], [cheap(name)], target=1)
    for one in found:
        assert len(np.unique(one[name].values)) >= 10, name


@pytest.mark.parametrize("name", ["occlusion", "lime"])
def test_grey_digits(name: str) -> None:
    model = cs.wrap(Ladder(1).eval(), size=28, mean=0.0, std=1.0)
    found = cs.explain(model, [scene(28, 1, 1), scene(28, 2, 1)], [cheap(name)], target=1)
    check(found, name)
    assert np.ptp(found[0][name].values) > 0


@pytest.mark.parametrize("kind", [cs.LIME(samples=100), cs.Occlusion(regions="superpixels")])
def test_noise_has_no_superpixels_and_gets_squares(kind: Method) -> None:
    picture = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    one = cs.explain(cs.wrap(Ladder().eval(), size=32), picture, kind, target=1)[kind.about.name]
    assert np.ptp(one.values) > 0
    assert any("squares stand in" in doubt for doubt in one.doubts)
    calm = cs.explain(cs.wrap(Ladder().eval(), size=32), scene(32, 1), kind, target=1)[kind.about.name]
    assert not any("squares stand in" in doubt for doubt in calm.doubts)


def test_windows_follow_the_input() -> None:
    assert cs.Occlusion().measures(224, 224) == ((32, 32), (16, 16))
    assert cs.Occlusion().measures(28, 28) == ((4, 4), (2, 2))
    assert cs.Occlusion(window=9).measures(224, 224) == ((9, 9), (4, 4))
    assert cs.Occlusion(stride=3).measures(224, 300) == ((32, 32), (3, 3))
    assert cs.Occlusion().measures(1, 5) == ((1, 1), (1, 1))

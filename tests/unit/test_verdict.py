"""Verdicts: random maps of a map's own smoothness, an error beside every gain, and scores where p is nearly zero."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convoscope as cs
from convoscope.trust.verdict import Verdict, _sentence, smooth_noise, smoothness, verdicts


@pytest.mark.parametrize("sigma", [0.0, 1.0, 4.0, 8.0])
def test_smoothness_is_found_again(sigma: float) -> None:
    found = [smoothness(smooth_noise((96, 96), sigma, seed)) for seed in range(4)]
    assert sorted(found)[1] in (sigma / 2, sigma, sigma * 2)
    assert found.count(sigma) >= 2


def test_smoothness_of_odd_maps() -> None:
    assert smoothness(np.zeros((8, 8))) == 0
    assert smoothness(np.full((8, 8), 3.0)) == 0
    holed = smooth_noise((64, 64), 4.0, 0)
    holed[:4] = np.nan
    assert smoothness(holed) > 0
    blocks = np.kron(np.random.default_rng(0).random((8, 8)), np.ones((12, 12)))
    assert smoothness(blocks) >= 2  # an occlusion map: no grid, and yet no pixel noise


class Bright(nn.Module):
    """The score is the brightness of one corner; the bias decides how likely the class is."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.bias = bias
        self.fc = nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        score = 8 * x[..., :12, :12].mean((1, 2, 3)) + self.bias
        return torch.stack([torch.zeros_like(score), score], 1)


def _verdict(bias: float) -> Verdict:
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(3, 24, 24, generator=generator)
    model = cs.wrap(Bright(bias).eval(), size=24)
    found = cs.explain(model, picture, [cs.Occlusion(window=6, stride=3)], target=1)
    return verdicts(model, found)["occlusion"]


@pytest.mark.parametrize("bias", [-4.0, -30.0])
def test_a_true_map_beats_random_also_where_the_class_is_impossible(bias: float) -> None:
    found = _verdict(bias)
    assert found.better
    assert found.error is not None
    assert 0 < found.error < found.gain
    assert "0.00" not in found.sentence
    assert "±" in found.sentence
    assert any("Judged on the score" in note for note in found.notes) is (bias == -30.0)


def test_sentences_never_say_a_gain_of_nothing() -> None:
    plain = {"insertion": 0.1, "deletion": 0.1, "survives": None, "change": None, "steady": None, "sentence": ""}
    tiny = Verdict("m", gain=3e-6, beats=1.0, error=1e-7, **plain)  # type: ignore[arg-type]
    assert "3e-06 ± 1e-07" in _sentence(tiny)
    unsure = Verdict("m", gain=0.02, beats=1.0, error=0.03, **plain)  # type: ignore[arg-type]
    assert not unsure.better
    assert "Hardly better" in _sentence(unsure)
    worse = Verdict("m", gain=-0.2, beats=0.0, error=0.03, **plain)  # type: ignore[arg-type]
    assert "No better than random (−0.20 ± 0.03)" in _sentence(worse)

"""Inputs in the memory format that a network is quickest in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convoscope as cs
from convoscope.improve.collection import Labelled
from convoscope.improve.look import look
from convoscope.models.formats import best_format, laid_out


class Viewing(nn.Module):
    """Takes its activations for contiguous, as many hand-written networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3)
        self.second = nn.Conv2d(16, 32, 3)
        self.head = nn.Linear(32 * 4 * 4, 3)

    def forward(self, x: Tensor) -> Any:
        x = nn.functional.adaptive_avg_pool2d(self.second(self.first(x).relu()).relu(), 4)
        return self.head(x.view(len(x), -1))


class Reshaping(Viewing):
    def forward(self, x: Tensor) -> Any:
        x = nn.functional.adaptive_avg_pool2d(self.second(self.first(x).relu()).relu(), 4)
        return self.head(x.flatten(1))


def _wrapped(network: nn.Module) -> Any:
    return cs.wrap(network.eval(), size=24, mean=0.0, std=1.0, labels=["a", "b", "c"])


def test_channels_lie_last_where_convolutions_are_wide_and_nobody_minds() -> None:
    assert best_format(_wrapped(Reshaping())) is torch.channels_last
    assert best_format(_wrapped(Viewing())) is torch.contiguous_format
    narrow = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    assert best_format(_wrapped(narrow)) is torch.contiguous_format


@pytest.mark.parametrize("kind", [Viewing, Reshaping])
def test_a_look_gives_what_the_network_gives(kind: type[Viewing]) -> None:
    torch.manual_seed(0)
    model = _wrapped(kind())
    pictures = [np.random.default_rng(seed).integers(0, 255, (24, 24, 3), np.uint8) for seed in range(9)]
    looked = look(model, Labelled.of([(one, "abc"[at % 3]) for at, one in enumerate(pictures)], model), ["second"])
    inputs = torch.stack([torch.from_numpy(one).permute(2, 0, 1).float() / 255 for one in pictures])
    with torch.no_grad():
        expected = model.module(inputs)
        inner = model.module.second(model.module.first(inputs).relu()).mean((2, 3))
    np.testing.assert_allclose(looked.scores, expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(looked.layers["second"], inner.numpy(), atol=1e-5)


def test_values_stay_and_other_inputs_are_left_alone() -> None:
    model = _wrapped(Reshaping())
    batch = torch.rand(2, 3, 24, 24)
    made = laid_out(model, batch)
    assert made.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(made, batch)
    volume = torch.rand(2, 3, 4, 24, 24)
    assert laid_out(model, volume) is volume

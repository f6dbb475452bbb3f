"""Forty architectures are visualised, small and greyscale ones too; nothing is left behind."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
from test_architectures import CASES
from test_untouched import assert_same, snapshot
from torch import nn

import convoscope as cs
from convoscope.models.outputs import logits
from convoscope.visualization import Fourier, Maco, Yosinski


def check(network: nn.Module, name: str, size: int, channels: int = 3) -> None:
    model = cs.wrap(network, mean=[0.5] * channels, std=[0.25] * channels, size=size, name=name)
    before = snapshot(network)
    layer = model.watched().last_grid
    targets = [1, f"{layer}:0"] if layer else [1]
    for recipe in (Fourier(steps=2), Maco(steps=2, crops=2), Yosinski(steps=2)):
        results = cs.visualize(model, targets, recipe=recipe)
        for one in results:
            assert one.pixels.shape == (size, size, channels)
            assert np.isfinite(one.score)
            assert np.isfinite(one.inputs).all()
        with torch.no_grad():
            again = network(model.inputs([model.prepare(results[0].pixels)]))
        assert abs(float(logits(again)[0, 1]) - results[0].score) < 1e-4 * max(1, abs(results[0].score))
    assert_same(before, snapshot(network))


@pytest.mark.parametrize("case", [pytest.param(case.values, id=case.id, marks=pytest.mark.slow) for case in CASES])
def test_an_architecture_is_visualised(case: tuple[object, str, int]) -> None:
    build, name, size = case
    check(build(name).eval(), name, size)  # type: ignore[operator]


@pytest.mark.parametrize("name", ["squeezenet1_1", "resnet18"])
def test_two_architectures_are_visualised_every_day(name: str) -> None:
    from torchvision import models

    check(models.get_model(name, weights=None).eval(), name, 64)


@pytest.mark.parametrize(("size", "channels"), [(32, 3), (28, 1), (24, 5)])
def test_small_greyscale_and_many_banded_inputs(size: int, channels: int) -> None:
    network = nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    ).eval()  # fmt: skip
    check(network, "small", size, channels)


def test_memory_does_not_grow_from_call_to_call() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    model = cs.wrap(network, size=32)

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())

    for _ in range(2):
        cs.visualize(model, [0, 1], recipe=Fourier(steps=3))
    first = tensors()
    for _ in range(5):
        cs.visualize(model, [0, 1], recipe=Fourier(steps=3))
    assert tensors() <= first
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in network.modules())


def test_a_network_of_one_size_only_can_dream_at_several_octaves() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 32 * 32, 3)).eval()
    photo = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    result = cs.visualize(cs.wrap(network, size=32), 1, objective="dream", image=photo, steps=8,
                          settings={"jitter": 2})  # fmt: skip
    assert result.pixels.shape == (32, 32, 3)
    assert result.facts["change"]["mean"] > 0.5

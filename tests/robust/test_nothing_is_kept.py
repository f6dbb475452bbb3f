"""A thousand pictures through one open network: what a method made of a picture goes when its maps go."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convoscope as cs
from convoscope.methods import METHODS, method
from convoscope.toybox import draw

#: what keeps the test short; everything else stands at its default
SHORT: dict[str, dict[str, Any]] = {
    "rise": {"samples": 40}, "lime": {"samples": 20}, "extremal-perturbation": {"rounds": 6}, "vargrad": {"samples": 4},
    "smoothgrad": {"samples": 4}, "integrated-gradients": {"nodes": 4}, "gradient-shap": {"samples": 4},
}  # fmt: skip


class InPlace(nn.Module):
    """All that people write in place: activations, sums, products."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2)
        )
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.SiLU(inplace=True))
        self.third = nn.Conv2d(8, 8, 3, 1, 1)
        self.gate, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = self.third(self.second(x)).add_(x).relu_()
        x = x.mul(1.0).mul_(torch.sigmoid_(self.gate(x)))
        return self.head(x.mean((2, 3)))


class Looking(nn.Module):
    """A small transformer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.head = nn.Conv2d(3, 16, 8, 8), nn.Linear(16, 5)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.patches(x).flatten(2).mT).mean(1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {"in place": InPlace, "transformer": Looking}


def held() -> tuple[int, int]:
    """How many tensors there are, and the bytes in them."""
    gc.collect()
    sizes: dict[int, int] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of old names that look at themselves
        for one in gc.get_objects():
            # an exported graph, and a network that nobody has run, have tensors of no storage in them
            with suppress(RuntimeError, ValueError, NotImplementedError):
                if issubclass(type(one), Tensor):
                    sizes[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
    return len(sizes), sum(sizes.values())


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_made_goes_with_its_maps(name: str, network: str) -> None:
    model = cs.wrap(NETWORKS[network]().eval(), size=32)
    one = method(name, SHORT.get(name, {}))

    def look(seed: int) -> None:
        with np.errstate(all="ignore"):
            cs.explain(model, draw(seed).image, [one, "saliency"])

    # what is kept on purpose is there after two pictures: the watched network, and how its programs are best run
    look(0)
    look(1)
    before = held()
    for seed in range(2, 6):
        look(seed)
    after = held()
    # four pictures that are kept are four tensors at least, and a picture is 12 kB
    assert after[0] < before[0] + 4, (before, after)
    assert after[1] < before[1] + 4 * 12_288, (before, after)

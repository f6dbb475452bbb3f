"""FullGrad's parts sum to the score where a norm holds its own activation, and on a compiled network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import convoscope as cs


def test_a_norm_that_holds_its_activation() -> None:
    norms = pytest.importorskip("timm.layers")

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.one, self.first = nn.Conv2d(3, 8, 3, padding=1), norms.BatchNormAct2d(8)
            self.two, self.second = nn.Conv2d(8, 8, 3), norms.BatchNormAct2d(8)
            self.head = nn.Linear(8, 4)
            for norm in (self.first, self.second):
                norm.running_mean.normal_()
                norm.bias.data.normal_()

        def forward(self, x: Tensor) -> Tensor:
            x = self.second(self.two(self.first(self.one(x))))
            return self.head(self.first(x).mean((2, 3)))  # one of them twice

    one = cs.explain(cs.wrap(Net().eval(), size=16), torch.rand(3, 16, 16), ["fullgrad"], target=1)["fullgrad"]
    assert one.facts["completeness_residual"] < 1e-4
    assert not one.doubts


def test_a_compiled_network_keeps_its_biases() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    ).eval()
    net[1].running_mean.normal_()
    picture = torch.rand(3, 16, 16)
    for given in (net, torch.compile(net)):
        one = cs.explain(cs.wrap(given, size=16), picture, ["fullgrad"], target=1)["fullgrad"]
        assert one.facts["completeness_residual"] < 1e-4

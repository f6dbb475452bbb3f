"""A ReLU that is computed with the convolution before it: the same numbers, and no NaN lost."""

from __future__ import annotations

import pytest
import torch
from masking import FILL, close, masked
from torch import Tensor, nn
from torch.nn import functional as F

from convoscope.engine.recompute.incremental import Incremental, NotIncremental, grid
from convoscope.engine.recompute.incremental.layers import Conv


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def picture() -> Tensor:
    return torch.randn(1, 3, 64, 50)


def rectified(network: nn.Module, picture: Tensor) -> list[bool]:
    """For each convolution of the prepared network, whether its ReLU has become part of it."""
    engine = Incremental(network.eval(), picture)
    return [node.target.rectified for node in engine.program.nodes if isinstance(node.target, Conv)]


class Branches(nn.Module):
    """A ReLU behind a batch norm, a convolution that a sum reads, a ReLU before the head."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.b, self.c = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 5, 1)
        self.norm.running_mean.normal_()

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.a(x)), inplace=True)
        return self.c(x + self.b(x)).relu().mean((2, 3))


def test_a_relu_joins_the_convolution_that_it_alone_reads(picture: Tensor) -> None:
    network = Branches().eval()
    assert rectified(network, picture) == [True, False, True]
    boxes = grid(64, 50, 20, 20)
    assert close(Incremental(network, picture).outputs(boxes, FILL), network(masked(picture, boxes, FILL)))


class Twice(nn.Module):
    """What a ReLU reads is read once more, or is an output."""

    def __init__(self, output: bool) -> None:
        super().__init__()
        self.conv, self.output = nn.Conv2d(3, 4, 3), output

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.conv(x)
        both = x.relu().mean((2, 3)), x.mean((2, 3))
        return both if self.output else both[0] + both[1]


class Straight(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Length(nn.Module):
    """A picture of zeros has no direction: 0 / 0."""

    def forward(self, x: Tensor) -> Tensor:
        return x / x.norm(dim=1, keepdim=True)


class Scaled(nn.Module):
    """As networks that bring their own normalisation do."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("std", torch.tensor([0.5, 0.2, 0.3]).view(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x / 2 - 0.1) / self.std


@pytest.mark.parametrize("output", [False, True])
def test_a_convolution_that_others_read_keeps_what_is_negative(output: bool, picture: Tensor) -> None:
    network = Twice(output).eval()
    assert rectified(network, picture) == [False]
    boxes = grid(64, 50, 20, 20)
    ours, truth = Incremental(network, picture).outputs(boxes, FILL), network(masked(picture, boxes, FILL))
    for a, b in zip(ours, truth, strict=True):
        assert close(a, b)


@pytest.mark.parametrize(("before", "joined"), [(Straight, True), (Length, False), (Scaled, True)])
def test_no_nan_is_lost_behind_a_convolution(before: type[nn.Module], joined: bool, picture: Tensor) -> None:
    network = nn.Sequential(before(), nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    assert rectified(network, picture) == [joined]
    boxes, black = grid(64, 50, 20, 20), torch.zeros(3, 1, 1)
    ours, truth = Incremental(network, picture).outputs(boxes, black), network(masked(picture, boxes, black))
    assert torch.allclose(ours, truth, atol=1e-5, equal_nan=True)
    assert bool(truth.isnan().any()) is (before is Length)


def test_activations_near_overflow_are_left_to_the_network(picture: Tensor) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with torch.no_grad():
        network[0].weight.mul_(1e31)
    with pytest.raises(NotIncremental, match="largest number"):
        Incremental(network, picture)


@pytest.mark.parametrize("channels", [(3, 8, 3), (8, 8, 1), (64, 64, 3), (8, 8, 5)])
def test_a_rectified_convolution_is_a_convolution_and_a_relu(channels: tuple[int, int, int]) -> None:
    inputs, outputs, kernel = channels
    weight, bias = torch.randn(outputs, inputs, kernel, kernel), torch.randn(outputs)
    conv = Conv.of(weight, bias, 1, kernel // 2, 1, 1).then_relu()
    x = torch.randn(4, inputs, 24, 20)
    truth = F.conv2d(x.double(), weight.double(), bias.double(), padding=kernel // 2).relu()
    assert close(conv(x).double(), truth)
    assert close(conv.valid(x).double(), F.conv2d(x.double(), weight.double(), bias.double()).relu())
    low = conv.to(torch.bfloat16)(x)
    assert low.min() == 0
    assert (low.double() - truth).abs().max() <= 0.05 * truth.max()

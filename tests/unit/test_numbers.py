"""How a convolution computes: the numbers are the network's own, whatever way it is written."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import convoscope as cs
from convoscope.engine.passes.flow import flow
from convoscope.errors import LayerError, UsageError
from convoscope.methods.numbers import convolution
from convoscope.models.blocks import blocks


class Odd(nn.Module):
    """Strides, dilation, groups, odd paddings, an in-place ReLU, pools, a functional convolution, a branch."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 6, (3, 5), stride=(2, 1), padding=(1, 2))
        self.norm = nn.BatchNorm2d(6)
        self.two = nn.Conv2d(6, 8, 3, padding="same", dilation=2, groups=2, bias=False)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.kernel = nn.Parameter(torch.randn(4, 8, 2, 2))
        self.skip = nn.Conv2d(4, 4, 1)
        self.last = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.one(x)), inplace=True)
        x = self.pool(F.leaky_relu(self.two(x), 0.1))
        x = F.conv2d(x, self.kernel)
        x = F.avg_pool2d(torch.relu(x), 2)
        return self.last((x + self.skip(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def odd() -> cs.Model:
    torch.manual_seed(0)
    network = Odd()
    network.norm.running_mean.normal_()
    network.norm.running_var.uniform_(0.5, 2)
    return cs.open_model(network.eval(), size=32)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("layer", ["one", "two", "conv2d", "skip", "last"])
def test_every_cell_is_the_sum_of_its_products(odd: cs.Model, picture: np.ndarray, layer: str) -> None:
    found = convolution(odd, picture, layer)
    assert found.name == layer
    channels, rows, cols = found.output.shape
    random = np.random.default_rng(1)
    corners = [(0, 0, 0), (channels - 1, rows - 1, cols - 1)]
    some = [tuple(int(random.integers(n)) for n in found.output.shape) for _ in range(20)]
    for channel, row, col in (*corners, *some):
        told = found.at(channel, row, col, most=3)
        value = float(found.output[channel, row, col])
        assert told["value"] == value
        parts = sum(one["sum"] for one in told["inputs"]) + told["others"]["sum"] + (told["bias"] or 0)
        assert parts == pytest.approx(value, abs=1e-4)
        assert abs(told["residual"]) < 1e-4
        for one in told["inputs"]:
            products = np.nan_to_num(np.array(one["patch"], float)) * np.array(one["weights"])
            np.testing.assert_allclose(products, one["products"], rtol=1e-6, atol=1e-9)


def test_the_output_is_what_torch_computes_from_the_same_input(odd: cs.Model, picture: np.ndarray) -> None:
    found = convolution(odd, picture, "two")
    want = F.conv2d(torch.tensor(found.input)[None], odd.module.two.weight, None, 1, "same", 2, 2)[0]
    np.testing.assert_allclose(found.output, want.detach().numpy(), atol=1e-5)


def test_what_follows_is_followed_by_its_values(odd: cs.Model, picture: np.ndarray) -> None:
    found = convolution(odd, picture, "one")
    assert [step.kind for step in found.steps] == ["batch_norm", "relu"]
    told = found.at(2, 3, 4)
    norm, relu = told["steps"]
    facts = norm["facts"]
    want = (told["value"] - facts["mean"]) / np.sqrt(facts["var"] + facts["eps"]) * facts["weight"] + facts["bias"]
    assert norm["value"] == pytest.approx(want, abs=1e-5)
    assert relu["value"] == max(0.0, norm["value"])
    # the in-place ReLU must not have reached what came out of the norm
    assert (found.steps[0].values < 0).any()

    found = convolution(odd, picture, "two")
    assert [step.kind for step in found.steps] == ["leaky_relu", "max_pool2d"]
    leaky, pool = found.at(1, 6, 7)["steps"]
    assert pool["value"] == pytest.approx(max(value for row in pool["window"] for value in row))
    assert leaky["value"] in [value for row in pool["window"] for value in row]

    found = convolution(odd, picture, "conv2d")
    assert [step.kind for step in found.steps] == ["relu", "avg_pool2d"]
    pool = found.at(1, 2, 3)["steps"][1]
    assert pool["value"] == pytest.approx(np.mean(pool["window"]), abs=1e-5)


def test_another_layer_is_answered_by_the_convolution_before_it(odd: cs.Model, picture: np.ndarray) -> None:
    assert convolution(odd, picture).name == "one"
    assert convolution(odd, picture, "pool").name == "two"
    with pytest.raises(LayerError, match=r"no layer 'pol'.*pool"):
        convolution(odd, picture, "pol")
    with pytest.raises(UsageError, match="no cell at channel 99"):
        convolution(odd, picture, "one").at(99, 0, 0)
    with pytest.raises(LayerError, match="runs no 2-D convolution"):
        convolution(cs.open_model(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), size=8), picture)


def test_the_network_is_left_as_it_was(odd: cs.Model, picture: np.ndarray) -> None:
    before = {name: value.clone() for name, value in odd.module.state_dict().items()}
    hooks = sum(len(one._forward_hooks) for one in odd.module.modules())
    convolution(odd, picture, "two")
    blocks(odd)
    assert all(torch.equal(value, before[name]) for name, value in odd.module.state_dict().items())
    assert sum(len(one._forward_hooks) for one in odd.module.modules()) == hooks
    assert all(parameter.grad is None for parameter in odd.module.parameters())


def test_what_feeds_what(odd: cs.Model) -> None:
    found = {one.name: one.inputs for one in flow(odd.module, torch.rand(1, 3, 32, 32))}
    assert found["one"] == ()
    assert found["norm"] == ("one",)
    assert found["skip"] == ("avg_pool2d",)
    assert set(found["add"]) == {"avg_pool2d", "skip"}
    drawn = blocks(odd)
    join = next(one for one in drawn if one.kind == "join")
    assert len(join.inputs) == 2
    assert "relu" in drawn[0].layers, "a norm and an activation belong to their convolution"
    assert len({(one.depth, one.lane) for one in drawn}) == len(drawn), "no two blocks lie over each other"


def test_the_toybox_as_blocks() -> None:
    drawn = blocks(cs.open_model("toybox"))
    kinds = [one.kind for one in drawn]
    assert (kinds.count("join"), kinds[-1], kinds[0]) == (5, "linear", "convolution")
    assert all(one.depth == 1 + max((drawn[at].depth for at in one.inputs), default=-1) for one in drawn)

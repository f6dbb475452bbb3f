"""One table of operations: spellings make no difference to LRP and Deep SHAP, ties in pooling are shared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import convoscope as cs
from convoscope.engine.propagation.deeplift import shared_maxima
from convoscope.engine.propagation.operations import in_place, name_of, positional


class Spelt(nn.Module):
    def __init__(self, act: Callable[[Tensor], Tensor], named: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 4)
        self.act, self.named = act, named

    def forward(self, x: Tensor) -> Tensor:
        if not self.named:
            x = F.max_pool2d(self.act(self.one(x)), 2)
            return self.head(torch.add(F.relu(self.two(x)), x).mean((2, 3)))
        x = F.conv2d(input=x, weight=self.one.weight, bias=self.one.bias, padding=1)
        x = F.max_pool2d(input=self.act(x), kernel_size=2)
        y = torch.add(input=F.relu(input=self.two(x)), other=x)
        return F.linear(input=torch.mean(input=y, dim=(2, 3)), weight=self.head.weight, bias=self.head.bias)


SPELLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "torch, by name": lambda x: torch.relu(input=x),
    "functional, by name": lambda x: F.relu(input=x, inplace=False),
    "method, in place": lambda x: x.relu_(),
    "flag by place": lambda x: F.relu(x, True),
    "flag by name": lambda x: F.relu(x, inplace=True),
    "clamp, by name": lambda x: torch.clamp(input=x, min=0),
    "clamp method": lambda x: x.clamp(min=0),
    "threshold, by name": lambda x: F.threshold(input=x, threshold=0, value=0),
}


def maps(net: nn.Module, picture: Tensor, *names: str) -> Any:
    ready = net if isinstance(net, torch.fx.GraphModule) else net.eval()  # an exported graph has one mode only
    return cs.explain(cs.wrap(ready, size=picture.shape[-1]), picture, list(names), target=1)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings_give_one_map(name: str, named: bool) -> None:
    picture = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    truth = maps(Spelt(F.relu), picture, "lrp", "deep-shap")
    found = maps(Spelt(SPELLINGS[name], named), picture, "lrp", "deep-shap")
    for key in ("lrp", "deep-shap"):
        assert np.abs(found[key].values - truth[key].values).max() <= 1e-6 * np.abs(truth[key].values).max()


def test_names_and_places() -> None:
    x = torch.rand(1, 2, 4, 4)
    assert name_of(Tensor.relu_) == name_of(torch.relu) == name_of(F.relu) == "relu"
    assert name_of(Tensor.__iadd__) == "iadd"
    args, kwargs = positional(torch.add, (), {"input": x, "other": x, "alpha": 2})
    assert args[0] is x
    assert args[1] is x
    assert kwargs == {"alpha": 2}
    args, kwargs = positional(F.conv2d, (x,), {"weight": x, "padding": 1})
    assert args[1] is x
    assert kwargs == {"padding": 1}
    args, kwargs = positional(torch.cat, (), {"tensors": [x, x], "dim": 1})
    assert len(args[0]) == 2
    assert in_place(F.relu, (x, True), {})
    assert in_place(Tensor.mul_, (x, 2), {})
    assert not in_place(F.relu, (x,), {"inplace": False})


@pytest.mark.parametrize(
    "settings",
    [(2,), (3, 2, 1), (3, 1, 0), ((2, 3), (1, 2), (1, 1)), (3, 2, 1, 2), (3, 2, 0, 1, True), (2, 2, 0, 1, True)],
)
def test_shared_maxima_are_max_pooling_and_share_alike(settings: Any) -> None:
    x = torch.rand(2, 3, 13, 17, generator=torch.Generator().manual_seed(0))
    pool = shared_maxima(x, settings, {})
    assert torch.equal(pool(x), F.max_pool2d(x, *settings))
    leaf, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    (one,) = torch.autograd.grad(pool(leaf).sum(), leaf)
    (two,) = torch.autograd.grad(F.max_pool2d(other, *settings).sum(), other)
    assert torch.allclose(one, two)  # without ties it is the usual gradient
    flat = torch.ones(1, 1, 4, 4, requires_grad=True)
    (even,) = torch.autograd.grad(shared_maxima(flat, (2,), {})(flat).sum(), flat)
    assert even.unique().tolist() == [0.25]


def test_a_mirrored_picture_has_the_mirrored_map() -> None:
    """Flat backgrounds tie in every window of the pooling: by position, one side would take all."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(6, 3),
    )  # fmt: skip
    with torch.no_grad():
        net[0].weight.copy_((net[0].weight + net[0].weight.flip(-1)) / 2)
    picture = torch.rand(3, 33, 33, generator=torch.Generator().manual_seed(0))
    here = maps(net, picture, "deep-shap")["deep-shap"].values
    there = maps(net, picture.flip(-1), "deep-shap")["deep-shap"].values
    assert np.abs(here - there[:, ::-1]).max() < 1e-5 * np.abs(here).max()


@pytest.mark.parametrize("method", ["lrp", "deep-shap"])
def test_networks_that_reshape_first(method: str) -> None:
    """Focus layers (YOLOv5) and patchifying by views: a map or a refusal, never an error of the engine's."""

    class Unshuffled(nn.Module):
        def __init__(self, first: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.conv, self.head = first, nn.Conv2d(12, 8, 3), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(self.conv(self.first(x))).mean((2, 3)))

    firsts: list[Callable[[Tensor], Tensor]] = [
        lambda x: F.pixel_unshuffle(x, 2),
        lambda x: torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1),
        lambda x: x.unflatten(-1, (8, 2)).unflatten(2, (8, 2)).permute(0, 1, 3, 5, 2, 4).flatten(1, 3),
    ]
    for first in firsts:
        model = cs.wrap(Unshuffled(first).eval(), size=16, mean=[0.0] * 3, std=[1.0] * 3)
        try:
            one = cs.explain(model, torch.rand(3, 16, 16), [method], target=1)[method]
        except cs.ConvoscopeError:
            continue
        assert np.isfinite(one.values).all()
        assert one.values.any()


def test_exported_graphs_call_overloads_and_mean_the_same() -> None:
    class Usual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
                                      nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())  # fmt: skip
            self.head = nn.Linear(8, 4)
            nn.init.uniform_(self.body[1].running_mean)
            nn.init.uniform_(self.body[1].running_var, 0.5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x).mean((2, 3)))

    net, any_number = Usual().eval(), {0: torch.export.Dim("batch", min=1, max=64)}
    graph = torch.export.export(net, (torch.rand(2, 3, 24, 24),), dynamic_shapes=(any_number,)).module()
    picture = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(0))
    methods = ("saliency", "grad-cam", "lrp", "deep-shap")
    truth, found = maps(net, picture, *methods), maps(graph, picture, *methods)
    assert not found.refused
    for name in methods:
        size = np.abs(truth[name].values).max()
        np.testing.assert_allclose(found[name].values, truth[name].values, atol=1e-5 * size, err_msg=name)

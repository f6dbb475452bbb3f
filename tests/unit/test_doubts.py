"""What a map says against itself: hand-written ReLUs, cut graphs, blank maps, noise, several last grids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import convoscope as cs
from convoscope.engine.fields.watch import watch


class Trunk(nn.Module):
    """Two convolutions whose activation can be spelt in any way."""

    def __init__(self, act: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1, stride=2)
        self.act = act
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.two(self.act(self.one(x)))).mean((2, 3)))


def picture(size: int = 16, seed: int = 0) -> Tensor:
    return torch.rand(3, size, size, generator=torch.Generator().manual_seed(seed))


def explained(net: nn.Module, *methods: str, target: Any = 1, size: int = 16) -> Any:
    return cs.explain(cs.wrap(net.eval(), size=size), picture(size), list(methods), target=target)


def said(heatmap: Any, words: str) -> bool:
    return any(words in doubt for doubt in heatmap.doubts)


class OwnRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        return g * (ctx.saved_tensors[0] > 0)


def _indexed(x: Tensor) -> Tensor:
    x = x.clone()
    x[x < 0] = 0
    return x


def _in_place(x: Tensor) -> Tensor:
    x *= x > 0
    return x


HANDMADE: dict[str, Callable[[Tensor], Tensor]] = {
    "times its mask": lambda x: x * (x > 0),
    "times a float mask": lambda x: (x >= 0).float() * x,
    "times its mask, in place": _in_place,
    "where": lambda x: torch.where(x > 0, x, torch.zeros_like(x)),
    "where with a number": lambda x: torch.where(x < 0, 0.0, x),
    "maximum": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "maximum with a scalar tensor": lambda x: torch.max(torch.tensor(0.0), x),
    "masked fill": lambda x: x.masked_fill(x < 0, 0),
    "masked fill, negated": lambda x: x.masked_fill(~(x > 0), 0.0),
    "index": _indexed,
    "half of the sum with the absolute": lambda x: (x + x.abs()) / 2,
}


@pytest.mark.parametrize("name", HANDMADE)
def test_hand_written_relus_are_told(name: str) -> None:
    one = explained(Trunk(HANDMADE[name]), "guided-backprop")["guided-backprop"]
    assert said(one, "1 activations are written by hand")
    assert one.provenance["relu_nodes"] == {"overridden": 1, "expected": 1}


def test_a_function_with_a_backward_of_its_own_is_told() -> None:
    one = explained(Trunk(lambda x: OwnRelu.apply(x)), "guided-backprop")["guided-backprop"]
    assert said(one, "1 of 2 ReLUs did not follow")


#: look like one and are none: another value's mask, a mask that is only counted, a gate between 0 and 1
INNOCENT: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "another value's mask": lambda x: F.relu(x) * (x.flip(1) > 0),
    "a threshold elsewhere": lambda x: F.relu(x) * (x > 0.3).float().mean(),
    "a squeeze and a gate": lambda x: F.relu(x) * x.mean((2, 3), keepdim=True).sigmoid(),
    "a residual": lambda x: F.relu(x) + x,
}


@pytest.mark.parametrize("name", INNOCENT)
def test_other_products_are_no_relus(name: str) -> None:
    assert not said(explained(Trunk(INNOCENT[name]), "guided-backprop")["guided-backprop"], "by hand")


class Frozen(nn.Module):
    def __init__(self, cut: Callable[[nn.Module, Tensor], Tensor], whole: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        self.other = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        self.head = nn.Linear(8, 4)
        self.cut, self.whole = cut, whole

    def forward(self, x: Tensor) -> Tensor:
        features = self.cut(self.trunk, x)
        return self.head((features if self.whole else features + self.other(x)).mean((2, 3)))


def _no_grad(trunk: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return trunk(x)


CUTS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "no_grad": _no_grad,
    "detach": lambda trunk, x: trunk(x).detach(),
    "detached input": lambda trunk, x: trunk(x.detach()),
    "data": lambda trunk, x: trunk(x).data,
}


@pytest.mark.parametrize("name", CUTS)
def test_a_cut_graph_is_told_as_that(name: str) -> None:
    found = explained(Frozen(CUTS[name], True), "saliency", "integrated-gradients", "occlusion")
    assert np.ptp(found["occlusion"].values) > 0
    assert not said(found["occlusion"], "cuts")
    for method in ("saliency", "integrated-gradients"):
        assert not found[method].values.any()
        assert said(found[method], "cuts the gradient graph")
        assert not said(found[method], "no place of the picture")


@pytest.mark.parametrize("name", CUTS)
def test_a_branch_that_is_cut_is_told(name: str) -> None:
    one = explained(Frozen(CUTS[name], False), "saliency")["saliency"]
    assert one.values.any()
    assert said(one, "what lies before the cut")


class Innocent(nn.Module):
    """detach, no_grad and new tensors that the score does not depend on."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)
        self.seen = 0.0

    def forward(self, x: Tensor) -> Tensor:
        x = self.trunk(x).relu() + 0
        with torch.no_grad():
            self.seen = float(x.detach().mean())
        x = x + torch.zeros_like(x) + x.new_ones(1)
        return self.head(x.mean((2, 3)))


def test_no_cut_where_nothing_is_lost() -> None:
    assert not said(explained(Innocent(), "saliency")["saliency"], "cut")
    assert not said(explained(Trunk(lambda x: OwnRelu.apply(x)), "saliency")["saliency"], "cut")


class Flat(nn.Module):
    """A classifier that weighs cells one by one: convolution, flatten, linear."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(4 * 16 * 16, 2)
        with torch.no_grad():
            weight = torch.full((2, 4, 16, 16), -1.0)
            weight[1, :, 2:5, 2:5] = 5.0
            self.head.weight.copy_(weight.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x).flatten(1))


def test_a_blank_grad_cam_names_hirescam_which_shows_the_place() -> None:
    found = explained(Flat(), "grad-cam", "guided-grad-cam", "hirescam")
    for name in ("grad-cam", "guided-grad-cam"):
        assert not found[name].values.any()
        assert said(found[name], "Blank after its ReLU")
        assert said(found[name], "see hirescam")
        assert not said(found[name], "no place of the picture")
    y, x = np.unravel_index(found["hirescam"].values.argmax(), (16, 16))
    assert 2 <= y < 5
    assert 2 <= x < 5


def test_a_score_without_the_picture_is_still_told() -> None:
    class Deaf(Trunk):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 0

    found = explained(Deaf(), "saliency", "grad-cam", "occlusion")
    for name in found:
        assert said(found[name], "zero everywhere")


class AttentionPool(Trunk):
    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Conv2d(12, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.two(F.relu(self.one(x))))
        weights = self.score(x).flatten(2).softmax(-1)
        return self.head((x.flatten(2) * weights).sum(-1))


class TwoTrunks(nn.Module):
    def __init__(self, stem: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()) if stem else nn.Identity()
        self.left = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.right = nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(torch.cat([self.left(x), self.right(x)], 1))


def test_the_default_layer_is_crossed_by_every_path() -> None:
    net = AttentionPool()
    trace = watch(net.eval(), torch.rand(1, 3, 16, 16))
    assert trace.last_grid == "relu#2"
    one = explained(net, "grad-cam")["grad-cam"]
    assert one.layer == "relu#2"
    assert not said(one, "Noise")
    assert not said(one, "Evidence also flows")
    # the branch itself, asked for by name, holds nothing but rounding: softmax does not see a sum
    branch = cs.explain(cs.wrap(net.eval(), size=16), picture(), ["grad-cam"], target=1, layer="score")["grad-cam"]
    assert said(branch, "Noise") or not branch.values.any()


def test_where_no_grid_is_crossed_by_all_the_others_are_named() -> None:
    one = explained(TwoTrunks(False), "grad-cam")["grad-cam"]
    assert one.layer == "right.1"
    assert said(one, "through left.1")
    asked = cs.explain(cs.wrap(TwoTrunks(False).eval(), size=16), picture(), ["grad-cam"], target=1, layer="left.1")[
        "grad-cam"
    ]
    assert not said(asked, "Evidence also flows")
    shared = explained(TwoTrunks(True), "grad-cam")["grad-cam"]
    assert shared.layer == "stem.1"
    assert not said(shared, "Evidence also flows")


def test_constants_from_outside_are_no_numpy_inside() -> None:
    given = torch.rand(1, 3, 16, 16)

    class Siamese(Trunk):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) - super().forward(given)

    class Table(Trunk):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + torch.from_numpy(np.linspace(0, 1, 16 * 16, dtype=np.float32).reshape(16, 16)))

    class Numpy(Trunk):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(torch.from_numpy(np.sqrt(x.detach().numpy() + 1)))

    for net in (Siamese(), Table()):
        trace = watch(net.eval(), torch.rand(1, 3, 16, 16))
        assert not trace.doubts, type(net).__name__
        assert trace.last_grid is not None
    assert any("NumPy" in doubt for doubt in watch(Numpy().eval(), torch.rand(1, 3, 16, 16)).doubts)

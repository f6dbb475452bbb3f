"""And more lines that could be wrong and nobody noticed."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from test_wrong_lines_3 import Own, Together, Tokens, noise, toy, wrapped
from torch import Tensor, nn

import convoscope as cs
from convoscope.engine.passes.agreement import same
from convoscope.engine.passes.flow import flow
from convoscope.engine.passes.planner import refusal
from convoscope.engine.passes.runner import Runner
from convoscope.errors import LayerError
from convoscope.methods.occlusion import Occlusion
from convoscope.methods.random_masks import LIME

# engine


def test_a_layer_that_is_never_reached_is_named() -> None:
    net = Own(nn.Identity())
    net.unused = nn.Linear(2, 2)
    runner = Runner(net.eval())
    found = runner.record(noise(1, 3, 8, 8), layers=["after"])
    assert list(found.layers) == ["after"]
    with pytest.raises(LayerError, match="'unused' was not reached"):
        runner.record(noise(1, 3, 8, 8), layers=["after", "unused"])


def test_tokens_that_are_appended_are_no_grid() -> None:
    class Appended(Tokens):
        def forward(self, x: Tensor) -> Tensor:
            patches = self.patches(x).flatten(2).transpose(1, 2)
            return self.head(self.inner(torch.cat([patches, self.before.expand(len(x), -1, -1)], 1)).mean(1))

    found = wrapped(Appended(4), (16, 16)).watched().layers["inner"]
    assert found.geometry is None
    assert found.prefix_tokens is None


def test_where_cells_look_cannot_be_changed() -> None:
    geometry = wrapped(Own(nn.Identity())).watched().layers["conv"].geometry
    assert geometry is not None
    with pytest.raises(dataclasses.FrozenInstanceError):
        geometry.rows = geometry.cols  # type: ignore[misc]


@pytest.mark.parametrize(("dtype", "bears"), [(torch.float32, 5e-4), (torch.bfloat16, 1e-2), (torch.float16, 1e-2)])
def test_scores_are_the_same_to_the_rounding_of_their_kind(dtype: torch.dtype, bears: float) -> None:
    one = torch.tensor([[1.0, -2.0]])
    assert same(one, one * (1 + bears), dtype)
    assert not same(one, one * (1 + 8 * bears), dtype)


@pytest.mark.parametrize("first", [True, False])
def test_one_output_that_is_influenced_is_enough(first: bool) -> None:
    class Two(Together):
        def forward(self, x: Tensor) -> Any:
            outputs = super().forward(x), x.flatten(1)[:, :2]
            return outputs if first else outputs[::-1]

    assert Runner(Two(0.5).eval()).keep_apart(noise(2, 3, 2, 2))


@pytest.mark.parametrize(
    ("error", "memory"),
    [(RuntimeError("boom"), False), (MemoryError(), True), (RuntimeError("CUDA out of memory. Tried"), True)],
)
def test_only_a_full_memory_is_called_so(error: Exception, memory: bool) -> None:
    assert str(refusal(error)).startswith("Out of memory") == memory


def test_a_network_whose_weights_are_frozen_has_a_flow() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)).requires_grad_(False)
    found = flow(net, noise(1, 3, 8, 8))
    assert [(one.name, one.inputs) for one in found] == [("0", ()), ("1", ("0",)), ("2", ("1",))]


def test_heads_with_rectifiers_of_their_own_are_each_guided() -> None:
    class Heads(Own):
        def __init__(self) -> None:
            super().__init__(nn.Identity())
            self.one, self.two = (nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)) for _ in range(2))

        def forward(self, x: Tensor) -> Any:
            means = self.after(self.conv(x).relu()).mean((2, 3))
            return {"one": self.one(means), "two": self.two(means)}

    model = wrapped(Heads())
    targets = ["output:one.1", "output:two.1"]
    together = cs.explain(model, toy(), "guided-backprop", target=targets).rows
    for target, found in zip(targets, together, strict=True):
        alone = cs.explain(model, toy(), "guided-backprop", target=target)["guided-backprop"]
        np.testing.assert_allclose(found["guided-backprop"].values, alone.values, atol=1e-7)


# methods


def test_ablation_cam_is_its_formula_in_either_layout() -> None:
    """Ramaswamy, Desai, Ramaswamy, WACV 2020: a channel's weight is the share of the score that is lost without it."""

    class Last(Own):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.after(self.conv(x).relu().permute(0, 2, 3, 1)).mean((1, 2)))

    grids = []
    for kind in (Own, Last):
        model = wrapped(kind(nn.Identity()))
        found = cs.explain(model, toy(), "ablation-cam", layer="after", target=1)["ablation-cam"]
        net = model.module
        with torch.no_grad():
            a = net.conv(model.prepare(toy()).tensor[None]).relu()[0]
            score = net.head(a.mean((1, 2)))[1]
            without = torch.stack([net.head(torch.where(torch.arange(4)[:, None, None] == k, 0, a).mean((1, 2)))[1]
                                   for k in range(4)])  # fmt: skip
            weights = (score - without) / score
        np.testing.assert_allclose(
            found.grid, (weights[:, None, None] * a).sum(0).relu().numpy(), rtol=1e-4, atol=1e-6
        )
        grids.append(found.grid)
    np.testing.assert_allclose(*grids, atol=1e-6)


@pytest.mark.parametrize("sizes", ["a,b", ",", "16,0", "8;16"])
def test_sizes_that_are_none_are_refused(sizes: str) -> None:
    with pytest.raises(cs.ConvoscopeError, match="sizes must be whole numbers"):
        cs.explain("toybox", toy(), Occlusion(sizes=sizes))


def test_lime_has_as_many_numbers_as_superpixels() -> None:
    found = cs.explain("toybox", toy(), LIME(samples=60, segments=12))["lime"]
    assert found.facts["superpixels"] == len(np.unique(found.values))


def test_guided_grad_cam_is_blank_where_grad_cam_is() -> None:
    class Signed(Own):
        def __init__(self, sign: float) -> None:
            super().__init__(nn.Identity())
            with torch.no_grad():
                self.head.weight.abs_().mul_(sign)

    blank = {}
    for sign in (-1.0, 1.0):
        found = cs.explain(wrapped(Signed(sign)), toy(), ["grad-cam", "guided-grad-cam"], target=1)
        blank[sign] = [bool(np.ptp(one.values) == 0) for one in found.values()]
        doubts = [[d for d in one.doubts if "negative" in d] for one in found.values()]
        assert [bool(one) for one in doubts] == blank[sign]
    assert blank == {-1.0: [True, True], 1.0: [False, False]}


def test_eigen_cams_of_a_batch_have_each_its_own_sign() -> None:
    """The sign is that in which the energy of the cells grows; of two pictures each has its own."""
    model = wrapped(Own(nn.Identity()))
    pictures = [toy(k) for k in range(4)]
    for picture, found in zip(pictures, cs.explain(model, pictures, "eigen-cam", target=1), strict=True):
        with torch.no_grad():
            cells = model.module.conv(model.prepare(picture).tensor[None]).relu()[0].flatten(1).T.double().numpy()
        centred = cells - cells.mean(0)
        first = centred @ np.linalg.svd(centred, full_matrices=False)[2][0]
        first *= np.sign(first @ (cells.sum(1) - cells.sum(1).mean()))
        shape = found["eigen-cam"].grid.shape
        np.testing.assert_allclose(found["eigen-cam"].grid, first.reshape(shape), atol=1e-4 * np.abs(first).max())


@pytest.mark.parametrize(
    ("name", "told"),
    [("saliency", "max |·| over channels"), ("input-x-gradient", "sum over channels"), ("deconvnet", "max |·| over")],
)
def test_what_is_done_over_channels_is_told(name: str, told: str) -> None:
    found = cs.explain("toybox", toy(), name)[name]
    assert found.reduction.startswith(told)

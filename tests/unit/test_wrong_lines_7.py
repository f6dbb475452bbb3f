"""And more lines that could be wrong and nobody noticed."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from test_wrong_lines_3 import Own, Together, Tokens, noise, wrapped
from torch import Tensor, nn

from convoscope.engine.passes.agreement import same
from convoscope.engine.passes.flow import flow
from convoscope.engine.passes.planner import refusal
from convoscope.engine.passes.runner import Runner
from convoscope.errors import LayerError

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

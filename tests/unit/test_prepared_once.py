"""What a first map does once and not again: a plan, a forward for what stays as it is, a picture alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import convoscope as cs
from convoscope.engine.passes.memory_format import known
from convoscope.engine.passes.runner import Runner
from convoscope.engine.recompute.incremental import Boxes, Incremental, run


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    ).eval()  # fmt: skip


def windows(*sides: int) -> Boxes:
    """A window of each of these sides, from the upper left corner."""
    side, zero = torch.tensor(sides).numpy(), torch.zeros(len(sides), dtype=torch.long).numpy()
    return Boxes(zero, side, zero, side)


def test_what_is_planned_for_an_estimate_is_what_is_run(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[Any] = []
    plan = run.schedule
    monkeypatch.setattr(run, "schedule", lambda *given: planned.append(given) or plan(*given))
    engine = Incremental(network, torch.rand(1, 3, 32, 32))
    masks, others = windows(4, 8), windows(16, 20)
    expected = engine.estimate(masks)
    engine.outputs(masks, torch.zeros(3))
    assert engine.last == expected
    assert len(planned) == 1
    engine.outputs(others, torch.zeros(3))
    assert len(planned) == 2
    engine.outputs(masks, torch.zeros(3))  # nothing is kept once it has run
    assert len(planned) == 3


def test_one_forward_tells_all_groups_what_stays_as_it_is(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, masks = torch.rand(1, 3, 64, 64), windows(4, 4, 4, 40, 40, 40)
    engine = Incremental(network, picture, batch=2)
    forwards: list[Any] = []
    base = engine._run_base
    monkeypatch.setattr(engine, "_run_base", lambda keys: forwards.append(keys) or base(keys))
    ours = engine.outputs(masks, torch.zeros(3))
    assert len(forwards) == 1
    pictures = picture.repeat(len(masks), 1, 1, 1)
    for number, side in enumerate((4, 4, 4, 40, 40, 40)):
        pictures[number, :, :side, :side] = 0
    assert torch.allclose(ours, network(pictures), atol=1e-5)


class Coupled(nn.Module):
    """Subtracts so much of the batch's mean, and adds so much noise."""

    def __init__(self, mean: float, noise: float = 0) -> None:
        super().__init__()
        self.conv, self.mean, self.noise, self.calls = nn.Conv2d(3, 16, 3), mean, noise, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x = self.conv(x).mean((2, 3))
        return x - self.mean * x.mean() + self.noise * torch.randn_like(x)


@pytest.mark.parametrize(("mean", "noise", "apart"), [(0, 0, False), (0.5, 0, True), (0, 1, False)])
@pytest.mark.parametrize("gradients", [False, True])
def test_a_picture_that_was_run_alone_is_not_run_alone_again(
    mean: float, noise: float, apart: bool, gradients: bool
) -> None:
    torch.manual_seed(0)
    network, picture = Coupled(mean, noise).eval(), torch.rand(1, 3, 8, 8)
    runner = Runner(network)
    base = runner.record(picture, gradients=gradients)
    before = network.calls
    assert runner.keep_apart(picture, base) == apart
    if not mean and not noise:
        assert network.calls == before + 1  # beside another picture


def test_a_picture_beside_another_is_run_in_the_memory_format_of_its_base() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    runner, picture = Runner(network.eval()), torch.rand(1, 3, 16, 16)
    base = runner.record(picture, gradients=False)
    formats: list[bool] = []
    network.register_forward_pre_hook(
        lambda module, given: formats.append(given[0].is_contiguous(memory_format=torch.channels_last))
    )
    assert not runner.keep_apart(picture, base)
    assert formats == [known[network] is torch.channels_last]


def test_several_pictures_are_no_picture_alone() -> None:
    torch.manual_seed(0)
    network, pictures = Coupled(0.5).eval(), torch.rand(2, 3, 8, 8)
    runner = Runner(network)
    assert runner.keep_apart(pictures, runner.record(pictures, gradients=False))


def test_the_fingerprint_follows_the_weights() -> None:
    model = cs.wrap(Coupled(0).eval(), size=8)
    first = model.fingerprint
    assert model.fingerprint == first
    model.module.conv.weight.data.add_(1)  # no counter of torch tells of it
    second = model.fingerprint
    assert second != first
    assert cs.wrap(model.module, size=8).fingerprint == second

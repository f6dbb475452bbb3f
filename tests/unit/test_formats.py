"""Inputs in the memory format that a network is quickest in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convoscope as cs
from convoscope.engine.passes import memory_format
from convoscope.engine.passes.needs import INPUT
from convoscope.engine.passes.runner import Runner
from convoscope.errors import ModelError
from convoscope.improve.collection import Labelled
from convoscope.improve.look import look
from convoscope.models.formats import best_format, laid_out


class Viewing(nn.Module):
    """Takes its activations for contiguous, as many hand-written networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3)
        self.second = nn.Conv2d(16, 32, 3)
        self.head = nn.Linear(32 * 4 * 4, 3)

    def forward(self, x: Tensor) -> Any:
        x = nn.functional.adaptive_avg_pool2d(self.second(self.first(x).relu()).relu(), 4)
        return self.head(x.view(len(x), -1))


class Reshaping(Viewing):
    def forward(self, x: Tensor) -> Any:
        x = nn.functional.adaptive_avg_pool2d(self.second(self.first(x).relu()).relu(), 4)
        return self.head(x.flatten(1))


def _wrapped(network: nn.Module) -> Any:
    return cs.wrap(network.eval(), size=24, mean=0.0, std=1.0, labels=["a", "b", "c"])


def test_channels_lie_last_where_convolutions_are_wide_and_nobody_minds() -> None:
    assert best_format(_wrapped(Reshaping())) is torch.channels_last
    assert best_format(_wrapped(Viewing())) is torch.contiguous_format
    narrow = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    assert best_format(_wrapped(narrow)) is torch.contiguous_format


@pytest.mark.parametrize("kind", [Viewing, Reshaping])
def test_a_look_gives_what_the_network_gives(kind: type[Viewing]) -> None:
    torch.manual_seed(0)
    model = _wrapped(kind())
    pictures = [np.random.default_rng(seed).integers(0, 255, (24, 24, 3), np.uint8) for seed in range(9)]
    looked = look(model, Labelled.of([(one, "abc"[at % 3]) for at, one in enumerate(pictures)], model), ["second"])
    inputs = torch.stack([torch.from_numpy(one).permute(2, 0, 1).float() / 255 for one in pictures])
    with torch.no_grad():
        expected = model.module(inputs)
        inner = model.module.second(model.module.first(inputs).relu()).mean((2, 3))
    np.testing.assert_allclose(looked.scores, expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(looked.layers["second"], inner.numpy(), atol=1e-5)


def test_values_stay_and_other_inputs_are_left_alone() -> None:
    model = _wrapped(Reshaping())
    batch = torch.rand(2, 3, 24, 24)
    made = laid_out(model, batch)
    assert made.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(made, batch)
    volume = torch.rand(2, 3, 4, 24, 24)
    assert laid_out(model, volume) is volume


class Dense(nn.Module):
    """A segmenter: its output is as large as its input."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Any:
        return {"out": self.second(self.first(x).relu())}


@pytest.mark.parametrize("kind", [Viewing, Reshaping])
def test_a_pass_is_what_the_network_gives_however_it_lies(kind: type[Viewing]) -> None:
    torch.manual_seed(0)
    network = kind().eval()
    runner = Runner(network)
    inputs = torch.rand(2, 3, 24, 24)
    for _ in range(2):  # the first pass finds out, the second knows
        recorded = runner.record(inputs, layers=["second"])
        score = recorded.output[:, 1]
        found = runner.gradients(recorded, score, "plain", [INPUT, "second"], keep=False)
        exact = Reshaping().double()
        exact.load_state_dict(network.state_dict())
        leaf = inputs.double().requires_grad_()
        inner = exact.second(exact.first(leaf).relu())
        inner.retain_grad()
        pooled = nn.functional.adaptive_avg_pool2d(inner.relu(), 4).flatten(1)
        exact.head(pooled)[:, 1].sum().backward()
        assert leaf.grad is not None
        torch.testing.assert_close(found[INPUT].double(), leaf.grad, atol=1e-6, rtol=1e-4)
        assert inner.grad is not None
        torch.testing.assert_close(found["second"].double(), inner.grad, atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(recorded.layers["second"].value.double(), inner.detach(), atol=1e-5, rtol=1e-4)
        for one in (found[INPUT], found["second"], recorded.layers["second"].value):
            assert one.is_contiguous(), "what is read outside lies as everybody expects it"
    bears = kind is Reshaping
    assert (memory_format.known[network] is torch.channels_last) is bears
    assert runner.forwards == 2, "what only found out how the network wants its input is no pass of its own"


def test_a_try_that_fails_leaves_the_random_numbers_and_the_counts_alone() -> None:
    class Drawing(Viewing):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x + torch.rand(1))

    network = Drawing().eval()
    inputs = torch.rand(2, 3, 24, 24)
    torch.manual_seed(5)
    tried = Runner(network).record(inputs, gradients=False).output
    torch.manual_seed(5)
    known = Runner(network).record(inputs, gradients=False).output
    assert torch.equal(tried, known)


def test_a_network_that_cannot_run_at_all_is_not_taken_for_one_that_minds() -> None:
    network = Reshaping().eval()
    with pytest.raises(ModelError, match="channels"):
        Runner(network).record(torch.rand(1, 4, 24, 24))
    assert network not in memory_format.known
    Runner(network).record(torch.rand(1, 3, 24, 24))
    assert memory_format.known[network] is torch.channels_last


def test_dense_outputs_lie_as_their_readers_expect() -> None:
    network = Dense().eval()
    inputs = torch.rand(1, 3, 12, 12)
    output = Runner(network).record(inputs).output
    assert output["out"].is_contiguous()
    output["out"].view(1, -1).sum()
    torch.testing.assert_close(output["out"], network(inputs)["out"], atol=1e-5, rtol=1e-5)


def test_other_numbers_and_narrow_networks_are_run_as_they_come() -> None:
    wide, narrow = Reshaping(), nn.Sequential(nn.Conv2d(3, 8, 3))
    picture = torch.rand(1, 3, 24, 24)
    assert memory_format.worth_trying(wide, picture)
    assert not memory_format.worth_trying(wide, picture.double())
    assert not memory_format.worth_trying(wide, torch.rand(1, 3, 4, 24, 24))
    assert not memory_format.worth_trying(narrow, picture)


class Strided(Viewing):
    """Reads its activations as they would lie: nothing is raised where they lie otherwise, other values are read."""

    def forward(self, x: Tensor) -> Any:
        x = nn.functional.adaptive_avg_pool2d(self.second(self.first(x).relu()).relu(), 4)
        return self.head(x.as_strided((len(x), 32 * 4 * 4), (32 * 4 * 4, 1)))


class Flat(torch.autograd.Function):
    """A layer of the network's own, whose backward takes its gradient for contiguous."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return 2 * gradient.view(-1).view(gradient.shape)


class Own(Reshaping):
    def forward(self, x: Tensor) -> Any:
        x = nn.functional.adaptive_avg_pool2d(Flat.apply(self.second(self.first(x).relu())).relu(), 4)
        return self.head(x.flatten(1))


def test_what_raises_nothing_and_reads_other_values_is_found_out() -> None:
    network = Strided().eval()
    inputs = torch.rand(3, 3, 24, 24)
    output = Runner(network).record(inputs).output
    torch.testing.assert_close(output, network(inputs), atol=1e-6, rtol=1e-5)
    assert memory_format.known[network] is torch.contiguous_format
    assert best_format(_wrapped(Strided())) is torch.contiguous_format


def test_a_backward_of_its_own_gets_what_it_takes_for_granted() -> None:
    network = Own().eval()
    inputs = torch.rand(2, 3, 24, 24)
    runner = Runner(network)
    for layers in ([], ["first"]):
        recorded = runner.record(inputs, layers=layers)
        found = runner.gradients(recorded, recorded.output[:, 0], "plain", [INPUT, *layers], keep=False)
        leaf = inputs.clone().requires_grad_()
        network(leaf)[:, 0].sum().backward()
        torch.testing.assert_close(found[INPUT], leaf.grad, atol=1e-6, rtol=1e-4)
    model = _wrapped(Own())
    assert np.isfinite(cs.visualize(model, "a", recipe="simonyan", steps=3).score)
    assert memory_format.known[model.module] is torch.contiguous_format


def test_weights_are_not_put_in_order_for_a_few_gradients() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 32, 3, stride=4), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()  # 32 * 25 + 64 * 9 values of a picture of 24 x 24 for 19,296 weights: 0.07 each
    formats: list[bool] = []
    network.register_forward_pre_hook(
        lambda module, given: formats.append(given[0].is_contiguous(memory_format=torch.channels_last))
    )
    runner, pictures = Runner(network), torch.rand(16, 3, 24, 24)
    scores = []
    for count, gradients in ((1, True), (1, True), (1, False), (2, True), (16, True), (16, False)):
        recorded = runner.record(pictures[:count], gradients=gradients)
        scores.append((formats.pop(), recorded.output[0].detach()))
    assert [last for last, _ in scores] == [False, False, True, False, True, True]
    assert memory_format.known[network] is torch.channels_last
    for _, score in scores:
        torch.testing.assert_close(score, scores[0][1], atol=1e-6, rtol=1e-5)
    assert not network[0]._forward_hooks, "what counted is gone"


def test_what_convolutions_make_is_counted_at_any_size_and_count() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(4, 4, 2, stride=2, bias=False))
    for shape in ((1, 3, 8, 8), (2, 3, 16, 12)):
        inputs = torch.rand(shape)
        with memory_format.counted(network, inputs):
            network(inputs)
        # 12 weights make 4 values a pixel, 64 make 1
        assert memory_format._made[network] == pytest.approx(5 / 76)
    few = int(memory_format.FEW_VALUES * 76 / 5)
    assert not memory_format.pays_backwards(network, torch.rand(1, 3, 1, few))
    assert memory_format.pays_backwards(network, torch.rand(few + 1, 3, 1, 1))
    assert memory_format.pays_backwards(nn.Conv2d(3, 4, 1), torch.rand(1, 3, 1, 1)), "of others nothing is known"

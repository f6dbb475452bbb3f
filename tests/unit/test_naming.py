"""Names of everything a forward produces, and the hooks that come and go with them."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convoscope.engine.passes.naming import module_paths, observe, operation_of, split_name


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 3, 3, padding=1)
        self.conv2 = nn.Conv2d(3, 3, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.conv1(x))
        y = self.conv2(F.relu(y))
        y += x
        return self.relu(y)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = Block()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Identity())
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.block(x))
        x = F.max_pool2d(F.relu(x), 2) + 1
        x = self.features(x).relu_()
        x = torch.cat([x, x.clamp(min=0)], 1)[:, :4]
        gate = torch.sigmoid(F.adaptive_avg_pool2d(x, 1))
        x = F.interpolate(x * gate, scale_factor=2)
        return self.fc(torch.flatten(x.mean((2, 3)), 1))


def names_of(network: nn.Module, x: Tensor, **kwargs: Any) -> list[str]:
    seen: list[str] = []
    with observe(network, lambda name, _: seen.append(name), **kwargs):
        network(x)
    return seen


def hooks_of(network: nn.Module) -> list[int]:
    return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()]


X = torch.randn(2, 3, 12, 12)
BLOCK = ["conv1", "relu", "functional_relu", "conv2", "add", "relu#2"]


def test_names_in_the_order_produced() -> None:
    first = [f"block.{n}" for n in BLOCK] + ["block"]
    second = ["conv1#2", "relu#3", "functional_relu#2", "conv2#2", "add#2", "relu#4"]
    rest = ["relu", "max_pool2d", "features.0", "features.1", "features", "relu#2", "clamp", "cat"]
    rest += ["adaptive_avg_pool2d", "sigmoid", "mul", "interpolate", "mean", "fc"]
    assert names_of(Net(), X) == [*first, *(f"block.{n}" for n in second), "block#2", *rest]


def test_every_forward_counts_from_one() -> None:
    net, seen = Net(), []
    with observe(net, lambda name, _: seen.append(name)):
        net(X)
        F.relu(X)  # not made by the network
        net(X)
    assert seen[: len(seen) // 2] == seen[len(seen) // 2 :]
    assert len(seen) % 2 == 0


def test_only_gives_the_same_outputs_with_and_without_the_function_mode() -> None:
    net = Net().eval()
    kept: dict[str, Tensor] = {}
    with torch.no_grad(), observe(net, lambda name, out: kept.__setitem__(name, out.clone())):
        net(X)
    for wanted in (["block.relu#3"], ["block.conv2#2", "features"], ["relu#2", "block.relu#2"], ["cat"]):
        got: dict[str, Tensor] = {}
        with (
            torch.no_grad(),
            observe(net, lambda n, out, got=got: got.__setitem__(n, out.clone()), only=wanted),
        ):
            net(X)
        assert set(got) == set(wanted)
        for name in wanted:
            assert torch.equal(got[name], kept[name])


def test_only_modules_installs_hooks_on_these_alone() -> None:
    net = Net()
    with observe(net, lambda *_: None, only=["features.0", "block#2"]):
        counts = dict(zip([n for n, _ in net.named_modules()], hooks_of(net), strict=True))
    assert {n for n, c in counts.items() if c} == {"", "features.0", "block"}
    assert sum(hooks_of(net)) == 0


@pytest.mark.parametrize("name", ["features", "features.0", "relu#2", "cat", "mean", "block.add#2"])
def test_a_returned_value_replaces_the_output(name: str) -> None:
    torch.manual_seed(0)  # some first weights leave nothing alive that could be replaced
    net = Net().eval()
    outputs: dict[str, Tensor] = {}
    with observe(net, lambda n, out: outputs.__setitem__(n, out.detach().clone())):
        plain = net(X)
    with observe(net, lambda n, out: torch.zeros_like(out), only=[name]):
        changed = net(X)
    assert not torch.allclose(plain, changed)
    with observe(net, lambda n, out: outputs[n], only=[name]):
        assert torch.equal(net(X), plain)


def test_what_the_visitor_computes_is_not_observed() -> None:
    net, seen = Net(), []

    def visit(name: str, output: Tensor) -> None:
        F.relu(output)
        if output.dim() == 4 and output.shape[1] == 3:
            net.features(output)
        seen.append(name)

    with observe(net, visit):
        net(X)
    assert seen == names_of(net, X)


def test_hooks_are_removed_also_when_the_forward_raises() -> None:
    net = Net()
    for wanted in (None, ["features"]):
        with pytest.raises(RuntimeError), observe(net, lambda *_: None, only=wanted):
            net(torch.randn(2, 7, 12, 12))
        with pytest.raises(ZeroDivisionError), observe(net, lambda *_: 1 / 0, only=wanted):
            net(X)
        assert sum(hooks_of(net)) == 0


def test_a_forward_that_catches_its_own_exception_keeps_its_scope() -> None:
    class Tries(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.outer = Outer()

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.outer(x))

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bad = nn.Sequential(nn.Conv2d(9, 9, 1))

        def forward(self, x: Tensor) -> Tensor:
            try:
                return self.bad(x)
            except RuntimeError:
                return x

    assert names_of(Tries(), X) == ["outer", "relu"]


def test_our_hooks_see_what_the_users_hooks_return() -> None:
    net = Net()
    net.features.register_forward_hook(lambda m, i, o: o * 0)
    seen: list[float] = []
    with observe(net, lambda n, out: seen.append(float(out.detach().abs().sum())), only=["features"]):
        net(X)
    assert seen == [0.0]
    assert sum(hooks_of(net)) == 1


def test_shared_modules_have_one_name_and_odd_names_stay_apart() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Identity()
            self.b = self.a
            self.add_module("a#2", nn.Identity())
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            x = getattr(self, "a#2")(self.b(self.a(x)))
            return F.relu(self.relu(x))

    net = Odd()
    assert list(module_paths(net)) == ["a", "a#2", "relu"]
    seen = names_of(net, X)
    assert seen == ["a", "a#3", "a#2", "relu", "functional_relu"]
    assert names_of(net, X, only=["a#2"]) == ["a#2"]
    assert names_of(net, X, only=["a#3"]) == ["a#3"]


def test_tuples_and_dictionaries_are_handed_over_as_they_are() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"x": x}

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.two = Two()

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return F.max_pool2d(self.two(x)["x"], 2, return_indices=True)

    seen: dict[str, Any] = {}
    with observe(Outer(), seen.__setitem__):
        pass
    net = Outer()
    with observe(net, lambda n, o: seen.__setitem__(n, o)):
        net(X)
    assert isinstance(seen["two"], dict)
    assert isinstance(seen["max_pool2d"], tuple)


def test_traced_and_compiled_networks() -> None:
    net = Net().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is deprecated in the newest torch
        traced = torch.jit.trace(net, X)
    assert names_of(traced, X) == []
    compiled = torch.compile(net)
    with torch.compiler.set_stance("force_eager"):
        assert names_of(compiled, X)[:2] == ["block.conv1", "block.relu"]


def test_split_and_operation() -> None:
    assert split_name("features.relu#3") == ("features.relu", 3)
    assert split_name("features.relu") == ("features.relu", 1)
    assert operation_of("features.functional_relu#3") == "relu"
    assert operation_of("features.conv") is None


def test_the_number_of_a_call_stands_behind_its_mark_alone():
    from convoscope.engine.passes.naming import split_name

    assert split_name("layer4.0.relu#2") == ("layer4.0.relu", 2)
    assert split_name("0") == ("0", 1)
    assert split_name("features.12") == ("features.12", 1)
    assert split_name("odd#name") == ("odd#name", 1)
    assert split_name("relu#") == ("relu#", 1)
    assert split_name("a#b#10") == ("a#b", 10)

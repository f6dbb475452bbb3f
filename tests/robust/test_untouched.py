"""After any call, also one that raised, also in another thread, the network is bit for bit what it was."""

from __future__ import annotations

import copy
import gc
import random
import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import convoscope as cs
from convoscope.engine.passes.untouched import untouched
from convoscope.pictures.picture import Picture


class Awkward(nn.Module):
    """Everything that others leave behind shows here: mixed training flags, buffers that count, dropout, hooks."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(11)
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(6, 8, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, 4)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("unset", None)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x = self.relu(self.norm(self.conv1(x)))
        x = F.relu(self.conv2(x), inplace=True)
        return self.fc(self.drop(x.mean((2, 3))))


def awkward() -> nn.Module:
    net = Awkward()
    net.train()
    net.norm.eval()
    net.conv1.weight.requires_grad_(False)
    net(torch.randn(2, 3, 12, 12)).sum().backward()
    net.conv2.register_forward_hook(lambda module, args, output: None)
    return net


def snapshot(net: nn.Module) -> dict[str, Any]:
    return {
        "state": {k: v.clone() for k, v in net.state_dict().items()},
        "grads": {n: None if p.grad is None else p.grad.clone() for n, p in net.named_parameters()},
        "grad ids": {n: id(p.grad) for n, p in net.named_parameters()},
        "requires_grad": {n: p.requires_grad for n, p in net.named_parameters()},
        "training": {n: m.training for n, m in net.named_modules()},
        "inplace": {n: getattr(m, "inplace", None) for n, m in net.named_modules()},
        "hooks": {
            n: [list(getattr(m, h)) for h in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")]
            for n, m in net.named_modules()
        },
        "attributes": {n: sorted(vars(m)) for n, m in net.named_modules()},
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].copy(),
        "python": random.getstate(),
        "defaults": (torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled()),
    }


def assert_same(before: Any, after: Any, where: str = "") -> None:
    assert type(before) is type(after), where
    if isinstance(before, dict):
        assert before.keys() == after.keys(), where
        for key in before:
            assert_same(before[key], after[key], f"{where}/{key}")
    elif isinstance(before, Tensor):
        assert torch.equal(before, after), where
    elif isinstance(before, np.ndarray):
        assert (before == after).all(), where
    else:
        assert before == after, where


def picture(seed: int = 0, size: int = 12) -> Picture:
    return Picture.of(torch.rand(3, size, size, generator=torch.Generator().manual_seed(seed)))


FAST = [name for name, kind in cs.METHODS.items() if not kind.about.slow]


@pytest.mark.parametrize("name", FAST)
def test_every_method_leaves_no_trace(name: str) -> None:
    net = awkward()
    before = snapshot(net)
    result = cs.explain(cs.wrap(net), picture(), [name, "saliency"], target=1)
    assert name in result or name in result.refused
    assert_same(before, snapshot(net))


@pytest.mark.parametrize(
    "method",
    [cs.Occlusion(4, 4), cs.RISE(20), cs.ScoreCAM(), cs.AblationCAM(), cs.ExtremalPerturbation(rounds=3)],
    ids=lambda m: m.about.name,
)
def test_methods_of_many_passes_leave_no_trace(method: Any) -> None:
    net = awkward()
    before = snapshot(net)
    assert len(cs.explain(cs.wrap(net), picture(), [method], target=1)) == 1
    assert_same(before, snapshot(net))


class Deliberate(Exception):
    pass


def test_a_target_that_raises_leaves_no_trace() -> None:
    def raising(output: Tensor) -> Tensor:
        raise Deliberate

    net = awkward()
    before = snapshot(net)
    with pytest.raises(Deliberate):
        cs.explain(cs.wrap(net), picture(), ["grad-cam", "guided-backprop"], target=raising)
    assert_same(before, snapshot(net))


def test_a_network_that_raises_half_way_leaves_no_trace() -> None:
    net = awkward()
    net.fc = nn.Linear(9, 4)
    before = snapshot(net)
    with pytest.raises(cs.ModelError, match="cannot run"):
        cs.explain(cs.wrap(net), picture(), ["grad-cam"])
    assert_same(before, snapshot(net))


def test_a_target_that_draws_random_numbers_and_calls_backward_leaves_no_trace() -> None:
    def meddling(output: Tensor) -> Tensor:
        torch.rand(3)
        random.random()
        np.random.rand()
        if torch.is_grad_enabled() and output.requires_grad:
            output.sum().backward(retain_graph=True)
        return output[:, 0]

    net = awkward()
    for p in net.parameters():
        p.grad = None
    before = snapshot(net)
    cs.explain(cs.wrap(net), picture(), ["saliency"], target=meddling)
    assert_same(before, snapshot(net))


def test_under_no_grad_and_inference_mode_maps_are_the_same() -> None:
    net = awkward()
    truth = cs.explain(cs.wrap(net), picture(), ["saliency"], target=1)["saliency"].values
    assert np.abs(truth).max() > 0
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            again = cs.explain(cs.wrap(net), picture(), ["saliency"], target=1)["saliency"].values
        np.testing.assert_array_equal(truth, again)


def test_user_hooks_run_and_stay() -> None:
    net = awkward()
    seen: list[int] = []
    net.conv1.register_forward_hook(lambda module, args, output: seen.append(1))
    cs.explain(cs.wrap(net), picture(), ["grad-cam"], target=1)
    assert seen
    assert len(net.conv1._forward_hooks) == 1


def test_hooks_do_not_grow_from_call_to_call() -> None:
    net = awkward()
    for _ in range(3):
        cs.explain(cs.wrap(net), picture(), ["grad-cam", "guided-backprop"], target=1)
    assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules()) == 1


def test_threads_take_turns_and_get_their_own_maps() -> None:
    """captum's saliency was wrong while its guided backprop ran on the same model."""
    net = awkward()
    model = cs.wrap(net)
    names = ["saliency", "guided-backprop", "deconvnet", "grad-cam"]
    truth = {name: cs.explain(model, picture(), [name], target=1)[name].values for name in names}
    before = snapshot(net)
    wrong: list[str] = []

    def work(name: str) -> None:
        for _ in range(8):
            got = cs.explain(model, picture(), [name], target=1)[name].values
            if not np.allclose(got, truth[name], rtol=1e-6, atol=1e-9):
                wrong.append(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in names * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert_same(before, snapshot(net))


def test_two_networks_do_not_wait_for_each_other() -> None:
    first, second = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)
    entered = threading.Event()

    def other() -> None:
        with untouched(second):
            entered.set()

    with untouched(first):
        thread = threading.Thread(target=other)
        thread.start()
        assert entered.wait(10)
    thread.join()


def test_buffers_that_the_network_replaces_are_put_back() -> None:
    class Replacing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("last", torch.zeros(1))
            self.fc = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            self.last = x.detach().mean((0, 2, 3))
            return self.fc(x.mean((2, 3)))

    net = Replacing()
    kept = net.last
    cs.explain(cs.wrap(net), picture(), ["saliency"], target=0)
    assert net.last is kept
    assert torch.equal(net.last, torch.zeros(1))


@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_batch_equals_single_pictures(count: int) -> None:
    net = awkward()
    model = cs.wrap(net, batch_size=count)
    pics = [picture(seed) for seed in range(5)]
    names = [name for name in FAST if name != "smoothgrad"]
    together = cs.explain(model, pics, names, target=2)
    for one, pic in zip(together, pics, strict=True):
        alone = cs.explain(model, pic, names, target=2)
        for name in alone:
            scale = np.abs(alone[name].values).max()
            np.testing.assert_allclose(one[name].values, alone[name].values, atol=1e-5 * scale, rtol=0)


def test_merging_methods_changes_nothing() -> None:
    model = cs.wrap(awkward())
    pics = [picture(seed) for seed in range(3)]
    together = cs.explain(model, pics, FAST, target=2)
    for name in FAST:
        try:
            alone = cs.explain(model, pics, [name], target=2)
        except cs.MethodRefused:
            assert name in together[0].refused
            continue
        for a, b in zip(together, alone, strict=True):
            scale = np.abs(b[name].values).max()
            np.testing.assert_allclose(a[name].values, b[name].values, atol=1e-5 * scale, rtol=0)


def test_the_plan_counts_merged_passes() -> None:
    model = cs.wrap(awkward(), batch_size=8)
    eleven = [
        "saliency", "input-x-gradient", "guided-backprop", "deconvnet", "guided-grad-cam", "grad-cam", "grad-cam++",
        "hirescam", "xgrad-cam", "layercam", "eigen-cam",
    ]  # fmt: skip
    result = cs.explain(model, picture(), eleven, target=1)
    assert (result.plan.forwards, result.plan.backwards) == (1, 3)
    many = cs.explain(model, [picture(seed) for seed in range(32)], ["saliency"], target=1)
    assert (many.plan.forwards, many.plan.backwards) == (4, 4)


def test_the_network_itself_may_be_used_while_explained_models_are_copies() -> None:
    net = awkward()
    twin = copy.deepcopy(net)
    cs.explain(cs.wrap(net), picture(), ["grad-cam"], target=1)
    net.eval()
    twin.eval()
    x = torch.randn(2, 3, 12, 12)
    assert torch.equal(net(x), twin(x))


class TwoPictures(nn.Module):
    """Base of networks that keep something of their own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.conv(x)).mean((2, 3)))


def test_a_buffer_that_was_none_is_none_again() -> None:
    class Late(TwoPictures):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("grid", None)
            self.made_for: tuple[int, ...] | None = None

        def forward(self, x: Tensor) -> Tensor:
            if self.made_for != tuple(x.shape[-2:]):
                self.grid = torch.linspace(0, 1, x.shape[-1])
                self.made_for = tuple(x.shape[-2:])
            return super().forward(x * self.grid)

    net = Late()
    cs.explain(cs.wrap(net), picture(), ["saliency", "grad-cam"], target=0)
    assert net.grid is None
    assert net.made_for is None
    net(torch.rand(1, 3, 12, 12))  # its own books agree with its buffer


def test_plain_attributes_are_put_back_and_hold_no_graph() -> None:
    class Keeping(TwoPictures):
        def __init__(self) -> None:
            super().__init__()
            self.count, self.memory = 0, torch.zeros(4)

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1
            self.memory += 1
            self.last = self.conv(x)
            return super().forward(x)

    net = Keeping()
    cs.explain(cs.wrap(net), picture(), ["saliency"], target=0)
    assert net.count == 0
    assert torch.equal(net.memory, torch.zeros(4))
    assert not hasattr(net, "last")
    copy.deepcopy(net)


def test_hooks_that_the_network_installs_itself_stay() -> None:
    class Hooking(TwoPictures):
        def forward(self, x: Tensor) -> Tensor:
            if not getattr(self, "installed", False):
                self.kept: list[Tensor] = []
                self.conv.register_forward_hook(lambda module, args, output: self.kept.append(output.detach()))
                self.installed = True
            self.kept.clear()
            y = super().forward(x)
            return y + self.kept[0].mean()

    net = Hooking()
    cs.explain(cs.wrap(net), picture(), ["saliency", "grad-cam"], target=0)
    assert len(net.conv._forward_hooks) == 1
    net(torch.rand(1, 3, 12, 12))
    cs.explain(cs.wrap(net), picture(), ["saliency", "grad-cam"], target=0)
    assert len(net.conv._forward_hooks) == 1


@pytest.mark.parametrize("holder", [list, tuple, lambda ms: dict(enumerate(ms)), lambda ms: ms[0]])
def test_modules_in_plain_attributes_are_kept_too(holder: Any) -> None:
    class Hiding(TwoPictures):
        def __init__(self) -> None:
            super().__init__()
            self.__dict__["hidden"] = holder([nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5))])

        def forward(self, x: Tensor) -> Tensor:
            inner = self.__dict__["hidden"]
            return super().forward((inner if isinstance(inner, nn.Module) else inner[0])(x))

    net = Hiding()
    inner = net.__dict__["hidden"]
    inner = inner if isinstance(inner, nn.Module) else inner[0]
    before = snapshot(inner)
    first, again = (cs.explain(cs.wrap(net), picture(), ["saliency"], target=0)["saliency"].values for _ in range(2))
    assert_same(before, snapshot(inner))
    assert inner[1].training
    np.testing.assert_array_equal(first, again)  # its dropout was off


def _heads_on_one_trunk() -> list[nn.Module]:
    torch.manual_seed(3)
    trunk = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU())
    pools = (nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1))
    return [nn.Sequential(trunk, pool, nn.Flatten(), nn.Linear(6, 4)).eval() for pool in pools]


def _one_relu_in_two_networks() -> list[nn.Module]:
    torch.manual_seed(4)
    shared = nn.ReLU()

    def made() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), shared, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()

    return [made(), made()]


def _one_weight_in_two_modules() -> list[nn.Module]:
    torch.manual_seed(6)

    def made() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()

    first, second = made(), made()
    second[0].weight = first[0].weight
    return [first, second]


@pytest.mark.parametrize(
    "shared", [_heads_on_one_trunk, _one_relu_in_two_networks, _one_weight_in_two_modules], ids=lambda f: f.__name__
)
def test_networks_that_share_a_part_take_turns(shared: Any) -> None:
    names = ["grad-cam", "guided-backprop", "saliency"]
    models = [cs.wrap(net) for net in shared()]
    alone = [cs.explain(model, picture(number), names, target=1) for number, model in enumerate(models)]
    trunk = next(m for m in models[0].module.modules() if isinstance(m, nn.Conv2d))
    before = snapshot(trunk)
    wrong: list[str] = []

    def work(number: int) -> None:
        for _ in range(50):
            try:
                got = cs.explain(models[number], picture(number), names, target=1)
            except Exception as error:
                wrong.append(repr(error))
                continue
            wrong.extend(
                name for name in names if not np.allclose(got[name].values, alone[number][name].values, atol=1e-7)
            )

    threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert_same(before, snapshot(trunk))


def test_parts_of_each_other_s_networks_do_not_wait_for_ever() -> None:
    """Two threads whose networks hold the same two parts in opposite orders."""
    a, b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
    nets = [nn.Sequential(a, b), nn.Sequential(b, a)]

    def work(net: nn.Module) -> None:
        for _ in range(300):
            with untouched(net):
                pass

    threads = [threading.Thread(target=work, args=(net,), daemon=True) for net in nets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


def test_locks_of_networks_that_are_gone_are_forgotten() -> None:
    from convoscope.engine.passes import untouched as module

    gc.collect()
    before = len(module._locks)
    for _ in range(20):
        with untouched(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))):
            pass
    gc.collect()
    assert len(module._locks) <= before

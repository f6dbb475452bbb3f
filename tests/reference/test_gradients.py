"""Gradient methods against captum where captum is right, and against hand-written truths where it is wrong."""

from __future__ import annotations

import captum.attr
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import convoscope as cs
from convoscope.pictures.picture import Picture, Preprocessing


class Modules(nn.Module):
    """Convolutions and ReLU modules, each used once: what captum and grad-cam handle."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.conv1, self.relu1 = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace)
        self.conv2, self.relu2 = nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.ReLU(inplace)
        self.conv3, self.relu3 = nn.Conv2d(12, 16, 3, padding=1), nn.ReLU(inplace)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.conv1(x))
        x = self.relu2(self.conv2(x))
        x = self.relu3(self.conv3(x))
        return self.fc(x.mean((2, 3)))


class Functional(Modules):
    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        x = F.relu(self.conv3(x))
        return self.fc(x.mean((2, 3)))


class Method(Modules):
    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).relu()
        x = torch.relu(self.conv2(x))
        x = self.conv3(x).relu()
        return self.fc(x.mean((2, 3)))


class InPlace(Modules):
    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).relu_()
        x = F.relu(self.conv2(x), inplace=True)
        x = torch.relu_(self.conv3(x))
        return self.fc(x.mean((2, 3)))


class Shared(Modules):
    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.conv1(x))
        x = self.relu1(self.conv2(x))
        x = self.relu1(self.conv3(x))
        return self.fc(x.mean((2, 3)))


class Clamped(Modules):
    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).clamp(min=0)
        x = F.threshold(self.conv2(x), 0.0, 0.0)
        x = F.relu(self.conv3(x))
        return self.fc(x.mean((2, 3)))


def frozen() -> nn.Module:
    net = Modules()
    for p in net.parameters():
        p.requires_grad_(False)
    return net


def traced() -> nn.Module:
    return torch.jit.trace(Modules().eval(), torch.zeros(1, 3, 16, 16))


SPELLINGS = {
    "functional": Functional,
    "method": Method,
    "in-place": InPlace,
    "in-place modules": lambda: Modules(inplace=True),
    "shared": Shared,
    "clamped": Clamped,
    "frozen": frozen,
    "traced": traced,
}


def pictures(count: int = 2, size: int = 16) -> list[Picture]:
    generator = torch.Generator().manual_seed(3)
    return [
        Picture.from_input(
            torch.randn(3, size, size, generator=generator), Preprocessing(mean=(0,) * 3, std=(1,) * 3)
        )
        for _ in range(count)
    ]


def tensor(pics: list[Picture]) -> Tensor:
    return torch.stack([p.input_space for p in pics])


def close(ours: object, theirs: Tensor, tolerance: float = 1e-5) -> None:
    ours = torch.as_tensor(ours)
    assert ours.shape == theirs.shape
    scale = theirs.abs().max()
    assert scale > 0, "a comparison with an empty map would prove nothing"
    assert (ours - theirs).abs().max() <= tolerance * scale


def hand_guided(net: Modules, x: Tensor, target: int, rule: str) -> Tensor:
    """Backward through the three convolutions by transposed convolutions, with the rule written out."""
    with torch.no_grad():
        a1 = net.conv1(x)
        a2 = net.conv2(a1.relu())
        a3 = net.conv3(a2.relu())
        g = net.fc.weight[target].view(1, -1, 1, 1).expand_as(a3) / a3[0, 0].numel()
        for pre, conv, like in ((a3, net.conv3, a2), (a2, net.conv2, a1), (a1, net.conv1, x)):
            keep = (pre > 0) if rule != "deconvnet" else torch.ones_like(pre, dtype=torch.bool)
            if rule != "plain":
                keep = keep & (g > 0)
            g = torch.nn.grad.conv2d_input(like.shape, conv.weight, g * keep, conv.stride, conv.padding)
    return g


RULES = {"guided-backprop": "guided", "deconvnet": "deconvnet"}


def test_saliency_is_captums() -> None:
    net, pics = Modules().eval(), pictures()
    theirs = captum.attr.Saliency(net).attribute(tensor(pics), target=2).amax(1)
    ours = cs.explain(cs.wrap(net), pics, ["saliency"], target=2)
    for row, one in enumerate(ours):
        close(one["saliency"].values, theirs[row])


def test_input_x_gradient_is_captums() -> None:
    net, pics = Modules().eval(), pictures()
    theirs = captum.attr.InputXGradient(net).attribute(tensor(pics), target=1).detach()
    for row, one in enumerate(cs.explain(cs.wrap(net), pics, ["input-x-gradient"], target=1)):
        close(one["input-x-gradient"].raw, theirs[row])
        close(one["input-x-gradient"].values, theirs[row].sum(0))


@pytest.mark.parametrize("name", RULES)
def test_rules_are_captums_where_captum_is_right(name: str) -> None:
    net, pics = Modules().eval(), pictures()
    kind = captum.attr.GuidedBackprop if name == "guided-backprop" else captum.attr.Deconvolution
    theirs = kind(net).attribute(tensor(pics), target=3).detach()
    for row, one in enumerate(cs.explain(cs.wrap(net), pics, [name], target=3)):
        close(one[name].raw, theirs[row])
        close(one[name].values, theirs[row].abs().amax(0))


@pytest.mark.parametrize("name", RULES)
def test_rules_equal_a_hand_written_backward_pass(name: str) -> None:
    net, pics = Modules().eval(), pictures(1)
    ours = cs.explain(cs.wrap(net), pics, [name], target=0)[0][name]
    close(ours.raw, hand_guided(net, tensor(pics), 0, RULES[name])[0])


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("name", RULES)
def test_rules_are_the_same_for_every_spelling_of_relu(spelling: str, name: str) -> None:
    pics = pictures(1)
    truth = hand_guided(Modules().eval(), tensor(pics), 4, RULES[name])[0]
    plain = hand_guided(Modules().eval(), tensor(pics), 4, "plain")[0]
    assert (truth - plain).abs().max() > 0.1 * truth.abs().max()
    ours = cs.explain(cs.wrap(SPELLINGS[spelling]().eval()), pics, [name], target=4)[0][name]
    close(ours.raw, truth)
    assert not any("ReLU" in doubt for doubt in ours.doubts)


class HiddenRelu(Modules):
    """A ReLU written into a view: the graph hides it inside CopySlices."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x)).clone()
        x[:, :4].relu_()
        x = F.relu(self.conv2(x))
        x = F.relu(self.conv3(x))
        return self.fc(x.mean((2, 3)))


def test_a_hidden_relu_is_a_doubt_not_a_silent_plain_gradient() -> None:
    ours = cs.explain(cs.wrap(HiddenRelu().eval()), pictures(1), ["guided-backprop"], target=1)[0]["guided-backprop"]
    assert any("did not follow the guided rule" in doubt for doubt in ours.doubts)


def test_activations_without_a_rule_are_counted() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
    net(torch.zeros(1, 3, 16, 16))
    ours = cs.explain(cs.wrap(net), pictures(1), ["guided-backprop"], target=1)[0]["guided-backprop"]
    assert any(doubt.startswith("1 activations") for doubt in ours.doubts)


@pytest.mark.parametrize(("baseline", "value"), [("mean", 0.0), ("white", 1.0)])
def test_integrated_gradients_are_captums(baseline: str, value: float) -> None:
    net, pics = Modules().eval(), pictures()
    theirs = captum.attr.IntegratedGradients(net).attribute(
        tensor(pics), torch.full((2, 3, 16, 16), value), target=2, n_steps=40
    )
    ours = cs.explain(cs.wrap(net), pics, [cs.IntegratedGradients(40, baseline)], target=2)
    for row, one in enumerate(ours):
        close(one["integrated-gradients"].raw, theirs[row].detach())


def test_integrated_gradients_sum_to_the_scores_difference() -> None:
    net, pics = Modules().eval(), pictures(1)
    with torch.no_grad():
        difference = (net(tensor(pics)) - net(torch.zeros(1, 3, 16, 16)))[0, 2]
    one = cs.explain(cs.wrap(net), pics, [cs.IntegratedGradients(400)], target=2)[0]["integrated-gradients"]
    assert float(one.values.sum()) == pytest.approx(float(difference), rel=1e-2)
    assert one.facts["completeness_residual"] < 1e-2


def test_too_few_steps_are_a_doubt() -> None:
    net, pics = Modules().eval(), pictures(1)
    one = cs.explain(cs.wrap(net), pics, [cs.IntegratedGradients(1)], target=2)[0]["integrated-gradients"]
    assert one.facts["completeness_residual"] > 0.05
    assert any("Completeness" in doubt for doubt in one.doubts)


def test_smoothgrad_is_the_mean_of_gradients_at_its_own_noise() -> None:
    net, pics = Modules().eval(), pictures(2)
    model = cs.wrap(net, seed=5, batch_size=4)
    one = cs.explain(model, pics, [cs.SmoothGrad(samples=6, noise=0.2)], target=0)
    x = tensor(pics)
    total = torch.zeros_like(x)
    for sample in range(6):
        noise = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(5 * 1_000_003 + sample))
        spread = (x.flatten(1).amax(1) - x.flatten(1).amin(1)).view(-1, 1, 1, 1) * 0.2
        at = (x + noise * spread).requires_grad_()
        total += torch.autograd.grad(net(at)[:, 0].sum(), at)[0]
    for row in range(2):
        close(one[row]["smoothgrad"].raw, total[row] / 6)


def test_input_x_gradient_of_a_bias_free_relu_net_sums_to_the_logit() -> None:
    net = Modules().eval()
    for module in net.modules():
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)
    one = cs.explain(cs.wrap(net), pictures(1), ["input-x-gradient"], target=1)[0]
    assert float(one["input-x-gradient"].values.sum()) == pytest.approx(one.score, rel=1e-4)


def test_linear_network_gives_its_weights() -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4))
    one = cs.explain(cs.wrap(net), pictures(1), ["saliency"], target=2)[0]["saliency"]
    close(one.values, net[1].weight[2].detach().view(3, 16, 16).abs().amax(0), 1e-6)

"""LRP against zennit on plain networks, against hand computations on residual and batch-norm ones, and conservation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm
import torch
import zennit.composites
from torch import Tensor, nn
from torch.nn import functional as F
from zennit.torchvision import ResNetCanonizer

import convoscope as cs
from convoscope.methods import method
from convoscope.methods.lrp import COMPOSITES

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


def picture(seed: int = 0, side: int = 32) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).random((side, side, 3)).astype(np.float32)


def tensor(image: np.ndarray[Any, Any]) -> Tensor:
    x = torch.from_numpy(image).permute(2, 0, 1)[None]
    return (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


def lrp(net: nn.Module, image: np.ndarray[Any, Any], **settings: Any) -> cs.Heatmap:
    model = cs.wrap(net, mean=MEAN, std=STD)
    found: cs.Heatmap = cs.explain(model, image, method("lrp", settings), target=1)["lrp"]
    return found


def plain(bias: bool = True, inplace: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=bias), nn.ReLU(inplace), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, 2, bias=bias),
        nn.ReLU(inplace), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(72, 10, bias=bias), nn.ReLU(inplace),
        nn.Linear(10, 4, bias=bias),
    ).eval()  # fmt: skip


def by_zennit(net: nn.Module, x: Tensor, composite: Any) -> Tensor:
    x = x.clone().requires_grad_()
    with composite.context(net) as inner:
        out = inner(x)
        (relevance,) = torch.autograd.grad(out, x, torch.eye(out.shape[1])[[1]] * out.detach())
    return relevance


ZENNIT = {
    "epsilon-plus": lambda low, high, canonizers: zennit.composites.EpsilonPlus(canonizers=canonizers),
    "epsilon-plus-flat": lambda low, high, canonizers: zennit.composites.EpsilonPlusFlat(canonizers=canonizers),
    "epsilon-gamma-box": lambda low, high, canonizers: zennit.composites.EpsilonGammaBox(
        low, high, canonizers=canonizers
    ),
}


def zennit_map(
    net: nn.Module, image: np.ndarray[Any, Any], name: str, canonizers: Any = None
) -> np.ndarray[Any, Any]:
    low, high = tensor(np.zeros_like(image)), tensor(np.ones_like(image))
    return by_zennit(net, tensor(image), ZENNIT[name](low, high, canonizers))[0].numpy()


def close(found: Any, truth: Any, share: float = 1e-4) -> bool:
    return float(np.abs(found - truth).max()) <= share * float(np.abs(truth).max())


@pytest.mark.parametrize("name", ZENNIT)
@pytest.mark.parametrize("inplace", [False, True])
def test_equal_to_zennit_on_a_plain_network(name: str, inplace: bool) -> None:
    found = lrp(plain(inplace=inplace), picture(), composite=name)
    assert found.raw is not None
    assert close(found.raw, zennit_map(plain(), picture(), name))


def test_epsilon_and_z_plus_equal_zennit() -> None:
    for name, kind in (
        ("epsilon", zennit.rules.Epsilon),
        ("z-plus", zennit.rules.ZPlus),
        ("gamma", zennit.rules.Gamma),
    ):
        layers = [
            ((nn.Conv2d, nn.Linear), kind()), ((nn.AvgPool2d,), zennit.rules.Norm()), ((nn.ReLU,), zennit.rules.Pass())
        ]  # fmt: skip
        truth = by_zennit(plain(), tensor(picture()), zennit.composites.LayerMapComposite(layers))
        assert close(lrp(plain(), picture(), composite=name).raw, truth[0].numpy()), name


@pytest.mark.parametrize("name", ["epsilon-plus", "epsilon-gamma-box"])
def test_equal_to_zennit_on_a_resnet_with_its_canonizer(name: str) -> None:
    from torchvision.models.resnet import BasicBlock, ResNet

    def net() -> nn.Module:
        torch.manual_seed(0)
        made = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=4)
        for module in made.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, 0, 0.1)
                nn.init.uniform_(module.running_var, 0.5, 2)
                nn.init.normal_(module.weight, 1, 0.3)
                nn.init.normal_(module.bias, 0, 0.1)
        return made.eval()

    image = picture(side=64)
    truth = zennit_map(net(), image, name, [ResNetCanonizer()])
    found = lrp(net(), image, composite=name)
    assert found.facts["conservation_residual"] < 1e-4
    assert np.corrcoef(found.raw.ravel(), truth.ravel())[0, 1] > 0.9999
    assert close(found.raw, truth, 1e-2)


class Residual(nn.Module):
    """Every spelling of a batch norm and a residual sum, with and without biases."""

    def __init__(self, bias: bool = True, spelling: str = "module") -> None:
        super().__init__()
        torch.manual_seed(3)
        self.spelling = spelling
        self.stem = nn.Conv2d(3, 8, 3, 2, 1, bias=bias)
        self.norm1, self.norm2, self.before = nn.BatchNorm2d(8), nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.a, self.b = nn.Conv2d(8, 8, 3, 1, 1, bias=False), nn.Conv2d(8, 8, 1, bias=bias)
        self.head = nn.Linear(8, 4, bias=bias)
        for norm in (self.norm1, self.norm2, self.before):
            nn.init.normal_(norm.running_mean, 0, 0.2 if bias else 0)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.normal_(norm.weight, 0.8, 0.4)
            nn.init.normal_(norm.bias, 0, 0.2 if bias else 0)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.stem(x)))
        y = self.a(F.relu(self.before(x)))
        y = self.norm2(y) + self.b(x) if self.spelling != "module" else torch.add(self.norm2(y), self.b(x))
        if self.spelling == "in-place":
            y += x
            y = y.relu_()
        else:
            y = (x + y).relu()
        return self.head(y.mean((2, 3)))


@pytest.mark.parametrize("spelling", ["module", "functional", "in-place"])
def test_epsilon_towards_nought_is_input_times_gradient_on_residual_and_batch_norm(spelling: str) -> None:
    """For piecewise-linear networks LRP-0 is x ⊙ Jᵀ, whatever the biases (Ancona et al. 2018): the Jacobian by hand."""
    net = Residual(spelling=spelling).double().eval()
    x = tensor(picture()).double()
    jacobian = torch.autograd.functional.jacobian(lambda x: net(x)[0], x)[1]
    model = cs.wrap(net, mean=MEAN, std=STD)
    found = cs.explain(model, picture(), method("lrp", {"composite": "epsilon", "epsilon": 0.0}), target=1)["lrp"]
    assert close(found.raw, (x * jacobian)[0].float().numpy(), 1e-6)
    bias_free = Residual(bias=False, spelling=spelling).double().eval()
    found = cs.explain(cs.wrap(bias_free, mean=MEAN, std=STD), picture(),
                       [cs.LRP("epsilon", epsilon=1e-12), "input-x-gradient"], target=1)  # fmt: skip
    assert close(found["lrp"].raw, found["input-x-gradient"].raw, 1e-5)
    assert abs(found["lrp"].facts["relevance_of_biases"]) < 1e-9
    assert found["lrp"].facts["relevance_at_input"] == pytest.approx(found.score, rel=1e-3)


def test_z_plus_with_a_batch_norm_by_hand() -> None:
    """The norm merged into the convolution, then the rule written out with its own matrices."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)).eval()
    norm = net[1]
    for values in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(values, 0, 0.7)
    image = picture(side=4)
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    weight = net[0].weight.detach() * scale.view(-1, 1, 1, 1)
    bias = (net[0].bias.detach() - norm.running_mean) * scale + norm.bias.detach()
    x = tensor(image)
    matrix = torch.autograd.functional.jacobian(lambda x: F.conv2d(x, weight).flatten(), x).reshape(16, -1)
    flat = x.flatten()
    hidden = (matrix @ flat + bias.repeat_interleave(4)).relu()
    out = net(x)[0, 1].detach()
    upper = hidden * net[4].weight[1].detach() / (out + 1e-6 * out.sign()) * out
    contributions = (matrix * flat).clamp(min=0)
    total = contributions.sum(1) + bias.repeat_interleave(4).clamp(min=0) + 1e-6
    truth = (contributions / total[:, None] * upper[:, None]).sum(0).reshape(3, 4, 4)
    assert close(lrp(net, image, composite="epsilon-plus").raw, truth.numpy(), 1e-5)


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("kind", ["plain", "residual", "gated", "vit", "mha", "groupnorm"])
def test_relevance_is_conserved_once_the_biases_are_counted(composite: str, kind: str) -> None:
    torch.manual_seed(0)
    if kind == "gated":
        net: nn.Module = timm.create_model("mobilenetv3_small_050", num_classes=4)
    elif kind == "vit":
        net = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, embed_dim=16, num_heads=2,
                                num_classes=4)  # fmt: skip
    elif kind == "mha":
        from torchvision.models import VisionTransformer

        net = VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=4)
        nn.init.normal_(net.heads.head.weight)
    elif kind == "groupnorm":
        net = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.GroupNorm(2, 8), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                            nn.Linear(8, 4))  # fmt: skip
    else:
        net = plain() if kind == "plain" else Residual()
    # double precision: what is measured is the rules, not the rounding of a score near zero
    model = cs.wrap(net.eval().double(), mean=MEAN, std=STD)
    found = cs.explain(model, [picture(), picture(1)], method("lrp", {"composite": composite}), target=1)
    for one in found:
        facts = one["lrp"].facts
        assert facts["score"] == pytest.approx(one.score, rel=1e-4)
        assert facts["conservation_residual"] < 1e-4, facts
        assert facts["relevance_at_input"] == pytest.approx(float(one["lrp"].values.sum()), rel=1e-3, abs=1e-5)
        assert not [doubt for doubt in one["lrp"].doubts if "LRP" in doubt or "Conservation" in doubt]
    alone = cs.explain(model, picture(1), method("lrp", {"composite": composite}), target=1)["lrp"]
    assert close(alone.values, found[1]["lrp"].values, 1e-3), "a picture's map depends on its neighbour"


def test_what_has_no_rule_is_told_and_detectors_are_refused() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x.sin().mean((1, 2, 3)), x.exp().mean((1, 2, 3))], 1)

    found = lrp(Odd(), picture())
    assert any("no rule for exp, sin" in doubt for doubt in found.doubts)


def test_a_contrast_hands_back_both_scores() -> None:
    net = plain()
    model = cs.wrap(net, mean=MEAN, std=STD)
    lrp_method = method("lrp", {"composite": "epsilon"})
    both = cs.explain(model, picture(), lrp_method, target=1, against=0)["lrp"].raw
    one, other = (cs.explain(model, picture(), lrp_method, target=k)["lrp"].raw for k in (1, 0))
    assert close(both, one - other, 1e-3)


def test_the_network_is_left_alone() -> None:
    net = Residual().eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    x = tensor(picture())
    truth = net(x)
    lrp(net, picture())
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert torch.equal(net(x), truth)
    assert not any(module._forward_hooks or module._backward_hooks for module in net.modules())

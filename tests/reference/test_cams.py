"""CAM methods on coarse grids against pytorch-grad-cam where it is right, and against invariants."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import pytorch_grad_cam as theirs
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from test_gradients import Modules, close, pictures, tensor
from torch import Tensor, nn

import convoscope as cs

PAIRS = {
    "grad-cam": theirs.GradCAM,
    "grad-cam++": theirs.GradCAMPlusPlus,
    "hirescam": theirs.HiResCAM,
    "xgrad-cam": theirs.XGradCAM,
    "layercam": theirs.LayerCAM,
    "eigen-cam": theirs.EigenCAM,
}


def coarse(kind: Any, net: nn.Module, layer: nn.Module, x: Tensor, target: int) -> Tensor:
    """Their map on the layer's own grid, before clipping, scaling and resizing."""
    with kind(model=net, target_layers=[layer]) as cam:
        targets = [ClassifierOutputTarget(target)] * len(x)
        output = cam.activations_and_grads(x)
        sum(t(o) for t, o in zip(targets, output, strict=True)).backward()
        a = cam.activations_and_grads.activations[0].cpu().data.numpy()
        g = cam.activations_and_grads.gradients[0].cpu().data.numpy()
        return torch.as_tensor(np.asarray(cam.get_cam_image(x, layer, targets, a, g, False))).float()


@pytest.mark.parametrize("name", PAIRS)
def test_coarse_grids_are_grad_cams(name: str) -> None:
    net, pics = Modules().eval(), pictures(2)
    if name == "grad-cam++":
        # theirs adds 1e-6 to squares of gradients: compared where the gradients are large beside it
        with torch.no_grad():
            net.fc.weight *= 1e4
    grids = coarse(PAIRS[name], net, net.relu3, tensor(pics), 3)
    ours = cs.explain(cs.wrap(net), pics, [name], target=3, layer="relu3")
    for row, one in enumerate(ours):
        grid, other = torch.as_tensor(one[name].grid), grids[row]
        if name == "eigen-cam":
            other = other * torch.sign((grid * other).sum())
        elif name != "hirescam":
            other = other.clamp(min=0)
        close(grid, other, 2e-5)


def test_convolution_before_an_inplace_relu_keeps_its_own_activation() -> None:
    """grad-cam stores the overwritten tensor there: ours equals the same network without in-place operations."""
    pics = pictures(1)
    ours = cs.explain(cs.wrap(Modules(inplace=True).eval()), pics, ["grad-cam"], target=1, layer="conv3")[0]
    truth = cs.explain(cs.wrap(Modules(inplace=False).eval()), pics, ["grad-cam"], target=1, layer="conv3")[0]
    net, x = Modules().eval(), tensor(pics)
    a = net.conv3(net.conv2(net.conv1(x).relu()).relu())
    g = net.fc.weight[1].view(1, -1, 1, 1) / a[0, 0].numel() * (a > 0)
    hand = (g.mean((2, 3), keepdim=True) * a).sum(1).clamp(min=0)[0].detach()
    close(ours["grad-cam"].grid, hand)
    close(truth["grad-cam"].grid, hand)


def test_gap_and_linear_head_invariants() -> None:
    net, pics = Modules().eval(), pictures(2)
    model = cs.wrap(net)
    results = cs.explain(model, pics, ["cam", "hirescam", cs.GradCAM(parts=3)], target=2, layer="relu3")
    for one in results:
        cam = one["cam"]
        assert cam.grid.mean() + cam.facts["bias"] == pytest.approx(one.score, rel=1e-5)
        cells = cam.grid.size
        np.testing.assert_allclose(one["hirescam"].grid, cam.grid / cells, rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(one["grad-cam"].grid, np.clip(cam.grid / cells, 0, None), rtol=1e-4, atol=1e-7)
        assert len(one["grad-cam"].parts) == 3


def test_all_parts_sum_to_the_cam() -> None:
    one = cs.explain(cs.wrap(Modules().eval()), pictures(1), [cs.CAM(parts=16)], target=2)[0]["cam"]
    total = sum(np.asarray(part.grid) for part in one.parts)
    np.testing.assert_allclose(total, one.grid, rtol=1e-4, atol=1e-6)
    strengths = [np.abs(np.asarray(part.grid)).sum() for part in one.parts]
    assert strengths == sorted(strengths, reverse=True)


class ClassConvolution(nn.Module):
    """A fully convolutional head with a ReLU between class convolution and pooling, as SqueezeNet's."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU())
        self.classifier = nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        nn.init.constant_(self.classifier[0].bias, 0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x)).flatten(1)


def test_cam_of_a_class_convolution_is_the_pooled_class_map() -> None:
    net, pics = ClassConvolution().eval(), pictures(1)
    one = cs.explain(cs.wrap(net), pics, ["cam", "grad-cam"], target=1)[0]
    truth = net.classifier[:2](net.features(tensor(pics)))[0, 1].detach()
    close(one["cam"].grid, truth)
    assert one["cam"].grid.mean() == pytest.approx(one.score, rel=1e-5)
    assert one["grad-cam"].layer == "features.4", "the input of the class convolution, not its output"


def test_cam_is_refused_where_it_does_not_exist() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 8), nn.ReLU(), nn.Linear(8, 3)
    )
    with pytest.raises(cs.MethodRefused, match="grad-cam"):
        cs.explain(cs.wrap(net), pictures(1), ["cam"])
    both = cs.explain(cs.wrap(net), pictures(1), ["cam", "grad-cam"])[0]
    assert "cam" in both.refused
    assert "grad-cam" in both


def test_guided_grad_cam_is_the_product_of_its_factors() -> None:
    net, pics = Modules().eval(), pictures(1)
    one = cs.explain(cs.wrap(net), pics, ["guided-grad-cam", "guided-backprop", "grad-cam"], target=1, layer="relu2")[
        0
    ]
    product = one["guided-backprop"].raw * one["grad-cam"].values[None]
    close(one["guided-grad-cam"].raw, torch.as_tensor(product))


class Piecewise(nn.Module):
    """Strides, batch norm with statistics, a residual sum, biases everywhere; registered out of order on purpose."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.fc = nn.Linear(8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)
        nn.init.normal_(self.norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv1(x)).relu()
        x = (x + self.conv2(x)).relu()
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize("rescale", [True, False])
def test_fullgrad_parts_sum_to_the_logit(rescale: bool) -> None:
    one = cs.explain(cs.wrap(Piecewise().eval()), pictures(1), [cs.FullGrad(rescale)], target=1)[0]["fullgrad"]
    assert one.facts["completeness_residual"] < 1e-4
    assert not any("Completeness" in doubt for doubt in one.doubts)


def test_ablation_cam_is_grad_cams() -> None:
    net, pics = Modules().eval(), pictures(1)
    x = tensor(pics)
    compared = 0
    for target in range(5):
        with theirs.AblationCAM(model=net, target_layers=[net.relu3]) as cam:
            cam.batch_size = 4
            targets = [ClassifierOutputTarget(target)]
            cam.activations_and_grads(x)
            a = cam.activations_and_grads.activations[0].cpu().data.numpy()
            grid = np.asarray(cam.get_cam_image(x, net.relu3, targets, a, None, False))
        other = torch.as_tensor(grid).clamp(min=0)[0].float()
        one = cs.explain(cs.wrap(net), pics, ["ablation-cam"], target=target, layer="relu3")[0]["ablation-cam"]
        if other.max() > 0:
            close(one.grid, other, 1e-4)
            compared += 1
        else:
            assert one.grid.max() == 0
            assert any("zero" in doubt or "negative" in doubt for doubt in one.doubts)
    assert compared >= 1


def test_score_cam_is_grad_cams_on_a_layer_of_the_pictures_size() -> None:
    """Their resize aligns corners; on a layer as large as the picture no resize is left to differ."""
    net, pics = Modules().eval(), pictures(1)
    x = tensor(pics)
    with theirs.ScoreCAM(model=net, target_layers=[net.relu1]) as cam:
        cam.batch_size = 4
        targets = [ClassifierOutputTarget(2)]
        cam.activations_and_grads(x)
        a = cam.activations_and_grads.activations[0].cpu().data.numpy()
        other = torch.as_tensor(np.asarray(cam.get_cam_image(x, net.relu1, targets, a, None, False))).clamp(min=0)[0]
    one = cs.explain(cs.wrap(net), pics, ["score-cam"], target=2, layer="relu1")[0]["score-cam"]
    close(one.grid, other.float(), 1e-4)


class _Scaled(nn.Module):
    """A small network whose logits are multiplied: the smaller, the smaller the gradients."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.scale = scale
        self.features = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 8, 3, padding=1))
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).square().mean((2, 3))) * self.scale


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 30.0])
@pytest.mark.parametrize("name", ["grad-cam++", "xgrad-cam"])
def test_formulas_hold_whatever_the_gradients_scale(name: str, scale: float) -> None:
    """In float64, from the papers; a constant in the denominator (1e-6 beside g² of 1e-7) moves the peak."""
    net, pics = _Scaled(scale).eval(), pictures(1)
    with torch.no_grad():
        net.features[0].weight *= 0.1  # activations of both signs, sums near zero
    exact = _Scaled(scale).eval().double()
    exact.load_state_dict({k: v.double() for k, v in net.state_dict().items()})
    a = exact.features(tensor(pics).double())
    (g,) = torch.autograd.grad((exact.fc(a.square().mean((2, 3))) * scale)[:, 2].sum(), a)
    a = a.detach()
    total = a.sum((2, 3), keepdim=True)
    if name == "grad-cam++":
        weights = (g.clamp(min=0) * g**2 / (2 * g**2 + total * g**3)).sum((2, 3), keepdim=True)
    else:
        weights = (g * a).sum((2, 3), keepdim=True) / total
    truth = (weights * a).sum(1).clamp(min=0)[0].float()
    ours = cs.explain(cs.wrap(net), pics, [name], target=2, layer="features.2")[0][name]
    close(torch.as_tensor(ours.grid), truth, 1e-4)


@pytest.mark.parametrize("name", ["grad-cam++", "xgrad-cam"])
def test_silent_channels_and_zero_gradients_give_numbers(name: str) -> None:
    net = _Scaled(1.0).eval()
    with torch.no_grad():
        for one in (net.features[2], net.fc):
            one.weight[:3] = 0
            one.bias[:3] = 0
    ours = cs.explain(cs.wrap(net), pictures(1), [name], target=3, layer="features.2")[0][name]
    assert np.isfinite(ours.values).all()

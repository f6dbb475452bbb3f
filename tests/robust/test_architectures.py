"""Forty architectures, random weights: every method gives a finite map or says why not; nothing is left behind."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from test_untouched import assert_same, snapshot
from torch import nn

import convoscope as cs
from convoscope.pictures.picture import Picture

TORCHVISION = {
    "alexnet": 96, "vgg11_bn": 64, "resnet18": 64, "resnext50_32x4d": 64, "wide_resnet50_2": 64, "squeezenet1_1": 64,
    "densenet121": 64, "googlenet": 64, "inception_v3": 160, "shufflenet_v2_x0_5": 64, "mobilenet_v2": 64,
    "mobilenet_v3_small": 64, "mnasnet0_5": 64, "efficientnet_b0": 64, "efficientnet_v2_s": 64, "regnet_y_400mf": 64,
    "regnet_x_400mf": 64, "convnext_tiny": 64, "vit_b_32": 224, "swin_t": 64, "swin_v2_t": 64, "maxvit_t": 224,
    "resnet50": 64, "vgg16": 64, "squeezenet1_0": 64,
}  # fmt: skip
TIMM = {
    "convnext_atto": 64, "efficientnet_lite0": 64, "tf_efficientnet_b0": 64, "regnetx_002": 64, "densenet121": 64,
    "inception_v4": 128, "vit_tiny_patch16_224": 224, "swin_tiny_patch4_window7_224": 224, "resnet18d": 64,
    "seresnet50": 64, "mobilenetv3_small_050": 64, "hrnet_w18_small": 64, "ghostnet_050": 64, "dla34": 64,
    "res2net50_26w_4s": 64, "ese_vovnet19b_dw": 64, "nf_resnet26": 64, "resnest14d": 64,
}  # fmt: skip
#: what a family refuses; a method that refuses everything must not pass
ATTENTION = {"attention-rollout", "attention-gradient"}
REFUSED: dict[str, set[str]] = {
    # two linear layers or more behind the last grid, or a norm between: no CAM
    **dict.fromkeys(("alexnet", "vgg11_bn", "vgg16", "mobilenet_v3_small", "convnext_tiny"), ATTENTION | {"cam"}),
    **dict.fromkeys(
        (
            "resnet18",
            "resnet50",
            "resnext50_32x4d",
            "wide_resnet50_2",
            "squeezenet1_0",
            "squeezenet1_1",
            "densenet121",
            "googlenet",
            "inception_v3",
            "shufflenet_v2_x0_5",
            "mobilenet_v2",
            "mnasnet0_5",
            "efficientnet_b0",
            "efficientnet_v2_s",
            "regnet_y_400mf",
            "regnet_x_400mf",
            "swin_t",
            "swin_v2_t",
        ),
        ATTENTION,
    ),
    # Deep SHAP has no rule for nn.MultiheadAttention's fused forward
    "vit_b_32": {"deep-shap"},
}
#: what any network may refuse; every other method gives every one of these networks a map
MAY_REFUSE = ATTENTION | {"cam", "deep-shap", "lrp"}
METHODS = [name for name, kind in cs.METHODS.items() if not kind.about.slow]


def torchvision_network(name: str) -> nn.Module:
    from torchvision import models

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return models.get_model(name, weights=None)


def timm_network(name: str) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False)


CASES = [pytest.param(torchvision_network, name, size, id=name) for name, size in TORCHVISION.items()]
CASES += [pytest.param(timm_network, name, size, id=f"timm:{name}") for name, size in TIMM.items()]


def check(net: nn.Module, name: str, size: int, methods: list[object]) -> None:
    model = cs.wrap(net, mean=[0.5] * 3, std=[0.25] * 3, size=size, name=name)
    picture = Picture.of(
        torch.rand(3, size, size, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    )
    before = snapshot(net)
    result = cs.explain(model, picture, methods)
    assert set(result) | set(result.refused) == {
        one if isinstance(one, str) else one.about.name for one in methods
    }, "every method gives a map or says why not"
    for method, map_ in result.items():
        assert map_.values.shape == (size, size), method
        assert np.isfinite(map_.values).all(), method
        flat = map_.values.min() == map_.values.max()
        assert not flat or any("zero" in d or "constant" in d or "negative" in d for d in map_.doubts), method
    asked = {one if isinstance(one, str) else one.about.name for one in methods}
    assert set(result.refused) <= MAY_REFUSE, "by no network of the forty"
    if name in REFUSED and isinstance(methods[0], str):
        assert set(result.refused) == REFUSED[name] & asked
    for method, reason in result.refused.items():
        assert reason.endswith("."), (method, reason)
        assert len(reason) > 30, (method, reason)
    assert_same(before, snapshot(net))

    def raising(output: object) -> torch.Tensor:
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        cs.explain(model, picture, ["grad-cam"], target=raising)
    assert_same(before, snapshot(net))


@pytest.mark.slow
@pytest.mark.parametrize(("build", "name", "size"), CASES)
def test_every_method_on_every_architecture(build: Callable[[str], nn.Module], name: str, size: int) -> None:
    torch.manual_seed(0)
    check(build(name), name, size, METHODS)


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "googlenet", "mobilenet_v3_small"])
def test_the_fast_methods_on_four_architectures(name: str) -> None:
    torch.manual_seed(0)
    check(
        torchvision_network(name),
        name,
        64,
        ["saliency", "guided-backprop", "grad-cam", "cam", "fullgrad", "eigen-cam"],
    )

"""Every torchvision classification family and many of timm's: nothing unknown, a last grid in its place."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from convoscope.engine.fields.watch import watch

# name: size of the input, and the stride of the last grid
TORCHVISION = {
    "alexnet": (224, 32), "convnext_tiny": (64, 32), "densenet121": (64, 32), "efficientnet_b0": (64, 32),
    "efficientnet_v2_s": (64, 32), "googlenet": (64, 32), "inception_v3": (139, 32), "maxvit_t": (224, 32),
    "mnasnet0_5": (64, 32), "mobilenet_v2": (64, 32), "mobilenet_v3_small": (64, 32),
    "regnet_x_400mf": (64, 32), "regnet_y_400mf": (64, 32), "resnet50": (64, 32),
    "resnext50_32x4d": (64, 32), "wide_resnet50_2": (64, 32), "shufflenet_v2_x0_5": (64, 32),
    "squeezenet1_0": (96, 16), "squeezenet1_1": (96, 16), "swin_t": (96, 32), "swin_v2_t": (96, 32),
    "vgg11_bn": (224, 32), "vit_b_32": (224, 32),
}  # fmt: skip
TIMM = {
    "hrnet_w18_small": (96, 32), "tf_efficientnet_b0": (96, 32), "seresnet18": (96, 32),
    "skresnet18": (96, 32), "nfnet_l0": (96, 32), "resnetv2_50": (96, 32), "convnextv2_atto": (96, 32),
    "ghostnet_100": (96, 32), "res2net50_26w_4s": (96, 32), "dla34": (96, 32), "cspresnet50": (96, 32),
    "rexnet_100": (96, 32), "resnest14d": (96, 32), "tresnet_m": (96, 32), "repvgg_a0": (96, 32),
    "inception_v4": (139, 32), "dpn68": (96, 32), "xception41": (96, 32), "fastvit_t8": (96, 32),
    "efficientvit_b0": (96, 32), "poolformer_s12": (96, 32), "edgenext_xx_small": (96, 32),
    "gcresnet50t": (96, 32), "vovnet39a": (96, 32), "swin_tiny_patch4_window7_224": (224, 32),
    "vit_tiny_patch16_224": (224, 16), "coatnet_0_rw_224": (224, 32), "mixer_s32_224": (224, 32),
}  # fmt: skip
FAST = {
    "squeezenet1_1",
    "shufflenet_v2_x0_5",
    "regnet_y_400mf",
    "hrnet_w18_small",
    "tf_efficientnet_b0",
    "tresnet_m",
}


def cases(names: dict[str, tuple[int, int]]) -> list[object]:
    return [
        pytest.param(name, *sizes, id=name, marks=[] if name in FAST else [pytest.mark.slow])
        for name, sizes in names.items()
    ]


def check(network: nn.Module, size: int, stride: int) -> None:
    watched = watch(network.eval(), torch.randn(1, 3, size, size))
    assert watched.doubts == ()
    assert watched.relus == watched.output_relus
    assert watched.classifier is not None
    assert watched.embedding is not None
    grid = watched.layers[watched.last_grid or ""]
    assert grid.geometry is not None
    assert (grid.geometry.rows.stride, grid.geometry.cols.stride) == (stride, stride)
    if grid.prefix_tokens is None:
        assert grid.geometry.cells == (grid.shape[1:3] if grid.channels_last else grid.shape[2:])
    else:  # a sequence of tokens, after the class and register tokens
        rows, cols = grid.geometry.cells
        assert grid.prefix_tokens + rows * cols == grid.shape[1]
    # HRNet's nearest upsampling of grids that start at pixel 0 draws the weight towards the first pixel
    first = grid.geometry.rows.centres[0]
    assert -stride / 4 < first < grid.geometry.rows.centres[-1] <= size
    assert first >= 0 or "hrnet" in type(network).__module__
    for layer in watched.layers.values():
        assert (layer.geometry is None) == (layer.why_no_geometry is not None)


@pytest.mark.parametrize(("name", "size", "stride"), cases(TORCHVISION))
def test_torchvision(name: str, size: int, stride: int) -> None:
    import torchvision

    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    check(torchvision.models.get_model(name, weights=None, **extra), size, stride)


@pytest.mark.parametrize(("name", "size", "stride"), cases(TIMM))
def test_timm(name: str, size: int, stride: int) -> None:
    timm = pytest.importorskip("timm")
    check(timm.create_model(name, pretrained=False), size, stride)

"""One small network of every family in the table of docs/networks.md, with a picture and a target that suit it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.ops import SqueezeExcitation

import convoscope as cs
from convoscope.models.inputs import several
from convoscope.targets import Likeness, Merged
from convoscope.toybox.networks import ToyNet

from .networks import Segmenter, detector, photo

SIDE = 64


class Family(NamedTuple):
    """A model, its picture, and what is explained."""

    model: cs.Model
    picture: Any
    target: Any


def _seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make().eval()


def _plain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(12, 5),
    )  # fmt: skip


class _Landmarks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU())
        self.heat = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.heat(self.body(x))


class _Table(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.see, self.read = _plain(), nn.Linear(3, 5)

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        return self.see(image) + self.read(table)


class _Video(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv3d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv3d(6, 8, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3, 4)))


def _traced() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(_plain().eval(), torch.rand(1, 3, SIDE, SIDE))


def _vit() -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", img_size=SIDE, depth=2, embed_dim=12, num_heads=2, num_classes=5)


def _convnext() -> nn.Module:
    return timm.create_model("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 12, 16, 24), num_classes=5)


def _gated() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.SiLU(), SqueezeExcitation(8, 4), nn.Conv2d(8, 8, 3, 2, 1, groups=8), nn.SiLU(),
        nn.Conv2d(8, 12, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5),
    )  # fmt: skip


def _family(
    make: Callable[[], nn.Module], target: Any = 1, picture: Any = None, side: int = SIDE
) -> Callable[[], Family]:
    def build() -> Family:
        model = cs.wrap(_seeded(make), size=side)
        return Family(model, photo(0, (side, side)) if picture is None else picture, target)

    return build


def _several() -> Family:
    return Family(several(_seeded(_Table), (None, torch.ones(1, 3)), size=SIDE), photo(0, (SIDE, SIDE)), 1)


def _merged() -> nn.Module:
    return Merged(Segmenter(), detector("mask-rcnn"))


#: the table's columns
FAMILIES: dict[str, Callable[[], Family]] = {
    "plain CNN": _family(_plain, side=32),
    "ResNet": _family(lambda: ToyNet(5, (8, 8, 12, 16)), side=32),
    "gated CNN (SE, SiLU)": _family(_gated, side=32),
    "ConvNeXt": _family(_convnext),
    "ViT, DeiT": _family(_vit),
    "Swin": _family(lambda: SwinTransformer([4, 4], 12, [1, 1], [2, 2], [4, 4], num_classes=5)),
    "segmenter": _family(Segmenter, "segment:2"),
    "two-stage detector": _family(lambda: detector("mask-rcnn"), "instance:0"),
    "one-stage detector": _family(lambda: detector("retinanet"), "instance:0"),
    "keypoints": _family(lambda: detector("keypoint-rcnn"), "landmark:nose"),
    "heat-map landmarks": _family(_Landmarks, "landmark:2"),
    "panoptic": _family(_merged, "segment:@20,20"),
    "similarity": _family(_plain, Likeness((photo(3, (SIDE, SIDE)),))),
    "several inputs": _several,
    "volume, video": _family(_Video, 1, np.stack([photo(k, (SIDE, SIDE)) for k in range(4)])),
    "traced": _family(_traced),
}

#: the slow methods with few samples: the table says whether there is a map, not how good it is
SETTINGS: dict[str, dict[str, Any]] = {
    "occlusion": {"window": 16, "stride": 16}, "rise": {"samples": 6, "cells": 3},
    "lime": {"samples": 12, "segments": 4}, "integrated-gradients": {"nodes": 3}, "smoothgrad": {"samples": 2},
    "gradient-shap": {"samples": 3}, "extremal-perturbation": {"rounds": 3}, "vargrad": {"samples": 2},
    "deep-shap": {"nodes": 3},
}  # fmt: skip

"""Networks of transformers, which build themselves at their first forward, work after an explanation as before it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import convoscope as cs

T = pytest.importorskip("transformers", reason="transformers is not installed")

_SMALL = {"num_labels": 4, "image_size": 64}
_TOKENS = dict(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, patch_size=16, **_SMALL
)


def _mit(**more: Any) -> dict[str, Any]:
    return dict(
        hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=16,
        num_labels=4, **more,
    )  # fmt: skip


_STAGES = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16], "num_labels": 4}

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "vit": lambda: T.ViTForImageClassification(T.ViTConfig(output_hidden_states=True, **_TOKENS)),
    "deit": lambda: T.DeiTForImageClassification(T.DeiTConfig(output_hidden_states=True, **_TOKENS)),
    "beit": lambda: T.BeitForImageClassification(T.BeitConfig(output_hidden_states=True, **_TOKENS)),
    "dinov2": lambda: T.Dinov2ForImageClassification(T.Dinov2Config(output_hidden_states=True, **_TOKENS)),
    "vit-msn": lambda: T.ViTMSNForImageClassification(T.ViTMSNConfig(output_hidden_states=True, **_TOKENS)),
    "segformer": lambda: T.SegformerForSemanticSegmentation(T.SegformerConfig(**_mit())),
    "segformer-classifier": lambda: T.SegformerForImageClassification(
        T.SegformerConfig(**_mit(output_hidden_states=True))
    ),
    "resnet": lambda: T.ResNetForImageClassification(
        T.ResNetConfig(embedding_size=8, layer_type="basic", output_hidden_states=True, **_STAGES)
    ),
    "convnext": lambda: T.ConvNextForImageClassification(T.ConvNextConfig(output_hidden_states=True, **_STAGES)),
    "convnextv2": lambda: T.ConvNextV2ForImageClassification(T.ConvNextV2Config(**_STAGES)),
    "regnet": lambda: T.RegNetForImageClassification(
        T.RegNetConfig(embedding_size=8, groups_width=4, output_hidden_states=True, **_STAGES)
    ),
    "swin": lambda: T.SwinForImageClassification(
        T.SwinConfig(embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4, output_hidden_states=True, **_SMALL)
    ),
    "poolformer": lambda: T.PoolFormerForImageClassification(
        T.PoolFormerConfig(depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 16], num_labels=4)
    ),
    "bit": lambda: T.BitForImageClassification(
        T.BitConfig(embedding_size=32, num_groups=4, output_hidden_states=True, **_STAGES)
    ),
}


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(_same, a, b))
    return a == b if a is None or isinstance(a, (int, float, str)) else True


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_works_after_its_first_explanation_as_a_twin_that_was_never_explained(name: str) -> None:
    torch.manual_seed(0)
    net = NETWORKS[name]().eval()
    twin = copy.deepcopy(net)
    picture = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1))
    model = cs.wrap(net, size=64)
    first = cs.explain(model, picture, ["saliency"])
    batch = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        mine, theirs = net(batch), twin(batch)
    assert list(mine.keys()) == list(theirs.keys())
    for key in theirs:
        assert _same(theirs[key], mine[key]), key
    again = cs.explain(model, picture, ["saliency"])
    np.testing.assert_allclose(again["saliency"].values, first["saliency"].values, rtol=1e-5, atol=1e-9)
    copy.deepcopy(net)  # holds none of our graphs

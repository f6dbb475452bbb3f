"""Torchvision's own detectors, keypoint and segmentation networks, whole, with random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import convoscope as cs
from convoscope.methods import method

pytestmark = pytest.mark.slow

DETECTORS = (
    "fasterrcnn_mobilenet_v3_large_320_fpn", "fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn", "fcos_resnet50_fpn",
    "ssdlite320_mobilenet_v3_large", "ssd300_vgg16", "maskrcnn_resnet50_fpn", "keypointrcnn_resnet50_fpn",
)  # fmt: skip
SEGMENTERS = ("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large", "fcn_resnet50")


@pytest.mark.parametrize("name", [*DETECTORS, *SEGMENTERS])
def test_finite_maps_and_an_untouched_network(name: str) -> None:
    model = cs.open_model(name, weights="none", size=128, fit="squash", device="cpu")
    net = model.module
    if hasattr(net, "score_thresh"):
        net.score_thresh = 0.0
    if hasattr(net, "roi_heads"):
        net.roi_heads.score_thresh = 0.0
        net.transform.min_size = (128,)
    if name in DETECTORS:
        assert model.call is not None
    if name.startswith(("ssdlite", "deeplabv3_mobilenet", "lraspp")):
        # MobileNet's own first weights are so small that float32 scores do not move at all
        for module in net.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    image = (np.random.default_rng(0).random((90, 120, 3)) * 255).astype(np.uint8)
    occlusion = method("occlusion", {"window": 64, "stride": 64})
    found = cs.explain(model, image, ["saliency", "layercam", "guided-backprop", occlusion])
    assert not found.refused, found.refused
    assert all(np.isfinite(one.values).all() for one in found.values())
    watched = model.watched((3, 128, 128))
    if name in DETECTORS:
        assert found["layercam"].layer in watched.levels
    assert watched.layers[str(found["layercam"].layer)].shape[1] not in (21, 91), "features, not the class maps"
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())

"""Small networks of every family, their weights random and seeded."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models import detection as D
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign


def photo(seed: int = 0, size: tuple[int, int] = (64, 64), bands: int = 3) -> NDArray[np.uint8]:
    """A smooth random photo uint8 [H, W, bands] with a bright square."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((5, 5, bands))
    from PIL import Image

    planes = [np.asarray(Image.fromarray(np.uint8(coarse[..., c] * 255)).resize(size[::-1], 3)) for c in range(bands)]
    image = np.stack(planes, 2).copy()
    image[size[0] // 4 : size[0] // 2, size[1] // 4 : size[1] // 2] = 250
    return image


class TinyPyramid(nn.Module):
    """A backbone of three levels (strides 4, 8, 16) that sees little, as an OrderedDict like torchvision's."""

    def __init__(self, levels: int = 3, width: int = 8) -> None:
        super().__init__()
        self.out_channels = width
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, width, 3, 2, 1), nn.ReLU())
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, 2, 1), nn.ReLU()) for _ in range(levels - 1)
        )

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        x = self.stem(x)
        found = [x]
        for step in self.down:
            found.append(step(found[-1]))
        return OrderedDict((str(k), level) for k, level in enumerate(found))


def _rcnn(kind: Any, seed: int, **more: Any) -> nn.Module:
    torch.manual_seed(seed)
    anchors = AnchorGenerator(((8,), (16,), (32,)), ((0.5, 1.0, 2.0),) * 3)
    pool = MultiScaleRoIAlign(["0", "1", "2"], 5, 2)
    settings: dict[str, Any] = {
        "rpn_anchor_generator": anchors, "box_roi_pool": pool, "min_size": 64, "max_size": 96,
        "box_score_thresh": 0.0, "box_detections_per_img": 12, "rpn_pre_nms_top_n_test": 60,
        "rpn_post_nms_top_n_test": 30,
    }  # fmt: skip
    classes = more.pop("num_classes", 4)
    settings |= {"box_head": TwoMLPHead(8 * 25, 32), "box_predictor": FastRCNNPredictor(32, classes)}
    net = kind(TinyPyramid(), **{**settings, **more})
    return louder(net).eval()


def louder(net: nn.Module) -> nn.Module:
    """Random heads say the same of everything: their last layers are made to differ between places."""
    for name, parameter in net.named_parameters():
        if parameter.ndim > 1 and any(word in name for word in ("predictor", "logits", "bbox", "head")):
            nn.init.normal_(parameter, 0, 0.1)
    return net


def detector(name: str, seed: int = 0) -> nn.Module:
    """One of torchvision's five detectors and Keypoint R-CNN on a tiny backbone."""
    torch.manual_seed(seed)  # before the heads are made, too
    if name == "faster-rcnn":
        return _rcnn(D.FasterRCNN, seed)
    if name == "mask-rcnn":
        return _rcnn(D.MaskRCNN, seed, mask_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], 6, 2),
                     mask_head=MaskRCNNHeads(8, (8, 8), 1), mask_predictor=MaskRCNNPredictor(8, 8, 4))  # fmt: skip
    if name == "keypoint-rcnn":
        pool = MultiScaleRoIAlign(["0", "1", "2"], 6, 2)
        return _rcnn(D.KeypointRCNN, seed, num_classes=2, keypoint_roi_pool=pool,
                     keypoint_head=KeypointRCNNHeads(8, (8, 8)),
                     keypoint_predictor=KeypointRCNNPredictor(8, 17))  # fmt: skip
    torch.manual_seed(seed)
    common: dict[str, Any] = {"min_size": 64, "max_size": 96, "score_thresh": 0.0, "detections_per_img": 12}
    if name == "retinanet":
        anchors = AnchorGenerator(((8,), (16,), (32,)), ((0.5, 1.0, 2.0),) * 3)
        return louder(D.RetinaNet(TinyPyramid(), 4, anchor_generator=anchors, **common)).eval()
    if name == "fcos":
        anchors = AnchorGenerator(((8,), (16,), (32,)), ((1.0,),) * 3)
        return louder(D.FCOS(TinyPyramid(width=32), 4, anchor_generator=anchors, **common)).eval()
    assert name == "ssd"
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.ssd import SSD, SSDHead

    boxes = DefaultBoxGenerator([[2], [2], [2]], scales=[0.1, 0.3, 0.6, 0.9])
    head = SSDHead([8, 8, 8], boxes.num_anchors_per_location(), 4)
    backbone = TinyPyramid()
    net = SSD(
        backbone, boxes, (64, 64), 4, head=head, score_thresh=0.0, detections_per_img=12, image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )  # fmt: skip
    return louder(net).eval()


class Segmenter(nn.Module):
    """Logits of every pixel; class 0 is the background, the others follow the picture's channels."""

    def __init__(self, wrapped: bool = False) -> None:
        super().__init__()
        self.wrapped = wrapped
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU())
        self.classify = nn.Conv2d(8, 4, 1)
        torch.manual_seed(1)
        for p in self.parameters():
            nn.init.normal_(p, 0, 0.3)

    def forward(self, x: Tensor) -> Any:
        out = nn.functional.interpolate(self.classify(self.features(x)), size=x.shape[-2:], mode="bilinear")
        return {"out": out, "aux": out * 2} if self.wrapped else out

"""Small networks for scenes: a detector, a segmenter, a two-headed panoptic network, and one that finds
landmarks.

All of them stand on the classifier's trunk, whose cells are 8 pixels apart, and come back to finer grids
with skips, as in a feature pyramid (Lin et al. 2017, https://arxiv.org/abs/1612.03144) or a U-Net
(Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597). Inputs are normalised pictures [B, 3, H, W]
whose sides are multiples of 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convoscope.toybox.networks import ToyNet

WIDTHS: tuple[int, ...] = (16, 32, 48, 64)
"""Channels of the trunk's stem and layers, those of ``toybox-twin``, from which training starts."""


def _mixer(channels_in: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels_in, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())


class Pyramid(nn.Module):
    """The classifier's trunk and a way back up: ``forward`` returns features of stride 4, or of stride 2."""

    def __init__(self, channels: int = 48, fine: bool = False, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        trunk = ToyNet(1, widths)
        self.stem, self.layer1, self.layer2, self.layer3 = (
            trunk.stem,
            trunk.layer1,
            trunk.layer2,
            trunk.layer3,
        )
        self.top = nn.Conv2d(widths[3], channels, 1)
        self.side4 = nn.Conv2d(widths[1], channels, 1)
        self.mix4 = _mixer(channels, channels)
        self.fine = fine
        if fine:
            self.side2 = nn.Conv2d(widths[0], channels // 2, 1)
            self.shrink = nn.Conv2d(channels, channels // 2, 1)
            self.mix2 = _mixer(channels // 2, channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] to [B, channels, H / 4, W / 4], or to [B, channels / 2, H / 2, W / 2] where fine."""
        at2 = self.stem(x)
        at4 = self.layer1(at2)
        at8 = self.layer3(self.layer2(at4))
        out: Tensor = self.mix4(self.side4(at4) + _double(self.top(at8)))
        if self.fine:
            out = self.mix2(self.side2(at2) + _double(self.shrink(out)))
        return out


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def _stack(images: Tensor | Sequence[Tensor]) -> Tensor:
    return images if isinstance(images, Tensor) else torch.stack(list(images))


class ToyDetector(nn.Module):
    """An anchor-free detector: a heat map of centres per class, and at each cell the way to the box's four
    sides.

    Centres as in CenterNet (Zhou et al. 2019, https://arxiv.org/abs/1904.07850), sides as in FCOS (Tian et
    al. 2019, https://arxiv.org/abs/1904.01355). In eval mode ``forward`` answers as torchvision's detectors
    do.
    """

    stride = 4

    def __init__(self, classes: int = 10, threshold: float = 0.05, most: int = 30) -> None:
        super().__init__()
        self.threshold, self.most = threshold, most
        self.body = Pyramid()
        self.heat = nn.Sequential(_mixer(48, 48), nn.Conv2d(48, classes, 1))
        self.sides = nn.Sequential(_mixer(48, 48), nn.Conv2d(48, 4, 1))
        nn.init.constant_(self.heat[1].bias, -3.0)  # type: ignore[arg-type]

    def maps(self, images: Tensor | Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Class logits [B, classes, h, w]; ways left, up, right, down [B, 4, h, w] in pixels, 0 or more."""
        features = self.body(_stack(images))
        return self.heat(features), F.softplus(self.sides(features)) * 8.0

    def forward(self, images: Tensor | Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """[B, 3, H, W], or a list of [3, H, W] of one size, to one dictionary per picture.

        ``boxes`` [N, 4] (x0, y0, x1, y1) in input pixels, ``labels`` [N] from 0 (there is no background
        class), ``scores`` [N] in 0..1, best first. Scores and boxes carry gradients where these are on.
        """
        images = _stack(images)
        logits, sides = self.maps(images)
        return [self._detections(logits[k], sides[k], images.shape[-2:]) for k in range(len(images))]

    def _detections(self, logits: Tensor, sides: Tensor, size: Sequence[int]) -> dict[str, Tensor]:
        from torchvision.ops import batched_nms

        scores = logits.sigmoid()
        with torch.no_grad():  # a centre is a cell that beats its eight neighbours
            peaks = scores * (F.max_pool2d(scores[None], 3, 1, 1)[0] == scores)
            values, order = peaks.flatten().topk(min(self.most * 2, peaks.numel()))
            order = order[values > self.threshold]
        labels, cell = order // logits[0].numel(), order % logits[0].numel()
        y, x = cell // logits.shape[-1], cell % logits.shape[-1]
        left, up, right, down = sides[:, y, x]
        cx, cy = (x + 0.5) * self.stride, (y + 0.5) * self.stride
        boxes = torch.stack([cx - left, cy - up, cx + right, cy + down], 1)
        limit = torch.tensor([size[1], size[0], size[1], size[0]], device=boxes.device, dtype=boxes.dtype)
        boxes = torch.minimum(boxes.clamp(min=0), limit)
        best = scores[labels, y, x]
        keep = batched_nms(boxes.detach().float(), best.detach().float(), labels, 0.5)[: self.most]
        return {"boxes": boxes[keep], "labels": labels[keep], "scores": best[keep]}


class ToySegmenter(nn.Module):
    """A tiny U-Net: class logits of every pixel, things first, then stuff."""

    def __init__(self, classes: int = 16) -> None:
        super().__init__()
        self.body = Pyramid(fine=True)
        self.classify = nn.Conv2d(24, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] to logits [B, classes, H, W]."""
        return _double(self.classify(self.body(x)))


class ToyPanoptic(nn.Module):
    """Two heads on one body: what each pixel is, and which thing it belongs to.

    As in Panoptic-DeepLab (Cheng et al. 2020, https://arxiv.org/abs/1911.10194): a heat map of the things'
    centres, and at each pixel the way to the centre of its thing. :func:`decode_panoptic` joins the two.
    """

    things = 10
    """Classes below this number are things."""

    def __init__(self, classes: int = 16) -> None:
        super().__init__()
        self.body = Pyramid(fine=True)
        self.semantic = nn.Sequential(_mixer(24, 24), nn.Conv2d(24, classes, 1))
        self.instance = nn.Sequential(_mixer(24, 32), nn.Conv2d(32, 3, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """[B, 3, H, W] to a dictionary of three maps.

        ``semantic``: logits [B, classes, H, W]; ``center``: logits [B, 1, H, W]; ``offset``: [B, 2, H, W],
        the way down and to the right, in pixels, from each pixel to the centre of its thing (meaningless on
        stuff).
        """
        features = self.body(x)
        instance = _double(self.instance(features))
        return {
            "semantic": _double(self.semantic(features)),
            "center": instance[:, :1],
            "offset": instance[:, 1:] * 16.0,
        }


def decode_panoptic(
    output: dict[str, Tensor], things: int = 10, threshold: float = 0.3, smallest: int = 20
) -> list[tuple[Tensor, list[dict[str, Any]]]]:
    """Join the heads of :class:`ToyPanoptic` into segments, one (map, table) per picture.

    The map is int64 [H, W] of segment numbers, 0 where undecided; the table has for each segment its ``id``,
    ``label`` (class index), ``isthing``, ``area`` (pixels), and for things the ``center`` (x, y) and
    ``score`` (the centre's, 0..1). Classes below ``things`` are things. A pixel of a thing class goes to the
    nearest of the peaks after its offset is added; each thing takes the class that most of its pixels have.
    """
    results: list[tuple[Tensor, list[dict[str, Any]]]] = []
    heat = output["center"].detach().sigmoid()
    peaks = heat * (F.max_pool2d(heat, 9, 1, 4) == heat)
    for k, semantic in enumerate(output["semantic"].detach().argmax(1)):
        h, w = semantic.shape
        segments = torch.zeros_like(semantic)
        table: list[dict[str, Any]] = []
        ys, xs = (peaks[k, 0] > threshold).nonzero(as_tuple=True)
        is_thing = semantic < things
        if len(ys):
            grid = torch.stack(torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")).to(heat)
            goal = (grid + output["offset"][k].detach())[:, is_thing]
            way = (goal[0, :, None] - ys) ** 2 + (goal[1, :, None] - xs) ** 2
            owner = torch.full_like(semantic, -1)
            owner[is_thing] = way.argmin(1)
            for n in range(len(ys)):
                mine = owner == n
                if int(mine.sum()) < smallest:
                    continue
                label = int(semantic[mine].bincount(minlength=things).argmax())
                segments[mine] = len(table) + 1
                table.append(
                    {
                        "id": len(table) + 1,
                        "label": label,
                        "isthing": True,
                        "area": int(mine.sum()),
                        "center": (int(xs[n]), int(ys[n])),
                        "score": float(heat[k, 0, ys[n], xs[n]]),
                    }
                )
        for label in semantic[~is_thing].unique().tolist():
            mine = semantic == label
            if int(mine.sum()) < smallest:
                continue
            segments[mine] = len(table) + 1
            table.append({"id": len(table) + 1, "label": label, "isthing": False, "area": int(mine.sum())})
        results.append((segments, table))
    return results


class ToyLandmarks(nn.Module):
    """Heat-map regression: one map of logits per landmark, at half the picture's resolution."""

    stride = 2

    def __init__(self, landmarks: int) -> None:
        super().__init__()
        self.body = Pyramid(fine=True)
        self.heat = nn.Sequential(_mixer(24, 32), nn.Conv2d(32, landmarks, 1))
        nn.init.constant_(self.heat[1].bias, -3.0)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] to logits [B, landmarks, H / 2, W / 2]; the sigmoid is near 1 at the landmark."""
        out: Tensor = self.heat(self.body(x))
        return out


def decode_landmarks(heat: Tensor) -> tuple[Tensor, Tensor]:
    """The peaks of :class:`ToyLandmarks`' maps: places [B, landmarks, 2] (x, y) in input pixels, scores in
    0..1.

    A cell covers two pixels; its middle is half a pixel beyond the first one's. A landmark that is not in
    the picture has a low score (below 0.3).
    """
    best, at = heat.detach().flatten(2).max(2)
    y, x = at // heat.shape[-1], at % heat.shape[-1]
    return torch.stack([x, y], 2) * ToyLandmarks.stride + (ToyLandmarks.stride - 1) / 2, best.sigmoid()

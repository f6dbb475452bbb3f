"""What detectors return: boxes, labels and scores a picture, whatever they are wrapped in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .outputs import member

Detections = list[dict[str, Tensor]]

#: the strides of the three grids of YOLO's candidates
_STRIDES = (8, 16, 32)
#: of a YOLO's thousands of candidates so many of the best are looked at
_BEST = 100
#: candidates that overlap a better one of their class by more than this are the same thing seen twice
_SAME = 0.7


def detections(output: Any, size: Sequence[int] | None = None) -> Detections | None:
    """A list with one dictionary of ``boxes``, ``labels``, ``scores`` (and masks, keypoints) a picture, or ``None``.

    Torchvision's detectors return just that, boxes as x0, y0, x1, y1 in input pixels. DETR's answer (``pred_logits``
    or ``logits`` of Q queries with the last class "nothing", ``pred_boxes`` as shares of the picture: centre, width,
    height) is read the same way, and so are the decoded candidates of a YOLO (:func:`decoded`); these need the input's
    ``size`` (height, width).
    """
    if isinstance(output, (list, tuple)):
        if output and all(isinstance(item, Mapping) and {"boxes", "scores"} <= set(item) for item in output):
            return [dict(item) for item in output]
        if output and isinstance(output[-1], (list, tuple)):  # (losses, detections), as scripted detectors return
            found = detections(output[-1], size)
            if found is not None:
                return found
        return None if size is None else decoded(output, size)
    if isinstance(output, Tensor):
        return None if size is None else decoded(output, size)
    for key in ("instances", "detections"):
        inner = member(output, key)
        if isinstance(inner, (list, tuple)) and (found := detections(inner, size)) is not None:
            return found
    boxes, logits = member(output, "pred_boxes"), member(output, "pred_logits")
    logits = member(output, "logits") if logits is None else logits
    if isinstance(boxes, Tensor) and isinstance(logits, Tensor) and boxes.ndim == 3 and size is not None:
        return [_queries(one, box, size) for one, box in zip(logits, boxes, strict=True)]
    return None


def _queries(logits: Tensor, boxes: Tensor, size: Sequence[int]) -> dict[str, Tensor]:
    shares = logits.softmax(-1)[:, :-1]
    scores, labels = shares.max(-1)
    centre, extent = boxes[:, :2], boxes[:, 2:]
    corners = torch.cat([centre - extent / 2, centre + extent / 2], 1)
    return {"boxes": corners * corners.new_tensor([size[1], size[0]] * 2), "labels": labels, "scores": scores}


def decoded(output: Any, size: Sequence[int]) -> Detections | None:
    """The candidates of a one-stage detector (YOLO) as detections, or ``None``.

    Read are ultralytics' answers in evaluation mode, ``[B, 4 + K, N]`` (centre, width and height in input pixels, then
    K class probabilities; coefficients of masks or keypoints may follow), and those of YOLOv5, v7 and YOLOX,
    ``[B, N, 5 + K]`` with the probability that there is a thing at all. N is that of three grids of strides 8, 16 and
    32. Of each thing the best candidate is kept.
    """
    rows = output
    while isinstance(rows, (list, tuple)) and rows:
        rows = rows[0]
    if not isinstance(rows, Tensor) or rows.ndim != 3 or not rows.is_floating_point():
        return None
    cells = sum(math.ceil(size[0] / stride) * math.ceil(size[1] / stride) for stride in _STRIDES)
    if rows.shape[2] == cells and rows.shape[1] > 4:
        rows = rows.transpose(1, 2)
        chances = rows[..., 4 : 4 + _classes(output, rows)]
    elif rows.shape[1] in (cells, 3 * cells) and rows.shape[2] > 5:
        chances = rows[..., 5:] * rows[..., 4:5]
    else:
        return None
    known = chances.detach()
    if known.shape[-1] == 0 or float(known.min()) < 0 or float(known.max()) > 1:
        return None
    return [_distinct(boxes, one) for boxes, one in zip(rows[..., :4], chances, strict=True)]


def _classes(output: Any, rows: Tensor) -> int:
    """How many of a candidate's numbers are classes: as the raw scores beside it say, else all that are in 0..1."""
    beside = output[1] if isinstance(output, (list, tuple)) and len(output) > 1 else None
    for held in (beside, member(beside, "one2one"), member(beside, "one2many")):
        raw = member(held, "scores")
        if isinstance(raw, Tensor) and raw.ndim == 3:
            return int(raw.shape[1])
    values = rows.detach()[..., 4:]
    inside = ((values >= 0) & (values <= 1)).all(0).all(0)
    return int(inside.long().cumprod(0).sum())


def _distinct(boxes: Tensor, chances: Tensor) -> dict[str, Tensor]:
    """Of one picture's candidates the best ones, without those that are the same thing seen again."""
    scores, labels = chances.max(-1)
    best = scores.detach().argsort(descending=True, stable=True)[:_BEST]
    centre, extent = boxes[best, :2], boxes[best, 2:]
    corners = torch.cat([centre - extent / 2, centre + extent / 2], 1)
    same = (_overlaps(corners.detach()) > _SAME) & (labels[best][:, None] == labels[best][None])
    kept: list[int] = []
    for number, row in enumerate(same.cpu().numpy()):
        if not row[kept].any():
            kept.append(number)
    return {"boxes": corners[kept], "labels": labels[best][kept], "scores": scores[best][kept]}


def _overlaps(boxes: Tensor) -> Tensor:
    """Intersection over union of every two boxes ``[N, 4]``."""
    low = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    inside = (high - low).clamp(min=0).prod(-1)
    areas = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(-1)
    return inside / (areas[:, None] + areas[None] - inside).clamp(min=1e-9)

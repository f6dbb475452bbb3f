"""What networks return, whatever it is wrapped in: tensors by path, detections, dense maps, the principal tensor.

Networks return tensors, tuples, dictionaries, dataclasses, named tuples and lists of variable length. Everything here
looks at such a value without changing it and keeps the graph of its tensors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import TargetError

#: the keys under which networks keep what every pixel is
_DENSE = ("semantic", "sem_seg", "out", "logits", "masks_logits", "heatmaps", "heatmap", "output", "pred")

Detections = list[dict[str, Tensor]]


def members(value: Any) -> list[tuple[str, Any]]:
    """The named members of a dictionary, dataclass, named tuple or sequence (numbers as names); none of a tensor."""
    if isinstance(value, Tensor):
        return []
    if isinstance(value, Mapping):
        return [(str(key), item) for key, item in value.items()]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    if isinstance(value, (list, tuple)):
        return [(str(index), item) for index, item in enumerate(value)]
    return []


def tensors(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor inside, with its path: ``heads.0``, ``boxes``."""
    if isinstance(value, Tensor):
        yield path, value
        return
    for name, item in members(value):
        yield from tensors(item, f"{path}.{name}" if path else name)


def member(value: Any, name: str) -> Any:
    """One member by name or number; ``None`` where there is none."""
    return dict(members(value)).get(name)


def detections(output: Any, size: Sequence[int] | None = None) -> Detections | None:
    """A list with one dictionary of ``boxes``, ``labels``, ``scores`` (and masks, keypoints) a picture, or ``None``.

    Torchvision's detectors return just that, boxes as x0, y0, x1, y1 in input pixels. DETR's answer (``pred_logits``
    or ``logits`` of Q queries with the last class "nothing", ``pred_boxes`` as shares of the picture: centre, width,
    height) is read the same way; that needs the input's ``size`` (height, width).
    """
    if isinstance(output, (list, tuple)):
        if output and all(isinstance(item, Mapping) and {"boxes", "scores"} <= set(item) for item in output):
            return [dict(item) for item in output]
        if output and isinstance(output[-1], (list, tuple)):  # (losses, detections), as scripted detectors return
            return detections(output[-1], size)
        return None
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


def dense(output: Any) -> Tensor | None:
    """Maps ``[B, K, h, w]`` with more than one cell: what a segmenter or a heat-map regressor returns, or ``None``."""
    if isinstance(output, Tensor):
        if (
            output.ndim == 3
            and output.shape[-1] > 1
            and output.shape[-2] > 2
            and output.shape[-1] == output.shape[-2]
        ):
            output = output[:, None]
        return output if output.ndim == 4 and output.shape[2] * output.shape[3] > 1 else None
    found = dict(members(output))
    for key in (*(k for k in _DENSE if k in found), *(k for k in found if k not in _DENSE)):
        if isinstance(found[key], (Tensor, Mapping)) and (inner := dense(found[key])) is not None:
            return inner
    return None


def pick(output: Any, path: str) -> tuple[Tensor, list[int]]:
    """The tensor at ``path`` (``heads.age.0``) and the numbers that are left over once a tensor is reached.

    Raises :class:`TargetError` that lists what there is.
    """
    value = output
    steps = [step for step in path.split(".") if step]
    for number, step in enumerate(steps):
        if isinstance(value, Tensor):
            rest = steps[number:]
            if not all(one.isdigit() for one in rest):
                raise TargetError(f"output:{path}: {'.'.join(steps[:number])} is a tensor; only numbers can follow.")
            return value, [int(one) for one in rest]
        inner = dict(members(value))
        if step not in inner:
            known = ", ".join(name for name, _ in tensors(output)) or "no tensor at all"
            raise TargetError(f"The network's output has no {path!r}: it holds {known}.")
        value = inner[step]
    if isinstance(value, Tensor):
        return value, []
    inside = [tensor for _, tensor in tensors(value)]
    if len(inside) == 1:
        return inside[0], []
    known = ", ".join(name for name, _ in tensors(output)) or "no tensor at all"
    raise TargetError(f"output:{path} is not one tensor: the output holds {known}.")


def anchor(item: Any) -> Tensor:
    """Zero, joined to the graph of whatever tensors are inside: a score for what is not there any more."""
    found = [tensor for _, tensor in tensors(item) if tensor.is_floating_point()]
    live = [tensor for tensor in found if tensor.requires_grad] or found
    return live[0].sum() * 0 if live else torch.zeros(())

"""Points and regions: from the photo to the input to a map of the output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import NotInPicture, TargetError
from ..pictures.picture import ModelInput

Point = tuple[float, float]


def input_point(picture: ModelInput, point: Point) -> Point:
    """(x, y) in the photo's pixels to (x, y) in the network's input, the first pixel's centre at (0, 0) on both.

    Raises :class:`TargetError` where the point lies outside the photo or was cropped away.
    """
    height, width = picture.picture.size
    name, (x, y) = picture.picture.name, point
    if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
        raise NotInPicture(f"The point {x:g},{y:g} lies outside {name}, which is {width}×{height} pixels (x,y).")
    matrix = np.vstack([picture.input_to_photo, [0, 0, 1]])
    inside = np.linalg.inv(matrix) @ np.array([x, y, 1.0])
    rows, cols = picture.tensor.shape[-2:]
    if not (-0.5 <= inside[0] <= cols - 0.5 and -0.5 <= inside[1] <= rows - 0.5):
        raise NotInPicture(f"The point {x:g},{y:g} of {name} was cropped away before the network saw it.")
    return float(inside[0]), float(inside[1])


def at_point(point: Point | None) -> str:
    """A point as a key spells it."""
    return "" if point is None else f" at {point[0]!r},{point[1]!r}"


def cell(point: Point, size: Sequence[int], grid: Sequence[int]) -> tuple[int, int]:
    """(row, column) of the cell of a ``grid`` (h, w) over an input of ``size`` (H, W) that holds an input point."""
    x = (point[0] + 0.5) * grid[1] / size[1] - 0.5
    y = (point[1] + 0.5) * grid[0] / size[0] - 0.5
    return min(max(round(y), 0), grid[0] - 1), min(max(round(x), 0), grid[1] - 1)


def connected(mask: Tensor, start: tuple[int, int]) -> Tensor:
    """The part of a bool mask ``[h, w]`` that hangs together with ``start``, over sides and corners."""
    reached = torch.zeros_like(mask, dtype=torch.float32)
    if not bool(mask[start]):
        return reached.bool()
    reached[start] = 1
    allowed = mask.float()
    while True:
        grown = F.max_pool2d(reached[None, None], 3, 1, 1)[0, 0] * allowed
        if torch.equal(grown, reached):
            return reached.bool()
        reached = grown


def photo_mask(picture: ModelInput, mask: Any, grid: Sequence[int]) -> Tensor:
    """A mask bool ``[H, W]`` over the photo, as bool ``[h, w]`` over a map of the output (nearest cell centres).

    Raises :class:`TargetError` where it has another size than the photo.
    """
    mask = np.asarray(mask, dtype=bool)
    if mask.shape != picture.picture.size:
        raise TargetError(f"The mask is {mask.shape}, the photo {picture.picture.size}: both must be rows × columns.")
    height, width = picture.tensor.shape[-2:]
    y, x = np.meshgrid(
        (np.arange(grid[0]) + 0.5) * height / grid[0] - 0.5, (np.arange(grid[1]) + 0.5) * width / grid[1] - 0.5,
        indexing="ij",
    )  # fmt: skip
    matrix = picture.input_to_photo
    px = np.rint(matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]).astype(int)
    py = np.rint(matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]).astype(int)
    inside = (px >= 0) & (py >= 0) & (px < mask.shape[1]) & (py < mask.shape[0])
    found = np.zeros(tuple(grid), dtype=bool)
    found[inside] = mask[py[inside], px[inside]]
    return torch.from_numpy(found)


def overlap(boxes: Tensor, box: Tensor) -> Tensor:
    """Intersection over union of boxes ``[N, 4]`` (x0, y0, x1, y1) with one box ``[4]``."""
    low = torch.maximum(boxes[:, :2], box[:2])
    high = torch.minimum(boxes[:, 2:], box[2:])
    inner = (high - low).clamp(min=0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (box[2:] - box[:2]).prod()
    share = inner / (areas - inner).clamp(min=1e-9)
    # a box without any area is still itself
    return torch.where((boxes == box).all(1), torch.ones_like(share), share)

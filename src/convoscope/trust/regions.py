"""Where the object is in a photo: boxes, polygons, run lengths or a mask, and the same place in a network's input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..pictures.picture import ModelInput

Mask = NDArray[np.bool_]
Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Region:
    """The union of ``boxes`` (x0, y0, x1, y1 in the photo's pixels: pixel *i* spans *i* to *i* + 1) and ``masks``.

    ``masks`` are boolean ``H×W`` at the photo's size.
    """

    boxes: tuple[Box, ...] = ()
    masks: tuple[Mask, ...] = ()

    def on_photo(self, size: tuple[int, int]) -> Mask:
        """The region as a mask ``[H, W]`` of a photo of ``size`` (height, width)."""
        rows, cols = np.arange(size[0], dtype=float), np.arange(size[1], dtype=float)
        found = self._in_boxes(rows[:, None], cols[None, :], size)
        for mask in self.masks:
            if mask.shape != tuple(size):
                raise UsageError(f"A mask of {mask.shape} does not fit a photo of {tuple(size)}.")
            found = found | mask
        return found

    def on_input(self, fitted: ModelInput) -> Mask:
        """The region as a mask ``[H, W]`` of the network's input: each input pixel looks where its centre lies."""
        height, width = (int(n) for n in fitted.tensor.shape[-2:])
        matrix = fitted.input_to_photo
        x = (matrix[0, 0] * np.arange(width) + matrix[0, 2])[None, :].repeat(height, 0)
        y = (matrix[1, 1] * np.arange(height) + matrix[1, 2])[:, None].repeat(width, 1)
        photo = fitted.picture.size
        found = self._in_boxes(y, x, (height, width))
        row, col = np.rint(y).astype(int), np.rint(x).astype(int)
        inside = (row >= 0) & (row < photo[0]) & (col >= 0) & (col < photo[1])
        for mask in self.masks:
            if mask.shape != photo:
                raise UsageError(f"A mask of {mask.shape} does not fit {fitted.picture.name} of {photo}.")
            found[inside] |= mask[row[inside], col[inside]]
        return found

    def _in_boxes(self, y: NDArray[Any], x: NDArray[Any], size: tuple[int, int]) -> Mask:
        found = np.zeros(size, bool)
        for x0, y0, x1, y1 in self.boxes:
            # a pixel belongs to a box when its centre does
            found |= (x + 0.5 >= x0) & (x + 0.5 < x1) & (y + 0.5 >= y0) & (y + 0.5 < y1)
        return found


def polygons(parts: Sequence[Sequence[float]], size: tuple[int, int]) -> Mask:
    """COCO polygons (x, y, x, y, ... with pixel *i* spanning *i* to *i* + 1) as a mask ``[H, W]``.

    A pixel is inside when its centre is (by the even-odd rule); several polygons are their union.
    """
    found = np.zeros(size, bool)
    for part in parts:
        if len(part) < 6 or len(part) % 2:
            raise UsageError(f"A polygon needs at least three points of x and y, not {len(part)} numbers.")
        found |= _polygon(np.asarray(part, np.float64).reshape(-1, 2), size)
    return found


def _polygon(points: NDArray[np.float64], size: tuple[int, int]) -> Mask:
    height, width = size
    flips = np.zeros((height, width + 1), np.int64)
    centres = np.arange(height) + 0.5
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, 0), strict=True):
        rows = np.flatnonzero((y0 <= centres) != (y1 <= centres))
        if len(rows):
            x = x0 + (centres[rows] - y0) * (x1 - x0) / (y1 - y0)
            # from this side on every pixel changes between outside and inside
            flips[rows, np.clip(np.ceil(x - 0.5), 0, width).astype(int)] += 1
    return np.asarray(np.cumsum(flips[:, :width], 1) % 2 == 1, bool)


def run_lengths(counts: str | Sequence[int], size: tuple[int, int]) -> Mask:
    """COCO's run lengths, plain or in their compressed text, as a mask ``[H, W]``.

    The runs alternate, beginning with background, down the columns. Raises :class:`UsageError` where they do not
    fill the picture.
    """
    runs = _decompress(counts) if isinstance(counts, (str, bytes)) else [int(n) for n in counts]
    if any(n < 0 for n in runs) or sum(runs) != size[0] * size[1]:
        raise UsageError(f"Run lengths over {sum(runs)} pixels do not fill a picture of {size[0]}×{size[1]}.")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(size[1], size[0]).T.copy()


def _decompress(text: str | bytes) -> list[int]:
    """Six-bit characters, five bits of number each, low first; from the third on, differences to the last but one."""
    data = text.encode("ascii") if isinstance(text, str) else text
    runs: list[int] = []
    value = shift = 0
    for byte in data:
        bits = byte - 48
        if not 0 <= bits < 64:
            raise UsageError("The run lengths hold a character that does not belong there.")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift  # the sign is the highest bit of the last character
        if len(runs) > 2:
            value += runs[-2]
        runs.append(value)
        value = shift = 0
    if shift:
        raise UsageError("The run lengths end in the middle of a number.")
    return runs

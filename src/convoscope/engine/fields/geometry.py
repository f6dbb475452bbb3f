"""Where the cells of a layer look: the geometry of a grid of cells on the network's input.

Coordinates are pixel indices of the network's input: the centre of the first pixel is 0.0, that of the last
one ``input - 1``. A cell has a *place* (its centre, from which stride and offset follow) and an *extent*
(the pixels that can change it). The two are kept apart: behind a squeeze-and-excitation gate every pixel
can change every cell, but each cell still has its place. So an axis carries the local field (unclipped,
gates and norm statistics left out), which gives the place, and the strict reach (clipped, over every path),
which gives the extent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


ROUNDING = 1e-5
"""Pixels to which a centre is exact where it is no whole or half one."""


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis of a grid, rows or columns. All arrays have one entry per cell; bounds are inclusive."""

    input: int
    """Length of the network's input along this axis, in pixels."""
    length: int
    """Number of cells."""
    size: int | None
    """Extent of an interior cell's local field in pixels; None where other pixels change the cell too."""
    stride: float | None
    """Pixels from one centre to the next; None where that is not the same everywhere."""
    offset: float | None
    """Centre of the first cell in pixels; None where ``stride`` is None."""
    centres: Floats
    """Where the cells' weight lies, in pixels: the middle of an even field, behind an interpolation by its weights."""
    low: Ints
    """First pixel of each cell's local field; may lie outside the picture, where the network pads."""
    high: Ints
    """Last pixel of each cell's local field."""
    reach_low: Ints
    """First pixel of the picture that can change the cell, over every path through the network."""
    reach_high: Ints
    """Last pixel of the picture that can change the cell; less than ``reach_low`` where none can."""

    @classmethod
    def from_fields(
        cls,
        input: int,
        low: Ints,
        high: Ints,
        reach_low: Ints,
        reach_high: Ints,
        *,
        centres: Floats | None = None,
        local: bool = True,
    ) -> Axis:
        """An axis from the fields of its cells; size, stride and offset are what these have in common.

        ``centres`` are the cells' centres of weight, the middles of their fields if None. ``local`` says that no path
        leads to the cells but those of the local field.
        """
        middles = (low + high) / 2.0
        if centres is None:
            centres = middles
        else:  # what was summed is exact up to its last digits; whole and half pixels are exact
            halves = np.round(2 * centres) / 2
            centres = np.where(np.abs(centres - halves) < ROUNDING, halves, np.round(centres, 6))
        steps = np.diff(centres)
        if len(steps) == 0:
            stride: float | None = float(input)  # one cell has the picture to itself
        elif np.all(np.abs(steps - steps[0]) < 2 * ROUNDING):
            stride = float(np.round((centres[-1] - centres[0]) / len(steps), 6))
        else:
            stride = None
        wider = (reach_low < np.clip(low, 0, input - 1)) | (reach_high > np.clip(high, 0, input - 1))
        local = local and not np.any(wider & (reach_low <= reach_high))
        return cls(
            input=input,
            length=len(low),
            size=int((high - low).max()) + 1 if local else None,
            stride=stride,
            offset=float(centres[0]) if stride is not None else None,
            centres=centres,
            low=low,
            high=high,
            reach_low=reach_low,
            reach_high=reach_high,
        )

    @classmethod
    def whole(cls, input: int) -> Axis:
        """One cell that looks at everything: the axis that was pooled away while the other one was kept."""
        zero, last = np.zeros(1, np.int64), np.full(1, input - 1, np.int64)
        middle = (input - 1) / 2.0
        return cls(input, 1, None, float(input), middle, np.array([middle]), zero, last, zero, last)

    def span(self, cell: int, *, clip: bool) -> tuple[int, int]:
        """The local field of one cell, half-open; with ``clip`` the part of it that is in the picture."""
        low, high = int(self.low[cell]), int(self.high[cell]) + 1
        if not clip:
            return low, high
        if self.size is not None:  # a border that strides or ceil mode leave out is not read, though inside
            return int(self.reach_low[cell]), int(self.reach_high[cell]) + 1
        return min(max(low, 0), self.input), min(max(high, 0), self.input)

    def weights(self, length: int) -> Floats:
        """Linear interpolation at the true centres as a matrix [length, cells]; constant beyond the ends.

        ``length`` output pixels cover the whole input axis, so it may differ from ``input``. Cells that
        share a centre share its weight.
        """
        places, which = np.unique(self.centres, return_inverse=True)
        share = np.zeros((len(places), self.length))
        share[which, np.arange(self.length)] = 1.0
        share /= share.sum(1, keepdims=True)
        pixels = (np.arange(length) + 0.5) * self.input / length - 0.5
        at = np.clip(np.interp(pixels, places, np.arange(len(places), dtype=np.float64)), 0, len(places) - 1)
        left = np.floor(at).astype(np.int64)
        right = np.minimum(left + 1, len(places) - 1)
        blend = np.zeros((length, len(places)))
        np.add.at(blend, (np.arange(length), left), 1.0 - (at - left))
        np.add.at(blend, (np.arange(length), right), at - left)
        return blend @ share


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where the cells of one layer look, along the rows and along the columns of the network's input."""

    rows: Axis
    cols: Axis

    @property
    def regular(self) -> bool:
        """Whether the centres are evenly spaced on both axes."""
        return self.rows.stride is not None and self.cols.stride is not None

    @property
    def input(self) -> tuple[int, int]:
        """Height and width of the network's input in pixels."""
        return self.rows.input, self.cols.input

    @property
    def cells(self) -> tuple[int, int]:
        """Height and width of the grid in cells."""
        return self.rows.length, self.cols.length

    def box(self, row: int, col: int, *, clip: bool = True) -> tuple[int, int, int, int]:
        """The local receptive field of one cell as ``(x0, y0, x1, y1)``, half-open, in input pixels.

        With ``clip`` it holds the pixels of the picture that are read indeed; it is empty (``x0 == x1``) for
        a cell that sees padding alone. Without, it may reach outside, and has the same size for every cell
        of a regular layer.
        """
        x0, x1 = self.cols.span(col, clip=clip)
        y0, y1 = self.rows.span(row, clip=clip)
        return x0, y0, x1, y1

    def centre(self, row: int, col: int) -> tuple[float, float]:
        """The centre of one cell as ``(x, y)`` in input pixels, where 0.0 is the first pixel's centre."""
        return float(self.cols.centres[col]), float(self.rows.centres[row])

    def to_dict(self) -> dict[str, list[float | None] | list[int | None] | None]:
        """Size, stride and offset of the first centre, each ``[rows, cols]`` in pixels.

        ``size`` is None where the field is not local; a stride and an offset are None on an irregular axis.
        """
        size = [self.rows.size, self.cols.size]
        return {
            "size": None if None in size else size,
            "stride": [self.rows.stride, self.cols.stride],
            "offset": [self.rows.offset, self.cols.offset],
        }

    def resample(self, grid: Tensor, size: tuple[int, int]) -> Tensor:
        """Interpolate a grid ``[..., h, w]`` at its cells' true centres to pixels ``[..., H, W]``, float32.

        Bilinear between centres and constant beyond the first and the last; ``size`` is (H, W) in pixels that
        cover the network's whole input, usually the input's own size.

        Raises:
            ValueError: if the grid's last two dimensions are not this layer's cells.
        """
        if tuple(grid.shape[-2:]) != self.cells:
            raise ValueError(f"a grid of {tuple(grid.shape[-2:])} cells does not fit a layer of {self.cells}")
        rows = torch.as_tensor(self.rows.weights(size[0]), dtype=torch.float32, device=grid.device)
        cols = torch.as_tensor(self.cols.weights(size[1]), dtype=torch.float32, device=grid.device)
        return rows @ grid.float() @ cols.T

    @staticmethod
    def plain(grid: Tensor, size: tuple[int, int]) -> Tensor:
        """The usual resize, which takes each cell for an equal share of the picture: ``[..., h, w]`` to
        float32.

        Used where a published score depends on it, and where a layer's geometry is not known.
        """
        flat = grid.float().reshape(-1, 1, *grid.shape[-2:])
        resized = F.interpolate(flat, size=size, mode="bilinear", align_corners=False)
        return resized.reshape(*grid.shape[:-2], *size)

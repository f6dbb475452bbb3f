"""Which cells a window changes, and the tiles that hold them.

For many windows at once: :class:`Axis` is the interval of changed cells along one axis and the (equally
long) interval that the tile holds; :class:`Region` is both axes of one value of the graph. A tile may be
larger than what changed: its surplus cells simply equal the undisturbed ones, so shifting a tile that hangs
over the edge back inside keeps everything exact.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from convoscope.engine.recompute.incremental.layers import Pads, Window

Ints = np.ndarray


@dataclass(frozen=True, eq=False)
class Axis:
    """Along one axis, for each window: changed cells are ``low <= i < high``; the tile starts at ``origin``."""

    size: int
    low: Ints
    high: Ints
    origin: Ints
    length: int

    @classmethod
    def cover(cls, size: int, low: Ints, high: Ints, share: float = 1.0) -> Axis:
        """Equal tiles that hold the intervals, cut about their middles to ``share`` of the axis."""
        most = max(1, math.ceil(share * size))
        if most < size:
            surplus = np.maximum(high - low - most, 0)
            low = low + surplus // 2
            high = high - (surplus - surplus // 2)
        length = int((high - low).max())
        return cls(size, low, high, np.clip(low, 0, size - length), length)

    def through(self, window: Window, axis: int, out: int, share: float = 1.0) -> Axis:
        """The cells of a sliding window's output that read a changed cell."""
        stride, reach, before = window.stride[axis], window.reach[axis], window.pads[axis]
        low = np.maximum(-((reach - 1 - before - self.low) // stride), 0)
        high = np.minimum((self.high - 1 + before) // stride + 1, out)
        # With a stride beyond the kernel an interval may fall between the windows: keep one harmless cell.
        low = np.minimum(low, out - 1)
        high = np.maximum(high, low + 1)
        return Axis.cover(out, low, high, share)

    def needs(self, window: Window, axis: int) -> tuple[Ints, int]:
        """First input cell (may be negative: padding) and number of input cells that this tile needs."""
        stride, reach, before = window.stride[axis], window.reach[axis], window.pads[axis]
        return self.origin * stride - before, (self.length - 1) * stride + reach

    @property
    def whole(self) -> bool:
        """Whether the tile holds the whole axis."""
        return self.length == self.size

    def same(self, other: Axis) -> bool:
        """Whether both tiles hold the same cells for every window."""
        return self.length == other.length and bool((self.origin == other.origin).all())

    def moved(self, size: int, by: int) -> Axis:
        """The same cells on an axis that has ``by`` more cells in front and ``size`` in all."""
        return Axis(size, self.low + by, self.high + by, self.origin + by, self.length)


def union(axes: Sequence[Axis], share: float = 1.0) -> Axis:
    """Equal tiles that hold what changed in any of several values."""
    first = axes[0]
    if all(first.same(axis) for axis in axes[1:]):
        low = np.minimum.reduce([axis.low for axis in axes])
        high = np.maximum.reduce([axis.high for axis in axes])
        return Axis(first.size, low, high, first.origin, first.length)
    low = np.minimum.reduce([axis.low for axis in axes])
    high = np.maximum.reduce([axis.high for axis in axes])
    return Axis.cover(first.size, low, high, share)


@dataclass(frozen=True, eq=False)
class Region:
    """The tiles of one value of the graph. ``dims``: which dimensions of it are rows and columns."""

    y: Axis
    x: Axis
    dims: tuple[int, int]
    shape: tuple[int, ...]

    @property
    def share(self) -> float:
        """Share of the map that a tile holds."""
        return self.y.length * self.x.length / (self.y.size * self.x.size)

    @property
    def changed(self) -> float:
        """Share of the map that really changes, on the mean over the windows."""
        sizes = (self.y.high - self.y.low) * (self.x.high - self.x.low)
        return float(sizes.mean()) / (self.y.size * self.x.size)

    @property
    def whole(self) -> bool:
        """Whether the tiles are the whole map."""
        return self.y.whole and self.x.whole

    def same(self, other: Region) -> bool:
        """Whether both hold the same cells in the same layout."""
        return self.dims == other.dims and self.y.same(other.y) and self.x.same(other.x)

    def with_shape(self, shape: tuple[int, ...], dims: tuple[int, int] | None = None) -> Region:
        """The same cells of a value with other channels (or another layout)."""
        return Region(self.y, self.x, self.dims if dims is None else dims, shape)

    @property
    def tile_shape(self) -> tuple[int, ...]:
        """Shape of one window's tile, without the batch dimension."""
        shape = list(self.shape)
        shape[self.dims[0]], shape[self.dims[1]] = self.y.length, self.x.length
        return tuple(shape[1:])

    @property
    def cells(self) -> int:
        """Number of values in one window's tile."""
        return int(np.prod(self.tile_shape))


@dataclass(frozen=True)
class Key:
    """One stored form of an undisturbed value: padded, cells by channels."""

    node: str
    dims: tuple[int, int]
    pads: Pads = (0, 0, 0, 0)
    value: float = 0.0


@dataclass(frozen=True)
class Base:
    """An undisturbed value as ``cells`` [rows * columns, channels] (padding included)."""

    cells: Tensor
    rows: int
    columns: int
    rest: tuple[int, ...]

    @classmethod
    def store(cls, value: Tensor, key: Key) -> Base:
        """From the value [1, ...] with the spatial dimensions ``key.dims``."""
        moved = value.movedim(key.dims, (1, 2))[0]
        rows, columns, *rest = moved.shape
        flat = moved.reshape(rows, columns, -1)
        top, left, bottom, right = key.pads
        if key.pads != (0, 0, 0, 0):
            padded = flat.new_full((rows + top + bottom, columns + left + right, flat.shape[2]), key.value)
            padded[top : top + rows, left : left + columns] = flat
            flat = padded
        high, wide = flat.shape[:2]
        return cls(flat.contiguous().view(high * wide, -1), high, wide, tuple(rest))

    @property
    def bytes(self) -> int:
        """Memory that it holds."""
        return self.cells.numel() * self.cells.element_size()


def as_rows(tile: Tensor, dims: tuple[int, int]) -> Tensor:
    """[N, rows, columns, channels] of a value with the spatial dimensions ``dims``."""
    moved = tile.movedim(dims, (1, 2))
    return moved if moved.dim() == 4 else moved.reshape(*moved.shape[:3], -1)


class Gather:
    """Tiles of an undisturbed value with a smaller changed tile pasted in, for a batch of windows.

    ``y``, ``x``: first cell (before padding, may be negative) for each window and number of cells.
    """

    def __init__(
        self, key: Key, size: tuple[int, int], y: tuple[Ints, int], x: tuple[Ints, int],
        source: Region | None, dry: bool = False,
    ) -> None:  # fmt: skip
        self.key = key
        self.source = source
        self.runs: list[tuple[int, ...]] = []
        self.covered = False
        (self.top, self.high), (self.left, self.wide) = y, x
        if dry:
            return
        columns = size[1] + key.pads[1] + key.pads[3]
        rows = (self.top + key.pads[0])[:, None] + np.arange(self.high)
        starts = rows * columns + (self.left + key.pads[1])[:, None]
        self.rows = torch.from_numpy(np.ascontiguousarray(starts.reshape(-1)))
        if source is not None:
            self.runs = self._find_runs(source)
        #: Nothing of the undisturbed value shows: the pasted tile covers all of it.
        self.covered = (
            source is not None
            and source.y.length == self.high and source.x.length == self.wide
            and bool((source.y.origin == self.top).all()) and bool((source.x.origin == self.left).all())
        )  # fmt: skip

    def _find_runs(self, source: Region) -> list[tuple[int, ...]]:
        """Consecutive windows whose tiles go to the same place: one copy for each run."""
        columns = []
        for axis, first, length in ((source.y, self.top, self.high), (source.x, self.left, self.wide)):
            place = axis.origin - first
            start, stop = np.maximum(place, 0), np.minimum(place + axis.length, length)
            columns += [start, np.maximum(stop, start), start - place]
        table = np.stack(columns, 1)
        breaks = np.flatnonzero((table[1:] != table[:-1]).any(1)) + 1
        edges = [0, *breaks.tolist(), len(table)]
        return [(a, b, *table[a].tolist()) for a, b in itertools.pairwise(edges)]

    def __call__(self, base: Base, tile: Tensor | None, batch: slice) -> Tensor:
        """[n, rows, columns, channels] for the windows ``batch``; ``tile``: their changed tiles."""
        count = batch.stop - batch.start
        channels = base.cells.shape[1]
        starts = self.rows[batch.start * self.high : batch.stop * self.high]
        # A row of a tile is one contiguous piece of the base: gather whole rows, not cells.
        pieces = base.cells.as_strided((base.cells.shape[0] - self.wide + 1, self.wide * channels), (channels, 1))
        out = pieces.index_select(0, starts).view(count, self.high, self.wide, channels)
        if tile is not None and self.source is not None:
            self.paste(out, as_rows(tile, self.source.dims), batch)
        return out

    def paste(self, out: Tensor, tile: Tensor, batch: slice) -> None:
        """Write the changed tiles [n, rows, columns, channels] where they belong in ``out``."""
        for a, b, y0, y1, sy, x0, x1, sx in self.runs:
            first, last = max(a, batch.start), min(b, batch.stop)
            if first < last and y0 < y1 and x0 < x1:
                here = slice(first - batch.start, last - batch.start)
                out[here, y0:y1, x0:x1] = tile[here, sy : sy + y1 - y0, sx : sx + x1 - x0]

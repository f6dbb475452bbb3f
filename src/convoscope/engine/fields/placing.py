"""From the probes of one output to the geometry of its grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from convoscope.engine.fields.aliasing import Track
from convoscope.engine.fields.geometry import Axis, Floats, Geometry, Ints
from convoscope.engine.fields.probes import PARTS, Probe, apart, merged

Placed = tuple[Geometry | None, bool, str | None]
"""A geometry, whether the channels are last, and why there is no geometry."""


def _spatial_dim(probe: Probe) -> int | None:
    """The dimension along which the centres lie apart; None if there is none, -1 if there are several."""
    # the median, because at the border some channels may wrap around
    spread = [float(apart(probe[2:4], [dim]).median()) if probe.shape[dim + 1] > 1 else 0.0 for dim in range(4)]
    most = max(spread)
    if most == 0:
        return None
    near = [dim for dim in range(4) if 2 * spread[dim] > most]  # channels may differ a little in place
    return near[0] if len(near) == 1 else -1


def _layout(track: Track) -> tuple[int, int] | None:
    """The dimensions of rows and columns: (2, 3), or (1, 2) with channels last; None if it is no grid."""
    rows, cols = _spatial_dim(track.rows), _spatial_dim(track.cols)
    for layout in ((2, 3), (1, 2)):
        if rows in (layout[0], None) and cols in (layout[1], None):
            return layout
    return None


def _hull(probe: Probe, dim: int, length: int) -> Tensor:
    """The probe as ``[6, length]``: the hull over all dimensions but ``dim``."""
    over = [d for d in range(1, probe.dim()) if d != dim + 1]
    return merged(probe, over).expand(PARTS, length)


def _axis(probe: Tensor, input: int) -> Axis | str:
    """An axis from ``[6, cells]``, or why there is none."""
    length, local = probe.shape[1], not bool((probe[4] < 0).any())
    if not bool(torch.isfinite(probe[2:4]).any()):
        return Axis.whole(input) if length == 1 else "its cells have no place in the picture"
    if not bool(torch.isfinite(probe[2:4]).all()):
        return "some of its cells have no place in the picture"
    reach_low, reach_high = probe[0].clone(), -probe[1]
    unreached = ~torch.isfinite(reach_low)
    reach_low[unreached], reach_high[unreached] = 0, -1
    fields = (probe[2], -probe[3], reach_low, reach_high)
    low, high, *reach = (field.numpy().astype(np.int64) for field in fields)
    centres: Floats | None = probe[5].numpy()
    if not _ordered(low + high):
        low, high = _unwrapped(low, high)
        local, centres = False, None
        if not _ordered(low + high):
            return "its cells are not in the picture's order"
    if centres is not None and not (np.all(np.isfinite(centres)) and _ordered(centres)):
        centres = None  # mixed from both ends of the picture, as behind circular padding
    if length > 1 and not np.any(np.diff(low + high)):
        return "all its cells look at the same place"
    return Axis.from_fields(input, low, high, *reach, centres=centres, local=local)


def _ordered(values: Ints | Floats) -> bool:
    steps = np.diff(values)
    return not (np.any(steps > 1e-6) and np.any(steps < -1e-6))


def _usual(values: Ints) -> int:
    """The value that occurs most often."""
    kinds, counts = np.unique(values, return_counts=True)
    return int(kinds[counts.argmax()])


def _unwrapped(low: Ints, high: Ints) -> tuple[Ints, Ints]:
    """The fields without what wraps around the border, as with circular padding or rolled windows.

    A field that holds both ends of the picture is as wide as the picture, and its middle is no place. If most
    cells are regular and all others are wider, the others are put where the regular ones say.
    """
    cells = np.arange(len(low))
    straight = []
    for bound in (low, high):
        step = _usual(np.diff(bound))
        straight.append(_usual(bound - step * cells) + step * cells)
    regular = (low == straight[0]) & (high == straight[1])
    wider = (high - low) > (straight[1] - straight[0])
    if 2 * regular.sum() < len(cells) or not np.all(regular | wider):
        return low, high
    return straight[0], straight[1]


def place(track: Track, shape: Sequence[int], size: tuple[int, int], unknown: Sequence[str]) -> Placed:
    """The geometry of an output of this ``shape``; whether its channels are last; and why it has none.

    ``size`` is the network's input in pixels; ``unknown`` names the operations on the way that no rule knows.
    """
    if len(shape) == 5:  # a volume: rows and columns of its slices
        rows, cols = (merged(probe, [3]) for probe in (track.rows, track.cols))
        return place(track.places(rows, cols), (*shape[:2], *shape[3:]), size, unknown)
    why = f"it comes after {', '.join(unknown)}, whose reach is not known" if unknown else None
    if len(shape) != 4:
        return None, False, "its output is not a grid of cells"
    if not _placed(track):
        return None, False, why or "every cell looks at the whole picture"
    layout = _layout(track)
    if layout is None:
        return None, False, why or "its cells are not arranged as a grid"
    last = layout == (1, 2)
    row_axis = _axis(_hull(track.rows, layout[0], shape[layout[0]]), size[0])
    col_axis = _axis(_hull(track.cols, layout[1], shape[layout[1]]), size[1])
    for axis in (row_axis, col_axis):
        if isinstance(axis, str):
            return None, last, why or axis
    assert isinstance(row_axis, Axis)
    assert isinstance(col_axis, Axis)
    return Geometry(row_axis, col_axis), last, None


def place_tokens(
    track: Track, shape: Sequence[int], size: tuple[int, int], batch: int
) -> tuple[Geometry, int] | None:
    """The geometry of a sequence of tokens ``[batch, tokens, channels]``, and how many tokens precede its grid.

    A grid in row-major order, perhaps after class and register tokens, which have no place. ``None`` if it is none.
    """
    if len(shape) != 3 or shape[0] != batch or shape[1] < 4:
        return None  # windows of attention lie in the batch: they are no grid of the picture
    count = shape[1]
    rows, cols = _hull(track.rows, 1, count), _hull(track.cols, 1, count)
    placed = torch.isfinite(rows[2:4]).all(0) & torch.isfinite(cols[2:4]).all(0)
    before = int((~placed).long().cumprod(0).sum())
    if before == count or not bool(placed[before:].all()):
        return None
    rows, cols = rows[:, before:], cols[:, before:]
    here = rows[2] - rows[3]
    width = int((here == here[0]).long().cumprod(0).sum())
    if width < 2 or (count - before) % width or count - before == width:
        return None
    grid_rows = rows.reshape(PARTS, -1, width)
    grid_cols = cols.reshape(PARTS, -1, width)
    same_row = torch.equal(grid_rows[2:4], grid_rows[2:4, :, :1].expand_as(grid_rows[2:4]))
    same_col = torch.equal(grid_cols[2:4], grid_cols[2:4, :1].expand_as(grid_cols[2:4]))
    if not same_row or not same_col:
        return None
    row_axis, col_axis = _axis(merged(grid_rows, [2]), size[0]), _axis(merged(grid_cols, [1]), size[1])
    if isinstance(row_axis, str) or isinstance(col_axis, str):
        return None
    return Geometry(row_axis, col_axis), before


def _placed(track: Track) -> bool:
    return bool(torch.isfinite(track.rows[2:4]).any()) or bool(torch.isfinite(track.cols[2:4]).any())

"""From the probes of one output to the geometry of its grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from convoscope.engine.aliasing import Track
from convoscope.engine.geometry import Axis, Geometry
from convoscope.engine.probes import Probe, compress

Placed = tuple[Geometry | None, bool, str | None]
"""A geometry, whether the channels are last, and why there is no geometry."""


def _varying(probe: Probe) -> set[int]:
    """The dimensions along which the local field changes."""
    local = compress(probe)[2:]
    varying = set()
    for dim in range(local.dim() - 1):
        first = local.narrow(dim + 1, 0, 1)
        if local.shape[dim + 1] > 1 and not torch.equal(first.expand_as(local), local):
            varying.add(dim)
    return varying


def _hull(probe: Probe, dim: int, length: int) -> Tensor:
    """The probe as ``[4, length]``: the hull over all dimensions but ``dim``."""
    over = [d for d in range(1, probe.dim()) if d != dim + 1]
    return probe.amin(over).expand(4, length)


def _axis(probe: Tensor, input: int) -> Axis | str:
    """An axis from ``[4, cells]``, or why there is none."""
    low, high, length = probe[2], -probe[3], probe.shape[1]
    if not bool(torch.isfinite(probe[2:]).any()):
        return Axis.whole(input) if length == 1 else "its cells have no place in the picture"
    if not bool(torch.isfinite(probe[2:]).all()):
        return "some of its cells have no place in the picture"
    centres = (low + high).numpy()
    steps = np.diff(centres)
    if length > 1 and not np.any(steps):
        return "all its cells look at the same place"
    if np.any(steps > 0) and np.any(steps < 0):
        return "its cells are not in the picture's order"
    reach_low, reach_high = probe[0].clone(), -probe[1]
    unreached = ~torch.isfinite(reach_low)
    reach_low[unreached], reach_high[unreached] = 0, -1
    fields = (low, high, reach_low, reach_high)
    return Axis.from_fields(input, *(field.numpy().astype(np.int64) for field in fields))


def place(track: Track, shape: Sequence[int], size: tuple[int, int], unknown: Sequence[str]) -> Placed:
    """The geometry of an output of this ``shape``; whether its channels are last; and why it has none.

    ``size`` is the network's input in pixels; ``unknown`` names the operations on the way that no rule knows.
    """
    why = f"it comes after {', '.join(unknown)}, whose reach is not known" if unknown else None
    if len(shape) != 4:
        return None, False, "its output is not a grid of cells"
    rows, cols = _varying(track.rows), _varying(track.cols)
    if not rows and not cols and not _placed(track):
        return None, False, why or "every cell looks at the whole picture"
    if rows <= {1, 2} and cols <= {1, 3}:
        last, row_dim, col_dim = False, 2, 3
    elif rows <= {1, 3} and cols <= {2, 3}:
        last, row_dim, col_dim = True, 1, 2
    else:
        return None, False, why or "its cells are not arranged as a grid"
    row_axis = _axis(_hull(track.rows, row_dim, shape[row_dim]), size[0])
    col_axis = _axis(_hull(track.cols, col_dim, shape[col_dim]), size[1])
    for axis in (row_axis, col_axis):
        if isinstance(axis, str):
            return None, last, why or axis
    assert isinstance(row_axis, Axis)
    assert isinstance(col_axis, Axis)
    return Geometry(row_axis, col_axis), last, None


def _placed(track: Track) -> bool:
    return bool(torch.isfinite(track.rows[2:]).any()) or bool(torch.isfinite(track.cols[2:]).any())

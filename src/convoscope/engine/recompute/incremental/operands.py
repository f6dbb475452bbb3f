"""What the rules ask a node for: its arguments, its input in tiles, the tiles of a sliding window's output."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx

from convoscope.engine.recompute.incremental.layers import Window
from convoscope.engine.recompute.incremental.plan import Planner
from convoscope.engine.recompute.incremental.tiles import Region


def argument(node: fx.Node, index: int, name: str = "", default: Any = None) -> Any:
    """The node's argument at that place or of that name."""
    return node.args[index] if len(node.args) > index else node.kwargs.get(name, default)


def single(p: Planner, node: fx.Node, rank: int | None = None) -> tuple[fx.Node, Region] | None:
    """The node's first argument if it is in tiles (and in NCHW layout where ``rank`` is 4)."""
    source = node.args[0]
    if not isinstance(source, fx.Node) or source not in p.regions:
        return None
    region = p.regions[source]
    if rank == 4 and (len(region.shape) != 4 or region.dims != (2, 3)):
        return None
    return source, region


def slide(p: Planner, node: fx.Node, region: Region, window: Window) -> Region:
    """The tiles of the node's output where ``window`` slides over the tiles ``region``."""
    shape = p.shapes[node]
    share = p.cap(node)
    y = region.y.through(window, 0, shape[2], share)
    x = region.x.through(window, 1, shape[3], share)
    return Region(y, x, (2, 3), shape)


def to_nchw(rows: Tensor) -> Tensor:
    """[n, rows, columns, channels] as a channels_last tensor [n, channels, rows, columns]."""
    return rows.permute(0, 3, 1, 2)

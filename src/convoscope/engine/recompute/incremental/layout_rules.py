"""Rules for operations that move cells about, or work on each cell's channels alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, fx
from torch.nn import functional as F

from convoscope.engine.recompute.incremental.layers import Window
from convoscope.engine.recompute.incremental.operands import argument, single, slide, to_nchw
from convoscope.engine.recompute.incremental.plan import Planner, Work, to_layout
from convoscope.engine.recompute.incremental.tiles import Axis, Region


def reshape(p: Planner, node: fx.Node) -> bool:
    """Channels split or merged in front of a grid that stays last (channel shuffle)."""
    found = single(p, node)
    shape = p.shapes[node]
    if found is None or len(shape) < 3:
        return False
    source, region = found
    rank = len(region.shape)
    if region.dims != (rank - 2, rank - 1) or shape[0] != 1 or shape[-2:] != region.shape[-2:]:
        return False
    out = region.with_shape(shape, (len(shape) - 2, len(shape) - 1))
    tail = out.tile_shape
    return p.tile(node, out, [source], lambda work: work.values[source].reshape(work.count, *tail), aliases=True)


def permute(p: Planner, node: fx.Node) -> bool:
    """Dimensions in another order; the batch stays first."""
    found = single(p, node)
    if found is None:
        return False
    source, region = found
    rank = len(region.shape)
    if "transpose" in str(node.target):
        a, b = (int(argument(node, index)) % rank for index in (1, 2))
        order = list(range(rank))
        order[a], order[b] = order[b], order[a]
    else:
        order = [int(item) % rank for item in argument(node, 1)]
    if order[0] != 0:
        return False
    dims = (order.index(region.dims[0]), order.index(region.dims[1]))
    out = region.with_shape(p.shapes[node], dims)
    return p.tile(node, out, [source], lambda work: work.values[source].permute(order), aliases=True)


def slicing(p: Planner, node: fx.Node) -> bool:
    """Some channels, or every k-th row or column from some start."""
    found = single(p, node)
    if found is None:
        return False
    source, region = found
    rank = len(region.shape)
    dim = int(argument(node, 1, "dim", 0)) % rank
    shape = p.shapes[node]
    if dim == 0:
        return False
    if dim not in region.dims:
        return same_call(p, node, source, region.with_shape(shape), aliases=True)
    step = int(argument(node, 4, "step", 1))
    start = int(argument(node, 2, "start") or 0)
    size = region.shape[dim]
    start = min(max(start + size if start < 0 else start, 0), size)
    window = Window((1, 1), (step, step), (1, 1), (-start, -start, 0, 0))
    axes, needs = [], []
    for which, axis in enumerate((region.y, region.x)):
        if region.dims[which] == dim:
            axes.append(axis.through(window, which, shape[dim]))
            needs.append(axes[-1].needs(window, which))
        else:
            axes.append(axis)
            needs.append((axis.origin, axis.length))
    out = Region(axes[0], axes[1], region.dims, shape)
    if p.prefers_whole(out):
        return False
    fetch = p.fetch(source, needs[0], needs[1])
    steps = [step if region.dims[which] == dim else 1 for which in (0, 1)]

    def run(work: Work) -> Tensor:
        return to_layout(fetch(work)[:, :: steps[0], :: steps[1]].contiguous(), shape, out.dims)

    return p.tile(node, out, [source], run)


def padding(p: Planner, node: fx.Node) -> bool:
    """A constant border: the changed cells move, nothing else happens."""
    found = single(p, node)
    amounts = argument(node, 1)
    mode = argument(node, 2, "mode", "constant")
    if found is None or (str(node.target) == "aten.pad.default" and mode != "constant"):
        return False
    source, region = found
    rank = len(region.shape)
    if not isinstance(amounts, list | tuple) or any(not isinstance(item, int) or item < 0 for item in amounts):
        return False
    front = {rank - 1 - index // 2: int(amounts[index]) for index in range(0, len(amounts), 2)}
    shape = p.shapes[node]
    if any(shape[dim] != region.shape[dim] for dim in range(rank) if dim not in region.dims):
        return False
    axes = [
        axis.moved(shape[dim], front.get(dim, 0)) for axis, dim in zip((region.y, region.x), region.dims, strict=True)
    ]
    out = Region(axes[0], axes[1], region.dims, shape)
    return p.tile(node, out, [source], lambda work: work.values[source], aliases=True)


def enlarging(p: Planner, node: fx.Node) -> bool:
    """Nearest-neighbour enlargement by whole numbers."""
    found = single(p, node, 4)
    shape = p.shapes[node]
    if found is None or shape[2] % found[1].y.size or shape[3] % found[1].x.size:
        return False
    source, region = found
    factors = (shape[2] // region.y.size, shape[3] // region.x.size)
    scales = argument(node, 2, "scale_factors")
    if isinstance(scales, list | tuple) and tuple(scales) != tuple(float(factor) for factor in factors):
        return False
    axes = [
        Axis(axis.size * k, axis.low * k, axis.high * k, axis.origin * k, axis.length * k)
        for axis, k in zip((region.y, region.x), factors, strict=True)
    ]
    out = Region(axes[0], axes[1], (2, 3), shape)
    if p.prefers_whole(out):
        return False

    def run(work: Work) -> Tensor:
        return F.interpolate(work.values[source], size=(axes[0].length, axes[1].length), mode="nearest")

    return p.tile(node, out, [source], run)


def adaptive_pool(p: Planner, node: fx.Node) -> bool:
    """Average pooling where the sizes divide, nothing at all where they are equal."""
    found = single(p, node, 4)
    if found is None:
        return False
    source, region = found
    high, wide = p.shapes[node][2:]
    if (high, wide) == (region.y.size, region.x.size):
        out = region.with_shape(p.shapes[node])
        return p.tile(node, out, [source], lambda work: work.values[source], aliases=True)
    if region.y.size % high or region.x.size % wide:
        return False
    kernel = (region.y.size // high, region.x.size // wide)
    window = Window(kernel, kernel)
    out = slide(p, node, region, window)
    if p.prefers_whole(out):
        return False
    fetch = p.fetch(source, out.y.needs(window, 0), out.x.needs(window, 1))
    return p.tile(node, out, [source], lambda work: F.avg_pool2d(to_nchw(fetch(work)), kernel))


def reduction(p: Planner, node: fx.Node) -> bool:
    """Mean, sum or maximum over channels: the grid stays."""
    found = single(p, node)
    dims = argument(node, 1, "dim")
    if found is None or node.kwargs.get("dtype") is not None:
        return False
    source, region = found
    rank = len(region.shape)
    dims = [dims] if isinstance(dims, int) else dims
    over = {int(dim) % rank for dim in dims or ()}
    if not over or over & {0, *region.dims}:
        return False
    shape = p.shapes[node]
    moved = region.dims
    if len(shape) < rank:
        y, x = (dim - sum(other < dim for other in over) for dim in region.dims)
        moved = (y, x)
    return same_call(p, node, source, region.with_shape(shape, moved))


def same_call(
    p: Planner, node: fx.Node, source: fx.Node, out: Region, products: int = 0, aliases: bool = False
) -> bool:
    """Run the operation itself on the tiles."""
    constants = p.program.constants
    others = [item for item in node.all_input_nodes if item is not source]
    if any(item not in constants and item in p.program.varying for item in others):
        return False

    def run(work: Work) -> Any:
        def value(item: fx.Node) -> Any:
            return constants[item] if item in constants else work.values[item]

        return p.program.call(node, value)

    reads = [source, *[item for item in others if item not in constants]]
    return p.tile(node, out, reads, run, products=products, aliases=aliases)


def over_channels(p: Planner, node: fx.Node) -> bool:
    """Softmax and its like over a dimension that is not of the grid."""
    found = single(p, node)
    if found is None:
        return False
    source, region = found
    dim = argument(node, 1, "dim")
    if not isinstance(dim, int) or dim % len(region.shape) in (0, *region.dims):
        return False
    return same_call(p, node, source, region.with_shape(p.shapes[node]))


def layer_norm(p: Planner, node: fx.Node) -> bool:
    """Over trailing dimensions that are not of the grid (ConvNeXt); over the grid it has a global reach."""
    found = single(p, node)
    normalised = argument(node, 1)
    if found is None or not isinstance(normalised, list | tuple):
        return False
    source, region = found
    if max(region.dims) >= len(region.shape) - len(normalised):
        return False
    return same_call(p, node, source, region.with_shape(p.shapes[node]))


def linear(p: Planner, node: fx.Node) -> bool:
    """A linear map of the last dimension, cell by cell."""
    found = single(p, node)
    if found is None or len(found[1].shape) - 1 in (*found[1].dims, 0):
        return False
    source, region = found
    shape = p.shapes[node]
    channels = int(np.prod([size for dim, size in enumerate(shape) if dim not in region.dims]))
    return same_call(p, node, source, region.with_shape(shape), channels * region.shape[-1])

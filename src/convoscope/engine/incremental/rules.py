"""How each kind of operation runs on tiles.

A rule receives the planner and a node of which at least one input is in tiles. It either emits the node's
step and returns True, or returns False: then the node runs on whole maps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.nn import functional as F

from convoscope.engine.incremental.layers import Affine, AvgPool, Conv, MaxPool, Window, enough_pads
from convoscope.engine.incremental.plan import Planner, Run, Work, in_place_twin, is_pointwise, to_layout
from convoscope.engine.incremental.tiles import Axis, Gather, Key, Region, as_rows, union

Rule = Callable[[Planner, fx.Node], bool]


def rule_for(node: fx.Node) -> Rule | None:
    """The rule for this node's operation, None if it has none."""
    if isinstance(node.target, Conv):
        return convolution
    if isinstance(node.target, MaxPool | AvgPool):
        return pooling
    if isinstance(node.target, Affine):
        return affine
    found = BY_NAME.get(str(node.target))
    if found is None and is_pointwise(node):
        return pointwise
    return found


def _single(p: Planner, node: fx.Node, rank: int | None = None) -> tuple[fx.Node, Region] | None:
    """The node's first argument if it is in tiles (and in NCHW layout where ``rank`` is 4)."""
    source = node.args[0]
    if not isinstance(source, fx.Node) or source not in p.regions:
        return None
    region = p.regions[source]
    if rank == 4 and (len(region.shape) != 4 or region.dims != (2, 3)):
        return None
    return source, region


def _nchw(rows: Tensor) -> Tensor:
    return rows.permute(0, 3, 1, 2)


def _slide(p: Planner, node: fx.Node, region: Region, window: Window) -> Region:
    shape = p.shapes[node]
    share = p.cap(node)
    y = region.y.through(window, 0, shape[2], share)
    x = region.x.through(window, 1, shape[3], share)
    return Region(y, x, (2, 3), shape)


def convolution(p: Planner, node: fx.Node) -> bool:
    """Gather the tiles with the surroundings that the kernel reads, then convolve without padding."""
    found, conv = _single(p, node, 4), node.target
    assert isinstance(conv, Conv)
    if found is None:
        return False
    source, region = found
    window = conv.window
    out = _slide(p, node, region, window)
    if p.prefers_whole(out):
        return False
    if window.pointwise and out.same(region):
        return p.tile(node, out, [source], lambda work: conv.valid(work.values[source]), products=conv.products())
    pads = enough_pads(window, region.shape[2:], out.shape[2:])  # type: ignore[arg-type]
    fetch = p.fetch(source, out.y.needs(window, 0), out.x.needs(window, 1), pads)
    scratch = fetch.gather.high * fetch.gather.wide * p.channels(source) + 2 * out.cells
    return p.tile(
        node, out, [source], lambda work: conv.valid(_nchw(fetch(work))), products=conv.products(),
        scratch=scratch,
    )  # fmt: skip


def pooling(p: Planner, node: fx.Node) -> bool:
    """Like a convolution; average pooling is corrected where its window hangs over the edge."""
    found, pool = _single(p, node, 4), node.target
    assert isinstance(pool, MaxPool | AvgPool)
    if found is None:
        return False
    source, region = found
    window = pool.window
    out = _slide(p, node, region, window)
    if p.prefers_whole(out):
        return False
    pads = enough_pads(window, region.shape[2:], out.shape[2:])  # type: ignore[arg-type]
    fetch = p.fetch(source, out.y.needs(window, 0), out.x.needs(window, 1), pads, window.value)
    scratch = fetch.gather.high * fetch.gather.wide * p.channels(source)
    run: Run = lambda work: pool.valid(_nchw(fetch(work)))  # noqa: E731
    if isinstance(pool, AvgPool):
        factor = pool.correction(region.shape[2], region.shape[3], torch.empty((), device=p.device))
        if factor is not None:
            rows = [out.y.origin[:, None] + np.arange(out.y.length), out.x.origin[:, None] + np.arange(out.x.length)]
            index = [torch.from_numpy(item).to(factor.device) for item in rows]
            plane = factor[0, 0]

            def run(work: Work) -> Tensor:
                ys, xs = index[0][work.batch], index[1][work.batch]
                value = pool.valid(_nchw(fetch(work)))
                return value.mul_(plane[ys[:, :, None], xs[:, None, :]][:, None].to(value.dtype))

    return p.tile(node, out, [source], run, scratch=scratch)


def affine(p: Planner, node: fx.Node) -> bool:
    """Batch norm that could not be folded: it stays where its input is."""
    found, call = _single(p, node), node.target
    assert isinstance(call, Affine)
    if found is None or 1 in found[1].dims:
        return False
    source, region = found
    return p.tile(node, region.with_shape(p.shapes[node]), [source], lambda work: call(work.values[source]))


def pointwise(p: Planner, node: fx.Node) -> bool:
    """On the union of what changed in any operand; smaller tiles get undisturbed values around them."""
    shape = p.shapes[node]
    if not isinstance(shape, tuple):
        return False
    tiles = [source for source in node.all_input_nodes if source in p.regions]
    first = p.regions[tiles[0]]
    for source in tiles:
        region = p.regions[source]
        if region.dims != first.dims or len(region.shape) != len(shape):
            return False
        if any(region.shape[dim] != shape[dim] for dim in (0, *region.dims)):
            return False
    share = p.cap(node)
    out = Region(
        union([p.regions[source].y for source in tiles], share),
        union([p.regions[source].x for source in tiles], share), first.dims, shape,
    )  # fmt: skip
    if p.prefers_whole(out):
        return False
    constants = p.program.constants
    getters: dict[fx.Node, Run] = {}
    scratch = 0
    for source in node.all_input_nodes:
        if source in p.regions:
            getters[source], extra = p.at(source, out)
            scratch += extra
        elif source in constants and isinstance(constants[source], Tensor):
            getter = p.constant_at(source, out)
            if getter is None:
                return False
            getters[source] = getter
        elif source in p.program.varying or isinstance(p.shapes.get(source), tuple):
            return False

    def with_call(call: Callable[..., Any]) -> Run:
        def run(work: Work) -> Any:
            def value(source: fx.Node) -> Any:
                if source in getters:
                    return getters[source](work)
                return constants[source] if source in constants else work.values[source]

            return p.program.call(node, value, call)

        return run

    reads = [source for source in node.all_input_nodes if source not in constants]
    twin = in_place_twin(node, p.shapes)
    leads = twin is not None and node.args[0] in p.regions
    in_place = None
    if leads and twin is not None:
        lead = node.args[0]
        assert isinstance(lead, fx.Node)
        in_place = with_call(twin)
        if not p.regions[lead].same(out):
            # The first operand is gathered anew, so that its memory is free to be written anyway.
            return p.tile(node, out, reads, in_place, scratch=scratch)
    return p.tile(node, out, reads, with_call(node.target), in_place=in_place, scratch=scratch)  # type: ignore[arg-type]


def concatenation(p: Planner, node: fx.Node) -> bool:
    """Along channels: start from the undisturbed concatenation and paste each part's tiles into its channels."""
    parts = node.args[0]
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    assert isinstance(parts, list | tuple)
    assert isinstance(dim, int)
    shape = p.shapes[node]
    dim %= len(shape)
    tiles = [part for part in parts if part in p.regions]
    first = p.regions[tiles[0]]  # type: ignore[index]
    if dim in first.dims or dim == 0 or any(p.regions[part].dims != first.dims for part in tiles):  # type: ignore[index]
        return False
    if any(part not in p.regions and part not in p.program.constants for part in parts):
        return False
    share = p.cap(node)
    out = Region(
        union([p.regions[part].y for part in tiles], share), union([p.regions[part].x for part in tiles], share),  # type: ignore[index]
        first.dims, shape,
    )  # fmt: skip
    if p.prefers_whole(out):
        return False
    if len(tiles) == len(parts) and all(p.regions[part].same(out) for part in tiles):  # type: ignore[index]
        return p.tile(node, out, tiles, lambda work: torch.cat([work.values[part] for part in tiles], dim))
    rank = len(shape)
    key, size = Key(node.name, out.dims), (out.y.size, out.x.size)
    y, x = (out.y.origin, out.y.length), (out.x.origin, out.x.length)
    whole = p.gather(key, size, y, x, None)
    before = [d for d in range(1, rank) if d not in out.dims and d < dim]
    if before:
        return False
    inner = int(np.prod([shape[d] for d in range(1, rank) if d not in out.dims and d > dim]))
    pasted: list[tuple[fx.Node, Gather, slice]] = []
    start = 0
    for part in parts:
        width = p.shapes[part][dim] if part in p.shapes else p.program.constants[part].shape[dim]  # type: ignore[index]
        if part in p.regions:
            gather = Gather(key, size, y, x, p.regions[part], dry=p.scout)  # type: ignore[index]
            pasted.append((part, gather, slice(start * inner, (start + width) * inner)))  # type: ignore[arg-type]
        start += width

    def run(work: Work) -> Tensor:
        rows = whole(work.bases[key], None, work.batch)
        for part, gather, channels in pasted:
            gather.paste(rows[..., channels], as_rows(work.values[part], out.dims), work.batch)
        return to_layout(rows, shape, out.dims)

    return p.tile(node, out, tiles, run)


def global_mean(p: Planner, node: fx.Node) -> bool:
    """The undisturbed mean plus what the tiles add to it."""
    found = _single(p, node)
    if found is None:
        return False
    source, region = found
    name = str(node.target)
    keep = True
    if name == "aten.adaptive_avg_pool2d.default":
        target = node.args[1]
        assert isinstance(target, list | tuple)
        if tuple(target) != (1, 1):
            return adaptive_pool(p, node)
        if region.dims != (2, 3) or len(region.shape) != 4:
            return False
    else:
        dims = node.args[1] if len(node.args) > 1 else None
        if not isinstance(dims, list | tuple) or any(key != "keepdim" for key in node.kwargs) or len(node.args) > 3:
            return False
        rank = len(region.shape)
        over = {int(d) % rank for d in dims}  # type: ignore[call-overload]
        if over != set(region.dims):
            return reduction(p, node)
        keep = bool(node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False))
    if p.prefers_whole(region):
        return False
    key = Key(source.name, region.dims)
    y, x = (region.y.origin, region.y.length), (region.x.origin, region.x.length)
    gather = p.gather(key, (region.y.size, region.x.size), y, x, None)
    shape, area = p.shapes[node], region.y.size * region.x.size

    def run(work: Work) -> Tensor:
        base = work.bases[key]
        tiles = as_rows(work.values[source], region.dims)
        # Summed in full precision, also where the network runs in less.
        full = torch.promote_types(tiles.dtype, torch.float32)
        change = (tiles - gather(base, None, work.batch)).sum((1, 2), dtype=full).div_(area)
        return change.add_(base.cells.mean(0, dtype=full)).view(work.count, *shape[1:])

    del keep
    return p.value(node, [source], run, scratch=2 * region.cells)


def adaptive_pool(p: Planner, node: fx.Node) -> bool:
    """Average pooling where the sizes divide, nothing at all where they are equal."""
    found = _single(p, node, 4)
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
    out = _slide(p, node, region, window)
    if p.prefers_whole(out):
        return False
    fetch = p.fetch(source, out.y.needs(window, 0), out.x.needs(window, 1))
    return p.tile(node, out, [source], lambda work: F.avg_pool2d(_nchw(fetch(work)), kernel))


def reduction(p: Planner, node: fx.Node) -> bool:
    """Mean, sum or maximum over channels: the grid stays."""
    found = _single(p, node)
    dims = node.args[1] if len(node.args) > 1 else None
    if found is None or node.kwargs.get("dtype") is not None:
        return False
    source, region = found
    rank = len(region.shape)
    over = {int(d) % rank for d in (dims if isinstance(dims, list | tuple) else [dims])} if dims is not None else {0}  # type: ignore[arg-type, call-overload]
    if not over or over & {0, *region.dims}:
        return False
    shape = p.shapes[node]
    moved = region.dims
    if len(shape) < rank:
        moved = tuple(d - sum(o < d for o in over) for d in region.dims)  # type: ignore[assignment]
    return _same_call(p, node, source, region.with_shape(shape, moved))


def _same_call(
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
    found = _single(p, node)
    if found is None:
        return False
    source, region = found
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    if not isinstance(dim, int) or dim % len(region.shape) in (0, *region.dims):
        return False
    return _same_call(p, node, source, region.with_shape(p.shapes[node]))


def layer_norm(p: Planner, node: fx.Node) -> bool:
    """Over trailing dimensions that are not of the grid (ConvNeXt); over the grid it has a global reach."""
    found = _single(p, node)
    normalised = node.args[1]
    if found is None or not isinstance(normalised, list | tuple):
        return False
    source, region = found
    if max(region.dims) >= len(region.shape) - len(normalised):
        return False
    return _same_call(p, node, source, region.with_shape(p.shapes[node]))


def linear(p: Planner, node: fx.Node) -> bool:
    """A linear map of the last dimension, cell by cell."""
    found = _single(p, node)
    if found is None or len(found[1].shape) - 1 in (*found[1].dims, 0):
        return False
    source, region = found
    shape = p.shapes[node]
    channels = int(np.prod([size for dim, size in enumerate(shape) if dim not in region.dims]))
    return _same_call(p, node, source, region.with_shape(shape), channels * region.shape[-1])


def reshape(p: Planner, node: fx.Node) -> bool:
    """Channels split or merged in front of a grid that stays last (channel shuffle)."""
    found = _single(p, node)
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
    found = _single(p, node)
    if found is None:
        return False
    source, region = found
    rank = len(region.shape)
    if "transpose" in str(node.target):
        a, b = (int(item) % rank for item in node.args[1:3])  # type: ignore[arg-type,call-overload]
        order = list(range(rank))
        order[a], order[b] = order[b], order[a]
    else:
        order = [int(item) % rank for item in node.args[1]]  # type: ignore[union-attr, call-overload, arg-type]
    if order[0] != 0:
        return False
    dims = (order.index(region.dims[0]), order.index(region.dims[1]))
    out = region.with_shape(p.shapes[node], dims)
    return p.tile(node, out, [source], lambda work: work.values[source].permute(order), aliases=True)


def slicing(p: Planner, node: fx.Node) -> bool:
    """Some channels, or every k-th row or column from some start."""
    found = _single(p, node)
    if found is None:
        return False
    source, region = found
    values = [*node.args[1:], *[None] * (5 - len(node.args))]
    rank = len(region.shape)
    dim = int(values[0] or 0) % rank  # type: ignore[arg-type,call-overload]
    shape = p.shapes[node]
    if dim == 0:
        return False
    if dim not in region.dims:
        return _same_call(p, node, source, region.with_shape(shape), aliases=True)
    step = int(node.kwargs.get("step", 1) if values[3] is None else values[3])  # type: ignore[arg-type,call-overload]
    start = int(values[1] or 0)  # type: ignore[arg-type,call-overload]
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
    found = _single(p, node)
    amounts = node.args[1]
    mode = node.args[2] if len(node.args) > 2 else node.kwargs.get("mode", "constant")
    if found is None or (str(node.target) == "aten.pad.default" and mode != "constant"):
        return False
    source, region = found
    rank = len(region.shape)
    if not isinstance(amounts, list | tuple) or any(not isinstance(item, int) or item < 0 for item in amounts):
        return False
    front = {rank - 1 - index // 2: int(amounts[index]) for index in range(0, len(amounts), 2)}  # type: ignore[arg-type,call-overload]
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
    found = _single(p, node, 4)
    shape = p.shapes[node]
    if found is None or shape[2] % found[1].y.size or shape[3] % found[1].x.size:
        return False
    source, region = found
    factors = (shape[2] // region.y.size, shape[3] // region.x.size)
    scales = node.args[2] if len(node.args) > 2 else None
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


BY_NAME: dict[str, Rule] = {
    "aten.cat.default": concatenation,
    "aten.adaptive_avg_pool2d.default": global_mean,
    "aten.mean.dim": global_mean,
    "aten.sum.dim_IntList": reduction,
    "aten.amax.default": reduction,
    "aten.softmax.int": over_channels,
    "aten._softmax.default": over_channels,
    "aten.log_softmax.int": over_channels,
    "aten.layer_norm.default": layer_norm,
    "aten.linear.default": linear,
    "aten.view.default": reshape,
    "aten.reshape.default": reshape,
    "aten._unsafe_view.default": reshape,
    "aten.permute.default": permute,
    "aten.transpose.int": permute,
    "aten.slice.Tensor": slicing,
    "aten.pad.default": padding,
    "aten.constant_pad_nd.default": padding,
    "aten.upsample_nearest2d.vec": enlarging,
}

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

from convoscope.engine.recompute.incremental import layout_rules as layout
from convoscope.engine.recompute.incremental.layers import Affine, AvgPool, Conv, MaxPool, enough_pads
from convoscope.engine.recompute.incremental.operands import argument, single, slide, to_nchw
from convoscope.engine.recompute.incremental.plan import Planner, Run, Work, in_place_twin, is_pointwise, to_layout
from convoscope.engine.recompute.incremental.tiles import Gather, Key, Region, as_rows, union

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


def convolution(p: Planner, node: fx.Node) -> bool:
    """Gather the tiles with the surroundings that the kernel reads, then convolve without padding."""
    found, conv = single(p, node, 4), node.target
    assert isinstance(conv, Conv)
    if found is None:
        return False
    source, region = found
    window = conv.window
    out = slide(p, node, region, window)
    if p.prefers_whole(out):
        return False
    if window.pointwise and out.same(region):
        return p.tile(node, out, [source], lambda work: conv.valid(work.values[source]), products=conv.products())
    pads = enough_pads(window, region.shape[2:], out.shape[2:])  # type: ignore[arg-type]
    fetch = p.fetch(source, out.y.needs(window, 0), out.x.needs(window, 1), pads)
    scratch = fetch.gather.high * fetch.gather.wide * p.channels(source) + 2 * out.cells
    return p.tile(
        node, out, [source], lambda work: conv.valid(to_nchw(fetch(work))), products=conv.products(),
        scratch=scratch,
    )  # fmt: skip


def pooling(p: Planner, node: fx.Node) -> bool:
    """Like a convolution; average pooling is corrected where its window hangs over the edge."""
    found, pool = single(p, node, 4), node.target
    assert isinstance(pool, MaxPool | AvgPool)
    if found is None:
        return False
    source, region = found
    window = pool.window
    out = slide(p, node, region, window)
    if p.prefers_whole(out):
        return False
    pads = enough_pads(window, region.shape[2:], out.shape[2:])  # type: ignore[arg-type]
    fetch = p.fetch(source, out.y.needs(window, 0), out.x.needs(window, 1), pads, window.value)
    scratch = fetch.gather.high * fetch.gather.wide * p.channels(source)
    run: Run = lambda work: pool.valid(to_nchw(fetch(work)))  # noqa: E731
    if isinstance(pool, AvgPool):
        factor = pool.correction(region.shape[2], region.shape[3], torch.empty((), device=p.device))
        if factor is not None:
            rows = [out.y.origin[:, None] + np.arange(out.y.length), out.x.origin[:, None] + np.arange(out.x.length)]
            index = [torch.from_numpy(item).to(factor.device) for item in rows]
            plane = factor[0, 0]

            def run(work: Work) -> Tensor:
                ys, xs = index[0][work.batch], index[1][work.batch]
                value = pool.valid(to_nchw(fetch(work)))
                return value.mul_(plane[ys[:, :, None], xs[:, None, :]][:, None].to(value.dtype))

    return p.tile(node, out, [source], run, scratch=scratch)


def affine(p: Planner, node: fx.Node) -> bool:
    """Batch norm that could not be folded: it stays where its input is."""
    found, call = single(p, node), node.target
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
    parts: list[fx.Node] = list(argument(node, 0))
    dim: int = argument(node, 1, "dim", 0)
    shape = p.shapes[node]
    dim %= len(shape)
    tiles = [part for part in parts if part in p.regions]
    first = p.regions[tiles[0]]
    if dim in first.dims or dim == 0 or any(p.regions[part].dims != first.dims for part in tiles):
        return False
    if any(part not in p.regions and part not in p.program.constants for part in parts):
        return False
    share = p.cap(node)
    out = Region(
        union([p.regions[part].y for part in tiles], share), union([p.regions[part].x for part in tiles], share),
        first.dims, shape,
    )  # fmt: skip
    if p.prefers_whole(out):
        return False
    if len(tiles) == len(parts) and all(p.regions[part].same(out) for part in tiles):
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
        width = p.shapes[part][dim] if part in p.shapes else p.program.constants[part].shape[dim]
        if part in p.regions:
            gather = Gather(key, size, y, x, p.regions[part], dry=p.scout)
            pasted.append((part, gather, slice(start * inner, (start + width) * inner)))
        start += width

    def run(work: Work) -> Tensor:
        rows = whole(work.bases[key], None, work.batch)
        for part, gather, channels in pasted:
            gather.paste(rows[..., channels], as_rows(work.values[part], out.dims), work.batch)
        return to_layout(rows, shape, out.dims)

    return p.tile(node, out, tiles, run)


def global_mean(p: Planner, node: fx.Node) -> bool:
    """The undisturbed mean plus what the tiles add to it."""
    found = single(p, node)
    if found is None:
        return False
    source, region = found
    rank = len(region.shape)
    if str(node.target) == "aten.adaptive_avg_pool2d.default":
        if tuple(argument(node, 1)) != (1, 1):
            return layout.adaptive_pool(p, node)
        if region.dims != (2, 3) or rank != 4:
            return False
    else:
        dims = argument(node, 1)
        if not isinstance(dims, list | tuple) or argument(node, 3, "dtype") is not None:
            return False
        if {int(dim) % rank for dim in dims} != set(region.dims):
            return layout.reduction(p, node)
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
        summed = change.add_(base.cells.mean(0, dtype=full)).view(work.count, *shape[1:])
        # in the fast mode the head stays in full precision; a network of half precision gets its own back
        return summed if p.program.low is not None else summed.to(tiles.dtype)

    return p.value(node, [source], run, scratch=2 * region.cells)


BY_NAME: dict[str, Rule] = {
    "aten.cat.default": concatenation,
    "aten.adaptive_avg_pool2d.default": global_mean,
    "aten.mean.dim": global_mean,
    "aten.sum.dim_IntList": layout.reduction,
    "aten.amax.default": layout.reduction,
    "aten.softmax.int": layout.over_channels,
    "aten._softmax.default": layout.over_channels,
    "aten.log_softmax.int": layout.over_channels,
    "aten.layer_norm.default": layout.layer_norm,
    "aten.linear.default": layout.linear,
    "aten.view.default": layout.reshape,
    "aten.reshape.default": layout.reshape,
    "aten._unsafe_view.default": layout.reshape,
    "aten.permute.default": layout.permute,
    "aten.transpose.int": layout.permute,
    "aten.slice.Tensor": layout.slicing,
    "aten.pad.default": layout.padding,
    "aten.constant_pad_nd.default": layout.padding,
    "aten.upsample_nearest2d.vec": layout.enlarging,
}

"""The plan for one group of windows: what to compute on tiles, what on whole maps, in which order.

Planning looks at shapes and intervals only; the result is a list of steps that run on any batch of the group's
windows. Rules for single operations are in ``rules.py``; whatever has no rule runs on whole maps, which
is always right.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from convoscope.engine.recompute.incremental.graph import counts_batch
from convoscope.engine.recompute.incremental.layers import Affine, AvgPool, Conv, MaxPool, Pads
from convoscope.engine.recompute.incremental.program import Program
from convoscope.engine.recompute.incremental.tiles import Base, Gather, Ints, Key, Region, as_rows

Slot = Hashable
"""Where a value lives while a batch runs: the node itself, or ("whole", node) for a tile made whole."""


@dataclass
class Work:
    """One batch of windows on its way through a plan."""

    batch: slice
    bases: Mapping[Key, Base]
    values: dict[Slot, Any] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Number of windows."""
        return int(self.batch.stop - self.batch.start)


Run = Callable[[Work], Any]


@dataclass
class Step:
    """Compute one value from others. ``fresh``: its memory is its own; ``aliases``: it may share its inputs'."""

    slot: Slot
    reads: tuple[Slot, ...]
    run: Run
    fresh: bool = True
    aliases: bool = False
    in_place: Run | None = None
    cells: int = 0
    scratch: int = 0
    drops: tuple[Slot, ...] = ()


class Fetch:
    """Tiles of a changed value with their undisturbed surroundings, [n, rows, columns, channels]."""

    def __init__(self, source: Slot, gather: Gather) -> None:
        self.source, self.gather = source, gather

    def __call__(self, work: Work) -> Tensor:
        tile = work.values[self.source]
        if self.gather.covered and self.gather.source is not None:
            return as_rows(tile, self.gather.source.dims)
        return self.gather(work.bases[self.gather.key], tile, work.batch)


class Planner:
    """Walks ``nodes`` (in order) once for a group of windows and lists the steps.

    ``region``: the input's tiles; None where every value that comes in is whole already. ``keep``: values that
    must be there, whole, at the end.
    """

    def __init__(
        self, program: Program, shapes: Mapping[fx.Node, Any], nodes: Sequence[fx.Node], region: Region | None, *,
        share_dense: float, caps: Mapping[str, float] | float | None, keep: Sequence[fx.Node] = (),
        scout: bool = False, device: torch.device | None = None,
    ) -> None:  # fmt: skip
        self.program, self.shapes, self.scout = program, shapes, scout
        self.share_dense, self.caps = share_dense, caps
        self.device = device
        self.start = region
        self.regions: dict[fx.Node, Region] = {}
        self.steps: list[Step] = []
        self.keys: set[Key] = set()
        self.constants_used: dict[str, tuple[fx.Node, tuple[int, ...]]] = {}
        #: Multiply-adds per window, and what a full forward takes.
        self.products = 0
        self.all_products = 0
        #: For the grouping: products per cell (reading and writing included) and region of what is on tiles.
        self.costs: dict[fx.Node, tuple[float, Region]] = {}
        if region is not None and (region.share < share_dense or scout):
            self.regions[program.input] = region
        elif region is not None:
            self.make_whole(program.input, region)
        for node in nodes:
            self._plan(node)
        self.kept: dict[fx.Node, Slot] = {}
        if not scout:
            for node in keep:
                self.kept[node] = self.make_whole(node) if node in self.regions else node
            self._finish()

    # -- walking -------------------------------------------------------------------------------------------

    def _plan(self, node: fx.Node) -> None:
        from convoscope.engine.recompute.incremental.rules import rule_for

        tiles = [source for source in node.all_input_nodes if source in self.regions]
        if tiles and node in self.program.varying:
            rule = rule_for(node)
            if rule is not None and rule(self, node):
                return
        self.whole(node)

    def cap(self, node: fx.Node) -> float:
        """Largest share of an axis that a tile of this node may take (1: no cut, exact)."""
        if self.caps is None:
            return 1.0
        return self.caps if isinstance(self.caps, float) else self.caps.get(node.name, 1.0)

    def prefers_whole(self, region: Region) -> bool:
        """Whether tiles this large are better computed on whole maps."""
        return region.share >= self.share_dense

    def channels(self, node: fx.Node) -> int:
        """Values per cell of a node with tiles."""
        region = self.regions[node]
        return region.cells // (region.y.length * region.x.length)

    # -- emitting ------------------------------------------------------------------------------------------

    def tile(
        self, node: fx.Node, region: Region, reads: Sequence[Slot], run: Run, *, products: int = 0,
        aliases: bool = False, in_place: Run | None = None, scratch: int = 0,
    ) -> bool:  # fmt: skip
        """The node's value is computed on tiles. ``products``: multiply-adds per output cell."""
        cells = region.y.length * region.x.length
        self.regions[node] = region
        self.products += products * cells
        self.all_products += products * region.y.size * region.x.size
        # Reading and writing one value takes about as long as forty multiply-adds.
        self.costs[node] = (products + (0 if aliases else 40.0 * region.cells / cells), region)
        self.steps.append(
            Step(node, tuple(reads), run, not aliases, aliases, in_place, 0 if aliases else region.cells, scratch)
        )
        return True

    def value(self, node: fx.Node, reads: Sequence[Slot], run: Run, *, products: int = 0, scratch: int = 0) -> bool:
        """The node's value is computed without a grid, from tiles."""
        self.products += products
        self.all_products += products
        self.steps.append(Step(node, tuple(reads), run, cells=_numel(self.shapes[node]), scratch=scratch))
        return True

    def whole(self, node: fx.Node) -> None:
        """Run the node as the network does, on whole maps."""
        slots: dict[fx.Node, Slot] = {}
        for source in node.all_input_nodes:
            if source in self.regions:
                slots[source] = self.make_whole(source)
            elif source not in self.program.constants:
                slots[source] = source
        constants, program = self.program.constants, self.program
        if counts_batch(node):
            # The exported graph asks a value for its batch size, which is linear in ours.
            single = self.shapes[node]
            self.steps.append(Step(node, (), lambda work: single * work.count))
            return

        def look(work: Work) -> Callable[[fx.Node], Any]:
            return lambda source: work.values[slots[source]] if source in slots else constants[source]

        def run(work: Work) -> Any:
            return program.call(node, look(work))

        plain = isinstance(node.target, Conv | Affine | AvgPool | MaxPool) or is_pointwise(node)
        in_place = None
        twin = in_place_twin(node, self.shapes)
        if twin is not None:

            def in_place(work: Work) -> Any:
                return program.call(node, look(work), twin)

        products = dense_products(node, self.shapes, constants)
        varying = node in self.program.varying
        self.products += products if varying else 0
        self.all_products += products if varying else 0
        numel = _numel(self.shapes[node])
        self.steps.append(Step(node, tuple(slots.values()), run, plain, not plain, in_place, numel))

    def make_whole(self, source: fx.Node, region: Region | None = None) -> Slot:
        """The slot with the value of ``source`` on the whole map."""
        slot = ("whole", source)
        known = self.regions.get(source, region)
        assert known is not None
        if any(step.slot == slot for step in self.steps):
            return slot
        key = Key(source.name, known.dims)
        ys = (np.zeros_like(known.y.origin), known.y.size)
        xs = (np.zeros_like(known.x.origin), known.x.size)
        fetch = self._fetch(source, known, key, ys, xs)
        shape, dims = known.shape, known.dims
        run: Run = lambda work: to_layout(fetch(work), shape, dims)  # noqa: E731
        if region is not None:
            # The input itself: later nodes read it under its own name.
            self.steps.append(Step(source, (source,), run, cells=_numel(shape)))
            return source
        covered = fetch.gather.covered
        self.steps.append(Step(slot, (source,), run, not covered, covered, cells=_numel(shape)))
        return slot

    # -- tiles with surroundings ---------------------------------------------------------------------------

    def fetch(
        self, source: fx.Node, y: tuple[Ints, int], x: tuple[Ints, int], pads: Pads = (0, 0, 0, 0),
        value: float = 0.0,
    ) -> Fetch:  # fmt: skip
        """Tiles of ``source`` with the undisturbed values around what changed."""
        region = self.regions[source]
        return self._fetch(source, region, Key(source.name, region.dims, pads, value), y, x)

    def _fetch(self, source: fx.Node, region: Region, key: Key, y: tuple[Ints, int], x: tuple[Ints, int]) -> Fetch:
        gather = self.gather(key, (region.y.size, region.x.size), y, x, region)
        return Fetch(source, gather)

    def gather(
        self, key: Key, size: tuple[int, int], y: tuple[Ints, int], x: tuple[Ints, int],
        source: Region | None,
    ) -> Gather:  # fmt: skip
        """Indices for fetching tiles; notes that the undisturbed value must be kept."""
        gather = Gather(key, size, y, x, source, dry=self.scout)
        if self.device is not None and not self.scout:
            gather.rows = gather.rows.to(self.device)
        if not gather.covered:
            self.keys.add(key)
        return gather

    def at(self, source: fx.Node, region: Region) -> tuple[Run, int]:
        """The value of ``source`` on the tiles of ``region``, in its own layout; and the scratch it takes."""
        own = self.regions[source]
        if own.same(region):
            return lambda work: work.values[source], 0
        fetch = self.fetch(source, (region.y.origin, region.y.length), (region.x.origin, region.x.length))
        shape, dims = own.shape, own.dims
        return lambda work: to_layout(fetch(work), shape, dims), region.cells

    def constant_at(self, node: fx.Node, region: Region) -> Run | None:
        """A constant that has a grid of its own, cut to the tiles; None if it does not fit."""
        value = self.program.constants[node]
        rank = len(region.shape)
        if value.dim() > rank:
            return None
        shape = (1,) * (rank - value.dim()) + tuple(value.shape)
        sizes = [shape[dim] for dim in region.dims]
        if sizes == [1, 1]:
            return lambda work: value
        if sizes != [region.y.size, region.x.size] or shape[0] != 1:
            return None
        key = Key(node.name, region.dims)
        self.constants_used[node.name] = (node, shape)
        y, x = (region.y.origin, region.y.length), (region.x.origin, region.x.length)
        gather = self.gather(key, (region.y.size, region.x.size), y, x, None)
        return lambda work: to_layout(gather(work.bases[key], None, work.batch), shape, region.dims)

    # -- finishing -----------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Decide what is overwritten in place and when each value may go."""
        last: dict[Slot, int] = {}
        shared: set[Slot] = set()
        fresh: dict[Slot, bool] = {}
        for index, step in enumerate(self.steps):
            fresh[step.slot] = step.fresh
            for slot in step.reads:
                last[slot] = index
                if step.aliases:
                    shared.add(slot)
        kept = set(self.kept.values())
        for index, step in enumerate(self.steps):
            if step.in_place is not None:
                slot = step.reads[0]
                alone = last[slot] == index and slot not in kept and step.reads.count(slot) == 1
                if alone and fresh.get(slot, False) and slot not in shared:
                    step.run = step.in_place
            ends = {slot for slot in step.reads if last[slot] == index and slot not in kept}
            if step.slot not in last and step.slot not in kept:
                ends.add(step.slot)
            step.drops = tuple(ends - ({step.slot} if step.slot in step.reads else set()))

    def bytes_per_window(self, size: int) -> int:
        """Most memory that one window needs at any time, from the values alive at each step."""
        alive: dict[Slot, int] = {}
        most = 0
        for step in self.steps:
            alive[step.slot] = step.cells
            most = max(most, sum(alive.values()) + step.scratch)
            for slot in step.drops:
                alive.pop(slot, None)
        return most * size

    def execute(self, work: Work) -> dict[fx.Node, Any]:
        """Run all steps on one batch; ``work.values`` must hold what comes in. Returns the values to keep."""
        values = work.values
        for step in self.steps:
            values[step.slot] = step.run(work)
            for slot in step.drops:
                values.pop(slot, None)
        return {node: values[slot] for node, slot in self.kept.items()}


def to_layout(rows: Tensor, shape: tuple[int, ...], dims: tuple[int, int]) -> Tensor:
    """From [n, rows, columns, channels] to the layout of a value of that shape; a view."""
    rest = [size for dim, size in enumerate(shape) if dim not in (0, *dims)]
    if len(rest) != 1:
        rows = rows.view(*rows.shape[:3], *rest)
    return rows.movedim((1, 2), dims)


def is_pointwise(node: fx.Node) -> bool:
    """Whether each output value depends on the input values at its own place alone."""
    name = str(node.target)
    return torch.Tag.pointwise in getattr(node.target, "tags", ()) or name in (
        "aten.relu6.default", "aten.prelu.default", "aten.selu.default", "aten.square.default",
        "aten.leaky_relu.default",  # without the tag until torch 2.7
    )  # fmt: skip


def in_place_twin(node: fx.Node, shapes: Mapping[fx.Node, Any]) -> Callable[..., Any] | None:
    """The in-place form of a pointwise operation whose result fits into its first argument."""
    if not is_pointwise(node) or not node.args or not isinstance(node.args[0], fx.Node):
        return None
    first = node.args[0]
    before, after = first.meta.get("val"), node.meta.get("val")
    if not isinstance(before, Tensor) or not isinstance(after, Tensor) or before.dtype != after.dtype:
        return None
    if shapes.get(first) != shapes.get(node) or not hasattr(node.target, "_schema"):
        return None
    schema = node.target._schema
    packet = getattr(torch.ops.aten, schema.name.split("::")[1] + "_", None)
    twin = getattr(packet, schema.overload_name or "default", None)
    return twin if twin is not None and twin._schema.is_mutable else None


def dense_products(node: fx.Node, shapes: Mapping[fx.Node, Any], constants: Mapping[fx.Node, Any]) -> int:
    """Multiply-adds of a convolution or linear layer on one whole picture (0 for everything else)."""
    if isinstance(node.target, Conv):
        return node.target.products() * int(np.prod(shapes[node][2:]))
    weight = node.args[1] if len(node.args) > 1 else None
    if str(node.target) == "aten.linear.default" and isinstance(weight, fx.Node) and weight in constants:
        return int(np.prod(shapes[node])) * int(constants[weight].shape[-1])
    return 0


def _numel(shape: Any) -> int:
    return int(np.prod(shape)) if isinstance(shape, tuple) else 0

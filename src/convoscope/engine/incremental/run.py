"""Exact occlusion that recomputes only what a mask changed.

After Krypton (Nakandala, Kumar, Papakonstantinou: "Incremental and approximate inference for faster occlusion-based deep
CNN explanations", SIGMOD 2019), on the exported graph of any network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from convoscope.engine.incremental.graph import ExportedGraph, NotIncremental, Program, counts_batch, export
from convoscope.engine.incremental.groups import groups
from convoscope.engine.incremental.layers import AvgPool, Conv, MaxPool
from convoscope.engine.incremental.plan import Planner, Work
from convoscope.engine.incremental.tiles import Axis, Base, Ints, Key, Region
from convoscope.engine.incremental.windows import Masks, as_masks, replace
from convoscope.errors import UsageError

#: Tiles beyond this share of a map are computed as whole maps (0.6 to 1.0 made no difference).
SHARE_DENSE = 0.9
#: Windows in one batch: larger batches were not faster.
BATCH = 32
MATRIX_PRODUCTS = ("aten.linear.default", "aten.addmm.default", "aten.mm.default", "aten.matmul.default", "aten.bmm.default")  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """What a run will take. ``products``: multiply-adds of convolutions and linear layers, all windows."""

    windows: int
    products: int
    dense_products: int
    peak_bytes: int

    @property
    def saved(self) -> float:
        """Share of the dense multiply-adds that is not computed."""
        return 1.0 - self.products / self.dense_products if self.dense_products else 0.0


class Incremental:
    """A network prepared for many masks on one picture.

    ``network``: in evaluation mode; never altered. ``inputs``: the picture [1, C, H, W]. ``graph``: from
    :func:`export` for this network and shape. ``memory``: bytes beyond the network itself that may be used; the bound
    is kept by the batch size and stated in ``bound`` (a picture's own activations and prepared
    weights come first, and at least one window must fit). ``share_dense``: tiles beyond this share of a map are
    computed as whole maps. ``fast``: None for exact results; else see ``fast.py``.

    Raises :class:`NotIncremental` where the graph cannot be exported.
    """

    def __init__(
        self, network: nn.Module, inputs: Tensor, *, graph: ExportedGraph | None = None, memory: int = 1 << 30,
        share_dense: float = SHARE_DENSE, fast: float | None = None, batch: int | None = None,
    ) -> None:  # fmt: skip
        if inputs.dim() != 4 or inputs.shape[0] != 1:
            raise UsageError(f"the picture must be [1, C, H, W], not {list(inputs.shape)}")
        self.graph = export(network, inputs) if graph is None else graph
        if self.graph.shape != tuple(inputs.shape[1:]):
            raise UsageError(
                f"the graph was exported for {self.graph.shape}, the picture is {tuple(inputs.shape[1:])}"
            )
        self.memory, self.share_dense, self.fast = memory, share_dense, fast
        self.batch = batch or (BATCH if inputs.device.type == "cpu" else 4 * BATCH)
        self.device, self.dtype = inputs.device, inputs.dtype
        self.caps: Mapping[str, float] | float | None = fast
        with torch.inference_mode():
            self.inputs = inputs.detach().contiguous(memory_format=torch.channels_last)
            self.program = Program(self.graph, network, inputs.device, inputs.dtype)
            self._by_name = {
                node.name: node for node in [self.program.input, *self.program.nodes, *self.program.constants]
            }
            self.shapes: dict[fx.Node, Any] = {}
            self._bases: dict[Key, Base] = {}
            self._base_outputs = self._run_base(set())
        for value in self._base_outputs:
            if isinstance(value, Tensor) and value.dim() == 0:
                raise NotIncremental("an output of the network is a single number for the whole batch")
        self.saved = 0.0
        self.bound = 0
        self.last: Estimate | None = None

    # -- the picture itself --------------------------------------------------------------------------------

    def _run_base(self, keys: set[Key]) -> list[Any]:
        """One forward of the undisturbed picture; keeps the values that ``keys`` ask for."""
        program = self.program
        wanted: dict[str, list[Key]] = {}
        for key in keys:
            wanted.setdefault(key.node, []).append(key)
        left = {node: len(users) for node, users in program.users.items()}
        kept = {node for node in program.outputs if node is not None}
        values: dict[fx.Node, Any] = {}

        def look(node: fx.Node) -> Any:
            return program.constants[node] if node in program.constants else values[node]

        def store(node: fx.Node, value: Any) -> None:
            values[node] = value
            for key in wanted.get(node.name, ()):
                self._bases[key] = Base.store(value, key)

        store(program.input, self.inputs)
        self.shapes[program.input] = tuple(self.inputs.shape)
        for node in program.nodes:
            args, kwargs = program.fill(node, look)
            value = node.target(*args, **kwargs)  # type: ignore[operator]
            store(node, value)
            self.shapes[node] = (
                tuple(value.shape) if isinstance(value, Tensor) else value if isinstance(value, int) else None
            )
            for source in node.all_input_nodes:
                left[source] -= 1
                if left[source] <= 0 and source not in kept:
                    values.pop(source, None)
        return [None if node is None else look(node) for node in program.outputs]

    def _ensure(self, planner: Planner) -> None:
        """Have every undisturbed value that a plan gathers from."""
        for key in planner.keys:
            if key.node in planner.constants_used and key not in self._bases:
                node, shape = planner.constants_used[key.node]
                self._bases[key] = Base.store(self.program.constants[node].reshape(shape), key)
        missing = {key for key in planner.keys if key not in self._bases}
        if missing:
            self._run_base(missing)

    # -- planning ------------------------------------------------------------------------------------------

    def _region(self, bounds: tuple[Ints, Ints, Ints, Ints]) -> Region:
        top, bottom, left, right = bounds
        _, _, height, width = self.inputs.shape
        if (top < 0).any() or (left < 0).any() or (bottom > height).any() or (right > width).any():
            raise UsageError(f"windows must lie inside the picture of {height}x{width} pixels")
        shape = tuple(self.inputs.shape)
        return Region(Axis.cover(height, top, bottom), Axis.cover(width, left, right), (2, 3), shape)

    def _planner(self, bounds: tuple[Ints, Ints, Ints, Ints], scout: bool = False) -> Planner:
        return Planner(
            self.program, self.shapes, self._region(bounds), share_dense=2.0 if scout else self.share_dense,
            caps=self.caps, skip=frozenset() if scout else self._late, scout=scout, device=self.device,
        )  # fmt: skip

    def _prepare(self, masks: Masks) -> list[tuple[Ints, Planner]]:
        """Groups of windows with their plans; windows that change nothing are in none."""
        bounds = masks.bounds()
        some = np.flatnonzero((bounds[1] > bounds[0]) & (bounds[3] > bounds[2]))
        if not len(some):
            return []

        def of(members: Ints) -> tuple[Ints, Ints, Ints, Ints]:
            return bounds[0][members], bounds[1][members], bounds[2][members], bounds[3][members]

        self._late: frozenset[fx.Node] = frozenset()
        scout = self._planner(of(some), scout=True)
        self._late = self._find_late(scout)
        plans = []
        for local in groups(scout.costs, len(scout.steps), self.batch):
            members = some[local]
            planner = self._planner(of(members))
            planner.finish(self._kept())
            plans.append((members, planner))
        return plans

    def _find_late(self, scout: Planner) -> frozenset[fx.Node]:
        """The network's head: matrix products behind the last grid, and all that follows from them.

        It runs once for many batches of windows.
        """
        program = self.program
        grids = set(scout.regions)
        for node in program.nodes:
            shape = self.shapes[node]
            if isinstance(node.target, Conv | MaxPool | AvgPool) and int(np.prod(shape[2:])) > 1:
                grids.add(node)
        early: set[fx.Node] = set()
        for node in reversed(program.nodes):
            if node in grids or node in early:
                early.add(node)
                early.update(node.all_input_nodes)
        late: set[fx.Node] = set()
        for node in program.nodes:
            if node in early or node not in program.varying:
                continue
            product = str(node.target) in MATRIX_PRODUCTS or isinstance(node.target, Conv)
            if product or any(source in late for source in node.all_input_nodes):
                late.add(node)
        return frozenset(late)

    def _kept(self) -> list[fx.Node]:
        """What a batch leaves behind: what the head reads, and outputs that do not come from the head."""
        found = {source for node in self._late for source in node.all_input_nodes}
        found |= {node for node in self.program.outputs if node is not None}
        return [
            node
            for node in self.program.nodes
            if node in found and node not in self._late and node in self.program.varying
        ]

    def _budget(self, plans: list[tuple[Ints, Planner]]) -> tuple[list[int], int]:
        """Windows per batch for each plan, and the stated bound in bytes."""
        fixed = sum(base.bytes for base in self._bases.values())
        known = set(self._bases)
        size = self.inputs.element_size()
        for _, planner in plans:
            for key in planner.keys - known:
                known.add(key)
                shape = self.shapes.get(self._by_name[key.node])
                fixed += 0 if shape is None else int(np.prod(shape)) * size * 5 // 4
        for node in self.program.nodes:
            if isinstance(node.target, Conv):
                fixed += node.target.prepared_bytes()
        rows = [max(planner.bytes_per_window(size), 1) for _, planner in plans]
        free = max(self.memory - fixed, 0) * 3 // 4
        sizes = [int(min(self.batch, max(1, free // row))) for row in rows]
        bound = fixed + max((n * row for n, row in zip(sizes, rows, strict=True)), default=0)
        return sizes, bound + max(self.memory - fixed, 0) // 4

    def estimate(self, masks: Masks | Tensor) -> Estimate:
        """What :meth:`outputs` will compute for these masks, without computing it."""
        masks = as_masks(masks)
        with torch.inference_mode():
            return self._estimate(masks, self._prepare(masks))

    def _estimate(self, masks: Masks, plans: list[tuple[Ints, Planner]]) -> Estimate:
        head = sum(self._dense(node) for node in getattr(self, "_late", ()))
        whole = sum(self._dense(node) for node in self.program.nodes if node in self.program.varying)
        done = sum(len(members) * (planner.products + head) for members, planner in plans)
        return Estimate(len(masks), done, whole * len(masks), self._budget(plans)[1])

    def _dense(self, node: fx.Node) -> int:
        from convoscope.engine.incremental.plan import dense_products

        return dense_products(node, self.shapes, self.program.constants)

    # -- running -------------------------------------------------------------------------------------------

    def outputs(
        self, masks: Masks | Tensor, fill: Tensor, *, progress: Callable[[int, int], None] | None = None
    ) -> Any:
        """The network's output for each masked picture, stacked: [M, ...] (or the network's structure of such).

        ``masks``: [M, H, W], bool or float in 0..1, 1 where the picture is replaced; or :class:`Boxes`.
        ``fill``: [C, H, W] or [C, 1, 1] or a scalar tensor, what it is replaced with. ``progress(done, windows)`` is
        called now and then. Equal to running the network on every masked picture within 1e-4 of the output's size.
        """
        leaves: list[Any] | None = None
        total = 0
        for which, values in self.stream(masks, fill):
            if leaves is None:
                count = len(as_masks(masks))
                leaves = [
                    value.new_empty((count, *value.shape[1:])) if isinstance(value, Tensor) else value
                    for value in values
                ]
            for leaf, value in zip(leaves, values, strict=True):
                if isinstance(leaf, Tensor):
                    leaf[which] = value
            total += len(which)
            if progress is not None:
                progress(total, len(as_masks(masks)))
        if leaves is None:
            leaves = [v[:0] if isinstance(v, Tensor) else v for v in self._base_outputs]
        return self.program.structure(leaves)

    def stream(self, masks: Masks | Tensor, fill: Tensor) -> Iterator[tuple[Tensor, list[Any]]]:
        """The same in pieces, as they are ready: (numbers of the windows, leaves of the output for them)."""
        masks = as_masks(masks)
        fill = fill.to(self.device, self.dtype)
        if fill.dim() < 3:
            fill = fill.reshape(-1, 1, 1)
        with torch.inference_mode():
            plans = self._prepare(masks)
            self.last = self._estimate(masks, plans)
            self.saved, self.bound = self.last.saved, self.last.peak_bytes
            sizes = self._budget(plans)[0]
        changed = np.zeros(len(masks), dtype=bool)
        for members, _ in plans:
            changed[members] = True
        same = np.flatnonzero(~changed)
        if len(same):
            yield (
                torch.from_numpy(same),
                [
                    value.expand(len(same), *value.shape[1:]) if isinstance(value, Tensor) else value
                    for value in self._base_outputs
                ],
            )
        waiting: list[tuple[Ints, dict[fx.Node, Any]]] = []
        held = 0
        for (members, planner), most in zip(plans, sizes, strict=True):
            with torch.inference_mode():
                self._ensure(planner)
            batches = -(-len(members) // most)
            edges = np.linspace(0, len(members), batches + 1).astype(int).tolist()
            for start, stop in zip(edges[:-1], edges[1:], strict=True):
                with torch.inference_mode():
                    values = self._batch(masks, fill, members, planner, slice(start, stop))
                waiting.append((members[start:stop], values))
                held += sum(v.numel() * v.element_size() for v in values.values() if isinstance(v, Tensor))
                if held > max(self.memory // 8, 1 << 20) or sum(len(m) for m, _ in waiting) >= 512:
                    yield from self._finish(waiting)
                    waiting, held = [], 0
        yield from self._finish(waiting)

    def _batch(self, masks: Masks, fill: Tensor, members: Ints, planner: Planner, batch: slice) -> dict[fx.Node, Any]:
        region, which = planner.start, members[batch]
        y, x = region.y, region.x
        mask = masks.tiles(which, y.origin[batch], y.length, x.origin[batch], x.length, self.inputs)
        places = list(zip(y.origin[batch].tolist(), x.origin[batch].tolist(), strict=True))

        def cut(source: Tensor) -> Tensor:
            parts = [source[:, a : a + y.length, b : b + x.length] for a, b in places]
            return torch.stack(parts).contiguous(memory_format=torch.channels_last)

        replacement = cut(fill) if fill.shape[1:] == self.inputs.shape[2:] else fill[None]
        tiles = replace(cut(self.inputs[0]), mask, replacement)
        work = Work(batch, self._bases, {self.program.input: tiles.contiguous(memory_format=torch.channels_last)})
        planner.execute(work)
        return {node: work.values[node] for node in self._kept()}

    def _finish(self, waiting: list[tuple[Ints, dict[fx.Node, Any]]]) -> Iterator[tuple[Tensor, list[Any]]]:
        """Run the head for everything that waits for it."""
        if not waiting:
            return
        program = self.program
        which = torch.from_numpy(np.concatenate([members for members, _ in waiting]))
        most = max(1, (self.memory // 8) // max(self._late_bytes(), 1))
        if not self._late:
            most = len(which)
        with torch.inference_mode():
            joined: dict[fx.Node, Any] = {}
            for node in self._kept():
                parts = [values[node] for _, values in waiting]
                joined[node] = torch.cat(parts) if len(parts) > 1 else parts[0]
        for start in range(0, len(which), most):
            part = which[start : start + most]
            with torch.inference_mode():
                values: dict[fx.Node, Any] = {}
                for node, value in joined.items():
                    rows = value.shape[0] // len(which)
                    values[node] = value[start * rows : (start + len(part)) * rows]
                self._run_late(values, len(part))
                leaves = []
                for node, base in zip(program.outputs, self._base_outputs, strict=True):
                    if node is None or node in program.constants or not isinstance(base, Tensor):
                        leaves.append(base)
                    else:
                        leaves.append(values[node].reshape(len(part), *_one(base)))
            yield part, leaves

    def _run_late(self, values: dict[fx.Node, Any], count: int) -> None:
        program = self.program
        needed = set(self._late)
        for node in reversed(program.nodes):
            if node in needed:
                needed.update(source for source in node.all_input_nodes if source not in program.varying)
        left = {node: sum(user in needed for user in users) for node, users in program.users.items()}
        outputs = {node for node in program.outputs if node is not None}

        def look(node: fx.Node) -> Any:
            return program.constants[node] if node in program.constants else values[node]

        for node in program.nodes:
            if node not in needed or node in values:
                continue
            if counts_batch(node):
                values[node] = self.shapes[node] * count
                continue
            args, kwargs = program.fill(node, look)
            values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
            for source in node.all_input_nodes:
                left[source] -= 1
                if left[source] <= 0 and source not in outputs:
                    values.pop(source, None)

    def _late_bytes(self) -> int:
        """Generous memory of the head for one window."""
        sizes = sorted(
            (int(np.prod(self.shapes[n])) for n in self._late if isinstance(self.shapes[n], tuple)), reverse=True
        )
        return sum(sizes[:6]) * self.inputs.element_size()


def _one(base: Tensor) -> tuple[int, ...]:
    """Shape of one picture's share of an output."""
    return tuple(base.shape[1:]) if base.shape[0] == 1 else tuple(base.shape)

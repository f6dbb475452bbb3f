"""Exact occlusion that recomputes only what a mask changed.

After Krypton (Nakandala, Kumar, Papakonstantinou: "Incremental and approximate inference for faster occlusion-based
deep CNN explanations", SIGMOD 2019), on the exported graph of any network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from convoscope.engine.recompute.incremental.fast import low_precision
from convoscope.engine.recompute.incremental.graph import ExportedGraph, NotIncremental, export
from convoscope.engine.recompute.incremental.layers import Conv
from convoscope.engine.recompute.incremental.plan import Planner, Work
from convoscope.engine.recompute.incremental.program import Program
from convoscope.engine.recompute.incremental.stages import Estimate, Queue, Schedule, Settings, is_grid, schedule
from convoscope.engine.recompute.incremental.tiles import Base, Ints, Key
from convoscope.engine.recompute.incremental.windows import Masks, as_masks, replace
from convoscope.errors import UsageError

#: Windows in one batch: larger batches were not faster.
BATCH = 32
#: The head runs when this many windows wait for it.
HEAD_BATCH = 512
#: Activations beyond this may be infinite on another picture, and infinities give NaN (see ``Program._fuse_relu``).
NEAR_OVERFLOW = 1e30


class Incremental:
    """A network prepared for many masks on one picture.

    ``network``: in evaluation mode; never altered. ``inputs``: the picture [1, C, H, W]. ``graph``: from
    :func:`export` for this network and shape. ``memory``: bytes beyond the network itself that may be used; kept by
    the batch size and stated in ``bound`` (the picture's own activations and prepared weights come first, and at
    least one window must fit). ``share_dense``: tiles beyond this share of a map are computed as whole maps
    (0: everything is, whatever the masks).
    ``fast``: None for exact results; else see ``fast.py``. ``program``: that of another picture of the same network,
    with the same weights still.

    Raises :class:`NotIncremental` where the graph cannot be exported.
    """

    def __init__(
        self, network: nn.Module, inputs: Tensor, *, graph: ExportedGraph | None = None, memory: int = 1 << 30,
        share_dense: float = 0.9, fast: float | None = None, batch: int | None = None, program: Program | None = None,
    ) -> None:  # fmt: skip
        if inputs.dim() != 4 or inputs.shape[0] != 1:
            raise UsageError(f"the picture must be [1, C, H, W], not {list(inputs.shape)}")
        self.graph = export(network, inputs) if graph is None else graph
        if self.graph.shape != tuple(inputs.shape[1:]):
            raise UsageError(
                f"the graph was exported for {self.graph.shape}, the picture is {tuple(inputs.shape[1:])}"
            )
        self.memory = memory
        self.batch = batch or (BATCH if inputs.device.type == "cpu" else 4 * BATCH)
        self.device, self.dtype = inputs.device, inputs.dtype
        self.caps: Mapping[str, float] | float | None = fast
        self.fast = fast
        self.share_dense = share_dense
        with torch.inference_mode():
            self.inputs = inputs.detach().contiguous(memory_format=torch.channels_last)
            self.program = program or Program(self.graph, network, inputs.device, inputs.dtype)
            self.shapes: dict[fx.Node, Any] = {}
            self._bases: dict[Key, Base] = {}
            self._scheduled: tuple[Masks, Schedule] | None = None
            self._base_outputs = self._run_base(set())
            low = low_precision(self.device) if fast is not None and self.dtype == torch.float32 else None
            if low is not None:
                self.program.lower(low, {node for node in self.program.nodes if is_grid(node, self.shapes)})
                self._base_outputs = self._run_base(set())
        for value in self._base_outputs:
            if isinstance(value, Tensor) and value.dim() == 0:
                raise NotIncremental("an output of the network is a single number for the whole batch")
        #: Of the last run: share of multiply-adds saved, stated memory bound in bytes, and both with their parts.
        self.saved, self.bound = 0.0, 0
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
            if not keys and isinstance(node.target, Conv) and node.target.rectified and value.max() > NEAR_OVERFLOW:
                raise NotIncremental("its activations are close to the largest number that there is")
            for key in wanted.get(node.name, ()):
                self._bases[key] = Base.store(value, key)
            if isinstance(value, Tensor):
                self.shapes[node] = tuple(value.shape)
            else:
                self.shapes[node] = value if isinstance(value, int) else None

        store(program.input, self.inputs)
        for node in program.nodes:
            store(node, program.call(node, look))
            for source in node.all_input_nodes:
                left[source] -= 1
                if left[source] <= 0 and source not in kept:
                    values.pop(source, None)
        literals = program.literals
        return [literals.get(i) if node is None else look(node) for i, node in enumerate(program.outputs)]

    def _ensure(self, planners: Sequence[Planner]) -> None:
        """Have every undisturbed value that the plans gather from: one forward for all of them."""
        missing = set[Key]()
        for planner in planners:
            for key in planner.keys - set(self._bases):
                if key.node in planner.constants_used:
                    node, shape = planner.constants_used[key.node]
                    self._bases[key] = Base.store(self.program.constants[node].reshape(shape), key)
            missing |= planner.keys - set(self._bases)
        if missing:
            self._run_base(missing)

    # -- before running ------------------------------------------------------------------------------------

    def _schedule(self, masks: Masks) -> Schedule:
        if self._scheduled is None or self._scheduled[0] is not masks:  # estimated first, and then run
            self._scheduled = masks, self._planned(masks)
        return self._scheduled[1]

    def _planned(self, masks: Masks) -> Schedule:
        settings = Settings(
            self.memory, self.batch, self.share_dense, self.caps, self.device, self.inputs.element_size()
        )
        height, width = self.inputs.shape[2:]
        if self.share_dense > 0:
            bounds = masks.bounds()
        else:  # nothing on tiles: where the masks lie does not matter
            low, ones = np.zeros(len(masks), np.int64), np.ones(len(masks), np.int64)
            bounds = low, height * ones, low, width * ones
        top, bottom, left, right = bounds
        if len(masks) and (min(top.min(), left.min()) < 0 or bottom.max() > height or right.max() > width):
            raise UsageError(f"windows must lie inside the picture of {height}x{width} pixels")
        held = sum(base.bytes for base in self._bases.values())
        return schedule(self.program, self.shapes, bounds, settings, held, set(self._bases))

    def estimate(self, masks: Masks | Tensor) -> Estimate:
        """What :meth:`outputs` will compute for these masks, without computing it."""
        with torch.inference_mode():
            return self._schedule(as_masks(masks)).estimate

    # -- running -------------------------------------------------------------------------------------------

    def outputs(
        self, masks: Masks | Tensor, fill: Tensor, *, progress: Callable[[int, int], None] | None = None
    ) -> Any:
        """The network's output for each masked picture, stacked: [M, ...] (or the network's structure of such).

        ``masks``: [M, H, W], bool or float in 0..1, 1 where the picture is replaced; or :class:`Boxes`.
        ``fill``: [C, H, W] or [C, 1, 1] or [C], what it is replaced with, or [M, C, H, W], each window's own.
        ``progress(done, windows)`` is called now and then. Equal to running the network on every masked picture
        within 1e-4 of the output's size.
        """
        masks = as_masks(masks)
        leaves: list[Any] | None = None
        total = 0
        with torch.inference_mode():
            for which, values in self.stream(masks, fill):
                if leaves is None:
                    leaves = [v.new_empty((len(masks), *v.shape[1:])) if isinstance(v, Tensor) else v for v in values]
                for leaf, value in zip(leaves, values, strict=True):
                    if isinstance(leaf, Tensor):
                        leaf[which] = value
                total += len(which)
                if progress is not None:
                    progress(total, len(masks))
        if leaves is None:
            leaves = [v[:0] if isinstance(v, Tensor) else v for v in self._base_outputs]
        # Tensors made in inference mode may not be used in autograd by the caller: hand out plain ones.
        return self.program.structure([v.clone() if isinstance(v, Tensor) else v for v in leaves])

    def stream(self, masks: Masks | Tensor, fill: Tensor) -> Iterator[tuple[Tensor, list[Any]]]:
        """The same in pieces, as they are ready: (numbers of the windows, leaves of the output for them)."""
        masks = as_masks(masks)
        fill = fill.to(self.device, self.dtype)
        if fill.dim() < 3:
            fill = fill.reshape(-1, 1, 1)
        if fill.dim() == 4 and fill.shape[2:] != self.inputs.shape[2:]:
            raise UsageError(f"fills of windows are [M, C, {list(self.inputs.shape[2:])}], not {list(fill.shape)}")
        with torch.inference_mode():
            plan = self._schedule(masks)
        self._scheduled = None
        self.last, self.saved, self.bound = plan.estimate, plan.estimate.saved, plan.estimate.peak_bytes
        if len(plan.unchanged):
            count = len(plan.unchanged)
            yield (
                torch.from_numpy(plan.unchanged),
                [
                    _per_window(value, 1).expand(count, *_one(value)) if isinstance(value, Tensor) else value
                    for value in self._base_outputs
                ],
            )
        for_body, for_head = Queue(plan.body.inputs), Queue(plan.head.inputs)
        # whole maps take long: what is ready is handed on, so that the caller can tell how far it is, or stop
        ready = HEAD_BATCH if self.share_dense > 0 else self.batch
        with torch.inference_mode():
            self._ensure([group.planner for group in plan.groups])
        for group in plan.groups:
            for batch in group.batches():
                with torch.inference_mode():
                    values = self._tiles(masks, fill, group.members, group.planner, batch)
                    for_body.push(group.members[batch], values)
                    while for_body.count >= plan.body.batch:
                        self._whole(plan.body.planner, *for_body.pop(plan.body.batch), for_head)
                while for_head.count >= min(ready, plan.head.batch):
                    yield self._end(plan.head.planner, *for_head.pop(plan.head.batch))
        while for_body.count:
            with torch.inference_mode():
                self._whole(plan.body.planner, *for_body.pop(plan.body.batch), for_head)
        while for_head.count:
            yield self._end(plan.head.planner, *for_head.pop(plan.head.batch))

    def _tiles(self, masks: Masks, fill: Tensor, members: Ints, planner: Planner, batch: slice) -> dict[fx.Node, Any]:
        """One batch through the part of the network that is computed on tiles."""
        region, which = planner.start, members[batch]
        assert region is not None
        y, x = region.y, region.x
        mask = masks.tiles(which, y.origin[batch], y.length, x.origin[batch], x.length, self.inputs)
        places = list(zip(y.origin[batch].tolist(), x.origin[batch].tolist(), strict=True))

        def cut(source: Tensor) -> Tensor:
            parts = [source[:, a : a + y.length, b : b + x.length] for a, b in places]
            return torch.stack(parts)

        if fill.dim() == 4:
            own = [(int(window), *place) for window, place in zip(which, places, strict=True)]
            replacement = torch.stack([fill[w, :, a : a + y.length, b : b + x.length] for w, a, b in own])
        else:
            replacement = cut(fill) if fill.shape[1:] == self.inputs.shape[2:] else fill[None]
        tiles = replace(cut(self.inputs[0]), mask, replacement)
        tiles = tiles.contiguous(memory_format=torch.channels_last)
        return planner.execute(Work(batch, self._bases, {self.program.input: tiles}))

    def _whole(self, planner: Planner, members: Ints, values: dict[fx.Node, Any], onward: Queue) -> None:
        """One batch through the part where everything has changed."""
        kept = planner.execute(Work(slice(0, len(members)), self._bases, {node: values[node] for node in values}))
        onward.push(members, {**values, **kept})

    def _end(self, planner: Planner, members: Ints, values: dict[fx.Node, Any]) -> tuple[Tensor, list[Any]]:
        """The head, for many windows at once; the output's leaves."""
        count = len(members)
        with torch.inference_mode():
            values.update(
                planner.execute(Work(slice(0, count), self._bases, {node: values[node] for node in values}))
            )
            leaves = [
                _per_window(values[node], count).reshape(count, *_one(base)) if node in values else base
                for node, base in zip(self.program.outputs, self._base_outputs, strict=True)
            ]
        return torch.from_numpy(members), leaves


def _one(base: Tensor) -> tuple[int, ...]:
    """Shape of one picture's share of an output: more than one row for each picture stay together."""
    return tuple(base.shape[1:]) if base.shape[0] == 1 else tuple(base.shape)


def _per_window(value: Tensor, count: int) -> Tensor:
    rows = value.shape[0] // count
    return value if rows == 1 else value.reshape(count, rows, *value.shape[1:])

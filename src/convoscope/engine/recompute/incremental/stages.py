"""Cutting a run into three stages.

First *tiles*: groups of windows whose tiles have one size. Then the *body*, from where on nearly everything has
changed and whole maps are computed: here windows of all groups share batches, so that groups may be small. At last
the *head*, the matrix products behind the last grid: once for hundreds of windows.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from convoscope.engine.recompute.incremental.groups import STEP_COST, WEIGHT_COST, groups
from convoscope.engine.recompute.incremental.layers import AvgPool, Conv, MaxPool
from convoscope.engine.recompute.incremental.plan import Planner, dense_products
from convoscope.engine.recompute.incremental.program import Program
from convoscope.engine.recompute.incremental.tiles import Axis, Ints, Key, Region

#: The body begins where this share of a map has changed, on the mean over the windows.
SHARE_BODY = 0.85
MATRIX_PRODUCTS = (
    "aten.linear.default", "aten.addmm.default", "aten.mm.default", "aten.matmul.default", "aten.bmm.default",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """What the caller asked for."""

    memory: int
    batch: int
    share_dense: float
    caps: Mapping[str, float] | float | None
    device: torch.device
    #: Bytes of one value.
    item: int


@dataclass(frozen=True)
class Estimate:
    """What a run takes. ``products``: multiply-adds of convolutions and linear layers, all windows together."""

    windows: int
    products: int
    dense_products: int
    peak_bytes: int

    @property
    def saved(self) -> float:
        """Share of the dense multiply-adds that is not computed."""
        return 1.0 - self.products / self.dense_products if self.dense_products else 0.0


@dataclass(frozen=True)
class Group:
    """Windows with tiles of one size. ``most``: how many go through at once."""

    members: Ints
    planner: Planner
    most: int

    def batches(self) -> Iterator[slice]:
        """Batches of nearly equal size."""
        pieces = -(-len(self.members) // self.most)
        edges = np.linspace(0, len(self.members), pieces + 1).astype(int).tolist()
        return (slice(a, b) for a, b in itertools.pairwise(edges))


@dataclass(frozen=True)
class Stage:
    """A part of the network on whole maps. ``inputs``: what it, or what follows it, reads."""

    planner: Planner
    inputs: list[fx.Node]
    batch: int


@dataclass(frozen=True)
class Schedule:
    """All three stages for a set of masks. ``unchanged``: windows that mask nothing."""

    groups: list[Group]
    body: Stage
    head: Stage
    unchanged: Ints
    estimate: Estimate


class Queue:
    """Values of windows that wait for the next stage."""

    def __init__(self, nodes: Sequence[fx.Node]) -> None:
        self.nodes = list(nodes)
        self.count = 0
        self._parts: list[tuple[Ints, dict[fx.Node, Any]]] = []

    def push(self, members: Ints, values: Mapping[fx.Node, Any]) -> None:
        """Add windows with their values; more than one row may belong to a window."""
        self._parts.append((members, {node: values[node] for node in self.nodes}))
        self.count += len(members)

    def pop(self, most: int) -> tuple[Ints, dict[fx.Node, Any]]:
        """Take the first windows, at most so many."""
        taken, parts = 0, []
        while self._parts and taken < most:
            members, values = self._parts.pop(0)
            room = most - taken
            if len(members) > room:
                rest = {node: _rows(value, len(members), room, None) for node, value in values.items()}
                self._parts.insert(0, (members[room:], rest))
                values = {node: _rows(value, len(members), 0, room) for node, value in values.items()}
                members = members[:room]
            parts.append((members, values))
            taken += len(members)
        self.count -= taken
        if len(parts) == 1:
            return parts[0]
        members = np.concatenate([item[0] for item in parts])
        return members, {node: torch.cat([values[node] for _, values in parts]) for node in self.nodes}


def _rows(value: Tensor, count: int, start: int, stop: int | None) -> Tensor:
    each = value.shape[0] // count
    return value[start * each : None if stop is None else stop * each]


def schedule(
    program: Program, shapes: Mapping[fx.Node, Any], bounds: tuple[Ints, Ints, Ints, Ints], settings: Settings,
    held: int, stored: set[Key],
) -> Schedule:  # fmt: skip
    """Plan everything. ``held``: bytes of undisturbed values kept already, those with the keys ``stored``."""
    height, width = shapes[program.input][2:]
    top, bottom, left, right = bounds
    some = np.flatnonzero((bottom > top) & (right > left))
    unchanged = np.setdiff1d(np.arange(len(top)), some)

    def region(members: Ints) -> Region:
        y = Axis.cover(height, top[members], bottom[members])
        x = Axis.cover(width, left[members], right[members])
        return Region(y, x, (2, 3), shapes[program.input])

    def plan(nodes: Sequence[fx.Node], members: Ints | None, keep: Sequence[fx.Node], scout: bool = False) -> Planner:
        return Planner(
            program, shapes, nodes, None if members is None else region(members), keep=keep, caps=settings.caps,
            share_dense=2.0 if scout else settings.share_dense, scout=scout, device=settings.device,
        )  # fmt: skip

    early = body = head = list[fx.Node]()
    found: list[tuple[Ints, Planner]] = []
    if len(some):
        scout = plan(program.nodes, some, (), scout=True)
        early, body, head = _cut(program, shapes, scout)
    outputs = [node for node in program.outputs if node is not None and node in program.varying]
    wanted = [*outputs, *[source for node in head for source in node.all_input_nodes]]
    to_head = _made_by([program.input, *early, *body], wanted, program)
    wanted += [source for node in body for source in node.all_input_nodes]
    to_body = _made_by([program.input, *early], wanted, program)
    if len(some):
        inside = set(early)
        costs = [cost for node, cost in scout.costs.items() if node in inside]
        weights = sum(node.target.weight.numel() for node in early if isinstance(node.target, Conv))
        overhead = STEP_COST * len(early) + WEIGHT_COST * weights
        for local in groups(costs, len(some), overhead, settings.batch):
            found.append((some[local], plan(early, some[local], to_body)))
    body_plan = plan(body, None, [node for node in to_head if node in set(body)])
    head_plan = plan(head, None, [node for node in outputs if node in set(head)])

    size = settings.item
    fixed = held + _base_bytes({key for _, p in found for key in p.keys} - stored, program, shapes, size)
    fixed += sum(node.target.prepared_bytes() for node in program.nodes if isinstance(node.target, Conv))
    free = max(settings.memory - fixed, 0)

    def most(planner: Planner, room: float, limit: int) -> int:
        return int(min(limit, max(1, room // max(planner.bytes_per_window(size), 1))))

    members = [Group(windows, p, most(p, free / 2, settings.batch)) for windows, p in found]
    # What waits for the body is at most one batch of it and one of a group.
    body_stage = Stage(body_plan, to_body, most(body_plan, free / 2, settings.batch))
    head_stage = Stage(head_plan, to_head, most(head_plan, free / 8, 512))
    waiting = sum(_bytes(shapes[node], size) for node in to_body) * 2 * settings.batch
    waiting += sum(_bytes(shapes[node], size) for node in to_head) * 2 * head_stage.batch
    moving = max(
        [group.most * group.planner.bytes_per_window(size) for group in members]
        + [s.batch * s.planner.bytes_per_window(size) for s in (body_stage, head_stage)]
    )
    after = body_plan.products + head_plan.products
    done = sum(len(windows) * (p.products + after) for windows, p in found)
    whole = sum(dense_products(node, shapes, program.constants) for node in program.nodes if node in program.varying)
    estimate = Estimate(len(top), done, whole * len(top), fixed + waiting + moving)
    return Schedule(members, body_stage, head_stage, unchanged, estimate)


def _cut(
    program: Program, shapes: Mapping[fx.Node, Any], scout: Planner
) -> tuple[list[fx.Node], list[fx.Node], list[fx.Node]]:
    """The nodes of each stage. Nodes that count the batch only may be in several."""
    late: set[fx.Node] = set()
    for node in program.nodes:
        if node not in program.varying:
            continue
        sources = [source for source in node.all_input_nodes if source in program.varying]
        region = scout.regions.get(node)
        if any(source in late for source in sources):
            late.add(node)
        elif region is not None:
            if region.changed >= SHARE_BODY:
                late.add(node)
        elif all(source not in scout.regions for source in sources) or is_grid(node, shapes):
            late.add(node)
    # The head: matrix products from which no grid follows any more.
    before_grid: set[fx.Node] = set()
    for node in reversed(program.nodes):
        if node in scout.regions or is_grid(node, shapes) or node in before_grid:
            before_grid.add(node)
            before_grid.update(node.all_input_nodes)
    ending: set[fx.Node] = set()
    for node in program.nodes:
        if node in late and node not in before_grid:
            product = str(node.target) in MATRIX_PRODUCTS or isinstance(node.target, Conv)
            if product or any(source in ending for source in node.all_input_nodes):
                ending.add(node)
    parts = ([], [], [])  # type: tuple[list[fx.Node], list[fx.Node], list[fx.Node]]
    stage: dict[fx.Node, int] = {}
    for node in program.nodes:
        if node not in program.varying:
            continue
        stage[node] = 2 if node in ending else 1 if node in late else 0
        if node.target is operator.getitem:
            # several results (max along an axis, topk, sort, unbind) are told apart where they are made: what waits
            # between two stages is tensors, a row a window
            stage[node] = stage.get(node.all_input_nodes[0], stage[node])
        parts[stage[node]].append(node)
    return tuple(_with_sizes(part, program) for part in parts)  # type: ignore[return-value]


def is_grid(node: fx.Node, shapes: Mapping[fx.Node, Any]) -> bool:
    """Whether the node slides a window over a map of more than one cell."""
    if not isinstance(node.target, Conv | MaxPool | AvgPool):
        return False
    return int(np.prod(shapes[node][2:])) > 1


def _with_sizes(part: list[fx.Node], program: Program) -> list[fx.Node]:
    """With the nodes that depend on the batch size alone and are read here, in the graph's order."""
    needed = set(part)
    for node in reversed(program.nodes):
        if node in needed:
            needed.update(
                source for source in node.all_input_nodes
                if source not in program.varying and source not in program.constants
            )  # fmt: skip
    return [node for node in program.nodes if node in needed]


def _made_by(makers: Sequence[fx.Node], wanted: Sequence[fx.Node], program: Program) -> list[fx.Node]:
    """What ``makers`` hand on, in order: values of the picture that later stages read."""
    want = set(wanted)
    made = set(makers)
    return [node for node in [program.input, *program.nodes] if node in made & want & program.varying]


def _bytes(shape: Any, size: int) -> int:
    return int(np.prod(shape)) * size if isinstance(shape, tuple) else 0


def _base_bytes(keys: set[Key], program: Program, shapes: Mapping[fx.Node, Any], size: int) -> int:
    by_name = {node.name: node for node in [program.input, *program.nodes]}
    total = 0
    for key in keys:
        shape = shapes.get(by_name[key.node]) if key.node in by_name else None
        if isinstance(shape, tuple):
            high, wide = shape[key.dims[0]], shape[key.dims[1]]
            padded = (high + key.pads[0] + key.pads[2]) * (wide + key.pads[1] + key.pads[3])
            total += _bytes(shape, size) * padded // (high * wide)
    return total

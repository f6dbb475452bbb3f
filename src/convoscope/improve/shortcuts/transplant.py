"""Patch transplant: the strongest evidence of a few pictures, put into others (does it suffice?) and replaced in its
own (is it needed?), with a random window of the same picture at the same place as control."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .bench import Bench, Ints
from .effects import Effect, Floats, crossed, idle, more, none
from .windows import elsewhere, evidence, sides, strongest

#: pictures whose window is pasted, and pictures that it is pasted into
SOURCES, TARGETS = 12, 60
#: fewer for choosing the size
TRY_SOURCES, TRY_TARGETS = 6, 12
#: so many targets first; the others only where at least this share became the class (stopping early raises no alarm)
FIRST, WORTH = 20, 0.1


@dataclass(frozen=True)
class Windows:
    """Square windows of one class's pictures: ``corners`` int64 ``[n, 2]`` are rows and columns of first pixels."""

    rows: Ints
    corners: Ints
    side: int


def paste(bench: Bench, into: Ints, source: Ints, take: Ints, put: Ints, side: int) -> Tensor:
    """Pictures ``into`` with a square of pictures ``source`` (from ``take``) at ``put``; all arrays one a picture."""
    made = bench.inputs[into].clone()
    for row in range(len(made)):
        (ty, tx), (py, px) = take[row], put[row]
        made[row, :, py : py + side, px : px + side] = bench.inputs[
            int(source[row]), :, ty : ty + side, tx : tx + side
        ]
    return made


def transplant(bench: Bench, kind: int, seed: int = 0) -> Effect:
    """The effect of a class's strongest evidence windows; the size is chosen on half A, everything counted on B."""
    random = np.random.default_rng([seed, kind])
    side = _best_side(bench, kind, random)
    own = known(bench, kind, False)
    if not len(own):
        return none("patch", kind)
    maps = evidence(bench, own, kind)
    windows = Windows(own, strongest(maps, side), side)
    order = random.permutation(len(own))[:SOURCES]
    targets = others(bench, kind, False, TARGETS, random)
    made, control = _sufficiency(bench, kind, windows, order, targets[:FIRST], random, lean=bench.lean)
    if bench.lean and made.size and made.mean() < WORTH:
        shown = {"side": side, "sources": own[order], "own": own, "own_corners": windows.corners}
        return idle("patch", kind, crossed(made), shown)
    if made.size and made.mean() >= WORTH:
        more_made, more_control = _sufficiency(bench, kind, windows, order, targets[FIRST:], random)
        made, control = np.concatenate([made, more_made], 1), np.concatenate([control, more_control], 1)
    lost, spared = _necessity(bench, kind, windows, random)
    if not (made.size and lost.size):
        return none("patch", kind)
    return Effect(
        "patch", kind, crossed(made), crossed(lost), crossed(control),
        crossed(made - control), crossed(lost - spared), more(made - control),
        {
            "side": side, "sources": own[order], "corners": windows.corners[order],
            "targets": targets[: made.shape[1]],
            "rates": made.mean(1), "became": made, "own": own, "own_corners": windows.corners,
            "necessity_control": crossed(spared),
        },
    )  # fmt: skip


def known(bench: Bench, kind: int, half: bool) -> Ints:
    """A class's pictures of one half that the network gets right (of the others, nothing can be lost)."""
    rows = bench.rows(kind, half=half)
    right = rows[bench.prediction[rows] == kind]
    return right if len(right) else rows[:0]


def others(bench: Bench, kind: int, half: bool, most: int, random: np.random.Generator) -> Ints:
    """Pictures of other classes that are not taken for this one, as evenly over the classes as can be."""
    rows = bench.rows(kind, half=half, other=True)
    rows = random.permutation(rows[bench.prediction[rows] != kind])
    place = np.zeros(len(rows), np.int64)
    seen: dict[int, int] = {}
    for number, row in enumerate(rows):
        label = int(bench.truth[row])
        place[number] = seen[label] = seen.get(label, -1) + 1
    return np.asarray(rows[np.argsort(place, kind="stable")][:most])


def _sufficiency(
    bench: Bench,
    kind: int,
    windows: Windows,
    order: Ints,
    targets: Ints,
    random: np.random.Generator,
    control: bool = True,
    lean: bool = False,
) -> tuple[Floats, Floats]:
    """Which targets become the class by each source's window, and by a random window of it; sources × targets."""
    count, wide = len(order), len(targets)
    corners = windows.corners[order]
    away = elsewhere(corners, windows.side, bench.size, random)
    source = np.repeat(windows.rows[order], wide)
    into = np.tile(targets, count)
    put = np.repeat(corners, wide, 0)
    plain = np.repeat(away, wide, 0)

    def pasted(take: Ints) -> Floats:
        def make(at: Ints) -> Tensor:
            return paste(bench, into[at], source[at], take[at], put[at], windows.side)

        said: Floats = (bench.ask(count * wide, make) == kind).astype(np.float64)
        return said.reshape(count, wide)

    made = pasted(put)
    if not control or (lean and made.size and made.mean() < WORTH):
        return made, np.zeros_like(made)
    return made, pasted(plain)


def _necessity(bench: Bench, kind: int, windows: Windows, random: np.random.Generator) -> tuple[Floats, Floats]:
    """Which own pictures are lost when their window is replaced, and when a random one is; ``[1, n]`` each."""
    own = windows.rows
    foreign = others(bench, kind, False, 10 * TARGETS, random)
    if len(own) == 0 or len(foreign) == 0:
        return np.zeros((0, 0)), np.zeros((0, 0))
    donor = random.choice(foreign, len(own), replace=len(foreign) < len(own))
    away = elsewhere(windows.corners, windows.side, bench.size, random)

    def make(numbers: Ints) -> Tensor:
        at = numbers % len(own)
        where = np.where((numbers < len(own))[:, None], windows.corners[at], away[at])
        return paste(bench, own[at], donor[at], where, where, windows.side)

    lost = (bench.ask(2 * len(own), make) != kind).astype(np.float64).reshape(2, 1, len(own))
    return lost[0], lost[1]


def _best_side(bench: Bench, kind: int, random: np.random.Generator) -> int:
    """The side whose windows do most in half A; the smallest of equals."""
    listed = sides(bench.size)
    own = known(bench, kind, True)[:TRY_SOURCES]
    targets = others(bench, kind, True, TRY_TARGETS, random)
    if len(own) == 0 or len(targets) == 0:
        return listed[len(listed) // 2]
    maps = evidence(bench, own, kind)
    gains = []
    for side in listed:
        windows = Windows(own, strongest(maps, side), side)
        gains.append(float(_sufficiency(bench, kind, windows, np.arange(len(own)), targets, random, False)[0].mean()))
    return listed[int(np.argmax(np.round(gains, 2)))]


def cut(image: Tensor, corner: Ints, side: int) -> Tensor:
    """A square of a picture ``[C, H, W]``."""
    y, x = (int(one) for one in corner)
    return torch.as_tensor(image[:, y : y + side, x : x + side])

"""Counterexamples out of a finding: pictures with a class's mark that are not it, and pictures of it without.

Nobody has to label anything: what was pasted, added, replaced or taken does not change what a picture shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import UsageError
from ..shortcuts import families
from ..shortcuts.bench import Bench, Ints
from ..shortcuts.changes import Change
from ..shortcuts.template import template
from ..shortcuts.transplant import paste
from ..shortcuts.windows import evidence, strongest

#: a spot is cut out somewhat larger than it was found: what is left of a mark is a mark
LARGER = 4 / 3
#: how often each picture of the class is used in fitting, with another donor each time
AGAIN = 8
#: share of other classes' pictures that a third class's ring must leave right
LEFT = 0.85
#: families whose change is made of the other pictures' parts, not computed once
_SWAPPED = ("border", "background")


@dataclass(frozen=True, eq=False)
class Examples:
    """Changed pictures of one part of a collection, made when they are asked for.

    Args:
        bench: the pictures of the part.
        truth: int64 ``[n]``, as before the change.
        group: int64 ``[n]``: 1 carries a foreign mark, 2 is without its own.
        source: the row of each in the bench.
        make: numbers in 0..n - 1 -> inputs ``[B, C, H, W]``.
    """

    bench: Bench
    truth: NDArray[np.int64]
    group: NDArray[np.int64]
    source: Ints
    make: Callable[[Ints], Tensor]

    def __len__(self) -> int:
        return len(self.truth)

    def batches(self, size: int = 64) -> Any:
        """All of them, batch by batch."""
        for start in range(0, len(self), size):
            yield self.make(np.arange(start, min(start + size, len(self))))


@dataclass(frozen=True)
class Fault:
    """What of a finding a repair needs: the family, the class, the side of a spot, the width of a border,
    and how often a mark is taken."""

    family: str
    kind: int
    side: int = 0
    width: int = 0
    dose: float = 0.0

    @classmethod
    def of(cls, evidence: Mapping[str, Any], labels: Sequence[str] | None) -> Fault:
        """From a finding's evidence. Raises :class:`UsageError` where it is of a kind that a head cannot repair."""
        family = str(evidence.get("family", ""))
        if family not in ("patch", "template", "colour", "spectrum", "border", "background", "jpeg", "blur"):
            raise UsageError(
                f"A head is fitted against shortcuts that pictures carry, not against {family or 'this'!r}."
            )
        kind = evidence.get("class_index")
        if kind is None:
            raise UsageError("This finding is about the whole network, not about one class: name a class's finding.")
        if labels is not None and evidence.get("class") not in (None, labels[int(kind)]):
            raise UsageError(f"The finding is about {evidence['class']!r}, which is another class of this network.")
        return cls(
            family, int(kind), int(evidence.get("side") or 0), int(evidence.get("width") or 0),
            float(evidence.get("dose") or 0.0),
        )  # fmt: skip


def examples(fault: Fault, part: Bench, learnt: Bench, seed: int, again: int = 1) -> Examples:
    """The counterexamples of one part, of its own pictures alone.

    Args:
        fault: what was found.
        part: the pictures of the part: sources and donors are among them.
        learnt: the pictures that templates, colours and spectra may be computed from (never those that prove).
        seed: of the choice of donors.
        again: how often each picture of the class is used.
    """
    if fault.family == "patch":
        return _spots(fault, part, seed, again)
    if fault.family == "border":
        fault = replace(fault, width=_gentle(fault, learnt, seed))
    change = _change(fault, part if fault.family in _SWAPPED else learnt, seed)
    own, others = part.rows(fault.kind), part.rows(fault.kind, other=True)
    parts = [(others, change.add, 1), (own, change.take, 2)]
    used = [(rows, make, group) for rows, make, group in parts if make is not None]
    rows = np.concatenate([rows for rows, _, _ in used])
    group = np.concatenate([np.full(len(rows), group) for rows, _, group in used])

    def made(numbers: Ints) -> Tensor:
        found = torch.empty((len(numbers), *part.inputs.shape[1:]))
        for _, make, number in used:
            flags = group[numbers] == number
            if flags.any():
                at = rows[numbers[flags]]
                assert make is not None
                found[torch.from_numpy(flags)] = part.clip(make(part.inputs[at], at))
        return found

    return Examples(part, part.truth[rows], group, rows, made)


def _gentle(fault: Fault, learnt: Bench, seed: int) -> int:
    """The widest ring, up to the one that was found, that leaves the things: things reach into wide rings.

    Where a third class's ring makes the network miss other classes, what shows is no longer what the label says.
    """
    name = f"ring of {fault.kind}, {fault.width}"
    if name not in learnt.tables:
        short = min(learnt.size)
        widths = sorted({max(1, round(short * share)) for share in families.RINGS}, reverse=True)
        able = [one for one in widths if not fault.width or one <= fault.width] or widths[-1:]
        whole = learnt.take(np.arange(len(learnt.truth)), half=False)
        rows = whole.rows(fault.kind, other=True)
        rows = rows[whole.prediction[rows] == whole.truth[rows]]
        rows = rows[:: max(1, len(rows) // 100)]
        kept = []
        for width in able:
            swapped = families.border(whole, fault.kind, seed, width).plain
            assert swapped is not None
            said = whole.ask(len(rows), lambda at, put=swapped: put(whole.inputs[rows[at]], rows[at]))  # type: ignore[misc]
            kept.append(float((said == whole.truth[rows]).mean()) if len(rows) else 1.0)
            if kept[-1] >= LEFT:
                break
        learnt.tables[name] = np.array([able[len(kept) - 1]], np.float64)
    return int(learnt.tables[name][0])


def _change(fault: Fault, bench: Bench, seed: int) -> Change:
    whole = bench.take(np.arange(len(bench.truth)), half=fault.family not in _SWAPPED)
    if fault.family == "template":
        return template(whole, fault.kind, seed, fault.dose or None)
    if fault.family in ("jpeg", "blur"):
        return families.round_trip(whole, fault.kind, fault.family, fault.dose or None)
    if fault.family == "border":
        return families.border(whole, fault.kind, seed, fault.width or None)
    maker: Callable[[Bench, int, int], Change] = getattr(families, fault.family)
    return maker(whole, fault.kind, seed)


def _spots(fault: Fault, part: Bench, seed: int, again: int) -> Examples:
    random = np.random.default_rng([seed, fault.kind, len(part.truth)])
    own, others = part.rows(fault.kind), part.rows(fault.kind, other=True)
    height, width = part.size
    side = min(round(fault.side * LARGER), height, width)
    found = strongest(evidence(part, own, fault.kind), fault.side)
    corners = np.clip(found - (side - fault.side) // 2, 0, [height - side, width - side])
    others = np.tile(others, 1 if again == 1 else 2)
    giver = random.integers(0, len(own), len(others))
    receiver = np.tile(np.arange(len(own)), again)
    donor = random.choice(part.rows(fault.kind, other=True), len(receiver))
    into = np.concatenate([others, own[receiver]])
    source = np.concatenate([own[giver], donor])
    where = np.concatenate([corners[giver], corners[receiver]])

    def make(numbers: Ints) -> Tensor:
        return paste(part, into[numbers], source[numbers], where[numbers], where[numbers], side)

    group = np.repeat([1, 2], [len(others), len(receiver)])
    return Examples(part, part.truth[into], group, into, make)

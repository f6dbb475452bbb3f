"""Changes of the whole picture, and what they do to a class: the same count for templates, colours, rings and the rest.

A change is made from half A. On half B it is put on pictures of other classes (how many become the class?), and its
opposite on the class's own (how many are lost?), with an equally large change that has nothing to do with the class
as control.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..statistics import Interval, share
from .bench import Bench, Ints
from .effects import Effect, Floats, more, none
from .transplant import FIRST, TARGETS, WORTH, known, others

#: inputs ``[B, C, H, W]`` and their rows -> changed inputs
Make = Callable[[Tensor, Ints], Tensor]


@dataclass(frozen=True)
class Change:
    """What is put on others, what is done to the class's own, and the controls of both.

    Args:
        family: its name in the results.
        add: makes others the class; None where it cannot be asked.
        plain: the control of ``add``.
        take: unmakes the class's own.
        bare: the control of ``take``.
        shown: what a page needs.
    """

    family: str
    add: Make | None
    plain: Make | None
    take: Make | None
    bare: Make | None
    shown: Mapping[str, Any] = field(default_factory=dict)


def effect(bench: Bench, kind: int, change: Change, seed: int = 0) -> Effect:
    """What ``change`` does on half B."""
    random = np.random.default_rng([seed, kind, 1])
    targets = others(bench, kind, False, TARGETS, random)
    own = random.permutation(known(bench, kind, False))[:TARGETS]
    if len(targets) < 2 or len(own) < 2:
        return none(change.family, kind)
    made, control = _by_steps(bench, targets, change.add, change.plain, kind, True)
    lost, spared = _by_steps(bench, own, change.take, change.bare, kind, False)
    return Effect(
        change.family, kind, _share(made), _share(lost), _share(control), _paired(made - control),
        _paired(lost - spared), more(made - control),
        {
            **change.shown, "targets": targets[: len(made)], "became": made, "own": own[: len(lost)], "lost": lost,
            "change": change,
        },
    )  # fmt: skip


def _by_steps(
    bench: Bench, rows: Ints, make: Make | None, control: Make | None, kind: int, want: bool
) -> tuple[Floats, Floats]:
    """Which pictures are the class afterwards (``want``) or no longer; the later ones only where the first moved."""
    parts = [rows[:FIRST], rows[FIRST:]]
    found: list[tuple[Floats, Floats]] = []
    for part in parts:
        if found and (not len(part) or found[0][0].mean() < WORTH):
            break
        found.append((_hits(bench, part, make, kind, want), _hits(bench, part, control, kind, want)))
    return np.concatenate([one for one, _ in found]), np.concatenate([other for _, other in found])


def _hits(bench: Bench, rows: Ints, make: Make | None, kind: int, want: bool) -> Floats:
    if make is None:
        return np.zeros(len(rows))
    said = bench.ask(len(rows), lambda numbers: bench.clip(make(bench.inputs[rows[numbers]], rows[numbers])))
    return np.asarray((said == kind) == want, np.float64)


def _share(flags: Floats) -> Interval:
    return share(int(flags.sum()), len(flags))


def _paired(differences: Floats) -> Interval:
    """The mean of differences of -1, 0 and 1 with the interval of Agresti & Min (2005) for matched pairs."""
    from scipy import stats

    count, ups, downs = (
        len(differences) + 2,
        float((differences > 0).sum()) + 0.5,
        float((differences < 0).sum()) + 0.5,
    )
    centre = (ups - downs) / count
    spread = stats.norm.ppf(0.975) * np.sqrt(max(ups + downs - (ups - downs) ** 2 / count, 0.0)) / count
    mean = float(differences.mean())
    return Interval(mean, min(float(max(centre - spread, -1)), mean), max(float(min(centre + spread, 1)), mean))


def groups(bench: Bench, kind: int, random: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """Half A's pictures of the class, as many of the others at random (for a control), and all the others."""
    own = bench.rows(kind, half=True)
    rest = bench.rows(kind, half=True, other=True)
    return own, np.sort(random.permutation(rest)[: max(2, min(len(own), len(rest) // 2))]), rest


def pixels(bench: Bench, inputs: Tensor) -> Tensor:
    """Inputs as values in 0..1."""
    return bench.model.preprocessing.denormalise(inputs)


def inputs(bench: Bench, values: Tensor) -> Tensor:
    """Values in 0..1 as inputs."""
    return bench.model.preprocessing.normalise(values.clamp(0, 1))


def averaged(bench: Bench, rows: Ints, figure: Callable[[Tensor], Tensor]) -> Tensor:
    """The mean over pictures of ``figure`` of their values in 0..1, float64, without all of them in memory at once."""
    total: Tensor | None = None
    for start in range(0, len(rows), 64):
        part = figure(pixels(bench, bench.inputs[rows[start : start + 64]])).double().sum(0)
        total = part if total is None else total + part
    assert total is not None
    return torch.as_tensor(total / len(rows))

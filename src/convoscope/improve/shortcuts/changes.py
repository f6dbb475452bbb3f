"""Changes of the whole picture, and what they do to a class: the same count for templates, colours, rings and the rest.

A change is made from half A. On half B it is put on pictures of other classes (how many become the class?), and its
opposite on the class's own (how many are lost?), with an equally large change that has nothing to do with the class
as control.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..statistics import Interval, share
from .bench import Bench, Ints
from .carried import CARRIED
from .effects import Effect, Floats, idle, more, none
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
        carried: how well the mark alone tells the class's pictures from others', as an area under the curve; None where
            that is not asked. A class is not decided by what its pictures do not carry.
    """

    family: str
    add: Make | None
    plain: Make | None
    take: Make | None
    bare: Make | None
    shown: Mapping[str, Any] = field(default_factory=dict)
    carried: float | None = None

    @property
    def carries(self) -> bool:
        """Whether the class's pictures carry it."""
        return self.carried is None or self.carried >= CARRIED


def effect(bench: Bench, kind: int, change: Change, seed: int = 0) -> Effect:
    """What ``change`` does on half B."""
    random = np.random.default_rng([seed, kind, 1])
    targets = others(bench, kind, False, TARGETS, random)
    own = random.permutation(known(bench, kind, False))[:TARGETS]
    if len(targets) < 2 or len(own) < 2:
        return none(change.family, kind)
    made, control = _by_steps(bench, targets, change.add, change.plain, kind, True)
    if bench.lean and change.carried is None and made.mean() < WORTH:
        return idle(change.family, kind, _share(made), change.shown)
    lost, spared = _by_steps(bench, own, change.take, change.bare, kind, False)
    # two questions, one test: the surer of the two, for both
    p = min(1.0, 2 * min(more(made - control), more(lost - spared)))
    return Effect(
        change.family, kind, _share(made), _share(lost), _share(control), _paired(made - control),
        _paired(lost - spared), p,
        {
            **change.shown, "targets": targets[: len(made)], "became": made, "own": own[: len(lost)], "lost": lost,
            "change": change, "necessity_control": _share(spared), "carried": change.carried,
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
        hits = _hits(bench, part, make, kind, want)
        alone = bench.lean and not found and hits.mean() < WORTH  # nothing to hold against anything
        found.append((hits, np.zeros(len(part)) if alone else _hits(bench, part, control, kind, want)))
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


def dearest(bench: Bench, kind: int, changes: Sequence[Change]) -> int:
    """The number of the change whose taking costs most of half A's own pictures, beyond its control."""
    own = bench.rows(kind, half=True)
    own = own[bench.prediction[own] == kind]
    costs = []
    for one in changes:
        lost = [
            float(_hits(bench, own, make, kind, False).mean()) if len(own) else 0.0 for make in (one.take, one.bare)
        ]
        costs.append(lost[0] - lost[1])
    return int(np.argmax(costs))


def pixels(bench: Bench, inputs: Tensor) -> Tensor:
    """Inputs as values in 0..1."""
    return bench.model.preprocessing.denormalise(inputs)


def inputs(bench: Bench, values: Tensor) -> Tensor:
    """Values in 0..1 as inputs."""
    return bench.model.preprocessing.normalise(values.clamp(0, 1))


def by_class(bench: Bench, name: str, figure: Callable[[Tensor], Tensor]) -> dict[int, tuple[Tensor, int]]:
    """The sum over each class's pictures of half A of ``figure`` of their values in 0..1, and their number.

    Measured once a bench, float64, without all of them in memory at once.
    """
    if name not in bench.sums:
        found = {}
        for kind in bench.classes:
            rows = bench.rows(kind, half=True)
            if len(rows):
                total: Tensor | None = None
                for part in (rows[at : at + 64] for at in range(0, len(rows), 64)):
                    some = figure(pixels(bench, bench.inputs[part])).double().sum(0)
                    total = some if total is None else total + some
                assert total is not None
                found[kind] = (total, len(rows))
        bench.sums[name] = found
    return bench.sums[name]


#: what :func:`less_rest` compares
FIGURES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "level": lambda values: values,
    "colour": lambda values: values.mean((2, 3)),
    "amplitude": lambda values: torch.fft.rfft2(values).abs().clamp(min=1e-4).log(),
}


def means(bench: Bench, name: str, kind: int) -> tuple[Tensor, Tensor]:
    """The mean of a figure of :data:`FIGURES` over the class's pictures of half A, and over all the others'."""
    sums = by_class(bench, name, FIGURES[name])
    total, count = sums[kind]
    rest = sum((one for label, (one, _) in sums.items() if label != kind), torch.zeros_like(total))
    others_count = sum(number for label, (_, number) in sums.items() if label != kind)
    return (total / count).float(), (rest / max(1, others_count)).float()


def less_rest(bench: Bench, name: str, kind: int) -> Tensor:
    """The class's mean less that of the others."""
    own, rest = means(bench, name, kind)
    return own - rest


def table_of(bench: Bench, name: str, figure: Callable[[Tensor], Any]) -> NDArray[np.float64]:
    """``figure`` of all pictures' values in 0..1, a row a picture, measured once a bench."""
    if name not in bench.tables:
        parts = [figure(pixels(bench, part)) for part in torch.split(bench.inputs, 64)]
        bench.tables[name] = np.concatenate(parts)
    return bench.tables[name]

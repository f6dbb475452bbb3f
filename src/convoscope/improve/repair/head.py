"""Repair of the head: counterexamples made from a finding, or groups that the user names; one layer changes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...engine.passes.untouched import innermost
from ...errors import UsageError
from ...models.model import Model
from ..shortcuts.bench import Bench
from .attempt import Attempt
from .examples import AGAIN, Examples, Fault, examples
from .fit import PULLS, Fitted, balance, fit
from .gate import TOLERATED, Measured, judge, log_chance
from .headed import Head, features, head_of
from .split import FOLDS, PROOF

Ints = NDArray[np.int64]

#: how much the faulty classes' groups count beside the others', and ordinary pictures beside counterexamples
EMPHASES = ((1.0, 1.0), (2.0, 1.0), (2.0, 4.0), (4.0, 4.0))
#: the pulls that are tried against a shortcut: what the head leant on must be free to go, but not at any price
SHORT = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def repair_head(
    bench: Bench, part: Ints, faults: Sequence[Fault], seed: int = 0, proof: Bench | None = None
) -> Attempt:
    """Fit the head against shortcuts, with nobody labelling anything.

    Args:
        bench: the pictures.
        part: of each picture, as :func:`.split.parts` says: folds, and :data:`.split.PROOF`.
        faults: what was found.
        seed: of donors.
        proof: other pictures that prove, instead of that part.

    Returns:
        a network with another head, and what it shows on the pictures that prove.
    """
    learnt = bench.take(np.flatnonzero(part != PROOF))
    benches = [bench.take(np.flatnonzero(part == number)) for number in range(FOLDS)]
    benches.append(proof if proof is not None else bench.take(np.flatnonzero(part == PROOF)))
    for one in benches:
        few = [f for f in faults if len(one.rows(f.kind)) < 3]
        if few:
            name = bench.model.label(few[0].kind)
            raise UsageError(
                f"No held-out pictures are left: there are {len(bench.rows(few[0].kind))} of {name}, and at least 3 "
                f"are needed in each of {FOLDS + 1} parts, to fit, to choose and to prove."
            )
    head = head_of(bench.model, bench.inputs[:4])
    sets = [
        _Set(bench.model, head, one, [examples(fault, one, learnt, seed, again) for fault in faults])
        for one, again in zip(benches, [AGAIN] * FOLDS + [1], strict=True)
    ]
    kinds = [fault.kind for fault in faults]
    fitted = choose(head, sets[:FOLDS], _rows(head, bench), SHORT, kinds)
    module = with_head(bench.model, head, fitted)
    held = sets[PROOF]
    before, after = held.scores(head), held.scores(head, fitted)
    right = [scores.argmax(1) == held.truth for scores in (before, after)]
    plain = held.kind == 0
    ordinary = Measured(right[0][plain], right[1][plain])
    target = Measured(right[0][~plain], right[1][~plain])
    what = "held-out counterexamples"
    named = " and ".join(dict.fromkeys(bench.model.label(f.kind) for f in faults))
    proved = judge(
        what, ordinary, target.gain, "points", target,
        {
            "p": target.p, "pull": fitted.pull, "worst_group": _worst(held, right, faults),
            "counterexamples_fitted": int(sum((one.kind != 0).sum() for one in sets[:FOLDS])),
            "pictures_fitted": int(sum((one.kind == 0).sum() for one in sets[:FOLDS])),
        },
        (
            f"Counterexamples are made, not found: real pictures of {named} without the shortcut were not among those "
            "that prove.",
            "The layers before the head still see the mark; only the classes no longer follow it.",
        ),
    )  # fmt: skip
    return Attempt("head", module, proved, {"layer": head.name})


def repair_groups(
    bench: Bench, part: Ints, groups: Sequence[str], seed: int = 0, *, pulls: Sequence[float] = PULLS,
    proof: tuple[Bench, Sequence[str]] | None = None,
) -> Attempt:  # fmt: skip
    """Deep feature reweighting: the head fitted anew so that every named group counts the same.

    Kirichenko, Izmailov, Wilson: Last Layer Re-Training is Sufficient for Robustness to Spurious Correlations. ICLR
    2023. Any number of classes and groups; groups are balanced by weights instead of by leaving pictures out, and
    the pull is towards the old head.

    Args:
        bench: the pictures.
        part: of each, as there.
        groups: the group's name of each picture.
        pulls: strengths of the pull that are tried.
        proof: other pictures with their groups that prove, instead of that part.
    """
    head = head_of(bench.model, bench.inputs[:4])
    names = np.asarray(groups, dtype=object)
    listed = sorted(set(groups))
    if len(listed) < 2:
        raise UsageError(f"--groups names {len(listed)} group; at least 2 are needed to balance anything.")
    index = np.array([listed.index(str(one)) for one in names])
    sets = []
    for number in range(FOLDS + 1):
        rows = np.flatnonzero(part == number)
        if number == PROOF and proof is not None:
            place = {name: at for at, name in enumerate(listed)}
            other = np.array([place.get(one, len(listed)) for one in proof[1]], np.int64)
            sets.append(_Set(bench.model, head, proof[0], [], other))
        else:
            sets.append(_Set(bench.model, head, bench.take(rows), [], index[rows]))
    missing = [listed[one] for one in range(len(listed)) if any(not (s.group == one).any() for s in sets)]
    if missing:
        raise UsageError(
            f"Group {missing[0]!r} has too few pictures: every group must lie in each of {FOLDS + 1} parts (to fit, to "
            "choose, to prove), which takes at least 6."
        )
    fitted = choose(head, sets[:FOLDS], _rows(head, bench), pulls)
    held = sets[PROOF]
    before, after = held.scores(head), held.scores(head, fitted)
    right = [scores.argmax(1) == held.truth for scores in (before, after)]
    # the worst group is named by the pictures that fit, and judged by those that prove
    chosen = np.concatenate([one.scores(head).argmax(1) == one.truth for one in sets[:FOLDS]])
    seen = np.concatenate([one.group for one in sets[:FOLDS]])
    low = min(range(len(listed)), key=lambda one: float(chosen[seen == one].mean()))
    inside = held.group == low
    target = Measured(right[0][inside], right[1][inside])
    table = {
        name: [float(flags[held.group == one].mean()) for flags in right] for one, name in enumerate(listed)
    }  # fmt: skip
    proved = judge(
        f"the worst group ({listed[low]}, held out)", Measured(*right), target.gain, "points", target,
        {"p": target.p, "pull": fitted.pull, "groups": table},
        ("Groups that nobody named are not looked at.",),
    )  # fmt: skip
    return Attempt("head", with_head(bench.model, head, fitted), proved, {"layer": head.name})


class _Set:
    """One part: the features of its pictures and of its counterexamples."""

    def __init__(
        self, model: Model, head: Head, bench: Bench, made: Sequence[Examples], group: Ints | None = None
    ) -> None:
        self.bench = bench
        size = max(64, model.batch_size)
        found = [features(model, head, torch.split(bench.inputs, size))]
        found += [features(model, head, one.batches(size)) for one in made if len(one)]
        self.features = torch.cat(found)
        self.truth = np.concatenate([bench.truth, *(one.truth for one in made)])
        #: 0 ordinary, then 1 and 2 of the first fault, 3 and 4 of the second, ...
        self.kind = np.concatenate(
            [np.zeros(len(bench.truth), np.int64), *(one.group + 2 * number for number, one in enumerate(made))]
        )
        self.group = group if group is not None else self.kind * (int(bench.scores.shape[1]) + 1) + self.truth

    def scores(self, head: Head, fitted: Fitted | None = None) -> NDArray[np.float32]:
        weight, bias = (None, None) if fitted is None else (fitted.weight, fitted.bias)
        with torch.no_grad():
            return torch.cat([head.scores(part, weight, bias) for part in torch.split(self.features, 256)]).numpy()


def choose(
    head: Head, folds: Sequence[_Set], rows: Sequence[int] | None, pulls: Sequence[float] = PULLS,
    kinds: Sequence[int] = (),
) -> Fitted:  # fmt: skip
    """The pull (and how much the faulty classes count) that serves held-out folds best; then fitted on all of them.

    Best is the most likelihood where ordinary pictures, those of the faulty classes, carriers of a foreign mark and
    pictures without their own all count the same. What loses ordinary accuracy on the folds held out is passed over
    where another does not.
    """
    tried: list[tuple[float, float, float, tuple[float, float]]] = []
    for emphasis in EMPHASES if kinds else EMPHASES[:1]:
        for pull in pulls:
            value, fall, count = 0.0, 0, 0
            for out, held in enumerate(folds):
                one = _fitted(
                    head, [fold for at, fold in enumerate(folds) if at != out], rows, pull, kinds, emphasis, False
                )
                scores, plain = held.scores(head, one), held.kind == 0
                old = held.scores(head).argmax(1) == held.truth
                fall += int(old[plain].sum()) - int((scores.argmax(1) == held.truth)[plain].sum())
                count += int(plain.sum())
                value += float((log_chance(scores, held.truth) * balance(_blocks(held, kinds)).numpy()).mean())
            tried.append((-max(fall / count, TOLERATED), value, pull, emphasis))
    _, _, pull, emphasis = max(tried)
    return _fitted(head, folds, rows, pull, kinds, emphasis)


def _fitted(
    head: Head, sets: Sequence[_Set], rows: Sequence[int] | None, pull: float, kinds: Sequence[int],
    emphasis: tuple[float, float], exact: bool = True,
) -> Fitted:  # fmt: skip
    truth = np.concatenate([one.truth for one in sets])
    weights = balance(np.concatenate([one.group for one in sets]))
    weights[torch.from_numpy(np.isin(truth, kinds))] *= emphasis[0]
    if kinds:
        weights[torch.from_numpy(np.concatenate([one.kind for one in sets]) == 0)] *= emphasis[1]
    return fit(head, torch.cat([one.features for one in sets]), truth, weights, pull, rows=rows, exact=exact)


def _blocks(held: _Set, kinds: Sequence[int]) -> Ints:
    """Ordinary pictures, those of the faulty classes, and each kind of counterexample; groups where they are named."""
    if not kinds:
        return np.asarray(held.group)
    return np.where(held.kind == 0, np.isin(held.truth, kinds).astype(np.int64) - 2, held.kind)


def with_head(model: Model, head: Head, fitted: Fitted) -> nn.Module:
    """A copy of the network with another head; the original is not touched."""
    module = copy.deepcopy(model.module)
    layer: Any = dict(innermost(module).named_modules())[head.name]
    with torch.no_grad():
        layer.weight.copy_(fitted.weight.reshape(layer.weight.shape))
        if layer.bias is not None and fitted.bias is not None:
            layer.bias.copy_(fitted.bias)
    return module


def _rows(head: Head, bench: Bench) -> list[int] | None:
    """The classes whose weights may change: those that there are pictures of."""
    present = bench.classes
    return None if len(present) == len(head.weight) else present


def _worst(held: _Set, right: Sequence[NDArray[np.bool_]], faults: Sequence[Fault]) -> dict[str, Any]:
    """For each fault: carriers of a foreign mark and pictures without their own, before and after."""
    label = held.bench.model.label
    return {
        label(fault.kind): {
            name: [float(flags[held.kind == 2 * number + code].mean()) for flags in right]
            for code, name in ((1, "others with the mark"), (2, "its own without the mark"))
            if (held.kind == 2 * number + code).any()
        }
        for number, fault in enumerate(faults)
    }

"""Which differences are announced: only those that the correction for all tests leaves standing."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..finding import Finding, ranked
from ..statistics import LEVEL, Interval
from .calibration import Drift
from .compare import Comparison, Group
from .sides import Side

#: pictures that a command names at most
NAMED = 4


def findings(
    a: Side, b: Side, compared: Comparison, drift: Drift | None, pictures: str = "PICTURES"
) -> list[Finding]:
    """Regressions from A to B, and calibration that became worse; an improvement is no finding.

    A group is announced where its p value, corrected for all groups of the comparison, is at most 5 % and more was
    lost than won. A slice is announced only where its class is not.

    Args:
        a: before.
        b: after.
        compared: their comparison.
        drift: of the calibration; None without truth.
        pictures: how a command names the pictures.
    """
    found: list[Finding] = []
    if compared.whole is not None:
        stands = [one for one in [compared.whole, *compared.classes] if _worse(one)]
        named = {one.class_name for one in stands}
        stands += [one for one in compared.slices if _worse(one) and one.class_name not in named]
        found += [_regression(one, a, b, len(compared.known), compared) for one in stands]
    if drift is not None and drift.p <= LEVEL and drift.error.mean > 0 and drift.error.low > 0:
        found.append(_calibration(a, b, drift, compared, pictures))
    return ranked(found)


def _worse(group: Group) -> bool:
    return group.adjusted <= LEVEL and group.net > 0


def _regression(group: Group, a: Side, b: Side, count: int, compared: Comparison) -> Finding:
    fall = _negated(group.difference())
    total = len(group.rows)
    clearest = _clearest(group, b)
    taken = Counter(b.predicted(int(row)) for row in group.lost)
    what, often = taken.most_common(1)[0]
    before, after = (one.mean for one in group.accuracy)
    where = f"{group.name}: " if group.class_name is not None else ""
    of = f"{total:,} pictures" if group.class_name is None else f"its {total:,} pictures"
    sentence = (
        f"{where}{b.name} is right about {after:.1%} of {of}, {a.name} about {before:.1%}: "
        f"{len(group.lost)} lost, {len(group.won)} won."
    )
    if group.class_name is not None or often > len(group.lost) / 2:
        sentence += f" {often} of the lost ones are taken for {what}."
    at_stake = [one for one in compared.classes if _worse(one)] if group.class_name is None else []
    if at_stake:
        worst = max(at_stake, key=lambda one: one.net)
        sentence += f" {len(worst.lost)} of the {len(group.lost)} lost are {worst.name}."
    uris = tuple(a.pictures.uris[row] for row in clearest)
    doubt = "It holds for pictures such as these. " + (
        "The slice is a cluster of what both networks predict: what its pictures share is for you to see."
        if group.name != group.class_name and group.class_name is not None
        else "What the lost pictures have in common is not said by this test."
    )
    target = a.label(int(a.pictures.truth[clearest[0]]))
    return Finding(
        "regression", sentence, fall.mean, fall.low, fall.high, group.class_name, uris, doubt,
        explain_command(b, uris, target), won=group.net / max(1, count), p=group.adjusted,
        evidence={"won": len(group.won), "lost": len(group.lost), "pictures": total, "slice": group.name,
                  "taken_for": dict(taken.most_common(5))},
    )  # fmt: skip


def _negated(value: Interval) -> Interval:
    return Interval(-value.mean, -value.high, -value.low)


def _clearest(group: Group, b: Side) -> list[int]:
    """The lost pictures, those first of whose wrong class B is surest."""
    order = np.argsort(-b.confidence[group.lost], kind="stable")
    return [int(group.lost[i]) for i in order]


def _calibration(a: Side, b: Side, drift: Drift, compared: Comparison, pictures: str) -> Finding:
    rows = compared.known
    sure = b.confidence[rows].mean() - b.right[rows].mean()
    how = "too sure" if sure > 0 else "not sure enough"
    gap = (b.confidence - b.right)[rows] * (1 if sure > 0 else -1)
    worst = rows[np.argsort(-gap, kind="stable")[:6]]
    sentence = (
        f"{b.name}'s confidence is further from its accuracy than {a.name}'s: the calibration error grew by "
        f"{drift.error.mean:.3f}. On average it is {how} by {abs(float(sure)):.3f}."
    )
    return Finding(
        "calibration", sentence, drift.error.mean, drift.error.low, drift.error.high, None,
        tuple(a.pictures.uris[int(row)] for row in worst),
        "A temperature mends the average; single classes may stay off.",
        command(b, "repair", [pictures, "--how", "calibrate", "--out", "fixed.safetensors"]),
        won=0.0, p=drift.p, evidence={"overconfidence": float(sure)},
    )  # fmt: skip


def command(side: Side, name: str, rest: Sequence[str]) -> str:
    """A command line about one network; for a network without a spec the call in Python."""
    if side.spec is None:
        return f"In Python: convoscope.{name}(model, pictures), with the network itself as the model"
    flags = f" {side.options}" if side.options else ""
    return f"convoscope {name} {shlex.quote(side.spec)}{flags} " + " ".join(
        one if one in ("PICTURES",) else shlex.quote(one) for one in rest
    )


def explain_command(side: Side, uris: Sequence[str], target: str) -> str:
    """The command that shows why ``side`` sees these pictures as it does."""
    return command(side, "explain", [*uris[:NAMED], "--target", target, "--target", "top1", "--out", "why"])

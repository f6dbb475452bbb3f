"""Two networks' answers to the same pictures: what was won, what was lost, and whether that can be chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

from ..statistics import Interval, corrected, mcnemar, paired, share
from .sides import Side, common_classes

#: a slice has at least so many pictures; fewer could never be told from chance after the correction
SLICE = 15
#: slices of one class at most
SLICES = 5
F64 = NDArray[np.float64]


@dataclass(eq=False)
class Group:
    """Some pictures of known truth: all, a class, or a slice of one.

    Args:
        name: of the class or the slice; "all pictures" for all.
        class_name: the class concerned; None for all.
        rows: which pictures.
        won: rows of which only B is right.
        lost: rows of which only A is right.
        p: exact McNemar, two-sided.
        adjusted: ``p`` corrected for all groups of this comparison (Benjamini & Hochberg).
        difference: accuracy of B less that of A in the group, with a paired bootstrap interval.
    """

    name: str
    class_name: str | None
    rows: NDArray[np.intp]
    won: NDArray[np.intp]
    lost: NDArray[np.intp]
    p: float
    accuracy: tuple[Interval, Interval]
    adjusted: float = 1.0

    @property
    def net(self) -> int:
        """Pictures lost less pictures won."""
        return len(self.lost) - len(self.won)

    def difference(self, seed: int = 0) -> Interval:
        """Accuracy of B less that of A in the group, with a paired bootstrap interval."""
        values = np.isin(self.rows, self.won).astype(float) - np.isin(self.rows, self.lost)
        return paired(values, draws=1000, seed=seed)

    def to_dict(self) -> dict[str, Any]:
        return {
            "won": len(self.won), "lost": len(self.lost), "p": self.p, "corrected": self.adjusted,
            "pictures": len(self.rows), "a": self.accuracy[0].to_dict(), "b": self.accuracy[1].to_dict(),
        }  # fmt: skip


@dataclass(eq=False)
class Comparison:
    """All that the answers of two networks tell.

    Args:
        known: rows whose truth is a class of both networks.
        whole: the comparison over all of these; None where there is none.
        classes: one a class that has pictures.
        slices: label × cluster of predictions.
        churn: share of all pictures that the two take for different classes; None without class scores.
        churned: rows of these.
        both_wrong: rows.
        notes: what a person must know of it.
    """

    known: NDArray[np.intp]
    whole: Group | None
    classes: list[Group]
    slices: list[Group]
    churn: Interval | None
    churned: NDArray[np.intp]
    both_wrong: NDArray[np.intp]
    notes: list[str] = field(default_factory=list)


def compare(a: Side, b: Side, seed: int = 0) -> Comparison:
    """Compare the predictions of two sides on the same rows.

    Every test is McNemar's on pictures, decided before looking at who won: all pictures, each class, and slices of a
    class by what *both networks together* make of the pictures (k-means of the mean of their probabilities, which
    does not change when A and B are exchanged; slices chosen by what one of them got wrong would always favour the
    other). All p values of one comparison are corrected together.
    """
    nothing = np.zeros(0, np.intp)
    if a.probability is None or b.probability is None:
        who = a.name if a.probability is None else b.name
        return Comparison(nothing, None, [], [], None, nothing, nothing, [f"{who} gives no class scores."])
    pairs = common_classes(a, b)
    notes = _foreign(a, b, pairs)
    map_to_b = np.full(a.probability.shape[1], -2)
    for one, other in pairs.items():
        map_to_b[one] = other
    # a class that B does not have can never be B's answer
    churned = np.flatnonzero(map_to_b[a.prediction] != b.prediction)
    churn = share(len(churned), len(a))
    both = a.known & b.known & np.isin(a.pictures.truth, list(pairs))
    known = np.flatnonzero(both)
    left_out = int((a.known | b.known).sum()) - len(known)
    if left_out:
        notes.append(
            f"{left_out} pictures show a class that only one of the two networks has: they are not compared."
        )
    if not len(known):
        return Comparison(known, None, [], [], churn, churned, nothing, notes)
    whole = _group("all pictures", None, known, a, b)
    truth = a.pictures.truth
    classes = [
        _group(a.label(index), a.label(index), known[truth[known] == index], a, b)
        for index in sorted(set(truth[known].tolist()))
    ]
    slices = [one for group in classes for one in _slices(group, a, b, pairs, seed)]
    every = [whole, *classes, *slices]
    for group, value in zip(every, corrected([group.p for group in every]), strict=True):
        group.adjusted = float(value)
    wrong = known[~a.right[known] & ~b.right[known]]
    return Comparison(known, whole, classes, slices, churn, churned, wrong, notes)


def _foreign(a: Side, b: Side, pairs: dict[int, int]) -> list[str]:
    notes = []
    for side, matched in ((a, set(pairs)), (b, set(pairs.values()))):
        alone = [label for index, label in enumerate(side.labels or ()) if index not in matched]
        if alone:
            listed = ", ".join(alone[:6]) + (f" and {len(alone) - 6} more" if len(alone) > 6 else "")
            notes.append(f"Only {side.name} has the classes {listed}: classes are matched by name.")
    strange = {label: count for label, count in a.pictures.foreign.items() if label in b.pictures.foreign}
    if strange:
        listed = ", ".join(list(strange)[:6]) + (f" and {len(strange) - 6} more" if len(strange) > 6 else "")
        notes.append(f"{sum(strange.values())} pictures have labels that neither network knows: {listed}.")
    return notes


def _group(name: str, class_name: str | None, rows: NDArray[np.intp], a: Side, b: Side) -> Group:
    right_a, right_b = a.right[rows], b.right[rows]
    won, lost = rows[right_b & ~right_a], rows[right_a & ~right_b]
    return Group(
        name, class_name, rows, won, lost, mcnemar(len(won), len(lost)),
        (share(int(right_a.sum()), len(rows)), share(int(right_b.sum()), len(rows))),
    )  # fmt: skip


def _slices(group: Group, a: Side, b: Side, pairs: dict[int, int], seed: int) -> list[Group]:
    count = min(SLICES, len(group.rows) // (2 * SLICE))
    if count < 2 or a.probability is None or b.probability is None:
        return []
    left, right = list(pairs), list(pairs.values())
    mean = (a.probability[group.rows][:, left] + b.probability[group.rows][:, right]) / 2
    # square roots of probabilities: Hellinger's distance, in which small shares count
    points = np.sqrt(np.asarray(mean, np.float64))
    if np.ptp(points, axis=0).max() < 1e-9:
        return []
    _, index = kmeans2(points, count, minit="++", seed=np.random.default_rng(seed))
    found = []
    for cluster in range(count):
        inside = np.flatnonzero(index == cluster)
        if SLICE <= len(inside) <= len(group.rows) - SLICE:
            found.append(
                _group(_named(group, mean[inside].mean(0), left, a), group.class_name, group.rows[inside], a, b)
            )
    return found


def _named(group: Group, mean: F64, left: Sequence[int], a: Side) -> str:
    order = np.argsort(-mean)[:2]
    parts = [f"{a.label(left[int(i)])} {mean[int(i)]:.0%}" for i in order if mean[int(i)] >= 0.05]
    return f"{group.name}, taken for {' or '.join(parts)}"

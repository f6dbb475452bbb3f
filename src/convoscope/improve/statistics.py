"""Intervals, paired tests and corrections: what every claim about a network stands on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]

LEVEL = 0.05
"""Share of false alarms that a corrected test may give; intervals hold 1 - LEVEL."""


@dataclass(frozen=True)
class Interval:
    """A mean with the ends of its 95 % interval."""

    mean: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        return {"mean": self.mean, "low": self.low, "high": self.high}

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


def share(hits: int, count: int, level: float = LEVEL) -> Interval:
    """A share with Wilson's interval (Wilson 1927), which holds for small counts and for shares near 0 and 1.

    Args:
        hits: how many of ``count``.
        count: at least 0; of nothing the share is unknown: 0 in [0, 1].
        level: probability that the truth lies outside.
    """
    if count <= 0:
        return Interval(0.0, 0.0, 1.0)
    ci = stats.binomtest(int(hits), int(count)).proportion_ci(1 - level, method="wilson")
    mean = hits / count
    return Interval(mean, min(float(ci.low), mean), max(float(ci.high), mean))


def mcnemar(won: int, lost: int) -> float:
    """The exact two-sided p of McNemar's test: that ``won`` and ``lost`` flips are equally likely (McNemar 1947).

    Args:
        won: pictures that only the second is right about.
        lost: pictures that only the first is right about.

    Returns:
        p in 0..1; 1 where nothing flipped.
    """
    return 1.0 if won + lost == 0 else float(stats.binomtest(int(won), int(won + lost), 0.5).pvalue)


def paired(differences: ArrayLike, level: float = LEVEL, draws: int = 2000, seed: int = 0) -> Interval:
    """The mean of paired differences with its bootstrap interval (percentiles; Efron & Tibshirani 1993).

    Args:
        differences: one number a picture.
        draws: bootstrap samples.
        seed: of the samples; the same seed gives the same interval.
    """
    values = np.asarray(differences, np.float64)
    if len(values) == 0:
        return Interval(0.0, 0.0, 0.0)
    means = bootstrap(len(values), lambda rows: float(values[rows].mean()), draws, seed)
    low, high = np.quantile(means, [level / 2, 1 - level / 2])
    mean = float(values.mean())
    return Interval(mean, min(float(low), mean), max(float(high), mean))


def bootstrap(count: int, figure: Callable[[NDArray[np.intp]], float], draws: int = 2000, seed: int = 0) -> Floats:
    """``figure`` of ``draws`` samples with replacement of ``count`` rows."""
    random = np.random.default_rng(seed)
    return np.array([figure(random.integers(0, count, count)) for _ in range(draws)], np.float64)


def corrected(p: Sequence[float] | Floats) -> Floats:
    """p values corrected for the number of tests: Benjamini & Hochberg (1995), false discovery rate.

    Args:
        p: one value a test made, those that found nothing included.

    Returns:
        as many adjusted values, in the order given: a test stands at level q where its value is at most q.
    """
    values = np.asarray(p, np.float64)
    return values if len(values) == 0 else np.asarray(stats.false_discovery_control(values, method="bh"), np.float64)


def halves(keys: Sequence[str], labels: Sequence[object] | None = None, seed: int = 0) -> NDArray[np.bool_]:
    """Which pictures are in half A, where findings are made; the others, half B, test them.

    The half follows from a picture's content and the seed alone, so that a copy lies in the half of its original and
    nothing depends on order; with ``labels`` every label is halved as evenly as can be.

    Args:
        keys: a content hash a picture.
        labels: a label a picture.

    Returns:
        one flag a picture.
    """
    digests = [hashlib.sha256(f"{seed}\0{key}".encode()).digest() for key in keys]
    groups: dict[object, list[int]] = {}
    for row in range(len(keys)):
        groups.setdefault(None if labels is None else labels[row], []).append(row)
    flags = np.zeros(len(keys), bool)
    half_of: dict[str, bool] = {}
    for rows in groups.values():
        ordered = sorted(rows, key=lambda row: digests[row])
        for place, row in enumerate(ordered):
            flags[row] = half_of.setdefault(keys[row], place % 2 == 0)
    return flags


def ece(probability: ArrayLike, right: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error over bins of equal width (Guo et al. 2017).

    Args:
        probability: of the predicted class, in 0..1, one a picture.
        right: whether the prediction is right.
        bins: of equal width, closed on the right.

    Returns:
        the mean of |accuracy - confidence|, weighted by the pictures in a bin; 0 for no picture.
    """
    chance, hit = np.asarray(probability, np.float64), np.asarray(right, np.float64)
    if len(chance) == 0:
        return 0.0
    index = np.clip(np.ceil(chance * bins).astype(int) - 1, 0, bins - 1)
    total = np.bincount(index, minlength=bins)
    gaps = np.abs(np.bincount(index, hit, bins) - np.bincount(index, chance, bins))
    return float(gaps[total > 0].sum() / len(chance))

"""How far a network's confidence can be believed, and how it has moved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..statistics import LEVEL, Interval, bootstrap, ece, paired

BINS = 15
DRAWS = 1000
F64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Calibration:
    """One network's expected calibration error (Guo et al. 2017) with its interval, and the curve.

    ``curve`` has a row a bin that holds pictures: ``confidence`` and ``accuracy`` (means), ``pictures``.
    """

    error: Interval
    curve: list[dict[str, float]]

    def to_dict(self) -> dict[str, Any]:
        return {"ece": self.error.to_dict(), "curve": self.curve}


def calibration(confidence: F64, right: NDArray[np.bool_], seed: int = 0) -> Calibration:
    """The error and the reliability curve of predictions with known truth.

    Args:
        confidence: probability of the predicted class, ``[N]``.
        right: whether the prediction is right.

    Returns:
        the error with a bootstrap interval. An error of few pictures is too large on average, since each bin adds
        its noise: the interval is moved by the bias that the bootstrap itself measures, and held at 0.
    """
    mean = ece(confidence, right, BINS)
    draws = bootstrap(len(confidence), lambda rows: ece(confidence[rows], right[rows], BINS), 500, seed)
    low, high = (2 * mean - float(np.quantile(draws, q)) for q in (1 - LEVEL / 2, LEVEL / 2))
    index = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    curve = []
    for one in range(BINS):
        inside = index == one
        if inside.any():
            curve.append(
                {
                    "confidence": float(confidence[inside].mean()),
                    "accuracy": float(right[inside].mean()),
                    "pictures": int(inside.sum()),
                }
            )
    return Calibration(Interval(mean, max(0.0, min(low, mean)), max(high, mean)), curve)


@dataclass(frozen=True)
class Drift:
    """What became of calibration and confidence from A to B.

    Args:
        error: difference of the calibration errors, B less A; with a paired bootstrap interval.
        p: two-sided, by exchanging A and B picture by picture.
        confidence: mean difference of the confidence, B less A.
    """

    error: Interval
    p: float
    confidence: Interval

    def to_dict(self) -> dict[str, Any]:
        return {"ece": self.error.to_dict(), "p": self.p, "confidence": self.confidence.to_dict()}


def drift(a: tuple[F64, NDArray[np.bool_]], b: tuple[F64, NDArray[np.bool_]], seed: int = 0) -> Drift:
    """Compare the calibration of two networks on the same pictures of known truth.

    The test exchanges the two networks' answers picture by picture at random (a permutation test: exact under "the
    two are exchangeable"), so that the bias of the error, which both share, plays no part.

    Args:
        a: confidence and rightness of A, ``[N]`` each.
        b: the same of B.
    """
    (chance_a, right_a), (chance_b, right_b) = a, b
    count = len(chance_a)
    mean = ece(chance_b, right_b, BINS) - ece(chance_a, right_a, BINS)
    draws = bootstrap(
        count, lambda rows: ece(chance_b[rows], right_b[rows], BINS) - ece(chance_a[rows], right_a[rows], BINS), 500,
        seed,
    )  # fmt: skip
    low, high = np.quantile(draws, [LEVEL / 2, 1 - LEVEL / 2])
    p = _exchanged(chance_a, right_a, chance_b, right_b, abs(mean), seed)
    error = Interval(mean, min(float(low), mean), max(float(high), mean))
    return Drift(error, p, paired(chance_b - chance_a, draws=1000, seed=seed))


def _exchanged(
    chance_a: F64, right_a: NDArray[np.bool_], chance_b: F64, right_b: NDArray[np.bool_], found: float, seed: int
) -> float:
    """The share of exchanges whose difference is at least as large; all draws at once, by bins."""
    random = np.random.default_rng(seed)
    gap_a, gap_b = right_a - chance_a, right_b - chance_b
    bins = np.arange(BINS)
    in_a = np.clip(np.ceil(chance_a * BINS).astype(int) - 1, 0, BINS - 1)[:, None] == bins
    in_b = np.clip(np.ceil(chance_b * BINS).astype(int) - 1, 0, BINS - 1)[:, None] == bins
    part_a, part_b = in_a * gap_a[:, None], in_b * gap_b[:, None]
    count = len(gap_a)
    beaten = 0
    for start in range(0, DRAWS, 250):
        swap = (random.random((min(250, DRAWS - start), count)) < 0.5).astype(np.float64)
        moved = swap @ (part_b - part_a)
        one, other = np.abs(part_a.sum(0) + moved).sum(1), np.abs(part_b.sum(0) - moved).sum(1)
        beaten += int((np.abs(one - other) / count >= found - 1e-12).sum())
    return (1 + beaten) / (1 + DRAWS)

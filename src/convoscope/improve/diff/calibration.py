"""How far a network's confidence can be believed, and how it has moved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..statistics import LEVEL, Interval, ece, paired

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
    draws = _resampled([_parts(confidence, right)], seed)[0]
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
    mean = ece(chance_b, right_b, BINS) - ece(chance_a, right_a, BINS)
    first, second = _resampled([_parts(chance_a, right_a), _parts(chance_b, right_b)], seed)
    draws = second - first
    low, high = np.quantile(draws, [LEVEL / 2, 1 - LEVEL / 2])
    p = _exchanged(chance_a, right_a, chance_b, right_b, abs(mean), seed)
    error = Interval(mean, min(float(low), mean), max(float(high), mean))
    return Drift(error, p, paired(chance_b - chance_a, draws=1000, seed=seed))


def _exchanged(
    chance_a: F64, right_a: NDArray[np.bool_], chance_b: F64, right_b: NDArray[np.bool_], found: float, seed: int
) -> float:
    """The share of exchanges whose difference is at least as large; all draws at once, by bins."""
    random = np.random.default_rng(seed)
    part_a, part_b = _parts(chance_a, right_a), _parts(chance_b, right_b)
    whole_a, whole_b, change = part_a.sum(0), part_b.sum(0), part_b - part_a
    count = len(change)
    beaten = 0
    for draws in _pieces(DRAWS, count):
        moved = (random.random((draws, count)) < 0.5).astype(np.float64) @ change
        one, other = np.abs(whole_a + moved).sum(1), np.abs(whole_b - moved).sum(1)
        beaten += int((np.abs(one - other) / count >= found - 1e-12).sum())
    return (1 + beaten) / (1 + DRAWS)


def _parts(chance: F64, right: NDArray[np.bool_]) -> F64:
    """Rightness less confidence of each picture in the column of its bin, ``[N, BINS]``: the error of any sample is
    the mean over its pictures of |sum of a column|."""
    index = np.clip(np.ceil(chance * BINS).astype(int) - 1, 0, BINS - 1)
    made = np.zeros((len(chance), BINS))
    made[np.arange(len(chance)), index] = right - chance
    return made


def _resampled(parts: list[F64], seed: int, draws: int = 500) -> list[F64]:
    """The calibration error of bootstrap samples, the same samples for all; ``[draws]`` each."""
    random = np.random.default_rng(seed)
    count = len(parts[0])
    found: list[list[F64]] = [[] for _ in parts]
    for piece in _pieces(draws, count):
        rows = random.integers(0, count, (piece, count)) + count * np.arange(piece)[:, None]
        often = np.bincount(rows.ravel(), minlength=piece * count).reshape(piece, count).astype(np.float64)
        for listed, part in zip(found, parts, strict=True):
            listed.append(np.abs(often @ part).sum(1) / count)
    return [np.concatenate(listed) for listed in found]


def _pieces(draws: int, count: int) -> Iterator[int]:
    """Numbers of draws whose tables hold some ten million entries at most."""
    step = max(1, min(draws, 10_000_000 // max(1, count)))
    for start in range(0, draws, step):
        yield min(step, draws - start)

"""How alike two maps are: rank correlation and structural similarity."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError

Floats = NDArray[np.float64]


def average_ranks(values: NDArray[Any]) -> Floats:
    """Ranks from 1, equal values sharing the mean of theirs; ``[N]``."""
    flat = np.asarray(values).ravel()
    order = np.argsort(flat, kind="stable")
    ordered = flat[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    lengths = np.diff(np.append(starts, len(flat)))
    found = np.empty(len(flat))
    found[order] = np.repeat(starts + (lengths + 1) / 2, lengths)
    return found


def rank_correlation(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Spearman's rank correlation of two maps, −1..1; NaN where one of them is constant (it has no order)."""
    _check(a, b)
    x, y = average_ranks(np.nan_to_num(a)), average_ranks(np.nan_to_num(b))
    x -= x.mean()
    y -= y.mean()
    scale = np.sqrt((x**2).sum() * (y**2).sum())
    return float((x * y).sum() / scale) if scale > 0 else float("nan")


def ssim(a: NDArray[Any], b: NDArray[Any], *, sigma: float = 1.5) -> float:
    """Structural similarity (Wang et al. 2004) of two maps ``[H, W]``, each first divided by its largest |value|.

    Gaussian windows of 11 pixels; the range is 1 where neither map is negative, else 2; borders, where windows
    would leave the map, are not counted. As Adebayo et al. 2018 compare maps. NaN where a map is all zero.
    """
    _check(a, b)
    x, y = (np.nan_to_num(np.asarray(m, np.float64)) for m in (a, b))
    largest = np.abs(x).max(), np.abs(y).max()
    if min(largest) == 0:
        return float("nan")
    x, y = x / largest[0], y / largest[1]
    span = 1.0 if min(x.min(), y.min()) >= 0 else 2.0
    radius = min(5, (min(x.shape) - 1) // 2)
    at = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (at / sigma) ** 2)
    kernel /= kernel.sum()
    rows, cols = (_filter(n, kernel) for n in x.shape)

    def mean(m: Floats) -> Floats:
        return np.asarray(rows @ m @ cols.T, np.float64)

    mx, my = mean(x), mean(y)
    vx, vy, both = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    found = ((2 * mx * my + c1) * (2 * both + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return float(found.mean())


def _filter(length: int, kernel: Floats) -> Floats:
    """The valid convolution as a banded matrix: for maps of a few hundred pixels faster than shifting arrays."""
    size = len(kernel)
    matrix = np.zeros((length - size + 1, length))
    for k, weight in enumerate(kernel):
        matrix[np.arange(len(matrix)), np.arange(len(matrix)) + k] = weight
    return matrix


def agreement(maps: dict[str, NDArray[Any]]) -> tuple[list[str], Floats]:
    """Rank correlation of every pair of methods' maps of one picture: names and a symmetric matrix.

    Methods that agree may be right or wrong together; methods that disagree cannot all be right.
    """
    names = list(maps)
    found = np.eye(len(names))
    centred = []
    for name in names:
        values = average_ranks(np.nan_to_num(maps[name]))
        values -= values.mean()
        norm = np.sqrt((values**2).sum())
        centred.append(values / norm if norm > 0 else np.full_like(values, np.nan))
    for i in range(len(names)):
        for j in range(i):
            found[i, j] = found[j, i] = float(centred[i] @ centred[j])
    return names, found


def _check(a: NDArray[Any], b: NDArray[Any]) -> None:
    if np.shape(a) != np.shape(b):
        raise UsageError(f"Maps of shapes {np.shape(a)} and {np.shape(b)} cannot be compared.")

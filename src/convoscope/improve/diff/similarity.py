"""How alike the layers of two networks are: debiased linear CKA over the whole set of pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
#: rows of a Gram matrix that are held at a time
BLOCK = 256


def cka(a: Sequence[NDArray[np.float32]], b: Sequence[NDArray[np.float32]]) -> F64:
    """Debiased linear CKA of every layer of one network with every layer of the other.

    The unbiased estimator of HSIC (Song et al. 2012) over all pictures at once, as in Nguyen et al. 2021
    (https://arxiv.org/abs/2010.15327): never a mean over batches, so neither a batch's size nor a last small batch
    matters. It does not change when features are shifted, scaled together or turned.

    Args:
        a: features of each layer, ``[N, C]`` each, the same N pictures in the same order.
        b: the same of the other network.

    Returns:
        ``[len(a), len(b)]``; 1 for the same features, about 0 for unrelated ones (a little below is possible), NaN
        where a layer gives every picture the same.

    Raises:
        ValueError: fewer than four pictures, for which the estimator does not exist.
    """
    left, right = [_centred(one) for one in a], [_centred(one) for one in b]
    count = len(left[0])
    if count < 4:
        raise ValueError(f"Debiased CKA needs at least 4 pictures, not {count}.")
    cross, own_a, own_b = _hsic(left, right)
    size = np.sqrt(np.maximum(own_a, 0))[:, None] * np.sqrt(np.maximum(own_b, 0))[None, :]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(size > 0, cross / np.where(size > 0, size, 1.0), np.nan), np.float64)


def _centred(values: NDArray[np.float32]) -> F64:
    """Features around their mean, of unit size: the estimator changes with neither, rounding does."""
    made = np.asarray(values, np.float64)
    made = made - made.mean(0)
    scale = float(np.sqrt((made**2).sum(1).mean()))
    # what is left of a constant layer is rounding, not structure
    largest = float(np.abs(np.asarray(values, np.float64)).max(initial=0.0))
    return made / scale if scale > 1e-12 * max(1.0, largest) else np.zeros_like(made)


def _hsic(a: list[F64], b: list[F64]) -> tuple[F64, F64, F64]:
    """Unbiased HSIC, up to a common factor: of every pair, and of each layer with itself."""
    count = len(a[0])
    every = [*a, *b]
    widths = [one.shape[1] for one in every]
    by_features = count * (float(sum(widths[: len(a)])) * sum(widths[len(a) :]) + sum(w * w for w in widths))
    by_pictures = float(count) ** 2 * (sum(widths) + len(a) * len(b))
    diagonal = [(one**2).sum(1) for one in every]
    # the rows of a Gram matrix of centred features sum to zero: without its diagonal, to minus the diagonal
    sums = [-one for one in diagonal]
    pairs = [(i, len(a) + j) for i in range(len(a)) for j in range(len(b))]
    pairs += [(i, i) for i in range(len(every))]
    if by_features <= by_pictures:
        traces = [float(((every[i].T @ every[j]) ** 2).sum() - diagonal[i] @ diagonal[j]) for i, j in pairs]
    else:
        traces = _traces(every, diagonal, pairs, len(a))
    values = [
        trace + sums[i].sum() * sums[j].sum() / ((count - 1) * (count - 2)) - 2 / (count - 2) * (sums[i] @ sums[j])
        for trace, (i, j) in zip(traces, pairs, strict=True)
    ]
    cross = np.array(values[: len(a) * len(b)], np.float64).reshape(len(a), len(b))
    own = np.array(values[len(a) * len(b) :], np.float64)
    return cross, own[: len(a)], own[len(a) :]


def _traces(every: list[F64], diagonal: list[F64], pairs: list[tuple[int, int]], split: int) -> list[float]:
    """tr(K L) of Gram matrices without their diagonals, a block of rows at a time."""
    count = len(every[0])
    total = np.zeros((len(every), len(every)))
    for start in range(0, count, BLOCK):
        end = min(start + BLOCK, count)
        rows = np.stack([(one[start:end] @ one.T).reshape(-1) for one in every])
        total[:split, split:] += rows[:split] @ rows[split:].T
        own = np.einsum("ij,ij->i", rows, rows)
        total[np.arange(len(every)), np.arange(len(every))] += own
    return [float(total[i, j] - diagonal[i] @ diagonal[j]) for i, j in pairs]


def best_path(values: F64) -> list[tuple[int, int]]:
    """The best-matching layer of B for each layer of A: pairs of places in a matrix of :func:`cka`."""
    filled = np.where(np.isfinite(values), values, -np.inf)
    return [(row, int(filled[row].argmax())) for row in range(len(filled)) if np.isfinite(filled[row]).any()]

"""How faithful a map is: what two dimensions keep of many.

Trustworthiness and continuity (Venna & Kaski 2001), recall of nearest neighbours, accuracy of the nearest neighbour,
purity of ten, and the silhouette of the classes on the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .neighbors import exact, without_self

#: points whose ranks among all are computed at most; of more points, an even sample
RANKED = 2000

Points = NDArray[np.float32]


def map_metrics(
    high: Points, low: Points, labels: Sequence[str | None] | None = None, k: int = 10, seed: int = 0
) -> dict[str, Any]:
    """Metrics of a map ``low`` ``[N, 2]`` of points ``high`` ``[N, D]`` under Euclidean distance.

    ``trustworthiness``, ``continuity`` and ``knn_recall`` are means over ``points_measured`` points (all up to
    :data:`RANKED`, an even random sample beyond), each against all points. ``accuracy_1nn``, ``purity_10nn`` and
    ``silhouette`` use the points with a label, ``None`` where there are not two classes. All are in 0..1 but the
    silhouette, in -1..1.
    """
    count = len(high)
    k = min(k, max(1, (count - 1) // 2))
    chosen = np.arange(count)
    if count > RANKED:
        chosen = np.sort(np.random.default_rng(seed).choice(count, RANKED, replace=False))
    found: dict[str, Any] = {"k": k, "points": count, "points_measured": len(chosen)}
    if count < 3:
        found |= {"trustworthiness": None, "continuity": None, "knn_recall": None}
    else:
        trust, continuity, recall = _ranks(high, low, chosen, k)
        found |= {
            "trustworthiness": float(trust.mean()),
            "continuity": float(continuity.mean()),
            "knn_recall": float(recall.mean()),
        }
    return found | _class_metrics(low, labels, k)


def local_trust(high: Points, low: Points, k: int = 10, near: NDArray[np.int64] | None = None) -> Points:
    """Per point, the share of its ``k`` neighbours on the map that are among its ``k`` neighbours in the data.

    ``near`` ``[N, k]`` are those in the data, where they are known already.
    """

    k = min(k, len(high) - 1)
    if k < 1:
        return np.ones(len(high), np.float32)
    if near is None:
        near = without_self(exact(high, high, k + 1, "l2")[0], k)
    drawn = without_self(_on_the_plane(low, k + 1), k)
    shared = (near[:, :, None] == drawn[:, None, :]).any(2).mean(1)
    trust: Points = shared.astype(np.float32)
    return trust


def _ranks(
    high: Points, low: Points, chosen: NDArray[np.int64], k: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Trustworthiness, continuity and neighbour recall of the chosen points, each among all points."""
    count = len(high)
    scale = 2.0 / (count * k * (2 * count - 3 * k - 1)) * count
    results: list[list[NDArray[np.float64]]] = [[], [], []]
    for start in range(0, len(chosen), 256):
        rows = chosen[start : start + 256]
        far = [_distances(points, rows) for points in (high, low)]
        for distances in far:
            distances[np.arange(len(rows)), rows] = np.inf
        ordered = [np.sort(distances, 1) for distances in far]
        near = [_first(distances, order, k) for distances, order in zip(far, ordered, strict=True)]
        for result, (of, by) in zip(results, ((1, 0), (0, 1)), strict=False):
            result.append(1.0 - scale * np.maximum(_places(far[by], ordered[by], near[of]) - k, 0).sum(1))
        results[2].append((_places(far[0], ordered[0], near[1]) <= k).mean(1))
    return np.concatenate(results[0]), np.concatenate(results[1]), np.concatenate(results[2])


def _first(distances: NDArray[np.float64], ordered: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """The ``k`` nearest of each row ``[R, N]``, of equals the one with the lower number."""
    found = np.empty((len(distances), k), np.int64)
    for row, order, near in zip(distances, ordered, found, strict=True):
        close = np.flatnonzero(row <= order[k - 1])
        near[:] = close[np.argsort(row[close], kind="stable")[:k]]
    return found


def _places(distances: NDArray[np.float64], ordered: NDArray[np.float64], of: NDArray[np.int64]) -> NDArray[np.int64]:
    """At which place, from 1, some points ``[R, k]`` stand in the order of their row: found without a whole order."""
    found = np.empty(of.shape, np.int64)
    for row, order, which, place in zip(distances, ordered, of, found, strict=True):
        values = row[which]
        place[:] = np.searchsorted(order, values) + 1
        for at in np.flatnonzero(np.searchsorted(order, values, "right") - place > 0):  # of equals, by number
            place[at] += int((row[: which[at]] == values[at]).sum())
    return found


def _on_the_plane(points: Points, k: int) -> NDArray[np.int64]:
    """The ``k`` nearest of each point ``[N, 2]``, itself among them: a tree finds them in N log N steps."""
    from scipy.spatial import cKDTree

    found = cKDTree(points).query(points, k)[1]
    return np.asarray(found, np.int64).reshape(len(points), -1)


def _distances(points: Points, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    wide = points.astype(np.float64)
    squares = (wide**2).sum(1)
    found: NDArray[np.float64] = squares[rows][:, None] + squares[None] - 2 * wide[rows] @ wide.T
    return found


def _class_metrics(low: Points, labels: Sequence[str | None] | None, k: int) -> dict[str, Any]:
    nothing = {"accuracy_1nn": None, "purity_10nn": None, "silhouette": None, "labelled": 0}
    if labels is None:
        return nothing
    known = np.array([label is not None for label in labels])
    names = np.array([label for label in labels if label is not None])
    classes, numbers = np.unique(names, return_inverse=True) if len(names) else (np.zeros(0), np.zeros(0, int))
    if len(classes) < 2 or len(names) < 3:
        return {**nothing, "labelled": len(names)}

    points = low[known]
    most = min(10, len(points) - 1)
    near = without_self(_on_the_plane(points, most + 1), most)
    same = numbers[near] == numbers[:, None]
    silhouette = None
    if len(classes) < len(names):
        from sklearn.metrics import silhouette_score

        size = None if len(points) <= 10_000 else 10_000
        silhouette = float(silhouette_score(points, numbers, sample_size=size, random_state=0))
    return {
        "accuracy_1nn": float(same[:, 0].mean()),
        "purity_10nn": float(same.mean()),
        "silhouette": silhouette,
        "labelled": len(names),
    }

"""Which windows share a batch.

All tiles of a batch have one size, that of its largest member, so windows at the edge, whose influence is cut off by
it, should not ride with those in the middle; but very small batches are slow. A cost model settles it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from convoscope.engine.recompute.incremental.tiles import Ints, Region

MOST_CLASSES = 16
#: What one step of one batch costs beyond its multiply-adds, in multiply-adds (about 60 microseconds).
STEP_COST = 6e6
#: What one batch costs for each weight that it has to read.
WEIGHT_COST = 40.0


def groups(costs: Sequence[tuple[float, Region]], windows: int, overhead: float, batch: int) -> list[Ints]:
    """Split the windows of a scouting plan into groups; returns the members of each, ascending.

    ``costs``: products per cell and region of each step on tiles; ``windows``: how many there are; ``overhead``: of
    one batch, in multiply-adds.
    """
    if not costs:
        return [np.arange(windows)]
    # Views and repeats of one size add nothing: sum the costs of steps that hold the same intervals.
    merged: dict[tuple[bytes, bytes], tuple[float, Region]] = {}
    for cost, region in costs:
        key = (_sizes(region.y).tobytes(), _sizes(region.x).tobytes())
        before = merged.get(key)
        merged[key] = (cost + (before[0] if before else 0.0), region)
    weights = np.array([cost for cost, _ in merged.values()])
    high = np.stack([_sizes(region.y) for _, region in merged.values()], 1)
    wide = np.stack([_sizes(region.x) for _, region in merged.values()], 1)
    rows, row_of = _classes(high, weights)
    columns, column_of = _classes(wide, weights)

    def total(rows: Ints, columns: Ints, row_of: Ints, column_of: Ints) -> float:
        counts = np.zeros((len(rows), len(columns)))
        np.add.at(counts, (row_of, column_of), 1)
        each = rows * weights @ columns.T
        return float((counts * each).sum() + overhead * np.ceil(counts / batch).sum())

    best = total(rows, columns, row_of, column_of)
    while True:
        options = []
        for axis, sizes in enumerate((rows, columns)):
            for a in range(len(sizes)):
                for b in range(a + 1, len(sizes)):
                    merged_sizes, relabel = _merge(sizes, a, b)
                    if axis == 0:
                        cost = total(merged_sizes, columns, relabel[row_of], column_of)
                    else:
                        cost = total(rows, merged_sizes, row_of, relabel[column_of])
                    options.append((cost, axis, merged_sizes, relabel))
        if not options:
            break
        cost, axis, merged_sizes, relabel = min(options, key=lambda option: option[0])
        if cost > best:
            break
        best = cost
        if axis == 0:
            rows, row_of = merged_sizes, relabel[row_of]
        else:
            columns, column_of = merged_sizes, relabel[column_of]
    label = row_of * len(columns) + column_of
    return [np.flatnonzero(label == value) for value in np.unique(label)]


def _sizes(axis: object) -> Ints:
    return (axis.high - axis.low).astype(np.int64)  # type: ignore[attr-defined, no-any-return]


def _classes(sizes: Ints, weights: Ints) -> tuple[Ints, Ints]:
    """Distinct rows of ``sizes`` (at most ``MOST_CLASSES``, then maxima of neighbours) and each window's row."""
    unique, label = np.unique(sizes, axis=0, return_inverse=True)
    label = label.reshape(-1)
    if len(unique) > MOST_CLASSES:
        order = np.argsort(unique @ weights, kind="stable")
        bucket = np.empty(len(unique), dtype=np.int64)
        bucket[order] = np.arange(len(unique)) * MOST_CLASSES // len(unique)
        unique = np.stack([unique[bucket == index].max(0) for index in range(MOST_CLASSES)])
        label = bucket[label]
    return unique, label


def _merge(sizes: Ints, a: int, b: int) -> tuple[Ints, Ints]:
    merged = np.delete(sizes, b, 0)
    merged[a] = np.maximum(sizes[a], sizes[b])
    relabel = np.arange(len(sizes))
    relabel[b] = a
    relabel[relabel > b] -= 1
    return merged, relabel

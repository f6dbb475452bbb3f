"""Whether the files alone tell a class: properties that a picture's content has no part in."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import stats

from ...surveys.gather.collections import read
from ..collection import Labelled
from ..statistics import Interval
from .effects import Effect

#: what is read of each file; its number of bytes is left out: busy pictures are large, and that is content
PROPERTIES = ("width", "height", "aspect", "JPEG table", "format", "mode")


def properties(pictures: Labelled) -> NDArray[np.float64] | None:
    """One row a picture of :data:`PROPERTIES`; None where the pictures are not files."""
    if pictures.sources is not None:
        return None
    rows = []
    for uri in pictures.uris:
        try:
            with Image.open(io.BytesIO(read(uri) if "://" in uri else Path(uri).read_bytes())) as image:
                width, height = image.size
                tables = getattr(image, "quantization", None)
                table = float(np.mean(next(iter(tables.values())))) if tables else 0.0
                kind = float(sum(map(ord, image.format or "")))
                rows.append([width, height, width / height, table, kind, float(sum(map(ord, image.mode)))])
        except Exception:
            rows.append([0.0] * len(PROPERTIES))
    return np.array(rows, np.float64)


def told_by_files(
    table: NDArray[np.float64], truth: NDArray[np.int64], kinds: Sequence[int], seed: int = 0
) -> dict[int, Effect]:
    """For each class the area under the curve of a cross-validated tree that sees the files' properties alone.

    The baseline is 0.5, whatever the classes' numbers: an accuracy would have to be held against the share of the
    commonest class, and against nothing smaller.

    Returns:
        class -> an effect whose sufficiency is 2 × area - 1 (0: chance, 1: the file tells it).
    """
    if np.ptp(table, axis=0).max() == 0:
        return {}
    try:
        from sklearn.model_selection import StratifiedKFold, cross_val_predict
        from sklearn.tree import DecisionTreeClassifier
    except ImportError:
        return {}
    found = {}
    for kind in kinds:
        is_it = (truth == kind).astype(int)
        folds = min(5, int(is_it.sum()), int((1 - is_it).sum()))
        if folds < 2:
            continue
        tree = DecisionTreeClassifier(max_depth=3, min_samples_leaf=5, class_weight="balanced", random_state=seed)
        split = StratifiedKFold(folds, shuffle=True, random_state=seed)
        chance = cross_val_predict(tree, table, is_it, cv=split, method="predict_proba")[:, 1]
        own, rest = chance[is_it == 1], chance[is_it == 0]
        test = stats.mannwhitneyu(own, rest, alternative="greater")
        area = float(test.statistic) / (len(own) * len(rest))
        spread = _deviation(area, len(own), len(rest))
        size = Interval(
            2 * area - 1, max(-1.0, 2 * (area - 1.96 * spread) - 1), min(1.0, 2 * (area + 1.96 * spread) - 1)
        )
        nothing = Interval(0.0, 0.0, 1.0)
        found[kind] = Effect("files", kind, size, nothing, nothing, size, nothing, float(test.pvalue), {"area": area})
    return found


def _deviation(area: float, own: int, rest: int) -> float:
    """The standard error of an area under the curve (Hanley & McNeil 1982)."""
    first, second = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (own - 1) * (first - area**2) + (rest - 1) * (second - area**2)
    return float(np.sqrt(max(spread, 0.0) / (own * rest)))

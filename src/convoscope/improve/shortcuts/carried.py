"""Whether a class's pictures carry a mark that others do not: asked of the pictures, before any network.

A class can be decided only by what its pictures have in common. So colours, borders, templates and traces of files
are first held against the labels, made on half A and told on half B; only what tells the class there is put on others
and taken from its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from ...errors import MissingExtra
from .bench import Bench

Floats = NDArray[np.float64]

#: area under the curve from which a mark is called carried: chance is 0.5, and healthy classes stay below
CARRIED = 0.8


def under_curve(own: Floats, rest: Floats) -> float:
    """The area under the curve (Mann & Whitney's U as a share)."""
    return float(stats.mannwhitneyu(own, rest).statistic) / (len(own) * len(rest))


def told_by(bench: Bench, name: str, table: Floats, seed: int = 0) -> dict[int, float]:
    """For each class the area on half B of a forest that was grown on half A's rows of ``table`` ``[N, features]``."""
    try:
        from sklearn.ensemble import RandomForestClassifier
    except ImportError:
        raise MissingExtra("scikit-learn", "survey", "The search for what pictures carry") from None
    key = f"areas of {name}"
    if key not in bench.tables:
        first, found = bench.half, np.full(len(bench.classes), 0.5)
        held = bench.truth[~first]
        if first.any() and len(held):
            forest = RandomForestClassifier(100, min_samples_leaf=3, class_weight="balanced", random_state=seed)
            forest.fit(table[first], bench.truth[first])
            chance = forest.predict_proba(table[~first])
            for at, kind in enumerate(forest.classes_):
                own = held == kind
                if own.any() and not own.all():
                    found[bench.classes.index(int(kind))] = under_curve(chance[own, at], chance[~own, at])
        bench.tables[key] = found
    return dict(zip(bench.classes, bench.tables[key].tolist(), strict=True))


def colours(values: Tensor) -> Floats:
    """Log means of the channels and their differences, ``[B, 2C - 1]``, of values in 0..1."""
    means = np.log(values.mean((2, 3)).clamp(min=0.02).double().numpy())
    return np.concatenate([means, np.diff(means, axis=1)], 1)


def along_the_edge(values: Tensor, ring: Tensor) -> Floats:
    """Mean, deviation and colour of what lies under ``ring`` (bool ``[H, W]``), and how rough it is both ways."""
    under = values[:, :, ring]
    mean = under.mean(2).clamp(min=0.02)
    grey = values.mean(1)
    rough = [
        (grey - grey.roll(1, axis)).abs()[:, ring].mean(1, keepdim=True).double().numpy() for axis in (1, 2)
    ]  # fmt: skip
    first = [mean.double().numpy(), under.std(2).double().numpy(), np.diff(np.log(mean.double().numpy()), axis=1)]
    return np.concatenate([*first, *rough], 1)

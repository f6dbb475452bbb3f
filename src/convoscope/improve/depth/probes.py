"""Linear probes and nearest neighbours of one layer's embedding, out of sample (Alain & Bengio 2016)."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...extras import need

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: folds of the cross-validation
FOLDS = 5
#: neighbours that vote
NEAREST = 5
#: inverse strength of the L2 penalty on standardised features
STRENGTH = 1.0


def _linear() -> Any:
    return need("sklearn.linear_model", "Probes by depth").LogisticRegression


def folds(keys: Sequence[str], truth: Ints, count: int = FOLDS, seed: int = 0) -> Ints:
    """The fold of each picture, 0 to ``count`` - 1: by content, so that copies share one, as even a class as can be."""
    digests = [hashlib.sha256(f"{seed}\0fold\0{key}".encode()).digest() for key in keys]
    found = np.zeros(len(keys), np.int64)
    of: dict[str, int] = {}
    for label in np.unique(truth):
        rows = sorted(np.flatnonzero(truth == label).tolist(), key=lambda row: digests[row])
        for place, row in enumerate(rows):
            found[row] = of.setdefault(keys[row], place % count)
    return found


class Probe:
    """A linear classifier on standardised features: logistic regression with an L2 penalty.

    The features are first turned into the span of the pictures, where they have more dimensions than there are
    pictures: the penalty does not see the turn, so the answer is the same and comes sooner.
    """

    def __init__(self, strength: float = STRENGTH) -> None:
        self.strength = strength

    def fit(self, features: NDArray[Any], truth: Ints) -> Probe:
        values = np.asarray(features, np.float64)
        self.mean = values.mean(0)
        deviation = values.std(0)
        self.scale = np.where(deviation > 0, deviation, 1.0)
        values = (values - self.mean) / self.scale
        self.turn: Floats | None = None
        if values.shape[1] > values.shape[0]:
            self.turn = np.linalg.svd(values, full_matrices=False)[2].T
            values = values @ self.turn
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.model = _linear()(C=self.strength, max_iter=500, tol=1e-4).fit(values, truth)
        self.classes: Ints = np.asarray(self.model.classes_, np.int64)
        return self

    def probability(self, features: NDArray[Any]) -> Floats:
        """``[N, classes seen]``, in the order of ``classes``."""
        values = (np.asarray(features, np.float64) - self.mean) / self.scale
        return np.asarray(self.model.predict_proba(values if self.turn is None else values @ self.turn))

    def predict(self, features: NDArray[Any]) -> Ints:
        """The class of each row."""
        return np.asarray(self.classes[self.probability(features).argmax(1)])


def probed(features: NDArray[Any], truth: Ints, fold: Ints) -> Ints:
    """Predictions of a linear probe for every picture, by a probe that has not seen its fold."""
    found = np.full(len(truth), -1, np.int64)
    for one in np.unique(fold):
        out = fold == one
        if len(np.unique(truth[~out])) < 2:
            continue
        found[out] = Probe().fit(features[~out], truth[~out]).predict(features[out])
    return found


def neighbours(features: NDArray[Any], truth: Ints, fold: Ints, k: int = NEAREST) -> Ints:
    """Predictions by the ``k`` nearest pictures (cosine) outside the picture's fold; ties go to the smaller class."""
    values = np.asarray(features, np.float64)
    values = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-30)
    found = np.full(len(truth), -1, np.int64)
    classes = np.unique(truth)
    for one in np.unique(fold):
        out = np.flatnonzero(fold == one)
        rest = np.flatnonzero(fold != one)
        if not len(rest):
            continue
        near = np.argsort(-(values[out] @ values[rest].T), axis=1, kind="stable")[:, :k]
        votes = (truth[rest][near][:, :, None] == classes[None, None]).sum(1)
        found[out] = classes[votes.argmax(1)]
    return found

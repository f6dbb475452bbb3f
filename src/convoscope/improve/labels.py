"""Wrong labels: which pictures look mislabelled out of sample, and how many are, estimated rather than flagged."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ..errors import UsageError
from ..extras import need
from .statistics import Interval, share

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: parts of the cross-validation
FOLDS = 5
#: nearest neighbours that vote
NEIGHBOURS = 10
#: strength of the head's ridge (1 / C of scikit-learn), on standardised features
RIDGE = 100.0
#: shares of the pictures, the surest of each class by the head, among which a label that does not fit is a wrong one.
#: Where classes overlap, misfits vanish as the head gets surer; wrong labels do not: the second share must show them
CORES = (0.5, 0.25)
#: p value of Fisher's test below which misfits are said to vanish among the surest
FALLING = 0.01
#: probability below which the head is sure of nothing
SURE = 0.5
#: rate of misfits in the core that a well labelled collection may have
TOLERATED = 0.01


@dataclass(frozen=True, eq=False)
class Suspects:
    """What is known of the labels of ``N`` pictures.

    Args:
        rows: the pictures examined, rows of the collection (classes of fewer than :data:`FOLDS` are left out).
        given: class index given, ``[N]``.
        probability: float64 ``[N, K]`` of a head that has not seen the picture; columns are ``classes``.
        classes: class indices of the columns.
        neighbours: share of the nearest pictures with the given label, ``[N]``.
    """

    rows: NDArray[np.intp]
    given: Ints
    probability: Floats
    classes: Ints
    neighbours: Floats

    @cached_property
    def core(self) -> NDArray[np.bool_]:
        """Whether the head is sure of the picture, whatever its label, ``[N]``."""
        return self._surest(CORES[0])

    @property
    def wrong(self) -> Interval:
        """The estimated share of wrong labels."""
        return share(int(self.misfit.sum()), int(self.core.sum()))

    @property
    def p(self) -> float:
        """That a well labelled collection would look like this: binomial, over the core; 1 where misfits vanish among
        the surest, as they do where classes overlap."""
        return self._p(np.ones(len(self.rows), bool), self.suggested != self.given)

    def between(self, first: int, second: int) -> tuple[Interval, float, NDArray[np.bool_]]:
        """Labels of two classes exchanged: the estimated share among pictures that the head takes for either, its p,
        and the misfits."""
        either = np.isin(self.suggested, (first, second))
        exchanged = either & np.isin(self.given, (first, second)) & (self.suggested != self.given)
        core = self.core & either
        return (
            share(int((core & exchanged).sum()), int(core.sum())),
            self._p(either, exchanged),
            self.core & exchanged,
        )

    def _surest(self, part: float) -> NDArray[np.bool_]:
        sure, taken = self.probability.max(1), self.probability.argmax(1)
        found = np.zeros(len(self.rows), bool)
        for column in range(len(self.classes)):
            own = np.flatnonzero(taken == column)
            found[own[np.argsort(-sure[own], kind="stable")[: int(np.ceil(len(own) * part))]]] = True
        return np.asarray(found & (sure >= SURE))

    def _p(self, among: NDArray[np.bool_], misfits: NDArray[np.bool_]) -> float:
        core, surest = (self._surest(part) & among for part in CORES)
        hits, count = int((core & misfits).sum()), int(core.sum())
        top, size = int((surest & misfits).sum()), int(surest.sum())
        if top < 2 or top / size < TOLERATED:
            return 1.0
        rest = [hits - top, count - size - hits + top]
        if stats.fisher_exact([[top, size - top], rest], alternative="less").pvalue < FALLING:
            return 1.0
        return float(stats.binomtest(hits, count, TOLERATED, alternative="greater").pvalue)

    @property
    def confidence(self) -> Floats:
        """Self-confidence: the probability of the given label (Northcutt, Jiang & Chuang 2021), ``[N]``."""
        return self_confidence(self.probability, self._column)

    @property
    def score(self) -> Floats:
        """From 0 (surely wrong) to 1: self-confidence, and with a quarter of the weight the neighbours' agreement."""
        return 0.75 * self.confidence + 0.25 * self.neighbours

    @property
    def suggested(self) -> Ints:
        """The class that the head takes each picture for."""
        return np.asarray(self.classes[self.probability.argmax(1)], np.int64)

    @property
    def misfit(self) -> NDArray[np.bool_]:
        """Core pictures whose label is not the head's."""
        return np.asarray(self.core & (self.suggested != self.given))

    @property
    def order(self) -> NDArray[np.intp]:
        """Places in ``rows``, the most suspicious first."""
        return np.argsort(self.score, kind="stable")

    @property
    def _column(self) -> Ints:
        return np.searchsorted(self.classes, self.given).astype(np.int64)


def self_confidence(probability: Floats, given: Ints) -> Floats:
    """The probability of the given label, ``[N]``.

    Args:
        probability: ``[N, K]``, out of sample.
        given: column of the label given, ``[N]``.
    """
    return np.asarray(probability[np.arange(len(given)), given], np.float64)


def suspects(
    embedding: NDArray[np.float32],
    given: Ints,
    same: list[list[int]] | None = None,
    seed: int = 0,
) -> Suspects:
    """Rank labels by how badly they fit what the network sees, and estimate how many are wrong.

    A linear head is cross-validated on the embedding, so that no picture judges itself; copies stay in one fold. A
    picture that the head is sure of without having seen it is *core*: there classes do not overlap, so that a label
    that does not fit is most likely wrong, and the rate of misfits in the core estimates the rate of wrong labels.

    Args:
        embedding: float32 ``[N, D]``.
        given: class index as labelled, -1 for none.
        same: groups of rows that are copies of one picture.
        seed: of the folds.

    Returns:
        the ranking and the estimate.

    Raises:
        UsageError: fewer than two classes of five pictures.
        MissingExtra: scikit-learn is not installed.
    """
    counts = np.bincount(given[given >= 0], minlength=1)
    kept = np.flatnonzero(counts >= FOLDS)
    rows = np.flatnonzero(np.isin(given, kept))
    if len(kept) < 2:
        raise UsageError(
            f"Labels are checked against each other: that takes two classes of {FOLDS} pictures at least."
        )
    labels = given[rows]
    group = np.arange(len(given))
    for members in same or ():
        group[members] = members[0]
    features = _standardised(embedding[rows])
    probability = _crossed(features, labels, group[rows], kept, seed)
    neighbours = _agreement(features, labels, group[rows])
    return Suspects(rows, labels, probability, kept.astype(np.int64), neighbours)


def _standardised(embedding: NDArray[np.float32]) -> Floats:
    values = embedding.astype(np.float64)
    spread = values.std(0)
    values = (values - values.mean(0)) / np.where(spread > 1e-12, spread, 1.0)
    return np.asarray(np.nan_to_num(values), np.float64)


def _crossed(features: Floats, labels: Ints, group: NDArray[Any], classes: Ints, seed: int) -> Floats:
    LogisticRegression = need("sklearn.linear_model", "The audit of labels").LogisticRegression
    StratifiedGroupKFold = need("sklearn.model_selection", "The audit of labels").StratifiedGroupKFold
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    found = np.full((len(labels), len(classes)), 1e-12)
    for fit, test in folds.split(features, labels, group):
        head = LogisticRegression(C=1 / RIDGE, max_iter=300).fit(features[fit], labels[fit])
        found[np.ix_(test, np.searchsorted(classes, head.classes_))] = head.predict_proba(features[test])
    return np.asarray(found / found.sum(1, keepdims=True))


def _agreement(features: Floats, labels: Ints, group: NDArray[Any]) -> Floats:
    """The share of each picture's nearest neighbours (by cosine, copies of itself left out) with its label."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit = (features / np.maximum(length, 1e-12)).astype(np.float32)
    k = min(NEIGHBOURS, len(labels) - 1)
    found = np.empty(len(labels))
    for start in range(0, len(unit), 1024):
        block = unit[start : start + 1024] @ unit.T
        block[group[start : start + 1024, None] == group[None]] = -2.0
        nearest = np.argpartition(-block, k - 1, axis=1)[:, :k]
        found[start : start + 1024] = (labels[nearest] == labels[start : start + 1024, None]).mean(1)
    return found

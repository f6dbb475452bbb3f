"""What mistakes of a survey add up to: one class that takes all, wrong labels, over-fitting, labels mixed up."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from ..errors import ConvoscopeError
from .labels import suspects
from .statistics import LEVEL, share

if TYPE_CHECKING:
    from ..surveys.store.store import Store

#: share of the mistakes that one class must take, and of the worst that must look mislabelled, to be told
MOST = 0.5
#: gap between training and test accuracy that is over-fitting
GAP = 0.1

_COLUMNS = ["sha256", "uri", "label", "label_index", "prediction", "prediction_index", "probability", "loss"]


def conclusions(store: Store, train: Store | None = None) -> list[str]:
    """Sentences about the mistakes of a labelled survey, each only where the counts bear it at 5 %.

    Args:
        store: a survey of labelled pictures.
        train: the survey of the training pictures by the same network.

    Returns:
        none, or a few sentences; each ends with what to do.
    """
    rows = _known(store)
    wrong = [row for row in rows if row["label_index"] != row["prediction_index"]]
    found = [one for one in (_takes_all(rows, wrong), _mislabelled(store, rows)) if one is not None]
    if train is not None:
        found += _against(rows, _known(train))
    return found


def table(store: Store) -> str:
    """The mistakes as CSV, the worst loss first: file, label, prediction, probability, loss."""
    wrong = [row for row in _known(store) if row["label_index"] != row["prediction_index"]]
    wrong.sort(key=lambda row: (-(row["loss"] or 0.0), row["sha256"]))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["file", "label", "prediction", "probability", "loss"])
    for row in wrong:
        figures = ["" if row[name] is None else f"{row[name]:.6g}" for name in ("probability", "loss")]
        writer.writerow([store.uri(row["sha256"], row["uri"]), row["label"], row["prediction"], *figures])
    return buffer.getvalue()


def _known(store: Store) -> list[dict[str, Any]]:
    rows = store.table(_COLUMNS, "error IS NULL").to_pylist()
    return [row for row in rows if row["label_index"] is not None and row["prediction_index"] is not None]


def _takes_all(rows: list[dict[str, Any]], wrong: list[dict[str, Any]]) -> str | None:
    taken: dict[str, int] = {}
    for row in wrong:
        taken[row["prediction"]] = taken.get(row["prediction"], 0) + 1
    classes = {row["label_index"] for row in rows}
    if len(classes) < 3 or not taken:
        return None
    name = max(taken, key=lambda one: taken[one])
    p = stats.binomtest(taken[name], len(wrong), MOST, alternative="greater").pvalue
    if p > LEVEL or share(len(wrong), len(rows)).low < 0.1:
        return None
    return (
        f"{name} takes {taken[name]} of {len(wrong)} mistakes: check the preprocessing "
        "(convoscope diagnose --only input)."
    )


def _mislabelled(store: Store, rows: list[dict[str, Any]]) -> str | None:
    if len(rows) < 30:
        return None
    try:
        shas, vectors = store.embeddings()
        given = {row["sha256"]: int(row["label_index"]) for row in rows}
        labels = np.array([given.get(sha, -1) for sha in shas], np.int64)
        examined = suspects(vectors.astype(np.float32), labels)
    except ConvoscopeError:
        return None
    if examined.p > LEVEL:
        return None
    bad = {shas[int(row)] for row in examined.rows[examined.suggested != examined.given]}
    losses = sorted((row for row in rows if row["loss"] is not None), key=lambda row: -row["loss"])
    worst = losses[: max(10, round(examined.wrong.mean * len(rows)))]
    hits = sum(row["sha256"] in bad for row in worst)
    if hits <= MOST * len(worst):
        return None
    return f"Of the worst {len(worst)}, {hits} look like wrong labels: convoscope audit {store.path} --out audit"


def _against(rows: list[dict[str, Any]], trained: list[dict[str, Any]]) -> list[str]:
    found = []
    right, learnt = (
        share(sum(row["label_index"] == row["prediction_index"] for row in some), len(some))
        for some in (rows, trained)
    )
    if learnt.low - right.high > GAP:
        found.append(
            f"{learnt.mean:.1%} of the training pictures are right and {right.mean:.1%} here: the network is "
            "over-fitted. Train with more pictures, augmentation or weight decay."
        )
    here, there = (_pairs(some) for some in (rows, trained))
    both = [pair for pair in here if pair in there and here[pair] >= 3 and there[pair] >= 3]
    if both:
        pair = max(both, key=lambda one: here[one] + there[one])
        found.append(
            f"{pair[0]} is taken for {pair[1]} in training, too ({there[pair]} times there, {here[pair]} here): the "
            "labels of the two may be mixed up, or the network cannot tell them apart."
        )
    return found


def _pairs(rows: list[dict[str, Any]]) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for row in rows:
        if row["label_index"] != row["prediction_index"]:
            pair = (row["label"], row["prediction"])
            found[pair] = found.get(pair, 0) + 1
    return found

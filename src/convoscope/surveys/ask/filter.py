"""Find pictures of a collection: by words, class, right or wrong, confidence, suspicion, copies, tags, a lasso.

The columns of a store are read once and kept as arrays, so that a collection of 100,000 is filtered while a person
types.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError

if TYPE_CHECKING:
    from ..marks import Mark
    from ..store.store import Store

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Order = Literal["name", "confidence", "unsure", "loss", "suspicion", "label"]
ORDERS = ("name", "confidence", "unsure", "loss", "suspicion", "label")
State = Literal["", "right", "wrong", "unlabelled"]

_COLUMNS = ["sha256", "uri", "label", "prediction", "probability", "loss", "phash", "error", "label_index",
            "prediction_index"]  # fmt: skip


@dataclass(frozen=True)
class Filter:
    """What is looked for; what is not said does not count.

    Args:
        search: words that must all stand in the name, label, prediction, tags or note.
        label: the label as given.
        prediction: the class predicted.
        state: ``right``, ``wrong``, ``unlabelled``.
        low: the least probability of the predicted class.
        high: the largest.
        suspected: only labels that an audit suspects.
        duplicate: only pictures whose perceptual hash another one has, too.
        tag: only pictures with this tag.
        noted: only pictures with a note.
        removed: the pictures that somebody removed, instead of all others.
        among: only these ids.
        lasso: corners (x, y) of a polygon on a map.
        order: how they are sorted.

    Raises:
        UsageError: an unknown state or order, a lasso of fewer than three corners.
    """

    search: str = ""
    label: str = ""
    prediction: str = ""
    state: State = ""
    low: float = 0.0
    high: float = 1.0
    suspected: bool = False
    duplicate: bool = False
    tag: str = ""
    noted: bool = False
    removed: bool = False
    among: frozenset[str] | None = None
    lasso: tuple[tuple[float, float], ...] = ()
    order: Order = "name"

    def __post_init__(self) -> None:
        if self.state not in ("", "right", "wrong", "unlabelled"):
            raise UsageError(f"The state is right, wrong or unlabelled, not {self.state!r}.")
        if self.order not in ORDERS:
            raise UsageError(f"Pictures are sorted by {', '.join(ORDERS)}, not {self.order!r}.")
        if self.lasso and len(self.lasso) < 3:
            raise UsageError("A lasso has three corners at least.")


@dataclass(eq=False)
class Columns:
    """The pictures of a store in arrays of one length, in the order of their ids.

    ``ids`` are the first 16 digits of the content's sha256. ``wrong`` is 1, 0, or -1 where the label is unknown or no
    class of the network.
    """

    ids: list[str]
    names: list[str]
    labels: list[str | None]
    predictions: list[str | None]
    probability: NDArray[np.float32]
    loss: NDArray[np.float32]
    wrong: NDArray[np.int8]
    duplicate: Bools
    failed: Bools
    row: dict[str, int] = field(repr=False)
    _words: list[str] = field(repr=False)
    _label: dict[str, Bools] = field(default_factory=dict, repr=False)
    _ordered: dict[str, Ints] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, store: Store) -> Columns:
        """Read them."""
        rows = sorted(store.table(_COLUMNS).to_pylist(), key=lambda row: row["sha256"])
        names = [PurePosixPath(str(row["uri"] or "").replace("\\", "/")).name for row in rows]
        wrong = np.array([_wrong(row) for row in rows], np.int8)
        hashes = [row["phash"] for row in rows]
        counts: dict[int, int] = {}
        for one in hashes:
            if one is not None:
                counts[one] = counts.get(one, 0) + 1
        ids = [row["sha256"][:16] for row in rows]
        words = [
            f"{name} {row['label'] or ''} {row['prediction'] or ''}".lower()
            for name, row in zip(names, rows, strict=True)
        ]
        return cls(
            ids, names, [row["label"] for row in rows], [row["prediction"] for row in rows],
            _numbers([row["probability"] for row in rows]), _numbers([row["loss"] for row in rows]), wrong,
            np.array([one is not None and counts[one] > 1 for one in hashes], bool),
            np.array([row["error"] is not None for row in rows], bool), {id: at for at, id in enumerate(ids)}, words,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.ids)

    def find(
        self,
        wanted: Filter,
        marks: Mapping[str, Mark] | None = None,
        suspects: Mapping[str, float] | None = None,
        places: tuple[Sequence[str], NDArray[np.float32]] | None = None,
    ) -> Ints:
        """Rows of the pictures that are looked for, sorted.

        Args:
            wanted: what is looked for.
            marks: what people noted, by id.
            suspects: id -> score of its label, of those that an audit suspects: the lower, the more suspicious.
            places: ids and points ``[N, 2]`` of the map on which the lasso was drawn.
        """
        noted = marks or {}
        keep = ~self.failed
        hidden = [self.row[id] for id, mark in noted.items() if mark.removed and id in self.row]
        gone = np.zeros(len(self), bool)
        gone[hidden] = True
        keep = keep & (gone if wanted.removed else ~gone)
        if wanted.state:
            keep = keep & (self.wrong == {"right": 0, "wrong": 1, "unlabelled": -1}[wanted.state])
        for value, column, kind in (
            (wanted.label, self.labels, "label"),
            (wanted.prediction, self.predictions, "prediction"),
        ):
            if value:
                keep = keep & self._is(kind, column, value)
        if wanted.low > 0 or wanted.high < 1:
            with np.errstate(invalid="ignore"):
                # half a step of float32: 0.9 in the store is not below 0.9 as it was typed
                keep = keep & (self.probability >= wanted.low - 1e-7) & (self.probability <= wanted.high + 1e-7)
        if wanted.duplicate:
            keep = keep & self.duplicate
        if wanted.suspected:
            keep = keep & self._flags(suspects or ())
        if wanted.tag:
            keep = keep & self._flags([id for id, mark in noted.items() if wanted.tag in mark.tags])
        if wanted.noted:
            keep = keep & self._flags([id for id, mark in noted.items() if mark.note])
        if wanted.among is not None:
            keep = keep & self._flags(wanted.among)
        if wanted.lasso:
            if places is None:
                raise UsageError("A lasso needs the map on which it was drawn.")
            inside = within(places[1], wanted.lasso)
            keep = keep & self._flags([places[0][at] for at in np.flatnonzero(inside).tolist()])
        if wanted.search.strip():
            keep = keep & self._has(wanted.search.lower().split(), noted, keep)
        order = self._order(wanted.order, suspects or {})
        return np.asarray(order[keep[order]], np.int64)

    def _flags(self, ids: Collection[str]) -> Bools:
        found = np.zeros(len(self), bool)
        found[[self.row[id] for id in ids if id in self.row]] = True
        return found

    def _is(self, kind: str, column: list[str | None], value: str) -> Bools:
        key = f"{kind} {value}"
        if key not in self._label:
            self._label[key] = np.array([one == value for one in column], bool)
        return self._label[key]

    def _has(self, words: list[str], marks: Mapping[str, Mark], among: Bools) -> Bools:
        # a note can be on few: their words are put together here, all others were when the columns were read
        noted = {self.row[id]: mark for id, mark in marks.items() if id in self.row and (mark.tags or mark.note)}
        mine = {at: f"{self._words[at]} {' '.join(mark.tags)} {mark.note}".lower() for at, mark in noted.items()}
        texts, left = self._words, np.flatnonzero(among).tolist()
        for word in words:
            left = [at for at in left if word in texts[at] or (at in mine and word in mine[at])]
        found = np.zeros(len(self), bool)
        found[left] = True
        return found

    def _order(self, order: Order, suspects: Mapping[str, float]) -> Ints:
        if order == "suspicion":
            score = np.array([suspects.get(id, np.inf) for id in self.ids])
            return np.argsort(score, kind="stable")
        if order not in self._ordered:
            if order == "confidence":
                made = np.argsort(-np.nan_to_num(self.probability, nan=-1), kind="stable")
            elif order == "unsure":
                made = np.argsort(np.nan_to_num(self.probability, nan=2), kind="stable")
            elif order == "loss":
                made = np.argsort(-np.nan_to_num(self.loss, nan=-1), kind="stable")
            elif order == "label":
                keys = [(self.labels[i] or "\uffff", self.names[i]) for i in range(len(self))]
                made = np.array(sorted(range(len(self)), key=keys.__getitem__), np.int64)
            else:
                made = np.array(sorted(range(len(self)), key=self.names.__getitem__), np.int64)
            self._ordered[order] = np.asarray(made, np.int64)
        return self._ordered[order]

    def confusion(self, rows: Ints | None = None) -> tuple[list[str], NDArray[np.int64]]:
        """Classes and counts: a row a label, a column a prediction, of the pictures whose label is known."""
        picked = np.arange(len(self)) if rows is None else rows
        picked = picked[(self.wrong[picked] >= 0)]
        names = sorted({*(str(self.labels[i]) for i in picked), *(str(self.predictions[i]) for i in picked)})
        at = {name: number for number, name in enumerate(names)}
        counts = np.zeros((len(names), len(names)), np.int64)
        pairs = ([at[str(self.labels[i])] for i in picked], [at[str(self.predictions[i])] for i in picked])
        np.add.at(counts, pairs, 1)
        return names, counts


def within(points: NDArray[Any], polygon: Sequence[tuple[float, float]]) -> Bools:
    """Which points ``[N, 2]`` lie inside a polygon."""
    from matplotlib.path import Path as Outline

    corners = [*polygon, polygon[0]]
    return np.asarray(Outline(corners, closed=True).contains_points(np.asarray(points, np.float64)), bool)


def _wrong(row: Mapping[str, Any]) -> int:
    if row["label_index"] is None or row["prediction_index"] is None:
        return -1
    return int(row["label_index"] != row["prediction_index"])


def _numbers(values: Sequence[float | None]) -> NDArray[np.float32]:
    return np.array([np.nan if value is None else value for value in values], np.float32)

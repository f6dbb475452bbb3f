"""Tables of a store: its units, and where the network is wrong."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError
from ...plain import html_table
from ..gather.decode import open_thumbnail
from ..store.accumulators import State
from .patches import strongest_pictures

if TYPE_CHECKING:
    from PIL import Image

    from ...draw.sheet import Sheet
    from ..store.store import Store

#: Morcos' index from which a unit is called selective: its class answers three times as strongly as the others
SELECTIVE = 0.5
#: pictures that a class needs to count
FEW = 3


@dataclass(eq=False)
class Units:
    """One row a unit, as plain data: see :func:`units`."""

    rows: list[dict[str, Any]]
    pictures: int

    def to_dict(self) -> list[dict[str, Any]]:
        return self.rows

    def __repr__(self) -> str:
        said = ", ".join(f"{one['layer']}: {one['units']} units, {one['dead']} dead" for one in self.summary()[:6])
        return (
            f"Units({len(self.rows)} on {self.pictures} pictures; {said}{', ...' if len(self.summary()) > 6 else ''})"
        )

    def _repr_html_(self) -> str:
        def number(value: Any) -> str:
            return "" if value is None else f"{value:.3g}"

        rows = [
            [
                f"{row['layer']}:{row['channel']}", "dead" if row["dead"] else "always on" if row["always_on"] else "",
                number(row["active"]), number(row["max"]), str(row["class"] or ""), number(row["selectivity"]),
            ]
            for row in self.rows
        ]  # fmt: skip
        header = ("unit", "", "active", "largest", "class", "selectivity")
        return html_table(header, rows, title=f"{len(self.rows)} units on {self.pictures} pictures")

    def summary(self) -> list[dict[str, Any]]:
        """One row a layer: how many units, dead, always on, selective."""
        found: dict[str, dict[str, Any]] = {}
        for row in self.rows:
            one = found.setdefault(
                row["layer"], {"layer": row["layer"], "units": 0, "dead": 0, "always_on": 0, "selective": 0}
            )
            one["units"] += 1
            for name in ("dead", "always_on", "selective"):
                one[name] += bool(row[name])
        return list(found.values())


def units(store: Store, layer: str | None = None) -> Units:
    """A table of the surveyed units (of one layer).

    Per unit: ``dead`` (0 in every picture), ``always_on`` (above 0 in every picture), ``active`` (share of pictures
    above 0), ``mean``, ``std`` and ``max`` of its response (the spatial maximum in a picture), ``nan`` (pictures),
    ``class`` with the highest mean response, ``selectivity``: (that mean - mean of the other classes' means) / (their
    sum), 0..1, for responses that are never negative (Morcos et al. 2018), ``class_share``: the share of the variance
    between classes (eta squared), ``selective`` where the index is at least 0.5, and ``top``: the strongest picture.
    """
    state = store.state()
    if not state.pictures:
        raise UsageError(f"{store.path} holds no picture yet.")
    spans = [store.span(layer)] if layer is not None else list(store.recipe.layers)
    channels = [c for span in spans for c in range(span.start, span.end)]
    best = strongest_pictures(store, state.top, channels)
    names, index, which, share = class_figures(state)
    rows = []
    for span in spans:
        for at in range(span.start, span.end):
            top, low = float(state.top.values[at, 0]), float(state.lowest.values[at, 0])
            active = float(state.moments.active[at]) / state.pictures
            selectivity = _number(index[at]) if len(names) > 1 else None
            rows.append(
                {
                    "layer": span.name,
                    "channel": at - span.start,
                    "dead": top == 0 and low == 0,
                    "always_on": active == 1.0,
                    "active": active,
                    "mean": _number(state.moments.mean[at]),
                    "std": _number(math.sqrt(max(0.0, state.moments.variance[at]))),
                    "max": _number(top),
                    "nan": int(state.moments.nan[at]),
                    "class": names[which[at]] if len(names) > 1 and top != low else None,
                    "selectivity": selectivity,
                    "class_share": _number(share[at]) if len(names) > 1 else None,
                    "selective": selectivity is not None and selectivity >= SELECTIVE,
                    "top": best[at]["uri"] if at in best else None,
                }
            )
    return Units(rows, state.pictures)


def class_figures(
    state: State,
) -> tuple[list[str], NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Classes of at least three pictures, and per channel Morcos' index (NaN where undefined), the class with the
    highest mean, and eta squared."""
    labels, means = state.classes.means()
    keep = [i for i, label in enumerate(labels) if state.classes.counts[label].max(initial=0) >= FEW]
    channels = state.channels
    nothing = np.full(channels, np.nan)
    if len(keep) < 2:
        return [], nothing, np.zeros(channels, np.int64), nothing
    labels, means = [labels[i] for i in keep], means[keep]
    counts = np.stack([state.classes.counts[label] for label in labels]).astype(np.float64)
    which = means.argmax(0)
    highest = means.max(0)
    others = (means.sum(0) - highest) / (len(labels) - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        index = (highest - others) / (highest + others)
        total = counts.sum(0)
        grand = (counts * means).sum(0) / total
        between = (counts * (means - grand) ** 2).sum(0) / total
        share = np.where(state.moments.variance > 0, between / state.moments.variance, np.nan)
    index[(means.min(0) < 0) | (highest + others <= 0)] = np.nan
    return labels, index, which, np.clip(share, 0, 1)


def _number(value: Any) -> float | None:
    return float(value) if math.isfinite(float(value)) else None


@dataclass(eq=False)
class Mistakes:
    """Where the network is wrong: ``confusions``, ``worst`` (by loss) and ``confident`` (wrong, by probability)."""

    pictures: int
    wrong: int
    confusions: list[dict[str, Any]]
    worst: list[dict[str, Any]]
    confident: list[dict[str, Any]]
    classes: list[dict[str, Any]]
    thumbnails: dict[str, Image.Image] = field(default_factory=dict, repr=False)
    notes: list[str] = field(default_factory=list)

    @property
    def accuracy(self) -> float:
        return 1 - self.wrong / self.pictures

    def to_dict(self) -> dict[str, Any]:
        """The JSON document."""
        return {
            "pictures": self.pictures,
            "wrong": self.wrong,
            "accuracy": self.accuracy,
            "confusions": self.confusions,
            "worst": [_without(row) for row in self.worst],
            "confident": [_without(row) for row in self.confident],
            "classes": self.classes,
            "notes": self.notes,
        }

    def sheet(self) -> Sheet:
        """The worst losses and the most confident errors as pictures, the confusions with examples."""
        from ...draw import grid

        rows: list[tuple[str, list[tuple[Any, str]]]] = [
            ("Most confident errors", [self._cell(row, "probability", "p") for row in self.confident]),
            ("Worst losses", [self._cell(row, "loss", "loss") for row in self.worst]),
        ]
        repeated = [row for row in self.confusions[:6] if row["count"] > 1]
        for row in repeated:
            shown = [(self.thumbnails[sha], Path(uri).name) for sha, uri in row["examples"].items()]
            rows.append((f"{row['label']} taken for {row['prediction']} ({row['count']})", shown))
        title = f"{self.wrong:,} of {self.pictures:,} pictures wrong ({self.accuracy:.1%} right)"
        alone = len(self.confusions) - len([row for row in self.confusions if row["count"] > 1])
        more = f"{alone} further kinds of confusion happened once." if alone else ""
        foot = " ".join([*self.notes, more]).strip()
        return grid.patches([(name, items) for name, items in rows if items], title, columns=9, footnote=foot)

    def _cell(self, row: dict[str, Any], column: str, name: str) -> tuple[Any, str]:
        return self.thumbnails[
            row["sha256"]
        ], f"{row['label']}, taken for {row['prediction']} · {name} {row[column]:.3g}"

    def _repr_png_(self) -> bytes:
        return self.sheet()._repr_png_()


def _without(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("uri", "label", "prediction", "probability", "loss")}


def mistakes(store: Store, k: int = 9) -> Mistakes:
    """The confusions, the ``k`` worst losses and the ``k`` most confident errors of a labelled collection.

    Raises :class:`UsageError` where the store has no labels that are classes of the network, or it predicts nothing.
    """
    if k < 1:
        raise UsageError(f"k must be at least 1 picture, not {k}.")
    columns = ["sha256", "uri", "label", "label_index", "prediction", "prediction_index", "probability", "loss"]
    rows = store.table(columns, "error IS NULL").to_pylist()
    known = [row for row in rows if row["label_index"] is not None and row["prediction_index"] is not None]
    if not known:
        why = (
            "its labels are no classes of the network"
            if any(row["label"] for row in rows)
            else "no picture has a label (survey with --truth FILE.csv, or pictures in folders named by class)"
        )
        raise UsageError(f"{store.path} cannot tell mistakes: {why}.")
    notes = []
    if len(known) < len(rows):
        notes.append(f"{len(rows) - len(known)} pictures without a label of the network's classes are left out.")
    wrong = [row for row in known if row["label_index"] != row["prediction_index"]]
    pairs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in wrong:
        row["uri"] = store.uri(row["sha256"], row["uri"])
        pairs.setdefault((row["label"], row["prediction"]), []).append(row)
    confusions: list[dict[str, Any]] = []
    for (label, prediction), found in sorted(pairs.items(), key=lambda item: (-len(item[1]), item[0])):
        found.sort(key=lambda row: -row["probability"])
        examples = {row["sha256"]: row["uri"] for row in found[:k]}
        confusions.append({"label": label, "prediction": prediction, "count": len(found), "examples": examples})
    confident = sorted(wrong, key=lambda row: (-row["probability"], row["sha256"]))[:k]
    losses = [row for row in known if row["loss"] is not None]
    worst = sorted(losses, key=lambda row: (-row["loss"], row["sha256"]))[:k]
    for row in worst:
        row["uri"] = store.uri(row["sha256"], row["uri"])
    total, missed = Counter(row["label"] for row in known), Counter(row["label"] for row in wrong)
    classes = [
        {"label": n, "pictures": total[n], "wrong": missed[n], "recall": 1 - missed[n] / total[n]} for n in total
    ]
    classes.sort(key=lambda row: (row["recall"], row["label"]))
    shas = {row["sha256"] for row in [*confident, *worst]} | {s for c in confusions[:6] for s in c["examples"]}
    return Mistakes(len(known), len(wrong), confusions, worst, confident, classes, _thumbnails(store, shas), notes)


def _thumbnails(store: Store, shas: set[str]) -> dict[str, Image.Image]:
    if not shas:
        return {}
    listed = ", ".join(f"'{sha}'" for sha in sorted(shas))
    table = store.table(["sha256", "thumbnail"], f"sha256 IN ({listed})")
    return {row["sha256"]: open_thumbnail(row["thumbnail"]) for row in table.to_pylist()}

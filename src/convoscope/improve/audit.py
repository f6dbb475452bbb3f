"""What is wrong with a collection: labels that do not fit, copies, outliers, classes with few pictures, kin."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConvoscopeError, MissingExtra, UsageError
from .copies import Pair, groups, pairs
from .diagnose.properties import Properties
from .diagnose.stage import Case
from .labels import NEIGHBOURS, Suspects, suspects
from .statistics import Interval, share

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Audit:
    """What is known of a collection. Rows are rows of ``case.looked.pictures`` (and of ``looked_train``).

    Args:
        case: the network and its pictures.
        names: the labels as given, sorted.
        given: index into ``names`` by row; -1 without a label.
        suspects: what is known of the labels; None where ``unlabelled`` says why not.
        unlabelled: why labels could not be examined.
        inside: pairs of copies in the collection.
        across: pairs of copies of a picture here (``a``) and one of the training pictures (``b``).
        outliers: rows, the strangest first, with how far their neighbours are (1: as usual).
        kin: pairs of classes taken for each other: (first, second, first as second, second as first, pictures).
    """

    case: Case
    names: tuple[str, ...]
    given: Ints
    suspects: Suspects | None
    unlabelled: str
    inside: tuple[Pair, ...]
    across: tuple[Pair, ...]
    outliers: tuple[tuple[int, float], ...]
    kin: tuple[tuple[int, int, int, int, int], ...]
    counts: dict[str, int] = field(default_factory=dict)
    train_counts: dict[str, int] | None = None

    @property
    def uris(self) -> tuple[str, ...]:
        """The pictures' URIs by row."""
        return self.case.looked.pictures.uris

    @property
    def train_uris(self) -> tuple[str, ...]:
        """The training pictures' URIs."""
        return () if self.case.looked_train is None else self.case.looked_train.pictures.uris

    @property
    def copied(self) -> list[list[int]]:
        """Groups of rows that hold one picture."""
        return groups(self.inside, len(self.uris))

    @property
    def leaked(self) -> list[int]:
        """Rows that are among the training pictures, too."""
        return sorted({one.a for one in self.across})

    @property
    def wrong(self) -> tuple[Interval, int] | None:
        """The estimated share and number of wrong labels; None where they could not be examined."""
        if self.suspects is None:
            return None
        return self.suspects.wrong, round(self.suspects.wrong.mean * len(self.suspects.rows))

    def accuracy_without(self, rows: Sequence[int]) -> tuple[Interval, Interval] | None:
        """Accuracy of all labelled pictures, and without ``rows``; None without labels of the network's."""
        looked = self.case.looked
        known = looked.pictures.known
        if looked.scores is None or not known.any():
            return None
        rest = known.copy()
        rest[list(rows)] = False
        right = looked.right
        return share(int(right[known].sum()), int(known.sum())), share(int(right[rest].sum()), int(rest.sum()))

    def rows(self, most: int | None = None) -> list[dict[str, Any]]:
        """The labels from the most suspicious on, as plain data."""
        if self.suspects is None:
            return []
        found = self.suspects
        expected = len(found.rows) if most is None else most
        listed = []
        for place in found.order[:expected]:
            row = int(found.rows[place])
            listed.append({
                "uri": self.uris[row], "label": self.names[int(found.given[place])],
                "suggested": self.names[int(found.suggested[place])], "score": float(found.score[place]),
                "self_confidence": float(found.confidence[place]), "neighbours": float(found.neighbours[place]),
                "sure": bool(found.misfit[place]),
            })  # fmt: skip
        return listed

    def to_dict(self) -> dict[str, Any]:
        """The JSON document of ``convoscope audit --json``."""
        wrong, found = self.wrong, self.suspects
        without = self.accuracy_without(self.leaked) if self.across else None
        labels = None
        if wrong is not None and found is not None:
            labels = {"wrong": wrong[0].to_dict(), "count": wrong[1], "p": found.p}
        return {
            "pictures": len(self.uris),
            "labels": labels,
            "unlabelled": self.unlabelled or None,
            "suspects": self.rows(),
            "copies": [_pair(one, "a", self.uris, "b", self.uris) for one in self.inside],
            "leaks": [_pair(one, "picture", self.uris, "train", self.train_uris) for one in self.across],
            "accuracy": None
            if without is None
            else {"all": without[0].to_dict(), "without_leaks": without[1].to_dict()},
            "outliers": [{"uri": self.uris[row], "distance": far} for row, far in self.outliers],
            "classes": [{"label": name, "pictures": self.counts[name]} for name in self.names],
            "kin": [
                {"a": self.names[a], "b": self.names[b], "a_as_b": ab, "b_as_a": ba, "pictures": n}
                for a, b, ab, ba, n in self.kin
            ],
            "failed": [{"uri": uri, "error": why} for uri, why in self.case.looked.failed.items()],
        }

    def table(self) -> str:
        """A CSV for whoever relabels: file, label, suggested, score, why; the most suspicious first."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["file", "label", "suggested", "score", "reason"])
        for one in self.rows():
            if one["label"] == one["suggested"] and one["score"] > 0.5:
                continue
            why = "does not fit, and the head is sure" if one["sure"] else "does not fit"
            writer.writerow([one["uri"], one["label"], one["suggested"], f"{one['score']:.4f}", why])
        for members in self.copied:
            for row in members[1:]:
                label = self.names[int(self.given[row])] if self.given[row] >= 0 else ""
                writer.writerow([self.uris[row], label, "", "", f"copy of {self.uris[members[0]]}"])
        for pair in self.across:
            label = self.names[int(self.given[pair.a])] if self.given[pair.a] >= 0 else ""
            why = f"copy of the training picture {self.train_uris[pair.b]}"
            writer.writerow([self.uris[pair.a], label, "", "", why])
        return buffer.getvalue()

    def page(self) -> str:
        """One self-contained HTML page to go through the suspects."""
        from .audit_page import page

        return page(self)

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``audit.html``, ``audit.csv`` and ``audit.json``, each whole or not at all."""
        import json

        from ..files import write_whole

        target = Path(folder)
        document = json.dumps(self.to_dict(), indent=2, ensure_ascii=False)
        return [
            write_whole(target / "audit.html", self.page()), write_whole(target / "audit.csv", self.table()),
            write_whole(target / "audit.json", document + "\n"),
        ]  # fmt: skip


def _pair(one: Pair, first: str, uris: Sequence[str], second: str, others: Sequence[str]) -> dict[str, Any]:
    return {
        first: uris[one.a], second: others[one.b], "likeness": one.likeness, "mirrored": one.mirrored,
        "exact": one.exact,
    }  # fmt: skip


def audit(model: Any, pictures: Any, train: Any = None, *, truth: Any = None, seed: int = 0) -> Audit:
    """Examine a collection by what a network sees in it.

    Args:
        model: a :class:`Model`, a module, or a spec: its embedding is what is alike.
        pictures: a folder of class folders, files, pairs of a picture and a label, a store. The labels need not be
            the network's.
        train: the training pictures, to find copies across the split.
        truth: a CSV or a mapping of file to label.
        seed: of the folds.

    Returns:
        suspicious labels with an estimated count, copies, outliers, kin.

    Raises:
        UsageError: no pictures.
        PictureError: none can be read.
    """
    from ..models.opening import open_model
    from .collection import Labelled

    opened = open_model(model)
    held = Labelled.of(pictures, opened, truth)
    return examine(Case(opened, held, None if train is None else Labelled.of(train, opened), None, seed))


def examine(case: Case) -> Audit:
    """The audit of a case."""
    looked = case.looked
    labels = looked.pictures.labels
    names = tuple(sorted({label for label in labels if label is not None}))
    index = {name: at for at, name in enumerate(names)}
    given = np.array([-1 if label is None else index[label] for label in labels], np.int64)
    case.progress("Comparing pictures", 0, 1)
    mine = _signatures(case.properties)
    inside = tuple(pairs(mine, looked.pictures.keys))
    across: tuple[Pair, ...] = ()
    train_counts: dict[str, int] | None = None
    if case.looked_train is not None and case.properties_train is not None:
        theirs = case.looked_train.pictures
        across = tuple(pairs(mine, looked.pictures.keys, _signatures(case.properties_train), theirs.keys))
        train_counts = {name: theirs.labels.count(name) for name in dict.fromkeys(theirs.labels) if name is not None}
    found, why = None, ""
    try:
        if not names:
            raise UsageError("No picture has a label: give class folders, a truth.csv, or --truth FILE.csv.")
        found = suspects(case.embedding, given, groups(inside, len(given)), case.seed)
    except MissingExtra:  # not a matter of these pictures: nothing is written that would look complete
        raise
    except ConvoscopeError as error:
        why = str(error)
    return Audit(
        case, names, given, found, why, inside, across, _outliers(case), _kin(case, names, given),
        {name: int((given == at).sum()) for name, at in index.items()}, train_counts,
    )  # fmt: skip


def _signatures(properties: Sequence[Properties]) -> NDArray[np.uint8]:
    return np.stack([one.signature for one in properties])


def _outliers(case: Case, most: int = 30) -> tuple[tuple[int, float], ...]:
    """Pictures far from all others: the distance to the nearest few, by the median of all."""
    if case.layer is None or len(case.looked.pictures) < 3:
        return ()
    values = case.embedding.astype(np.float32)
    spread = values.std(0)
    unit = (values - values.mean(0)) / np.where(spread > 1e-12, spread, 1.0)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    k = min(NEIGHBOURS, len(unit) - 1)
    far = np.empty(len(unit))
    for start in range(0, len(unit), 1024):
        distance = 1 - unit[start : start + 1024] @ unit.T
        far[start : start + 1024] = np.partition(distance, k, axis=1)[:, 1 : k + 1].mean(1)
    ratio = far / max(float(np.median(far)), 1e-12)
    return tuple((int(row), float(ratio[row])) for row in np.argsort(-ratio, kind="stable")[:most])


def _kin(case: Case, names: Sequence[str], given: Ints) -> tuple[tuple[int, int, int, int, int], ...]:
    """Pairs of classes that the network takes for each other, both ways, the most confused first."""
    looked = case.looked
    if looked.scores is None:
        return ()
    by_truth: dict[int, int] = {}
    for at, name in zip(given, looked.pictures.truth, strict=True):
        if name >= 0:
            by_truth[int(name)] = int(at)
    taken = np.array([by_truth.get(int(one), -1) for one in looked.prediction])
    found = []
    for a in range(len(names)):
        for b in range(a + 1, len(names)):
            ab, ba = int(((given == a) & (taken == b)).sum()), int(((given == b) & (taken == a)).sum())
            if ab and ba:
                found.append((a, b, ab, ba, int(np.isin(given, (a, b)).sum())))
    return tuple(sorted(found, key=lambda one: -(one[2] + one[3])))

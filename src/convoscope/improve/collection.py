"""Labelled pictures, from whatever a person has: class folders, a CSV, pairs, a survey's store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import PictureError, UsageError
from ..pictures.picture import Picture
from ..surveys.gather.collections import is_collection
from ..surveys.gather.collections import picture as read_uri
from ..surveys.gather.shards import class_of, folder_labels, scan, truth_labels

if TYPE_CHECKING:
    from ..models.model import Model
    from ..surveys.store.store import Store


@dataclass(frozen=True)
class Labelled:
    """Pictures with their labels as the network knows them.

    Args:
        uris: where each picture lies.
        keys: a content hash each.
        labels: the label as given; None where there is none.
        truth: the class index by the network's labels, int64 ``[N]``; -1 where there is none, or none of the network's.
        sources: the pictures themselves where they lie in memory, instead of ``uris``.
        broken: URI -> why the file could not be read when it was listed; reading such a picture fails so, too.
    """

    uris: tuple[str, ...]
    keys: tuple[str, ...]
    labels: tuple[str | None, ...]
    truth: NDArray[np.int64]
    sources: tuple[Any, ...] | None = None
    broken: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.uris)

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """Whether the truth is known, a flag a picture."""
        return np.asarray(self.truth >= 0)

    @cached_property
    def foreign(self) -> dict[str, int]:
        """Labels that the network does not know, with how many pictures have them."""
        strange = [label for label, at in zip(self.labels, self.truth, strict=True) if label is not None and at < 0]
        return {label: strange.count(label) for label in dict.fromkeys(strange)}

    def picture(self, row: int) -> Picture:
        """The picture of a row, read now. Raises :class:`~convoscope.PictureError`."""
        if self.sources is not None:
            return Picture.of(self.sources[row])
        uri = self.uris[row]
        if uri in self.broken:
            raise PictureError(self.broken[uri])
        return read_uri(uri) if "://" in uri else Picture.of(uri)

    def readable(self, rows: Iterable[int], count: int) -> list[Picture]:
        """The first ``count`` pictures of these rows that can be read.

        Raises:
            PictureError: none of them can be read; the first one's reason.
        """
        found: list[Picture] = []
        why: Exception | None = None
        for row in rows:
            try:
                found.append(self.picture(int(row)))
            except (PictureError, OSError) as error:
                why = why or error
            if len(found) == count:
                break
        if not found:
            raise PictureError(str(why) if why is not None else "There is no picture.")
        return found

    def take(self, rows: Sequence[int] | NDArray[Any]) -> Labelled:
        """Only these rows (numbers, or a flag a picture)."""
        at = np.asarray(rows)
        chosen = np.flatnonzero(at) if at.dtype == bool else at.astype(np.intp)
        pick = [int(row) for row in chosen]
        return Labelled(
            tuple(self.uris[i] for i in pick), tuple(self.keys[i] for i in pick),
            tuple(self.labels[i] for i in pick), self.truth[pick],
            None if self.sources is None else tuple(self.sources[i] for i in pick), self.broken,
        )  # fmt: skip

    @classmethod
    def of(cls, pictures: Any, model: Model, truth: str | Path | Mapping[str, Any] | None = None) -> Labelled:
        """Whatever ``pictures`` is, as labelled pictures for ``model``.

        Args:
            pictures: a folder (with class folders, a ``truth.csv``, or neither), a list of files, pairs of a picture
                and a label, a :class:`~convoscope.Store`, or the result of this function.
            model: whose labels count.
            truth: a CSV file or a mapping of file to label, where the folder's names are not it.

        Returns:
            every picture once per file, in the order found; one that cannot be read fails where it is used.

        Raises:
            UsageError: nothing that can be read as pictures.
            PictureError: no picture at all.
        """
        if isinstance(pictures, Labelled):
            return pictures
        if hasattr(pictures, "ledger") and hasattr(pictures, "recipe"):
            return _of_store(pictures, model, truth)
        if isinstance(pictures, (str, Path)) and Path(pictures, "units.lance").is_dir():
            from ..surveys.store.store import Store

            with Store.open(pictures) as store:
                return _of_store(store, model, truth)
        listed = [pictures] if isinstance(pictures, (str, Path)) else list(pictures)
        if not listed:
            raise UsageError("No pictures given.")
        if all(isinstance(one, (str, Path)) for one in listed):
            return _of_files(listed, model, truth)
        return _of_pairs(listed, model)


def _labelled(model: Model, uris: Sequence[str], keys: Sequence[str], given: Sequence[str | None]) -> Labelled:
    indices = [class_of(label, model.labels, None)[1] for label in given]
    truth = np.array([-1 if index is None else index for index in indices], np.int64)
    return Labelled(tuple(uris), tuple(keys), tuple(given), truth)


def _of_files(listed: list[Any], model: Model, truth: Any) -> Labelled:
    found = list(scan(listed))
    uris = [one.uri for one in found]
    if truth is not None:
        labels: dict[str, str] = truth_labels(truth, uris)
    elif len(listed) == 1 and Path(listed[0]).is_dir() and not is_collection(listed[0]):
        beside = Path(listed[0], "truth.csv")
        labels = truth_labels(beside, uris) if beside.is_file() else folder_labels(listed[0], uris)
    else:
        labels = {one.uri: one.label for one in found if one.label is not None}
    made = _labelled(model, uris, [one.sha256 for one in found], [labels.get(uri) for uri in uris])
    # a picture that is left out in silence is a false count: it stays, and is named where it fails
    return replace(made, broken={one.uri: one.error for one in found if one.error is not None})


def _of_store(store: Store, model: Model, truth: Any) -> Labelled:
    rows = store.table(["sha256", "uri", "label"]).to_pylist()
    uris = [str(row["uri"]) for row in rows]
    labels = truth_labels(truth, uris) if truth is not None else {row["uri"]: row["label"] for row in rows}
    return _labelled(model, uris, [str(row["sha256"]) for row in rows], [labels.get(uri) for uri in uris])


def _apart(names: list[str]) -> list[str]:
    """Pictures in memory are all called ``picture``: a number tells those apart that share a name."""
    counts = Counter(names)
    return [f"{name} {row}" if counts[name] > 1 else name for row, name in enumerate(names)]


def _of_pairs(listed: list[Any], model: Model) -> Labelled:
    sources, given = [], []
    for one in listed:
        pair = isinstance(one, (tuple, list)) and len(one) == 2 and (one[1] is None or isinstance(one[1], (str, int)))
        source, label = one if pair else (one, None)
        sources.append(source)
        given.append(None if label is None else str(label))
    opened = [Picture.of(source) for source in sources]
    made = _labelled(
        model,
        _apart([str(one.path or one.name or "picture") for one in opened]),
        [one.sha256 for one in opened],
        given,
    )
    return Labelled(made.uris, made.keys, made.labels, made.truth, tuple(opened))

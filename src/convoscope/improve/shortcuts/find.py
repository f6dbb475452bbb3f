"""``shortcuts``: every class, every family, one correction, and findings in plain sentences."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ConvoscopeError, UsageError
from ...models.opening import open_model
from ...notebook import shows_progress
from ...surveys.gather.shards import class_of
from ...targets.classes import instead
from ..collection import Labelled
from ..statistics import corrected
from . import families
from .announce import findings_of
from .bench import PER_CLASS, Bench
from .changes import effect
from .effects import Effect
from .files import properties, told_by_files
from .result import Shortcuts
from .template import template
from .transplant import transplant

Tell = Callable[[str, int, int], None]

#: the families, in the order in which they are asked
FAMILIES = ("patch", "template", "colour", "spectrum", "border", "background", "jpeg", "blur", "files")
#: fewer pictures of a class than this cannot be cut in two halves that say anything
FEWEST = 8


@shows_progress("Looking for shortcuts")
def shortcuts(
    model: Any,
    pictures: Any,
    *,
    truth: str | Path | Mapping[str, Any] | None = None,
    masks: str | Path | Mapping[str, Any] | None = None,
    is_part: Sequence[str] = (),
    not_part: Sequence[str] = (),
    only: Sequence[str] = FAMILIES,
    per_class: int = PER_CLASS,
    seed: int = 0,
    words: Sequence[str] = (),
    progress: Tell | None = None,
) -> Shortcuts:
    """What does a network decide by that it should not? Asked by intervention, not by looking at maps.

    For each class the strongest evidence windows are pasted into pictures of other classes and replaced in its own
    (patch); the high-passed mean of the class is added and taken (template); so are its colours, its spectrum, its
    border, its background, the mark of JPEG and of blur; and the files' own properties are tried. Everything is
    chosen on one half of the pictures and counted on the other, with an equally large change as control.

    Args:
        model: a network (a spec, an ``nn.Module``, a :class:`~convoscope.Model`): a classifier, left as it was.
        pictures: a folder, files, pairs of a picture and a label, a :class:`~convoscope.Store`.
        truth: a CSV file or a mapping of file to label, where folder names are not the labels.
        masks: a folder of masks, or URI -> array: where the thing is; then nobody has to be asked whether a spot is it.
        is_part: labels whose spot is a part of the thing.
        not_part: labels whose spot is not.
        only: families, of :data:`FAMILIES`.
        per_class: pictures of a class at most.
        seed: of everything random.
        words: how the command names model and pictures, for the next command.
        progress: called with what is done, how much, and of how much.

    Returns:
        effects with intervals of every class and family, and the findings that stand.

    Raises:
        UsageError: fewer than two classes with enough pictures; an unknown family or label.
        ModelError: a network without class scores.
    """
    began = time.perf_counter()
    unknown = [one for one in only if one not in FAMILIES]
    if unknown or not only:
        raise UsageError(f"Families of shortcuts are {', '.join(FAMILIES)}, not {', '.join(unknown) or 'none'}.")
    opened = open_model(model)
    labelled = Labelled.of(pictures, opened, truth)
    said = progress or (lambda what, done, total: None)
    bench = Bench.of(
        opened, labelled, masks=masks, per_class=per_class, seed=seed,
        progress=lambda done, total: said("Reading pictures", done, total),
    )  # fmt: skip
    return search(
        bench, is_part=is_part, not_part=not_part, only=only, seed=seed, words=words, said=said, began=began
    )


def search(
    bench: Bench,
    *,
    is_part: Sequence[str] = (),
    not_part: Sequence[str] = (),
    only: Sequence[str] = FAMILIES,
    seed: int = 0,
    words: Sequence[str] = (),
    said: Tell = lambda what, done, total: None,
    began: float | None = None,
) -> Shortcuts:
    """The same on a bench that is there already."""
    started = time.perf_counter() if began is None else began
    notes: list[str] = []
    told = {True: _indices(bench, is_part, "--is-part"), False: _indices(bench, not_part, "--not-part")}
    kinds = [kind for kind in bench.classes if len(bench.rows(kind)) >= FEWEST]
    few = [bench.model.label(kind) for kind in bench.classes if kind not in kinds]
    if few:
        notes.append(
            f"Fewer than {FEWEST} pictures, not asked: {', '.join(few[:8])}{' ...' if len(few) > 8 else ''}."
        )
    if len(kinds) < 2:
        raise UsageError(
            f"At least 2 classes with {FEWEST} pictures each are needed: one half chooses, the other tests. There "
            f"{'is' if len(kinds) == 1 else 'are'} {len(kinds)}."
        )
    table = properties(bench.pictures) if "files" in only else None
    files = {} if table is None else told_by_files(table, bench.truth, kinds, seed)
    measured: dict[int, dict[str, Effect]] = {}
    carried: dict[tuple[int, str], bool] = {}
    for done, kind in enumerate(kinds):
        said("Looking for shortcuts", done, len(kinds))
        measured[kind] = _of_class(bench, kind, only, seed, notes, carried)
        if kind in files:
            measured[kind]["files"] = files[kind]
    said("Looking for shortcuts", len(kinds), len(kinds))
    tested = [
        one for kind, found in measured.items() for family, one in found.items() if carried.get((kind, family), True)
    ]
    adjusted = corrected([one.p for one in tested])
    stands = [(one, float(p)) for one, p in zip(tested, adjusted, strict=True)]
    findings, answered = findings_of(bench, stands, told, [shlex.quote(word) for word in words])
    return Shortcuts(
        bench, {bench.model.label(kind): found for kind, found in measured.items()}, findings, len(tested), answered,
        tuple(dict.fromkeys(notes)), time.perf_counter() - started,
    )  # fmt: skip


def _of_class(
    bench: Bench, kind: int, only: Sequence[str], seed: int, notes: list[str], carried: dict[tuple[int, str], bool]
) -> dict[str, Effect]:
    found: dict[str, Effect] = {}
    for family in only:
        if family == "files":
            continue
        try:
            if family == "patch":
                found[family] = transplant(bench, kind, seed)
                continue
            if family in ("jpeg", "blur"):
                change = families.round_trip(bench, kind, family)
            elif family == "template":
                change = template(bench, kind, seed)
            else:
                change = getattr(families, family)(bench, kind, seed)
            carried[kind, family] = change.carries
            if change.carries or not bench.lean:
                found[family] = effect(bench, kind, change, seed)
        except ConvoscopeError as refused:
            notes.append(f"{family}: {refused}")
    return found


def _indices(bench: Bench, labels: Sequence[str], flag: str) -> set[int]:
    found = set()
    for label in labels:
        index = class_of(label, bench.model.labels, None)[1]
        if index is None:
            raise UsageError(
                f"{flag} {label}: the network has no class of this name. {instead(label, bench.model.labels or ())}"
            )
        found.add(index)
    return found


def shares(bench: Bench) -> dict[int, float]:
    """The share of each class among the pictures."""
    kinds, counts = np.unique(bench.truth, return_counts=True)
    return {int(kind): float(count) / len(bench.truth) for kind, count in zip(kinds, counts, strict=True)}

"""Units and layers: what in the network does nothing, what was never trained, and what can go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..collection import Labelled
from ..diagnose.alone import Examined, case_of, examined
from ..diagnose.stage import Case, Progress, StageResult
from .examine import Health, examine, remarks
from .prune import Pruned, prune

__all__ = ["Health", "Pruned", "UnitsStage", "health", "prune"]


class UnitsStage:
    """The stage ``units`` of a diagnosis."""

    name = "units"
    tests = 1

    def run(self, case: Case) -> StageResult:
        """Examine the units."""
        return examine(case, whole=False)[1]


def health(
    model: Any,
    pictures: Any = None,
    *,
    truth: Any = None,
    seed: int = 0,
    progress: Progress | None = None,
    words: Sequence[str] = ("MODEL", "PICTURES"),
    flags: Sequence[str] = (),
) -> Examined:
    """What is wrong with a network's units and layers.

    Dead, constant, always-on, saturated and duplicate units; batch norm that remembers other pictures; layers that
    were never trained; the first filters' frequencies; the border layer; what could go without changing the output.

    Args:
        model: a :class:`Model`, a module, or a spec; left bit for bit as it was.
        pictures: a folder, files, pairs, a store. Without any the weights alone are looked at. At most 400 are used.
        truth: a CSV or a mapping of file to label.
        seed: of everything random.
        progress: ``(what, done, of all)`` is told meanwhile.
        words: how model and pictures are named in the next commands.
        flags: model flags to be repeated there.

    Returns:
        findings, figures (``.data``), page and JSON.

    Raises:
        ModelError: the network cannot be opened, or cannot run on the pictures.
        PictureError: none of the pictures can be read.
    """
    if pictures is None:
        import numpy as np

        from ...models.opening import open_model

        nothing = Labelled((), (), (), np.zeros(0, np.int64))
        case = Case(open_model(model), nothing, seed=seed, words=tuple(words), flags=tuple(flags))
    else:
        case = case_of(model, pictures, truth=truth, seed=seed, progress=progress, words=words, flags=flags)
    found, result = examine(case)
    units = 0 if found.seen is None else sum(len(one.high) for one in found.seen.layers)
    what = f"{units:,} units on {found.pictures} pictures" if units else f"{len(found.initial)} layers, no pictures"
    return examined(
        "health", f"How healthy is {case.model.name}?", f"{case.model.name}: {what}.", case, result, found.to_dict(),
        remarks=remarks(found), failed={} if found.seen is None else found.seen.failed,
    )  # fmt: skip

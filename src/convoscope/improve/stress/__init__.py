"""Which changes of a picture a network bears, and in which layer it learns to ignore them (Zeiler & Fergus 2014)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ConvoscopeError, ModelError, UsageError
from ..collection import Labelled
from ..diagnose.alone import Examined, case_of, examined
from ..diagnose.stage import Case, Progress, StageResult
from ..look import Looked
from ..statistics import share
from ..units.examine import sample
from .changes import Change, changes
from .curves import Stressed, stressed
from .faults import faults, input_side

if TYPE_CHECKING:
    from ...models.model import Model

__all__ = ["Change", "StressStage", "Stressed", "changes", "stress", "stressed"]

#: layers whose likeness is drawn
LAYERS = 5


class StressStage:
    """The stage ``stress`` of a diagnosis."""

    name = "stress"
    tests = 0

    def run(self, case: Case) -> StageResult:
        """Change the pictures, and test what is not borne."""
        return faults(case)


def stress(
    model: Any,
    pictures: Any,
    *,
    against: Any = None,
    most: int = 200,
    truth: Any = None,
    seed: int = 0,
    progress: Progress | None = None,
    words: Sequence[str] = ("MODEL", "PICTURES"),
    flags: Sequence[str] = (),
) -> Examined:
    """Accuracy, confidence and the likeness of each layer as pictures are changed, at five strengths each.

    Shifted, turned, enlarged, shrunk, mirrored, darkened, brightened, blurred, noised, compressed, greyed, covered,
    and cut into shuffled pieces. A fall larger than that of healthy networks is a finding, chosen on one half of the
    pictures and tested on the other.

    Args:
        model: a :class:`Model`, a module, or a spec; left bit for bit as it was.
        pictures: a folder, files, pairs, a store. Without labels the answer to the picture as it is counts as right.
        against: a second network, whose profile is drawn beside.
        most: pictures that the curves are made of, at most.
        truth: a CSV or a mapping of file to label.
        seed: of everything random.
        progress: ``(what, done, of all)`` is told meanwhile.
        words: how model and pictures are named in the next commands.
        flags: model flags to be repeated there.

    Returns:
        findings, curves (``.data["changes"]``), drawings, page and JSON.

    Raises:
        UsageError: fewer than one picture asked for.
        ModelError: the network gives no class scores, takes volumes, or cannot run on the pictures.
        PictureError: none of the pictures can be read.
    """
    if most < 1:
        raise UsageError(f"most must be at least 1 picture, not {most}.")
    case = case_of(model, pictures, truth=truth, seed=seed, progress=progress, words=words, flags=flags)
    _refuse(case.model)
    second = None if against is None else case_of(against, pictures, truth=truth, seed=seed, progress=progress)
    if second is not None:
        _refuse(second.model)
    try:
        result = faults(case)
    except ConvoscopeError as why:
        result = StageResult(refused=str(why))
    one = _profile(case, most)
    other = None if second is None else _profile(second, most)
    sheets = _sheets(case, one, second, other)
    from ...draw.curves import inline_svg

    titles = {"stress": "What changes do to the answers", "stress-layers": "What changes do to each layer"}
    drawings = [{"title": titles[name], "svg": inline_svg(sheet)} for name, sheet in sheets.items()]
    data = {"pictures": one["pictures"], "accuracy": one["accuracy"], "changes": one["changes"]}
    if second is not None and other is not None:
        data["against"] = {"model": second.model.name, "accuracy": other["accuracy"], "changes": other["changes"]}
    result = StageResult(
        result.findings, result.tests, result.refused, result.could_miss,
        {**result.evidence, "drawings": drawings, "tables": [_table(one, other)]},
    )  # fmt: skip
    remarks = [f"No test was made: {result.refused}."] if result.refused else []
    return examined(
        "stress", f"What does {case.model.name} bear?",
        f"{case.model.name}: {one['pictures']} pictures, {len(one['changes'])} kinds of change.", case, result, data,
        sheets=sheets, remarks=[*remarks, *_remarks(one)], failed=case.looked.failed,
    )  # fmt: skip


def _refuse(model: Model) -> None:
    if model.preprocessing.frames is not None:
        raise ModelError(f"{model.name} takes volumes or videos: changes are made to single pictures.")


def _profile(case: Case, most: int) -> dict[str, Any]:
    """The curves of one network as plain data."""
    looked: Looked = case.looked
    if looked.scores is None:
        raise ModelError(f"{case.model.name} gives no class scores: how it bears changes cannot be counted.")
    known = looked.pictures.known
    pool: Labelled = looked.pictures.take(known) if known.any() else looked.pictures
    chosen = sample(pool, most)
    layers = _layers(case)
    centre = {name: looked.layers[name].mean(0) for name in layers}
    listed = changes(input_side(case.model, chosen), case.model.preprocessing.channels)
    seen = stressed(
        case.model, chosen, [(one, range(len(one.strengths))) for one in listed], layers, centre,
        lambda done, total: case.progress(f"Stressing {case.model.name}", done, total),
    )  # fmt: skip
    truth = chosen.truth[seen.rows] if known.any() else seen.prediction()
    clean = share(int((seen.prediction() == truth).sum()), len(truth))
    confidence = float(seen.probability().max(1).mean())
    rows = []
    for one in listed:
        levels = []
        for level in range(len(one.strengths)):
            key = (one.name, level)
            right = share(int((seen.prediction(key) == truth).sum()), len(truth))
            levels.append({
                "strength": one.strengths[level], "label": one.mark(level), "accuracy": right.to_dict(),
                "confidence": float(seen.probability(key).max(1).mean()),
                "agreement": float((seen.prediction(key) == seen.prediction()).mean()),
                "likeness": {name: float(values.mean()) for name, values in seen.likeness[key].items()},
            })  # fmt: skip
        rows.append({"change": one.name, "levels": levels})
    return {
        "pictures": len(seen.rows), "accuracy": clean.to_dict(), "confidence": confidence, "changes": rows,
        "layers": layers, "labelled": bool(known.any()),
    }  # fmt: skip


def _layers(case: Case) -> list[str]:
    """At most five layers over the depth, the embedding last."""
    names = list(dict.fromkeys([*case.depths, *([case.layer] if case.layer else [])]))
    names = [name for name in names if name in case.looked.layers]
    at = np.linspace(0, len(names) - 1, min(LAYERS, len(names))).round().astype(int)
    return [names[int(i)] for i in dict.fromkeys(at.tolist())]


def _sheets(case: Case, one: dict[str, Any], second: Case | None, other: dict[str, Any] | None) -> dict[str, Any]:
    from ...draw.curves import Curve, Panel, curves

    word = "accuracy" if one["labelled"] else "same answer"
    panels, inner = [], []
    beside = {} if other is None else {row["change"]: row["levels"] for row in other["changes"]}
    for row in one["changes"]:
        levels = row["levels"]
        places = ["0", *(level["label"] for level in levels)]
        drawn = [_curve(f"{word} of {case.model.name}" if other else word, one["accuracy"], levels)]
        if other is not None and second is not None and row["change"] in beside:
            drawn.append(_curve(f"{word} of {second.model.name}", other["accuracy"], beside[row["change"]]))
        else:
            drawn.append(Curve("confidence", [one["confidence"], *(level["confidence"] for level in levels)]))
        fall = one["accuracy"]["mean"] - levels[min(2, len(levels) - 1)]["accuracy"]["mean"]
        mark = f"−{100 * fall:.0f} points at {levels[min(2, len(levels) - 1)]['label']}" if fall >= 0.05 else ""
        panels.append(Panel(row["change"], places, drawn, mark))
        lines = [
            Curve(name, [1.0, *(level["likeness"].get(name, math.nan) for level in levels)]) for name in one["layers"]
        ]
        inner.append(Panel(row["change"], places, lines))
    title = f"{case.model.name}: what it bears ({one['pictures']} pictures)"
    if second is not None:
        title = f"{case.model.name} and {second.model.name}: what they bear ({one['pictures']} pictures)"
    made = {
        "stress": curves(
            panels, title=title, footnote="Bars are 95 % intervals (Wilson). Changes act on the network's input; "
            "noise, brightness and JPEG have the severities of Hendrycks & Dietterich (2019).",
        )
    }  # fmt: skip
    if one["layers"]:
        made["stress-layers"] = curves(
            inner, percent=False, title=f"{case.model.name}: how alike a layer's activations stay, cell by cell",
            footnote="Cosine of the activations before and after, each channel's mean taken off: 1 is invariant, 0 "
            "unrelated (after Zeiler & Fergus 2014, figure 5). A change to which later layers answer less than earlier "
            "ones is one that the network has learnt to ignore.",
        )  # fmt: skip
    return made


def _curve(name: str, clean: dict[str, float], levels: Sequence[dict[str, Any]]) -> Any:
    from ...draw.curves import Curve

    rows = [clean, *(level["accuracy"] for level in levels)]
    return Curve(name, [r["mean"] for r in rows], [r["low"] for r in rows], [r["high"] for r in rows])


def _table(one: dict[str, Any], other: dict[str, Any] | None) -> dict[str, Any]:
    beside = {} if other is None else {row["change"]: row["levels"] for row in other["changes"]}
    header = ["change", *(f"strength {at}" for at in range(1, 6))]
    rows: list[list[Any]] = []
    for row in one["changes"]:
        cells = [f"{100 * level['accuracy']['mean']:.1f} % ({level['label']})" for level in row["levels"]]
        rows.append([row["change"], *cells, *[None] * (5 - len(cells))])
        if row["change"] in beside:
            cells = [f"{100 * level['accuracy']['mean']:.1f} %" for level in beside[row["change"]]]
            rows.append(["  the second network", *cells, *[None] * (5 - len(cells))])
    word = "Accuracy" if one["labelled"] else "Same answer as for the picture as it is"
    return {
        "title": f"{word}: {100 * one['accuracy']['mean']:.1f} % without a change",
        "header": header,
        "rows": rows,
    }


def _remarks(one: dict[str, Any]) -> list[str]:
    said = []
    if not one["labelled"]:
        said.append(
            "No picture has a label that the network knows: its answer to the picture as it is counts as right."
        )
    rows = {row["change"]: row["levels"] for row in one["changes"]}
    shuffled = rows.get("shuffled")
    if shuffled and one["labelled"]:
        kept = shuffled[2]["accuracy"]["mean"]
        if kept > 0.5 * one["accuracy"]["mean"] and one["accuracy"]["mean"] > 0.3:
            said.append(
                f"Cut into 4×4 shuffled pieces {100 * kept:.0f} % are still right: it decides by local texture more "
                "than by shape (Brendel & Bethge 2019)."
            )
    return said

"""Where in the network the work is done: linear probes and neighbours by layer; and what the head makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import UsageError
from ..calibration import calibration, overfitting
from ..diagnose.alone import Examined, case_of, examined
from ..diagnose.stage import Case, Progress, StageResult
from ..finding import Finding
from ..statistics import mcnemar, share
from .findings import of_head
from .probes import Probe, folds, neighbours, probed

if TYPE_CHECKING:
    from ...draw.sheet import Sheet

__all__ = ["DepthStage", "Probe", "depth", "neighbours", "probed"]

#: pictures of a class below which it is left out
FEW = 3
#: pictures that probes are made of, at most: more take long and change little
MOST = 2000


class DepthStage:
    """The stage ``depth`` of a diagnosis: the head against probes, the confidence, and training against test."""

    name = "depth"
    tests = 4

    def run(self, case: Case) -> StageResult:
        """Examine the head and the depth."""
        return _examine(case)[0]


def _examine(case: Case) -> tuple[StageResult, dict[str, Any]]:
    looked = case.looked
    if not looked.pictures.known.any():
        return StageResult(refused="no picture has a label that the network knows"), {}
    case.progress("Probing the layers", 0, 1)
    found: list[Finding] = []
    heads, tests = of_head(case)
    sure, confident, more = calibration(case)
    fit, over, rest = overfitting(case)
    found = [*heads, *confident, *over]
    data = {"calibration": None if sure is None else sure.to_dict(), "training": fit}
    could = "over-fitting, without --train" if case.train is None else "what takes a longer training to show"
    return StageResult(tuple(found), tests + more + rest, could_miss=could, evidence={"depth": data}), data


def depth(
    model: Any,
    pictures: Any = None,
    train: Any = None,
    *,
    truth: Any = None,
    seed: int = 0,
    progress: Progress | None = None,
    words: Sequence[str] = ("MODEL", "PICTURES"),
    flags: Sequence[str] = (),
    train_words: Sequence[str] = (),
) -> Examined:
    """Where classes become separable: a linear probe and nearest neighbours on each layer's embedding.

    Embeddings are means over the grid. Probes are logistic regressions (L2, C = 1) on standardised features, five
    folds; neighbours vote five by cosine, outside the picture's fold. At most six layers and 2,000 pictures.

    Args:
        model: a :class:`Model`, a module, a spec; or a survey's store, whose network and pictures are taken.
        pictures: labelled pictures: a folder of class folders, files, pairs, a store.
        train: what the network was trained on, for over-fitting.
        truth: a CSV or a mapping of file to label.
        seed: of the folds.
        progress: ``(what, done, of all)`` is told meanwhile.
        words: how model and pictures are named in the next commands.
        flags: model flags to be repeated there.
        train_words: how the training pictures are named there.

    Returns:
        findings, accuracy by layer and class (``.data["layers"]``), drawing, page and JSON.

    Raises:
        UsageError: no labels, fewer than two classes with three pictures, or a folder without ``pictures``.
        ModelError: the network cannot be opened, or cannot run on the pictures.
    """
    if pictures is None:
        from ..diagnose.run import _store_of

        store = _store_of(model)
        if store is None:
            raise UsageError(f"{model} is no survey's store: give pictures, too (convoscope depth MODEL PICTURES).")
        if isinstance(model, (str, Path)):
            words = (store.recipe.spec or "MODEL", str(model)) if len(words) < 2 else words
        pictures, model = store, store.model()
    case = case_of(
        model, pictures, train, truth=truth, seed=seed, progress=progress, words=words, flags=flags,
        train_words=train_words,
    )  # fmt: skip
    table = _by_layer(case)
    result, data = _examine(case)
    sheets = _sheets(case, table)
    from ...draw.curves import inline_svg

    titles = {"depth": "Where the classes become separable", "depth-classes": "The same, class by class"}
    drawings = [{"title": titles[name], "svg": inline_svg(sheet)} for name, sheet in sheets.items()]
    result = StageResult(
        result.findings, result.tests, result.refused, result.could_miss,
        {**result.evidence, "drawings": drawings, "tables": _tables(table)},
    )  # fmt: skip
    return examined(
        "depth", f"Where does {case.model.name} do the work?",
        f"{case.model.name}: {table['pictures']} pictures, {len(table['classes'])} classes, "
        f"{len(table['layers'])} layers.", case, result, {**table, **data}, sheets=sheets, remarks=_remarks(table),
        failed=case.looked.failed,
    )  # fmt: skip


def _by_layer(case: Case) -> dict[str, Any]:
    """Accuracy of probe and neighbours by layer, and recall by class, as plain data."""
    looked = case.looked
    rows = np.flatnonzero(looked.pictures.known)
    if len(rows) > MOST:
        order = np.argsort(np.array([looked.pictures.keys[row] for row in rows]), kind="stable")[:MOST]
        rows = np.sort(rows[order])
    labels, counts = np.unique(looked.pictures.truth[rows], return_counts=True)
    kept = labels[counts >= FEW]
    if len(kept) < 2:
        what = "no picture has a label that the network knows" if not len(rows) else (
            f"only {len(kept)} class has at least {FEW} pictures"
        )  # fmt: skip
        raise UsageError(f"Probes need two classes of at least {FEW} labelled pictures: {what}.")
    rows = rows[np.isin(looked.pictures.truth[rows], kept)]
    truth = looked.pictures.truth[rows]
    fold = folds([looked.pictures.keys[row] for row in rows], truth, seed=case.seed)
    names = list(dict.fromkeys([*case.depths, *([case.layer] if case.layer else [])]))
    names = [name for name in names if name in looked.layers]
    layers = []
    before: Any = None
    for at, name in enumerate(names):
        case.progress("Probing the layers", at, len(names))
        features = looked.layers[name][rows]
        linear = probed(features, truth, fold)
        near = neighbours(features, truth, fold)
        hits = linear == truth
        one: dict[str, Any] = {
            "layer": name, "dimensions": int(features.shape[1]),
            "probe": share(int(hits.sum()), len(rows)).to_dict(),
            "neighbours": share(int((near == truth).sum()), len(rows)).to_dict(),
            "recall": {case.model.label(int(label)): float(hits[truth == label].mean()) for label in kept},
            "gain_p": None if before is None else mcnemar(int((hits & ~before).sum()), int((~hits & before).sum())),
            "gain": None if before is None else float(hits.mean() - before.mean()),
        }  # fmt: skip
        before = hits
        layers.append(one)
    own = share(int(looked.right[rows].sum()), len(rows)).to_dict() if looked.scores is not None else None
    return {
        "pictures": len(rows), "classes": [case.model.label(int(label)) for label in kept], "layers": layers,
        "network": own,
    }  # fmt: skip


def _sheets(case: Case, table: dict[str, Any]) -> dict[str, Sheet]:
    from ...draw.curves import Curve, Panel, curves

    layers = table["layers"]
    places = [one["layer"] for one in layers]
    drawn = [
        Curve(word, [one[key]["mean"] for one in layers], [one[key]["low"] for one in layers],
              [one[key]["high"] for one in layers])
        for word, key in (("linear probe", "probe"), (f"{5} nearest neighbours", "neighbours"))
    ]  # fmt: skip
    if table["network"] is not None:
        drawn.append(Curve("the network itself", [table["network"]["mean"]] * len(layers)))
    made = {
        "depth": curves(
            [Panel("accuracy, cross-validated", places, drawn)], columns=1, wide=3.0,
            title=f"{case.model.name}: where {len(table['classes'])} classes become separable",
            footnote=f"{table['pictures']} pictures; bars are 95 % intervals (Wilson). Probes are logistic regressions "
            "on each layer's mean activations (Alain & Bengio 2016).",
        )
    }  # fmt: skip
    if len(table["classes"]) <= 40:
        panels = [
            Panel(
                name,
                [str(at) for at in range(1, len(layers) + 1)],
                [Curve("recall", [one["recall"][name] for one in layers])],
            )
            for name in table["classes"]
        ]
        made["depth-classes"] = curves(
            panels, columns=5, wide=0.8, title="Recall of a linear probe, class by class",
            footnote="; ".join(f"{at} {name}" for at, name in enumerate(places, 1)),
        )  # fmt: skip
    return made


def _tables(table: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [
        [one["layer"], one["dimensions"], f"{100 * one['probe']['mean']:.1f} %",
         f"{100 * one['neighbours']['mean']:.1f} %",
         None if one["gain"] is None else f"{100 * one['gain']:+.1f}", one["gain_p"]]
        for one in table["layers"]
    ]  # fmt: skip
    header = ["layer", "channels", "linear probe", "neighbours", "gained on the layer before (points)", "p"]
    return [{"title": "Layer by layer", "header": header, "rows": rows}]


def _remarks(table: dict[str, Any]) -> list[str]:
    layers = table["layers"]
    said = []
    best = max(one["probe"]["mean"] for one in layers)
    enough = next(one for one in layers if one["probe"]["mean"] >= best - 0.02)
    said.append(
        f"The classes are separable from {enough['layer']} on: {100 * enough['probe']['mean']:.1f} % by a linear probe "
        f"(at best {100 * best:.1f} %)."
    )
    idle = [one["layer"] for one in layers[1:] if not (one["gain"] > 0 and one["gain_p"] < 0.05)]
    if idle:
        said.append(f"No gain that could be told from chance: {', '.join(idle)}.")
    # a class is late where it comes to nine tenths of its best recall after the others
    at = {}
    for name in table["classes"]:
        recall = [one["recall"][name] for one in layers]
        at[name] = next(place for place, value in enumerate(recall) if value >= 0.9 * max(recall))
    last = max(at.values())
    late = [name for name, place in at.items() if place == last]
    if last > 0 and len(late) <= max(1, len(at) // 3):
        said.append(f"Late: {', '.join(late)} (from {layers[last]['layer']} on).")
    return said

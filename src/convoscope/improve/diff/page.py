"""The page of a comparison: plain data for one template."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ...errors import ConvoscopeError, PictureError
from ...html.render import inline, render
from ...version import __version__
from ..frames import filter_sheet
from .maps import Flip, Shown
from .sides import Side
from .units import LayerMatch

if TYPE_CHECKING:
    from .result import Diff, Pair

#: pixels of a picture on the page
PICTURE, THUMBNAIL, CROP = 240, 128, 96
#: classes and slices in a table
ROWS = 24


def page(diff: Diff) -> str:
    """The document."""
    pairs = [_pair(diff, pair) for pair in (diff.pairs if len(diff.sides) <= 3 else diff.pairs[-1:])]
    names = [side.name for side in diff.sides]
    title = f"{names[0]} and {names[1]}" if len(names) == 2 else f"{names[0]} to {names[-1]}: {len(names)} networks"
    return render(
        "diff.html", title=title, version=__version__, diff=diff, pairs=pairs,
        models=list(zip(diff.sides, diff.accuracy, diff.calibrations, strict=True)),
        run=None if diff.run is None else _run(diff), count=len(diff),
    )  # fmt: skip


def _pair(diff: Diff, pair: Pair) -> dict[str, Any]:
    a, b = diff.sides[pair.a], diff.sides[pair.b]
    one = pair.compared
    uris = {uri for finding in pair.findings for uri in finding.pictures[:6]}
    rows = {uri: row for row, uri in enumerate(a.pictures.uris) if uri in uris}
    classes = sorted(one.classes, key=lambda group: (group.p, -len(group.won) - len(group.lost)))
    changed = [group for group in one.slices if len(group.won) or len(group.lost)]
    slices = sorted(changed, key=lambda group: group.p)
    return {
        "a": a,
        "b": b,
        "pair": pair,
        "one": one,
        "bar": _bar(pair),
        "classes": classes[:ROWS],
        "more_classes": max(0, len(classes) - ROWS),
        "slices": slices[:ROWS],
        "findings": pair.findings,
        "thumbnails": {uri: found for uri, row in rows.items() if (found := _thumbnail(a, row)) is not None},
        "flips": [_flip(flip) for flip in pair.flips],
        "curve": _curve(diff, pair),
        "cka": _matrix(pair),
        "path": _path(pair),
        "new": [_shown(one) for one in pair.new],
        "lost": [_shown(one) for one in pair.lost],
        "matches": pair.units.matches,
        "filters": _filters(a, b, pair.units.matches),
        "judged": [len(listed) for listed in pair.units.every],
        "dead": _dead(pair),
        "notes": [*one.notes, *pair.units.notes],
    }


def _bar(pair: Pair) -> list[dict[str, Any]]:
    """Shares of the pictures: right in both, won, lost, wrong in both."""
    whole = pair.compared.whole
    if whole is None:
        return []
    total = len(whole.rows)
    counts = {
        "right in both": total - len(whole.won) - len(whole.lost) - len(pair.compared.both_wrong),
        "won": len(whole.won),
        "lost": len(whole.lost),
        "wrong in both": len(pair.compared.both_wrong),
    }
    made, x = [], 0.0
    for name, count in counts.items():
        width = 1000.0 * count / total
        made.append({"name": name, "count": count, "x": x, "width": width, "share": count / total})
        x += width
    return made


def _thumbnail(side: Side, row: int) -> str | None:
    try:
        return inline(side.pictures.picture(row).image, THUMBNAIL, "JPEG")
    except (PictureError, OSError):
        return None


def _flip(flip: Flip) -> dict[str, Any]:
    drawn = flip.overlays()
    return {
        "flip": flip,
        "name": flip.uri.rsplit("/", 1)[-1],
        "photo": inline(_enlarged(flip.photo), PICTURE, "JPEG"),
        "maps": None if drawn is None else [inline(_enlarged(one), PICTURE, "JPEG") for one in drawn],
    }


def _enlarged(image: Image.Image, least: int = 160) -> Image.Image:
    """Small pictures in whole steps, so that their pixels stay square."""
    factor = math.ceil(least / max(image.size))
    if factor < 2:
        return image
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _shown(one: Shown) -> dict[str, Any]:
    return {"unit": one.unit, "crops": [(inline(_enlarged(crop, CROP), CROP), label) for crop, label in one.crops]}


def _curve(diff: Diff, pair: Pair) -> list[dict[str, Any]]:
    """Points of both reliability curves on a field of 300 × 300."""
    found = []
    for place, name in ((pair.a, "a"), (pair.b, "b")):
        one = diff.calibrations[place]
        if one is None:
            return []
        points = [
            {
                "x": 300 * row["confidence"],
                "y": 300 - 300 * row["accuracy"],
                "r": 2 + 7 * math.sqrt(row["pictures"] / len(diff)),
                **row,
            }
            for row in one.curve
        ]
        line = " ".join(f"{point['x']:.1f},{point['y']:.1f}" for point in points)
        found.append(
            {"which": name, "name": diff.sides[place].name, "points": points, "line": line, "error": one.error}
        )
    return found


def _matrix(pair: Pair) -> dict[str, Any] | None:
    """Cells of the layer × layer similarity with their colours."""
    if not pair.cka.size:
        return None
    best = {(i, j) for i, j in _best(pair)}
    cells = []
    for i, row in enumerate(pair.cka):
        for j, value in enumerate(row):
            cells.append(
                {"x": j, "y": i, "value": None if math.isnan(value) else float(value), "fill": _colour(float(value)),
                 "best": (i, j) in best, "a": pair.layers[0][i], "b": pair.layers[1][j]}
            )  # fmt: skip
    scale = [_colour(step / 20) for step in range(21)]
    return {"cells": cells, "rows": pair.layers[0], "columns": pair.layers[1], "scale": scale}


def _best(pair: Pair) -> list[tuple[int, int]]:
    from .similarity import best_path

    return best_path(pair.cka)


def _path(pair: Pair) -> list[dict[str, Any]]:
    return [{"a": pair.layers[0][i], "b": pair.layers[1][j], "value": float(pair.cka[i, j])} for i, j in _best(pair)]


def _colour(value: float) -> str:
    from ...draw import colour

    if math.isnan(value):
        return "#bbbbbb"
    table = colour.colours("viridis")
    red, green, blue = (int(part) for part in table[int(np.clip(value, 0, 1) * (len(table) - 1))][:3])
    return f"#{red:02x}{green:02x}{blue:02x}"


def _dead(pair: Pair) -> list[dict[str, Any]]:
    """Layers with units that gave every picture the same."""
    one, other = pair.units.dead
    names = [name for name in dict.fromkeys([*one, *other]) if one.get(name) or other.get(name)]
    return [{"layer": name, "a": one.get(name), "b": other.get(name)} for name in names]


def _filters(a: Side, b: Side, matches: list[LayerMatch]) -> dict[str, Any] | None:
    """First-layer filters of both as pictures, B's in the order of A's where units are matched."""
    if a.open is None or b.open is None:
        return None
    from ...methods.views import filter_weights

    try:
        (name, before), (other, after) = filter_weights(a.open()), filter_weights(b.open())
    except ConvoscopeError:
        return None
    if before.shape[1] not in (1, 3) or after.shape[1] not in (1, 3):
        return None
    matched = bool(matches) and before.shape == after.shape and len(matches[0].to) == len(before)
    if matched:
        after = after[matches[0].to]
    top = float(max(np.abs(before).max(), np.abs(after).max())) or 1.0
    return {
        "a": inline(filter_sheet(before, top)),
        "b": inline(filter_sheet(after, top)),
        "layer": name if name == other else f"{name}, {other}",
        "matched": matched,
        "counts": (len(before), len(after)),
    }


def _run(diff: Diff) -> dict[str, Any]:
    """The course of several checkpoints as points on a field of 600 × 160."""
    run = diff.run
    assert run is not None
    steps = max(1, len(run.names) - 1)
    lines = []
    if any(one is not None for one in run.accuracy):
        lines.append(("accuracy", "a", [None if one is None else one.mean for one in run.accuracy]))
    if run.layers:
        lines.append((f"CKA of {run.layers[-1]} to the last", "b", run.to_last[:, -1].tolist()))
        if len(run.layers) > 2:
            lines.append((f"CKA of {run.layers[0]} to the last", "c", run.to_last[:, 0].tolist()))
    drawn = []
    for name, which, values in lines:
        points = [
            (600 * place / steps, 160 - 160 * float(np.clip(value, 0, 1)))
            for place, value in enumerate(values)
            if value is not None and not math.isnan(value)
        ]
        drawn.append(
            {"name": name, "which": which, "line": " ".join(f"{x:.1f},{y:.1f}" for x, y in points), "points": points,
             "last": values[-1]}
        )  # fmt: skip
    rows = [
        {"name": name, "accuracy": run.accuracy[place], "dead": run.dead[place],
         "cka": float(run.to_last[place, -1]) if run.layers else None}
        for place, name in enumerate(run.names)
    ]  # fmt: skip
    memory = run.memory
    forgotten: list[dict[str, Any]] = []
    if memory is not None:
        side = diff.sides[-1]
        for at in np.argsort(-memory.forgotten, kind="stable")[:6]:
            if memory.forgotten[at]:
                row = int(memory.rows[at])
                forgotten.append(
                    {
                        "uri": side.pictures.uris[row],
                        "events": int(memory.forgotten[at]),
                        "image": _thumbnail(side, row),
                    }
                )
    return {"lines": drawn, "rows": rows, "memory": memory, "forgotten": forgotten, "film": diff.film,
            "never": int((memory.learnt < 0).sum()) if memory is not None else 0,
            "events": int(memory.forgotten.sum()) if memory is not None else 0}  # fmt: skip

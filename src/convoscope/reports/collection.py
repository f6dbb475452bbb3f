"""What a survey adds to the report: a picture's label, neighbours and units, and the collection itself."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ConvoscopeError
from .figures import figure, number_text, uri

if TYPE_CHECKING:
    from ..models.model import Model
    from ..results import Explanation
    from ..surveys import Store

#: of each picture: units with their patches
UNITS = 3
#: of each picture: neighbours
NEIGHBOURS = 8


def neighbours(store: Store, found: Explanation) -> str:
    """The pictures of the collection that the network finds most like this one."""
    try:
        near = store.neighbors(found.fitted.picture, k=NEIGHBOURS)
    except ConvoscopeError as error:
        return f'<p class="soft">No neighbours: {escape(str(error))}</p>'
    figures = []
    for row, image in zip(near.rows, near.thumbnails, strict=True):
        label = row["label"] or row["prediction"] or ""
        figures.append(figure(uri(image, side=96), f"{escape(label)} {row['similarity']:.2f}", label))
    made = "".join(figures)
    return f'<div class="block"><h3>Pictures that it finds alike</h3><div class="thumbs">{made}</div></div>'


def units(store: Store, model: Model, found: Explanation) -> str:
    """The units of the last surveyed layer that answer this picture most, with what else they fire for."""
    from ..methods.views import layer_activations

    span = next((s for s in reversed(store.recipe.layers) if s.grid), None)
    if span is None:
        return ""
    try:
        _, values, _ = layer_activations(model, found.fitted.picture, span.name)
        state = store.state()
        usual = np.maximum(state.moments.mean[span.start : span.end], 1e-6)
        # what is strong here compared with the collection, not what is strong everywhere
        peaks = np.nan_to_num(values.max((1, 2))) / usual
        chosen = [int(c) for c in np.argsort(-peaks, kind="stable")[:UNITS]]
        rows = []
        for channel in chosen:
            patches = store.patches(f"{span.name}:{channel}", guided=False)
            figures = [
                figure(
                    uri(p.crop, side=96),
                    f"{escape(p.label or p.prediction or '')} {number_text(p.value, 2)}",
                    "a patch",
                )
                for p in patches.of("top")[:6]
                if p.crop is not None
            ]
            here = float(values[channel].max())
            rows.append(
                f"<div class=unit><h4>{escape(_unit(model, span.name, span.channels, channel))}</h4>"
                f"<p class=soft>Here {number_text(here)}. "
                f"{escape(patches.about[channel])}</p><div class=thumbs>{''.join(figures)}</div></div>"
            )
    except ConvoscopeError as error:
        return f'<p class="soft">No units: {escape(str(error))}</p>'
    return f"<h3>Units that answer it unusually strongly, and what else they fire for</h3>{''.join(rows)}"


def _unit(model: Model, layer: str, channels: int, channel: int) -> str:
    """A unit's name; with its class where the layer has one unit for each class."""
    named = model.labels is not None and len(model.labels) == channels
    return f"{layer}:{channel}" + (f" ({model.labels[channel]})" if named and model.labels else "")


def truth(model: Model, found: Explanation, store: Store | None) -> str:
    """The label, where one is known, and whether the network is right."""
    label = None
    if store is not None:
        rows = store.table(["label"], f"sha256 = '{found.fitted.picture.sha256}'").to_pylist()
        label = rows[0]["label"] if rows else None
    path = found.fitted.picture.path
    if label is None and path is not None and model.labels is not None and path.parent.name in model.labels:
        label = path.parent.name
    if label is None:
        return ""
    said = str(found.prediction[0]["label"]) if found.prediction else ""
    if model.labels is None or label not in model.labels:
        return f"<p>Label: <b>{escape(label)}</b>.</p>"
    right = said == label
    word = "right" if right else f"wrong: it says {escape(said)}"
    return f'<p>Label: <b>{escape(label)}</b>, <span class="{"right" if right else "wrong"}">{word}</span>.</p>'


def collection(store: Store) -> str:
    """The whole collection: its confident errors, its map, and the units that never answered."""
    parts = [f'<section id="collection"><h2>The collection: {len(store):,} pictures</h2>']
    try:
        mistakes = store.mistakes(12)
        parts.append(
            f"<p>{mistakes.accuracy:.1%} of {mistakes.pictures:,} labelled pictures are right, "
            f"{mistakes.wrong} wrong.</p>"
        )
        figures = [
            figure(
                uri(mistakes.thumbnails[row["sha256"]], side=96),
                f"{escape(row['label'])}, taken for {escape(row['prediction'])} {row['probability']:.2f}",
                "a mistake",
            )
            for row in mistakes.confident
        ]
        if figures:
            listed = "".join(figures)
            parts.append(f"<div class=block><h3>Most confident errors</h3><div class=thumbs>{listed}</div></div>")
    except ConvoscopeError as error:
        parts.append(f'<p class="soft">{escape(str(error))}</p>')
    try:
        made = store.map("pca" if len(store) < 60 else "tsne")
        trust = made.metrics.get("trustworthiness")
        kept = f" Trustworthiness {trust:.3f}." if isinstance(trust, float) else ""
        image = uri(made.image(80), side=2400)
        parts.append('<div class="block"><h3>How it arranges them</h3><div class="wide">')
        parts.append(figure(image, escape(made.title) + "." + kept, made.title, kind="sheet") + "</div></div>")
    except (ConvoscopeError, ImportError) as error:
        parts.append(f'<p class="soft">No map: {escape(str(error))}</p>')
    dead = [row for row in store.units().summary() if row["dead"]]
    if dead:
        listed = ", ".join(f"{escape(row['layer'])} {row['dead']} of {row['units']}" for row in dead)
        parts.append(f"<p>Units that never answered: {listed}.</p>")
    parts.append("</section>")
    return "\n".join(parts)

"""A map as one HTML file that works offline: a WebGL scatter, thumbnails on hover, true neighbours on click.

Plotly.js comes from the installed plotly wheel and is written into the file, as are the thumbnails.
"""

from __future__ import annotations

import base64
import html as markup
import io
import json
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ...errors import MissingExtra
from ...names import shown
from ..gather.decode import open_thumbnail
from .map_png import sentence

if TYPE_CHECKING:
    from .maps import EmbeddingMap

#: bytes of thumbnails in one file at most; beyond, they are made smaller, and beyond that left out with a note
ROOM = 60_000_000
#: classes drawn in colours of their own; the rest are grey
COLOURS = 20


def html(made: EmbeddingMap) -> str:
    """The whole page."""
    data = _data(made)
    template = resources.files("convoscope.surveys.ask").joinpath("map.html").read_text(encoding="utf-8")
    # "</" would end the script element early
    document = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("</", "<\\/")
    document = shown(document)
    return (
        template.replace("{{title}}", markup.escape(shown(made.title)))
        .replace("{{plotly}}", plotly_source())
        .replace("{{data}}", document)
    )


def plotly_source() -> str:
    """Plotly.js as shipped in the plotly wheel."""
    try:
        source = resources.files("plotly").joinpath("package_data/plotly.min.js")
        return source.read_text(encoding="utf-8")
    except (ModuleNotFoundError, FileNotFoundError):
        raise MissingExtra("plotly", "survey", "A map as HTML") from None


def _data(made: EmbeddingMap) -> dict[str, Any]:
    """What the page's script gets: columns, one entry a point."""
    side, note = _thumbnail_side(made)
    rows = made.rows
    notes = [*made.notes, *([note] if note else [])]
    wrong = [
        None if r["label"] is None or r["prediction"] is None else int(r["label"] != r["prediction"]) for r in rows
    ]
    return {
        "title": made.title,
        "metrics": sentence(made),
        "notes": notes,
        "x": [round(float(v), 4) for v in made.xy[:, 0]],
        "y": [round(float(v), 4) for v in made.xy[:, 1]],
        "uri": [r["uri"] for r in rows],
        "label": [r["label"] for r in rows],
        "prediction": [r["prediction"] for r in rows],
        "probability": [_number(r["probability"]) for r in rows],
        "error": wrong,
        "loss": [_number(r["loss"]) for r in rows],
        "trust": [round(float(v), 3) for v in made.trust],
        "near": made.near.tolist(),
        "thumb": [_encoded(r["thumbnail"], side) if side else "" for r in rows],
        "placed": [
            {
                **{n: p[n] for n in ("uri", "x", "y", "prediction", "how", "near")},
                "thumb": _encoded(p["thumbnail"], 96),
            }
            for p in made.placed
        ],
        "colours": COLOURS,
    }


def _number(value: Any) -> float | None:
    return round(float(value), 4) if value is not None and np.isfinite(value) else None


def _thumbnail_side(made: EmbeddingMap) -> tuple[int, str]:
    """The side of the thumbnails in the file, and what to say of it."""
    stored = sum(len(r["thumbnail"] or b"") for r in made.rows) * 4 // 3
    if stored <= ROOM:
        return 96, ""
    if len(made.rows) * 1500 <= ROOM:
        return 40, "Thumbnails are 40 pixels wide here, to keep the file small; the store has them at 96."
    return 0, f"Without thumbnails: those of {len(made.rows):,} pictures would make the file too large for a browser."


def _encoded(data: bytes | None, side: int) -> str:
    if not data:
        return ""
    if side < 96:
        image = open_thumbnail(data)
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=70)
        data = buffer.getvalue()
    kind = "png" if data[:4] == b"\x89PNG" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"

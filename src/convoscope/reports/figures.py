"""What every part of the report is written with: pictures as data, figures, numbers."""

from __future__ import annotations

import base64
import io
from html import escape

from PIL import Image

from ..draw import colour

#: the longer side of photos and maps in the file
SIDE = 384


def uri(image: Image.Image, *, side: int = SIDE, sharp: bool = False) -> str:
    """The picture as a data URI: PNG for pixel art and small pictures, JPEG for photos."""
    if max(image.size) > side:
        scale = side / max(image.size)
        how = Image.Resampling.NEAREST if sharp else Image.Resampling.LANCZOS
        image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), how)
    buffer = io.BytesIO()
    kind = "PNG" if sharp or max(image.size) <= 64 else "JPEG"
    image.convert("RGB").save(buffer, kind, **({"quality": 88} if kind == "JPEG" else {}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def figure(image: str, caption: str, alt: str, extra: str = "", kind: str = "") -> str:
    """A picture (a URI) with its caption; ``extra`` follows it as it is."""
    return (
        f'<figure class="{kind}"><img src="{image}" alt="{escape(alt, quote=True)}"><figcaption>{caption}{extra}'
        "</figcaption></figure>"
    )


def number_text(value: float | None, digits: int = 3) -> str:
    """A number to be read; a dash where there is none."""
    return "–" if value is None else escape(colour.format_number(float(value), digits))

"""A drawing as SVG: text as text, pictures as embedded PNG.

The few glyphs that the text needs travel with the file as a web font, so that a browser shows it as laid out;
where a program ignores them, ``textLength`` still keeps every line within its room.
"""

from __future__ import annotations

import base64
import io
from xml.sax.saxutils import escape, quoteattr

from convoscope.draw import fonts
from convoscope.draw.canvas import Box, Drawing, Picture, Rule, Text, sampled

FAMILY = "Convoscope Sans"


def render(drawing: Drawing, dpi: float) -> str:
    """The drawing as a complete SVG document; pictures are embedded at no more than ``dpi``."""
    width, height = _number(drawing.width), _number(drawing.height)
    out = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width}pt" height="{height}pt" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{escape(_legal(drawing.title or 'Convoscope'))}</title>",
        f"<style>{_style(drawing)}</style>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for item in drawing.items:
        if isinstance(item, Text):
            out.append(_text(item))
        elif isinstance(item, Picture):
            out.append(_picture(item, dpi))
        elif isinstance(item, Box):
            out.append(_box(item))
        elif isinstance(item, Rule):
            out.append(
                f'<line x1="{_number(item.x1)}" y1="{_number(item.y1)}" x2="{_number(item.x2)}" '
                f'y2="{_number(item.y2)}" stroke="{item.colour}" stroke-width="{_number(item.line)}"/>'
            )
    out.append("</svg>\n")
    return "\n".join(out)


def _style(drawing: Drawing) -> str:
    parts = []
    for bold in (False, True):
        used = "".join(sorted({c for text in drawing.texts() if text.bold is bold for c in text.text}))
        face = fonts.primary(bold)
        known = "".join(c for c in used if ord(c) in face.cmap)
        if known:
            data = base64.b64encode(fonts.subset(face, known, web=True)).decode("ascii")
            parts.append(
                f"@font-face{{font-family:'{FAMILY}';font-weight:{700 if bold else 400};"
                f"src:url(data:font/woff;base64,{data}) format('woff')}}"
            )
    parts.append(
        f"text{{font-family:'{FAMILY}','DejaVu Sans',Verdana,sans-serif;font-kerning:none;"
        "font-variant-ligatures:none;white-space:pre}"
    )
    return "".join(parts)


def _text(item: Text) -> str:
    anchor = "" if item.anchor == "start" else f' text-anchor="{item.anchor}"'
    weight = ' font-weight="700"' if item.bold else ""
    return (
        f'<text x="{_number(item.x)}" y="{_number(item.y)}" font-size="{_number(item.size)}" '
        f'fill="{item.colour}"{anchor}{weight} textLength="{_number(item.width)}" '
        f'lengthAdjust="spacingAndGlyphs">{escape(_legal(item.text))}</text>'
    )


def _picture(item: Picture, dpi: float) -> str:
    buffer = io.BytesIO()
    sampled(item, dpi).convert("RGB").save(buffer, "PNG", optimize=False)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    sharp = ' style="image-rendering:pixelated"' if item.sharp else ""
    label = f" aria-label={quoteattr(_legal(item.alt))}" if item.alt else ""
    return (
        f'<image x="{_number(item.x)}" y="{_number(item.y)}" width="{_number(item.width)}" '
        f'height="{_number(item.height)}" preserveAspectRatio="none"{sharp}{label} '
        f'xlink:href="data:image/png;base64,{data}"/>'
    )


def _box(item: Box) -> str:
    inset = item.line / 2 if item.stroke else 0.0
    stroke = f' stroke="{item.stroke}" stroke-width="{_number(item.line)}"' if item.stroke else ""
    return (
        f'<rect x="{_number(item.x + inset)}" y="{_number(item.y + inset)}" '
        f'width="{_number(max(item.width - 2 * inset, 0.01))}" '
        f'height="{_number(max(item.height - 2 * inset, 0.01))}" fill="{item.fill or "none"}"{stroke}/>'
    )


def _number(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")


def _legal(text: str) -> str:
    """Without the characters that XML forbids."""
    return "".join(c for c in text if c in "\t\n\r" or 0x20 <= ord(c) <= 0xFFFD or ord(c) >= 0x10000)

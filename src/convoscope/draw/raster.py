"""A drawing as pixels."""

from __future__ import annotations

import math

from PIL import Image, ImageDraw

from convoscope.draw import fonts
from convoscope.draw.canvas import POINTS_PER_INCH, WHITE, Box, Drawing, Picture, Rule, Text, rgb

PIXEL_BUDGET = 60_000_000


def affordable_dpi(drawing: Drawing, dpi: float, longest: int = 60_000) -> float:
    """``dpi``, or less where the picture would exceed the pixel budget or the format's longest side."""
    inches = drawing.width / POINTS_PER_INCH, drawing.height / POINTS_PER_INCH
    return min(dpi, math.sqrt(PIXEL_BUDGET / (inches[0] * inches[1])), longest / max(inches))


def render(drawing: Drawing, dpi: float) -> Image.Image:
    """The drawing as an RGB picture at ``dpi`` dots per inch."""
    scale = dpi / POINTS_PER_INCH
    size = max(1, round(drawing.width * scale)), max(1, round(drawing.height * scale))
    page = Image.new("RGB", size, WHITE)
    pen = ImageDraw.Draw(page)
    for item in drawing.items:
        if isinstance(item, Text):
            _text(pen, item, scale)
        elif isinstance(item, Picture):
            _picture(page, item, scale)
        elif isinstance(item, Box):
            _box(pen, item, scale)
        elif isinstance(item, Rule):
            _rule(pen, item, scale)
    return page


def _text(pen: ImageDraw.ImageDraw, item: Text, scale: float) -> None:
    x = item.left * scale
    for face, part in fonts.runs(item.text, item.bold):
        room = fonts.width(part, item.size, item.bold) * scale
        size = round(item.size * scale, 2)
        font = fonts.pillow(face, size)
        features = fonts.plain_features()
        length = pen.textlength(part, font=font, features=features)
        if length > room * 1.002 + 0.5:  # hinted advances are whole pixels and may add up to more
            font = fonts.pillow(face, round(size * room / length, 2))
        pen.text((x, item.y * scale), part, fill=rgb(item.colour), font=font, anchor="ls", features=features)
        x += room


def _edges(start: float, extent: float, scale: float) -> tuple[int, int]:
    first = round(start * scale)
    return first, max(first + 1, round((start + extent) * scale))


def _picture(page: Image.Image, item: Picture, scale: float) -> None:
    left, right = _edges(item.x, item.width, scale)
    top, bottom = _edges(item.y, item.height, scale)
    size = right - left, bottom - top
    image = item.image.convert("RGB")
    if image.size != size:
        smaller = size[0] < image.width or size[1] < image.height
        how = Image.Resampling.LANCZOS if smaller or not item.sharp else Image.Resampling.NEAREST
        image = image.resize(size, how)
    page.paste(image, (left, top))


def _box(pen: ImageDraw.ImageDraw, item: Box, scale: float) -> None:
    left, right = _edges(item.x, item.width, scale)
    top, bottom = _edges(item.y, item.height, scale)
    weight = max(1, round(item.line * scale)) if item.stroke else 0
    pen.rectangle(
        (left, top, right - 1, bottom - 1),
        fill=rgb(item.fill) if item.fill else None,
        outline=rgb(item.stroke) if item.stroke else None,
        width=weight,
    )


def _rule(pen: ImageDraw.ImageDraw, item: Rule, scale: float) -> None:
    weight = max(1, round(item.line * scale))
    half = weight // 2
    ends = (item.x1 * scale, item.y1 * scale), (item.x2 * scale, item.y2 * scale)
    (x1, y1), (x2, y2) = ((round(x), round(y)) for x, y in ends)
    if x1 != x2 and y1 != y2:
        pen.line((x1, y1, x2, y2), fill=rgb(item.colour), width=weight, joint="curve")
    elif abs(x2 - x1) >= abs(y2 - y1):
        pen.rectangle((min(x1, x2), y1 - half, max(x1, x2), y1 - half + weight - 1), fill=rgb(item.colour))
    else:
        pen.rectangle((x1 - half, min(y1, y2), x1 - half + weight - 1, max(y1, y2)), fill=rgb(item.colour))

"""A colour bar with numbers, a unit, and what a reader must know about the map above it."""

from __future__ import annotations

import numpy as np
from PIL import Image

from convoscope.draw import colour, fonts, overlay
from convoscope.draw.canvas import AMBER, GREY, INK, PALE, Box, Drawing, Picture, block_height
from convoscope.draw.colour import Scale

BAR = 4.5
NUMBER_SIZE = 6.4
TEXT_SIZE = 6.2
_GAP = 2.6


def ends(scale: Scale) -> tuple[str, str]:
    """The numbers at both ends; ≤ and ≥ where values beyond were clipped."""
    low, high = colour.format_range(scale.low, scale.high)
    if scale.clip_percentile is None:
        return low, high
    return (f"≤ {low}" if scale.low < scale.centre else low), (f"≥ {high}" if scale.high > 0 else high)


def caption(scale: Scale, *, with_clip: bool) -> str:
    """The line below the bar: unit, and the clipping where it is not said elsewhere."""
    parts = [scale.unit] if scale.unit else []
    if with_clip and scale.clip_percentile is not None:
        parts.append(f"clipped at the {colour.ordinal(scale.clip_percentile)} percentile")
    return ", ".join(parts)


def notes(scale: Scale | None, note: str) -> str:
    """The caller's note and the scale's own, once each."""
    parts: list[str] = []
    for part in (note, scale.note if scale else ""):
        if part and part not in parts:
            parts.append(part)
    return "; ".join(parts)


def height(scale: Scale | None, note: str, room: float, *, with_clip: bool) -> float:
    """Height in points that `draw` takes in a column ``room`` points wide."""
    total = 0.0
    if scale is not None:
        total += BAR + _GAP + fonts.LINE * NUMBER_SIZE
        total += block_height(caption(scale, with_clip=with_clip), TEXT_SIZE, room, lines=2)
    return total + block_height(notes(scale, note), TEXT_SIZE, room, lines=4)


def draw(
    drawing: Drawing, x: float, y: float, room: float, scale: Scale | None, note: str, *, with_clip: bool
) -> float:
    """Draw bar, numbers, unit and notes from top ``y`` on, ``room`` points wide. Returns the height taken."""
    top = y
    if scale is not None:
        image = Image.fromarray(bar(scale))
        drawing.items.append(
            Picture(x + 0.2, y + 0.2, room - 0.4, BAR - 0.4, image, alt=f"colour scale: {scale.sentence()}")
        )
        drawing.items.append(Box(x, y, room, BAR, stroke=PALE, line=0.35))
        y += BAR + _GAP
        numbers(drawing, x, y, room, scale)
        y += fonts.LINE * NUMBER_SIZE
        text = caption(scale, with_clip=with_clip)
        y += drawing.block(x, y, text, TEXT_SIZE, room=room, lines=2, colour=GREY)
    y += drawing.block(x, y, notes(scale, note), TEXT_SIZE, room=room, lines=4, colour=AMBER)
    return y - top


def numbers(drawing: Drawing, x: float, y: float, room: float, scale: Scale) -> None:
    """Numbers under a bar: both ends, and zero where it lies between and there is room."""
    low, high = ends(scale)
    if scale.low == scale.high:
        drawing.line(x, y, low, NUMBER_SIZE, room=room, colour=INK)
        return
    left, right = fonts.width(low, NUMBER_SIZE), fonts.width(high, NUMBER_SIZE)
    air = 0.8 * NUMBER_SIZE
    if left + right + air > room:  # so narrow that only one number fits: the upper end
        drawing.line(x + room, y, high, NUMBER_SIZE, room=room, colour=INK, anchor="end")
        return
    drawing.line(x, y, low, NUMBER_SIZE, room=room, colour=INK)
    drawing.line(x + room, y, high, NUMBER_SIZE, room=room, colour=INK, anchor="end")
    if scale.low < scale.centre < scale.high:
        zero = x + room * ((scale.centre - scale.low) / (scale.high - scale.low))
        middle = colour.format_number(scale.centre)
        half = fonts.width(middle, NUMBER_SIZE) / 2
        if zero - half > x + left + air / 2 and zero + half < x + room - right - air / 2:
            drawing.line(zero, y, middle, NUMBER_SIZE, room=room, colour=INK, anchor="middle")


def bar(scale: Scale, length: int = 256) -> colour.Pixels:
    """The scale's colours from low to high, uint8 1×length×3. A scale without extent is one colour.

    Of a scale that is drawn ``over`` a photo, 2×length×3: as the colours look over white, and over black.
    """
    if scale.over:
        return over_bar(scale, length)
    if scale.low == scale.high:
        return colour.paint(np.full((1, length), scale.low), scale)
    steps = np.linspace(0.0, 1.0, length)
    levels = np.rint(steps * (colour.LEVELS - 1)).astype(np.intp)
    strip: colour.Pixels = colour.colours(scale.cmap)[levels][None]
    return strip


def over_bar(scale: Scale, length: int) -> colour.Pixels:
    """The colours of a scale as they look over a white photo (above) and over a black one, uint8 2×length×3."""
    spread = (
        np.full((1, 1), scale.low) if scale.low == scale.high else np.linspace(scale.low, scale.high, length)[None]
    )
    values = np.broadcast_to(spread, (2, length)).astype(np.float64)
    photo = np.zeros((2, length, 3), np.uint8)
    photo[0] = 255
    dim = overlay.DIM_SIGNED if scale.signed else overlay.DIM
    whole = np.ones((2, length), np.bool_)
    made = overlay.blend(Image.fromarray(photo), values, whole, scale, overlay.OPACITY, overlay.MUTE, dim)
    return np.asarray(made)

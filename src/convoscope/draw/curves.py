"""Small panels of curves on one scale: how something falls with the strength of a change, or rises with depth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from convoscope.draw import fonts
from convoscope.draw.canvas import GREY, INK, PALE, Box, Drawing, Rule, Text
from convoscope.draw.sheet import MARGIN, Sheet, footer, header

#: told apart by colour-blind eyes too (Okabe & Ito 2008), ink first
COLOURS = ("#1a1c20", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a7a00")
_PANEL, _HIGH, _GAP = 146.0, 92.0, 36.0
_SMALL = 6.8


@dataclass(frozen=True)
class Curve:
    """One line: ``values`` at the panel's places (NaN leaves a gap), ``low`` and ``high`` its interval where known."""

    name: str
    values: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Panel:
    """Curves over the same places, which ``places`` name; ``mark`` is said in the heading's colour below it."""

    title: str
    places: Sequence[str]
    curves: Sequence[Curve]
    mark: str = ""


def curves(
    panels: Sequence[Panel], *, title: str = "", footnote: str = "", columns: int = 4, bottom: float = 0.0,
    top: float = 1.0, wide: float = 1.0, percent: bool = True,
) -> Sheet:  # fmt: skip
    """A sheet of panels, all on the scale from ``bottom`` to ``top``; one legend for all.

    Args:
        panels: drawn row by row.
        title: heading.
        footnote: small text at the end.
        columns: panels in a row.
        wide: how many times as wide as usual a panel is.
        percent: values are shares and labelled in per cent.
    """
    names = list(dict.fromkeys(curve.name for panel in panels for curve in panel.curves))
    colour = {name: COLOURS[at % len(COLOURS)] for at, name in enumerate(names)}
    across = max(1, min(columns, len(panels)))
    panel_wide = _PANEL * wide
    width = max(2 * MARGIN + 24 + across * (panel_wide + _GAP), 330.0)
    drawing = Drawing(width, 0.0, title)
    y = header(drawing, title)
    y = _legend(drawing, names, colour, y, width) if len(names) > 1 else y
    for start in range(0, len(panels), across):
        row = panels[start : start + across]
        under = max(_under(panel, panel_wide) for panel in row)
        for at, panel in enumerate(row):
            x = MARGIN + 24 + at * (panel_wide + _GAP)
            _panel(drawing, panel, colour, x, y, panel_wide, (bottom, top), percent)
        y += 24 + _HIGH + under + 12
    drawing.height = footer(drawing, [footnote], y)
    return Sheet(drawing)


def inline_svg(sheet: Sheet) -> str:
    """The sheet as an SVG element to stand inside an HTML page."""
    text = sheet.svg()
    return text[text.index("<svg") :]


def _legend(drawing: Drawing, names: Sequence[str], colour: dict[str, str], y: float, width: float) -> float:
    x = MARGIN
    for name in names:
        room = fonts.width(name, 7.6) + 34
        if x > MARGIN and x + room > width - MARGIN:
            x, y = MARGIN, y + 12
        drawing.items.append(Rule(x, y + 5, x + 16, y + 5, colour[name], 1.6))
        drawing.items.append(Text(x + 20, y + 7.6, name, 7.6, INK))
        x += room
    return y + 20


def _tilted(panel: Panel, wide: float) -> bool:
    step = wide / max(1, len(panel.places) - 1)
    return any(fonts.width(place, _SMALL) > step - 2 for place in panel.places)


def _under(panel: Panel, wide: float) -> float:
    """Room for the places' names: in one line, or in steps where they are long."""
    return 12.0 if not _tilted(panel, wide) else 10.0 * _steps(panel, wide) + 2


def _steps(panel: Panel, wide: float) -> int:
    step = wide / max(1, len(panel.places) - 1)
    longest = max(fonts.width(place, _SMALL) for place in panel.places)
    return max(1, min(5, math.ceil((longest + 4) / step)))


def _panel(
    drawing: Drawing, panel: Panel, colour: dict[str, str], x: float, y: float, wide: float,
    span: tuple[float, float], percent: bool,
) -> None:  # fmt: skip
    drawing.line(x, y, panel.title, 8.6, room=wide + _GAP - 6, bold=True)
    drawing.line(x, y + 10.5, panel.mark, 7.0, room=wide + _GAP - 6, colour="#b3392f")
    first = y + 24
    bottom, top = span

    def at(place: int) -> float:
        return x + wide * (place / max(1, len(panel.places) - 1) if len(panel.places) > 1 else 0.5)

    def high(value: float) -> float:
        return first + _HIGH * (1 - (min(max(value, bottom), top) - bottom) / (top - bottom))

    for part in range(5):
        value = bottom + (top - bottom) * part / 4
        drawing.items.append(Rule(x, high(value), x + wide, high(value), PALE, 0.4))
        if part % 2 == 0:
            label = f"{100 * value:.0f} %" if percent else f"{value:.2g}"
            drawing.items.append(Text(x - 4, high(value) + 2.4, label, _SMALL, GREY, anchor="end"))
    steps = _steps(panel, wide) if _tilted(panel, wide) else 1
    for place, name in enumerate(panel.places):
        below = first + _HIGH + 9 + 10 * (place % steps)
        if place % steps:
            drawing.items.append(Rule(at(place), first + _HIGH, at(place), below - 6, PALE, 0.4))
        anchor = "middle" if 0 < place < len(panel.places) - 1 or steps == 1 else ("start" if place == 0 else "end")
        drawing.items.append(Text(at(place), below, name, _SMALL, GREY, anchor=anchor))
    for curve in panel.curves:
        ink = colour[curve.name]
        for place, (low, up) in enumerate(zip(curve.low, curve.high, strict=False)):
            if math.isfinite(low) and math.isfinite(up):
                drawing.items.append(Rule(at(place), high(low), at(place), high(up), ink, 0.5))
        known = [(place, value) for place, value in enumerate(curve.values) if math.isfinite(value)]
        for (p, a), (q, b) in pairwise(known):
            if q == p + 1:
                drawing.items.append(Rule(at(p), high(a), at(q), high(b), ink, 1.2))
        for place, value in known:
            drawing.items.append(Box(at(place) - 1.6, high(value) - 1.6, 3.2, 3.2, fill=ink))

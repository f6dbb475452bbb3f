"""The league as a picture: a panel for each measure, a dot and its interval for each method."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..draw.canvas import GREY, INK, PALE, Box, Drawing, Rule, Text
from ..draw.sheet import MARGIN, Sheet, footer, header
from .terms import BASELINES, arrow

if TYPE_CHECKING:
    from .league import Interval, League

_ROW = 15.0
_PANEL = 132.0
_GAP = 20.0
_ACCENT = "#1f5fa8"
_SIZE = 8.4


def chart(league: League, *, columns: int = 4, note: str = "") -> Sheet:
    """A sheet with one panel a measure; methods in the league's order, baselines below a line, in grey.

    The vertical hair line is the ``random`` baseline where there is one. Bars are 95 % intervals.
    """
    from ..draw import fonts

    methods = league.methods
    measures = league.measures
    columns = max(1, min(columns, len(measures)))
    names = max((fonts.width(m, _SIZE) for m in methods), default=40.0) + 10
    width = 2 * MARGIN + names + columns * (_PANEL + _GAP)
    rows = math.ceil(len(measures) / columns)
    block = 26.0 + _ROW * len(methods) + 26.0
    drawing = Drawing(width, 0.0, f"League table: {league.model}")
    many = "case" if len(league.keys) == 1 else "cases"
    top = header(drawing, f"{league.model}: how far each method's maps can be trusted ({len(league.keys)} {many})")
    for number, measure in enumerate(measures):
        row, column = divmod(number, columns)
        y = top + row * block
        if column == 0:
            _names(drawing, methods, MARGIN + names - 8, y + 26)
        _panel(drawing, league, measure, methods, MARGIN + names + column * (_PANEL + _GAP), y)
    y = top + rows * block
    grey = ", ".join(name for name in BASELINES if name in methods)
    text = (
        "Dots are means over the cases, bars their 95 % bootstrap intervals; ↑ more is better, ↓ less is better. "
        f"Grey: baselines ({grey}), which know nothing of the network; the thin vertical line is the random map."
    )
    drawing.height = footer(drawing, [text, note], y)
    return Sheet(drawing)


def _names(drawing: Drawing, methods: list[str], x: float, y: float) -> None:

    for number, method in enumerate(methods):
        grey = method in BASELINES
        drawing.items.append(Text(x, y + number * _ROW + 3, method, _SIZE, GREY if grey else INK, anchor="end"))


def _panel(drawing: Drawing, league: League, measure: str, methods: list[str], x: float, y: float) -> None:
    known = {m: league.interval(measure, m) for m in methods if m in league.cases[measure]}
    low, high = _span(known)
    best = league.best(measure)
    drawing.line(x, y, f"{measure} {arrow(measure)}", 9.6, room=_PANEL, bold=True)
    first, last = y + 18, y + 26 + _ROW * len(methods) - 6

    def at(value: float) -> float:
        return x + (value - low) / (high - low) * _PANEL

    for tick in _ticks(low, high):
        drawing.items.append(Rule(at(tick), first, at(tick), last, PALE, 0.4))
        drawing.items.append(Text(at(tick), last + 9, f"{tick:g}", 7.0, GREY, anchor="middle"))
    if "random" in known and math.isfinite(known["random"].mean):
        drawing.items.append(Rule(at(known["random"].mean), first, at(known["random"].mean), last, GREY, 0.7))
    for number, method in enumerate(methods):
        middle = y + 26 + number * _ROW
        if number and method in BASELINES and methods[number - 1] not in BASELINES:
            drawing.items.append(Rule(x, middle - _ROW / 2, x + _PANEL, middle - _ROW / 2, GREY, 0.4))
        cell = known.get(method)
        if cell is None or not math.isfinite(cell.mean):
            drawing.items.append(Text(x + 2, middle + 3, "–", _SIZE, GREY))
            continue
        colour = GREY if method in BASELINES else _ACCENT
        left, right = at(cell.low), at(cell.high)
        drawing.items.append(
            Box(left, middle - 1.1, max(right - left, 0.6), 2.2, fill="#b9c9dd" if colour == _ACCENT else PALE)
        )
        side = 6.4 if method == best else 4.6
        drawing.items.append(Box(at(cell.mean) - side / 2, middle - side / 2, side, side, fill=colour))


def _span(cells: dict[str, Interval]) -> tuple[float, float]:
    ends = [v for cell in cells.values() for v in (cell.low, cell.high) if math.isfinite(v)]
    if not ends:
        return 0.0, 1.0
    low, high = min(ends), max(ends)
    room = (high - low) * 0.06 or 0.05
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """Two to five round numbers between two values."""
    raw = (high - low) / 5
    power = 10 ** math.floor(math.log10(raw))
    step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= raw)
    start = math.ceil(low / step)
    return [round(k * step, 10) for k in range(start, math.floor(high / step) + 1)]

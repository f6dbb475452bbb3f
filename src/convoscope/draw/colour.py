"""How values become colours, stated exactly.

A `Scale` is the whole truth about a mapping: the value at either end, the colour map, whether it is centred
on zero and at which percentile it was clipped. Maps that are compared share one scale. Nothing is stretched
to fill the range behind the reader's back: sequential scales start at zero, diverging ones are symmetrical
about zero, a flat map stays flat, and what is not a number is hatched grey.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoscope.errors import UsageError

SEQUENTIAL = "inferno"
"""Unsigned values: perceptually uniform, monotone in lightness, safe for colour-blind eyes."""

DIVERGING = "RdBu_r"
"""Signed values: blue below zero, white at zero, red above (ColorBrewer, safe for colour-blind eyes)."""

TABLES = Path(__file__).parent / "colour_tables"
"""The colour maps that the program uses by itself, as bytes: ``docs/make_colour_tables.py`` writes them."""

HATCH_LIGHT = (214, 214, 214)
HATCH_DARK = (168, 168, 168)
HATCH_PERIOD = 8

LEVELS = 511  # odd, so that zero has a colour of its own in a diverging map

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Scale:
    """A mapping from values to colours.

    Attributes:
        low, high: the values drawn with the first and the last colour; what lies beyond gets the same colour.
        signed: the scale is symmetrical about its ``centre``.
        cmap: name of a matplotlib colour map.
        clip_percentile: ``high`` is this percentile of the values (0 to 100); None where nothing is clipped.
        note: what a reader must know ("every value is 0", "12 values are not finite"); "" if nothing.
        unit: unit of the values, such as "score per pixel"; "" where unknown.
        centre: of a signed scale, the value that means nothing; 0 but where the note says another.
        over: drawn over a photo: the bar shows the colours as they look over a black and over a white one.
    """

    low: float
    high: float
    signed: bool
    cmap: str = ""
    clip_percentile: float | None = None
    note: str = ""
    unit: str = ""
    centre: float = 0.0
    over: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.cmap, str):  # matplotlib's own objects know their names
            named = getattr(self.cmap, "name", None)
            if not isinstance(named, str):
                raise UsageError(f"cmap must be the name of one of matplotlib's colour maps, not {self.cmap!r}.")
            object.__setattr__(self, "cmap", named)
        if not self.cmap:
            object.__setattr__(self, "cmap", DIVERGING if self.signed else SEQUENTIAL)
        if not (math.isfinite(self.low) and math.isfinite(self.high)) or self.low > self.high:
            raise UsageError(f"A colour scale needs two finite ends, low <= high, not {self.low} and {self.high}.")
        about = abs((self.low - self.centre) + (self.high - self.centre))
        if self.signed and about > 1e-9 * max(abs(self.low), abs(self.high)):
            where = format_number(self.centre)
            raise UsageError(f"A signed colour scale is symmetrical about {where}, not {self.low} to {self.high}.")

    def position(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Where each value lies between ``low`` (0) and ``high`` (1), clipped; NaN where it is not finite."""
        data = np.asarray(values, dtype=np.float64)
        where = np.isfinite(data)
        if self.high == self.low:
            middle = 0.5 if self.signed else 0.0
            flat = np.where(data < self.low, 0.0, np.where(data > self.high, 1.0, middle))
            return np.where(where, flat, np.nan)
        half = np.clip(data, self.low, self.high) / 2  # halves: high - low of two huge floats may overflow
        out = (half - self.low / 2) / (self.high / 2 - self.low / 2)
        return np.where(where, np.clip(out, 0.0, 1.0), np.nan)

    def strength(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """How far from "nothing" each value is, 0 to 1: |value − centre| / (high − centre), or max(value, 0) / high.

        NaN where the value is not finite; 0 everywhere on a scale that ends at 0.
        """
        data = np.asarray(values, dtype=np.float64)
        size = np.abs(data - self.centre) if self.signed else np.maximum(data, 0.0)
        room = self.high - self.centre if self.signed else self.high
        share = np.minimum(size, room) / room if room > 0 else np.zeros_like(data)
        return np.where(np.isfinite(data), share, np.nan)

    def sentence(self) -> str:
        """The scale in words, for footnotes and alternative texts."""
        low, high = format_range(self.low, self.high)
        unit = f" {self.unit}" if self.unit else ""
        parts = [f"{low} to {high}{unit}"]
        if self.signed:
            parts.append(f"centred on {format_number(self.centre)}")
        if self.clip_percentile is not None:
            parts.append(f"clipped at the {ordinal(self.clip_percentile)} percentile")
        if self.note:
            parts.append(self.note)
        return ", ".join(parts)


def scale_for(
    arrays: Sequence[NDArray[Any]],
    *,
    signed: bool,
    percentile: float | None = 99.5,
    unit: str = "",
    cmap: str = "",
) -> Scale:
    """One scale for all maps that are compared.

    Args:
        arrays: maps of any shapes; values that are not finite are left out and counted in the note.
        signed: True centres the scale on zero: ``high`` is the percentile of |value| and ``low = -high``.
            False starts it at zero and ends it at the percentile of the values; where values are negative all
            the same, the scale starts at their ``100 - percentile`` percentile and the note says so.
        percentile: over 0 up to 100; None or 100 clips nothing. Where so few values are not zero that the
            percentile itself is zero, nothing is clipped either, lest a lone peak vanish.
        unit: unit of the values, for the legend.
        cmap: a matplotlib colour map; "" for the default of the kind.

    Returns:
        The scale; ``note`` names constant, empty and not finite maps.

    Raises:
        UsageError: for a percentile out of range.
    """
    if percentile is not None and not 0 < percentile <= 100:
        raise UsageError(f"The clipping percentile must lie over 0 and up to 100, not {percentile}.")
    flat = [np.asarray(array, dtype=np.float64).ravel() for array in arrays]
    values = np.concatenate(flat) if flat else np.zeros(0)
    finite = values[np.isfinite(values)]
    note = doubt(values)
    if finite.size == 0:
        return Scale(0.0, 0.0, signed, cmap, None, note, unit)
    if signed:
        high, clipped = _upper(np.abs(finite), percentile)
        return Scale(-high, high, True, cmap, percentile if clipped else None, note, unit)
    top, clipped = _upper(np.maximum(finite, 0.0), percentile)
    low = 0.0
    if finite.min() < 0:
        bottom, clipped_below = _upper(np.maximum(-finite, 0.0), percentile)
        low, clipped = -bottom, clipped or clipped_below
        note = "; ".join(part for part in (note, "holds values below 0") if part)
    return Scale(low, top, False, cmap, percentile if clipped else None, note, unit)


def _upper(values: NDArray[np.float64], percentile: float | None) -> tuple[float, bool]:
    """The upper end for values >= 0, and whether anything lies beyond it."""
    largest = float(values.max())
    if percentile is None or percentile >= 100:
        return largest, False
    end = float(np.percentile(values, percentile))
    if end <= 0:
        return largest, False
    return end, end < largest


def doubt(values: NDArray[Any]) -> str:
    """What is odd about a map that is to be drawn: empty, constant or not finite; "" if nothing."""
    data = np.asarray(values)
    if data.size == 0:
        return "no values"
    finite = data[np.isfinite(data)]
    missing = data.size - finite.size
    if finite.size == 0:
        return "no finite value (hatched)"
    parts = []
    low, high = float(finite.min()), float(finite.max())
    if low == high:
        parts.append("every value is 0" if low == 0 else f"constant: every value is {format_number(low)}")
    if missing:
        parts.append(f"{missing} value{'s are' if missing > 1 else ' is'} not finite (hatched)")
    return "; ".join(parts)


def paint(values: NDArray[Any], scale: Scale) -> Pixels:
    """Colour a map.

    Args:
        values: H×W; what is not finite is drawn as grey hatching.
        scale: the mapping.

    Returns:
        uint8 H×W×3.
    """
    data = np.asarray(values)
    if data.ndim != 2:
        raise UsageError(f"A map to be painted has two axes (rows, columns), not shape {data.shape}.")
    where = scale.position(data)
    holes = np.isnan(where)
    levels = np.rint(np.where(holes, 0.0, where) * (LEVELS - 1)).astype(np.intp)
    picture: Pixels = colours(scale.cmap)[levels]
    if holes.any():
        picture[holes] = hatching(data.shape[0], data.shape[1])[holes]
    return picture


def hatching(height: int, width: int) -> Pixels:
    """Diagonal grey stripes, uint8 H×W×3: "there is no value here"."""
    rows, columns = np.ogrid[:height, :width]
    dark = ((rows + columns) % HATCH_PERIOD) < HATCH_PERIOD // 2
    return np.where(dark[..., None], HATCH_DARK, HATCH_LIGHT).astype(np.uint8)


#: brightness (luma, 0 to 1) that a photo keeps at most beneath a map of unsigned values, and at least beneath one of
#: signed values: the colours of the one are all brighter, those of the other all darker
BENEATH, ABOVE = 0.42, 0.60
_LUMA = np.array([0.299, 0.587, 0.114])


@lru_cache(maxsize=32)
def colours(name: str) -> Pixels:
    """The 511 colours of a matplotlib colour map, uint8 511×3; the middle one is the centre.

    ``NAME@over`` and ``NAME@over-signed`` are the part of its colours that is brighter (darker) than any photo beneath
    it is drawn, so that more is brighter (darker) on every photo; where the map has no such part, all of its colours.
    """
    base, _, part = name.partition("@")
    if part in ("over", "over-signed"):
        table = _over(colours(base), part == "over-signed")
    else:
        shipped = _shipped(name)
        table = computed(name) if shipped is None else shipped
    table.setflags(write=False)
    return table


def _shipped(name: str) -> Pixels | None:
    """The table that comes with the program, for the maps it uses by itself."""
    file = TABLES / f"{name}.rgb"
    if not name.isidentifier() or not file.is_file():
        return None
    table: Pixels = np.frombuffer(file.read_bytes(), dtype=np.uint8).reshape(LEVELS, 3).copy()
    return table


def computed(name: str) -> Pixels:
    """The colours by matplotlib itself, for every other map."""
    import matplotlib  # here, and not pyplot: no window, and nothing at import time

    name, _, part = name.partition("@")
    if part in ("over", "over-signed"):
        return _over(colours(name), part == "over-signed")
    try:
        cmap = matplotlib.colormaps[name]
    except KeyError:
        raise UsageError(
            f"There is no colour map named {name!r}; use one of matplotlib's, such as viridis."
        ) from None
    shares = cmap.resampled(LEVELS)(np.linspace(0.0, 1.0, LEVELS))[:, :3]
    table: Pixels = np.rint(shares * 255).astype(np.uint8)
    return table


def _over(table: Pixels, signed: bool) -> Pixels:
    luma = table @ _LUMA / 255
    if signed:
        middle = LEVELS // 2
        halves = [_part(table[middle::-1], luma[middle::-1] < ABOVE), _part(table[middle:], luma[middle:] < ABOVE)]
        made = np.concatenate([halves[0][::-1], halves[1][1:]])
    else:
        made = np.concatenate([_part(table, luma > BENEATH)])
    made.setflags(write=False)
    return made


def _part(table: Pixels, fits: NDArray[np.bool_]) -> Pixels:
    """The end of a table from where all colours fit, stretched to its length; the table where hardly any do."""
    wrong = np.flatnonzero(~fits)
    start = int(wrong[-1]) + 1 if len(wrong) else 0
    if start > 0.85 * len(table):
        return np.array(table)
    places = np.linspace(start, len(table) - 1, len(table))
    found: Pixels = table[np.rint(places).astype(np.intp)]
    return found


_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def format_number(value: float, digits: int = 3) -> str:
    """A number for a legend: ``digits`` significant ones, a true minus sign, powers of ten where needed."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    power = int(exponent)
    if -3 <= power <= 4:
        text = f"{value:.{max(digits - 1 - power, 0)}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    else:
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        text = f"{mantissa}×10{str(power).translate(_SUPERSCRIPT)}"
    return text.replace("-", "−")


def format_range(low: float, high: float, digits: int = 3) -> tuple[str, str]:
    """Both ends of a scale as text."""
    return format_number(low, digits), format_number(high, digits)


def ordinal(number: float) -> str:
    """99.5 -> "99.5th", 1 -> "1st": for percentiles."""
    text = f"{number:g}"
    if "." not in text and text[-2:] not in ("11", "12", "13"):
        return text + {"1": "st", "2": "nd", "3": "rd"}.get(text[-1], "th")
    return text + "th"

"""Which scale a map is drawn with, so that its colours are used for what differs from place to place.

Nothing is stretched in silence: where a scale does not begin at zero, is not symmetrical, or leaves most of its
colours to a few pixels, its note says so.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoscope.draw import colour
from convoscope.draw.colour import Scale, format_number

#: what lies on the other side of zero counts as nothing below this share of the largest
ONE_SIDED = 0.02
#: a patch that is so many times stronger than the next one gets its number instead of the whole scale
ALONE = 2.0
#: share of the colours that the middle 98 % of the pixels should use
USED = 0.5


def for_map(
    values: NDArray[Any],
    *,
    signed: bool,
    unit: str = "",
    expected: float | None = None,
    patches: bool = False,
    percentile: float | None = 99.5,
) -> Scale:
    """The scale of one map that is drawn alone.

    Args:
        values: H×W (or D×H×W).
        signed: whether the method's values may lie on both sides of zero.
        unit: unit of the values.
        expected: what every value would be if no place mattered; the colours show the difference from it.
        patches: the map is made of patches of one value each.
        percentile: where the scale ends; None clips nothing.

    Returns:
        The scale; its note says what a reader must know.
    """
    data = np.asarray(values, dtype=np.float64)
    finite = data[np.isfinite(data)]
    if finite.size == 0 or finite.min() == finite.max():
        return colour.scale_for([data], signed=signed, percentile=percentile, unit=unit)
    if expected is not None:
        return _used(_around(data, expected, percentile, unit), finite)
    if patches:
        return _used(_of_patches(data, finite, signed, unit), finite)
    if signed:
        above, below = (float(np.percentile(np.maximum(side, 0), 99.5)) for side in (finite, -finite))
        if below <= ONE_SIDED * above:
            made = colour.scale_for([np.maximum(data, 0)], signed=False, percentile=percentile, unit=unit)
            lowest = float(finite.min())
            why = (
                "no value lies below 0" if lowest >= 0 else "what lies below 0 is next to nothing, and is drawn as 0"
            )
            return _used(_noted(made, why), finite)
        made = colour.scale_for([data], signed=True, percentile=percentile, unit=unit)
        return _used(_noted(made, "no value lies above 0") if above <= ONE_SIDED * below else made, finite)
    return _used(colour.scale_for([data], signed=False, percentile=percentile, unit=unit), finite)


def _around(data: NDArray[np.float64], expected: float, percentile: float | None, unit: str) -> Scale:
    """Centred on what is expected where nothing matters: above it red, below it blue."""
    made = colour.scale_for([data - expected], signed=True, percentile=percentile, unit=unit)
    why = f"colours show the difference from {format_number(expected)}, the mean over all masks"
    if made.high == 0:
        return replace(made, note="; ".join(part for part in (made.note, why) if part))
    return replace(
        made, low=expected - made.high, high=expected + made.high, centre=expected,
        note="; ".join(part for part in (made.note, why) if part),
    )  # fmt: skip


def _of_patches(data: NDArray[np.float64], finite: NDArray[np.float64], signed: bool, unit: str) -> Scale:
    """A percentile of pixels would be the largest patch: here patches count, not their pixels."""
    made = colour.scale_for([data], signed=signed, percentile=None, unit=unit)
    sizes = np.unique(np.abs(finite))
    if len(sizes) < 3 or sizes[-1] <= ALONE * sizes[-2] or sizes[-2] == 0:
        return made
    high = float(sizes[-2]) * 1.25
    peak = float(finite[np.argmax(np.abs(finite))])
    why = f"one patch lies beyond the scale: {format_number(peak)}"
    low = -high if signed else max(made.low, -high)
    return _noted(replace(made, low=low, high=high), why)


def _used(scale: Scale, finite: NDArray[np.float64]) -> Scale:
    """Say so where most pixels share a small part of the colours."""
    share = used(scale, finite)
    if share >= USED:
        return scale
    return _noted(scale, f"a few places stand out: 98 % of the pixels use {share:.0%} of the colours")


def used(scale: Scale, values: NDArray[Any]) -> float:
    """The share of a scale's colours that the middle 98 % of the values use; of a signed one, from its centre out."""
    data = np.asarray(values)
    data = data[np.isfinite(data)]
    if data.size == 0:
        return 0.0
    ways = [scale.position(data), *([scale.strength(data)] if scale.signed else [])]
    return float(max(np.subtract(*np.percentile(way, (99, 1))) for way in ways))


def _noted(scale: Scale, why: str) -> Scale:
    return replace(scale, note="; ".join(part for part in (scale.note, why) if part))


__all__ = ["for_map", "used"]

"""Outlines of the toybox: points as float arrays of shape [N, 2], x to the right, y downwards.

A thing is drawn in its own frame, roughly from -1 to 1; its pose is applied to all of its points at once
when it is painted (see :mod:`convoscope.toybox.paint`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Color = tuple[float, float, float]
XY = tuple[float, float]

_TURN = np.linspace(0.0, 2.0 * np.pi, 32, endpoint=False)
_CIRCLE: Points = np.stack([np.cos(_TURN), np.sin(_TURN)], 1)
_HALF = np.linspace(-np.pi / 2, np.pi / 2, 7)
_CAPSULE: Points = np.concatenate([_s * np.stack([np.cos(_HALF), np.sin(_HALF)], 1) for _s in (1, -1)])


@dataclass
class Shape:
    """One filled outline: its points, its colour (0..255) and the part of the thing it belongs to."""

    points: Points
    color: Color
    part: str


@dataclass
class Sketch:
    """A thing before it is painted: filled shapes from back to front, and named points."""

    shapes: list[Shape] = field(default_factory=list)
    landmarks: dict[str, XY] = field(default_factory=dict)

    def add(self, part: str, points: Points, color: Color) -> None:
        """Lay one more filled outline on top of those already there."""
        self.shapes.append(Shape(points, color, part))

    def mark(self, name: str, x: float, y: float) -> None:
        """Name a point of the thing (a landmark), in the thing's own frame."""
        self.landmarks[name] = (x, y)


def polygon(*points: XY) -> Points:
    """The corners as an array of shape [N, 2]."""
    return np.array(points, dtype=np.float64)


def box(x0: float, y0: float, x1: float, y1: float) -> Points:
    """An upright rectangle."""
    return polygon((x0, y0), (x1, y0), (x1, y1), (x0, y1))


def ellipse(x: float, y: float, rx: float, ry: float | None = None, angle: float = 0.0) -> Points:
    """An ellipse around (x, y), its first axis turned by ``angle`` (radians, clockwise on the screen)."""
    points = _CIRCLE * (rx, rx if ry is None else ry)
    if angle:
        c, s = np.cos(angle), np.sin(angle)
        points = points @ np.array([[c, s], [-s, c]])
    moved: Points = points + np.array([x, y])
    return moved


def arc(x: float, y: float, rx: float, ry: float, start: float, stop: float, n: int = 20) -> Points:
    """The points of an open arc from angle ``start`` to ``stop`` (radians, 0 = right, clockwise)."""
    t = np.linspace(start, stop, n)
    return np.stack([x + rx * np.cos(t), y + ry * np.sin(t)], 1)


@cache
def _catmull_rom(n: int) -> Points:
    """Weights [n, 4] of four neighbours for ``n`` points between the two in the middle."""
    t = np.arange(n) / n
    t2, t3 = t**2, t**3
    return 0.5 * np.stack([-t + 2 * t2 - t3, 2 - 5 * t2 + 3 * t3, t + 4 * t2 - 3 * t3, t3 - t2], 1)


def smooth(points: Points, n: int = 6, closed: bool = True) -> Points:
    """A Catmull-Rom curve through the points, ``n`` pieces between neighbours."""
    before, after = (points[-1:], points[:2]) if closed else (points[:1], points[-1:])
    padded = np.concatenate([before, points, after])
    around = np.stack([padded[:-3], padded[1:-2], padded[2:-1], padded[3:]], 1)
    curve: Points = (_catmull_rom(n) @ around).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, points[-1:]])


def rounded(points: Points, radius: float, n: int = 5) -> Points:
    """The polygon with its corners rounded off, each by at most ``radius`` along its sides."""
    after = np.concatenate([points[1:], points[:1]]) - points
    lengths = np.sqrt((after * after).sum(1))
    cut = np.minimum(radius, 0.48 * lengths)
    along = after * (cut / lengths)[:, None]
    a = points - np.concatenate([along[-1:], along[:-1]])
    corner = np.stack([a, points, points + along], 1)
    out: Points = (_corner(n) @ corner).reshape(-1, 2)
    return out


@cache
def _corner(n: int) -> Points:
    """Weights [n, 3] of a quadratic Bezier curve."""
    t = np.linspace(0.0, 1.0, n)
    return np.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2], 1)


_CAP = np.linspace(np.pi / 2, -np.pi / 2, 7)[1:-1]
_CAP_COS, _CAP_SIN = np.cos(_CAP)[:, None], np.sin(_CAP)[:, None]


def ribbon(line: Points, width: float, end_width: float | None = None) -> Points:
    """The outline of a stroke along an open line, with round ends; it may taper to ``end_width``."""
    end_width = width if end_width is None else end_width
    tangent = np.empty_like(line)
    tangent[1:-1] = line[2:] - line[:-2]
    tangent[0], tangent[-1] = line[1] - line[0], line[-1] - line[-2]
    tangent /= np.sqrt((tangent * tangent).sum(1, keepdims=True)) + 1e-12
    normal = tangent[:, ::-1] * (-1.0, 1.0)
    offset = normal * (width / 2 + (end_width - width) / 2 * np.arange(len(line)) / (len(line) - 1))[:, None]
    last = line[-1] + end_width / 2 * (_CAP_COS * tangent[-1] + _CAP_SIN * normal[-1])
    first = line[0] - width / 2 * (_CAP_COS * tangent[0] + _CAP_SIN * normal[0])
    return np.concatenate([line + offset, last, (line - offset)[::-1], first])


def segment(x0: float, y0: float, x1: float, y1: float, width: float) -> Points:
    """A straight stroke with round ends."""
    dx, dy = x1 - x0, y1 - y0
    scale = width / 2 / max(math.hypot(dx, dy), 1e-12)
    turned = _CAPSULE @ np.array([[dx * scale, dy * scale], [-dy * scale, dx * scale]])
    turned[: len(_CAPSULE) // 2] += (x1, y1)
    turned[len(_CAPSULE) // 2 :] += (x0, y0)
    out: Points = turned
    return out


def ring(outer: Points, inner: Points) -> Points:
    """An outline with a hole, as one keyhole polygon (both outlines run the same way round)."""
    return np.concatenate([outer, outer[:1], inner[:1], inner[::-1]])


def lighter(color: Color, amount: float) -> Color:
    """The colour mixed with white (``amount`` 0 to 1)."""
    r, g, b = color
    return (r + (255 - r) * amount, g + (255 - g) * amount, b + (255 - b) * amount)


def darker(color: Color, amount: float) -> Color:
    """The colour mixed with a deep blue-black (``amount`` 0 to 1), as shade outdoors is bluish."""
    r, g, b = color
    return (r + (26 - r) * amount, g + (22 - g) * amount, b + (46 - b) * amount)


def mixed(a: Color, b: Color, amount: float) -> Color:
    """From colour ``a`` (0) to colour ``b`` (1)."""
    return (a[0] + (b[0] - a[0]) * amount, a[1] + (b[1] - a[1]) * amount, a[2] + (b[2] - a[2]) * amount)

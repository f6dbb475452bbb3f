"""From outlines to pixels: poses, anti-aliased painting, soft light and shadows.

Shapes are filled by number on a canvas four times as fine as the picture. Colour comes from a look-up in
that canvas, coverage and part masks from the same canvas, so that picture and truth cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from convoscope.toybox.shapes import Points, Sketch

FINE = 4
"""Canvas pixels per picture pixel, along each axis."""

_FILLED = [0] + [255] * 255

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Painted:
    """A thing in pixels: colour times coverage [H, W, 3] (to 255), coverage [H, W] (to 1), masks, points."""

    color: Floats
    cover: Floats
    parts: dict[str, Bools]
    landmarks: dict[str, tuple[float, float]]

    @property
    def mask(self) -> Bools:
        """Pixels that are at least half covered."""
        out: Bools = self.cover >= 0.5
        return out


@dataclass(frozen=True)
class Pose:
    """Where and how a thing stands: a linear map, then a shift, into picture pixels."""

    matrix: NDArray[np.float64]
    shift: NDArray[np.float64]

    def apply(self, points: Points) -> Points:
        """Move points [N, 2] from the thing's frame to picture pixels (pixel i spans i to i + 1)."""
        out: Points = points @ self.matrix.T + self.shift
        return out


def extent(sketch: Sketch, matrix: NDArray[np.float64]) -> tuple[Points, Points]:
    """Lowest and highest x, y of the sketch under the linear map ``matrix``."""
    points = np.concatenate([shape.points for shape in sketch.shapes]) @ matrix.T
    return points.min(0), points.max(0)


def paint(sketch: Sketch, pose: Pose, height: int, width: int) -> Painted:
    """Fill the shapes of the sketch, from back to front, into a picture of the given size."""
    sizes = [len(shape.points) for shape in sketch.shapes]
    points = pose.apply(np.concatenate([shape.points for shape in sketch.shapes]))
    x0, y0 = (max(int(v) - 1, 0) for v in points.min(0).tolist())
    x1, y1 = (min(max(int(v) + 2, 1), n) for v, n in zip(points.max(0).tolist(), (width, height), strict=True))
    x0, y0 = min(x0, width - 1), min(y0, height - 1)
    x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
    canvas = Image.new("L", ((x1 - x0) * FINE, (y1 - y0) * FINE), 0)
    brush = ImageDraw.Draw(canvas)
    corners = ((points - (x0, y0)) * FINE - 0.5).ravel().tolist()
    start = 0
    for number, size in enumerate(sizes, 1):
        brush.polygon(corners[start : start + 2 * size], fill=number)
        start += 2 * size

    palette = [0, 0, 0]
    for shape in sketch.shapes:
        palette += [round(channel) for channel in shape.color]
    numbers = np.asarray(canvas)
    indexed = canvas.copy()
    indexed.putpalette(palette)
    window = (slice(y0, y1), slice(x0, x1))
    color = np.zeros((height, width, 3), np.float32)
    color[window] = np.asarray(indexed.convert("RGB").reduce(FINE))
    cover = np.zeros((height, width), np.float32)
    cover[window] = np.asarray(canvas.point(_FILLED).reduce(FINE), np.float32) / 255
    names = list(dict.fromkeys(shape.part for shape in sketch.shapes))
    number_to_part = np.array([0] + [1 + names.index(shape.part) for shape in sketch.shapes], np.uint8)
    owner = number_to_part[numbers[FINE // 2 :: FINE, FINE // 2 :: FINE]]  # what lies at the pixel's centre,
    solid = cover[window] >= 0.5
    for dy, dx in ((1, 1), (0, 3), (3, 0), (0, 0), (3, 3), (1, 2), (2, 1)):  # or else elsewhere in it
        bare = np.nonzero(solid & (owner == 0))
        if not len(bare[0]):
            break
        owner[bare] = number_to_part[numbers[dy::FINE, dx::FINE][bare]]
    owner[~solid] = 0
    parts = {}
    for k, name in enumerate(names, 1):
        part = np.zeros((height, width), bool)
        part[window] = owner == k
        if part.any():
            parts[name] = part
    landmarks = {}
    for name, (x, y) in sketch.landmarks.items():
        px, py = pose.apply(np.array([[x, y]], np.float64))[0]
        landmarks[name] = (float(px) - 0.5, float(py) - 0.5)  # in pixel indices: the centre of pixel i is i
    return Painted(color, cover, parts, landmarks)


def blur(field: Floats, radius: float) -> Floats:
    """A Gaussian blur of a field with values 0..1."""
    picture = Image.fromarray((field * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))
    soft: Floats = np.asarray(picture, np.float32) / np.float32(255)
    return soft


def noise(rng: np.random.Generator, height: int, width: int, cells: int, octaves: int = 3) -> Floats:
    """Smooth noise [H, W] around 0, mostly within -1..1: random grids of doubling fineness, interpolated."""
    total = np.zeros((height, width), np.float32)
    for k in range(octaves):
        n = cells * 2**k
        grid: Floats = rng.random((n, n), dtype=np.float32) * 2 - 1
        layer = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
        total += np.asarray(layer, np.float32) * 0.6**k
    return total


def shifted(field: Floats, dx: int, dy: int) -> Floats:
    """The field moved by whole pixels; what enters from outside is 0."""
    out = np.zeros_like(field)
    h, w = field.shape
    out[max(dy, 0) : h + min(dy, 0), max(dx, 0) : w + min(dx, 0)] = field[
        max(-dy, 0) : h + min(-dy, 0), max(-dx, 0) : w + min(-dx, 0)
    ]
    return out


def relief(soft: Floats, light: tuple[float, float]) -> Floats:
    """How much brighter (above 0) or darker a cushion of this height [H, W] looks under the light."""
    out = np.zeros_like(soft)
    out[:, 1:-1] = (soft[:, :-2] - soft[:, 2:]) * (0.5 * light[0])
    out[1:-1] += (soft[:-2] - soft[2:]) * (0.5 * light[1])
    return out


def lay(ground: Floats, thing: Painted, light: tuple[float, float], size: float, detail: bool = True) -> Floats:
    """Put a painted thing onto the ground [H, W, 3]: its shadow first, then itself under the same light.

    ``size`` is the thing's length in pixels; it sets how far the shadow falls and how round the thing looks.
    """
    cover, reach = thing.cover, size * 0.05
    shade = blur(shifted(cover, round(-light[0] * reach), round(abs(light[1]) * reach)), max(reach * 0.55, 0.6))
    height = blur(cover, size * 0.035) * (size * 0.02)
    if detail:
        height += blur(cover, size * 0.1) * (size * 0.05)
    out: Floats = thing.color * (1 + relief(height, light))[..., None]
    out += ground * ((1 - 0.42 * shade) * (1 - cover))[..., None]
    return out

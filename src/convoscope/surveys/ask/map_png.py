"""A map for print: thumbnails on a grid, none over another, each as near to its place as can be."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ...draw import fonts
from ..gather.decode import open_thumbnail

if TYPE_CHECKING:
    from .maps import EmbeddingMap

#: up to so many pictures all are drawn, by the best assignment of pictures to cells
ASSIGNED = 2000
#: cells along a side beyond that
SIDE = 64
_GREY = (110, 110, 110)
_ACCENT = (11, 107, 203)


def draw(made: EmbeddingMap, cell: int = 64) -> Image.Image:
    """The picture: thumbnails on white, the title above, the metrics and what was left out below."""
    thumbnails = [row["thumbnail"] for row in made.rows] + [row["thumbnail"] for row in made.placed]
    placed = np.array([[row["x"], row["y"]] for row in made.placed], np.float32).reshape(-1, 2)
    which, cells, side, note = layout(np.concatenate([made.xy, placed]), len(placed))
    if len(placed):
        note += " Framed in blue: placed afterwards."
    gap = max(1, cell // 16)
    margin, head = cell // 2 + gap, max(28, cell)
    width = max(side[1] * (cell + gap) + 2 * margin, 480)
    height = side[0] * (cell + gap) + 2 * margin + 2 * head
    canvas = Image.new("RGB", (width, height), "white")
    left = (width - side[1] * (cell + gap)) // 2
    for picture, (row, col) in zip(which, cells, strict=True):
        small = _square(open_thumbnail(thumbnails[picture]), cell)
        if picture >= len(made.rows):
            ImageDraw.Draw(small).rectangle((0, 0, cell - 1, cell - 1), outline=_ACCENT, width=max(2, cell // 14))
        canvas.paste(small, (left + col * (cell + gap), margin + head + row * (cell + gap)))
    text = ImageDraw.Draw(canvas)
    size = max(13.0, min(cell * 0.4, width / 60))
    face = fonts.primary()
    shown = fonts.fit(made.title, width - 2 * margin, size * 1.3)
    text.text((margin, margin * 0.6), shown, fill=(20, 20, 20), font=fonts.pillow(face, size * 1.3))
    lines = fonts.wrap(f"{sentence(made)} {note}", width - 2 * margin, size, lines=3)
    for number, line in enumerate(lines):
        y = height - head - margin // 2 + number * size * 1.3
        text.text((margin, y), line, fill=_GREY, font=fonts.pillow(face, size))
    return canvas


def sentence(made: EmbeddingMap) -> str:
    """The metrics in one line."""
    names = {
        "trustworthiness": "trustworthiness", "continuity": "continuity", "knn_recall": "kNN recall", "kl": "KL",
        "variance": "variance kept", "accuracy_1nn": "1-NN accuracy", "purity_10nn": "10-NN purity",
        "silhouette": "silhouette",
    }  # fmt: skip
    parts = [f"{name} {made.metrics[key]:.3f}" for key, name in names.items() if made.metrics.get(key) is not None]
    measured, points = made.metrics.get("points_measured"), made.metrics.get("points")
    on = f" (on {measured:,} of {points:,} points)" if measured != points and measured else ""
    return f"k = {made.metrics.get('k')}{on}: {', '.join(parts)}."


def layout(xy: NDArray[np.float32], placed: int = 0) -> tuple[list[int], list[tuple[int, int]], tuple[int, int], str]:
    """Which pictures are drawn, their cells (row, column), the grid's (rows, columns), and what was left out.

    The last ``placed`` points are drawn in any case.
    """
    low, high = xy.min(0), xy.max(0)
    span = np.maximum(high - low, 1e-9)
    share = (xy - low) / span
    share[:, 1] = 1 - share[:, 1]  # up is up
    count = len(xy)
    if count <= ASSIGNED:
        # some air, so that clusters stay apart
        cells = math.ceil(count * 1.6)
        rows = int(np.clip(math.sqrt(cells * np.clip(span[1] / span[0], 0.5, 2.0)), 1, cells))
        cols = math.ceil(cells / rows)
        places = _assign(share, rows, cols)
        return list(range(count)), places, (rows, cols), "All pictures are drawn, each near its place."
    chosen: dict[tuple[int, int], int] = {}
    at = np.minimum((share[:, ::-1] * SIDE).astype(int), SIDE - 1)
    away = (((share[:, ::-1] * SIDE) - at - 0.5) ** 2).sum(1)
    away[count - placed :] = -1
    for index in np.argsort(away, kind="stable"):
        chosen.setdefault((int(at[index, 0]), int(at[index, 1])), int(index))
    note = f"{len(chosen):,} of {count:,} pictures are drawn: of each cell the one nearest to its middle."
    return list(chosen.values()), list(chosen), (SIDE, SIDE), note


def _assign(share: NDArray[np.float32], rows: int, cols: int) -> list[tuple[int, int]]:
    """The assignment of points to different cells that moves them least in all (squared distance)."""
    from scipy.optimize import linear_sum_assignment

    y, x = np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(cols) + 0.5) / cols, indexing="ij")
    grid = np.stack([x.ravel() * cols, y.ravel() * rows], 1)
    points = share * np.array([cols, rows])
    cost = ((points[:, None] - grid[None]) ** 2).sum(2)
    _, cells = linear_sum_assignment(cost)
    return [(int(c) // cols, int(c) % cols) for c in cells]


def _square(image: Image.Image, cell: int) -> Image.Image:
    """The whole picture in a square cell, on white."""
    factor = cell / max(image.size)
    method = Image.Resampling.NEAREST if max(image.size) <= 16 else Image.Resampling.LANCZOS
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    fitted = image.resize(size, method)
    square = Image.new("RGB", (cell, cell), "white")
    square.paste(fitted, ((cell - size[0]) // 2, (cell - size[1]) // 2))
    return square

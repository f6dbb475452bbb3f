"""Frames of a film about a network that learns: a line of figures, the first filters, rows of pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ..draw import fonts

INK, SOFT, PAGE = (26, 28, 32), (92, 99, 108), (255, 255, 255)
MARGIN, GAP, LINE = 16, 4, 20


def filter_sheet(weights: NDArray[Any], top: float, columns: int = 8, side: int = 36) -> Image.Image:
    """Filters ``[N, 1 or 3, h, w]`` side by side around mid-grey; ``top`` is the value drawn as black or white."""
    kernels = np.repeat(weights, 3, 1) if weights.shape[1] == 1 else weights
    shades = np.clip(0.5 + kernels / (2 * top), 0, 1)
    pixels = np.round(shades * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    rows = math.ceil(len(pixels) / columns)
    step = side + GAP
    sheet = Image.new("RGB", (columns * step - GAP, rows * step - GAP), PAGE)
    for place, one in enumerate(pixels):
        tile = Image.fromarray(one).resize((side, side), Image.Resampling.NEAREST)
        sheet.paste(tile, ((place % columns) * step, (place // columns) * step))
    return sheet


def frame(
    title: str,
    lines: Sequence[str],
    filters: Image.Image | None,
    rows: Sequence[tuple[str, Sequence[tuple[Image.Image, str]]]],
    side: int = 96,
    columns: int = 8,
) -> Image.Image:
    """One frame; frames with as many lines, filters and pictures have the same size.

    Args:
        title: in bold.
        lines: figures below it.
        filters: a sheet of filters.
        rows: a heading and pictures with a word each.
        side: pixels of a picture.
        columns: pictures in a row.
    """
    blocks = [(name, list(pictures)) for name, pictures in rows if pictures]
    across = min(columns, max((len(pictures) for _, pictures in blocks), default=0))
    width = max(440, across * (side + GAP), filters.width if filters is not None else 0) + 2 * MARGIN
    deep = [math.ceil(len(pictures) / columns) for _, pictures in blocks]
    height = 2 * MARGIN + LINE * (1 + len(lines)) + (0 if filters is None else filters.height + LINE)
    height += sum(LINE + rows * (side + 18) for rows in deep)
    made = Image.new("RGB", (width, height), PAGE)
    pen = ImageDraw.Draw(made)
    y = MARGIN
    _write(pen, MARGIN, y, title, bold=True)
    y += LINE
    for line in lines:
        _write(pen, MARGIN, y, line)
        y += LINE
    if filters is not None:
        made.paste(filters, (MARGIN, y + 6))
        y += filters.height + LINE
    for (name, pictures), rows_deep in zip(blocks, deep, strict=True):
        _write(pen, MARGIN, y, name)
        for place, (image, word) in enumerate(pictures):
            x = MARGIN + (place % columns) * (side + GAP)
            top = y + LINE + (place // columns) * (side + 18)
            made.paste(_square(image, side), (x, top))
            _write(pen, x, top + side + 1, fonts.fit(word, side, 11), size=11, colour=SOFT)
        y += LINE + rows_deep * (side + 18)
    return made


def _square(image: Image.Image, side: int) -> Image.Image:
    tile = image.convert("RGB")
    factor = side / max(tile.size)
    size = (max(1, round(tile.width * factor)), max(1, round(tile.height * factor)))
    kind = Image.Resampling.NEAREST if factor >= 2 else Image.Resampling.LANCZOS
    field = Image.new("RGB", (side, side), PAGE)
    field.paste(tile.resize(size, kind), ((side - size[0]) // 2, (side - size[1]) // 2))
    return field


def _write(
    pen: ImageDraw.ImageDraw, x: int, y: int, text: str, *, size: int = 14, bold: bool = False,
    colour: tuple[int, int, int] = INK,
) -> None:  # fmt: skip
    at = float(x)
    for face, part in fonts.runs(fonts.clean(text), bold):
        pen.text((at, y), part, fill=colour, font=fonts.pillow(face, size))
        at += fonts.width(part, size, bold)

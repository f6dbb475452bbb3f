"""Several pictures of one size as one: the slices of a volume, the frames of a video."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

#: at most this many slices are drawn, evenly spaced
SHOWN = 16


def shown(slices: Sequence[Any]) -> list[Any]:
    """At most :data:`SHOWN` of them, evenly spaced."""
    if len(slices) <= SHOWN:
        return list(slices)
    return [slices[k] for k in np.linspace(0, len(slices) - 1, SHOWN).round().astype(int)]


def montage(images: Sequence[Image.Image], gap: int = 2) -> Image.Image:
    """Images of one size side by side in rows, white between them."""
    width, height = images[0].size
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for number, image in enumerate(images):
        sheet.paste(image, (number % columns * (width + gap), number // columns * (height + gap)))
    return sheet

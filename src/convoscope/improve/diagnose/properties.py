"""What a picture looks like, without any network: size, light, colour, sharpness, noise."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...pictures.picture import Picture
from ..copies import signature

Floats = NDArray[np.floating[Any]]

#: longest side at which light and sharpness are measured, so that pictures of other sizes can be compared
SIDE = 128


@dataclass(frozen=True, eq=False)
class Properties:
    """One picture. Values of pixels are in 0..1.

    Args:
        height: pixels.
        width: pixels.
        aspect: width / height.
        brightness: mean of the grey values.
        contrast: their standard deviation.
        saturation: mean of (largest - smallest channel).
        warmth: mean red - mean blue.
        sharpness: root mean square of the Laplacian, divided by contrast.
        noise: Immerkaer's estimate of the noise's deviation (1996).
        edge: how much the outermost pixels differ from those just inside (a frame).
        signature: uint8 ``[16, 16]``, by which copies are found (see :mod:`..copies`).
        bits: bits a pixel of the file; 0 where there is no file.
    """

    height: int
    width: int
    aspect: float
    brightness: float
    contrast: float
    saturation: float
    warmth: float
    sharpness: float
    noise: float
    edge: float
    signature: NDArray[np.uint8]
    bits: float


#: what slices may be described by, in words
NAMES = {
    "brightness": ("dark", "bright"),
    "contrast": ("low in contrast", "high in contrast"),
    "saturation": ("pale", "colourful"),
    "warmth": ("bluish", "reddish"),
    "sharpness": ("blurred", "sharp"),
    "noise": ("free of noise", "noisy"),
    "edge": ("without a frame", "framed"),
    "aspect": ("tall", "wide"),
}
assert set(NAMES) <= {one.name for one in fields(Properties)}


def measure(picture: Picture) -> Properties:
    """The properties of one picture, from its RGB rendering."""
    image = picture.image
    height, width = picture.size
    small = image.copy()
    small.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    values = np.asarray(small, np.float32) / 255
    grey = values @ np.array([0.299, 0.587, 0.114], np.float32)
    contrast = float(grey.std())
    # the network may see more pixels than the small copy has: noise lives in the finest ones
    full = np.asarray(image.convert("L"), np.float32)[:512, :512] / 255
    return Properties(
        height, width, width / height, float(grey.mean()), contrast,
        float((values.max(2) - values.min(2)).mean()), float(values[..., 0].mean() - values[..., 2].mean()),
        float(np.sqrt((_laplacian(grey) ** 2).mean()) / max(contrast, 1e-3)), _noise(full), _edge(grey),
        signature(image), _bits(picture.path, height * width),
    )  # fmt: skip


def _laplacian(grey: Floats) -> Floats:
    if min(grey.shape) < 3:
        return np.zeros((1, 1), np.float32)
    inner = grey[1:-1, 1:-1]
    return np.asarray(grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner)


def _noise(grey: Floats) -> float:
    """The deviation of white noise, from a mask that neither slopes nor edges answer to (Immerkaer 1996).

    The median over blocks stands for the mean of the paper: fine texture raises some blocks, noise all.
    """
    if min(grey.shape) < 8:
        return 0.0
    lines = grey[:-2] - 2 * grey[1:-1] + grey[2:]
    mask = np.abs(lines[:, :-2] - 2 * lines[:, 1:-1] + lines[:, 2:])
    rows, columns = max(1, mask.shape[0] // 8), max(1, mask.shape[1] // 8)
    cut = mask[: mask.shape[0] // rows * rows, : mask.shape[1] // columns * columns]
    blocks = cut.reshape(cut.shape[0] // rows, rows, cut.shape[1] // columns, columns).mean((1, 3))
    return float(np.median(blocks) * np.sqrt(np.pi / 2) / 6)


def _edge(grey: Floats) -> float:
    if min(grey.shape) < 8:
        return 0.0
    at = max(1, min(grey.shape) // 16)
    jumps = [
        np.abs(grey[0] - grey[at]).mean(), np.abs(grey[-1] - grey[-1 - at]).mean(),
        np.abs(grey[:, 0] - grey[:, at]).mean(), np.abs(grey[:, -1] - grey[:, -1 - at]).mean(),
    ]  # fmt: skip
    return float(min(jumps))


def _bits(path: Path | None, pixels: int) -> float:
    try:
        return 0.0 if path is None else 8.0 * path.stat().st_size / max(1, pixels)
    except OSError:
        return 0.0

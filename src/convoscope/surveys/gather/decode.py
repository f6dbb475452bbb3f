"""From a file to what a survey keeps of a picture, and to the network's input."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...errors import PictureError
from ...pictures.picture import ModelInput, Picture, Preprocessing
from . import collections
from .shards import Item

#: longest side of a thumbnail in pixels
THUMBNAIL = 96


@dataclass(eq=False)
class Decoded:
    """A picture ready for the network, or the sentence that says why it is not."""

    item: Item
    fitted: ModelInput | None
    width: int = 0
    height: int = 0
    size: int = 0
    thumbnail: bytes | None = None
    phash: int = 0
    error: str | None = None


def decode(item: Item, preprocessing: Preprocessing) -> Decoded:
    """Read, check and fit one picture. Never raises for a bad picture: the error is in the result."""
    if item.error is not None:
        return Decoded(item, None, error=item.error)
    try:
        path = item.uri
        data = collections.read(path)
        picture = Picture.of(data, path)
        if picture.sha256 != item.sha256:
            raise PictureError(f"{path}: the file changed after it was listed: run the survey again.")
        small = thumbnail(picture.image)
        height, width = picture.size
        size = len(data)
        return Decoded(item, picture.prepare(preprocessing), width, height, size, encode(small), phash(small))
    except PictureError as error:
        return Decoded(item, None, error=str(error))
    except (OSError, MemoryError) as error:
        return Decoded(item, None, error=f"{item.uri}: cannot be read ({error}).")


def thumbnail(image: Image.Image) -> Image.Image:
    """RGB of at most 96 pixels a side; smaller pictures stay as they are."""
    small = image.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return small


def encode(small: Image.Image) -> bytes:
    """As JPEG; as PNG where the picture is so small that JPEG would spoil it."""
    buffer = io.BytesIO()
    if max(small.size) <= 48:
        small.save(buffer, "PNG")
    else:
        small.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def open_thumbnail(data: bytes | None) -> Image.Image:
    """A stored thumbnail as RGB; a grey square where there is none."""
    if not data:
        return Image.new("RGB", (THUMBNAIL, THUMBNAIL), (200, 200, 200))
    return Image.open(io.BytesIO(data)).convert("RGB")


def _cosines(n: int, kept: int) -> NDArray[np.float64]:
    k, x = np.arange(kept)[:, None], np.arange(n)[None]
    cosines: NDArray[np.float64] = np.cos(np.pi * k * (2 * x + 1) / (2 * n))
    return cosines


_DCT = _cosines(32, 8)
_WEIGHTS = np.uint64(1) << np.arange(64, dtype=np.uint64)


def phash(image: Image.Image) -> int:
    """64-bit perceptual hash: signs of the 8×8 lowest DCT coefficients of a 32×32 grey copy against their median.

    Near-identical pictures differ in few bits (Zauner 2010).
    """
    grey = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.BILINEAR), np.float64)
    low = (_DCT @ grey @ _DCT.T).ravel()
    bits = low > np.median(low[1:])
    return int(_WEIGHTS[bits].sum(dtype=np.uint64)) if bits.any() else 0


def header_shape(item: Item, preprocessing: Preprocessing) -> tuple[int, int]:
    """The input's height and width, from the file's header alone where pictures keep their own size."""
    if preprocessing.size is not None:
        return preprocessing.size
    try:
        with Image.open(io.BytesIO(collections.read(item.uri))) as image:
            orientation: Any = image.getexif().get(0x0112, 1)
            width, height = image.size
            return (width, height) if orientation in (5, 6, 7, 8) else (height, width)
    except Exception:
        return (0, 0)

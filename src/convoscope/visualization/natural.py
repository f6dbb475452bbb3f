"""Natural pictures beside the made ones: the spectrum that MACO keeps, and the best score of a real one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import PictureError
from ..pictures.picture import Picture, Preprocessing, find_pictures
from .images import magnitudes

#: pictures whose spectra are averaged
ENOUGH = 64


def listed(pictures: Any) -> list[Any]:
    """A folder, a glob, a picture, or a list of those, as a list of pictures or paths."""
    if pictures is None:
        return []
    if isinstance(pictures, (str, Path)):
        return list(find_pictures([pictures]))
    if isinstance(pictures, Iterable) and not hasattr(pictures, "shape") and not hasattr(pictures, "size"):
        return [one for item in pictures for one in listed(item)]
    return [pictures]


def spectrum(pictures: Sequence[Any], preprocessing: Preprocessing, size: tuple[int, int]) -> Tensor:
    """The mean magnitude spectrum at ``size`` of up to 64 of ``pictures``; of the toybox's, where there are none."""
    if not pictures:
        return _toybox_spectrum(preprocessing.channels, size)
    values = []
    for one in pictures[:: max(1, len(pictures) // ENOUGH)][:ENOUGH]:
        try:
            values.append(_pixels(Picture.of(one), preprocessing.channels, size))
        except PictureError:
            continue
    if not values:
        raise PictureError("None of the pictures for the spectrum can be read.")
    return magnitudes(torch.stack(values))


@lru_cache(maxsize=8)
def _toybox_spectrum(channels: int, size: tuple[int, int]) -> Tensor:
    from .. import toybox

    drawn = toybox.pictures(ENOUGH, 0, size=max(32, min(size)))
    images = [Picture.of(np.asarray(one.image)) for one in drawn]
    return magnitudes(torch.stack([_pixels(one, channels, size) for one in images]))


def _pixels(picture: Picture, channels: int, size: tuple[int, int]) -> Tensor:
    side = min(size)
    taken = channels if channels in (1, 3, picture.bands.shape[2]) else 3
    # cropped, never squashed: a spectrum should not depend on a photo's shape
    plain = Preprocessing(size, side, "crop", (0.0,) * taken, (1.0,) * taken, "bicubic")
    values = picture.prepare(plain).tensor
    if values.shape[0] != channels:  # a network of many bands: each gets the spectrum of the luminance
        values = values.mean(0, keepdim=True).expand(channels, *size)
    return values

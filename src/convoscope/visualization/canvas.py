"""From a network's input back to a picture in a file, such that reading the file gives that input again.

A network whose preprocessing resizes and crops does not see a picture's margin. The saved picture has one, so that
resizing leaves it as it is and the crop is, pixel for pixel, what was found. The margin mirrors what is inside (or is
the photo's own, where a photo was changed): the network never looks at it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..pictures.picture import Picture, Preprocessing, _placement

Bands = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Canvas:
    """Where the network's input lies in the saved picture; ``photo`` is the picture around it, where there is one."""

    preprocessing: Preprocessing
    top: int
    left: int
    height: int
    width: int
    photo: Bands | None = None

    @staticmethod
    def blank(preprocessing: Preprocessing, size: tuple[int, int]) -> Canvas:
        """For a picture made from nothing, seen by the network at ``size``."""
        if preprocessing.fit != "crop" or preprocessing.size is None:
            return Canvas(preprocessing, 0, 0, *size)
        short = preprocessing.resize if preprocessing.resize is not None else round(min(size) / 0.875)
        margin = short - min(size)
        height, width = size[0] + margin, size[1] + margin
        resized, left, top = _placement((height, width), preprocessing)
        assert resized == (height, width)
        return Canvas(preprocessing, top, left, height, width)

    @staticmethod
    def around(picture: Picture, preprocessing: Preprocessing, size: tuple[int, int]) -> Canvas:
        """For changing a photo: the photo as the preprocessing resizes it, before the crop."""
        if preprocessing.fit != "crop" or preprocessing.size is None or picture.input_space is not None:
            return Canvas(preprocessing, 0, 0, *size)
        (height, width), left, top = _placement(picture.size, preprocessing)
        # the same resizing as for the network, and no crop
        whole = replace(preprocessing, size=(height, width), fit="squash")
        shown = preprocessing.denormalise(picture.prepare(whole).tensor)
        return Canvas(preprocessing, top, left, height, width, to_bands(shown))

    def picture(self, inputs: Tensor) -> Bands:
        """The 8-bit picture ``[H, W, C]`` of one network input ``[C, h, w]``."""
        inside = to_bands(self.preprocessing.denormalise(inputs.detach().float().cpu()))
        _rows, _columns = inside.shape[:2]
        top, left = max(0, -self.top), max(0, -self.left)
        seen = inside[top : top + self.height, left : left + self.width]
        if self.photo is not None:
            whole = self.photo.copy()
        else:
            above, before = max(0, self.top), max(0, self.left)
            whole = np.pad(
                seen,
                (
                    (above, max(0, self.height - above - seen.shape[0])),
                    (before, max(0, self.width - before - seen.shape[1])),
                    (0, 0),
                ),
                mode="symmetric",
            )[: self.height, : self.width]
        y, x = max(0, self.top), max(0, self.left)
        part = seen[: self.height - y, : self.width - x]
        whole[y : y + part.shape[0], x : x + part.shape[1]] = part
        return whole

    def stretch(self, plane: NDArray[Any]) -> NDArray[Any]:
        """A map ``[h, w]`` at the network's input on the saved picture, its margin zero."""
        whole = np.zeros((self.height, self.width), plane.dtype)
        y, x = max(0, self.top), max(0, self.left)
        part = plane[max(0, -self.top) :, max(0, -self.left) :][: self.height - y, : self.width - x]
        whole[y : y + part.shape[0], x : x + part.shape[1]] = part
        return whole


def to_bands(values: Tensor) -> Bands:
    """``[C, H, W]`` in 0..1 (clipped) to 8-bit ``[H, W, C]``."""
    whole = (values.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(whole.movedim(0, -1).numpy())


def to_image(bands: Bands) -> Image.Image:
    """8-bit ``H×W×C`` as PIL: one band is greyscale, of more than three the first three are shown."""
    if bands.shape[2] == 1:
        return Image.fromarray(bands[:, :, 0])
    if bands.shape[2] == 2:
        bands = np.concatenate([bands, bands[:, :, :1] * 0], 2)
    return Image.fromarray(np.ascontiguousarray(bands[:, :, :3]))

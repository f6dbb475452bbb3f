"""Ways in which a picture may have become a network's input: order of channels, values, size, crop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..pictures.picture import Picture, Preprocessing

Floats = NDArray[np.float64]

#: families of normalisation in use: name -> (mean, std) of values in 0..1, three channels
FAMILIES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "ImageNet's mean and std": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "values in 0..1": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "values in -1..1": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "values in 0..255": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
    "0..255 less ImageNet's mean": ((0.485, 0.456, 0.406), (1 / 255, 1 / 255, 1 / 255)),
    "CIFAR-10's mean and std": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "CLIP's mean and std": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}

#: sides that networks are trained at
SIDES = (28, 32, 48, 64, 96, 112, 128, 160, 192, 224, 240, 256, 288, 299, 320, 384, 448, 512)

#: what scores a candidate is held against: KL below this factor of the given one's is a difference
FACTOR = 2.0


@dataclass(frozen=True)
class Pipeline:
    """One way from a picture to the input.

    Args:
        name: what is different from the pipeline given, in words.
        preprocessing: size, fit, interpolation, mean and std.
        bgr: whether the channels go in as blue, green, red.
        group: ``given``, ``colour``, ``values``, ``fitted`` or ``geometry``.
    """

    name: str
    preprocessing: Preprocessing
    bgr: bool = False
    group: str = "given"

    def input(self, picture: Picture) -> Tensor:
        """The network's input ``[C, H, W]``. Raises :class:`PictureError`."""
        order = picture.prepare(replace(self.preprocessing, mean=self._zero, std=self._one)).tensor
        return self.preprocessing.normalise(order.flip(0) if self.bgr else order)

    @property
    def geometry(self) -> Preprocessing:
        """The way to the size alone: equal for pipelines whose resized pictures are the same."""
        return replace(self.preprocessing, mean=self._zero, std=self._one)

    @property
    def _zero(self) -> tuple[float, ...]:
        return (0.0,) * self.preprocessing.channels

    @property
    def _one(self) -> tuple[float, ...]:
        return (1.0,) * self.preprocessing.channels


def values(given: Preprocessing) -> list[Pipeline]:
    """The other normalisations and the other order of channels, for a network of three channels."""
    found: list[Pipeline] = []
    if given.channels != 3:
        for name, (mean, std) in FAMILIES.items():
            wide, spread = (mean[0],) * given.channels, (std[0],) * given.channels
            if name.startswith("values") and not _same(given, wide, spread):
                found.append(Pipeline(name, replace(given, mean=wide, std=spread), False, "values"))
        return found
    found.append(Pipeline("channels in the order BGR", given, True, "colour"))
    for name, (mean, std) in FAMILIES.items():
        if not _same(given, mean, std):
            found.append(Pipeline(name, replace(given, mean=mean, std=std), False, "values"))
            found.append(
                Pipeline(f"{name}, in the order BGR", replace(given, mean=mean[::-1], std=std[::-1]), True, "values")
            )
    return found


def geometries(given: Preprocessing, own: Sequence[tuple[int, int]]) -> list[Pipeline]:
    """Other sizes, ways of fitting and of resampling.

    Args:
        given: the pipeline as it is.
        own: height and width of some of the pictures.
    """
    if given.size is None or given.frames is not None:
        return []
    height, width = given.size
    found: list[Pipeline] = []
    plain = set(own)
    resampled = any(one != given.size for one in plain)
    crop = given.resize if given.resize is not None else round(min(given.size) / 0.875)
    if any(one[0] != one[1] for one in plain) or resampled:
        for fit in ("squash", "crop", "pad"):
            if fit != given.fit:
                found.append(Pipeline(f"fitted by {fit}", replace(given, fit=fit, resize=None), False, "geometry"))  # type: ignore[arg-type]
    if given.fit == "squash" and not resampled:
        found.append(
            Pipeline("the middle 87.5 % of the picture", replace(given, fit="crop", resize=None), False, "geometry")
        )
    if given.fit == "crop" and crop > min(given.size):
        whole = replace(given, resize=min(given.size))
        found.append(Pipeline("a crop of the whole short side", whole, False, "geometry"))
    if resampled:
        for mode in ("nearest", "bilinear", "bicubic"):
            if mode != given.interpolation:
                found.append(Pipeline(f"resized by {mode}", replace(given, interpolation=mode), False, "geometry"))
    if height == width:
        sides = [side for side in SIDES if side != height and height / 2.1 <= side <= height * 2.1]
        common = {side for one in plain for side in one if one[0] == one[1]}
        sides = sorted(
            {*_nearest(sides, height), *(s for s in common if s != height and height / 4 < s < height * 2.1)}
        )
        for side in sides:
            resize = None if given.resize is None else max(side, round(given.resize * side / height))
            other = replace(given, size=(side, side), resize=resize)
            found.append(Pipeline(f"{side}×{side} pixels", other, False, "geometry"))
    return found


def _nearest(sides: Sequence[int], side: int, most: int = 6) -> list[int]:
    return sorted(sides, key=lambda one: abs(np.log(one / side)))[:most]


def _same(given: Preprocessing, mean: Sequence[float], std: Sequence[float]) -> bool:
    return bool(np.allclose(given.mean, mean, atol=2e-3) and np.allclose(given.std, std, rtol=0.01))

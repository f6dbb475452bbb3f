"""How a picture becomes a network's input: size, fit, mean and deviation, each checked where it is set."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from ..errors import UsageError

Fit = Literal["crop", "squash", "pad"]

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes a network's input.

    ``size`` is (height, width) of the input, ``None`` keeps the picture's own. ``fit`` says how the picture gets
    there: ``crop`` (short side to ``resize``, then the centre), ``squash`` (both sides to ``size``), ``pad`` (long
    side to ``size``, the rest filled with ``mean``). Values are in 0..1 before ``(x - mean) / std``.

    Raises :class:`UsageError` for settings that fit no network, and for means and deviations of another convention
    than 0..1 (Caffe's and MMDetection's 0..255).
    """

    size: tuple[int, int] | None = (224, 224)
    resize: int | None = 256
    fit: Fit = "crop"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    #: bands drawn as red, green and blue, for pictures of more than three bands; the first three otherwise
    rgb: tuple[int, int, int] | None = None
    #: slices or frames of a volume or video; 0 takes as many as there are, None is a network of single pictures
    frames: int | None = None

    def __post_init__(self) -> None:
        mean, std = channel_values("mean", self.mean), channel_values("std", self.std)
        # one number stands for all channels
        mean, std = (v * max(len(mean), len(std)) if len(v) == 1 else v for v in (mean, std))
        for name, value in (("size", read_size(self.size)), ("mean", mean), ("std", std)):
            object.__setattr__(self, name, value)
        if len(self.mean) != len(self.std):
            raise UsageError(f"mean has {len(self.mean)} values and std {len(self.std)}: both need one per channel.")
        if any(s <= 0 for s in self.std):
            raise UsageError(f"std must be above 0 in every channel, not {self.std}.")
        _check_convention(self.mean, self.std)
        if self.resize is not None and (
            isinstance(self.resize, bool) or not is_whole(self.resize) or self.resize < 1
        ):
            raise UsageError(f"resize must be a number of pixels (the short side), not {self.resize!r}.")
        if self.fit not in ("crop", "squash", "pad"):
            raise UsageError(f"fit must be crop, squash or pad, not {self.fit!r}.")
        if self.rgb is not None and not all(0 <= band < len(self.mean) for band in self.rgb):
            raise UsageError(f"rgb names bands {self.rgb} of {len(self.mean)}: they count from 0.")
        if self.interpolation not in RESAMPLING:
            raise UsageError(f"interpolation must be one of {', '.join(RESAMPLING)}, not {self.interpolation!r}.")

    @property
    def channels(self) -> int:
        return len(self.mean)

    def normalise(self, values: Tensor) -> Tensor:
        """``[..., C, H, W]`` in 0..1 to the network's input space."""
        return (values - self._column(self.mean, values)) / self._column(self.std, values)

    def denormalise(self, inputs: Tensor) -> Tensor:
        """The inverse of :meth:`normalise`."""
        return inputs * self._column(self.std, inputs) + self._column(self.mean, inputs)

    def _column(self, values: tuple[float, ...], like: Tensor) -> Tensor:
        return torch.tensor(values, dtype=like.dtype, device=like.device).view(
            -1, *[1] * (2 if self.frames is None else 3)
        )

    def flat(self) -> Preprocessing:
        """The same for one slice of a volume."""
        return replace(self, frames=None)

    def to_dict(self) -> dict[str, Any]:
        return {
            "size": list(self.size) if self.size else None,
            "resize": self.resize,
            "fit": self.fit,
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
            **({} if self.rgb is None else {"rgb": list(self.rgb)}),
            **({} if self.frames is None else {"frames": self.frames}),
        }


def is_whole(value: Any) -> bool:
    """Whether this is a whole number, also NumPy's or a float like 224.0."""
    try:
        return not isinstance(value, (bool, str)) and int(value) == value and math.isfinite(value)
    except (TypeError, ValueError, OverflowError):
        return False


def read_size(size: Any) -> tuple[int, int] | None:
    """(height, width) from one number, two, or text as on the command line (``"224"``, ``"224x320"``).

    Raises :class:`UsageError` for anything else.
    """
    if size is None:
        return None
    given: Any = size
    if isinstance(given, str):
        found = re.fullmatch(r"\s*(\d{1,9})\s*(?:[x×,]\s*(\d{1,9})\s*)?", given)
        given = (int(found[1]), int(found[2] or found[1])) if found is not None else None
    elif is_whole(given):
        given = (given, given)
    try:
        pair = () if isinstance(given, (bytes, dict, set)) else tuple(given)
    except TypeError:
        pair = ()
    if len(pair) != 2 or not all(is_whole(side) and 1 <= side < 10**9 for side in pair):
        raise UsageError(f"size must be one number of pixels (224) or height and width (224, 320), not {size!r}.")
    return int(pair[0]), int(pair[1])


def channel_values(name: str, values: Any) -> tuple[float, ...]:
    """One finite number a channel, as floats; a single number stands alone.

    Raises :class:`UsageError` for anything else.
    """
    if isinstance(values, (int, float)) or getattr(values, "ndim", None) == 0:
        values = (values,)
    try:
        if isinstance(values, (str, bytes)):
            raise TypeError
        found = tuple(float(v) for v in values)
    except (TypeError, ValueError):
        found = ()
    if not found or not all(map(math.isfinite, found)):
        raise UsageError(f"{name} must be one number a channel, as (0.485, 0.456, 0.406), not {values!r}.")
    return found


def _check_convention(mean: Sequence[float], std: Sequence[float]) -> None:
    """Pictures are in 0..1: values of the 0..255 (or 0..65,535) convention would make every input all but constant."""
    if max(map(abs, mean)) <= 2 and max(std) <= 4:
        return
    top = 255 if max(max(map(abs, mean)), max(std)) <= 512 else 65535

    def shown(values: Sequence[float]) -> str:
        return "(" + ", ".join(f"{value / top:.4g}" for value in values) + ")"

    raise UsageError(
        f"mean={_tuple(mean)} and std={_tuple(std)} are for pixel values in 0..{top:,}, and pictures are in 0..1 here: "
        f"divide both by {top:,}: mean={shown(mean)}, std={shown(std)}. That is the same network input."
    )


def _tuple(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"

"""What is done to pictures: twelve kinds of change at five strengths, on the network's input in 0..1.

They act on what the network gets, after resizing and cropping, as those of Hendrycks & Dietterich (2019,
https://arxiv.org/abs/1903.12261) do; noise, blur, brightness and JPEG have their severities (ImageNet-C's from 65
pixels on, CIFAR-10-C's below). What is random follows from a picture's content, never from its place in a batch.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

#: pixels of a side up to which the severities of CIFAR-10-C hold
SMALL = 64

Apply = Callable[[Tensor, float, Sequence[int]], Tensor]


@dataclass(frozen=True)
class Change:
    """One kind of change.

    Args:
        name: one word.
        strengths: five numbers, the weakest first (one, where there is only one way).
        says: how a strength is said: ``"turned by {:g}°"``.
        label: how it is said on an axis.
        advice: what to train with, where it is not borne.
        apply: ``(values [B, C, H, W] in 0..1, strength, seed a picture) -> values``.
        accuses: whether a large fall is a fault; a picture in shuffled pieces is another picture.
    """

    name: str
    strengths: tuple[float, ...]
    says: str
    label: str
    advice: str
    apply: Apply
    accuses: bool = True

    def say(self, level: int) -> str:
        """A strength in words, ``level`` from 0."""
        return self.says.format(self._shown(level))

    def mark(self, level: int) -> str:
        """A strength on an axis."""
        return self.label.format(self._shown(level))

    def _shown(self, level: int) -> float:
        value = self.strengths[level]
        return round(100 * value, 1) if "%" in self.label else value


def _affine(values: Tensor, degrees: float, zoom: float) -> Tensor:
    """Turned and enlarged about the middle; what comes in from outside is mirrored."""
    a = math.radians(degrees)
    height, width = values.shape[-2:]
    aspect = height / width
    c, s = math.cos(a) / zoom, math.sin(a) / zoom
    matrix = values.new_tensor([[c, -s * aspect, 0.0], [s / aspect, c, 0.0]]).expand(len(values), 2, 3)
    grid = F.affine_grid(matrix, list(values.shape), align_corners=False)
    return F.grid_sample(values, grid, mode="bilinear", padding_mode="reflection", align_corners=False).clamp(0, 1)


def _shifted(values: Tensor, share: float, seeds: Sequence[int]) -> Tensor:
    """Moved along both axes, to one of four sides; what leaves comes in on the other side, so nothing is lost."""
    steps = [max(1, round(share * side)) for side in values.shape[-2:]]
    moved = [
        one.roll((steps[0] * (1 if seed & 1 else -1), steps[1] * (1 if seed & 2 else -1)), (-2, -1))
        for one, seed in zip(values, seeds, strict=True)
    ]
    return torch.stack(moved)


def _turned(values: Tensor, degrees: float, seeds: Sequence[int]) -> Tensor:
    both = [_affine(values, degrees * sign, 1.0) for sign in (1, -1)]
    return torch.stack([both[seed & 1][row] for row, seed in enumerate(seeds)])


def _enlarged(values: Tensor, zoom: float, seeds: Sequence[int]) -> Tensor:
    return _affine(values, 0.0, zoom)


def _shrunk(values: Tensor, share: float, seeds: Sequence[int]) -> Tensor:
    """Made smaller without aliasing, the rest filled with mirror images."""
    height, width = values.shape[-2:]
    size = (max(2, round(height * share)), max(2, round(width * share)))
    small = F.interpolate(values, size=size, mode="bilinear", antialias=True, align_corners=False)
    rows, columns = (
        _mirrored_places(have, want, values.device) for have, want in zip(size, (height, width), strict=True)
    )
    return small[..., rows, :][..., columns].clamp(0, 1)


def _mirrored_places(have: int, want: int, device: torch.device) -> Tensor:
    places = torch.arange(want, device=device) - (want - have) // 2
    period = places % (2 * have)
    return torch.where(period < have, period, 2 * have - 1 - period)


def _mirrored(values: Tensor, strength: float, seeds: Sequence[int]) -> Tensor:
    return values.flip(-1)


def _darkened(values: Tensor, share: float, seeds: Sequence[int]) -> Tensor:
    return values * share


def _brightened(values: Tensor, more: float, seeds: Sequence[int]) -> Tensor:
    """The value of HSV raised (Hendrycks & Dietterich's brightness): all channels by one factor, white stays white."""
    if values.shape[1] != 3:
        return (values + more).clamp(0, 1)
    top = values.amax(1, keepdim=True)
    factor = (top + more).clamp(max=1) / top.clamp(min=1e-6)
    return torch.where(top > 1e-6, values * factor, torch.full_like(values, min(1.0, more))).clamp(0, 1)


def _blurred(values: Tensor, width: float, seeds: Sequence[int]) -> Tensor:
    """Gaussian; the deviation is that for 224 pixels, in proportion for other sizes."""
    sigma = width * min(values.shape[-2:]) / 224
    reach = min(max(1, math.ceil(4 * sigma)), min(values.shape[-2:]) - 1)
    at = torch.arange(-reach, reach + 1, dtype=values.dtype, device=values.device)
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(values, (reach,) * 4, mode="reflect").flatten(0, 1).unsqueeze(1)
    done = F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    return done.view_as(values)


def _noised(values: Tensor, sigma: float, seeds: Sequence[int]) -> Tensor:
    noise = [np.random.default_rng([seed, 1]).standard_normal(values.shape[1:], np.float32) for seed in seeds]
    return (values + sigma * torch.from_numpy(np.stack(noise)).to(values)).clamp(0, 1)


def _compressed(values: Tensor, quality: float, seeds: Sequence[int]) -> Tensor:
    """Through a JPEG file and back; of other than three channels each is a grey file."""
    bands = (values.detach().float().cpu() * 255).round().to(torch.uint8).movedim(1, -1).numpy()

    def through(plane: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(plane)).save(buffer, "JPEG", quality=int(quality))
        return np.asarray(Image.open(buffer))

    if bands.shape[-1] == 3:
        done = np.stack([through(one) for one in bands])
    else:
        done = np.stack([np.stack([through(one[..., c]) for c in range(one.shape[-1])], -1) for one in bands])
    return torch.from_numpy(done).movedim(-1, 1).to(values) / 255


def _greyed(values: Tensor, share: float, seeds: Sequence[int]) -> Tensor:
    """So much of the way to grey (by luminance)."""
    if values.shape[1] != 3:
        return values
    grey = (values * values.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    return values + share * (grey - values)


def _covered(values: Tensor, share: float, seeds: Sequence[int]) -> Tensor:
    """A grey square of this share of the side, anywhere."""
    done = values.clone()
    height, width = values.shape[-2:]
    sides = max(1, round(share * height)), max(1, round(share * width))
    for one, seed in zip(done, seeds, strict=True):
        random = np.random.default_rng([seed, 2])
        top, left = (
            int(random.integers(0, whole - side + 1)) for whole, side in zip((height, width), sides, strict=True)
        )
        one[:, top : top + sides[0], left : left + sides[1]] = 0.5
    return done


def _shuffled(values: Tensor, pieces: float, seeds: Sequence[int]) -> Tensor:
    """Cut into so many pieces a side, which change places; what is left over at the edges stays."""
    count = int(pieces)
    high, wide = values.shape[-2] // count, values.shape[-1] // count
    if min(high, wide) < 1:
        return values
    done = values.clone()
    for row, seed in enumerate(seeds):
        order = np.random.default_rng([seed, 3]).permutation(count * count)
        for to, at in enumerate(order):
            (y, x), (v, u) = divmod(to, count), divmod(int(at), count)
            done[row, :, y * high : (y + 1) * high, x * wide : (x + 1) * wide] = values[
                row, :, v * high : (v + 1) * high, u * wide : (u + 1) * wide
            ]
    return done


def changes(side: int, channels: int = 3) -> tuple[Change, ...]:
    """All kinds of change for inputs of ``side`` pixels.

    Args:
        side: the shorter side of the network's input: it decides which severities hold.
        channels: greying needs three.
    """
    small = side <= SMALL
    noise = (0.04, 0.06, 0.08, 0.09, 0.10) if small else (0.08, 0.12, 0.18, 0.26, 0.38)
    quality = (80.0, 65.0, 58.0, 50.0, 40.0) if small else (25.0, 18.0, 15.0, 10.0, 7.0)
    made = (
        Change("shifted", (0.05, 0.1, 0.15, 0.2, 0.25), "shifted by {:g} % of its side", "{:g}%", "shifts", _shifted),
        Change("turned", (5, 10, 15, 30, 45), "turned by {:g}°", "{:g}°", "rotation", _turned),
        Change("enlarged", (1.1, 1.25, 1.5, 1.75, 2.0), "enlarged {:g} times", "×{:g}", "changes of scale", _enlarged),
        Change("shrunk", (0.9, 0.8, 0.7, 0.6, 0.5), "shrunk to {:g} % of its side", "{:g}%", "changes of scale",
               _shrunk),
        Change("mirrored", (1,), "mirrored", "mirrored", "mirror images", _mirrored),
        Change("darkened", (0.8, 0.65, 0.5, 0.35, 0.2), "darkened to {:g} %", "{:g}%", "changes of brightness",
               _darkened),
        Change("brightened", (0.1, 0.2, 0.3, 0.4, 0.5), "brightened by {:g} %", "{:g}%", "changes of brightness",
               _brightened),
        Change("blurred", (1, 2, 3, 4, 6), "blurred (a Gaussian of {:g} pixels in 224)", "{:g}", "blur", _blurred),
        Change("noised", noise, "noised (Gaussian of {:g} %)", "{:g}%", "noise", _noised),
        Change("compressed", quality, "compressed (JPEG quality {:g})", "q{:g}", "JPEG compression", _compressed),
        Change("greyed", (0.2, 0.4, 0.6, 0.8, 1.0), "greyed by {:g} %", "{:g}%", "changes of colour", _greyed),
        Change("covered", (0.1, 0.2, 0.3, 0.4, 0.5), "covered by a square of {:g} % of its side", "{:g}%",
               "parts covered", _covered),
        Change("shuffled", (2, 3, 4, 6, 8), "cut into {0:g}×{0:g} shuffled pieces", "{0:g}×{0:g}", "", _shuffled,
               accuses=False),
    )  # fmt: skip
    return tuple(one for one in made if channels == 3 or one.name != "greyed")

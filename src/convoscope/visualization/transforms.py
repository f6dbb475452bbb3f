"""Random views of a picture: what it must look like from, so that it is not just noise that happens to score.

All of them are one affine map an item and view, applied by one bilinear resampling; what lies outside the picture is
mid-grey. Each item draws from its own generator, so a picture does not depend on what else is in the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from ..pictures.picture import Preprocessing
from .images import Randoms


class Views(Protocol):
    """Random views: ``[B, C, h, w]`` to ``[B * per_item, C, H, W]``, the views of an item side by side."""

    @property
    def per_item(self) -> int: ...

    def __call__(self, inputs: Tensor, randoms: Randoms, step: int, steps: int) -> Tensor: ...


@dataclass(frozen=True)
class Shaken:
    """Jitter, scale and rotation, composed as in Lucid's standard transforms (Olah et al. 2017).

    Padding of 12, jitter of 8 pixels, a scale of 0.9..1.1, a rotation of -10..10 degrees, jitter of 4 pixels: the
    order and the distributions are kept, the resampling is one instead of four.
    """

    preprocessing: Preprocessing
    size: tuple[int, int]
    jitter: int
    scale: float
    rotate: float
    jitter_after: int
    per_item: int = 1

    def __call__(self, inputs: Tensor, randoms: Randoms, step: int, steps: int) -> Tensor:
        draw = randoms.uniform(6)
        before = torch.floor(draw[:, 0:2] * (self.jitter + 1)) - self.jitter / 2
        after = torch.floor(draw[:, 2:4] * (self.jitter_after + 1)) - self.jitter_after / 2
        # the published lists: 11 scales in steps of a fifth of the range, whole degrees with zero five times more
        scale = 1 + self.scale * (torch.floor(draw[:, 4] * 11) - 5) / 5
        turns = 2 * int(self.rotate) + 1
        place = torch.floor(draw[:, 5] * (turns + 5))
        degrees = torch.where(place < turns, place - int(self.rotate), torch.zeros_like(place))
        angle = degrees * (math.pi / 180)
        cos, sin = angle.cos() / scale, angle.sin() / scale
        # output pixel p (from the centre) shows the picture at  R(p + after) / scale + before
        matrix = torch.stack([torch.stack([cos, sin], 1), torch.stack([-sin, cos], 1)], 1)
        shift = (matrix @ after[..., None])[..., 0] + before
        return resample(inputs, matrix, shift, self.size, self.preprocessing)


@dataclass(frozen=True)
class Crops:
    """Many square crops, each resized to the network's input, with noise (MACO, Fel et al. 2023).

    Centres are normal around the middle (deviation 0.15), sides normal with a mean that falls from ``first`` to
    ``last`` over the ascent (as shares of the picture). ``noise`` is the deviation of the normal noise and the width
    of the uniform noise added.
    """

    preprocessing: Preprocessing
    size: tuple[int, int]
    first: float
    last: float
    spread: float
    noise: float
    per_item: int

    def __call__(self, inputs: Tensor, randoms: Randoms, step: int, steps: int) -> Tensor:
        count, per_item = len(inputs), self.per_item
        draw = randoms.normal(3, per_item)
        side = self.first + (self.last - self.first) * (step / max(1, steps - 1))
        share = (side + self.spread * draw[:, 0]).clamp(0.05, 1.0)
        # a crop of the middle of the picture, in units of half the picture
        x, y = 2 * 0.15 * draw[:, 1], 2 * 0.15 * draw[:, 2]
        zero = torch.zeros_like(share)
        theta = torch.stack([torch.stack([share, zero, x], -1), torch.stack([zero, share, y], -1)], -2)
        # K crops of one item are one tall picture: the picture need not be repeated in memory
        height, width = self.size
        grid = functional.affine_grid(
            theta.flatten(0, 1).to(inputs), [count * per_item, 1, height, width], align_corners=False
        )
        grid = grid.view(count, per_item * height, width, 2)
        grey = grey_of(self.preprocessing, inputs)
        tall = functional.grid_sample(inputs - grey, grid, align_corners=False) + grey
        crops = tall.view(count, inputs.shape[1], per_item, height, width).movedim(2, 1).flatten(0, 1)
        if self.noise:
            # the published noise is for inputs in -1..1: of the same size in pixel values here
            std = torch.tensor(self.preprocessing.std).view(-1, 1, 1).to(inputs)
            shape = (per_item, inputs.shape[1], height, width)
            strength = self.noise / 2 / std
            crops = (
                crops
                + (randoms.normal(*shape).flatten(0, 1) + randoms.uniform(*shape).flatten(0, 1) - 0.5) * strength
            )
        return crops


@dataclass(frozen=True)
class Rolled:
    """A random shift of up to ``jitter`` pixels around the torus, as DeepDream has it (Mordvintsev et al. 2015)."""

    jitter: int
    per_item: int = 1

    def __call__(self, inputs: Tensor, randoms: Randoms, step: int, steps: int) -> Tensor:
        draw = torch.floor(randoms.uniform(2).cpu() * (2 * self.jitter + 1)).int() - self.jitter
        shifts = [(int(y), int(x)) for y, x in draw]
        return torch.stack([one.roll(shift, (1, 2)) for one, shift in zip(inputs, shifts, strict=True)])


def grey_of(preprocessing: Preprocessing, like: Tensor) -> Tensor:
    """Mid-grey in the network's input space, ``[C, 1, 1]``."""
    mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
    return ((0.5 - mean) / std).view(-1, 1, 1).to(like)


def resample(
    inputs: Tensor, matrix: Tensor, shift: Tensor, size: tuple[int, int], preprocessing: Preprocessing
) -> Tensor:
    """Output pixel ``p`` shows ``inputs`` at ``matrix @ p + shift``, both in pixels from the centre as (x, y).

    ``matrix`` is ``[B, 2, 2]``, ``shift`` ``[B, 2]``; bilinear, mid-grey outside.
    """
    out = torch.tensor([size[1], size[0]]).to(matrix)
    have = torch.tensor([inputs.shape[3], inputs.shape[2]]).to(matrix)
    theta = torch.cat([matrix * out / have[:, None], (2 * shift / have)[..., None]], -1)
    grid = functional.affine_grid(theta.to(inputs), [len(inputs), 1, *size], align_corners=False)
    grey = grey_of(preprocessing, inputs)
    return functional.grid_sample(inputs - grey, grid, align_corners=False) + grey

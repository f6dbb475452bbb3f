"""Filling in what was taken away from its surroundings: ROAD's noisy linear imputation, without a sparse solver.

Every missing pixel is the weighted mean of its eight neighbours (1/6 straight, 1/12 across; at the picture's border
of those that exist). That is a sparse linear system, symmetric and positive definite; the reference implementation
gives it to a direct solver. Here conjugate gradients solve it, preconditioned by a multigrid cycle, since the system
is a Laplace equation on the hole: about five iterations whatever the size of the hole.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, conv_transpose2d, max_pool2d, pad

#: numbers in flight at once: small pieces stay in the processor's cache, and are several times faster for it
_AT_ONCE = 1 << 19
#: damping of the smoother: the operator's spectrum reaches 4/3
_DAMPING = 0.9


def fill_in(
    picture: Tensor, masks: Tensor, *, noise: float = 0.0, seed: int = 0, tolerance: float = 1e-5, limit: int = 100
) -> Tensor:
    """``picture`` ``[C, H, W]`` with the masked pixels of each of ``masks`` ``[K, H, W]`` filled in: ``[K, C, H,
    W]``.

    ``noise`` is the standard deviation of what is added to the filled pixels, in the picture's unit (the paper's
    0.01: imputation without noise leaves a smoothness that tells what is missing). ``tolerance``: residual relative
    to the right-hand side. A mask that takes everything gives the picture's mean colour. Rong et al. 2022 (ROAD).
    """
    count = -(-masks.shape[0] * picture.numel() // _AT_ONCE)
    pieces = [_fill(picture, some, tolerance, limit) for some in masks.tensor_split(max(1, count)) if len(some)]
    filled = torch.cat(pieces) if pieces else picture.new_zeros((0, *picture.shape))
    if noise > 0:
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(filled.shape, generator=generator).to(filled)
        filled += noise * drawn * (masks > 0.5).to(filled).unsqueeze(1)
    return filled


def _fill(picture: Tensor, masks: Tensor, tolerance: float, limit: int) -> Tensor:
    missing = _planes((masks > 0.5).to(picture).unsqueeze(1).expand(-1, len(picture), -1, -1))
    known = 1 - missing
    base = _planes(picture.expand(len(masks), -1, -1, -1)) * known
    level = _Level.of(missing)
    right = _neighbours(base) * missing
    found = _solve(right, _guess(base, known) * missing, level, tolerance, limit)
    filled = (base + found).view(len(masks), *picture.shape).contiguous()
    wholly = (masks > 0.5).flatten(1).all(1)
    filled[wholly] = picture.mean((1, 2)).view(-1, 1, 1)
    return filled


def _planes(values: Tensor) -> Tensor:
    """``[K, C, H, W]`` as the channels of one picture ``[1, K·C, H, W]`` in channels_last: what is done to every plane
    alike is then a depthwise convolution, of which processors do many channels at once (shifted sums of plane after
    plane take three to five times as long).
    """
    return values.flatten(0, 1).unsqueeze(0).contiguous(memory_format=torch.channels_last)


def _neighbours(values: Tensor) -> Tensor:
    """The weighted sum of the eight neighbours; outside the picture there is nothing."""
    return conv2d(values, _kernel(_AROUND, *_like(values)), padding=1, groups=values.shape[1])


#: 1/6 straight, 1/12 across
_AROUND = ((1 / 12, 1 / 6, 1 / 12), (1 / 6, 0.0, 1 / 6), (1 / 12, 1 / 6, 1 / 12))
#: bilinear interpolation to twice the size
_BILINEAR = tuple(tuple(a * b for b in (0.25, 0.75, 0.75, 0.25)) for a in (0.25, 0.75, 0.75, 0.25))


def _like(values: Tensor) -> tuple[int, torch.dtype, torch.device]:
    return values.shape[1], values.dtype, values.device


@lru_cache(maxsize=8)
def _kernel(rows: tuple[tuple[float, ...], ...], planes: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(rows, dtype=dtype, device=device).repeat(planes, 1, 1, 1)


@dataclass
class _Level:
    """One grid of the multigrid: which cells are missing, the operator's diagonal, and the grid of half the size."""

    missing: Tensor
    diagonal: Tensor
    smoother: Tensor
    #: what the coarser grid's correction is multiplied by: interpolation finds nothing beyond the border
    drawn: Tensor
    coarser: _Level | None

    @staticmethod
    def of(missing: Tensor) -> _Level:
        ones = torch.ones_like(missing)
        diagonal = _neighbours(ones)
        height, width = missing.shape[-2:]
        coarser, drawn = None, missing
        if min(height, width) > 4 and bool(missing.any()):
            # a cell is missing where all of it is: with cells that reach over the hole's rim the cycle corrects
            # what is known, and takes three times the iterations
            coarser = _Level.of(1 - max_pool2d(_even(1 - missing), 2))
            drawn = missing / _prolong(torch.ones_like(coarser.missing), height, width)
        return _Level(missing, diagonal, _DAMPING * missing / diagonal, drawn, coarser)

    def left(self, right: Tensor, x: Tensor) -> Tensor:
        """``right`` less the operator at ``x``; where nothing is missing it means nothing."""
        return _neighbours(x).addcmul_(self.diagonal, x, value=-1).add_(right)

    def operator(self, values: Tensor) -> Tensor:
        return torch.mul(self.diagonal, values).sub_(_neighbours(values)).mul_(self.missing)

    def cycle(self, right: Tensor) -> Tensor:
        """An approximate solution: smooth, correct on the coarser grid, smooth again (a symmetric V-cycle)."""
        x = self.smoother * right
        if self.coarser is None:
            for _ in range(4):
                x.addcmul_(self.smoother, self.left(right, x))
            return x
        # the transpose of what the correction goes through: conjugate gradients need a symmetric preconditioner
        below = self.coarser.cycle(_restrict(self.left(right, x).mul_(self.drawn)).mul_(self.coarser.missing))
        x.addcmul_(_prolong(below, right.shape[-2], right.shape[-1]), self.drawn)
        x.addcmul_(self.smoother, self.left(right, x))
        return x


def _solve(right: Tensor, x: Tensor, level: _Level, tolerance: float, limit: int) -> Tensor:
    """Preconditioned conjugate gradients, every plane for itself."""

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum((2, 3), keepdim=True)

    residual = right - level.operator(x)
    goal = tolerance**2 * dot(right, right)
    better = level.cycle(residual)
    direction = better.clone()
    energy = dot(residual, better)
    for _ in range(limit):
        if bool((dot(residual, residual) <= goal).all()):
            break
        moved = level.operator(direction)
        step = energy / dot(direction, moved).clamp(min=1e-30)
        # in place: a product with one number a plane would come in another order of memory
        x.addcmul_(direction, step)
        residual.addcmul_(moved, step, value=-1)
        better = level.cycle(residual)
        new = dot(residual, better)
        direction.mul_(new / energy.clamp(min=1e-30)).add_(better)
        energy = new
    return x


def _guess(base: Tensor, known: Tensor) -> Tensor:
    """A first guess: known pixels averaged into ever coarser grids, and drawn down again where nothing is known."""
    height, width = base.shape[-2:]
    if min(height, width) <= 1:
        total = known.sum((2, 3), keepdim=True)
        return (base.sum((2, 3), keepdim=True) / total.clamp(min=1)).expand_as(base)
    values, weight = avg_pool2d(_even(base), 2), avg_pool2d(_even(known), 2)
    coarse_known = (weight > 0).to(base)
    coarse = _guess(values / weight.clamp(min=0.25) * coarse_known, coarse_known)
    # beyond the border there is nothing: only what interpolation found counts
    there = _prolong(torch.ones_like(coarse), height, width)
    return torch.where(known > 0, base, _prolong(coarse, height, width) / there)


def _even(values: Tensor) -> Tensor:
    """With a row or a column of zeros where the number of them is odd."""
    height, width = values.shape[-2:]
    if height % 2 == 0 and width % 2 == 0:
        return values
    return pad(values, (0, width % 2, 0, height % 2)).contiguous(memory_format=torch.channels_last)


def _prolong(coarse: Tensor, height: int, width: int) -> Tensor:
    """Bilinear, twice the size, cropped; less than that at the border, beyond which there is nothing."""
    fine = conv_transpose2d(coarse, _kernel(_BILINEAR, *_like(coarse)), stride=2, padding=1, groups=coarse.shape[1])
    return fine[..., :height, :width]


def _restrict(fine: Tensor) -> Tensor:
    """The transpose of :func:`_prolong`."""
    return conv2d(_even(fine), _kernel(_BILINEAR, *_like(fine)), stride=2, padding=1, groups=fine.shape[1])

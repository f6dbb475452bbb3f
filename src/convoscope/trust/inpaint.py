"""Filling in what was taken away from its surroundings: ROAD's noisy linear imputation, without a sparse solver.

Every missing pixel is the weighted mean of its eight neighbours (1/6 straight, 1/12 across; at the picture's border
of those that exist). That is a sparse linear system, symmetric and positive definite; the reference implementation
gives it to a direct solver. Here conjugate gradients solve it, preconditioned by a multigrid cycle, since the system
is a Laplace equation on the hole: about five iterations whatever the size of the hole.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

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
    step = max(1, _AT_ONCE // max(1, picture.numel()))
    pieces = [_fill(picture, masks[k : k + step], tolerance, limit) for k in range(0, len(masks), step)]
    filled = torch.cat(pieces) if pieces else picture.new_zeros((0, *picture.shape))
    if noise > 0:
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(filled.shape, generator=generator).to(filled)
        filled += noise * drawn * (masks > 0.5).to(filled).unsqueeze(1)
    return filled


def _fill(picture: Tensor, masks: Tensor, tolerance: float, limit: int) -> Tensor:
    missing = (masks > 0.5).to(picture).unsqueeze(1)
    known = 1 - missing
    base = picture[None] * known
    level = _Level.of(missing)
    right = _neighbours(base) * missing
    found = _solve(right, _guess(base, known) * missing, level, tolerance, limit)
    filled = base + found
    wholly = known.flatten(1).amax(1) == 0
    filled[wholly] = picture.mean((1, 2)).view(-1, 1, 1)
    return filled


def _neighbours(values: Tensor) -> Tensor:
    """The weighted sum of the eight neighbours; outside the picture there is nothing.

    The kernel is ([1 2 1]ᵀ[1 2 1] − 4 at the middle) / 12: sums of shifted planes, several times faster than a
    convolution of single planes.
    """
    rows = values * 2
    rows[..., 1:, :] += values[..., :-1, :]
    rows[..., :-1, :] += values[..., 1:, :]
    both = rows * 2
    both[..., 1:] += rows[..., :-1]
    both[..., :-1] += rows[..., 1:]
    return both.sub_(values, alpha=4).mul_(1 / 12)


@dataclass
class _Level:
    """One grid of the multigrid: which cells are missing, the operator's diagonal, and the grid of half the size."""

    missing: Tensor
    diagonal: Tensor
    smoother: Tensor
    coarser: _Level | None

    @staticmethod
    def of(missing: Tensor) -> _Level:
        diagonal = _neighbours(torch.ones_like(missing[:1, :, :, :]))
        height, width = missing.shape[-2:]
        coarser = None
        if min(height, width) > 4 and bool(missing.any()):
            known = torch.nn.functional.pad(1 - missing, (0, width % 2, 0, height % 2))
            # a cell is missing where all of it is: with cells that reach over the hole's rim the cycle corrects
            # what is known, and takes three times the iterations
            coarser = _Level.of(1 - torch.nn.functional.max_pool2d(known, 2))
        return _Level(missing, diagonal, _DAMPING * missing / diagonal, coarser)

    def operator(self, values: Tensor) -> Tensor:
        return torch.mul(self.diagonal, values).sub_(_neighbours(values)).mul_(self.missing)

    def cycle(self, right: Tensor) -> Tensor:
        """An approximate solution: smooth, correct on the coarser grid, smooth again (a symmetric V-cycle)."""
        x = self.smoother * right
        if self.coarser is None:
            for _ in range(8):
                x += self.smoother * (right - self.operator(x))
            return x
        residual = right - self.operator(x)
        below = self.coarser.cycle(_restrict(residual) * self.coarser.missing)
        x += _prolong(below, right.shape[-2], right.shape[-1]) * self.missing
        x += self.smoother * (right - self.operator(x))
        return x


def _solve(right: Tensor, x: Tensor, level: _Level, tolerance: float, limit: int) -> Tensor:
    """Preconditioned conjugate gradients, every plane for itself."""

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum((2, 3), keepdim=True)

    residual = right - level.operator(x)
    goal = tolerance**2 * dot(right, right)
    better = level.cycle(residual)
    direction = better
    energy = dot(residual, better)
    for _ in range(limit):
        if bool((dot(residual, residual) <= goal).all()):
            break
        moved = level.operator(direction)
        step = energy / dot(direction, moved).clamp(min=1e-30)
        x = x + step * direction
        residual = residual - step * moved
        better = level.cycle(residual)
        new = dot(residual, better)
        direction = better + new / energy.clamp(min=1e-30) * direction
        energy = new
    return x


def _guess(base: Tensor, known: Tensor) -> Tensor:
    """A first guess: known pixels averaged into ever coarser grids, and drawn down again where nothing is known."""
    height, width = base.shape[-2:]
    if min(height, width) <= 1:
        total = known.sum((2, 3), keepdim=True)
        return (base.sum((2, 3), keepdim=True) / total.clamp(min=1)).expand_as(base)
    pad = (0, width % 2, 0, height % 2)
    pool = torch.nn.functional.avg_pool2d
    values, weight = (pool(torch.nn.functional.pad(t, pad), 2) for t in (base, known))
    coarse_known = (weight > 0).to(base)
    coarse = _guess(values / weight.clamp(min=0.25) * coarse_known, coarse_known)
    return torch.where(known > 0, base, _prolong(coarse, height, width))


def _prolong(coarse: Tensor, height: int, width: int) -> Tensor:
    """Bilinear, twice the size, cropped."""
    rows = coarse.new_empty((*coarse.shape[:-2], 2 * coarse.shape[-2], coarse.shape[-1]))
    even, odd = rows[..., 0::2, :], rows[..., 1::2, :]
    torch.mul(coarse, 0.75, out=even)
    odd.copy_(even)
    even[..., 1:, :].add_(coarse[..., :-1, :], alpha=0.25)
    even[..., 0, :].add_(coarse[..., 0, :], alpha=0.25)
    odd[..., :-1, :].add_(coarse[..., 1:, :], alpha=0.25)
    odd[..., -1, :].add_(coarse[..., -1, :], alpha=0.25)
    rows = rows[..., :height, :]
    fine = coarse.new_empty((*rows.shape[:-1], 2 * coarse.shape[-1]))
    even, odd = fine[..., 0::2], fine[..., 1::2]
    torch.mul(rows, 0.75, out=even)
    odd.copy_(even)
    even[..., 1:].add_(rows[..., :-1], alpha=0.25)
    even[..., 0].add_(rows[..., 0], alpha=0.25)
    odd[..., :-1].add_(rows[..., 1:], alpha=0.25)
    odd[..., -1].add_(rows[..., -1], alpha=0.25)
    return fine[..., :width]


def _restrict(fine: Tensor) -> Tensor:
    """The transpose of :func:`_prolong`: conjugate gradients need a symmetric preconditioner."""
    return _restrict_last(_restrict_last(fine).mT).mT


def _restrict_last(fine: Tensor) -> Tensor:
    if fine.shape[-1] % 2:
        fine = torch.nn.functional.pad(fine, (0, 1))
    even, odd = fine[..., 0::2], fine[..., 1::2]
    coarse = 0.75 * (even + odd)
    coarse[..., :-1] += 0.25 * even[..., 1:]
    coarse[..., 1:] += 0.25 * odd[..., :-1]
    coarse[..., 0] += 0.25 * even[..., 0]
    coarse[..., -1] += 0.25 * odd[..., -1]
    return coarse

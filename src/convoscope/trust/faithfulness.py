"""Does the score follow the map? Take away what the map calls important, and see.

All measures here work on maps ``[M, H, W]`` of one picture and a *scoring*: something that turns masks ``[K, H, W]``
(1: taken away) into scores ``[K]`` (:mod:`convoscope.trust.scoring` runs the network; a formula does in tests). They
measure what the *network* uses, not what people see, and they all share one weakness: a picture with parts taken away
is one the network was never trained on. Hence several fills, and always a random map beside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import UsageError

Floats = NDArray[np.float64]
Scoring = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Curve:
    """Scores as ever more pixels are taken away or put in: ``shares`` rise from 0 to 1, ``scores`` belong to them."""

    shares: Floats
    scores: Floats

    @property
    def area(self) -> float:
        """The area under the curve over shares 0..1 (trapezoids): the mean score along the way."""
        return _area(self.shares, self.scores)

    def normalised(self, whole: float, empty: float) -> float:
        """The area with the scores rescaled so that the untouched picture has 1 and the one taken away wholly has 0.

        Makes pictures of sure and unsure predictions comparable. NaN where the two scores are the same.
        """
        if whole == empty:
            return float("nan")
        return _area(self.shares, (self.scores - empty) / (whole - empty))


def _area(shares: Floats, scores: Floats) -> float:
    return float(((scores[1:] + scores[:-1]) / 2 * np.diff(shares)).sum())


def ranks(values: NDArray[Any], seed: int = 0) -> NDArray[np.int64]:
    """The place of every pixel in its map's order, 0 for the most important: ``[M, H, W]`` to ``[M, H·W]``.

    Equal values are ordered by a seeded coin: raster order would favour maps of objects near the top. NaN comes last.
    """
    flat = np.asarray(values, np.float32).reshape(len(values), -1)
    flat = np.where(np.isnan(flat), -np.inf, flat)
    shuffle = np.random.default_rng(seed).permutation(flat.shape[1])
    order = shuffle[np.argsort(-flat[:, shuffle], axis=1, kind="stable")]
    found = np.empty(order.shape, np.int64)
    np.put_along_axis(found, order, np.arange(flat.shape[1])[None].repeat(len(flat), 0), 1)
    return found


def counts(pixels: int, steps: int) -> NDArray[np.int64]:
    """How many pixels are gone after each of ``steps`` equal steps: ``[steps + 1]``, from 0 to all."""
    if steps < 1:
        raise UsageError(f"steps must be at least 1, not {steps}.")
    return np.round(np.linspace(0, pixels, min(steps, pixels) + 1)).astype(np.int64)


def deletion(values: NDArray[Any], scoring: Scoring, *, steps: int = 16, seed: int = 0) -> list[Curve]:
    """Deletion (Petsiuk et al. 2018, RISE): take the most important pixels away first. A low area is good.

    ``scoring`` gives the score with the masked pixels replaced by its fill. RISE's own protocol is zero (the mean)
    as fill, the predicted class's probability, and 224 pixels a step (``steps=224`` at 224×224).
    """
    return _curves(values, scoring, steps, seed, insert=False)


def insertion(values: NDArray[Any], scoring: Scoring, *, steps: int = 16, seed: int = 0) -> list[Curve]:
    """Insertion (Petsiuk et al. 2018, RISE): begin with nothing, put the most important pixels in. A high area is
    good.

    RISE begins with the blurred picture, since sharp borders on a grey canvas are evidence of their own.
    """
    return _curves(values, scoring, steps, seed, insert=True)


def _curves(values: NDArray[Any], scoring: Scoring, steps: int, seed: int, insert: bool) -> list[Curve]:
    values = np.asarray(values)
    if values.ndim != 3 or not len(values):
        raise UsageError(f"Maps must be M×H×W with M of at least 1, not {values.shape}.")
    size = values.shape[1:]
    place = torch.from_numpy(ranks(values, seed)).view(len(values), 1, *size)
    at = counts(values[0].size, steps)
    inner = torch.from_numpy(at[1:-1])
    # both ends are the same for all maps: run once
    masks = [torch.zeros((1, *size)), torch.ones((1, *size))]
    if len(inner):
        gone = place < inner.view(1, -1, 1, 1)
        masks.append((~gone if insert else gone).float().flatten(0, 1))
    scores = scoring(torch.cat(masks)).double().numpy()
    whole, empty = scores[:1], scores[1:2]
    first, last = (empty, whole) if insert else (whole, empty)
    shares = at / at[-1]
    middle = scores[2:].reshape(len(values), -1)
    return [Curve(shares, np.concatenate([first, row, last])) for row in middle]


def road(
    values: NDArray[Any],
    scoring: Scoring,
    *,
    shares: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9),
    seed: int = 0,
) -> list[tuple[Curve, Curve]]:
    """ROAD (Rong et al. 2022): take a share of the pixels away and fill it in from its surroundings.

    Filled in by the noisy linear imputation, what is missing does not itself tell the network where the object was.
    Returns for each map the curve of *most* and of *least relevant first*; :func:`road_gap` is their distance.
    ``scoring`` must fill in (:meth:`convoscope.trust.scoring.Scoring.filled` with ``"inpaint"``); the number removed
    is rounded down, as in the reference implementation.
    """
    values = np.asarray(values)
    if any(not 0 < share < 1 for share in shares):
        raise UsageError("ROAD's shares lie between 0 and 1, both left out.")
    place = torch.from_numpy(ranks(values, seed)).view(len(values), 1, *values.shape[1:])
    total = values[0].size
    gone = torch.tensor([int(total * share) for share in shares]).view(1, -1, 1, 1)
    masks = torch.stack([place < gone, place >= total - gone], 1).float()
    scores = scoring(masks.flatten(0, 2)).double().view(len(values), 2, len(shares)).numpy()
    at = np.asarray(shares, np.float64)
    return [(Curve(at, most), Curve(at, least)) for most, least in scores]


def road_gap(most: Curve, least: Curve) -> float:
    """How much more the score falls when the relevant goes than when the irrelevant goes: the mean over the shares.

    0 for a map that knows nothing, above it for a faithful one.
    """
    return float((least.scores - most.scores).mean())


def subsets(size: tuple[int, int], count: int, share: float = 0.2, cell: int = 1, seed: int = 0) -> Tensor:
    """``count`` random masks ``[count, H, W]`` that take away ``share`` of the picture's cells of ``cell`` pixels.

    One set serves all maps of a picture, so the network runs once for all methods. ``cell=1`` takes single pixels, as
    in the papers; larger cells take away something that a network notices.
    """
    height, width = size
    rows, cols = -(-height // cell), -(-width // cell)
    number = max(1, min(rows * cols - 1, round(share * rows * cols)))
    keys = torch.rand((count, rows * cols), generator=torch.Generator().manual_seed(seed))
    chosen = keys.topk(number, largest=False, sorted=False).indices
    masks = torch.zeros((count, rows * cols)).scatter_(1, chosen, 1.0).view(count, rows, cols)
    return masks.repeat_interleave(cell, 1).repeat_interleave(cell, 2)[:, :height, :width].contiguous()


def sensitivity_n(values: NDArray[Any], masks: Tensor, drops: Tensor) -> Floats:
    """Sensitivity-n (Ancona et al. 2018): correlation of a subset's summed attribution with its score drop, ``[M]``.

    ``masks`` ``[K, H, W]`` with a fixed number of pixels each (:func:`subsets`), ``drops`` ``[K]`` = score(x) −
    score(x without the subset). 1 for the exact map of an additive score; 0 is expected of a map that knows nothing;
    NaN where the sums or the drops are constant (a constant map tells nothing).
    """
    sums = _sums(values, masks)
    drop = drops.double().numpy()
    sums = sums - sums.mean(1, keepdims=True)
    drop = drop - drop.mean()
    scale = np.sqrt((sums**2).sum(1) * (drop**2).sum())
    # a constant map's sums differ by rounding alone: that is no correlation
    level = 1e-9 * np.abs(np.asarray(values, np.float64)).reshape(len(values), -1).sum(1)
    known = (np.sqrt((sums**2).mean(1)) > level) & (scale > 0)
    return np.where(known, (sums @ drop) / np.where(known, scale, 1), np.nan)


def infidelity(values: NDArray[Any], masks: Tensor, drops: Tensor, *, scaled: bool = True) -> Floats:
    """Infidelity (Yeh et al. 2019): the mean square of (a subset's summed attribution − its score drop), ``[M]``.

    ``scaled`` first multiplies each map by its best factor and divides by the mean square drop (the paper's optimal
    scaling), so maps of any unit compare: 0 is a perfect map, 1 one no better than an empty map. Unscaled, the map
    must be in score per pixel taken away.
    """
    sums = _sums(values, masks)
    drop = drops.double().numpy()
    if not scaled:
        return np.asarray(((sums - drop) ** 2).mean(1), np.float64)
    power = (drop**2).mean()
    if power == 0:
        return np.full(len(sums), np.nan)
    own = (sums**2).mean(1)
    shared = (sums * drop).mean(1)
    best = np.where(own > 0, shared / np.where(own > 0, own, 1), 0.0)
    return np.asarray(((best[:, None] * sums - drop) ** 2).mean(1) / power, np.float64)


def _sums(values: NDArray[Any], masks: Tensor) -> Floats:
    flat = np.nan_to_num(np.asarray(values, np.float64).reshape(len(values), -1))
    # torch keeps to the threads it was given; numpy's own products spin on all of them
    return (torch.from_numpy(flat) @ masks.flatten(1).double().T).numpy()

"""RISE and LIME: the score on many randomly masked pictures, summed up as one map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..engine.passes.needs import MANY, Perturbed
from ..errors import MissingExtra
from .base import About, Maps, Method, Query, setting
from .fills import FILLS, fill_for

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from .base import Steps

#: masks made and scored at once: 256 masks of 224×224 are 51 MB
_CHUNK = 256


@dataclass(frozen=True)
class RISE(Method):
    """Random masks, each weighted by the score it leaves, summed (Petsiuk, Das & Saenko 2018).

    Masks are random ``cells``×``cells`` grids, raised bilinearly and shifted at random; a pixel's value is
    Σ score·mask / (N · share). The same masks serve every picture of a call and every call with the same seed.
    """

    about: ClassVar[About] = About(
        name="rise",
        title="RISE",
        shows="the parts whose presence, among random maskings, goes with a high score",
        paper="Petsiuk, Das, Saenko: RISE. BMVC 2018",
        bibtex=(
            "@inproceedings{petsiuk2018rise, title={RISE: Randomized Input Sampling for Explanation of Black-box "
            "Models}, author={Petsiuk, Vitali and Das, Abir and Saenko, Kate}, booktitle={BMVC}, year={2018}}"
        ),
        signed=False,
        unit="mean score where the pixel is kept",
        reduction="mask-weighted mean over samples",
        cost="one forward a mask",
        slow=True,
    )
    samples: int = setting(4000, "random masks", minimum=1, maximum=1_000_000)
    cells: int = setting(7, "cells of the random grid along each side", minimum=1, maximum=64)
    share: float = setting(0.5, "probability that a cell is kept", minimum=0.01, maximum=1.0)
    fill: str = setting("mean", f"what stands in masked parts: {FILLS}")
    score: str = setting("probability", "probability or logit", choices=("probability", "logit"))

    def steps(self, query: Query) -> Steps:
        import torch

        fill = fill_for(query, self.fill)
        total = torch.zeros((len(query.inputs), *query.size), dtype=torch.float64)
        done = torch.zeros(len(query.inputs), dtype=torch.int64)
        reached = torch.zeros(len(query.inputs), dtype=torch.float64)
        asked, stopped = 0, False
        for kept in self.masks(query.size, query.seed):
            need = Perturbed(
                1 - kept, fill, self.score == "probability", None,
                query.counter(self.samples * len(query.inputs), asked * len(query.inputs)),
                many_more_follow=len(query.inputs) * self.samples >= MANY,
            )  # fmt: skip
            got = yield need
            # what was not computed any more, or has no finite score, counts for nothing, in that picture alone
            scores = got[need].cpu()
            known = scores.isfinite()
            counted = torch.where(known, scores, 0.0).double()
            total += torch.einsum("bm,mhw->bhw", counted, kept.double())
            reached += counted.sum(1)
            done += known.sum(1)
            asked += len(kept)
            if query.reports[need].stopped:
                stopped = True
                break
        # without any score the map is NaN
        values = (total / (done[:, None, None] * self.share)).float()
        # probabilities are never below zero, logits may be
        maps = Maps(values, self.score == "logit", self.about.unit, self.about.reduction)
        maps.fact("samples", done.tolist())
        # a pixel that does not matter has the mean score of all masks: the colours show the difference from it
        maps.fact("expected", (reached / done.clamp(min=1)).tolist())
        for row, count in enumerate(done.tolist()):
            if stopped and count < self.samples:
                maps.doubt(row, f"Stopped after {count} of {self.samples} masks: the map is noisier than asked for.")
            elif count < self.samples:
                maps.doubt(row, f"{self.samples - count} of {self.samples} masks gave no finite score: left out.")
        return maps

    def masks(self, size: tuple[int, int], seed: int) -> Iterator[Tensor]:
        """Chunks ``[M, H, W]`` of what is kept (1) of the picture; deterministic per seed."""
        import torch
        from torch.nn import functional as F

        generator = torch.Generator().manual_seed(seed)
        height, width = size
        cell = (-(-height // self.cells), -(-width // self.cells))
        # one cell more than needed on each side, so that the random shift never runs out of mask
        raised = ((self.cells + 1) * cell[0], (self.cells + 1) * cell[1])
        for start in range(0, self.samples, _CHUNK):
            count = min(_CHUNK, self.samples - start)
            grid = (torch.rand((count, 1, self.cells, self.cells), generator=generator) < self.share).float()
            big = F.interpolate(grid, raised, mode="bilinear", align_corners=False)[:, 0]
            shifts = torch.stack([torch.randint(0, c, (count,), generator=generator) for c in cell], 1)
            parts = [mask[y : y + height, x : x + width] for mask, (y, x) in zip(big, shifts.tolist(), strict=True)]
            yield torch.stack(parts).clamp(0, 1)


@dataclass(frozen=True)
class LIME(Method):
    """A ridge regression of the score on which superpixels are shown (Ribeiro, Singh & Guestrin 2016).

    Samples are weighted by exp(−d² / width²), d the cosine distance to the whole picture. A pixel's value is its
    superpixel's coefficient. The regression's R² stands in the result; below 0.5 it is a doubt.
    """

    about: ClassVar[About] = About(
        name="lime",
        title="LIME",
        shows="what showing each superpixel adds to the score, in a local linear model",
        paper="Ribeiro, Singh, Guestrin: “Why Should I Trust You?”. KDD 2016",
        bibtex=(
            "@inproceedings{ribeiro2016why, title={``Why Should I Trust You?'': Explaining the Predictions of Any "
            "Classifier}, author={Ribeiro, Marco Tulio and Singh, Sameer and Guestrin, Carlos}, booktitle={KDD}, "
            "year={2016}}"
        ),
        signed=True,
        unit="probability",
        reduction="the superpixel's coefficient",
        cost="one forward a sample",
        slow=True,
    )
    samples: int = setting(1000, "random choices of superpixels", minimum=10, maximum=1_000_000)
    segments: int = setting(60, "superpixels wanted", minimum=2, maximum=2000)
    width: float = setting(0.25, "width of the kernel over cosine distances", minimum=0.01)
    alpha: float = setting(1.0, "strength of the ridge", minimum=0.0)
    fill: str = setting("picture-mean", f"what stands in hidden superpixels: {FILLS}")
    score: str = setting("probability", "probability or logit", choices=("probability", "logit"))

    def steps(self, query: Query) -> Steps:
        import numpy as np
        import torch

        fill = fill_for(query, self.fill)
        probability = self.score == "probability"
        values, fits, counts = [], [], []
        squares: list[bool] = []
        missing: list[int] = []
        stopped = False
        for row in range(len(query.inputs)):
            labels, even = superpixels(query, row, self.segments)
            squares.append(even)
            count = int(labels.max()) + 1
            shown = np.random.default_rng(query.seed).random((self.samples, count)) < 0.5
            shown[0] = True
            scores = []
            pieces = torch.from_numpy(labels)
            for start in range(0, self.samples, _CHUNK):
                if stopped:
                    break
                hidden = torch.from_numpy(~shown[start : start + _CHUNK])[:, pieces].float()
                # every picture has its own superpixels, so its masks are scored on it alone
                often = len(query.inputs) * self.samples >= MANY
                told = query.counter(self.samples * len(query.inputs), self.samples * row + start)
                need = Perturbed(hidden, fill, probability, None, told, row, many_more_follow=often)
                got = yield need
                scores.append(got[need][0].cpu())
                stopped = query.reports[need].stopped
            found = torch.cat([*scores, torch.empty(0)]).double().numpy()
            known = np.flatnonzero(np.isfinite(found))
            missing.append(self.samples - len(known))
            coefficients, fit = np.full(count, np.nan), np.nan
            if len(known):
                coefficients, fit = weighted_ridge(shown[known].astype(float), found[known], self.width, self.alpha)
            values.append(torch.from_numpy(coefficients).float()[pieces])
            fits.append(fit)
            counts.append(count)
        unit = self.about.unit if probability else "score"
        maps = query.pixels(torch.stack(values)[:, None], signed=True, unit=unit)
        maps.raw, maps.reduction = None, self.about.reduction
        maps.fact("r_squared", fits)
        maps.fact("superpixels", counts)
        for row, fit in enumerate(fits):
            if squares[row]:
                maps.doubt(row, NO_SUPERPIXELS)
            if missing[row]:
                maps.doubt(
                    row,
                    f"{missing[row]} of {self.samples} samples have no finite score"
                    + (" (stopped early): left out." if stopped else ": left out."),
                )
            if fit < 0.5:
                maps.doubt(row, f"The local linear model explains only {max(fit, 0):.0%} of the score's variance.")
        return maps


def weighted_ridge(
    shown: NDArray[np.float64], scores: NDArray[np.float64], width: float, alpha: float
) -> tuple[NDArray[np.float64], float]:
    """Coefficients of a ridge regression with intercept, weighted by closeness to the whole picture, and its R²."""
    import numpy as np

    share = shown.mean(1)
    # the cosine distance between a 0/1 vector and all ones is 1 − √share
    weights = np.exp(-((1 - np.sqrt(share)) ** 2) / width**2)
    total = weights.sum()
    mean_x, mean_y = weights @ shown / total, weights @ scores / total
    x, y = shown - mean_x, scores - mean_y
    coefficients = np.linalg.solve(x.T @ (weights[:, None] * x) + alpha * np.eye(x.shape[1]), x.T @ (weights * y))
    residual = y - x @ coefficients
    spread = float(weights @ y**2)
    # of scores that are all alike rounding is left, which nothing explains and nothing need explain
    alike = spread <= 1e-24 * float(weights @ scores**2)
    fit = 1.0 if alike else 1 - float(weights @ residual**2) / spread
    return coefficients, fit


#: told where superpixels cannot be had
NO_SUPERPIXELS = "The picture has no regions of even colour (noise, or one colour): squares stand in for superpixels."


def superpixels(query: Query, row: int, count: int) -> tuple[NDArray[np.int64], bool]:
    """SLIC superpixels ``[H, W]``, numbered from 0, of one picture of the batch as the network sees it.

    On noise SLIC joins nearly everything to one region: below a quarter of the regions wanted, a grid of about
    ``count`` squares stands in, and the second answer is True.
    """
    import math

    import numpy as np

    try:
        from skimage.segmentation import slic
    except ImportError:
        raise MissingExtra("scikit-image", "superpixels", "Superpixels") from None
    shown = query.model.preprocessing.denormalise(query.inputs[row].float().cpu()).clamp(0, 1)
    picture = shown.movedim(0, -1).double().numpy()
    grey = picture.shape[2] == 1
    labels = slic(
        picture[:, :, 0] if grey else picture, n_segments=count, compactness=0.1 if grey else 10, start_label=0,
        channel_axis=None if grey else 2,
    )  # fmt: skip
    found = np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int64)
    if found.ndim != 2:  # slices of a volume
        return found, False
    height, width = found.shape
    if int(found.max()) + 1 >= min(count, height * width) / 4:
        return found, False
    side = math.sqrt(height * width / count)
    rows, cols = (max(1, round(length / side)) for length in (height, width))
    by_row, by_col = (np.arange(length) * parts // length for length, parts in ((height, rows), (width, cols)))
    return by_row[:, None] * cols + by_col[None, :], True

"""What chance reaches in a dissection: the same masks, laid on other pictures that show the concept."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..improve.collection import Labelled
from ..improve.statistics import LEVEL
from .truth import Truth, overlap

#: pictures that a concept must be on, in each half
FEW = 3
#: pictures whose masks are exchanged
EXCHANGED = 80


class Exchange:
    """What chance reaches: the overlap where each picture gets the masks of another that shows the concept.

    Masks move within the pictures that have the concept, so that a unit which fires wherever things lie (the middle)
    gains nothing by it. Only pictures of one shape can exchange masks (the commonest one); at most ``EXCHANGED`` of
    them take part.
    """

    def __init__(
        self, pictures: Labelled, truth: Truth, thresholds: NDArray[np.float32], best: NDArray[np.int64]
    ) -> None:
        self.most = min(len(pictures), EXCHANGED)
        self.levels = np.take_along_axis(thresholds, best, 1)  # [C, M]
        self.above: list[dict[int, NDArray[np.uint8]]] = []
        self.masks: list[dict[int, NDArray[np.float32]]] = []

    def add(self, row: int, values: Tensor, masks: NDArray[np.float32]) -> None:
        """Keep where each unit is on (at its threshold for the concept), for the concepts that the picture shows."""
        if row >= self.most:
            return
        shown = [int(name) for name in np.flatnonzero(masks.any(0))]
        there = values.numpy()
        self.above.append({name: np.packbits(there > self.levels[:, name : name + 1], axis=1) for name in shown})
        self.masks.append({name: masks[:, name].copy() for name in shown})

    def reaches(self, on: NDArray[Any], seed: int, rounds: int = 20) -> NDArray[np.float64]:
        """The overlap's 95 % point ``[C, M]``; ``on`` counts each unit's pixels in each picture, ``[N, C, M]``."""
        random = np.random.default_rng([seed, 1])
        found = np.zeros((rounds, *self.levels.shape))
        pixels = [next((len(mask) for mask in masks.values()), -1) for masks in self.masks]
        common = max(set(pixels) - {-1}, key=pixels.count, default=-1)
        alike = [row for row, count in enumerate(pixels) if count in (common, -1)]
        on_all = on[alike].sum(0)
        for name in range(self.levels.shape[1]):
            having = [row for row in alike if name in self.masks[row]]
            if len(having) < FEW:
                found[:, :, name] = 1.0  # nothing can be told from chance
                continue
            there = np.stack([self.masks[row][name] for row in having])  # [n, pixels]
            # of every unit and every pair of pictures: the one's map on the other's mask
            pairs = np.stack(
                [np.unpackbits(self.above[row][name], axis=1, count=there.shape[1]) @ there.T for row in having]
            )  # [n, C, n]
            for turn in range(rounds):
                other = _derangement(len(having), random)
                inter = pairs[np.arange(len(having)), :, other].sum(0)
                found[turn, :, name] = overlap(inter, on_all[:, name] + there.sum() - inter)
        return np.asarray(np.quantile(found, 1 - LEVEL, axis=0))


def _derangement(count: int, random: np.random.Generator) -> NDArray[np.intp]:
    """An order in which nobody keeps their place: a random cycle."""
    order = random.permutation(count)
    found = np.empty(count, np.intp)
    found[order] = np.roll(order, 1)
    return found

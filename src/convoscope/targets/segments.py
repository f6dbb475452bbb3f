"""Regions of dense outputs as targets: what a segmenter says of a region, a point, or a mask of your own.

The region is found once, on the picture itself, and stays; its score is the mean class logit inside (the mean of
Seg-Grad-CAM: Vinogradova, Dibrov, Myers: Towards Interpretable Semantic Segmentation. AAAI student abstract 2020).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import NotInPicture, TargetError
from ..models.maps import MapKind, map_kind, map_shares, winners
from ..models.outputs import dense, last_operation
from ..pictures.reading import array_digest
from .base import Scorer, Target
from .classes import class_index
from .places import Point, at_point, cell, connected, input_point, photo_mask

if TYPE_CHECKING:
    from ..engine.passes.runner import Runner
    from ..models.model import Model
    from ..pictures.picture import ModelInput

_BACKGROUND = ("__background__", "background", "bg", "void", "unlabeled", "n/a")


@dataclass(frozen=True, eq=False)
class Segment(Target):
    """What a segmenter says of ``label`` inside a region.

    The region is, in this order: a ``mask`` bool ``[H, W]`` over the photo; the connected region of the label that
    holds the point ``at`` (x, y in the photo; the single cell where the network says something else there); all that
    the network takes for the label. Without a label it is the class found at the point, or the most frequent class
    that is not background.
    """

    label: str | int | None = None
    at: Point | None = None
    mask: Any = None
    single: bool = False

    def layers(self, model: Model) -> tuple[str, ...]:
        return ()

    def files(self) -> tuple[Path, ...]:
        return ()

    def key(self) -> str:
        mask = "" if self.mask is None else " mask " + array_digest(np.asarray(self.mask, dtype=bool))
        kind = "pixel" if self.single else "segment"
        return f"{kind} {'' if self.label is None else self.label}{at_point(self.at)}{mask}"

    def resolve(self, model: Model, output: Any, pictures: Sequence[ModelInput], runner: Runner) -> RegionScorer:
        """The scorer on this batch. Raises :class:`TargetError` where the network shows no such region."""
        maps = dense(output)
        if maps is None or len(maps) != len(pictures):
            raise TargetError(
                f"{model.name} returns no map of classes: name a class, an instance, or give a callable target."
            )
        values = maps.detach().float()
        kind = map_kind(values, lambda: last_operation(model))
        found = winners(values, kind)
        regions, classes, labels = [], [], []
        for k, picture in enumerate(pictures):
            region, index, name = self._region(model, found[k], values.shape[1], picture)
            regions.append(region)
            classes.append(index)
            labels.append(name)
        local = self.at is not None or self.mask is not None
        return RegionScorer(torch.stack(regions), torch.tensor(classes), tuple(labels), local, kind)

    def _region(self, model: Model, found: Tensor, count: int, picture: ModelInput) -> tuple[Tensor, int, str]:
        found = found.cpu()
        place = None
        if self.at is not None:
            place = cell(input_point(picture, self.at), picture.tensor.shape[-2:], found.shape)
        if self.label is not None:
            index = _class(self.label, model, count)
        elif place is not None:
            index = max(int(found[place]), 0)
        else:
            index = most_frequent(found, model, count)
        name = f"segment: {model.label(index)}"
        if self.mask is not None:
            region = photo_mask(picture, self.mask, found.shape)
            if not bool(region.any()):
                raise NotInPicture(f"{picture.picture.name}: the mask covers nothing that the network sees.")
            return region, index, f"{name} in the mask"
        mine = found == index
        if place is not None:
            name += f" at {self.at[0]:g},{self.at[1]:g}" if self.at else ""
            region = torch.zeros_like(mine)
            region[place] = True
            return (region if self.single or not bool(mine[place]) else connected(mine, place)), index, name
        if not bool(mine.any()):
            seen = ", ".join(model.label(int(c)) for c in torch.unique(found[found >= 0])[:8]) or "nothing"
            raise NotInPicture(
                f"{picture.picture.name}: the network sees no {model.label(index)} ({seen}): name a point as well "
                f"(segment:{model.label(index)}@x,y)."
            )
        return mine, index, name


def _class(label: str | int, model: Model, count: int) -> int:
    if isinstance(label, str) and label.isdigit() and label not in (model.labels or ()):
        label = int(label)
    return class_index(label, model.labels, count)


def most_frequent(found: Tensor, model: Model, count: int) -> int:
    """The class with the most cells that is not called background; background where there is nothing else."""
    if count == 1:
        return 0
    frequency = found[found >= 0].flatten().bincount(minlength=count)
    labels = model.labels or ()
    for index in range(min(count, len(labels))):
        if labels[index].strip().casefold() in _BACKGROUND and int(frequency.count_nonzero()) > 1:
            frequency[index] = 0
    return int(frequency.argmax())


@dataclass(eq=False)
class RegionScorer(Scorer):
    """The mean logit of one class over a region; ``regions`` is bool ``[B, h, w]`` over the output's map."""

    regions: Tensor
    chosen: Tensor
    labels: tuple[str, ...]
    local: bool = False
    kind: MapKind = "logits"

    @property
    def one_place(self) -> bool:
        return self.local

    @property
    def has_probability(self) -> bool:
        return True

    def score(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        return self._mean(self._maps(output), rows)

    def probability(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """The mean softmax share (a sigmoid where there is one class), or what the network gives as such."""
        return self._mean(map_shares(self._maps(output).float(), self.kind), rows)

    def _maps(self, output: Any) -> Tensor:
        maps = dense(output)
        if maps is None or maps.shape[2:] != self.regions.shape[1:]:
            raise TargetError("The network returned another kind of map for the changed picture.")
        return maps

    def _mean(self, maps: Tensor, rows: Tensor) -> Tensor:
        index = self.chosen[rows].to(maps.device)
        mine = maps[torch.arange(len(rows), device=maps.device), index]
        weight = self.regions[rows].to(mine)
        return (mine * (weight / weight.sum((1, 2), keepdim=True))).sum((1, 2))

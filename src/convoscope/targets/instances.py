"""One detected instance as a target: found again by its box after every change to the picture.

As in D-RISE (Petsiuk et al.: Black-box Explanation of Object Detectors via Saliency Maps. CVPR 2021) a changed
picture's score is the best of overlap × confidence over its detections of the same class, so that occlusion, RISE
and the like work where detections come and go. The overlap is a constant for the gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import NotInPicture, TargetError
from ..models.detected import Detections, detections
from ..models.outputs import anchor
from .base import Scorer, Target
from .classes import class_index
from .places import Point, at_point, input_point, overlap

if TYPE_CHECKING:
    from ..engine.passes.runner import Runner
    from ..models.model import Model
    from ..pictures.picture import ModelInput

EDGES = {"left": 0, "top": 1, "right": 2, "bottom": 3}
PARTS = ("class", "mask", *EDGES)


@dataclass(frozen=True)
class Found:
    """An instance as it was in the picture itself: box ``[4]`` in input pixels, label, and mask ``[H, W]`` or None."""

    box: Tensor
    label: int
    mask: Tensor | None
    rank: int
    score: float


@dataclass(frozen=True)
class Instance(Target):
    """One detection: the ``index``-th best (from 0), of a class, at a point of the photo, or what these leave.

    ``part`` says what of it is explained: ``class`` (the confidence, 0..1), ``mask`` (the mean of its mask inside
    itself, for Mask R-CNN), or one edge of its box (``left``, ``top``, ``right``, ``bottom``, in input pixels).
    """

    index: int = 0
    label: str | int | None = None
    at: Point | None = None
    part: str = "class"

    def layers(self, model: Model) -> tuple[str, ...]:
        return ()

    def files(self) -> tuple[Path, ...]:
        return ()

    def key(self) -> str:
        label = "" if self.label is None else f" {self.label}"
        return f"instance {self.index}{label}{at_point(self.at)} {self.part}"

    def resolve(self, model: Model, output: Any, pictures: Sequence[ModelInput], runner: Runner) -> InstanceScorer:
        """The scorer on this batch. Raises :class:`TargetError` where a picture holds no such instance."""
        if self.part not in PARTS:
            raise TargetError(f"A part of an instance is {', '.join(PARTS)}, not {self.part!r}.")
        found = self.find(model, output, pictures)
        if self.part == "mask" and any(one.mask is None for one in found):
            raise TargetError(f"{model.name} finds boxes without masks: leave @mask away.")
        suffix = "" if self.part == "class" else f", {self.part}"
        labels = tuple(f"instance {one.rank}: {model.label(one.label)}{suffix}" for one in found)
        height, width = pictures[0].tensor.shape[-2:]
        return InstanceScorer(found, labels, (height, width), self.part)

    def find(self, model: Model, output: Any, pictures: Sequence[ModelInput]) -> list[Found]:
        """The instance of every picture."""
        every = detections(output, pictures[0].tensor.shape[-2:])
        if every is None or len(every) != len(pictures):
            raise TargetError(
                f"{model.name} returns no detections (a list of boxes, labels and scores for each picture): name a "
                "class, a segment, or give a callable target."
            )
        return [self._in(model, item, picture) for item, picture in zip(every, pictures, strict=True)]

    def _in(self, model: Model, item: Mapping[str, Tensor], picture: ModelInput) -> Found:
        scores, boxes = item["scores"].detach(), item["boxes"].detach()
        order = scores.argsort(descending=True, stable=True)
        names = _labels(item)
        keep = torch.ones(len(scores), dtype=torch.bool)
        what = "instance"
        if self.label is not None:
            wanted = _label(self.label, model, names)
            keep &= (names == wanted).cpu()
            what = model.label(wanted)
        if self.at is not None:
            keep &= _holds(item, input_point(picture, self.at)).cpu()
            what += f" at {self.at[0]:g},{self.at[1]:g}"
        chosen = [int(i) for i in order if bool(keep[int(i)])]
        if self.index >= len(chosen):
            best = ", ".join(f"{model.label(int(names[i]))} {float(scores[i]):.2f}" for i in order[:5].tolist())
            there = f"it found {best}" if best else "it found nothing"
            many = f"only {len(chosen)}" if chosen else "no"
            raise NotInPicture(f"{picture.picture.name}: there is {many} {what} in what the network found: {there}.")
        j = chosen[self.index]
        masks = item.get("masks")
        mask = None if masks is None else masks[j].detach().reshape(masks.shape[-2:]) > 0.5
        if self.part == "mask" and mask is not None and not bool(mask.any()):
            raise NotInPicture(
                f"{picture.picture.name}: no pixel of this instance's mask is above one half, so it has no inside to "
                "explain: leave @mask away."
            )
        rank = int((order == j).nonzero()[0, 0])
        return Found(boxes[j].clone(), int(names[j]), mask, rank, float(scores[j]))


def _labels(item: Mapping[str, Tensor]) -> Tensor:
    labels = item.get("labels")
    return torch.zeros(len(item["scores"]), dtype=torch.long) if labels is None else labels.detach()


def _label(wanted: str | int, model: Model, names: Tensor) -> int:
    """A class of the detector by name or number; numbers may go as far as the labels it was seen to give."""
    classes = max(len(model.labels or ()), int(names.max()) + 1 if len(names) else 1, 2)
    if isinstance(wanted, int) or str(wanted).isdigit():
        return int(wanted)
    return class_index(wanted, model.labels, classes)


def _holds(item: Mapping[str, Tensor], point: Point) -> Tensor:
    """Which instances hold an input point: in their mask where there is one, else in their box."""
    boxes, masks = item["boxes"].detach(), item.get("masks")
    if masks is not None and len(masks):
        planes = masks.detach().reshape(len(masks), *masks.shape[-2:])
        row = min(max(round(point[1]), 0), planes.shape[1] - 1)
        col = min(max(round(point[0]), 0), planes.shape[2] - 1)
        return planes[:, row, col] > 0.5
    x, y = point
    return (boxes[:, 0] <= x) & (x <= boxes[:, 2]) & (boxes[:, 1] <= y) & (y <= boxes[:, 3])


@dataclass(eq=False)
class InstanceScorer(Scorer):
    """Overlap × confidence of the detection that best continues the instance; zero where none does."""

    found: list[Found]
    labels: tuple[str, ...]
    size: tuple[int, int]
    part: str = "class"

    @property
    def one_place(self) -> bool:
        return True

    @property
    def has_probability(self) -> bool:
        return self.part == "class"

    def score(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        items = items_of(output, len(rows), self.size)
        scores = [self._one(item, self.found[int(row)]) for item, row in zip(items, rows.tolist(), strict=True)]
        return torch.stack(scores)

    def probability(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """The same: an instance's confidence is a probability already. Raises where a mask or an edge is meant."""
        if self.part != "class":
            raise TargetError(f"The {self.part} of an instance has no probability: use score=logit.")
        return self.score(output, layers, rows)

    def _one(self, item: Mapping[str, Tensor], found: Found) -> Tensor:
        matched = match(item, found)
        edge = EDGES.get(self.part)
        if edge is not None:
            # what is lost has not moved: an edge has no value that means "gone"
            if matched is None:
                return anchor(item) + found.box[edge].to(item["boxes"])
            return item["boxes"][matched[0], edge]
        if matched is None:
            return anchor(item)
        j, share = matched
        if self.part == "mask":
            assert found.mask is not None
            mask = item["masks"][j].reshape(item["masks"].shape[-2:])
            return mask[found.mask.to(mask.device)].mean()
        return item["scores"][j] * share


def match(item: Mapping[str, Tensor], found: Found) -> tuple[int, Tensor] | None:
    """The detection of the same class with the largest overlap × confidence, and its overlap; ``None``: none."""
    boxes, scores = item["boxes"].detach(), item["scores"].detach()
    if len(scores) == 0:
        return None
    share = overlap(boxes.float(), found.box.to(boxes).float())
    share = torch.where(_labels(item).to(share.device) == found.label, share, torch.zeros_like(share))
    value = share * scores.float()
    j = int(value.argmax())
    return (j, share[j].to(scores)) if float(share[j]) > 0 else None


def items_of(output: Any, count: int, size: Sequence[int]) -> Detections:
    """The detections of a batch of ``count`` rows of input ``size`` (H, W), whichever way the network writes them."""
    items = detections(output, size)
    if items is None or len(items) != count:
        raise TargetError("The detector returned another kind of output for the changed picture.")
    return items

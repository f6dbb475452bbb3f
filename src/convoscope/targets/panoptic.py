"""One segment of a panoptic result, thing or stuff: from one network, or from a semantic and an instance network.

Things are countable and have instances, stuff has not (Kirillov, He, Girshick, Rother, Dollár: Panoptic Segmentation.
CVPR 2019). Three kinds of output are read: semantic maps with a list of instances (two networks merged by
:class:`Merged`, or one with both heads), semantic maps with centres and offsets (Panoptic-DeepLab: Cheng et al. CVPR
2020), and masks of queries (Mask2Former: Cheng et al. CVPR 2022).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import NotInPicture, TargetError
from ..models.detected import detections
from ..models.maps import map_kind
from ..models.outputs import dense, last_operation, member
from .base import Scorer, Target
from .instances import Found, InstanceScorer
from .places import Point, at_point, cell, input_point
from .segments import RegionScorer, Segment, _class

if TYPE_CHECKING:
    from ..engine.passes.runner import Runner
    from ..models.model import Model
    from ..pictures.picture import ModelInput


class Merged(nn.Module):
    """A semantic and an instance network as one panoptic network.

    ``forward(x [B, 3, H, W])`` returns ``{"semantic": logits [B, K, h, w], "instances": one dictionary a picture}``.
    Both get the same pictures, in 0..1; ``mean`` and ``std`` normalise what the semantic network gets (torchvision's
    detectors normalise by themselves). ``things`` are the labels, in the instance network's numbering, of things;
    ``names`` maps them to classes of the semantic network where the two count differently.
    """

    def __init__(
        self,
        semantic: nn.Module,
        instances: nn.Module,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        super().__init__()
        self.semantic, self.instances = semantic, instances
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> dict[str, Any]:
        maps = dense(self.semantic((x - self.mean) / self.std))  # type: ignore[operator]
        if maps is None:
            raise TargetError("The semantic network of the two returns no map of classes.")
        return {"semantic": maps, "instances": self.instances(list(x.unbind(0)))}


@dataclass(frozen=True, eq=False)
class PanopticSegment(Target):
    """The segment of ``label`` at the point ``at``, or the largest of the label, or the largest thing of all.

    A thing is scored as an instance is (overlap × confidence) where the network gives instances with scores, else
    by the mean class logit inside its mask; stuff by the mean class logit over its region.
    """

    label: str | int | None = None
    at: Point | None = None

    def layers(self, model: Model) -> tuple[str, ...]:
        return ()

    def files(self) -> tuple[Path, ...]:
        return ()

    def key(self) -> str:
        return f"segment {'' if self.label is None else self.label}{at_point(self.at)}"

    def resolve(self, model: Model, output: Any, pictures: Sequence[ModelInput], runner: Runner) -> Any:
        """The scorer on this batch. Raises :class:`TargetError` where a picture shows no such segment."""
        size = pictures[0].tensor.shape[-2:]
        semantic = member(output, "semantic")
        scorers = [self._in(model, output, semantic, row, picture, size) for row, picture in enumerate(pictures)]
        return PerPicture(scorers)

    def _in(
        self, model: Model, output: Any, semantic: Any, row: int, picture: ModelInput, size: Sequence[int]
    ) -> Any:
        items = detections(output, size)
        if items is not None:
            thing = self._instance(model, items[row], picture)
            if thing is not None:
                label = f"segment: {model.label(thing.label)}, instance {thing.rank}"
                return InstanceScorer([thing], (label,), (int(size[0]), int(size[1])))
        elif isinstance(semantic, Tensor) and member(output, "center") is not None:
            segment = self._centred(model, output, row, picture)
            if segment is not None:
                return segment
        elif (masks := member(output, "pred_masks")) is not None and isinstance(masks, Tensor):
            return self._query(model, output, row, picture)
        # stuff: a region of the semantic map
        maps = dense(output)
        assert maps is not None
        region, index, name = Segment(self.label, self.at)._region(model, maps[row].detach().argmax(0), maps.shape[1],
                                                                   picture)  # fmt: skip
        kind = map_kind(maps, lambda: last_operation(model))
        return RegionScorer(region[None], torch.tensor([index]), (name,), kind=kind)

    def _instance(self, model: Model, item: Mapping[str, Tensor], picture: ModelInput) -> Found | None:
        from .instances import Instance

        try:
            return Instance(0, self.label, self.at)._in(model, item, picture)
        except TargetError:
            return None

    def _centred(
        self, model: Model, output: Mapping[str, Tensor], row: int, picture: ModelInput
    ) -> RegionScorer | None:
        """A thing of a network of centres and offsets: its pixels, scored by their mean class logit."""
        maps = output["semantic"][row].detach()
        things = int(getattr(model.module, "things", 0)) or maps.shape[0]
        found = maps.argmax(0)
        owner = owners(output["center"][row, 0].detach(), output["offset"][row].detach(), found < things)
        place = None
        if self.at is not None:
            place = cell(input_point(picture, self.at), picture.tensor.shape[-2:], found.shape)
            if int(owner[place]) < 0:
                return None
            numbers = [int(owner[place])]
        else:
            numbers = [int(n) for n in torch.unique(owner[owner >= 0])]
        wanted = None if self.label is None else _class(self.label, model, maps.shape[0])
        best: tuple[int, Tensor, int] | None = None
        for number in numbers:
            mask = owner == number
            label = int(found[mask].bincount().argmax())
            if (wanted is None or label == wanted) and (best is None or int(mask.sum()) > best[0]):
                best = (int(mask.sum()), mask, label)
        if best is None:
            return None
        name = f"segment: {model.label(best[2])}, a thing of {best[0]} pixels"
        return RegionScorer(best[1][None], torch.tensor([best[2]]), (name,), local=True)

    def _query(self, model: Model, output: Any, row: int, picture: ModelInput) -> QueryScorer:
        """One query of a mask classifier: its class logit, found again by the overlap of its mask."""
        logits, masks = member(output, "pred_logits")[row].detach(), member(output, "pred_masks")[row].detach()
        shares = logits.softmax(-1)[:, :-1]
        strength = shares.amax(-1)[:, None, None] * masks.sigmoid()
        winner = strength.argmax(0)
        labels = shares.argmax(-1)
        if self.at is not None:
            place = cell(input_point(picture, self.at), picture.tensor.shape[-2:], winner.shape)
            queries = [int(winner[place])]
        else:
            queries = winner.flatten().bincount(minlength=len(labels)).argsort(descending=True).tolist()
        wanted = None if self.label is None else _class(self.label, model, shares.shape[-1])
        chosen = next((q for q in queries if wanted is None or int(labels[q]) == wanted), None)
        if chosen is None:
            raise NotInPicture(f"{picture.picture.name}: the network sees no {model.label(int(wanted or 0))}.")
        label = int(labels[chosen])
        return QueryScorer(masks[chosen].sigmoid() > 0.5, label, (f"segment: {model.label(label)}",))


def owners(centre: Tensor, offset: Tensor, things: Tensor, threshold: float = 0.3, window: int = 9) -> Tensor:
    """For every pixel of a thing the number of its centre, else -1: int64 ``[h, w]``.

    ``centre`` holds logits ``[h, w]``, ``offset`` ``[2, h, w]`` the way down and to the right to the centre, in
    pixels. Peaks are cells above ``threshold`` that no other within ``window`` surpasses.
    """
    heat = centre.sigmoid()
    peaks = (F.max_pool2d(heat[None, None], window, 1, window // 2)[0, 0] == heat) & (heat > threshold)
    found = torch.full(heat.shape, -1)
    ys, xs = peaks.nonzero(as_tuple=True)
    if len(ys) == 0 or not bool(things.any()):
        return found
    height, width = heat.shape
    grid = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")).to(offset)
    goal = (grid + offset)[:, things]
    way = (goal[0, :, None] - ys) ** 2 + (goal[1, :, None] - xs) ** 2
    found[things] = way.argmin(1).cpu()
    return found


@dataclass(eq=False)
class QueryScorer(Scorer):
    """The class logit of the query whose mask overlaps the reference most, times that overlap."""

    mask: Tensor
    label: int
    labels: tuple[str, ...]

    @property
    def has_probability(self) -> bool:
        return True

    def score(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        return self._of(output, probability=False)

    def probability(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """The class's softmax share of the matched query, times the overlap."""
        return self._of(output, probability=True)

    def _of(self, output: Any, *, probability: bool) -> Tensor:
        logits, masks = member(output, "pred_logits"), member(output, "pred_masks")
        mine = masks.detach().sigmoid() > 0.5
        mask = self.mask.to(mine.device)
        both = (mine & mask).flatten(2).sum(2).float()
        either = (mine | mask).flatten(2).sum(2).float().clamp(min=1)
        share = both / either
        query = (share * logits.detach().softmax(-1)[..., self.label]).argmax(1)
        take = torch.arange(len(query), device=query.device)
        values: Tensor = logits.float().softmax(-1) if probability else logits
        matched: Tensor = values[take, query, self.label] * share[take, query].to(logits)
        return matched


@dataclass(eq=False)
class PerPicture(Scorer):
    """A scorer for each picture, as one: pictures of one batch may need different kinds."""

    scorers: list[Scorer]

    def __post_init__(self) -> None:
        self.labels = tuple(scorer.labels[0] for scorer in self.scorers)

    @property
    def one_place(self) -> bool:
        return any(scorer.one_place for scorer in self.scorers)

    @property
    def has_probability(self) -> bool:
        return all(scorer.has_probability for scorer in self.scorers)

    def score(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        return torch.stack([self._one(output, k, int(row), "score") for k, row in enumerate(rows)])

    def probability(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """Each picture's own; raises where one of them has none."""
        return torch.stack([self._one(output, k, int(row), "probability") for k, row in enumerate(rows)])

    def _one(self, output: Any, k: int, row: int, what: str) -> Tensor:
        scorer = self.scorers[row]
        value: Tensor = getattr(scorer, what)(_row(output, k), {}, torch.zeros(1, dtype=torch.long))
        return value[0]


def _row(output: Any, k: int) -> Any:
    """What a batch's output says of its ``k``-th row, as a batch of one."""
    if isinstance(output, Mapping):
        return {key: _row(value, k) for key, value in output.items()}
    return output[k : k + 1]


@dataclass(frozen=True)
class AnySegment(Target):
    """A segment of whatever kind of map the network turns out to return."""

    label: str | int | None = None
    at: Point | None = None

    def layers(self, model: Model) -> tuple[str, ...]:
        return ()

    def files(self) -> tuple[Path, ...]:
        return ()

    def key(self) -> str:
        return f"segment {'' if self.label is None else self.label}{at_point(self.at)}"

    def resolve(self, model: Model, output: Any, pictures: Sequence[ModelInput], runner: Runner) -> Any:
        kind = PanopticSegment if is_panoptic(output) else Segment
        return kind(self.label, self.at).resolve(model, output, pictures, runner)


def is_panoptic(output: Any) -> bool:
    """Whether an output holds segments of things and of stuff at once."""
    if member(output, "pred_masks") is not None and member(output, "pred_logits") is not None:
        return True
    semantic = member(output, "semantic")
    return isinstance(semantic, Tensor) and (
        member(output, "center") is not None or member(output, "instances") is not None
    )

"""One landmark as a target: of Keypoint R-CNN's instances, of heat-map regressors, of coordinate regressors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import TargetError
from ..models.detected import detections
from ..models.outputs import anchor, dense, tensors
from .base import Scorer, Target
from .classes import named_class
from .instances import Found, Instance, items_of, match
from .places import Point, at_point

if TYPE_CHECKING:
    from ..engine.passes.runner import Runner
    from ..models.model import Model
    from ..pictures.picture import ModelInput

AXES = {"x": 0, "y": 1}


@dataclass(frozen=True)
class Landmark(Target):
    """One landmark, by name or number.

    Heat maps ``[B, K, h, w]``: the value at the peak that the picture itself has. Keypoint R-CNN: the logit of the
    landmark of instance ``instance`` (or the one at the point ``at``), found again by its box. ``axis`` (``x``,
    ``y``) asks for the coordinate instead, in what the network returns ``[B, K, 2]``.
    """

    name: str | int
    instance: int = 0
    at: Point | None = None
    axis: str | None = None

    def layers(self, model: Model) -> tuple[str, ...]:
        return ()

    def files(self) -> tuple[Path, ...]:
        return ()

    def key(self) -> str:
        axis = "" if self.axis is None else f" {self.axis}"
        return f"landmark {self.name} of {self.instance}{at_point(self.at)}{axis}"

    def resolve(self, model: Model, output: Any, pictures: Sequence[ModelInput], runner: Runner) -> Any:
        """The scorer on this batch. Raises :class:`TargetError` where the network finds no landmarks."""
        size = tuple(int(side) for side in pictures[0].tensor.shape[-2:])
        items = detections(output, size)
        if items is not None:
            if not items or "keypoints_scores" not in items[0]:
                raise TargetError(f"{model.name} finds boxes without landmarks.")
            found = Instance(self.instance, None, self.at).find(model, output, pictures)
            index = self._index(model, items[0]["keypoints_scores"].shape[1], landmark_names(model))
            label = f"landmark: {_name(index, landmark_names(model))}"
            return KeypointScorer(found, index, tuple(f"{label} of instance {one.rank}" for one in found), size)
        maps = None if self.axis else dense(output)
        if maps is not None:
            index = self._index(model, maps.shape[1], landmark_names(model))
            flat = maps.detach()[:, index].flatten(1)
            label = f"landmark: {_name(index, landmark_names(model))}"
            return PeakScorer(index, flat.argmax(1).cpu(), (label,) * len(pictures))
        places = next((t for _, t in tensors(output) if t.ndim == 3 and t.shape[-1] in (2, 3)), None)
        if places is None:
            raise TargetError(f"{model.name} returns no landmarks: heat maps, keypoints or coordinates.")
        if self.axis is None:
            raise TargetError(f"{model.name} returns coordinates: say which, landmark:{self.name}@x or @y.")
        index = self._index(model, places.shape[1], landmark_names(model))
        label = f"landmark: {_name(index, landmark_names(model))}, {self.axis}"
        return CoordinateScorer(index, AXES[self.axis], (label,) * len(pictures))

    def _index(self, model: Model, count: int, names: Sequence[str] | None) -> int:
        if isinstance(self.name, int) or (str(self.name).isdigit() and self.name not in (names or ())):
            index = int(self.name)
        else:
            if names is None:
                raise TargetError(f"{model.name}'s landmarks have no names: give {self.name!r} as a number.")
            wanted = str(self.name) if self.name in names else str(self.name).replace("-", "_")
            index = named_class(wanted, names, "landmark")
        if not 0 <= index < count:
            raise TargetError(f"There is no landmark {index}: {model.name} has {count} (0 to {count - 1}).")
        return index


def landmark_names(model: Model) -> tuple[str, ...] | None:
    """The names of a network's landmarks: the module's own ``landmarks``, COCO's 17, or the model's labels."""
    own = getattr(model.module, "landmark_names", None)
    if own:
        return tuple(own)
    if any(kind.__name__ == "KeypointRCNN" for kind in type(model.module).__mro__):
        from torchvision.models.detection import KeypointRCNN_ResNet50_FPN_Weights

        return tuple(KeypointRCNN_ResNet50_FPN_Weights.DEFAULT.meta["keypoint_names"])
    return model.labels


def _name(index: int, names: Sequence[str] | None) -> str:
    return names[index] if names is not None and index < len(names) else str(index)


class _OfLandmark(Scorer):
    """One of several places, without a probability unless it says so."""

    @property
    def one_place(self) -> bool:
        return True

    def probability(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        raise TargetError("A landmark has no probability here: use score=logit.")


@dataclass(eq=False)
class PeakScorer(_OfLandmark):
    """A heat map's value at one cell; ``cells`` ``[B]`` index the flattened map."""

    index: int
    cells: Tensor
    labels: tuple[str, ...]

    @property
    def has_probability(self) -> bool:
        return True

    def score(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        maps = dense(output)
        if maps is None:
            raise TargetError("The network returned no heat maps for the changed picture.")
        return maps[:, self.index].flatten(1).gather(1, self.cells[rows].to(maps.device)[:, None])[:, 0]

    def probability(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """The sigmoid of the value: heat maps are trained towards 0..1 at their peak."""
        return self.score(output, layers, rows).float().sigmoid()


@dataclass(eq=False)
class KeypointScorer(_OfLandmark):
    """The logit of one keypoint of the instance that continues the one found; zero where it is lost."""

    found: list[Found]
    index: int
    labels: tuple[str, ...]
    size: tuple[int, ...]

    def score(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        scores = []
        for item, row in zip(items_of(output, len(rows), self.size), rows.tolist(), strict=True):
            matched = match(item, self.found[row])
            scores.append(anchor(item) if matched is None else item["keypoints_scores"][matched[0], self.index])
        return torch.stack(scores)


@dataclass(eq=False)
class CoordinateScorer(_OfLandmark):
    """One coordinate of one landmark in a regressor's answer ``[B, K, 2]``."""

    index: int
    axis: int
    labels: tuple[str, ...]

    def score(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        places = next(t for _, t in tensors(output) if t.ndim == 3 and t.shape[-1] in (2, 3))
        return places[:, self.index, self.axis]

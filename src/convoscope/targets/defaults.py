"""What is explained when a network gives no class scores and nobody said what: and what it found, as predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import TargetError
from ..models.outputs import dense, detections
from .instances import Instance
from .landmarks import Landmark, PeakScorer
from .panoptic import PanopticSegment, is_panoptic
from .segments import Segment

if TYPE_CHECKING:
    from ..models.model import Model
    from ..pictures.picture import ModelInput
    from .classes import Scorer


def default(target: Any, model: Model, output: Any, pictures: Sequence[ModelInput]) -> Scorer | None:
    """The scorer of a plain target (``None``, ``top1``, a class) on a structured output; ``None`` where it is not one.

    Detectors: the best instance (of the class). Segmenters: the most frequent class that is not background (or the
    class). Panoptic networks: the largest thing. Landmark networks: the first landmark.
    """
    rank = _rank(target)
    label = None if rank is not None else target
    if label is not None and not isinstance(label, (str, int)):
        return None
    if is_panoptic(output):
        return PanopticSegment(label).resolve(model, output, pictures)  # type: ignore[no-any-return]
    if detections(output, pictures[0].tensor.shape[-2:]) is not None:
        return Instance(rank or 0, label).resolve(model, output, pictures)
    if dense(output) is not None:
        if rank is not None and _finds_landmarks(model):
            return Landmark(rank).resolve(model, output, pictures)  # type: ignore[no-any-return]
        if rank:
            raise TargetError(f"{model.name} returns a map of classes: name one (segment:CLASS) instead of {target}.")
        return Segment(label).resolve(model, output, pictures)
    return None


def _rank(target: Any) -> int | None:
    if target is None:
        return 0
    if isinstance(target, str) and target.startswith("top") and target[3:].isdigit() and int(target[3:]) > 0:
        return int(target[3:]) - 1
    return None


def _finds_landmarks(model: Model) -> bool:
    # heat maps of landmarks and maps of classes look alike: only a name tells them apart
    name = type(model.module).__name__.casefold()
    words = ("landmark", "keypoint", "hourglass", "heatmap", "pose")
    return hasattr(model.module, "landmark_names") or any(word in name for word in words)


def note(target: Any, output: Any, scorer: Scorer, size: Sequence[int]) -> str | None:
    """What is said where nobody chose the target and it is no predicted class."""
    if target is not None:
        return None
    if is_panoptic(output):
        return "No target was named: the largest thing of each picture is explained."
    if detections(output, size) is not None:
        return "No target was named: the instance with the highest score is explained."
    if dense(output) is not None and isinstance(scorer, PeakScorer):
        return "No target was named: the first landmark is explained."
    if dense(output) is not None:
        return "No target was named: the most frequent class that is not background is explained, where it was seen."
    return None


def found(model: Model, output: Any, count: int, size: Sequence[int]) -> list[list[dict[str, Any]]]:
    """The five best instances, or the five most frequent classes, of every picture; empty where there are none."""
    items = detections(output, size)
    if items is not None and len(items) == count:
        return [_instances(model, item) for item in items]
    maps = dense(output)
    if maps is None or len(maps) != count or maps.shape[1] == 1 or _finds_landmarks(model):
        return [[] for _ in range(count)]
    values = maps.detach().float()
    winners = values.argmax(1)
    rows = []
    for k in range(count):
        frequency = winners[k].flatten().bincount(minlength=maps.shape[1])
        order = frequency.argsort(descending=True)[:5].tolist()
        total = float(winners[k].numel())
        rows.append(
            [
                {
                    "index": c,
                    "label": model.label(c),
                    "score": float(values[k, c][winners[k] == c].mean()),
                    "probability": None,
                    "share": float(frequency[c]) / total,
                }
                for c in order
                if int(frequency[c])
            ]
        )
    return rows


def _instances(model: Model, item: dict[str, Any]) -> list[dict[str, Any]]:
    scores = item["scores"].detach().float()
    labels = item.get("labels")
    return [
        {
            "index": int(labels[j]) if labels is not None else 0,
            "label": model.label(int(labels[j])) if labels is not None else "object",
            "score": float(scores[j]),
            "probability": float(scores[j]),
            "box": [float(v) for v in item["boxes"][j].detach()],
        }
        for j in scores.argsort(descending=True, stable=True)[:5].tolist()
    ]

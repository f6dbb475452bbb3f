"""What is explained when a network gives no class scores and nobody said what: and what it found, as predictions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..engine.passes.untouched import innermost
from ..errors import TargetError
from ..models.detected import detections
from ..models.maps import map_kind, map_notes
from ..models.outputs import dense, last_operation, scores_of
from .base import Scorer, Target
from .classes import ClassScorer, ClassTarget, class_name
from .instances import Instance
from .landmarks import Landmark, PeakScorer, landmark_names
from .panoptic import PanopticSegment, is_panoptic
from .segments import Segment

if TYPE_CHECKING:
    from ..engine.passes.runner import Runner
    from ..models.model import Model
    from ..pictures.picture import ModelInput


def default(
    target: int | str | None, model: Model, output: Any, pictures: Sequence[ModelInput], runner: Runner
) -> Scorer | None:
    """The scorer of a plain target (``None``, ``top1``, a class) on a structured output; ``None`` where it is not one.

    Detectors: the best instance (of the class). Segmenters: the most frequent class that is not background (or the
    class). Panoptic networks: the largest thing. Landmark networks: the first landmark.
    """
    rank = _rank(target, model)
    label = None if rank is not None else target
    found: Target
    if is_panoptic(output):
        found = PanopticSegment(label)
    elif detections(output, pictures[0].tensor.shape[-2:]) is not None:
        found = Instance(rank or 0, label)
    elif dense(output) is None:
        return None
    elif rank is not None and _finds_landmarks(model):
        found = Landmark(rank)
    elif rank:
        raise TargetError(f"{model.name} returns a map of classes: name one (segment:CLASS) instead of {target}.")
    else:
        found = Segment(label)
    return found.resolve(model, output, pictures, runner)


def _rank(target: int | str | None, model: Model) -> int | None:
    if target is None:
        return 0
    found = None if target in (model.labels or ()) else re.fullmatch(r"top([1-9]\d*)", str(target))
    return None if found is None else int(found[1]) - 1


def _finds_landmarks(model: Model) -> bool:
    # heat maps of landmarks and maps of classes look alike: only a name tells them apart
    name = type(model.module).__name__.casefold()
    words = ("landmark", "keypoint", "hourglass", "heatmap", "pose")
    return hasattr(model.module, "landmark_names") or any(word in name for word in words)


def _is_segmenter(model: Model) -> bool:
    """Whether the network's class, or the package it comes from, says that it segments."""
    kind = type(innermost(model.module))
    return "segment" in f"{kind.__module__}.{kind.__name__}".casefold()


def note(target: Target, output: Any, scorer: Scorer, size: Sequence[int]) -> str | None:
    """What is said where nobody chose the target and it is no predicted class."""
    if target != ClassTarget() or isinstance(scorer, ClassScorer):
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


@dataclass(frozen=True)
class Predictions:
    """What a network says of each picture of a batch.

    ``kind``: ``classifier``, ``value`` (one number), ``detector``, ``segmenter``, ``landmarks`` or ``other``. ``rows``
    holds a list a picture, best first: ``index``, ``label``, ``score``, ``probability`` (or ``None``), the ``target``
    that names it, and a ``box`` (input pixels), a ``share`` of the picture or a ``point`` (x, y in input pixels).
    ``notes`` say how the output was read.
    """

    kind: str
    rows: list[list[dict[str, Any]]]
    notes: tuple[str, ...] = ()


def predictions(model: Model, output: Any, count: int, size: Sequence[int], best: int = 5) -> Predictions:
    """The ``best`` answers for each of ``count`` pictures of input ``size``: the one place where they are made."""
    try:
        reading, values = scores_of(model, output, count)
    except TargetError:
        return _structured(model, output, count, size, best)
    values = values.detach().float().cpu()
    shares = None if reading.is_value else reading.shares(values)
    notes = reading.notes
    unknown = values.isnan()
    if bool(unknown.any()):
        which = ", ".join(model.label(int(c)) for c in unknown.any(0).nonzero()[:5, 0])
        notes = (*notes, f"The network returns NaN for {which}: what is no number has no rank and no probability.")
    endless = values.isinf()
    if bool(endless.any()):
        which = ", ".join(model.label(int(c)) for c in endless.any(0).nonzero()[:5, 0])
        notes = (*notes, f"The network returns infinity for {which}: no map tells what makes it larger or smaller.")
    rows: list[list[dict[str, Any]]] = []
    for row in range(count):
        # NaN is no score: it has no rank, and stands nowhere in the list
        order = (
            values[row]
            .nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
            .argsort(descending=True, stable=True)
        )
        # the best alone are written out: there may be thousands of classes, and this is done for every picture
        ranked = order[~unknown[row][order]][:best].tolist()
        rows.append([
            {
                "index": c,
                "label": class_name(model, reading, c),
                "score": float(values[row, c]),
                "probability": None if shares is None or not bool(shares[row, c].isfinite()) else float(shares[row, c]),
                "target": str(c),
            }
            for c in ranked
        ])  # fmt: skip
    return Predictions("value" if reading.is_value else "classifier", rows, notes)


def _structured(model: Model, output: Any, count: int, size: Sequence[int], best: int) -> Predictions:
    items = detections(output, size)
    if items is not None and len(items) == count:
        return Predictions("detector", [_instances(model, item)[:best] for item in items])
    maps = dense(output)
    if maps is None or len(maps) != count:
        return Predictions("other", [[] for _ in range(count)])
    maps = maps.detach().float().cpu()
    if _finds_landmarks(model):
        return Predictions("landmarks", [_peaks(model, one, size, best) for one in maps])
    kind = map_kind(maps, lambda: last_operation(model))
    known = maps.shape[1] if _is_segmenter(model) else None if model.labels is None else len(model.labels)
    notes = map_notes(maps, kind, known)
    if maps.shape[1] == 1:
        return Predictions("landmarks", [_peaks(model, one, size, best) for one in maps], notes)
    return Predictions("segmenter", [_regions(model, one, best) for one in maps], notes)


def _regions(model: Model, maps: Tensor, best: int) -> list[dict[str, Any]]:
    """The most frequent classes of a map ``[K, h, w]``."""
    winners = maps.argmax(0)
    frequency = winners.flatten().bincount(minlength=len(maps))
    return [
        {
            "index": c,
            "label": model.label(c),
            "score": float(maps[c][winners == c].mean()),
            "probability": None,
            "share": float(frequency[c]) / winners.numel(),
            "target": f"segment:{model.label(c)}",
        }
        for c in frequency.argsort(descending=True, stable=True)[:best].tolist() if int(frequency[c])
    ]  # fmt: skip


def _peaks(model: Model, maps: Tensor, size: Sequence[int], best: int) -> list[dict[str, Any]]:
    """Where each of the heat maps ``[K, h, w]`` is highest."""
    names = landmark_names(model)
    height, width = maps.shape[-2:]
    found = []
    for index in range(min(best, len(maps))):
        peak = int(maps[index].argmax())
        point = [(peak % width + 0.5) * size[1] / width - 0.5, (peak // width + 0.5) * size[0] / height - 0.5]
        label = names[index] if names and index < len(names) else str(index)
        value = float(maps[index].flatten()[peak])
        found.append({"index": index, "label": label, "score": value, "probability": None, "point": point,
                      "target": f"landmark:{index}"})  # fmt: skip
    return found


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
            "target": f"instance:{rank}",
        }
        for rank, j in enumerate(scores.argsort(descending=True, stable=True).tolist())
    ]

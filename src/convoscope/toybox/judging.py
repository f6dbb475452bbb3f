"""How good an answer about a scene is: average precision, mean IoU, panoptic quality. Numpy alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def box_iou(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Intersection over union of boxes [N, 4] and [M, 4] (x0, y0, x1, y1), as [N, M]."""
    a, b = np.asarray(a, np.float64).reshape(-1, 4), np.asarray(b, np.float64).reshape(-1, 4)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inner = np.clip(high - low, 0, None).prod(2)
    areas = (a[:, 2:] - a[:, :2]).prod(1)[:, None] + (b[:, 2:] - b[:, :2]).prod(1)[None]
    out: NDArray[np.float64] = inner / np.maximum(areas - inner, 1e-12)
    return out


def mean_average_precision(
    answers: Sequence[Mapping[str, Any]], truths: Sequence[Mapping[str, Any]], iou: float = 0.5
) -> float:
    """Mean over classes of the area under the precision-recall curve (every point, precision made monotone).

    ``answers`` have ``boxes``, ``labels``, ``scores``, ``truths`` have ``boxes``, ``labels``, one of each
    per picture. As in PASCAL VOC since 2010 (Everingham et al. 2015): best scores first, each true box can
    be found once, and an answer whose best-fitting true box is taken already is wrong.
    """
    boxes = [np.asarray(truth["boxes"], np.float64).reshape(-1, 4) for truth in truths]
    labels = [np.asarray(truth["labels"]) for truth in truths]
    values = []
    for label in np.unique(np.concatenate(labels)):
        found = [
            (float(score), k, box)
            for k, answer in enumerate(answers)
            for box, own, score in zip(
                np.asarray(answer["boxes"]),
                np.asarray(answer["labels"]),
                np.asarray(answer["scores"]),
                strict=True,
            )
            if own == label
        ]
        found.sort(key=lambda item: -item[0])
        total = sum(int((own == label).sum()) for own in labels)
        taken: set[tuple[int, int]] = set()
        right = np.zeros(len(found))
        for n, (_, k, box) in enumerate(found):
            overlap = np.where(labels[k] == label, box_iou(box, boxes[k])[0], -1.0)
            best = int(overlap.argmax()) if len(overlap) else -1
            if best >= 0 and overlap[best] >= iou and (k, best) not in taken:
                taken.add((k, best))
                right[n] = 1
        recall = right.cumsum() / total
        precision = right.cumsum() / np.arange(1, len(found) + 1)
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        values.append(float((np.diff(recall, prepend=0.0) * precision).sum()))
    return float(np.mean(values))


def mean_iou(answers: Sequence[NDArray[Any]], truths: Sequence[NDArray[Any]], classes: int) -> float:
    """Mean over the classes that occur of intersection over union, over the pixels of all pictures."""
    counts = np.zeros((classes, classes))
    for answer, truth in zip(answers, truths, strict=True):
        pairs = truth.astype(np.int64).ravel() * classes + answer.astype(np.int64).ravel()
        counts += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    return float((counts.diagonal()[union > 0] / union[union > 0]).mean())


Segments = Sequence[tuple[int, NDArray[np.bool_]]]
"""The segments of one picture: class index and mask of each."""


def panoptic_quality(answers: Sequence[Segments], truths: Sequence[Segments]) -> float:
    """Panoptic quality (Kirillov et al. 2019, https://arxiv.org/abs/1801.00868), its mean over the true
    classes.

    Segments match where they are of one class and their IoU is above 0.5 (which makes the match unique).
    """
    overlap: dict[int, float] = {}
    matched: dict[int, int] = {}
    answered: dict[int, int] = {}
    true: dict[int, int] = {}
    for answer, truth in zip(answers, truths, strict=True):
        for label, _ in answer:
            answered[label] = answered.get(label, 0) + 1
        for label, mask in truth:
            true[label] = true.get(label, 0) + 1
            for other, guess in answer:
                if other != label:
                    continue
                iou = float((mask & guess).sum() / max((mask | guess).sum(), 1))
                if iou > 0.5:
                    overlap[label] = overlap.get(label, 0.0) + iou
                    matched[label] = matched.get(label, 0) + 1
    return float(np.mean([overlap.get(n, 0.0) / (0.5 * answered.get(n, 0) + 0.5 * true[n]) for n in true]))

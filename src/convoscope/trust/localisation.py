"""Does the map lie on the object? Measures against a mask, and the baselines that know nothing of the network.

All functions take maps ``[..., H, W]`` and one boolean mask ``[H, W]`` of the object in the same pixels, and return
float64 ``[...]``. They measure agreement with where *people* see the object; a network that decides by the
background is faithfully explained by a map that scores zero here.

An undefined value counts for nothing: NaN is the lowest value of its map. A mask that is empty makes every
measure undefined (NaN); one that covers the whole picture makes the pixel AUC undefined.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def pointing(values: NDArray[Any], mask: Mask, tolerance: float = 0.0) -> Floats:
    """Pointing game: 1 where the map's maximum lies on the object, else 0 (Zhang et al. 2016, Excitation Backprop).

    The maximum also hits when a pixel of the object is nearer than ``tolerance`` pixels (TorchRay's protocol: 15, in
    the original photo's pixels). Where several pixels share the maximum, the result is the share of them that hit:
    what is expected of picking one blindly, so a constant map scores the object's share of the picture.
    """
    flat, inside = _flat(values, mask)
    if not mask.any():
        return np.full(flat.shape[:-1], np.nan)
    accept = near(mask, tolerance).ravel() if tolerance > 0 else inside
    top = flat == flat.max(-1, keepdims=True)
    return np.asarray((top & accept).sum(-1) / top.sum(-1), np.float64)


def near(mask: Mask, tolerance: float) -> Mask:
    """The mask grown by all pixels whose centre is nearer than ``tolerance`` to the centre of one of its pixels."""
    if tolerance <= 1:
        return mask.copy()
    height, width = mask.shape
    reach = int(np.ceil(tolerance)) - 1
    # runs of a row's object pixels, counted once: a window holds one where the count changes across it
    counts = np.concatenate([np.zeros((height, 1), np.int64), np.cumsum(mask, 1)], 1)
    columns = np.arange(width)
    grown = np.zeros_like(mask)
    for dy in range(-min(reach, height - 1), min(reach, height - 1) + 1):
        half = int(np.ceil(np.sqrt(tolerance**2 - dy**2))) - 1
        wide = counts[:, np.minimum(columns + half + 1, width)] > counts[:, np.maximum(columns - half, 0)]
        source, goal = (slice(0, height - dy), slice(dy, height)) if dy >= 0 else (slice(-dy, height), slice(0, dy))
        grown[goal] |= wide[source]
    return grown


def energy_inside(values: NDArray[Any], mask: Mask) -> Floats:
    """The share of the map's positive values that lies inside the object, 0..1 (Wang et al. 2020, Score-CAM).

    Evidence against the class is not counted. A map without any positive value tells no place from another and scores
    as a constant map does: the object's share of the picture.
    """
    flat, inside = _flat(values, mask, lowest=0.0)
    if not mask.any():
        return np.full(flat.shape[:-1], np.nan)
    positive = np.maximum(flat, 0)
    with np.errstate(over="ignore"):
        # scaled first: float64 sums of huge maps must not overflow
        positive = positive / np.maximum(positive.max(-1, keepdims=True), np.finfo(np.float64).tiny)
    total = positive.sum(-1)
    found = positive[..., inside].sum(-1)
    return np.asarray(np.where(total > 0, found / np.where(total > 0, total, 1), inside.mean()), np.float64)


def best_iou(values: NDArray[Any], mask: Mask) -> Floats:
    """Intersection over union of the object and ``{map >= t}``, at the threshold ``t`` that is best for this map.

    Choi et al. 2020 (Evaluating weakly supervised object localization methods right). 1 for a perfect map; the whole
    picture is one of the thresholds, so no map falls below the object's share of the picture.
    """
    flat, inside = _flat(values, mask)
    if not mask.any():
        return np.full(flat.shape[:-1], np.nan)
    return _each(flat, lambda row: _best_iou(row, inside))


def _best_iou(row: Floats, inside: Mask) -> float:
    order = np.argsort(-row)
    hits = np.cumsum(inside[order])
    ordered = row[order]
    # a threshold takes all pixels of one value: only the ends of the runs are thresholds
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    return float((hits[ends] / (ends + 1 + int(inside.sum()) - hits[ends])).max())


def pixel_auc(values: NDArray[Any], mask: Mask) -> Floats:
    """Area under the ROC curve of the map as a detector of the object's pixels: 0.5 knows nothing, 1 is perfect.

    The chance that a pixel of the object has a higher value than one outside (ties count half).
    """
    flat, inside = _flat(values, mask)
    if not mask.any() or mask.all():
        return np.full(flat.shape[:-1], np.nan)
    return _each(flat, lambda row: _auc(row[inside], row[~inside]))


def _auc(positive: Floats, negative: Floats) -> float:
    swapped = len(positive) > len(negative)
    few, many = (negative, positive) if swapped else (positive, negative)
    ordered = np.sort(many)
    few = np.sort(few)  # sorted needles are found many times faster: the cache is warm
    below = np.searchsorted(ordered, few, "left")
    upto = np.searchsorted(ordered, few, "right")
    share = float((below + upto).sum()) / 2 / (len(few) * len(many))
    return 1 - share if swapped else share


def _each(flat: Floats, measure: Any) -> Floats:
    rows = flat.reshape(-1, flat.shape[-1])
    return np.array([measure(row) for row in rows], np.float64).reshape(flat.shape[:-1])


def _flat(values: NDArray[Any], mask: Mask, lowest: float = -np.inf) -> tuple[Floats, Mask]:
    values = np.asarray(values)
    if values.ndim < 2 or values.shape[-2:] != mask.shape:
        raise UsageError(f"A map of shape {values.shape} cannot be compared with a mask of shape {mask.shape}.")
    flat = values.reshape(*values.shape[:-2], -1).astype(np.float64)
    if np.isnan(flat).any():
        flat = np.where(np.isnan(flat), lowest, flat)
    return flat, np.asarray(mask, bool).ravel()


def difficult(mask: Mask, other_classes: int) -> bool:
    """Whether a picture belongs to the pointing game's *difficult* subset for this class (Zhang et al. 2016).

    The object fills less than a quarter of the picture, and there is an object of at least one other class.
    """
    return bool(mask.mean() < 0.25 and other_classes > 0)


def centre(size: tuple[int, int]) -> NDArray[np.float32]:
    """The baseline that always points at the middle: nearness to the centre, ``[H, W]``, 1 there and 0 in the
    corners.

    On an even side the two middle pixels share the maximum.
    """
    rows, cols = (np.abs(np.arange(n) - (n - 1) / 2) for n in size)
    far = np.hypot(rows[:, None], cols[None, :])
    return np.asarray(1 - far / max(float(far.max()), 1e-9), np.float32)


def random(size: tuple[int, int], seed: int) -> NDArray[np.float32]:
    """The baseline that knows nothing: every pixel drawn for itself, uniform in 0..1."""
    return np.random.default_rng(seed).random(size, dtype=np.float32)


def random_smooth(size: tuple[int, int], seed: int, cells: int = 7) -> NDArray[np.float32]:
    """A random map as smooth as a coarse CAM: ``cells × cells`` uniform values, drawn up bilinearly.

    Taking away scattered pixels harms a network far more than taking away patches. Coarse maps should be compared
    with this, pixel maps with :func:`random`.
    """
    grid = np.random.default_rng(seed).random((cells, cells))
    rows, cols = (_weights(cells, n) for n in size)
    return np.asarray(rows @ grid @ cols.T, np.float32)


def _weights(cells: int, length: int) -> Floats:
    at = np.clip((np.arange(length) + 0.5) * cells / length - 0.5, 0, cells - 1)
    low = np.minimum(at.astype(int), max(cells - 2, 0))
    weights = np.zeros((length, cells))
    weights[np.arange(length), low] = 1 - (at - low)
    weights[np.arange(length), np.minimum(low + 1, cells - 1)] += at - low
    return weights


def edges(picture: NDArray[Any]) -> NDArray[np.float32]:
    """The baseline that sees the picture but not the network: the Sobel gradient's magnitude, ``[H, W]``.

    ``picture`` is ``[C, H, W]`` in any unit; of the channels the strongest edge counts.
    """
    p = np.pad(np.asarray(picture, np.float64), ((0, 0), (1, 1), (1, 1)), mode="edge")
    across = p[:, :, 2:] - p[:, :, :-2]
    down = p[:, 2:] - p[:, :-2]
    gx = across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]
    gy = down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]
    return np.asarray(np.hypot(gx, gy).max(0), np.float32)


#: the localisation measures by their names in a league table
MEASURES = {"pointing": pointing, "energy-inside": energy_inside, "iou": best_iou, "auc": pixel_auc}

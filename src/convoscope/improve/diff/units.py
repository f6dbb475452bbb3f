"""Hidden units of two networks: which of B's can be read off A's layer, which are new, which are lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ..statistics import halves
from .sides import Side

#: a unit of which less than this share of the variance can be predicted is new (or lost), the least first
NEW = 0.9
#: pictures that the fits use at most: those of the smallest content hashes
MOST_PICTURES = 4000
#: a unit counts as matched from this correlation on
MATCHED = 0.9
#: a unit that answers fewer pictures than this share cannot be judged
RARE = 0.01
F64 = NDArray[np.float64]
F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Unit:
    """A unit with the share of its variance that the other network's layer predicts on held-out pictures."""

    unit: str
    r2: float
    layer: str
    channel: int
    other: str
    depth: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {"unit": self.unit, "r2": self.r2, "from": self.other}


@dataclass(eq=False)
class LayerMatch:
    """One layer of both networks, its units matched one to one.

    Args:
        layer: the layer's name.
        to: for each unit of A its partner in B, int64 ``[C]``.
        correlation: of each pair, ``[C]``; NaN for units that never move.
        drift: relative change of the layer's own weights, |W_B - W_A| / |W_A|; None where it has none.
        matched_drift: the same with B's output channels brought into A's order.
    """

    layer: str
    to: NDArray[np.int64]
    correlation: F64
    drift: float | None = None
    matched_drift: float | None = None

    @property
    def matched(self) -> int:
        """Pairs that are alike (correlation of at least 0.9)."""
        return int((np.nan_to_num(self.correlation, nan=-1.0) >= MATCHED).sum())

    @property
    def moved(self) -> int:
        """Matched pairs whose channel number differs."""
        alike = np.nan_to_num(self.correlation, nan=-1.0) >= MATCHED
        return int((alike & (self.to != np.arange(len(self.to)))).sum())

    @property
    def alive(self) -> int:
        """Units of A that move at all."""
        return int(np.isfinite(self.correlation).sum())

    def to_dict(self) -> dict[str, Any]:
        return {
            "layer": self.layer, "units": len(self.to), "alive": self.alive, "matched": self.matched,
            "moved": self.moved, "weight_drift": self.drift, "matched_weight_drift": self.matched_drift,
        }  # fmt: skip


@dataclass(eq=False)
class Units:
    """What became of the units.

    Args:
        new: units of B that A's layer does not predict, the least predictable first.
        lost: units of A that B's layer does not predict.
        every: all units of B that were judged, then all of A, with their R².
        matches: one to one, where both networks have the same layers.
        dead: for each side layer -> number of units that gave every picture the same.
    """

    new: list[Unit] = field(default_factory=list)
    lost: list[Unit] = field(default_factory=list)
    every: tuple[list[Unit], list[Unit]] = field(default_factory=lambda: ([], []))
    matches: list[LayerMatch] = field(default_factory=list)
    dead: tuple[dict[str, int], dict[str, int]] = field(default_factory=lambda: ({}, {}))
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {
            "new": [one.to_dict() for one in self.new], "lost": [one.to_dict() for one in self.lost],
            "matched": [one.to_dict() for one in self.matches],
            "dead": [dict(one) for one in self.dead],
        }  # fmt: skip


def ridge_r2(x: F32, y: F32, half: NDArray[np.bool_]) -> F64:
    """How well each column of ``y`` is predicted from ``x`` on pictures held out: R², ``[D]``.

    Ridge regression fitted on one half and judged on the other, and the reverse. The penalty is chosen for each
    column by generalised cross-validation inside the half that is fitted (Golub, Heath & Wahba 1979).

    Args:
        x: ``[N, C]``.
        y: ``[N, D]``.
        half: which pictures are in the first half.

    Returns:
        1 for what follows from ``x``, 0 or less for what does not, NaN for a column that never changes.
    """
    rest = np.zeros(y.shape[1])
    total = np.zeros(y.shape[1])
    for train in (half, ~half):
        fitted = _ridge(np.asarray(x[train], np.float64), np.asarray(y[train], np.float64))
        guess, mean = fitted(np.asarray(x[~train], np.float64))
        truth = np.asarray(y[~train], np.float64)
        rest += ((truth - guess) ** 2).sum(0)
        total += ((truth - mean) ** 2).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(total > 1e-12 * len(x), 1 - rest / total, np.nan), np.float64)


def _ridge(x: F64, y: F64) -> Any:
    centre, mean = x.mean(0), y.mean(0)
    spread = x.std(0)
    scale = np.where(spread > 1e-9 * max(1e-30, float(spread.max(initial=0.0))), spread, np.inf)
    made = (x - centre) / scale
    count = len(made)
    left, size, right = np.linalg.svd(made, full_matrices=False)
    strong = size > 1e-10 * max(1e-30, float(size.max(initial=0.0)))
    left, size, right = left[:, strong], size[strong], right[strong]
    seen = left.T @ (y - mean)
    unseen = ((y - mean) ** 2).sum(0) - (seen**2).sum(0)
    best, chosen = np.full(y.shape[1], np.inf), np.zeros((len(size), y.shape[1]))
    for power in np.arange(-10.0, 2.5, 0.5):
        penalty = 10.0**power * float((size**2).mean()) if len(size) else 1.0
        kept = size**2 / (size**2 + penalty)
        # the mean takes one degree of freedom, too
        free = max(count - 1 - float(kept.sum()), 1e-3 * count)
        score = (np.maximum(unseen, 0) + (((1 - kept)[:, None] * seen) ** 2).sum(0)) / free**2
        better = score < best
        best = np.where(better, score, best)
        chosen[:, better] = (kept / size)[:, None] * seen[:, better]
    weights = (right.T @ chosen) / scale[:, None]
    return lambda other: ((other - centre) @ weights + mean, mean)


def match(a: F32, b: F32) -> tuple[NDArray[np.int64], F64]:
    """Units of one network matched one to one with the other's by correlation (Hungarian; Li et al. 2016).

    Args:
        a: ``[N, C]``.
        b: ``[N, C]``.

    Returns:
        for each unit of A its partner in B, and the correlation of each pair (NaN where one never changes).
    """
    left, alive_a = _standard(a)
    right, alive_b = _standard(b)
    found = left.T @ right / len(a)
    rows, columns = linear_sum_assignment(-found)
    to = np.empty(len(rows), np.int64)
    to[rows] = columns
    pairs = found[rows, columns]
    both = alive_a & alive_b[to]
    # dead units correlate with nothing: they stay where they are as far as they can
    return to, np.where(both, pairs, np.nan)


def _standard(values: F32) -> tuple[F64, NDArray[np.bool_]]:
    made = np.asarray(values, np.float64)
    made = made - made.mean(0)
    spread = made.std(0)
    alive = spread > 1e-7 * np.maximum(np.abs(np.asarray(values)).max(0), 1e-30)
    return np.where(alive, made / np.where(alive, spread, 1.0), 0.0), alive


def same_layers(a: Side, b: Side) -> bool:
    """Whether both networks have the same layers with as many channels."""
    shapes = [{name: values.shape[1] for name, values in side.layers.items()} for side in (a, b)]
    return bool(shapes[0]) and shapes[0] == shapes[1]


def compare_units(a: Side, b: Side, similarity: F64, layers: int = 4) -> Units:
    """Units that are new in B or lost from A, and who is whose partner.

    Args:
        a: before.
        b: after.
        similarity: CKA of A's layers and B's.
        layers: layers of each that are judged, spread over the depth; the one before the class scores among them.
    """
    found = Units(dead=(_dead(a), _dead(b)))
    if not a.layers or not b.layers:
        return found
    rows = np.argsort(np.array(a.pictures.keys), kind="stable")[:MOST_PICTURES]
    if len(rows) < len(a):
        found.notes.append(f"Units are judged on {len(rows):,} of the pictures.")
    rows = np.sort(rows)
    half = halves([a.pictures.keys[i] for i in rows], [a.pictures.labels[i] for i in rows])
    for which, (one, other, table) in enumerate(((b, a, similarity.T), (a, b, similarity))):
        judged: list[Unit] = []
        names, others = list(one.layers), list(other.layers)
        for place in _places(names, one.unit_layer, layers):
            source = others.index(names[place]) if same_layers(a, b) else _partner(table[place])
            if source is None:
                continue
            target = one.layers[names[place]][rows]
            r2 = ridge_r2(other.layers[others[source]][rows], target, half)
            clear = _answers(target)
            judged += [
                Unit(f"{names[place]}:{channel}", float(r2[channel]), names[place], channel, others[source], place)
                for channel in range(len(r2))
                if np.isfinite(r2[channel]) and clear[channel]
            ]
        found.every[which].extend(judged)
    found.new = sorted((one for one in found.every[0] if one.r2 < NEW), key=lambda one: one.r2)
    found.lost = sorted((one for one in found.every[1] if one.r2 < NEW), key=lambda one: one.r2)
    if same_layers(a, b):
        found.matches = [LayerMatch(name, *match(a.layers[name], b.layers[name])) for name in a.layers]
        _weights(a, b, found.matches)
    return found


def leading(units: list[Unit], most: int) -> list[Unit]:
    """The least predictable units of every layer in turn, the deepest layer first.

    How well units can be predicted differs from layer to layer: one list of all would show one layer.
    """
    by_layer: dict[str, list[Unit]] = {}
    for unit in units:
        by_layer.setdefault(unit.layer, []).append(unit)
    order = sorted(by_layer.values(), key=lambda listed: -listed[0].depth)
    found = [listed[rank] for rank in range(most) for listed in order if rank < len(listed)][:most]
    return sorted(found, key=lambda one: (-one.depth, one.r2))


def _partner(values: F64) -> int | None:
    filled = np.where(np.isfinite(values), values, -np.inf)
    return int(filled.argmax()) if np.isfinite(filled).any() else None


def _places(names: list[str], last: str | None, most: int) -> list[int]:
    """Places of ``most`` layers spread over the depth up to the last one that is judged."""
    end = names.index(last) if last in names else len(names) - 1
    return sorted({int(place) for place in np.round(np.linspace(end, 0, most + 1)[:-1])})


def _answers(values: F32) -> NDArray[np.bool_]:
    """Units that answer more than a few pictures: of others no half could tell whether they are predicted."""
    low, high = values.min(0), values.max(0)
    strong = (values > low + 0.1 * (high - low)).sum(0)
    return np.asarray(strong >= max(5, RARE * len(values)))


def _dead(side: Side) -> dict[str, int]:
    return {name: int((np.ptp(values, axis=0) == 0).sum()) for name, values in side.layers.items()}


def _weights(a: Side, b: Side, matches: list[LayerMatch]) -> None:
    """How far each layer's weights moved: those of the last convolution or linear layer before it that makes its
    channels."""
    if a.open is None or b.open is None:
        return
    model = a.open()
    first, second = dict(model.module.state_dict()), dict(b.open().module.state_dict())
    size = model.preprocessing.size or (224, 224)
    ran = list(model.watched((model.preprocessing.channels, *model._depth(), *size)).layers)
    for one in matches:
        before = ran[: ran.index(one.layer) + 1] if one.layer in ran else []
        kernels = (f"{name.split('#')[0]}.weight" for name in reversed(before))
        name = next(
            (n for n in kernels if _makes(first.get(n), len(one.to)) and _makes(second.get(n), len(one.to))), ""
        )
        if not name or first[name].shape != second[name].shape:
            continue
        old, new = first[name].double().cpu(), second[name].double().cpu()
        norm = float(old.norm()) or 1.0
        one.drift = float((new - old).norm()) / norm
        one.matched_drift = float((new[torch.from_numpy(one.to)] - old).norm()) / norm


def _makes(kernel: Any, channels: int) -> bool:
    return isinstance(kernel, torch.Tensor) and kernel.ndim >= 2 and len(kernel) == channels

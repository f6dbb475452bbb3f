"""Network dissection: which labelled part or thing a unit's activations lie on, measured on pictures held out.

Bau, Zhou, Khosla, Oliva, Torralba 2017, "Network Dissection: Quantifying Interpretability of Deep Visual
Representations". What differs from the paper, and why: maps are raised at the cells' true centres; the threshold of
a unit is chosen on one half of the pictures and the overlap is measured on the other, with an interval; and a pair
counts only where it beats the same masks laid on other pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import LayerError, PictureError, UsageError
from ..improve.collection import Labelled
from ..improve.look import batches
from ..improve.statistics import LEVEL, halves
from ..methods.base import Query
from ..session import forward, protected
from ..targets.units import no_such_layer
from .chance import FEW, Exchange
from .truth import Mask, Truth, on_input, overlap, read_truth

if TYPE_CHECKING:
    from ..models.model import Model
    from ..surveys.store.store import Store

#: shares of a unit's cells above its threshold that are tried, close together, since a detector's overlap cannot be
#: larger than the ratio of its area to the concept's; the paper's share is 0.005
QUANTILES = tuple(0.0005 * 2 ** (step / 2) for step in range(17))
PUBLISHED = 0.005
#: a picture's map is compared at most at so many pixels a side
SIDE = 112
#: cells drawn for the thresholds, of all pictures together
CELLS = 60_000
DRAWS = 400

Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class Dissected:
    """A unit and a concept that its map overlaps more than chance does.

    Args:
        unit: ``layer:channel``.
        concept: the part or thing.
        iou: intersection over union on the held-out half, over all its pixels (0..1).
        low: lower end of its 95 % interval over pictures.
        high: upper end.
        chance: the overlap's 95 % point where each picture is given another picture's masks.
        threshold: the activation above which the unit counts as on.
        pictures: where the unit lies on the concept most, the best first.
    """

    unit: str
    concept: str
    iou: float
    low: float
    high: float
    chance: float
    threshold: float
    pictures: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The row as ``--json`` prints it."""
        return {"unit": self.unit, "concept": self.concept, "iou": self.iou, "low": self.low, "high": self.high}

    def __str__(self) -> str:
        return f"{self.unit} {self.concept} detector, IoU {self.iou:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(eq=False)
class Dissection:
    """All pairs found, the best first, and what was looked at."""

    rows: list[Dissected]
    units: int
    concepts: tuple[str, ...]
    pictures: int
    doubts: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> list[dict[str, Any]]:
        """The rows as plain data."""
        return [row.to_dict() for row in self.rows]

    def record(self) -> dict[str, Any]:
        """What the page reads: the rows with what chance reaches and their pictures, and what was looked at."""
        rows = [
            {**row.to_dict(), "chance": row.chance, "threshold": row.threshold, "pictures": list(row.pictures)}
            for row in self.rows
        ]
        return {"rows": rows, "units": self.units, "concepts": list(self.concepts), "pictures": self.pictures,
                "doubts": list(self.doubts)}  # fmt: skip

    def of(self, unit: str) -> list[Dissected]:
        """What one unit stands for: several things, one, or none."""
        return [row for row in self.rows if row.unit == unit]

    def __repr__(self) -> str:
        best = f"; best: {self.rows[0]}" if self.rows else ""
        return f"Dissection({self.units} units × {len(self.concepts)} concepts, {len(self.rows)} pairs{best})"


def dissect(
    store: Store | Model,
    pictures: Any = None,
    *,
    masks: Any = None,
    parts: Any = None,
    layers: Sequence[str] = (),
    threshold: str = "best",
    seed: int = 0,
    progress: Tell | None = None,
) -> Dissection:
    """Hold every unit of ``layers`` against every labelled part.

    Args:
        store: a survey's store (its pictures are used), or a model.
        pictures: with a model, what to look at: a folder, files.
        masks: a COCO JSON file, or a folder of label maps.
        parts: a folder as ``convoscope toybox`` writes it.
        layers: default, with a store, all that were surveyed; with a model the last grid.
        threshold: ``best`` chooses each pair's threshold on one half of the pictures; ``published`` is the paper's,
            the activation that 0.5 % of a unit's cells exceed.
        seed: of the halves and of the intervals.
        progress: called with what is done and of how much: pictures, counted anew for each layer.

    Returns:
        pairs whose interval lies above what masks of other pictures reach, the best first; a unit may be several
        things, or none.

    Raises:
        UsageError: no picture has truth, or a setting does not fit.
        LayerError: a layer has no grid.
    """
    if threshold not in ("best", "published"):
        raise UsageError(f"threshold must be best or published, not {threshold!r}.")
    truth = read_truth(masks, parts)
    model, listed, names = _what(store, pictures, layers)
    broken = {uri: why for uri, why in listed.broken.items() if Path(uri).stem in truth.known}
    known = [row for row, uri in enumerate(listed.uris) if uri not in broken and truth.masks(uri) is not None]
    if not known:
        raise UsageError(
            f"No picture has a mask in {truth.source}: masks are matched by file name "
            f"({', '.join(sorted(truth.known)[:2])}, ...; the pictures are {', '.join(listed.uris[:1])}, ...)."
        )
    pictures_known = listed.take(known)
    half_a = halves(pictures_known.keys, seed=seed)
    if min(half_a.sum(), (~half_a).sum()) < FEW:
        raise UsageError(
            f"Only {len(known)} of {len(listed)} pictures have masks in {truth.source}: too few to choose thresholds "
            f"on one half and to measure on the other; about {4 * FEW} are needed."
        )
    shares = (PUBLISHED,) if threshold == "published" else QUANTILES
    listed_broken = len(broken)
    result = Dissection([], 0, truth.names, len(known), failed=broken)
    if len(known) < 4 * FEW:
        result.doubts.append(f"Only {len(known)} pictures have masks: hardly anything can be shown on so few.")
    for at, layer in enumerate(names):
        tell = None if progress is None else _Told(progress, at * len(known), len(names) * len(known))
        _one_layer(model, layer, pictures_known, half_a, truth, shares, seed, result, tell)
    result.pictures -= len(result.failed) - listed_broken
    result.doubts += left_out(result.failed)
    result.rows.sort(key=lambda row: -row.iou)
    return result


@dataclass(eq=False)
class _Told:
    """Progress over all layers and both halves, so that the time that is left can be told."""

    progress: Tell
    done: int
    total: int

    def one(self) -> None:
        """One picture of one layer more."""
        self.done += 1
        self.progress(self.done, self.total)


def _what(store: Any, pictures: Any, layers: Sequence[str]) -> tuple[Model, Labelled, list[str]]:
    from ..surveys.store.store import Store

    if isinstance(store, Store):
        model: Model = store.model()
        given = store if pictures is None else pictures
        surveyed = [span.name for span in store.recipe.layers if span.grid]
        return model, Labelled.of(given, model), list(layers) or surveyed
    if pictures is None:
        raise UsageError("Give pictures to look at, or the store of a survey.")
    last = store.watched().last_grid
    if not layers and last is None:
        raise LayerError(f"{store.name} has no layer whose cells keep a place in the picture: nothing to dissect.")
    return store, Labelled.of(pictures, store), list(layers) or [str(last)]


def _one_layer(
    model: Model, layer: str, pictures: Labelled, half_a: NDArray[np.bool_], truth: Truth, shares: Sequence[float],
    seed: int, result: Dissection, progress: _Told | None,
) -> None:  # fmt: skip
    names = truth.names
    first, second = pictures.take(half_a), pictures.take(~half_a)
    thresholds = _thresholds(model, layer, first, shares, seed)
    failed = result.failed
    counted = _counts(model, layer, first, truth, thresholds, failed, progress)
    inter_a, on_a, size_a, present = _summed(one for _, one in counted)
    union_a = on_a[:, :, None] + size_a[None, None] - inter_a
    best = overlap(inter_a, union_a).argmax(1)  # [C, M]
    exchange = Exchange(second, truth, thresholds, best)
    channels = np.arange(len(thresholds))
    pick = best[:, :, None]
    rows: list[int] = []  # of the second half, without those that cannot be read
    chosen = []
    for at, one in _counts(model, layer, second, truth, thresholds, failed, progress, exchange):
        rows.append(at)
        chosen.append((
            np.take_along_axis(one.inter.transpose(0, 2, 1), pick, 2)[:, :, 0].astype(np.float32),
            one.on[channels[:, None], best].astype(np.float32),
            one.size,
        ))  # fmt: skip
    inter = np.stack([one[0] for one in chosen])  # [N, C, M]
    on = np.stack([one[1] for one in chosen])
    size = np.stack([one[2] for one in chosen])  # [N, M]
    here = (size > 0).sum(0)
    enough = (here >= FEW) & (present >= FEW)
    iou = overlap(inter.sum(0), on.sum(0) + size.sum(0) - inter.sum(0))
    low, high = _intervals(inter, on, size, seed)
    chance = exchange.reaches(on, seed)
    result.units += len(thresholds)
    keep = enough[None, :] & (low > np.maximum(chance, 1e-12)) & (iou > 0)
    for channel, at in zip(*np.nonzero(keep), strict=True):
        shown = overlap(inter[:, channel, at], on[:, channel, at] + size[:, at] - inter[:, channel, at])
        order = [int(row) for row in np.argsort(-shown, kind="stable")[:9] if shown[row] > 0]
        result.rows.append(
            Dissected(
                f"{layer}:{channel}", names[at], float(iou[channel, at]), float(low[channel, at]),
                float(high[channel, at]), float(chance[channel, at]), float(thresholds[channel, best[channel, at]]),
                tuple(second.uris[rows[row]] for row in order),
            )
        )  # fmt: skip


def _thresholds(
    model: Model, layer: str, pictures: Labelled, shares: Sequence[float], seed: int
) -> NDArray[np.float32]:
    """The activation that each of ``shares`` of a unit's cells exceed, ``[C, T]``; cells are drawn of every picture."""
    random = np.random.default_rng([seed, 2])
    drawn: list[NDArray[np.float32]] = []
    for _, planes, _ in grids_of(model, layer, pictures):
        cells = planes.flatten(2).transpose(1, 2).numpy()  # [B, cells, C]
        for one in cells:
            drawn.append(one[random.permutation(len(one))[: max(CELLS // len(pictures), 16)]])
    values = np.concatenate(drawn)
    return np.ascontiguousarray(np.quantile(values, 1 - np.asarray(shares), axis=0).T, dtype=np.float32)


@dataclass(eq=False)
class _Counts:
    """Of one picture, in pixels: where unit and concept are both on ``[C, T, M]``, the unit ``[C, T]``, the concept."""

    inter: NDArray[np.float64]
    on: NDArray[np.float64]
    size: NDArray[np.float64]


def grids_of(
    model: Model, layer: str, pictures: Labelled, failed: dict[str, str] | None = None
) -> Iterator[tuple[list[int], Tensor, Query]]:
    """Batches of a layer's activations as ``[B, C, h, w]``, with what raises them to pixels.

    Pictures that cannot be read are written into ``failed``. Raises :class:`PictureError` where none can.
    """
    failed = {} if failed is None else failed
    read = False
    for rows, inputs in batches(model, pictures, failed):
        read = True
        kept: list[Tensor] = []

        def visit(name: str, output: Tensor, kept: list[Tensor] = kept) -> None:
            kept.append(output.detach().float().clone())

        watched = model.watched(tuple(inputs.shape[1:]))
        if layer not in watched.layers:
            raise LayerError(no_such_layer(layer, list(watched.layers)))
        with protected(model, visit, {layer}):
            forward(model, inputs)
        if not kept:
            raise LayerError(f"Layer {layer!r} was not reached in this forward: choose another.")
        query = Query(model, inputs, [], watched)
        planes = query.planes(layer, kept[0]).cpu()
        if planes.shape[-1] * planes.shape[-2] == 1:
            raise LayerError(
                f"Layer {layer!r} has one cell for the whole picture, and so no place: choose one with a grid."
            )
        yield rows, planes, query
    if not read:
        reason = next(iter(failed.values()), "there is none")
        raise PictureError(f"None of the {len(pictures)} pictures can be used: {reason}")


def left_out(failed: Mapping[str, str]) -> list[str]:
    """The doubt that pictures could not be read; none where all could."""
    if not failed:
        return []
    one = f"One picture could not be read and is left out: {next(iter(failed))}."
    return [one if len(failed) == 1 else f"{len(failed)} pictures could not be read and are left out."]


def _counts(
    model: Model, layer: str, pictures: Labelled, truth: Truth, thresholds: NDArray[np.float32],
    failed: dict[str, str], progress: _Told | None, exchange: Exchange | None = None,
) -> Iterator[tuple[int, _Counts]]:  # fmt: skip
    for rows, planes, query in grids_of(model, layer, pictures, failed):
        for row, grid in zip(rows, planes, strict=True):
            masks = _masks(model, pictures, row, truth, query)
            values = _at_places(query.resample(grid, layer)[0], query)
            yield row, _count(values, masks, thresholds)
            if exchange is not None:
                exchange.add(row, values, masks)
            if progress is not None:
                progress.one()


def _at_places(raised: Tensor, query: Query) -> Tensor:
    """``[C, H, W]`` at the pixels that are compared, ``[C, pixels]``."""
    rows, cols = _places(query)
    if (len(rows), len(cols)) == tuple(raised.shape[1:]):
        return raised.flatten(1)
    return raised[:, torch.from_numpy(rows)][:, :, torch.from_numpy(cols)].flatten(1)


def _places(query: Query) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    height, width = query.size
    step = max(1, -(-max(height, width) // SIDE))
    return np.arange(step // 2, height, step), np.arange(step // 2, width, step)


def _masks(model: Model, pictures: Labelled, row: int, truth: Truth, query: Query) -> NDArray[np.float32]:
    """The concepts' masks at the pixels that are compared, float32 ``[pixels, M]``."""
    known: Any = truth.masks(pictures.uris[row]) or {}
    rows, cols = _places(query)
    matrix = model.prepare(pictures.picture(row)).input_to_photo
    found = np.zeros((len(rows) * len(cols), len(truth.names)), np.float32)
    for at, name in enumerate(truth.names):
        mask: Mask | None = known.get(name)
        if mask is not None:
            found[:, at] = on_input(mask, matrix, rows, cols).reshape(-1)
    return found


def _count(values: Tensor, masks: NDArray[np.float32], thresholds: NDArray[np.float32]) -> _Counts:
    levels = torch.from_numpy(thresholds)
    size = masks.sum(0).astype(np.float64)
    inter = np.zeros((len(values), thresholds.shape[1], masks.shape[1]))
    for name in np.flatnonzero(size):  # most concepts are not on most pictures, and cover little of the others
        there = values[:, torch.from_numpy(np.flatnonzero(masks[:, name]))]
        for at in range(thresholds.shape[1]):
            inter[:, at, name] = (there > levels[:, at : at + 1]).sum(1).numpy()
    on = torch.stack([(values > levels[:, at : at + 1]).sum(1) for at in range(thresholds.shape[1])], 1)
    return _Counts(inter, on.double().numpy(), size)


def _summed(counts: Iterable[_Counts]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    inter: Any = 0.0
    on: Any = 0.0
    size: Any = 0.0
    present: Any = 0
    for one in counts:
        inter, on, size, present = inter + one.inter, on + one.on, size + one.size, present + (one.size > 0)
    return inter, on, size, present


def _intervals(
    inter: NDArray[Any], on: NDArray[Any], size: NDArray[Any], seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bootstrap over pictures of the overlap ``[C, M]``: 2.5 and 97.5 percentiles."""
    random = np.random.default_rng(seed)
    count = len(inter)
    weights = random.multinomial(count, np.full(count, 1 / count), size=DRAWS).astype(np.float64)  # [D, N]
    flat = inter.reshape(count, -1)
    union = on + size[:, None, :] - inter
    low = np.empty(flat.shape[1])
    high = np.empty(flat.shape[1])
    other = union.reshape(count, -1)
    for start in range(0, flat.shape[1], 4096):
        part = slice(start, start + 4096)
        drawn = overlap(weights @ flat[:, part], weights @ other[:, part])
        low[part], high[part] = np.quantile(drawn, [LEVEL / 2, 1 - LEVEL / 2], axis=0)
    return low.reshape(inter.shape[1:]), high.reshape(inter.shape[1:])

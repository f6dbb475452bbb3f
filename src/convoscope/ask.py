"""Live questions about one picture, each one forward: what is predicted, what a mask or a switched-off unit changes.

These are what a person tries by hand before asking for a map; the page calls them while a mask is dragged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .engine.passes.needs import INPUT
from .engine.passes.runner import Recorded, Runner, call_plainly
from .engine.passes.untouched import untouched
from .errors import LayerError, ModelError, TargetError, UsageError
from .methods.base import Query
from .methods.fills import fill_for
from .models.model import Model, forward_failed
from .models.outputs import dense, detections
from .pictures.picture import ModelInput, Picture
from .targets.classes import Scorer, TargetLike, UnitScorer, logits, parse_unit, resolve
from .targets.defaults import found as found_in
from .targets.grammar import parse
from .targets.landmarks import landmark_names


@dataclass(eq=False)
class Reading:
    """What the network makes of one picture.

    ``classes`` are rows of ``index``, ``label``, ``score``, ``probability``, best first; for detectors and segmenters
    rows with a ``box`` (input pixels) or a ``share`` of the picture, for landmark networks rows with a ``point`` (x,
    y in input pixels). Each has the ``target`` that names it. ``score`` and ``probability`` are the asked target's.
    """

    kind: str
    classes: list[dict[str, Any]]
    target: str | None = None
    score: float | None = None
    probability: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return dict(vars(self))


@dataclass(eq=False)
class Change:
    """The same reading of a picture before and after something was taken away."""

    before: Reading
    after: Reading
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def drop(self) -> float | None:
        """By how much the target's score fell."""
        if self.before.score is None or self.after.score is None:
            return None
        return self.before.score - self.after.score

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "drop": self.drop,
            "facts": self.facts,
        }


def read(
    model: Model, picture: Any, target: TargetLike = None, against: TargetLike = None, *, count: int = 10
) -> Reading:
    """The network's answer to one picture, and the score of ``target`` (``None``: the predicted class).

    ``count`` classes at most. Raises :class:`ModelError`, :class:`TargetError`, :class:`PictureError`.
    """
    fitted = model.prepare(Picture.of(picture))
    with _Bench(model, fitted, target) as bench:
        recorded = bench.run(model.inputs([fitted]))
        scorer = bench.scorer(recorded, target, against)
        return bench.reading(recorded, scorer, count)


def cover(
    model: Model,
    picture: Any,
    box: tuple[int, int, int, int],
    target: TargetLike = None,
    against: TargetLike = None,
    *,
    fill: str = "mean",
    count: int = 10,
) -> Change:
    """What covering ``box`` (x0, y0, x1, y1 in input pixels, half-open) changes: one window of occlusion.

    ``fill`` is that of :class:`~convoscope.methods.Occlusion`. The target is fixed before anything is covered. Raises
    :class:`UsageError` where the box lies outside the input.
    """
    fitted = model.prepare(Picture.of(picture))
    inputs = model.inputs([fitted])
    height, width = int(inputs.shape[-2]), int(inputs.shape[-1])
    x0, y0, x1, y1 = (max(0, box[0]), max(0, box[1]), min(width, box[2]), min(height, box[3]))
    if x0 >= x1 or y0 >= y1:
        raise UsageError(f"The mask {box} covers no pixel of the network's input of {width}×{height} pixels.")
    query = Query(model, inputs, [fitted], model.watched(tuple(inputs.shape[1:])))
    covered = inputs.clone()
    covered[..., y0:y1, x0:x1] = fill_for(query, fill).to(inputs)[..., y0:y1, x0:x1]
    with _Bench(model, fitted, target) as bench:
        whole = bench.run(inputs)
        scorer = bench.scorer(whole, target, against)
        before = bench.reading(whole, scorer, count)
        after = bench.reading(bench.run(covered), scorer, count)
    return Change(before, after, {"box": [x0, y0, x1, y1], "fill": fill})


def switch_off(
    model: Model,
    picture: Any,
    units: Sequence[str],
    target: TargetLike = None,
    against: TargetLike = None,
    *,
    count: int = 10,
) -> Change:
    """What the prediction becomes with ``units`` (``layer:channel``) set to zero everywhere: ablation.

    A single neuron (``layer:channel@row,col``) is set to zero alone. Raises :class:`LayerError` for what is no unit
    of the network.
    """
    if not units:
        raise UsageError("Name a unit to switch off, as layer:channel.")
    fitted = model.prepare(Picture.of(picture))
    inputs = model.inputs([fitted])
    by_layer: dict[str, list[UnitScorer]] = {}
    for text in units:
        unit = parse_unit(text, model)
        if unit is None:
            raise LayerError(f"{text!r} is no unit: write layer:channel, such as conv1:0.")
        by_layer.setdefault(unit.layer, []).append(unit)
    watched = model.watched(tuple(inputs.shape[1:]))
    for layer, listed in by_layer.items():
        _check_channels(watched.layers[layer].shape, layer, listed)
    replace = {layer: _zero(listed) for layer, listed in by_layer.items()}
    with _Bench(model, fitted, target) as bench:
        whole = bench.run(inputs)
        scorer = bench.scorer(whole, target, against)
        before = bench.reading(whole, scorer, count)
        after = bench.reading(bench.run(inputs, replace), scorer, count)
    return Change(before, after, {"units": list(units)})


def _check_channels(shape: tuple[int, ...], layer: str, units: list[UnitScorer]) -> None:
    last = units[0].channels_last and len(shape) == 4
    have = shape[-1] if last else shape[1] if len(shape) > 1 else 0
    grid = shape[1:3] if last else shape[2:]
    for unit in units:
        if unit.channel >= have:
            raise LayerError(
                f"Layer {layer} has {have} channels (0 to {have - 1}): there is no channel {unit.channel}."
            )
        if unit.place is not None and (len(grid) != 2 or unit.place[0] >= grid[0] or unit.place[1] >= grid[1]):
            raise LayerError(f"Layer {layer} has no neuron at row {unit.place[0]}, column {unit.place[1]}.")


def _zero(units: list[UnitScorer]) -> Callable[[Tensor], Tensor]:
    def replace(output: Tensor) -> Tensor:
        new = output.clone()
        for unit in units:
            planes = new.movedim(-1, 1) if unit.channels_last and new.ndim == 4 else new
            if unit.place is None:
                planes[:, unit.channel] = 0
            else:
                planes[:, unit.channel, unit.place[0], unit.place[1]] = 0
        return new

    return replace


class _Bench:
    """The network, protected, with one picture on it."""

    def __init__(self, model: Model, fitted: ModelInput, target: TargetLike) -> None:
        self.model, self.fitted = model, fitted
        self.runner = Runner(model.module, model.batch_size, call_plainly if model.call is None else model.call)
        # a structured target such as instance:0 may look like a unit, and is none
        text = target if isinstance(target, str) and parse(target, model) is None else None
        unit = None if text is None else parse_unit(text, model)
        self.layers = () if unit is None else unit.layers
        self._guard = untouched(model.module, gradients=False)

    def __enter__(self) -> _Bench:
        self._guard.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._guard.__exit__(*error)

    def run(self, inputs: Tensor, replace: dict[str, Callable[[Tensor], Tensor]] | None = None) -> Recorded:
        try:
            return self.runner.record(inputs, layers=self.layers, gradients=False, replace=replace)
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            raise ModelError(forward_failed(self.model, inputs.shape[1:], error)) from error

    def scorer(self, recorded: Recorded, target: TargetLike, against: TargetLike) -> Scorer:
        return resolve(target, self.model, recorded.output, [self.fitted], against)

    def reading(self, recorded: Recorded, scorer: Scorer, count: int) -> Reading:
        kind, classes = answers(self.model, recorded.output, self.fitted, count)
        rows = torch.zeros(1, dtype=torch.long)
        live = {name: layer for name, layer in recorded.live().items() if name != INPUT}
        score = float(scorer.score(recorded.output, live, rows).detach().float()[0])
        try:
            probability: float | None = float(scorer.probability(recorded.output, live, rows).float()[0])
        except TargetError:
            probability = None
        return Reading(kind, classes, scorer.labels[0], score, probability)


def answers(model: Model, output: Any, fitted: ModelInput, count: int = 10) -> tuple[str, list[dict[str, Any]]]:
    """What kind of network gave ``output`` for one picture, and its answers, each with the target that names it.

    Kinds are ``classifier``, ``detector``, ``segmenter``, ``landmarks`` and ``other``.
    """
    size = (int(fitted.tensor.shape[-2]), int(fitted.tensor.shape[-1]))
    try:
        values = logits(output).detach().float().cpu()[0]
    except TargetError:
        return _structured(model, output, size, count)
    shares = values.softmax(0) if len(values) > 1 else values.sigmoid()
    order = values.nan_to_num(nan=-torch.inf).topk(min(count, len(values))).indices.tolist()
    return "classifier", [
        {
            "index": c,
            "label": model.label(c),
            "score": float(values[c]),
            "probability": float(shares[c]),
            "target": str(c),
        }
        for c in order
    ]


def _structured(model: Model, output: Any, size: tuple[int, int], count: int) -> tuple[str, list[dict[str, Any]]]:
    items = detections(output, size)
    rows = (found_in(model, output, 1, size) or [[]])[0][:count]
    if items is not None:
        return "detector", [{**row, "target": f"instance:{rank}"} for rank, row in enumerate(rows)]
    maps = dense(output)
    if maps is None:
        return "other", []
    if rows:
        return "segmenter", [{**row, "target": f"segment:{row['label']}"} for row in rows]
    return "landmarks", _landmarks(model, maps.detach().float().cpu(), size, count)


def _landmarks(model: Model, maps: Tensor, size: tuple[int, int], count: int) -> list[dict[str, Any]]:
    names = landmark_names(model)
    height, width = maps.shape[-2:]
    found = []
    for index in range(min(count, maps.shape[1])):
        peak = int(maps[0, index].argmax())
        x, y = (peak % width + 0.5) * size[1] / width - 0.5, (peak // width + 0.5) * size[0] / height - 0.5
        label = names[index] if names and index < len(names) else str(index)
        value = float(maps[0, index].flatten()[peak])
        row = {"index": index, "label": label, "score": value, "probability": None, "point": [x, y]}
        found.append({**row, "target": f"landmark:{index}"})
    return found


__all__ = ["Change", "Reading", "answers", "cover", "read", "switch_off"]

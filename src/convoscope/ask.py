"""Live questions about one picture, each one forward: what is predicted, what a mask or a switched-off unit changes.

These are what a person tries by hand before asking for a map; the page calls them while a mask is dragged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .engine.fields.layout import Layout
from .engine.passes.runner import Recorded
from .errors import LayerError, UsageError
from .methods.base import Query
from .methods.fills import fill_for
from .models.model import Model
from .pictures.picture import Picture
from .session import Session
from .targets import Scorer, TargetLike, Unit, parse
from .targets.units import layer_of, parse_unit

if TYPE_CHECKING:
    from .engine.fields.watch import Layer


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
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**vars(self), "notes": list(self.notes)}


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
    asked = parse(target, model, against)
    with Session(model, [model.prepare(Picture.of(picture))], gradients=False) as session:
        recorded = session.record(layers=asked.layers(model))
        return _reading(session, recorded, session.resolve(asked, recorded.output), count)


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
    asked = parse(target, model, against)
    session = Session(model, [model.prepare(Picture.of(picture))], gradients=False)
    inputs = session.batch
    height, width = int(inputs.shape[-2]), int(inputs.shape[-1])
    x0, y0, x1, y1 = (max(0, box[0]), max(0, box[1]), min(width, box[2]), min(height, box[3]))
    if x0 >= x1 or y0 >= y1:
        raise UsageError(f"The mask {box} covers no pixel of the network's input of {width}×{height} pixels.")
    query = Query(model, inputs, session.pictures, model.watched(tuple(inputs.shape[1:])))
    covered = inputs.clone()
    covered[..., y0:y1, x0:x1] = fill_for(query, fill).to(inputs)[..., y0:y1, x0:x1]
    with session:
        whole = session.record(layers=asked.layers(model))
        scorer = session.resolve(asked, whole.output)
        before = _reading(session, whole, scorer, count)
        after = _reading(session, session.record(covered, layers=scorer.layers), scorer, count)
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
    asked = parse(target, model, against)
    session = Session(model, [model.prepare(Picture.of(picture))], gradients=False)
    by_layer: dict[str, list[Unit]] = {}
    for text in units:
        unit = parse_unit(text, model)
        if unit is None:
            raise LayerError(f"{text!r} is no unit: write layer:channel, such as conv1:0.")
        by_layer.setdefault(unit.layer, []).append(unit)
    watched = model.watched(tuple(session.batch.shape[1:]))
    replace = {}
    for layer, listed in by_layer.items():
        info = layer_of(watched, layer)
        _check_channels(info, listed)
        replace[layer] = _zero(listed, info.layout)
    with session:
        whole = session.record(layers=asked.layers(model))
        scorer = session.resolve(asked, whole.output)
        before = _reading(session, whole, scorer, count)
        after = _reading(session, session.record(layers=scorer.layers, replace=replace), scorer, count)
    return Change(before, after, {"units": list(units)})


def _check_channels(info: Layer, units: list[Unit]) -> None:
    layer, have, grid = info.name, info.channels, info.grid
    for unit in units:
        if unit.channel >= have:
            raise LayerError(
                f"Layer {layer} has {have} channels (0 to {have - 1}): there is no channel {unit.channel}."
            )
        if unit.place is not None and (grid is None or unit.place[0] >= grid[0] or unit.place[1] >= grid[1]):
            raise LayerError(f"Layer {layer} has no neuron at row {unit.place[0]}, column {unit.place[1]}.")


def _zero(units: list[Unit], layout: Layout) -> Callable[[Tensor], Tensor]:
    def replace(output: Tensor) -> Tensor:
        new = output.clone()
        for unit in units:
            axis = layout.axis(new.ndim)
            one = new.select(axis, unit.channel)  # a view: [B], [B, rows, columns] or [B, tokens]
            if unit.place is None:
                one.zero_()
            elif one.ndim == 2 and layout.cells is not None:
                one[:, (layout.prefix_tokens or 0) + unit.place[0] * layout.cells[1] + unit.place[1]] = 0
            else:
                one[:, unit.place[0], unit.place[1]] = 0
        return new

    return replace


def _reading(session: Session, recorded: Recorded, scorer: Scorer, count: int) -> Reading:
    said = session.predictions(recorded.output, count)
    score, chance = session.scored(scorer, recorded)
    probability = None if chance is None or not bool(chance.isfinite().all()) else float(chance[0])
    return Reading(said.kind, said.rows[0], scorer.labels[0], float(score[0]), probability, said.notes)


__all__ = ["Change", "Reading", "cover", "read", "switch_off"]

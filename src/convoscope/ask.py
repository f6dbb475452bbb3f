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
    from .engine.fields.trace import Layer


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
    off: Sequence[str] = (),
    count: int = 10,
) -> Change:
    """What covering ``box`` (x0, y0, x1, y1 in input pixels, half-open) changes: one window of occlusion.

    ``fill`` is that of :class:`~convoscope.methods.Occlusion`. Units that are ``off`` (``layer:channel``) are zero
    before and after. The target is fixed before anything is covered or switched off. Raises :class:`UsageError` where
    the box lies outside the input, :class:`LayerError` for what is no unit.
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
    replace = _switches(model, session, off)
    with session:
        whole = session.record(layers=asked.layers(model))
        scorer = session.resolve(asked, whole.output)
        uncovered = session.record(layers=scorer.layers, replace=replace) if replace else whole
        before = _reading(session, uncovered, scorer, count)
        after = _reading(session, session.record(covered, layers=scorer.layers, replace=replace), scorer, count)
    return Change(before, after, {"box": [x0, y0, x1, y1], "fill": fill, "units": list(off)})


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
    replace = _switches(model, session, units)
    with session:
        whole = session.record(layers=asked.layers(model))
        scorer = session.resolve(asked, whole.output)
        before = _reading(session, whole, scorer, count)
        after = _reading(session, session.record(layers=scorer.layers, replace=replace), scorer, count)
    return Change(before, after, {"units": list(units)})


def _switches(model: Model, session: Session, units: Sequence[str]) -> dict[str, Callable[[Tensor], Tensor]]:
    """By layer, what sets its units among ``units`` to zero. Raises :class:`LayerError`."""
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
    return replace


@dataclass(eq=False)
class Pasted:
    """A piece of one picture put onto another, with an equally large piece from elsewhere as its control.

    ``take`` and ``control_take`` are (x0, y0) of the pieces in the source, ``put`` is where they went, all in input
    pixels; ``side`` is their width and height. ``target`` is the class that the network sees in the source.
    """

    before: Reading
    after: Reading
    control: Reading
    target: str
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def flipped(self) -> bool:
        """Whether the piece made the picture the source's class, which it was not before."""
        return _best(self.after) == self.target != _best(self.before)

    @property
    def control_flipped(self) -> bool:
        """Whether the other piece did."""
        return _best(self.control) == self.target != _best(self.before)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "before": self.before.to_dict(), "after": self.after.to_dict(), "control": self.control.to_dict(),
            "target": self.target, "flipped": self.flipped, "control_flipped": self.control_flipped,
            "facts": self.facts,
        }  # fmt: skip


def _best(reading: Reading) -> str | None:
    return str(reading.classes[0]["label"]) if reading.classes else None


def paste(
    model: Model,
    source: Any,
    onto: Any,
    take: tuple[int, int],
    put: tuple[int, int],
    side: int,
    *,
    target: TargetLike = None,
    count: int = 5,
) -> Pasted:
    """Cut a square out of ``source``, put it onto ``onto``, and ask the network again: a patch transplant by hand.

    Everything happens in the network's input, as :func:`convoscope.shortcuts` does it. The control is the square of
    the source that lies farthest from ``take``, at the same place: only what the piece does beyond it tells anything.

    Args:
        model: a classifier, left as it was.
        source: the picture that the piece is cut from.
        onto: the picture that it is put onto.
        take: x and y of the piece's first pixel in the source's input.
        put: x and y of where it goes; brought inside where it reaches over the edge, like ``take``.
        side: width and height in input pixels.
        target: the class that is watched; default what the network sees in ``source``.
        count: classes that are listed.

    Returns:
        the receiving picture's reading before, after, and with the control.

    Raises:
        UsageError: inputs of different sizes, or a side that the input cannot hold.
    """
    fitted = [model.prepare(Picture.of(one)) for one in (source, onto)]
    if fitted[0].tensor.shape != fitted[1].tensor.shape:
        raise UsageError(
            "The two pictures make inputs of different sizes: a piece can only go from one input to an equal one."
        )
    session = Session(model, fitted, gradients=False)
    inputs = session.batch
    height, width = int(inputs.shape[-2]), int(inputs.shape[-1])
    if not 1 <= side <= min(height, width):
        raise UsageError(f"A piece of {side} pixels does not fit: the network's input is {width}×{height} pixels.")
    x, y = (min(max(0, value), limit - side) for value, limit in zip(take, (width, height), strict=True))
    to_x, to_y = (min(max(0, value), limit - side) for value, limit in zip(put, (width, height), strict=True))
    away = max(
        ((left, top) for left in (0, width - side) for top in (0, height - side)),
        key=lambda corner: (corner[0] - x) ** 2 + (corner[1] - y) ** 2,
    )
    made = inputs[[0, 1, 1, 1]].clone()
    for row, (left, top) in ((2, (x, y)), (3, away)):
        made[row, ..., to_y : to_y + side, to_x : to_x + side] = inputs[0, ..., top : top + side, left : left + side]
    four = Session(model, [fitted[0], fitted[1], fitted[1], fitted[1]], gradients=False)
    with four:
        recorded = four.record(made)
        said = four.predictions(recorded.output, count)
        if target is None:
            label = str(said.rows[0][0]["label"]) if said.rows[0] else ""
        else:
            label = four.resolve(parse(target, model), recorded.output).labels[0]
    readings = [Reading(said.kind, rows, label, notes=said.notes) for rows in said.rows]
    return Pasted(
        readings[1], readings[2], readings[3], label,
        {"take": [x, y], "put": [to_x, to_y], "control_take": list(away), "side": side, "source": _best(readings[0])},
    )  # fmt: skip


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


__all__ = ["Change", "Pasted", "Reading", "cover", "paste", "read", "switch_off"]

"""Units as targets: a channel of a layer, or one neuron of it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..engine.fields.layout import PLAIN, Layout
from ..errors import LayerError, TargetError
from .base import Scorer, Target

if TYPE_CHECKING:
    from ..engine.fields.trace import Layer, NetworkTrace
    from ..engine.passes.runner import Runner
    from ..models.model import Model

_UNIT = re.compile(r"(?P<layer>.+):(?P<channel>\d+)(@(?:(?P<reduce>max|mean)|(?P<row>\d+)\s*,\s*(?P<col>\d+)))?")


@dataclass(frozen=True)
class Unit(Target):
    """A channel of a layer: its mean over the grid (``reduce="max"``: its maximum), or the neuron at ``place``.

    Written ``layer:channel``, ``layer:channel@max``, ``layer:channel@row,column``.
    """

    layer: str
    channel: int
    reduce: str = "mean"
    place: tuple[int, int] | None = None

    def layers(self, model: Model) -> tuple[str, ...]:
        return (self.layer,)

    def files(self) -> tuple[Path, ...]:
        return ()

    def key(self) -> str:
        where = f"@{self.place[0]},{self.place[1]}" if self.place else "@max" if self.reduce == "max" else ""
        return f"{self.layer}:{self.channel}{where}"

    def resolve(self, model: Model, output: Any, pictures: Sequence[Any], runner: Runner) -> UnitScorer:
        info = layer_of(trace_for(model, pictures), self.layer)
        return UnitScorer(
            self.layer, self.channel, (self.key(),) * len(pictures), self.reduce, self.place, info.layout
        )


@dataclass(eq=False)
class UnitScorer(Scorer):
    """See :class:`Unit`."""

    layer: str
    channel: int
    labels: tuple[str, ...]
    reduce: str = "mean"
    place: tuple[int, int] | None = None
    layout: Layout = PLAIN

    @property
    def layers(self) -> tuple[str, ...]:
        return (self.layer,)

    def score(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        values = self.layout.planes(layers[self.layer])
        if values.ndim < 2 or self.channel >= values.shape[1]:
            raise TargetError(
                f"Layer {self.layer} has {values.shape[1] if values.ndim > 1 else 0} channels (0 to "
                f"{values.shape[1] - 1 if values.ndim > 1 else 0}): there is no channel {self.channel}."
            )
        one = values[:, self.channel]
        if self.place is not None:
            row, col = self.place
            if one.ndim != 3 or row >= one.shape[1] or col >= one.shape[2]:
                grid = "×".join(map(str, one.shape[1:])) or "no"
                raise TargetError(f"Layer {self.layer} has a {grid} grid: there is no neuron at {row},{col}.")
            return one[:, row, col]
        flat = one.flatten(1) if one.ndim > 1 else one[:, None]
        return flat.amax(1) if self.reduce == "max" else flat.mean(1)

    def probability(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        raise TargetError(f"A unit ({self.labels[0]}) has no probability: use score=logit.")


def parse_unit(text: str, model: Model) -> Unit | None:
    """``layer:channel``, ``layer:channel@max`` or ``layer:channel@row,col``; ``None`` where it is no unit.

    A class name that looks like one wins.
    """
    if model.labels is not None and text in model.labels:
        return None
    found = _UNIT.fullmatch(text.strip())
    if found is None:
        return None
    place = (int(found["row"]), int(found["col"])) if found["row"] else None
    return Unit(found["layer"], int(found["channel"]), found["reduce"] or "mean", place)


def trace_for(model: Model, pictures: Sequence[Any]) -> NetworkTrace:
    """What was watched of the network at the pictures' own size."""
    return model.watched(tuple(pictures[0].tensor.shape) if pictures else None)


def layer_of(trace: NetworkTrace, name: str) -> Layer:
    """The layer of that name. Raises :class:`LayerError` with the nearest names."""
    if name not in trace.layers:
        raise LayerError(no_such_layer(name, list(trace.layers)))
    return trace.layers[name]


def no_such_layer(name: str, names: Sequence[str]) -> str:
    """The sentence for a wrong layer name, with the nearest ones."""
    near = difflib.get_close_matches(name, names, 3, 0.4) or list(names[-3:])
    return f"There is no layer {name!r}. Nearest: {', '.join(near)}. `convoscope layers` lists all."

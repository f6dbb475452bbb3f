"""Units as targets: a channel of a layer, or one neuron of it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..errors import LayerError, TargetError
from .base import Scorer, Target

if TYPE_CHECKING:
    from ..engine.fields.watch import Layer, NetworkTrace
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
        cells = info.geometry.cells if info.before is not None and info.geometry is not None else None
        return UnitScorer(
            self.layer, self.channel, (self.key(),) * len(pictures), self.reduce, self.place,
            info.channels_last, info.before, cells,
        )  # fmt: skip


@dataclass(eq=False)
class UnitScorer(Scorer):
    """See :class:`Unit`."""

    layer: str
    channel: int
    labels: tuple[str, ...]
    reduce: str = "mean"
    place: tuple[int, int] | None = None
    channels_last: bool = False
    before: int | None = None
    cells: tuple[int, int] | None = None

    def channels_first(self, values: Tensor) -> Tensor:
        """The layer's output with its channels on axis 1."""
        return channels_first(values, self.channels_last, self.before, self.cells)

    @property
    def layers(self) -> tuple[str, ...]:
        return (self.layer,)

    def score(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        values = self.channels_first(layers[self.layer])
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


def channels_first(values: Tensor, channels_last: bool, before: int | None, cells: tuple[int, int] | None) -> Tensor:
    """A layer's output with its channels on axis 1, whatever its layout.

    Args:
        values: ``[B, C]``, ``[B, C, H, W]``, ``[B, H, W, C]``, or tokens ``[B, T, C]``.
        channels_last: a grid is ``[B, H, W, C]``.
        before: of tokens that hold a grid, the class and register tokens before it, which are left out.
        cells: rows and columns of that grid.

    Returns:
        ``[B, C]`` or ``[B, C, H, W]``; what is neither comes back as it is.
    """
    if values.ndim == 3 and before is not None and cells is not None:
        return values[:, before:].transpose(1, 2).reshape(len(values), -1, *cells)
    return values.movedim(-1, 1) if values.ndim == 4 and channels_last else values


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

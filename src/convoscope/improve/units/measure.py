"""One pass over pictures: what every hidden unit did, and what every batch norm was given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...engine.passes.naming import module_paths
from ...errors import PictureError
from ...models.model import Model
from ...session import forward, protected
from ...surveys.gather.choose import default_layers
from ..collection import Labelled
from ..look import batches

Floats = NDArray[np.float64]
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
#: activations with two ends; a unit at an end passes no gradient
_BOUNDED = ("sigmoid", "tanh", "hardtanh", "relu6", "hardsigmoid", "softsign")
#: cells of a picture that correlations are taken over
_CELLS = 64
#: share of cells above 0 from which a ReLU never cuts
ON = 0.995
#: channels above which no correlations are taken
_MOST = 1024


@dataclass(eq=False)
class LayerSeen:
    """What the units of one layer did on all pictures: arrays with one entry a unit.

    ``high``, ``low``: largest and smallest value; ``mean``, ``variance``: over all cells; ``active``: share of cells
    above 0; ``ends``: share of cells at an end of a bounded activation; ``correlation``: ``[C, C]``, or None.
    """

    layer: str
    kind: str
    relu: bool
    pictures: int
    high: Floats
    low: Floats
    mean: Floats
    variance: Floats
    active: Floats
    ends: Floats
    correlation: Floats | None

    @property
    def dead(self) -> NDArray[np.bool_]:
        """0 in every cell of every picture."""
        return np.asarray((self.high == 0) & (self.low == 0))

    @property
    def constant(self) -> NDArray[np.bool_]:
        """The same value, not 0, wherever one looks (to a ten-thousandth)."""
        size = np.maximum(np.abs(self.high), np.abs(self.low))
        return np.asarray(~self.dead & (self.high - self.low <= 1e-4 * size))

    @property
    def always_on(self) -> NDArray[np.bool_]:
        """A ReLU that never cuts: above 0 in 99.5 % of all cells, so that the unit is linear."""
        return np.asarray((self.active >= ON) & self.relu)

    @property
    def saturated(self) -> NDArray[np.bool_]:
        """At an end of a bounded activation in at least 95 % of the cells, and not dead."""
        return np.asarray((self.ends >= 0.95) & ~self.dead)

    def alike(self, least: float = 0.95) -> list[tuple[int, int, float]]:
        """Pairs of units with |r| above ``least``: each unit beside the one before it that it is most like."""
        if self.correlation is None:
            return []
        r = np.tril(np.nan_to_num(self.correlation), -1)
        r[self.dead | self.constant] = 0
        r[:, self.dead | self.constant] = 0
        best = np.abs(r).argmax(1)
        pairs = [(unit, int(at), float(r[unit, at])) for unit, at in enumerate(best)]
        return [pair for pair in pairs if abs(pair[2]) > least]


@dataclass(eq=False)
class NormSeen:
    """A batch norm layer: what it remembers, and what it was given here; arrays with one entry a channel."""

    layer: str
    running_mean: Floats
    running_variance: Floats
    mean: Floats
    variance: Floats

    @property
    def divergence(self) -> Floats:
        """KL(observed || remembered) of normal distributions, in nats, a channel."""
        remembered = np.maximum(self.running_variance, 1e-12)
        seen = np.maximum(self.variance, 1e-12)
        return np.asarray(
            0.5
            * (seen / remembered + (self.mean - self.running_mean) ** 2 / remembered - 1 - np.log(seen / remembered))
        )


@dataclass(eq=False)
class Seen:
    """What :func:`measure` saw."""

    layers: list[LayerSeen]
    norms: list[NormSeen]
    rows: list[int] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


class _Sums:
    """Running sums of one layer's channels."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.cells = 0
        self.high = torch.full((channels,), -torch.inf, dtype=torch.float64)
        self.low = torch.full((channels,), torch.inf, dtype=torch.float64)
        self.sum = torch.zeros(channels, dtype=torch.float64)
        self.square = torch.zeros(channels, dtype=torch.float64)
        self.active = torch.zeros(channels, dtype=torch.float64)
        self.ends = torch.zeros(channels, dtype=torch.float64)
        self.some = 0
        self.gram = torch.zeros(channels, channels, dtype=torch.float64) if channels <= _MOST else None
        self.some_sum = torch.zeros(channels, dtype=torch.float64)

    def add(self, value: Tensor, ends: tuple[float, float] | None) -> None:
        """``value`` is ``[B, C, cells]``."""
        self.count += value.shape[0]
        self.cells += value.shape[0] * value.shape[2]
        self.high = torch.maximum(self.high, value.amax((0, 2)).double().cpu())
        self.low = torch.minimum(self.low, value.amin((0, 2)).double().cpu())
        self.sum += value.sum((0, 2), dtype=torch.float64).cpu()
        self.square += value.double().pow(2).sum((0, 2)).cpu()
        self.active += (value > 0).sum((0, 2)).double().cpu()
        if ends is not None:
            span = 1e-3 * (ends[1] - ends[0])
            at = (value <= ends[0] + span) | (value >= ends[1] - span)
            self.ends += at.sum((0, 2)).double().cpu()
        if self.gram is not None:
            step = max(1, -(-value.shape[2] // _CELLS))
            some = value[:, :, ::step].transpose(0, 1).flatten(1).double().cpu()
            self.some += some.shape[1]
            self.some_sum += some.sum(1)
            self.gram += some @ some.T

    def correlation(self) -> Floats | None:
        if self.gram is None or self.some < 3:
            return None
        mean = self.some_sum / self.some
        covariance = self.gram / self.some - mean[:, None] * mean[None]
        deviation = covariance.diagonal().clamp(min=0).sqrt()
        # what is lost to cancellation is no variation
        deviation[deviation < 1e-6 * (mean.abs() + 1e-12)] = torch.nan
        return np.asarray((covariance / deviation[:, None] / deviation[None]).numpy())


def measure(model: Model, pictures: Labelled, progress: Callable[[int, int], None] | None = None) -> Seen:
    """Look at every activation and every batch norm while ``pictures`` go through the network once.

    Args:
        model: left bit for bit as it was.
        pictures: labels are not needed.
        progress: called with the number of pictures done, and of all.

    Raises:
        ModelError: the network cannot run on these pictures.
        PictureError: not one picture can be read.
    """
    shape = (model.preprocessing.channels, *(model.preprocessing.size or (224, 224)))
    watched = model.watched(shape if model.preprocessing.frames is None else None)
    names = [
        name
        for name in default_layers(model, tuple(watched.input_shape[1:]))
        if len(watched.layers[name].shape) in (2, 4)
    ]
    layers = {name: watched.layers[name] for name in names}
    sums: dict[str, _Sums] = {}
    norms: dict[str, _Sums] = {}
    paths = module_paths(model.module)
    normal = {name: module for name, module in paths.items()
              if isinstance(module, _NORMS) and module.running_mean is not None}  # fmt: skip

    def visit(name: str, output: Tensor) -> None:
        if output.dim() not in (2, 3, 4):
            return
        value = output.detach()
        value = layers[name].layout.planes(value)
        value = value.float().flatten(2) if value.dim() > 2 else value.float()[:, :, None]
        if name not in sums:
            sums[name] = _Sums(value.shape[1])
        sums[name].add(value, _ends(layers[name].kind))

    def given(name: str) -> Callable[..., None]:
        def look(module: nn.Module, args: tuple[Any, ...]) -> None:
            if args and isinstance(args[0], Tensor):
                value = (
                    args[0].detach().float().flatten(2) if args[0].dim() > 2 else args[0].detach().float()[:, :, None]
                )
                if name not in norms:
                    norms[name] = _Sums(value.shape[1])
                    norms[name].gram = None
                norms[name].add(value, None)

        return look

    failed: dict[str, str] = {}
    rows: list[int] = []
    handles = [module.register_forward_pre_hook(given(name)) for name, module in normal.items()]
    try:
        for at, inputs in batches(model, pictures, failed):
            with protected(model, visit, names):
                forward(model, inputs)
            rows.extend(at)
            if progress is not None:
                progress(at[-1] + 1, len(pictures))
    finally:
        for handle in handles:
            handle.remove()
    if not rows:
        reason = next(iter(failed.values()), "there is none")
        raise PictureError(f"None of the {len(pictures)} pictures can be used: {reason}")
    return Seen(
        [_layer(layers[name].name, layers[name].kind, sums[name]) for name in names if name in sums],
        [_norm(name, normal[name], one) for name, one in norms.items()],
        rows, failed,
    )  # fmt: skip


def _ends(kind: str) -> tuple[float, float] | None:
    word = kind.lower().replace("_", "")
    if word not in _BOUNDED:
        return None
    return {"sigmoid": (0.0, 1.0), "hardsigmoid": (0.0, 1.0), "relu6": (0.0, 6.0)}.get(word, (-1.0, 1.0))


def _layer(name: str, kind: str, sums: _Sums) -> LayerSeen:
    mean = sums.sum / sums.cells
    relu = "relu" in kind.lower() and kind.lower() not in ("leakyrelu", "prelu", "leaky_relu", "rrelu")
    return LayerSeen(
        name, kind, relu, sums.count, sums.high.numpy(), sums.low.numpy(), mean.numpy(),
        (sums.square / sums.cells - mean**2).clamp(min=0).numpy(), (sums.active / sums.cells).numpy(),
        (sums.ends / sums.cells).numpy(), sums.correlation(),
    )  # fmt: skip


def _norm(name: str, module: Any, sums: _Sums) -> NormSeen:
    mean = sums.sum / sums.cells
    return NormSeen(
        name, module.running_mean.detach().double().cpu().numpy(), module.running_var.detach().double().cpu().numpy(),
        mean.numpy(), (sums.square / sums.cells - mean**2).clamp(min=0).numpy(),
    )  # fmt: skip

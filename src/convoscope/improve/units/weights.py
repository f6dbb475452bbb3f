"""What the weights alone tell: layers never trained, batch norm that switches units off, the first filters."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

Floats = NDArray[np.float64]

#: below so many weights nothing can be told
FEW = 300
#: a layer counts as trained where its initial distribution is this unlikely
TRAINED = 0.01
_DRAWS = 199
#: rows and columns of a large layer that are looked at
_BLOCK = 128
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@dataclass(frozen=True)
class Initial:
    """Whether a layer's weights could still be what they were before training.

    ``p`` is the smallest p, corrected for the number of tests, of: the distribution (Kolmogorov & Smirnov), the
    largest singular value, the spread of the rows' and of the columns' norms, the likeness of neighbouring taps.
    """

    layer: str
    weights: int
    distribution: str
    p: float

    @property
    def untrained(self) -> bool:
        return self.p >= TRAINED

    def to_dict(self) -> dict[str, Any]:
        return {"layer": self.layer, "weights": self.weights, "distribution": self.distribution, "p": self.p,
                "untrained": self.untrained}  # fmt: skip


def initial_layers(network: nn.Module, seed: int = 0) -> list[Initial]:
    """Every convolution and linear layer of at least 300 weights, held against the usual initial distributions.

    Those of PyTorch (uniform within 1/sqrt(fan in)), Glorot & Bengio 2010, He et al. 2015, and normal ones of
    deviation 0.01 and 0.02. A trained layer fails at least one of the six tests; one that was never trained passes
    all of them in 99 % of the cases.
    """
    found = []
    for name, module in network.named_modules():
        if isinstance(module, _WEIGHTED) and isinstance(module.weight, Tensor) and module.weight.numel() >= FEW:
            weight = module.weight.detach().double().cpu()
            if bool(torch.isfinite(weight).all()) and float(weight.std()) > 0:
                found.append(_initial(name, weight, seed))
    return found


def _initial(name: str, weight: Tensor, seed: int) -> Initial:
    flat = weight.flatten().numpy()
    best, p = "", 0.0
    draw: Callable[[np.random.Generator, int], Floats] | None = None
    for title, cdf, sample in _distributions(weight):
        # a uniform distribution has an end that training crosses at once
        beyond = bool((np.asarray(cdf(np.array([flat.min(), flat.max()]) * (1 - 1e-6))) % 1 == 0).any())
        one = 0.0 if beyond else float(stats.kstest(flat, cdf).pvalue)
        if one > p:
            best, p, draw = title, one, sample
    if draw is None or p < TRAINED / 6:
        return Initial(name, len(flat), best, min(1.0, 6 * p))
    random = np.random.default_rng(seed)
    weight = weight[:_BLOCK, :_BLOCK]  # of a large layer a block tells enough
    count = _DRAWS if weight.numel() < 10_000 else 49
    real = _figures(weight)
    drawn = np.array(
        [_figures(torch.from_numpy(draw(random, weight.numel())).reshape(weight.shape)) for _ in range(count)]
    )
    # a few hundred draws give no p of a thousandth: their spread is taken for normal (of logarithms, where positive)
    spread = drawn.std(0, ddof=1)
    z = np.where(spread > 0, (real - drawn.mean(0)) / np.where(spread > 0, spread, 1), 0.0)
    sides = 2 * stats.t.sf(np.abs(z) / math.sqrt(1 + 1 / count), count - 1)
    return Initial(name, len(flat), best, float(min(1.0, 6 * min(p, *sides))))


def _distributions(weight: Tensor) -> list[tuple[str, Any, Callable[[np.random.Generator, int], Floats]]]:
    kernel = math.prod(weight.shape[2:])
    fan_in, fan_out = weight.shape[1] * kernel, weight.shape[0] * kernel

    def uniform(bound: float) -> tuple[Any, Callable[[np.random.Generator, int], Floats]]:
        return stats.uniform(-bound, 2 * bound).cdf, lambda random, count: random.uniform(-bound, bound, count)

    def normal(deviation: float) -> tuple[Any, Callable[[np.random.Generator, int], Floats]]:
        return stats.norm(0, deviation).cdf, lambda random, count: random.normal(0, deviation, count)

    named = [
        ("uniform within 1/√fan-in", uniform(1 / math.sqrt(fan_in))),
        ("He's uniform, fan-in", uniform(math.sqrt(6 / fan_in))),
        ("He's uniform, fan-out", uniform(math.sqrt(6 / fan_out))),
        ("Glorot's uniform", uniform(math.sqrt(6 / (fan_in + fan_out)))),
        ("He's normal, fan-in", normal(math.sqrt(2 / fan_in))),
        ("He's normal, fan-out", normal(math.sqrt(2 / fan_out))),
        ("Glorot's normal", normal(math.sqrt(2 / (fan_in + fan_out)))),
        ("LeCun's normal", normal(math.sqrt(1 / fan_in))),
        ("normal of 0.01", normal(0.01)), ("normal of 0.02", normal(0.02)), ("normal of 0.001", normal(0.001)),
    ]  # fmt: skip
    return [(title, *made) for title, made in named]


def _figures(weight: Tensor) -> Floats:
    """Largest singular value, spread of rows' norms, of columns' norms, likeness of taps, weight of the tails."""
    matrix = weight.flatten(1)
    rows = matrix.norm(dim=1).clamp(min=1e-12).log().std(unbiased=False)
    columns = weight.transpose(0, 1).flatten(1).norm(dim=1).clamp(min=1e-12).log().std(unbiased=False)
    taps = 0.0
    if weight.dim() == 4 and weight.shape[-1] > 1:
        taps = float((weight[..., 1:] * weight[..., :-1]).mean() / weight.pow(2).mean())
    side = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    top = torch.linalg.eigvalsh(side @ side.T)[-1].clamp(min=1e-12).log()
    tails = weight.pow(4).mean() / weight.pow(2).mean() ** 2
    return np.array([float(top), float(rows), float(columns), taps, float(tails.log())])


@dataclass(frozen=True)
class Switched:
    """A batch norm layer, and its channels whose gamma is next to zero: what comes in there goes nowhere."""

    layer: str
    channels: tuple[int, ...]
    of: int

    def to_dict(self) -> dict[str, Any]:
        return {"layer": self.layer, "channels": list(self.channels), "of": self.of}


def switched_off(network: nn.Module, share: float = 1e-3) -> list[Switched]:
    """Batch norm layers with |gamma| below ``share`` of the layer's median."""
    found = []
    for name, module in network.named_modules():
        if isinstance(module, _NORMS) and isinstance(module.weight, Tensor):
            gamma = module.weight.detach().double().abs().cpu()
            low = gamma <= share * float(gamma.median()) if float(gamma.median()) > 0 else gamma == 0
            if bool(low.any()):
                found.append(Switched(name, tuple(int(i) for i in low.nonzero()[:, 0]), len(gamma)))
    return found


@dataclass(frozen=True, eq=False)
class Filters:
    """What the filters of the first convolution respond to.

    Args:
        layer: its name.
        frequency: of each filter's peak, in cycles a pixel (0.5 is Nyquist's), ``[F]``.
        orientation: of the peak in degrees, 0 for vertical stripes, -90..90, ``[F]``.
        energy: sum of squares of each filter, ``[F]``.
        bands: energy of all filters in low, middle and high thirds of 0..0.5, shares that sum to 1.
        alias: share of all filters' energy above the Nyquist frequency of the stride, 1 / (2 · stride).
        usual_alias: the same of a filter of white noise: what no preference would give.
        stride: (rows, columns).
    """

    layer: str
    frequency: Floats
    orientation: Floats
    energy: Floats
    bands: tuple[float, float, float]
    alias: float
    usual_alias: float
    stride: tuple[int, int]
    kernel: tuple[int, int]

    @property
    def middle_gap(self) -> bool:
        """Whether the middle third holds less than half of what the rarer of the two others holds per frequency."""
        low, middle, high = self.bands
        return middle < 0.5 * min(low, high)

    def to_dict(self) -> dict[str, Any]:
        return {
            "layer": self.layer, "kernel": list(self.kernel), "stride": list(self.stride),
            "bands": {"low": self.bands[0], "middle": self.bands[1], "high": self.bands[2]},
            "middle_gap": self.middle_gap, "alias": self.alias, "usual_alias": self.usual_alias,
            "frequency": self.frequency.tolist(), "orientation": self.orientation.tolist(),
            "energy": self.energy.tolist(),
        }  # fmt: skip


def first_filters(network: nn.Module) -> Filters | None:
    """Frequency, orientation and energy of the first convolution's filters; None without one of at least 3×3.

    Zeiler & Fergus (2014) found AlexNet's first layer without middle frequencies and its second full of aliasing from
    the stride of 4, and gained by 7×7 filters with a stride of 2.
    """
    kinds = ((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
    name, module = next(kinds, ("", None))
    if module is None or min(module.kernel_size) < 3:
        return None
    weight = module.weight.detach().double().cpu().numpy()
    side = 32
    spectrum = (np.abs(np.fft.fft2(weight, (side, side))) ** 2).sum(1)  # over the input channels
    fy, fx = np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side), indexing="ij")
    radius = np.hypot(fy, fx)
    flat = spectrum.reshape(len(weight), -1)
    at = flat.argmax(1)
    angle = np.degrees(np.arctan2(fy.ravel()[at], fx.ravel()[at]))
    angle = (angle + 90) % 180 - 90
    inside = radius <= 0.5
    edges = (radius < 1 / 6, (radius >= 1 / 6) & (radius < 1 / 3), (radius >= 1 / 3) & inside)
    mean = spectrum / np.maximum(spectrum.sum((1, 2), keepdims=True), 1e-30)  # every filter counts alike
    total = mean.sum(0)
    # per unit of frequency, so that a ring's size does not count
    density = np.array([total[where].mean() for where in edges])
    low, middle, high = (density / density.sum()).tolist()
    stride = (int(module.stride[0]), int(module.stride[1]))
    beyond = (np.abs(fy) > 0.5 / stride[0] + 1e-9) | (np.abs(fx) > 0.5 / stride[1] + 1e-9)
    alias = float(total[beyond].sum() / total.sum())
    return Filters(
        name, radius.ravel()[at], angle, (weight**2).sum((1, 2, 3)), (low, middle, high), alias,
        float(beyond.mean()), stride, (int(module.kernel_size[0]), int(module.kernel_size[1])),
    )  # fmt: skip

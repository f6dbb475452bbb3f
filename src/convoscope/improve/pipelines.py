"""Ways in which a picture may have become a network's input, and what batch norm remembers of the right one.

Batch norm keeps the mean and variance of its input over training. Pictures given as in training reproduce them;
pictures given otherwise do not, from the first layer on (the idea of AdaBN, Li et al. 2017, read backwards). So no
label is needed to hold one pipeline against another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch import Tensor, nn

from ..errors import ModelError, PictureError, UsageError
from ..models.model import Model
from ..pictures.picture import Picture, Preprocessing
from ..session import forward, protected
from ..surveys.gather.work import class_scores
from .collection import Labelled

Floats = NDArray[np.float64]

#: families of normalisation in use: name -> (mean, std) of values in 0..1, three channels
FAMILIES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "ImageNet's mean and std": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "values in 0..1": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "values in -1..1": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "values in 0..255": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
    "0..255 less ImageNet's mean": ((0.485, 0.456, 0.406), (1 / 255, 1 / 255, 1 / 255)),
    "CIFAR-10's mean and std": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "CLIP's mean and std": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}

#: sides that networks are trained at
SIDES = (28, 32, 48, 64, 96, 112, 128, 160, 192, 224, 240, 256, 288, 299, 320, 384, 448, 512)

#: what scores a candidate is held against: KL below this factor of the given one's is a difference
FACTOR = 2.0


@dataclass(frozen=True)
class Pipeline:
    """One way from a picture to the input.

    Args:
        name: what is different from the pipeline given, in words.
        preprocessing: size, fit, interpolation, mean and std.
        bgr: whether the channels go in as blue, green, red.
        group: ``given``, ``colour``, ``values``, ``fitted`` or ``geometry``.
    """

    name: str
    preprocessing: Preprocessing
    bgr: bool = False
    group: str = "given"

    def input(self, picture: Picture) -> Tensor:
        """The network's input ``[C, H, W]``. Raises :class:`PictureError`."""
        order = picture.prepare(replace(self.preprocessing, mean=self._zero, std=self._one)).tensor
        return self.preprocessing.normalise(order.flip(0) if self.bgr else order)

    @property
    def geometry(self) -> Preprocessing:
        """The way to the size alone: equal for pipelines whose resized pictures are the same."""
        return replace(self.preprocessing, mean=self._zero, std=self._one)

    @property
    def _zero(self) -> tuple[float, ...]:
        return (0.0,) * self.preprocessing.channels

    @property
    def _one(self) -> tuple[float, ...]:
        return (1.0,) * self.preprocessing.channels


@dataclass(frozen=True, eq=False)
class Tried:
    """What came of one pipeline on some pictures.

    Args:
        pipeline: what was tried.
        scores: float64 ``[N, K]``; None where the network gives none.
        moments: for each batch norm, the mean and mean square of its input by picture: ``[N, 2, C]``.
        rows: the pictures it was tried on: those asked for but for what could not be read.
    """

    pipeline: Pipeline
    scores: Floats | None
    moments: tuple[Floats, ...]
    rows: NDArray[np.intp]

    @property
    def chance(self) -> Floats:
        """Softmax of the scores ``[N, K]``."""
        assert self.scores is not None
        raised = np.exp(self.scores - self.scores.max(1, keepdims=True))
        return np.asarray(raised / raised.sum(1, keepdims=True))


def values(given: Preprocessing) -> list[Pipeline]:
    """The other normalisations and the other order of channels, for a network of three channels."""
    found: list[Pipeline] = []
    if given.channels != 3:
        for name, (mean, std) in FAMILIES.items():
            wide, spread = (mean[0],) * given.channels, (std[0],) * given.channels
            if name.startswith("values") and not _same(given, wide, spread):
                found.append(Pipeline(name, replace(given, mean=wide, std=spread), False, "values"))
        return found
    found.append(Pipeline("channels in the order BGR", given, True, "colour"))
    for name, (mean, std) in FAMILIES.items():
        if not _same(given, mean, std):
            found.append(Pipeline(name, replace(given, mean=mean, std=std), False, "values"))
            found.append(
                Pipeline(f"{name}, in the order BGR", replace(given, mean=mean[::-1], std=std[::-1]), True, "values")
            )
    return found


def geometries(given: Preprocessing, own: Sequence[tuple[int, int]]) -> list[Pipeline]:
    """Other sizes, ways of fitting and of resampling.

    Args:
        given: the pipeline as it is.
        own: height and width of some of the pictures.
    """
    if given.size is None or given.frames is not None:
        return []
    height, width = given.size
    found: list[Pipeline] = []
    plain = set(own)
    resampled = any(one != given.size for one in plain)
    crop = given.resize if given.resize is not None else round(min(given.size) / 0.875)
    if any(one[0] != one[1] for one in plain) or resampled:
        for fit in ("squash", "crop", "pad"):
            if fit != given.fit:
                found.append(Pipeline(f"fitted by {fit}", replace(given, fit=fit, resize=None), False, "geometry"))  # type: ignore[arg-type]
    if given.fit == "squash" and not resampled:
        found.append(
            Pipeline("the middle 87.5 % of the picture", replace(given, fit="crop", resize=None), False, "geometry")
        )
    if given.fit == "crop" and crop > min(given.size):
        whole = replace(given, resize=min(given.size))
        found.append(Pipeline("a crop of the whole short side", whole, False, "geometry"))
    if resampled:
        for mode in ("nearest", "bilinear", "bicubic"):
            if mode != given.interpolation:
                found.append(Pipeline(f"resized by {mode}", replace(given, interpolation=mode), False, "geometry"))
    if height == width:
        sides = [side for side in SIDES if side != height and height / 2.1 <= side <= height * 2.1]
        common = {side for one in plain for side in one if one[0] == one[1]}
        sides = sorted(
            {*_nearest(sides, height), *(s for s in common if s != height and height / 4 < s < height * 2.1)}
        )
        for side in sides:
            resize = None if given.resize is None else max(side, round(given.resize * side / height))
            other = replace(given, size=(side, side), resize=resize)
            found.append(Pipeline(f"{side}×{side} pixels", other, False, "geometry"))
    return found


def _nearest(sides: Sequence[int], side: int, most: int = 6) -> list[int]:
    return sorted(sides, key=lambda one: abs(np.log(one / side)))[:most]


def _same(given: Preprocessing, mean: Sequence[float], std: Sequence[float]) -> bool:
    return bool(np.allclose(given.mean, mean, atol=2e-3) and np.allclose(given.std, std, rtol=0.01))


def norms(model: Model) -> list[tuple[str, nn.Module]]:
    """The batch norms of a network that remember a mean and a variance, by name."""
    return [
        (name, module) for name, module in model.module.named_modules()
        if isinstance(getattr(module, "running_mean", None), Tensor)
        and isinstance(getattr(module, "running_var", None), Tensor)
    ]  # fmt: skip


def attempt(
    model: Model,
    pictures: Labelled,
    pipeline: Pipeline,
    rows: NDArray[Any],
    cache: dict[Any, Tensor] | None = None,
    mirror: bool = False,
    tell: Callable[[int], None] | None = None,
) -> Tried:
    """Run the network over ``rows`` of ``pictures`` by one pipeline.

    Args:
        cache: keeps resized pictures between pipelines of one geometry, where the pictures are few.
        mirror: left and right changed.
        tell: called with how many are done.

    Returns:
        what came of the pictures that can be read; ``rows`` says which they are.

    Raises:
        ModelError: the network cannot run on such an input.
        PictureError: not one picture can be read.
    """
    layers = norms(model)
    seen: dict[int, list[Tensor]] = {at: [] for at in range(len(layers))}
    scores: list[Floats] = []
    moments: list[list[Floats]] = [[] for _ in layers]

    dtype = model.dtype if model.dtype.is_floating_point else torch.float32

    def hook(at: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def see(module: nn.Module, args: tuple[Any, ...]) -> None:
            if args and isinstance(args[0], Tensor) and args[0].ndim >= 2 and not seen[at]:
                flat = (
                    args[0].detach().float().flatten(2) if args[0].ndim > 2 else args[0].detach().float()[:, :, None]
                )
                seen[at] = [flat.mean(2), flat.square().mean(2)]

        return see

    order: list[int] = []
    why = "there is none"
    with protected(model), ThreadPoolExecutor(2) as pool:
        handles = [module.register_forward_pre_hook(hook(at)) for at, (_, module) in enumerate(layers)]
        try:
            for start in range(0, len(rows), model.batch_size):
                places = range(start, min(start + model.batch_size, len(rows)))
                fit = partial(_read, pictures, pipeline, cache, mirror)
                asked = list(pool.map(fit, (int(rows[at]) for at in places)))
                why = next((one for one in asked if isinstance(one, str)), why)
                ready = {at: one for at, one in enumerate(asked) if isinstance(one, Tensor)}
                for part in _of_one_shape(ready):
                    inputs = torch.stack([ready[at] for at in part]).to(model.device, dtype)
                    found = class_scores(model, forward(model, inputs), len(part))
                    if found is not None:
                        scores.append(found[:, 0].double().numpy())
                    for at in seen:
                        if seen[at] and len(seen[at][0]) == len(part):
                            moments[at].append(torch.stack(seen[at], 1).double().cpu().numpy())
                        seen[at] = []
                    order += [start + at for at in part]
                    if tell is not None:
                        tell(len(order))
        finally:
            for handle in handles:
                handle.remove()
    if not order:
        raise PictureError(f"None of the {len(rows)} pictures can be used: {why}")
    back = np.argsort(order)
    whole = [
        np.concatenate(parts)[back] if sum(map(len, parts)) == len(order) else np.zeros((0, 2, 0))
        for parts in moments
    ]
    all_scores = np.concatenate(scores) if scores and sum(map(len, scores)) == len(order) else None
    kept = np.asarray(rows, np.intp)[np.sort(order)]
    return Tried(pipeline, None if all_scores is None else all_scores[back], tuple(whole), kept)


def _read(
    pictures: Labelled, pipeline: Pipeline, cache: dict[Any, Tensor] | None, mirror: bool, row: int
) -> Tensor | str:
    """The input, or why the picture cannot be read: it may be gone since it was first looked at."""
    try:
        return _fitted(pictures, pipeline, row, cache, mirror)
    except (PictureError, OSError) as error:
        return str(error)


def _of_one_shape(ready: Mapping[int, Tensor]) -> list[list[int]]:
    groups: dict[tuple[int, ...], list[int]] = {}
    for at, one in ready.items():
        groups.setdefault(tuple(one.shape), []).append(at)
    return list(groups.values())


def _fitted(
    pictures: Labelled, pipeline: Pipeline, row: int, cache: dict[Any, Tensor] | None, mirror: bool
) -> Tensor:
    geometry = pipeline.geometry
    key = (row, geometry)
    plain = None if cache is None else cache.get(key)
    if plain is None:
        plain = pictures.picture(row).prepare(geometry).tensor
        if cache is not None:
            cache[key] = plain
    ordered = plain.flip(0) if pipeline.bgr else plain
    return pipeline.preprocessing.normalise(ordered.flip(-1) if mirror else ordered)


def remembered(model: Model) -> list[tuple[Floats, Floats]]:
    """Mean and variance that each batch norm of :func:`norms` remembers."""
    return [
        (
            np.asarray(module.running_mean.detach().double().cpu().numpy()),  # type: ignore[operator, union-attr]
            np.asarray(module.running_var.detach().double().cpu().numpy() + float(getattr(module, "eps", 1e-5))),  # type: ignore[operator, union-attr]
        )
        for _, module in norms(model)
    ]


def divergence(tried: Tried, memory: Sequence[tuple[Floats, Floats]]) -> float:
    """How far the pictures are from what batch norm remembers: the median over layers of the mean over channels of
    KL(observed || remembered), both taken as Gaussians. 0 is as in training; NaN where nothing can be compared.

    Args:
        tried: the moments.
        memory: of :func:`remembered`.
    """
    found = [layer_divergence(*layer) for layer in _pairs(tried, memory)]
    return float(np.median(found)) if found else float("nan")


def divergences(tried: Tried, memory: Sequence[tuple[Floats, Floats]], weights: Floats) -> Floats:
    """:func:`divergence` of many weightings of the pictures at once: a bootstrap in one product a layer.

    Args:
        tried: the moments.
        memory: of :func:`remembered`.
        weights: float64 ``[D, N]``, rows of sum 1.

    Returns:
        float64 ``[D]``.
    """
    found = [
        _divergence(weights @ moments[:, 0], weights @ moments[:, 1], mean, variance)
        for moments, mean, variance in _pairs(tried, memory)
    ]
    return np.median(found, 0) if found else np.full(len(weights), np.nan)


def layer_divergence(moments: Floats, mean: Floats, variance: Floats) -> float:
    """Mean over channels of the KL of two Gaussians, from moments ``[N, 2, C]`` by picture."""
    first, second = moments.mean(0)
    return float(_divergence(first, second, mean, variance))


def _pairs(tried: Tried, memory: Sequence[tuple[Floats, Floats]]) -> list[tuple[Floats, Floats, Floats]]:
    return [(moments, *kept) for moments, kept in zip(tried.moments, memory, strict=True) if len(moments)]


def _divergence(first: Floats, second: Floats, mean: Floats, variance: Floats) -> Floats:
    observed = np.maximum(second - first**2, 0) + 1e-5
    kl = 0.5 * (np.log(variance / observed) + (observed + (first - mean) ** 2) / variance - 1)
    return np.asarray(kl.mean(-1))


def fitted(model: Model, pictures: Labelled, given: Preprocessing, rows: NDArray[Any]) -> Pipeline | None:
    """The mean and std by which the first batch norm is reproduced best; None where the first layers are others.

    The first convolution is linear in the gain and offset of each channel, so that its output's mean is, too, and its
    variance a quadratic form: both are known for every mean and std from one pass.
    """
    pair = _first_pair(model)
    if pair is None or given.frames is not None:
        return None
    convolution, norm = pair
    channels = given.channels
    if convolution.in_channels != channels:
        return None
    plain = Pipeline("", given)
    read = [_read(pictures, plain, None, False, int(row)) for row in rows]
    tensors = [one for one in read if isinstance(one, Tensor)]
    if len({tuple(one.shape) for one in tensors}) != 1:
        return None
    basis: list[Tensor] = []
    batch = given.denormalise(torch.stack(tensors))
    with protected(model):
        weight = convolution.weight.detach().float().cpu()
        if isinstance(convolution.padding, str) or convolution.groups != 1 or convolution.padding_mode != "zeros":
            return None
        for part in (batch, torch.ones_like(batch[:1])):
            for channel in range(channels):
                made = nn.functional.conv2d(
                    part[:, channel : channel + 1], weight[:, channel : channel + 1], None, convolution.stride,
                    convolution.padding, convolution.dilation,
                )  # fmt: skip
                basis.append(made.expand(len(batch), -1, -1, -1))
        stacked = torch.stack(basis, 0).permute(2, 0, 1, 3, 4).flatten(2).double()  # [K, 2C, N·H·W]
    first = stacked.mean(2)
    second = torch.einsum("kax,kbx->kab", stacked, stacked) / stacked.shape[2]
    covariance = (second - first[:, :, None] * first[:, None, :]).numpy()
    means = first.numpy()
    bias = 0.0 if convolution.bias is None else convolution.bias.detach().double().cpu().numpy()
    kept = norm.running_mean.detach().double().cpu().numpy()  # type: ignore[operator, union-attr]
    variance = norm.running_var.detach().double().cpu().numpy() + float(getattr(norm, "eps", 1e-5))  # type: ignore[operator, union-attr]

    def cost(free: Floats) -> float:
        at = np.concatenate([np.exp(free[:channels]), free[channels:]])
        mu = means @ at + bias
        var = np.maximum(np.einsum("kab,a,b->k", covariance, at, at), 0) + 1e-5
        return float((0.5 * (np.log(variance / var) + (var + (mu - kept) ** 2) / variance - 1)).mean())

    start = np.concatenate([-np.log(given.std), -np.array(given.mean) / np.array(given.std)])
    other = np.concatenate([np.full(channels, np.log(4.0)), np.full(channels, -2.0)])
    best = min(
        (optimize.minimize(cost, at, method="L-BFGS-B", options={"maxiter": 200}) for at in (start, other)),
        key=lambda one: float(one.fun),
    )  # fmt: skip
    gain = np.exp(best.x[:channels])
    std = tuple(round(float(1 / one), 4) for one in gain)
    mean = tuple(round(float(-offset / one), 4) for one, offset in zip(gain, best.x[channels:], strict=True))
    if not all(np.isfinite([*mean, *std])) or min(std) <= 0:
        return None
    try:
        found = replace(given, mean=mean, std=std)
    except UsageError:  # so far off that no pipeline can be meant
        return None
    return Pipeline("the mean and std that batch norm remembers", found, False, "fitted")


def _first_pair(model: Model) -> tuple[nn.Conv2d, nn.Module] | None:
    """The first convolution and the batch norm right after it, as modules in their order of registration."""
    leaves = [module for module in model.module.modules() if next(module.children(), None) is None]
    for before, after in pairwise(leaves):
        if isinstance(before, nn.Conv2d):
            return (before, after) if isinstance(getattr(after, "running_mean", None), Tensor) else None
    return None


def usable(model: Model, pictures: Labelled, pipeline: Pipeline, row: int) -> bool:
    """Whether the network runs at all on one picture by this pipeline."""
    try:
        attempt(model, pictures, pipeline, np.array([row]))
    except (ModelError, PictureError):
        return False
    return True

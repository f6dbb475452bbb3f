"""What batch norm remembers of the pictures that a network was trained on.

Batch norm keeps the mean and variance of its input over training. Pictures given as in training reproduce them;
pictures given otherwise do not, from the first layer on (the idea of AdaBN, Li et al. 2017, read backwards). So no
label is needed to hold one pipeline against another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch import Tensor, nn

from ..errors import UsageError
from ..models.model import Model
from ..pictures.picture import Preprocessing
from ..session import protected
from .attempts import Tried, norms, read_input
from .collection import Labelled
from .pipelines import Floats, Pipeline


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
    read = [read_input(pictures, plain, None, False, int(row)) for row in rows]
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

"""Small picture filters of the recipes: blur, and setting to zero what is below a percentile."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from ..pictures.picture import Preprocessing


def bound(preprocessing: Preprocessing, value: float, device: torch.device) -> Tensor:
    """A pixel value (0 black, 1 white) in the network's input space, ``[C, 1, 1]``."""
    mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
    return ((value - mean) / std).view(-1, 1, 1).to(device)


def blur(values: Tensor, width: float) -> Tensor:
    """Gaussian blur of ``[B, C, H, W]``; ``width`` is the deviation in pixels, cut at four of them."""
    reach = min(max(1, math.ceil(4 * width)), min(values.shape[-2:]) - 1)
    if reach < 1:
        return values
    places = torch.arange(-reach, reach + 1, dtype=values.dtype, device=values.device)
    kernel = torch.exp(-0.5 * (places / width) ** 2)
    kernel = kernel / kernel.sum()
    padded = functional.pad(values, (reach,) * 4, mode="reflect").flatten(0, 1).unsqueeze(1)
    padded = functional.conv2d(functional.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    return padded.view_as(values)


def drop(values: Tensor, measure: Tensor, percentile: float) -> Tensor:
    """``values`` ``[B, C, H, W]`` with every pixel zero whose ``measure`` ``[B, H, W]`` is below its percentile."""
    flat = measure.flatten(1)
    rank = min(flat.shape[1], max(1, math.ceil(percentile / 100 * flat.shape[1])))
    threshold = flat.kthvalue(rank, dim=1).values
    return values * (measure >= threshold[:, None, None]).unsqueeze(1)

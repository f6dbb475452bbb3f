"""What stands where a part of the picture is taken away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from .base import Query

FILLS = "mean (of the data set: zero in the input), picture-mean, blur, or a value in 0..1"


def fill_for(query: Query, fill: str) -> Tensor:
    """The replacement picture ``[B, C, H, W]`` in the network's input space.

    ``mean``: the data set's mean, zero in the input; ``picture-mean``: each picture's own mean colour; ``blur``: a
    Gaussian blur; a number in 0..1: that grey. Raises :class:`UsageError` for anything else.
    """
    import torch

    inputs = query.inputs
    if fill == "mean":
        return torch.zeros_like(inputs)
    if fill == "picture-mean":
        return inputs.mean(tuple(range(2, inputs.ndim)), keepdim=True).expand_as(inputs).contiguous()
    if fill == "blur":
        return blurred(inputs)
    try:
        value = float(fill)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UsageError(f"fill must be {FILLS}, not {fill!r}.")
    return query.model.preprocessing.normalise(torch.full_like(inputs, value))


def blurred(inputs: Tensor, sigma: float | None = None) -> Tensor:
    """A Gaussian blur of ``[B, C, H, W]``, edges reflected; ``sigma`` in pixels (default: side / 20).

    Of a volume ``[B, C, D, H, W]`` every slice is blurred.
    """
    import torch
    from torch.nn import functional as F

    if inputs.ndim == 5:
        slices = inputs.transpose(1, 2)
        return blurred(slices.flatten(0, 1), sigma).reshape(slices.shape).transpose(1, 2)

    height, width = inputs.shape[-2:]
    sigma = max(height, width) / 20 if sigma is None else sigma
    radius = min(max(1, round(3 * sigma)), height - 1, width - 1)
    if radius < 1:
        return inputs.clone()
    at = torch.arange(-radius, radius + 1, dtype=torch.float32, device=inputs.device)
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(inputs)
    channels = inputs.shape[1]
    rows = kernel.view(1, 1, -1, 1).repeat(channels, 1, 1, 1)
    padded = F.pad(inputs, (radius,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, rows, groups=channels), rows.transpose(2, 3), groups=channels)

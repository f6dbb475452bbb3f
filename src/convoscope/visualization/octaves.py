"""DeepDream's picture: the same at several sizes, from coarse to fine."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..pictures.picture import Preprocessing


class Octaves:
    """A picture that grows: at each octave the base picture plus what was dreamt so far, enlarged.

    ``start`` is ``[B, C, H, W]`` normalised; the last octave has its size. Values stay in the range of pixels.
    """

    def __init__(self, start: Tensor, preprocessing: Preprocessing, octaves: int, ratio: float) -> None:
        from .filters import bound

        self.start = start.detach()
        self.low, self.high = (bound(preprocessing, edge, start.device) for edge in (0.0, 1.0))
        height, width = start.shape[-2:]
        self.sizes = [
            (max(8, round(height / ratio**back)), max(8, round(width / ratio**back)))
            for back in range(octaves - 1, -1, -1)
        ]
        self.sizes[-1] = (height, width)
        self.octave = -1
        self.parameters: list[Tensor] = []
        self.at(0)

    def at(self, octave: int) -> None:
        """Go to an octave (from 0, the coarsest)."""
        octave = min(octave, len(self.sizes) - 1)
        if octave == self.octave:
            return
        base = _resized(self.start, self.sizes[octave])
        if self.parameters:
            before = _resized(self.start, self.sizes[self.octave])
            base = base + _resized(self.parameters[0].detach() - before, self.sizes[octave])
        self.octave = octave
        self.parameters = [base.clamp(self.low, self.high).detach().clone().requires_grad_()]

    def inputs(self) -> Tensor:
        with torch.no_grad():
            pixels = self.parameters[0]
            pixels.copy_(pixels.clamp(self.low, self.high))
        return self.parameters[0]

    def shown(self) -> Tensor:
        """The picture at its final size, whatever the octave."""
        return _resized(self.inputs().detach(), self.sizes[-1])


def _resized(values: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(values.shape[-2:]) == size:
        return values
    return functional.interpolate(values, size, mode="bicubic", align_corners=False, antialias=True)

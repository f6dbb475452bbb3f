"""What a picture is made of while it is being found: pixels, Fourier coefficients, or phases alone.

A parameterisation holds leaf tensors whose first dimension is the item of the batch and makes the network's input
``[B, C, H, W]`` of them, differentiably. Items never touch each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from ..pictures.picture import Preprocessing

#: square root of the covariance of ImageNet's colours, scaled to a largest column norm of 1 (Olah et al. 2017)
COLOURS = (
    (0.56282854, 0.19482528, 0.04329450),
    (0.58447580, 0.0, -0.10823626),
    (0.58447580, -0.19482528, 0.06494176),
)


class Randoms:
    """Random numbers of a batch: every item draws from its own generator, so that its neighbours do not matter."""

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self.generators = [torch.Generator().manual_seed(int(seed) % 2**63) for seed in seeds]
        self.device = device

    def uniform(self, *shape: int) -> Tensor:
        """``[B, *shape]`` in 0..1."""
        return torch.stack([torch.rand(shape, generator=g) for g in self.generators]).to(self.device)

    def normal(self, *shape: int) -> Tensor:
        """``[B, *shape]``, mean 0 and deviation 1."""
        return torch.stack([torch.randn(shape, generator=g) for g in self.generators]).to(self.device)


class Image(Protocol):
    """What a picture is made of."""

    parameters: list[Tensor]

    def inputs(self) -> Tensor:
        """The network's input ``[B, C, H, W]``, of the parameters."""
        ...


class Pixels:
    """The network's input itself, pixel by pixel, unbounded: ``[B, C, H, W]`` normalised."""

    def __init__(self, start: Tensor) -> None:
        self.parameters = [start.detach().clone().requires_grad_()]

    def inputs(self) -> Tensor:
        return self.parameters[0]


class Values:
    """Pixel values in 0..1; the network's input is their normalisation."""

    def __init__(self, start: Tensor, preprocessing: Preprocessing) -> None:
        self.parameters = [start.detach().clone().requires_grad_()]
        self.preprocessing = preprocessing

    def inputs(self) -> Tensor:
        return self.preprocessing.normalise(self.parameters[0])


class Fourier:
    """Decorrelated Fourier coefficients and colours through a sigmoid (Olah, Mordvintsev & Schubert 2017).

    Frequencies are weighted by ``1 / f ** decay``, as natural pictures have them, and colours by ImageNet's
    covariance where there are three of them.
    """

    def __init__(
        self, size: tuple[int, int], preprocessing: Preprocessing, randoms: Randoms, *, decay: float, deviation: float
    ) -> None:
        height, width = size
        self.size, self.preprocessing = size, preprocessing
        channels = preprocessing.channels
        start = randoms.normal(channels, height, width // 2 + 1, 2) * deviation
        self.parameters = [start.requires_grad_()]
        frequencies = radial_frequencies(size).to(start)
        scale = 1 / frequencies.clamp(min=1 / max(size)) ** decay
        # the square root of the number of pixels makes the transform unitary; the quarter is Lucid's
        self.scale = (scale * (height * width) ** 0.5 / 4)[..., None]
        self.normal = _Colours(preprocessing).to(start)

    def start_from(self, inputs: Tensor) -> None:
        """Begin with the pictures ``[B, C, H, W]`` (normalised) instead of noise."""
        spectrum = torch.fft.rfft2(self.normal.undo(inputs))
        with torch.no_grad():
            self.parameters[0].copy_(torch.view_as_real(spectrum) / self.scale)

    def inputs(self) -> Tensor:
        spectrum = torch.view_as_complex(self.parameters[0] * self.scale)
        return self.normal(torch.fft.irfft2(spectrum, s=self.size))


class Phase:
    """Only the phases are free; the magnitudes are those of natural pictures (MACO, Fel et al. 2023).

    The phases' deviation is π, not the published 1: phases of deviation σ share a part exp(−σ²/2) of all magnitudes,
    61 % at σ = 1, and what is shared adds up at pixel (0, 0): a spot of 25 deviations, which the transform's torus
    shows as a dot in each corner of the picture. At π, 0.7 % is shared.

    ``magnitude`` is ``[C, H, W // 2 + 1]`` (:func:`magnitudes`).
    """

    def __init__(self, magnitude: Tensor, size: tuple[int, int], preprocessing: Preprocessing, randoms: Randoms):
        self.size, self.preprocessing = size, preprocessing
        start = randoms.normal(*magnitude.shape)
        self.magnitude = magnitude.to(start)
        self.parameters = [start.requires_grad_()]
        self.normal = _Colours(preprocessing).to(start)

    def rouse(self, items: Tensor) -> None:
        """Make steps of these items count again: the same picture, of parameters near their first size.

        Only directions of the parameters matter, so as they grow, steps of one size turn the phases less and less.
        """
        with torch.no_grad():
            mine = items.to(self.parameters[0].device)
            deviation = self.parameters[0][mine].flatten(1).std(1, unbiased=False).view(-1, 1, 1, 1)
            self.parameters[0][mine] /= (deviation / 3).clamp(min=1.0)

    def inputs(self) -> Tensor:
        phase = math.pi * _standard(self.parameters[0])
        spatial = torch.fft.irfft2(torch.polar(self.magnitude.expand_as(phase), phase), s=self.size)
        return self.normal(_standard(spatial))


class _Colours:
    """Decorrelated, unbounded values to the network's input: colours put back, sigmoid, normalisation."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.colours = torch.tensor(COLOURS) if preprocessing.channels == 3 else None
        self.mean = torch.tensor(preprocessing.mean).view(-1, 1, 1)
        self.std = torch.tensor(preprocessing.std).view(-1, 1, 1)
        # products are several times faster than quotients, forwards and backwards
        self.scale = 1 / self.std

    def to(self, like: Tensor) -> _Colours:
        for name in ("colours", "mean", "std", "scale"):
            if (value := getattr(self, name)) is not None:
                setattr(self, name, value.to(like))
        return self

    def __call__(self, values: Tensor) -> Tensor:
        if self.colours is not None:
            values = (self.colours @ values.flatten(2)).view_as(values)
        return (values.sigmoid() - self.mean) * self.scale

    def undo(self, inputs: Tensor) -> Tensor:
        """The inverse; black and white, which a sigmoid never reaches, are taken as 2 % grey from there."""
        values = (inputs * self.std + self.mean).clamp(0.02, 0.98).logit()
        if self.colours is not None:
            values = (torch.linalg.inv(self.colours) @ values.flatten(2)).view_as(values)
        return values


def _standard(values: Tensor) -> Tensor:
    """Each item to mean 0 and deviation 1."""
    flat = values.flatten(1)
    mean = flat.mean(1).view(-1, 1, 1, 1)
    deviation = flat.std(1, unbiased=False).view(-1, 1, 1, 1)
    standard: Tensor = (values - mean) * (deviation + 1e-5).reciprocal()
    return standard


def radial_frequencies(size: tuple[int, int]) -> Tensor:
    """The frequency of every coefficient of a real 2-D transform, ``[H, W // 2 + 1]``, in cycles a pixel."""
    rows, columns = torch.fft.fftfreq(size[0]), torch.fft.rfftfreq(size[1])
    radius: Tensor = (rows[:, None] ** 2 + columns[None] ** 2).sqrt()
    return radius


def magnitudes(pictures: Tensor) -> Tensor:
    """The mean magnitude spectrum ``[C, H, W // 2 + 1]`` of ``pictures`` ``[N, C, H, W]`` in 0..1.

    Taken in the decorrelated colour space in which :class:`Phase` puts it back; the pictures' edges are tapered, so
    that the jump from one edge to the opposite one does not draw a cross into the spectrum.
    """
    values = pictures.double() - pictures.double().mean((2, 3), keepdim=True)
    if values.shape[1] == 3:
        inverse = torch.linalg.inv(torch.tensor(COLOURS, dtype=torch.float64))
        values = (inverse @ values.flatten(2)).view_as(values)
    height, width = values.shape[2:]
    window = torch.hann_window(height, periodic=False, dtype=torch.float64)[:, None] * torch.hann_window(
        width, periodic=False, dtype=torch.float64
    )
    spectrum = torch.fft.rfft2(values * window).abs().mean(0)
    spectrum[:, 0, 0] = 0  # the mean is set by standardising
    mean: Tensor = spectrum.float()
    return mean

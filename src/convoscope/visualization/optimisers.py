"""How a step is taken: plain ascent, progress-bound ascent, momentum, Adam, Nadam, and DDN for the smallest change.

All ascend, and all treat the items of a batch apart: whatever one item does, another's steps are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

#: what a score must have risen by, in gains, to be left as it is by :class:`Progress`, and the most it doubles up to
RISEN, BOLDEST = 5.0, 128.0
#: deviation of a picture, in the input's unit, below which nobody would see anything
FAINT = 0.15
#: deviation of the longest step that a doubled rate may take
STRIDE = 0.1


class Optimiser(Protocol):
    """Takes one step in place; ``values`` ``[B]`` are what is ascended, penalties included."""

    def update(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], values: Tensor) -> None: ...

    def finish(self, parameters: Sequence[Tensor]) -> None:
        """Leave the best point known in ``parameters``."""


class _Plain:
    def finish(self, parameters: Sequence[Tensor]) -> None:
        """The last point is the result."""


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))


@dataclass
class Ascent:
    """Gradient ascent that never goes down: a step after which the value fell is taken back and halved.

    ``rate`` ``[B]`` is each item's; steps grow again by a tenth, up to it. On a smooth objective with a small
    enough rate this is plain gradient ascent.
    """

    rate: Tensor
    #: items whose step may go down: it follows a redirected gradient, to wake a silent unit
    free: Tensor | None = None
    _rates: Tensor | None = None
    _before: tuple[list[Tensor], list[Tensor], Tensor] | None = None

    def restart(self, rate: Tensor) -> None:
        """What is ascended has changed: values before and after do not compare."""
        self.rate, self._rates, self._before = rate, None, None

    def update(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], values: Tensor) -> None:
        if self._rates is None:
            self._rates = self.rate.to(values)
        with torch.no_grad():
            points = [p.detach().clone() for p in parameters]
            slopes = [g.clone() for g in gradients]
            best = values.clone()
            if self._before is not None:
                # less than what rounding does to a sum over all pixels is no fall
                fell = values < self._before[2] - 1e-6 * self._before[2].abs()
                self._rates = torch.where(
                    fell, self._rates / 2, torch.minimum(self._rates * 1.1, self.rate.to(values))
                )
                if bool(fell.any()):
                    for kept, old in zip(
                        [*points, *slopes, best],
                        [*self._before[0], *self._before[1], self._before[2]],
                        strict=True,
                    ):
                        kept[fell] = old[fell]
            if self.free is not None:
                best[self.free] = -torch.inf
            self._before = (points, slopes, best)
            for parameter, point, slope in zip(parameters, points, slopes, strict=True):
                parameter.copy_(point + _column(self._rates, slope).to(slope) * slope)

    def finish(self, parameters: Sequence[Tensor]) -> None:
        """The last step has not been tried: back to the point that was."""
        if self._before is not None:
            with torch.no_grad():
                for parameter, point in zip(parameters, self._before[0], strict=True):
                    parameter.copy_(point)


@dataclass
class Progress(_Plain):
    """Ascent by steps that promise a fixed gain: rate = ``gain`` / |gradient|², at most ``limit``.

    The learning rate policy of the Deep Visualization Toolbox (Yosinski et al. 2015). ``patience`` is ours: an item
    whose score has not risen by :data:`RISEN` gains altogether, or whose deviation is below :data:`FAINT`, is given
    twice the rate every so many steps, until ``until`` of them are done. Blur and decay take back what a small step
    has won, and how small is too small depends on the network.
    """

    gain: float
    limit: float
    patience: int = 0
    until: int = 0
    _step: int = 0
    _times: Tensor | None = None
    _start: Tensor | None = None

    def update(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], values: Tensor) -> None:
        times = self._bolder(values.detach().double(), parameters[0].detach().flatten(1).std(1))
        squares = sum(g.flatten(1).double().pow(2).sum(1) for g in gradients)
        assert isinstance(squares, Tensor)
        plain = (self.gain / squares.clamp(min=1e-30)).clamp(max=self.limit)
        count = sum(g[0].numel() for g in gradients)
        # where the gradient is faint, a rate so much larger would turn the picture into noise in one step
        bound = STRIDE * (count / squares.clamp(min=1e-30)).sqrt()
        rate = torch.minimum(times * plain, torch.maximum(plain, bound))
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.add_(_column(rate, gradient).to(gradient) * gradient)

    def _bolder(self, values: Tensor, deviations: Tensor) -> Tensor:
        """How many times the rate each item is given, ``[B]``."""
        if self._times is None or self._start is None:
            self._times, self._start = torch.ones_like(values), values
        elif self.patience and self._step % self.patience == 0 and self._step <= self.until:
            slow = (values - self._start < RISEN * self.gain) | (deviations.to(values) < FAINT)
            self._times = torch.where(slow, 2 * self._times, self._times).clamp(max=BOLDEST)
        self._step += 1
        return self._times


@dataclass
class Mean(_Plain):
    """Ascent by steps of one mean size: ``rate`` · gradient / mean |gradient| (DeepDream)."""

    rate: float

    def update(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], values: Tensor) -> None:
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                size = gradient.flatten(1).abs().mean(1).clamp(min=1e-30)
                parameter.add_(self.rate * gradient / _column(size, gradient))


@dataclass
class Lengths(_Plain):
    """Projected ascent by steps of one length, whatever the gradient's size (Madry et al. 2018).

    ``start`` are the pictures in 0..1; ``rate`` and ``radius`` are root mean squares over a picture's values. The rate
    falls evenly to a fifth. A picture never leaves 0..1, nor the ball of ``radius`` around its start.
    """

    start: Tensor
    rate: float
    radius: float
    steps: int
    _step: int = 0

    def update(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], values: Tensor) -> None:
        (parameter,), (gradient,) = parameters, gradients
        rate = self.rate * (1 - 0.8 * min(1.0, self._step / max(1, self.steps - 1)))
        self._step += 1
        with torch.no_grad():
            # a gradient of float16 has squares that are zero
            slope = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
            slope = slope * _column(rate / _size(slope).clamp(min=1e-20), slope)
            change = parameter + slope - self.start
            change *= _column((self.radius / _size(change).clamp(min=1e-20)).clamp(max=1), change)
            parameter.copy_((self.start + change).clamp(0, 1))


def _size(values: Tensor) -> Tensor:
    """Root mean square of each item, ``[B]``; scaled first, so that small values have squares."""
    flat = values.flatten(1)
    largest = flat.abs().amax(1).clamp(min=1e-30)
    size: Tensor = (flat / largest[:, None]).pow(2).mean(1).sqrt() * largest
    return size


@dataclass
class Adam(_Plain):
    """Adam (Kingma & Ba 2015); with ``nesterov`` it is Nadam (Dozat 2016), as Keras has it."""

    rate: float
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    nesterov: bool = False
    decay: float = 0.004
    #: the rate falls along a cosine to this share of itself over ``steps`` (1: constant)
    final: float = 1.0
    steps: int = 1
    _step: int = 0
    _schedule: float = 1.0
    _moments: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def update(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], values: Tensor) -> None:
        if not self._moments:
            self._moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
        share = min(1.0, self._step / max(1, self.steps - 1))
        rate = self.rate * (
            self.final + (1 - self.final) * 0.5 * (1 + torch.cos(torch.tensor(share * torch.pi)).item())
        )
        self._step += 1
        step = self._step
        mu = self.beta1 * (1 - 0.5 * 0.96 ** (step * self.decay))
        after = self.beta1 * (1 - 0.5 * 0.96 ** ((step + 1) * self.decay))
        self._schedule *= mu
        with torch.no_grad():
            for parameter, gradient, (first, second) in zip(parameters, gradients, self._moments, strict=True):
                first.mul_(self.beta1).add_(gradient, alpha=1 - self.beta1)
                second.mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
                spread = (second / (1 - self.beta2**step)).sqrt_().add_(self.epsilon)
                if self.nesterov:
                    ahead = first * (after / (1 - self._schedule * after))
                    ahead.add_(gradient, alpha=(1 - mu) / (1 - self._schedule))
                    parameter.addcdiv_(ahead, spread, value=rate)
                else:
                    parameter.addcdiv_(first, spread, value=rate / (1 - self.beta1**step))


@dataclass
class Smallest:
    """The smallest change that reaches a class: DDN, decoupled direction and norm (Rony et al. 2019).

    ``start`` are the pictures in 0..1. Each step moves along the gradient at unit length, then sets the change's norm
    ε, which shrinks by ``gamma`` while the class is reached and grows while it is not. Changes are rounded to whole
    8-bit levels, so that what is found survives being saved. ``reached`` is set by the objective before each update.
    """

    start: Tensor
    steps: int
    norm: float = 1.0
    gamma: float = 0.05
    reached: Tensor | None = None
    levels: int = 255
    best: Tensor | None = None
    best_norm: Tensor | None = None
    _change: Tensor | None = None
    _epsilon: Tensor | None = None
    _step: int = 0

    def note(self, picture: Tensor) -> None:
        """Keep ``picture`` (what was just run) where it reaches the class by a smaller change than before."""
        assert self.reached is not None
        if self.best is None or self.best_norm is None:
            self.best = picture.detach().clone()
            self.best_norm = torch.full((len(picture),), torch.inf, device=picture.device)
        size = (picture.detach() - self.start).float().flatten(1).norm(dim=1)
        better = self.reached & (size < self.best_norm)
        self.best[better] = picture.detach()[better]
        self.best_norm[better] = size[better]

    def update(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], values: Tensor) -> None:
        (parameter,), (gradient,) = parameters, gradients
        assert self.reached is not None
        with torch.no_grad():
            self.note(parameter)
            # in float16 what keeps a division finite would itself be 0
            gradient = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
            if self._change is None or self._epsilon is None:
                self._change = torch.zeros_like(gradient)
                self._epsilon = torch.full_like(values, self.norm, dtype=torch.float32)
            share = min(1.0, self._step / max(1, self.steps - 1))
            rate = 0.01 + 0.99 * 0.5 * (1 + torch.cos(torch.tensor(share * torch.pi)).item())
            self._step += 1
            length = gradient.flatten(1).norm(dim=1).clamp(min=1e-12)
            self._change += rate * gradient / _column(length, gradient)
            self._epsilon = torch.where(
                self.reached, self._epsilon * (1 - self.gamma), self._epsilon * (1 + self.gamma)
            )
            size = self._change.flatten(1).norm(dim=1).clamp(min=1e-12)
            self._change *= _column(self._epsilon / size, gradient)
            picture = ((self.start.to(gradient.dtype) + self._change) * self.levels).round().clamp(
                0, self.levels
            ) / self.levels
            self._change = picture - self.start.to(gradient.dtype)
            parameter.copy_(picture)

    def finish(self, parameters: Sequence[Tensor]) -> None:
        """The smallest change that reached the class; where none did, the last one tried."""
        if self.best is not None and self.best_norm is not None:
            found = torch.isfinite(self.best_norm)
            with torch.no_grad():
                parameters[0][found] = self.best[found]

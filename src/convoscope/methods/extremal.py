"""Extremal perturbations: the smooth mask of a given area that keeps the score highest (Fong et al. 2019)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..engine.passes.needs import Gradient
from ..errors import MethodRefused
from .base import About, Method, Query, setting
from .fills import blurred

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .base import Steps

#: the published settings are those of pictures of this side; others are in proportion
_SIDE = 224
_BLUR = 20.0
_LEVELS = 8
_MOMENTUM = 0.9
_STRICTNESS, _GROWTH = 300.0, 1.0035
#: of the smooth maximum
_POWER = 20
_CLOSED = 1e-6
#: masks nearer than this tie
_SAME = 2.0**-18


@dataclass(frozen=True)
class ExtremalPerturbation(Method):
    """Gradient ascent on a smooth mask whose area is fixed (Fong, Patrick & Vedaldi 2019), the preserving form.

    A coarse grid of values is raised by a smooth maximum of round bumps, flat to σ/2; the outside is blurred; the
    area constraint ‖sort(m) − r_a‖² grows with the steps, and every other step sees the picture flipped. The
    optimiser is SGD with momentum 0.9 and dampening 0.9. On pictures of 224 pixels the defaults are the published
    ones; on others lengths are in proportion to the picture. Two things differ from the published program: ``area`` is
    a share of the picture (not of the picture with a margin of σ around it, where the mask is counted too so that a
    corner costs as much as the middle), and pixels that tie in the sort share the constraint's pull alike, where an
    order by position would decide for one corner. The value is the mask: 0..1.
    """

    about: ClassVar[About] = About(
        name="extremal-perturbation",
        title="Extremal perturbation",
        shows="the region of the given size that alone keeps the score highest",
        paper="Fong, Patrick, Vedaldi: Understanding Deep Networks via Extremal Perturbations. ICCV 2019",
        bibtex=(
            "@inproceedings{fong2019understanding, title={Understanding Deep Networks via Extremal Perturbations and "
            "Smooth Masks}, author={Fong, Ruth and Patrick, Mandela and Vedaldi, Andrea}, booktitle={ICCV}, "
            "year={2019}}"
        ),
        signed=False,
        unit="share kept",
        reduction="the mask itself",
        cost="one forward and backward a step",
        slow=True,
    )
    area: float = setting(0.1, "share of the picture that is kept", minimum=0.001, maximum=1.0)
    rounds: int = setting(800, "optimisation steps", minimum=1, maximum=100_000)
    grid: int | None = setting(None, "pixels between the mask's grid points (default: side / 32)", minimum=1)
    sigma: float | None = setting(
        None, "radius of each grid point's bump in pixels (default: side · 3 / 32)", minimum=0.5
    )
    rate: float = setting(0.01, "step size", minimum=1e-6)
    flip: bool = setting(True, "show the network the masked picture flipped in every other step")

    def steps(self, query: Query) -> Steps:
        import torch

        if query.inputs.ndim != 4:
            raise MethodRefused(
                "Masks are for single pictures, not for volumes and videos: use a gradient or a CAM method."
            )
        inputs = query.inputs.float()
        side = min(query.size)
        step = max(1, round(side / 32)) if self.grid is None else self.grid
        sigma = side * 3 / 32 if self.sigma is None else self.sigma
        blurs = torch.linspace(0, _BLUR * side / _SIDE, _LEVELS)[1:].tolist()
        levels = torch.stack([inputs, *(blurred(inputs, blur) for blur in blurs)])
        bumps = Bumps(query.size, step, sigma, inputs.device)
        values = torch.ones((len(inputs), *bumps.points), device=inputs.device, requires_grad=True)
        velocity = torch.zeros_like(values)
        strictness = _STRICTNESS
        lost = torch.zeros(len(inputs), dtype=torch.bool, device=inputs.device)
        keep = round(self.area * query.size[0] * query.size[1])
        for number in range(self.rounds):
            with torch.enable_grad():
                whole = bumps.mask(values)
                shown = _fade(levels, bumps.inside(whole))
                # the published program flips the even steps
                given = shown.flip(-1) if self.flip and number % 2 == 0 else shown
            need = Gradient(inputs=given.detach().to(query.inputs))
            got = yield need
            with torch.enable_grad():
                penalty = strictness * (whole - wanted(whole.detach(), keep)).square().mean((1, 2)).sum()
                # the score's own gradient came from the engine: carry it on through the mask
                loss = penalty - (given * got[need].to(given)).sum()
            gradient = torch.autograd.grad(loss, values)[0]
            # a score that is NaN has no gradient; it takes no other picture along
            lost |= ~gradient.isfinite().flatten(1).all(1)
            gradient = torch.where(lost[:, None, None], torch.zeros_like(gradient), gradient)
            velocity = _MOMENTUM * velocity + (1 - _MOMENTUM) * gradient
            with torch.no_grad():
                values.sub_(self.rate * velocity).clamp_(0, 1)
            strictness *= _GROWTH
            query.progress(number + 1, self.rounds)
        with torch.no_grad():
            mask = bumps.inside(bumps.mask(values)).detach()
            mask = torch.where(lost[:, None, None], torch.full_like(mask, torch.nan), mask)
        maps = query.pixels(mask[:, None], signed=False, unit=self.about.unit)
        maps.raw, maps.reduction = None, self.about.reduction
        areas = mask.flatten(1).mean(1).tolist()
        maps.fact("area", areas)
        for row in torch.nonzero(lost).flatten().tolist():
            maps.doubt(row, "The score, or its gradient, is NaN on this picture: no mask can be found.")
        for row, area in enumerate(areas):
            if abs(area - self.area) > 0.5 * self.area:
                maps.doubt(row, f"The mask covers {area:.0%} instead of {self.area:.0%}: take more rounds.")
        return maps


def wanted(mask: Tensor, keep: int) -> Tensor:
    """What the area constraint wants each pixel of ``[B, H, W]`` to be: 1 for the ``keep`` largest, else 0.

    Pixels of one value share alike what their places in the order are given: a sort by position would decide.
    """
    flat = mask.flatten(1)
    edge = flat.kthvalue(max(1, flat.shape[1] - keep), dim=1).values[:, None]
    # equal to what float32 can tell: sums in another order are no order of importance
    above, level = flat > edge + _SAME, (flat - edge).abs() <= _SAME
    share = (keep - above.sum(1, keepdim=True)) / level.sum(1, keepdim=True)
    return (above + level * share).view_as(mask)


class Bumps:
    """Raises values at grid points to masks: at a pixel the smooth maximum of value × bump.

    A bump is exp(−2·max(0, d/σ − ½)²) of the distance d, and reaches σ and one grid step further. Masks hold a margin
    of σ around the picture. The paper's smooth maximum is the mean of the products weighted by exp(20 · product); ours
    by product²⁰, which is the same near 1 and needs two small matrix products instead of an exponential a bump.
    """

    def __init__(self, size: tuple[int, int], step: int, sigma: float, device: torch.device) -> None:
        import torch

        self.size, self.step = size, step
        self.points = (math.ceil(size[0] / step), math.ceil(size[1] / step))
        self.radius = 1 + math.ceil(sigma / step)
        self.margin = math.ceil(sigma / step)
        reach = torch.arange(-self.radius, self.radius + 1, dtype=torch.float32) * step
        inside = torch.arange(step, dtype=torch.float32)
        # the bump of a neighbour as seen from the pixels behind a grid point: [step, step, neighbours, neighbours]
        off = (inside[:, None] - reach[None, :]) ** 2
        distance = (off[:, None, :, None] + off[None, :, None, :]).sqrt() / sigma
        weight = torch.exp(-2 * (distance - 0.5).clamp(min=0) ** 2)
        weight = weight.flatten(0, 1)[:, None].double().to(device)
        self.lower, self.upper = weight**_POWER, weight ** (_POWER + 1)

    def mask(self, values: Tensor) -> Tensor:
        """``[B, h, w]`` in 0..1 to ``[B, H + margins, W + margins]``."""
        from torch.nn import functional as F

        # float64: powers of closed points; they are kept just above zero, so that they can open again
        points = values.double()[:, None] + _CLOSED
        powers = points**_POWER
        padding = self.radius + self.margin
        below = F.conv2d(powers, self.lower, padding=padding).clamp(min=1e-280)
        raised = F.conv2d(powers * points, self.upper, padding=padding) / below
        whole = F.pixel_shuffle(raised, self.step)[:, 0].float().clamp(max=1)
        # what lies beyond the last grid point's own place would make the two sides' margins different
        return whole[:, : whole.shape[1] - self.step + 1, : whole.shape[2] - self.step + 1]

    def inside(self, mask: Tensor) -> Tensor:
        """The picture's part of a mask."""
        first = self.margin * self.step
        return mask[:, first : first + self.size[0], first : first + self.size[1]]


def _fade(levels: Tensor, mask: Tensor) -> Tensor:
    """Each pixel from the level of a blur pyramid ``[L, B, C, H, W]`` that its mask asks for (1: the picture)."""
    import torch

    place = (1 - mask) * (len(levels) - 1)
    low = place.detach().floor().clamp(0, len(levels) - 2).long()
    share = (place - low)[:, None]
    index = low[None, :, None].expand(1, *levels.shape[1:])
    below = torch.gather(levels, 0, index)[0]
    above = torch.gather(levels, 0, index + 1)[0]
    return below * (1 - share) + above * share

"""Extremal perturbations: the smooth mask of a given area that keeps the score highest (Fong et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..engine.passes.needs import Gradient
from ..errors import MethodRefused
from .base import About, Method, Query, setting
from .fills import blurred

if TYPE_CHECKING:
    from torch import Tensor

    from .base import Steps


@dataclass(frozen=True)
class ExtremalPerturbation(Method):
    """Gradient ascent on a smooth mask whose area is fixed (Fong, Patrick & Vedaldi 2019), the preserving form.

    A coarse grid is raised by a smooth maximum of Gaussian bumps, the outside is blurred, and the area constraint
    ‖sort(m) − r_a‖² grows with the steps. Published settings are the defaults. The value is the mask: 0..1.
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
    grid: int = setting(7, "pixels between the mask's grid points", minimum=1)
    sigma: float = setting(21.0, "width of each grid point's bump in pixels", minimum=0.5)
    rate: float = setting(0.01, "step size", minimum=1e-6)

    def steps(self, query: Query, progress: Callable[[int], None] | None = None) -> Steps:
        import torch

        if query.inputs.ndim != 4:
            raise MethodRefused(
                "Masks are for single pictures, not for volumes and videos: use a gradient or a CAM method."
            )
        inputs = query.inputs.float()
        levels = torch.stack([inputs, *(blurred(inputs, s) for s in torch.linspace(20 / 7, 20, 7).tolist())])
        parameters, raise_mask = _mask(self, query, inputs.device)
        parameters = parameters.repeat(len(inputs), 1, 1).requires_grad_()
        momentum = torch.zeros_like(parameters)
        pixels = inputs[0, 0].numel()
        wanted = torch.zeros(pixels, device=inputs.device)
        wanted[round(pixels * (1 - self.area)) :] = 1
        strictness = 300.0
        for step in range(self.rounds):
            with torch.enable_grad():
                mask = raise_mask(parameters)
                shown = _fade(levels, mask)
            need = Gradient(inputs=shown.detach().to(query.inputs))
            got = yield need
            with torch.enable_grad():
                ordered = mask.flatten(1).sort(1).values
                penalty = strictness * (ordered - wanted).square().mean(1).sum()
                # the score's own gradient came from the engine: carry it on through the mask
                loss = penalty - (shown * got[need].to(shown)).sum()
            gradient = torch.autograd.grad(loss, parameters)[0]
            momentum = 0.9 * momentum + gradient
            with torch.no_grad():
                parameters.sub_(self.rate * momentum).clamp_(0, 1)
            strictness *= 1.0035
            if progress is not None:
                progress(step + 1)
        with torch.no_grad():
            mask = raise_mask(parameters).detach()
        maps = query.pixels(mask[:, None], signed=False, unit=self.about.unit)
        maps.raw, maps.reduction = None, self.about.reduction
        areas = mask.flatten(1).mean(1).tolist()
        maps.fact("area", areas)
        for row, area in enumerate(areas):
            if abs(area - self.area) > 0.5 * self.area:
                maps.doubt(row, f"The mask covers {area:.0%} instead of {self.area:.0%}: take more rounds.")
        return maps


def _mask(one: ExtremalPerturbation, query: Query, device: Any) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Starting values ``[1, h, w]`` and the function that raises them to masks ``[B, H, W]`` in 0..1.

    The mask at a pixel is a soft maximum over grid points of value × Gaussian(distance). The paper's is a
    softmax-weighted mean with temperature 1/20; ours is a power mean with exponent 20, as near to the maximum and
    separable: two small matrix products instead of a gather of all bumps.
    """
    import torch

    height, width = query.size
    rows = torch.arange(0, height, one.grid, device=device, dtype=torch.float32)
    cols = torch.arange(0, width, one.grid, device=device, dtype=torch.float32)
    reach_y = torch.exp(-0.5 * ((torch.arange(height, device=device)[:, None] - rows) / one.sigma) ** 2)
    reach_x = torch.exp(-0.5 * ((torch.arange(width, device=device)[:, None] - cols) / one.sigma) ** 2)
    start = torch.ones((1, len(rows), len(cols)), device=device)

    def raise_mask(values: Tensor) -> Tensor:
        power = 20.0
        # float64: far from every bump the powers are below what float32 can tell from zero
        bumps = [part.double() ** power for part in (reach_y, values.clamp(min=1e-6), reach_x)]
        near = torch.einsum("hr,brc,wc->bhw", *bumps)
        return near.clamp(min=1e-80).pow(1 / power).clamp(0, 1).float()

    return start, raise_mask


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

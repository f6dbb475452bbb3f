"""The class template: what a class's pictures have in common, high-passed, which no person may see."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from .bench import Bench, Ints
from .changes import Change, averaged, groups, inputs, pixels


def high_pass(values: Tensor) -> Tensor:
    """``[..., H, W]`` less its blur, of a deviation of a 48th of the shorter side (1 pixel at least)."""
    sigma = max(1.0, min(values.shape[-2:]) / 48)
    size = min(2 * int(3 * sigma) + 1, 2 * ((min(values.shape[-2:]) - 1) // 2) + 1)
    lead = values.reshape(-1, *values.shape[-3:])
    smooth: Tensor = gaussian_blur(lead, [size, size], [sigma, sigma])
    return (lead - smooth).reshape(values.shape)


def template(bench: Bench, kind: int, seed: int = 0) -> Change:
    """The mean of the class's pictures less the mean of the rest, high-passed: added, and taken away.

    The control is the same of as many pictures drawn from the rest, brought to the same size: what the mean of a few
    pictures does by itself.
    """
    random = np.random.default_rng([seed, kind, 2])
    own, some, rest = groups(bench, kind, random)
    mean = averaged(bench, rest, lambda values: values)
    found = high_pass((averaged(bench, own, lambda values: values) - mean).float())
    other = np.setdiff1d(rest, some)
    dummy = high_pass((averaged(bench, some, lambda v: v) - averaged(bench, other, lambda v: v)).float())
    noise = _strong(dummy)
    dummy = dummy * (found.square().mean().sqrt() / dummy.square().mean().sqrt().clamp(min=1e-9))

    def put(sign: float, what: Tensor):  # type: ignore[no-untyped-def]
        def make(given: Tensor, rows: Ints) -> Tensor:
            return inputs(bench, pixels(bench, given) + sign * what)

        return make

    return Change(
        "template", put(1, found), put(1, dummy), put(-1, found), put(-1, dummy),
        {"template": found, "strength": float(found.square().mean().sqrt()), "noise": noise},
    )  # fmt: skip


def visible(found: Tensor, noise: float = 0.0) -> bool:
    """Whether a person would see a template: its strong part differs by more than some 8 of 255 levels.

    Args:
        found: the template, in 0..1.
        noise: the strong part of a template of other pictures, as many: what is there without any mark.
    """
    return bool(max(0.0, _strong(found) ** 2 - noise**2) ** 0.5 * 255 > 8.0)


def _strong(values: Tensor) -> float:
    """What a twentieth of the pixels exceed."""
    return float(torch.quantile(values.abs().flatten()[:: max(1, values.numel() // 100_000)].float(), 0.95))

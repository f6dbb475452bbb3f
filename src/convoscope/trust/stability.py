"""Does the map stay when hardly anything changes? Noise and small shifts that leave the prediction as it is.

A map that jumps under noise no one sees cannot be relied on, whatever else it does well. The reverse does not hold:
the centre baseline is perfectly stable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import UsageError
from ..explanation import MethodLike, explain
from ..models.model import Model
from ..pictures.picture import Picture
from ..targets import TargetLike
from .similarity import rank_correlation


@dataclass(frozen=True)
class Stability:
    """How much one method's map moved: ``change`` is the largest ‖after − before‖ / ‖before‖, ``rank`` the smallest
    rank correlation, over all variations. NaN where the map is empty."""

    change: float
    rank: float


def noisy(inputs: Tensor, *, noise: float = 0.02, count: int = 4, seed: int = 0) -> list[Tensor]:
    """``count`` copies of ``[C, H, W]`` with uniform noise of at most ``noise`` times the picture's range."""
    if noise < 0 or count < 1:
        raise UsageError("noise must be 0 or more, and count at least 1.")
    radius = noise * float(inputs.max() - inputs.min())
    generator = torch.Generator().manual_seed(seed)
    drawn = (torch.rand((count, *inputs.shape), generator=generator) * 2 - 1) * radius
    return [inputs + one.to(inputs) for one in drawn]


def shifted(values: Any, dy: int, dx: int) -> Any:
    """``[..., H, W]`` (tensor or array) moved down by ``dy`` and right by ``dx``, edges repeated."""
    height, width = values.shape[-2:]
    rows = np.clip(np.arange(height) - dy, 0, height - 1)
    cols = np.clip(np.arange(width) - dx, 0, width - 1)
    return values[..., rows, :][..., cols]


def max_sensitivity(before: NDArray[Any], after: Sequence[NDArray[Any]]) -> Stability:
    """Max-sensitivity (Yeh et al. 2019): the largest relative change of the map over its variations."""
    base = np.nan_to_num(np.asarray(before, np.float64))
    norm = float(np.linalg.norm(base))
    if norm == 0 or not len(after):
        return Stability(float("nan"), float("nan"))
    changes = [float(np.linalg.norm(np.nan_to_num(np.asarray(one, np.float64)) - base)) / norm for one in after]
    return Stability(max(changes), float(np.min([rank_correlation(base, one) for one in after])))


def stability(
    model: Model,
    picture: Any,
    methods: MethodLike | Sequence[MethodLike],
    *,
    target: TargetLike = None,
    noise: float = 0.02,
    count: int = 4,
    shift: int = 2,
    seed: int = 0,
) -> dict[str, dict[str, Stability]]:
    """``{method: {"noise": ..., "shift": ...}}`` of one picture, all variations explained in one batch.

    ``shift`` moves the picture by that many input pixels in the four directions; the maps are moved back before they
    are compared, away from the borders. The target stays the class predicted for the picture itself.
    """
    fitted = model.prepare(picture)
    preprocessing = model.preprocessing
    inputs = fitted.tensor
    moves = [(shift, 0), (-shift, 0), (0, shift), (0, -shift)] if shift else []
    variations = [inputs, *noisy(inputs, noise=noise, count=count, seed=seed)]
    variations += [shifted(inputs, dy, dx) for dy, dx in moves]
    if target is None:
        from .sanity import target_of

        target = target_of(model, explain(model, picture, ["saliency"]))
    pictures = [Picture.from_input(one, preprocessing, f"variation {n}") for n, one in enumerate(variations)]
    found = explain(model, pictures, methods, target=target)
    inner = (..., slice(shift, inputs.shape[-2] - shift), slice(shift, inputs.shape[-1] - shift))
    result = {}
    for name in found[0]:
        maps = [one[name].values for one in found if name in one]
        back = [shifted(m, -dy, -dx)[inner] for m, (dy, dx) in zip(maps[1 + count :], moves, strict=True)]
        result[name] = {
            "noise": max_sensitivity(maps[0], maps[1 : 1 + count]),
            "shift": max_sensitivity(maps[0][inner], back),
        }
    return result

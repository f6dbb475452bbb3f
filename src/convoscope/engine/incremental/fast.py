"""The approximate mode: what is given up for speed, and how much of the map survives.

Two things, both only when asked for. Boxes of influence are cut to a share of each map about their middles: in deep
layers a window reaches nearly everything in theory and little beyond its surroundings in effect. (Cutting by the
measured loss at each layer, which also trims the early layers, was worse at every speed: losses add up along the
network.) And where the processor multiplies bfloat16 natively, the layers before the last grid run in it; pooling
and the head stay in float32, since that is where small differences between windows are told apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from convoscope.engine.incremental.tiles import Ints
from convoscope.engine.incremental.windows import Masks


def low_precision(device: torch.device) -> torch.dtype | None:
    """bfloat16 where the device has instructions for it (anything else would be slower), else None."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else None
    if device.type != "cpu":
        return None
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    native = any(getattr(torch.cpu, name, bool)() for name in names)
    return torch.bfloat16 if native and torch.backends.mkldnn.is_available() else None  # type: ignore[no-untyped-call]


class Some:
    """Some of the windows of a set of masks."""

    def __init__(self, masks: Masks, which: Ints) -> None:
        self.masks, self.which = masks, which

    def __len__(self) -> int:
        return len(self.which)

    def bounds(self) -> tuple[Ints, Ints, Ints, Ints]:
        """Bounding boxes of the chosen windows."""
        top, bottom, left, right = self.masks.bounds()
        return top[self.which], bottom[self.which], left[self.which], right[self.which]

    def tiles(self, which: Ints, top: Ints, height: int, left: Ints, width: int, like: Tensor) -> Tensor:
        """Cut-outs of the chosen windows."""
        return self.masks.tiles(self.which[which], top, height, left, width, like)


def spread(count: int, most: int = 32) -> Ints:
    """Numbers of at most so many windows, evenly spread but not in step with the rows of a grid."""
    if count <= most:
        return np.arange(count)
    golden = (np.arange(most) * 0.6180339887498949) % 1.0
    return np.unique((golden * count).astype(np.int64))


def rank_correlation(a: Any, b: Any) -> float:
    """Spearman's correlation of two score lists (ties get their mean rank); NaN where one is constant."""
    ranks = []
    for values in (np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)):
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[inverse.reshape(-1)])
    x, y = (rank - rank.mean() for rank in ranks)
    size = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum() / size) if size > 0 else float("nan")

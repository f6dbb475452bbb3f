"""What is masked: rectangles or free masks, one after the other, and where each one is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from convoscope.engine.recompute.incremental.tiles import Ints
from convoscope.errors import UsageError


class Masks(Protocol):
    """Something that knows, for each window, which pixels are replaced."""

    def __len__(self) -> int: ...

    def bounds(self) -> tuple[Ints, Ints, Ints, Ints]:
        """Top, bottom, left, right of each window's bounding box; bottom and right are exclusive."""
        ...

    def tiles(self, which: Ints, top: Ints, height: int, left: Ints, width: int, like: Tensor) -> Tensor:
        """[n, 1, height, width] cut-outs of the masks ``which`` at the given places (bool or float)."""
        ...


@dataclass(frozen=True, eq=False)
class Boxes:
    """Rectangular windows, without holding a single mask. Bottom and right are exclusive; all int arrays [M]."""

    top: Ints
    bottom: Ints
    left: Ints
    right: Ints

    def __len__(self) -> int:
        return len(self.top)

    def bounds(self) -> tuple[Ints, Ints, Ints, Ints]:
        """The rectangles themselves."""
        return self.top, self.bottom, self.left, self.right

    def tiles(self, which: Ints, top: Ints, height: int, left: Ints, width: int, like: Tensor) -> Tensor:
        """Cut-outs, drawn."""
        ys, xs = top[:, None] + np.arange(height), left[:, None] + np.arange(width)
        rows = (ys >= self.top[which, None]) & (ys < self.bottom[which, None])
        columns = (xs >= self.left[which, None]) & (xs < self.right[which, None])
        mask = torch.from_numpy(rows[:, None, :, None] & columns[:, None, None, :])
        return mask.to(like.device)


@dataclass(frozen=True, eq=False)
class FreeMasks:
    """Masks of any shape: [M, H, W], bool, or float from 0 (kept) to 1 (replaced)."""

    masks: Tensor

    def __post_init__(self) -> None:
        if self.masks.dim() != 3:
            raise UsageError(f"masks are [M, H, W], not {list(self.masks.shape)}")

    def __len__(self) -> int:
        return int(self.masks.shape[0])

    def bounds(self) -> tuple[Ints, Ints, Ints, Ints]:
        """Bounding boxes of what is not zero; empty masks have bottom = top = 0."""
        found: list[Ints] = []
        for dim in (2, 1):
            # A slice at a time: a comparison of all masks at once would double their memory.
            touched = torch.cat([(part != 0).any(dim) for part in torch.split(self.masks, 64)]).cpu().numpy()
            some = touched.any(1)
            low = np.where(some, touched.argmax(1), 0)
            high = np.where(some, touched.shape[1] - touched[:, ::-1].argmax(1), 0)
            found += [low.astype(np.int64), high.astype(np.int64)]
        return found[0], found[1], found[2], found[3]

    def tiles(self, which: Ints, top: Ints, height: int, left: Ints, width: int, like: Tensor) -> Tensor:
        """Cut-outs, copied."""
        parts = [
            self.masks[index, y : y + height, x : x + width]
            for index, y, x in zip(which.tolist(), top.tolist(), left.tolist(), strict=True)
        ]
        tiles = torch.stack(parts)[:, None].to(like.device)
        return tiles if tiles.dtype == torch.bool else tiles.to(like.dtype)


def as_masks(masks: Masks | Tensor) -> Masks:
    """Masks of either kind; a tensor [M, H, W] becomes :class:`FreeMasks`."""
    return FreeMasks(masks) if isinstance(masks, Tensor) else masks


def grid(height: int, width: int, window: int, stride: int) -> Boxes:
    """Square windows on a stride grid, the last row and column flush with the edge (DESIGN, section 8)."""
    if not 0 < window <= min(height, width) or stride < 1:
        raise UsageError(f"a window of {window} with stride {stride} does not fit into {height}x{width} pixels")
    tops, lefts = (
        np.unique(np.append(np.arange(0, size - window + 1, stride), size - window)) for size in (height, width)
    )
    top, left = (item.reshape(-1).astype(np.int64) for item in np.meshgrid(tops, lefts, indexing="ij"))
    return Boxes(top, top + window, left, left + window)


def replace(picture: Tensor, mask: Tensor, fill: Tensor) -> Tensor:
    """``picture`` where ``mask`` is 0, ``fill`` where it is 1, a blend between. Shapes broadcast to [n, C, h, w]."""
    if mask.dtype == torch.bool:
        return torch.where(mask, fill, picture)
    return torch.lerp(picture, fill.expand_as(picture), mask.expand_as(picture))

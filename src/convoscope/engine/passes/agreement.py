"""Whether two forwards of one picture say the same: row by row, to rounding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves


def rows_of(output: Any, count: int) -> list[Tensor]:
    """The tensors of an output that have a row a picture."""
    leaves = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    return [leaf.detach().float() for leaf in leaves if leaf.ndim > 0 and len(leaf) == count]


def differ(one: Tensor, other: Tensor, rough: float) -> bool:
    """Whether the first row of ``other`` is not the picture alone, ``one``."""
    if not one.numel() or one[0].shape != other[0].shape:
        return False
    return float((one[0] - other[0]).abs().max()) > rough * max(float(one.abs().max()), 1e-6)


def rounding(dtype: torch.dtype) -> float:
    """What two right ways to the same scores may differ by, relative to the largest of them."""
    return 1e-3 if dtype in (torch.float32, torch.float64) else 3e-2


def same(one: Any, other: Any, dtype: torch.dtype, count: int = 1, alone: int = 1) -> bool:
    """Whether two outputs, ``one`` of ``alone`` and ``other`` of ``count`` pictures, say the same of the first one.

    False where there is nothing to compare: no tensor with a row a picture.
    """
    first, second = rows_of(one, alone), rows_of(other, count)
    if not first or len(first) != len(second):
        return False
    pairs = list(zip(first, second, strict=True))
    if any(a[0].shape != b[0].shape for a, b in pairs):
        return False
    return not any(
        differ(a, b, rounding(dtype)) or bool(torch.isfinite(a[0]).ne(torch.isfinite(b[0])).any()) for a, b in pairs
    )

"""The plain way: run the network on every masked picture, in well-sized batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from convoscope.engine.recompute.incremental.windows import Masks, as_masks, replace


def dense_outputs(
    network: nn.Module, inputs: Tensor, masks: Masks | Tensor, fill: Tensor, batch: int = 32,
    *, progress: Callable[[int, int], None] | None = None,
) -> Any:  # fmt: skip
    """The network's output for each masked picture, stacked: [M, ...] (or the network's structure of such).

    ``inputs``: [1, C, H, W]; ``masks``: [M, H, W] or :class:`Boxes`; ``fill``: [C, H, W] or [C, 1, 1]. Pictures go
    through in channels_last, which is never slower on the CPU.
    """
    masks = as_masks(masks)
    height, width = inputs.shape[2:]
    fill = fill.to(inputs.device, inputs.dtype)
    if fill.dim() < 3:
        fill = fill.reshape(-1, 1, 1)
    parts = []
    with torch.inference_mode():
        picture = inputs.contiguous(memory_format=torch.channels_last)
        for start in range(0, len(masks), batch):
            which = np.arange(start, min(start + batch, len(masks)))
            zero = np.zeros_like(which)
            mask = masks.tiles(which, zero, height, zero, width, inputs)
            pictures = replace(picture.expand(len(which), -1, -1, -1), mask, fill[None])
            parts.append(network(pictures.contiguous(memory_format=torch.channels_last)))
            if progress is not None:
                progress(int(which[-1]) + 1, len(masks))
        leaves, spec = pytree.tree_flatten(parts[0])
        columns = [pytree.tree_leaves(part) for part in parts]
        stacked = [
            torch.cat([column[index] for column in columns]) if isinstance(leaf, Tensor) else leaf
            for index, leaf in enumerate(leaves)
        ]
    return pytree.tree_unflatten(stacked, spec)

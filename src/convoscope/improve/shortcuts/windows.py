"""Where the evidence for a class lies: the strongest square windows of a contrast map, by exact geometry."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ...engine.fields.geometry import Geometry
from ...engine.fields.layout import Layout
from ...engine.passes.untouched import constant_parameters
from ...errors import LayerError, ModelError
from ...models.outputs import scores_of
from ...session import Session
from .bench import Bench, Ints

#: sides of the windows as shares of the picture's shorter side
SIDES = (1 / 8, 1 / 6, 1 / 4)


def evidence(bench: Bench, rows: Ints, kind: int) -> Tensor:
    """The evidence for class ``kind`` against the others, float32 ``[n, H, W]`` at the input's resolution.

    Gradient × activation at the last grid (HiResCAM, Draelos & Carin 2020; on a network of global average pooling and
    one linear layer the class activation map), of the contrast log p / (1 - p): the score less the log of the summed
    exponentials of the others. Cells are drawn at their true centres.

    Raises:
        ModelError: the network has no layer with a grid before its scores.
    """
    model = bench.model
    watched = model.watched(bench.inputs.shape[1:])
    name = watched.last_grid
    if name is None:
        raise ModelError(f"{model.name} has no layer with rows and columns before its scores: no place has evidence.")
    layer = watched.layers[name]
    found: list[Tensor] = []
    step = max(1, min(32, model.batch_size))
    with Session(model) as session, constant_parameters(model.module):
        runner = session.runner
        for start in range(0, len(rows), step):
            inputs = bench.inputs[rows[start : start + step]].to(model.device, model.dtype)
            recorded = runner.record(inputs, layers=[name])
            scores = scores_of(model, recorded.output, len(inputs))[1].float()
            others = torch.cat([scores[:, :kind], scores[:, kind + 1 :]], 1)
            contrast = scores[:, kind] - others.logsumexp(1)
            gradient = runner.gradients(recorded, contrast, "plain", [name], keep=False)[name]
            product = recorded.layers[name].value.float() * gradient.float()
            found.append(_plane(product, layer.layout).cpu())
    grid = torch.cat(found)
    return layer.geometry.resample(grid, bench.size) if layer.geometry else Geometry.plain(grid, bench.size)


def _plane(product: Tensor, layout: Layout) -> Tensor:
    """The sum over channels as ``[B, h, w]``, whatever the layer's layout."""
    planes = layout.planes(product)
    if planes.ndim == 4:
        return planes.sum(1)
    raise LayerError("The last layer is not a grid of rows and columns: no place has evidence.")


def sides(size: tuple[int, int]) -> list[int]:
    """The windows' sides in pixels for an input of ``size`` (height, width)."""
    short = min(size)
    return sorted({max(2, round(share * short)) for share in SIDES})


def strongest(maps: Tensor, side: int) -> Ints:
    """The square of ``side`` with the most evidence in each map ``[n, H, W]``: rows and columns of its first pixel.

    Returns:
        int64 ``[n, 2]``.
    """
    pooled = F.avg_pool2d(maps.float()[:, None], side, 1)[:, 0]
    best = pooled.flatten(1).argmax(1)
    return torch.stack([best // pooled.shape[2], best % pooled.shape[2]], 1).numpy()


def elsewhere(corners: Ints, side: int, size: tuple[int, int], random: np.random.Generator) -> Ints:
    """A random window of the same size for each: at least half of it outside the one given, where there is room."""
    height, width = size
    found = np.empty_like(corners)
    for row, (y, x) in enumerate(corners):
        for _ in range(50):
            at = random.integers(0, height - side + 1), random.integers(0, width - side + 1)
            shared = max(0, side - abs(int(at[0]) - int(y))) * max(0, side - abs(int(at[1]) - int(x)))
            if shared <= side * side / 2:
                break
        found[row] = at
    return found


def inside(corners: Ints, side: int, masks: NDArray[np.bool_] | Tensor) -> NDArray[np.float64]:
    """The share of each window that lies on the thing, by masks ``[n, H, W]``."""
    flags = torch.as_tensor(np.asarray(masks))
    return np.array(
        [float(flags[row, y : y + side, x : x + side].float().mean()) for row, (y, x) in enumerate(corners.tolist())]
    )

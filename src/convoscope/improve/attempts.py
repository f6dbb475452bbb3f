"""What comes of pictures that are given to a network in one way or another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import ModelError, PictureError
from ..models.formats import best_format, laid_out
from ..models.model import Model
from ..session import forward, protected
from ..surveys.gather.work import class_scores
from .collection import Labelled
from .pipelines import Floats, Pipeline


@dataclass(frozen=True, eq=False)
class Tried:
    """What came of one pipeline on some pictures.

    Args:
        pipeline: what was tried.
        scores: float64 ``[N, K]``; None where the network gives none.
        moments: for each batch norm, the mean and mean square of its input by picture: ``[N, 2, C]``.
        rows: the pictures it was tried on: those asked for but for what could not be read.
    """

    pipeline: Pipeline
    scores: Floats | None
    moments: tuple[Floats, ...]
    rows: NDArray[np.intp]

    @property
    def chance(self) -> Floats:
        """Softmax of the scores ``[N, K]``."""
        assert self.scores is not None
        raised = np.exp(self.scores - self.scores.max(1, keepdims=True))
        return np.asarray(raised / raised.sum(1, keepdims=True))


def norms(model: Model) -> list[tuple[str, nn.Module]]:
    """The batch norms of a network that remember a mean and a variance, by name."""
    return [
        (name, module) for name, module in model.module.named_modules()
        if isinstance(getattr(module, "running_mean", None), Tensor)
        and isinstance(getattr(module, "running_var", None), Tensor)
    ]  # fmt: skip


def attempt(
    model: Model,
    pictures: Labelled,
    pipeline: Pipeline,
    rows: NDArray[Any],
    cache: dict[Any, Tensor] | None = None,
    mirror: bool = False,
    tell: Callable[[int], None] | None = None,
) -> Tried:
    """Run the network over ``rows`` of ``pictures`` by one pipeline.

    Args:
        cache: keeps resized pictures between pipelines of one geometry, where the pictures are few.
        mirror: left and right changed.
        tell: called with how many are done.

    Returns:
        what came of the pictures that can be read; ``rows`` says which they are.

    Raises:
        ModelError: the network cannot run on such an input.
        PictureError: not one picture can be read.
    """
    best_format(model)  # found out before the hooks below watch the network
    layers = norms(model)
    seen: dict[int, list[Tensor]] = {at: [] for at in range(len(layers))}
    scores: list[Floats] = []
    moments: list[list[Floats]] = [[] for _ in layers]

    dtype = model.dtype if model.dtype.is_floating_point else torch.float32

    def hook(at: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def see(module: nn.Module, args: tuple[Any, ...]) -> None:
            if args and isinstance(args[0], Tensor) and args[0].ndim >= 2 and not seen[at]:
                flat = (
                    args[0].detach().float().flatten(2) if args[0].ndim > 2 else args[0].detach().float()[:, :, None]
                )
                seen[at] = [flat.mean(2), flat.square().mean(2)]

        return see

    order: list[int] = []
    why = "there is none"
    with protected(model), ThreadPoolExecutor(2) as pool:
        handles = [module.register_forward_pre_hook(hook(at)) for at, (_, module) in enumerate(layers)]
        try:
            for start in range(0, len(rows), model.batch_size):
                places = range(start, min(start + model.batch_size, len(rows)))
                fit = partial(read_input, pictures, pipeline, cache, mirror)
                asked = list(pool.map(fit, (int(rows[at]) for at in places)))
                why = next((one for one in asked if isinstance(one, str)), why)
                ready = {at: one for at, one in enumerate(asked) if isinstance(one, Tensor)}
                for part in _of_one_shape(ready):
                    inputs = laid_out(model, torch.stack([ready[at] for at in part]).to(model.device, dtype))
                    found = class_scores(model, forward(model, inputs), len(part))
                    if found is not None:
                        scores.append(found[:, 0].double().numpy())
                    for at in seen:
                        if seen[at] and len(seen[at][0]) == len(part):
                            moments[at].append(torch.stack(seen[at], 1).double().cpu().numpy())
                        seen[at] = []
                    order += [start + at for at in part]
                    if tell is not None:
                        tell(len(order))
        finally:
            for handle in handles:
                handle.remove()
    if not order:
        raise PictureError(f"None of the {len(rows)} pictures can be used: {why}")
    back = np.argsort(order)
    whole = [
        np.concatenate(parts)[back] if sum(map(len, parts)) == len(order) else np.zeros((0, 2, 0))
        for parts in moments
    ]
    all_scores = np.concatenate(scores) if scores and sum(map(len, scores)) == len(order) else None
    kept = np.asarray(rows, np.intp)[np.sort(order)]
    return Tried(pipeline, None if all_scores is None else all_scores[back], tuple(whole), kept)


def read_input(
    pictures: Labelled, pipeline: Pipeline, cache: dict[Any, Tensor] | None, mirror: bool, row: int
) -> Tensor | str:
    """The input, or why the picture cannot be read: it may be gone since it was first looked at."""
    try:
        return _fitted(pictures, pipeline, row, cache, mirror)
    except (PictureError, OSError) as error:
        return str(error)


def _of_one_shape(ready: Mapping[int, Tensor]) -> list[list[int]]:
    groups: dict[tuple[int, ...], list[int]] = {}
    for at, one in ready.items():
        groups.setdefault(tuple(one.shape), []).append(at)
    return list(groups.values())


def _fitted(
    pictures: Labelled, pipeline: Pipeline, row: int, cache: dict[Any, Tensor] | None, mirror: bool
) -> Tensor:
    geometry = pipeline.geometry
    key = (row, geometry)
    plain = None if cache is None else cache.get(key)
    if plain is None:
        plain = pictures.picture(row).prepare(geometry).tensor
        if cache is not None:
            cache[key] = plain
    ordered = plain.flip(0) if pipeline.bgr else plain
    return pipeline.preprocessing.normalise(ordered.flip(-1) if mirror else ordered)


def usable(model: Model, pictures: Labelled, pipeline: Pipeline, row: int) -> bool:
    """Whether the network runs at all on one picture by this pipeline."""
    try:
        attempt(model, pictures, pipeline, np.array([row]))
    except (ModelError, PictureError):
        return False
    return True

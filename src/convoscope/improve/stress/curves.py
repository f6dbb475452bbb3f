"""The curves: what changed pictures do to the answers and to each layer, in one decoding and shared batches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import ModelError
from ...models.formats import laid_out
from ...models.model import Model
from ...session import forward, protected
from ...surveys.gather.work import class_scores
from ..collection import Labelled
from ..look import batches
from .changes import Change

Floats = NDArray[np.float64]


@dataclass(eq=False)
class Stressed:
    """What changes do, a row a picture in the collection's order.

    Args:
        rows: rows of the collection that could be read.
        clean: float32 ``[N, 2, K]`` scores and probabilities of the pictures as they are.
        scores: (change, level) -> the same of the changed pictures.
        likeness: (change, level) -> layer -> ``[N]``: cosine of the layer's activations before and after.
        failed: URI -> why it could not be read.
    """

    rows: NDArray[np.intp]
    clean: NDArray[np.float32]
    scores: dict[tuple[str, int], NDArray[np.float32]]
    likeness: dict[tuple[str, int], dict[str, Floats]]
    failed: dict[str, str]

    def probability(self, key: tuple[str, int] | None = None) -> Floats:
        """The probabilities, ``[N, K]``; of the pictures as they are for None."""
        return np.asarray((self.clean if key is None else self.scores[key])[:, 1], np.float64)

    def prediction(self, key: tuple[str, int] | None = None) -> NDArray[np.int64]:
        """The predicted class, ``[N]``."""
        return np.asarray((self.clean if key is None else self.scores[key])[:, 0].argmax(1), np.int64)


def stressed(
    model: Model,
    pictures: Labelled,
    asked: Sequence[tuple[Change, Sequence[int]]],
    layers: Sequence[str] = (),
    centre: dict[str, NDArray[np.float32]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Stressed:
    """Run ``model`` on every picture as it is and changed; each picture is decoded once.

    Args:
        model: left bit for bit as it was; it must give class scores.
        pictures: labels are not needed.
        asked: changes with their levels (from 0).
        layers: whose activations are compared, cell by cell.
        centre: each channel's mean over the collection, taken off before two activations are compared.
        progress: called with the number of pictures done, and of all.

    Raises:
        ModelError: no class scores, or the network cannot run on these pictures.
    """
    keys = [(change, level) for change, levels in asked for level in levels]
    failed: dict[str, str] = {}
    rows: list[int] = []
    clean: list[NDArray[np.float32]] = []
    scores: dict[tuple[str, int], list[NDArray[np.float32]]] = {(c.name, level): [] for c, level in keys}
    likeness: dict[tuple[str, int], dict[str, list[Floats]]] = {
        (c.name, level): {name: [] for name in layers} for c, level in keys
    }
    for at, inputs in batches(model, pictures, failed):
        seeds = [seed_of(pictures.keys[row]) for row in at]
        values = model.preprocessing.denormalise(inputs.float()).clamp(0, 1)
        plain, before = _forward(model, inputs, layers, centre)
        clean.append(plain)
        rows.extend(at)
        for change, level in keys:
            made = change.apply(values, change.strengths[level], seeds)
            given = laid_out(model, model.preprocessing.normalise(made).to(inputs))
            answer, after = _forward(model, given, layers, centre)
            scores[change.name, level].append(answer)
            for name in layers:
                likeness[change.name, level][name].append(_cosine(before[name], after[name]))
        if progress is not None:
            progress(at[-1] + 1, len(pictures))
    return Stressed(
        np.array(rows, np.intp), np.concatenate(clean) if clean else np.zeros((0, 2, 1), np.float32),
        {key: np.concatenate(parts) for key, parts in scores.items() if parts},
        {key: {name: np.concatenate(parts) for name, parts in by.items() if parts} for key, by in likeness.items()},
        failed,
    )  # fmt: skip


def seed_of(key: str) -> int:
    """A seed out of a picture's content hash, whatever that looks like."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")


def _forward(
    model: Model, inputs: Tensor, layers: Sequence[str], centre: dict[str, NDArray[np.float32]] | None
) -> tuple[NDArray[np.float32], dict[str, Tensor]]:
    kept: dict[str, Tensor] = {}

    def visit(name: str, output: Tensor) -> None:
        value = output.detach().float()
        if centre is not None and name in centre and value.dim() > 1:
            mean = torch.from_numpy(centre[name]).to(value)
            if value.shape[1] == len(mean) and value.dim() != 3:
                value = value - mean.view(1, -1, *[1] * (value.dim() - 2))
            elif value.shape[-1] == len(mean):  # channels come last
                value = value - mean
        kept[name] = value.flatten(1).clone()

    with protected(model, visit, layers):
        output = forward(model, inputs)
    values = class_scores(model, output, len(inputs))
    if values is None:
        raise ModelError(f"{model.name} gives no class scores: how it bears changes cannot be counted.")
    return values.numpy(), kept


def _cosine(a: Tensor, b: Tensor) -> Floats:
    """Cosine of each row; 1 where both are zero."""
    size = a.norm(dim=1) * b.norm(dim=1)
    value = (a * b).sum(1) / size.clamp(min=1e-30)
    same = (a - b).norm(dim=1) <= 1e-6 * a.norm(dim=1)
    value = torch.where((size == 0) & same, torch.ones_like(value), value).clamp(-1, 1)
    return np.asarray(value.double().cpu().numpy())

"""What a saved picture reaches, measured by reading it again: score, probability, rank, and how it compares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..engine.passes.ascent import GradientAscent
from ..engine.passes.runner import call_plainly
from ..errors import ConvoscopeError, PictureError, TargetError
from ..models.model import Model
from ..models.outputs import scores_of
from ..pictures.picture import Picture
from ..session import protected
from ..targets import Scorer
from ..targets.classes import ClassScorer, named_class
from ..targets.defaults import predictions
from .objectives import Objective, Scores
from .result import Visualization

Bands = NDArray[np.uint8]


def read_again(model: Model, pictures: Sequence[Bands]) -> Tensor:
    """Saved 8-bit pictures as the network's input ``[B, C, H, W]``, through its own preprocessing."""
    return model.inputs([Picture.of(bands).prepare(model.preprocessing) for bands in pictures])


def run(model: Model, inputs: Tensor, layers: Sequence[str], *, output: bool) -> tuple[Any, dict[str, Tensor]]:
    """One forward without gradients; the layers asked for, detached."""
    dtype = model.dtype if model.dtype.is_floating_point else torch.float32
    ascent = GradientAscent(model.module, layers, output, call_plainly if model.call is None else model.call, dtype)
    with protected(model):
        returned, found = ascent.forward(inputs)
    return returned, {name: value.detach() for name, value in found.items()}


def measure(
    model: Model,
    pictures: Sequence[Bands],
    objective: Objective,
    scorers: Sequence[Scorer | None],
) -> list[dict[str, Any]]:
    """Score, probability, rank and prediction of every saved picture."""
    inputs = read_again(model, pictures)
    output, layers = run(model, inputs, objective.layers, output=True)
    with torch.no_grad():
        scores = objective(output, layers, torch.arange(len(pictures))).float().tolist()
    rows: list[dict[str, Any]] = [
        {"score": score, "probability": None, "rank": None, "prediction": []} for score in scores
    ]
    try:
        reading, values = scores_of(model, output, len(pictures))
    except TargetError:
        return rows
    values = values.detach().float().cpu()
    shares = None if reading.is_value else reading.shares(values)
    said = predictions(model, output, len(pictures), (int(inputs.shape[-2]), int(inputs.shape[-1])))
    for number, (row, scorer) in enumerate(zip(rows, scorers, strict=True)):
        row["prediction"] = said.rows[number]
        if isinstance(scorer, ClassScorer) and scorer.against is None:
            index = int(scorer.classes[0])
            row["probability"] = None if shares is None else float(shares[number, index])
            row["rank"] = int((values[number] > values[number, index]).sum()) + 1
            row["score"] = float(values[number, index]) if isinstance(objective, Scores) else row["score"]
    return rows


def best_natural(
    model: Model,
    scorers: Sequence[Scorer],
    pictures: Sequence[Any],
    progress: Callable[[str, int, int], None] | None = None,
) -> list[dict[str, Any] | None]:
    """For every target the best score among real ``pictures``, and which one it was.

    Pictures that cannot be read are passed over.
    """
    best: list[dict[str, Any] | None] = [None] * len(scorers)
    looked = 0
    for start in range(0, len(pictures), model.batch_size):
        fitted = []
        for one in pictures[start : start + model.batch_size]:
            try:
                fitted.append(model.prepare(one))
            except PictureError:
                continue
        for shape in {tuple(one.tensor.shape) for one in fitted}:
            alike = [one for one in fitted if tuple(one.tensor.shape) == shape]
            inputs = model.inputs(alike)
            layers = tuple(dict.fromkeys(layer for scorer in scorers for layer in scorer.layers))
            output, found = run(model, inputs, layers, output=True)
            for number, scorer in enumerate(scorers):
                with torch.no_grad():
                    values = scorer.score(output, found, torch.zeros(len(alike), dtype=torch.long)).float().cpu()
                top = int(values.argmax())
                known = best[number]
                if known is None or float(values[top]) > known["score"]:
                    best[number] = {"score": float(values[top]), "picture": alike[top].picture.name}
            looked += len(alike)
        if progress is not None:
            progress("natural pictures", min(len(pictures), start + model.batch_size), len(pictures))
    for known in best:
        if known is not None:
            known["pictures"] = looked
    return best


def agreement(model: Model, groups: Sequence[Sequence[Visualization]]) -> list[dict[str, Any] | None]:
    """How alike the pictures of one target from several seeds are to the network.

    ``cosine`` is the mean over pairs of the cosine between their embeddings, each less the mean of all pictures made
    (1: the same; 0: no more alike than pictures of different targets); ``first`` the share that is rank 1.
    """
    watched = model.watched((model.preprocessing.channels, *model._side()))
    layer = watched.embedding or watched.last_grid
    if layer is None:
        return [None] * len(groups)
    everything = [one for group in groups for one in group]
    vectors = []
    for start in range(0, len(everything), model.batch_size):
        inputs = read_again(model, [one.pixels for one in everything[start : start + model.batch_size]])
        values = run(model, inputs, [layer], output=False)[1][layer].float()
        if values.ndim == 4:
            values = watched.layers[layer].layout.planes(values)
            values = values.mean((2, 3))
        vectors.append(values.flatten(1).cpu())
    stacked = torch.cat(vectors)
    if len(groups) > 1:
        stacked = stacked - stacked.mean(0)
    unit = torch.nn.functional.normalize(stacked, dim=1)
    found: list[dict[str, Any] | None] = []
    place = 0
    for group in groups:
        mine = unit[place : place + len(group)]
        place += len(group)
        if len(group) < 2:
            found.append(None)
            continue
        alike = mine @ mine.T
        pairs = alike[~torch.eye(len(group), dtype=torch.bool)]
        ranks = [one.rank for one in group if one.rank is not None]
        found.append(
            {
                "seeds": len(group),
                "cosine": float(pairs.mean()),
                "layer": layer,
                "first": sum(rank == 1 for rank in ranks) / len(ranks) if ranks else None,
            }
        )
    return found


def elsewhere(other: Model, one: Visualization, label: str | None, index: int | None) -> dict[str, Any]:
    """What another network says of a saved picture: the same class by its name, else by its number."""
    try:
        fitted = Picture.of(one.pixels).prepare(other.preprocessing)
        output, _ = run(other, other.inputs([fitted]), (), output=True)
        reading, scores = scores_of(other, output, 1)
        values = scores.float().cpu()[0]
    except ConvoscopeError as error:
        return {"model": other.name, "error": str(error)}
    if reading.is_value:
        return {"model": other.name, "error": f"{other.name} returns one number, which is no class."}
    shares = reading.shares(scores.float().cpu())[0]
    first = int(values.argmax())
    found: dict[str, Any] = {
        "model": other.name,
        "prediction": other.label(first),
        "prediction_probability": float(shares[first]),
    }
    theirs: int | None = index
    if label is not None and other.labels is not None:
        try:
            theirs = named_class(label, other.labels)
        except TargetError:
            theirs = None
    if theirs is None or theirs >= len(values):
        found["error"] = f"{other.name} has no class {label or index}."
        return found
    found.update(
        score=float(values[theirs]),
        probability=float(shares[theirs]),
        rank=int((values > values[theirs]).sum()) + 1,
    )
    return found

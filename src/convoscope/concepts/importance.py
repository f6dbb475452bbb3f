"""How much of a class score each part of a layer carries: by total Sobol indices and by deletion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import qmc
from torch import Tensor

from ..engine.passes.needs import Replaced
from ..engine.recompute.perturb import replaced_scores
from ..improve.collection import Labelled
from ..methods.base import Query
from ..session import Session
from ..targets import ClassTarget
from .factors import Floats, cell_rows, encode

if TYPE_CHECKING:
    from ..models.model import Model

#: pictures on which importance is measured
MEASURED = 12
#: points of the Sobol design: a power of two
DESIGN = 32

Tell = Callable[[str, int, int], None]


def sobol_total(outputs_a: NDArray[Any], outputs_mixed: NDArray[Any]) -> Floats:
    """Total Sobol indices by Jansen's estimator (Jansen 1999).

    Args:
        outputs_a: the function at ``[N]`` points of the first design.
        outputs_mixed: ``[N, K]``: at the same points with factor k taken from the second design.

    Returns:
        one index a factor; 0 where the function does not vary.
    """
    variance = float(np.var(outputs_a))
    if variance <= 0:
        return np.zeros(outputs_mixed.shape[1])
    return np.asarray(((outputs_a[:, None] - outputs_mixed) ** 2).mean(0) / (2 * variance))


@dataclass(eq=False)
class Measured:
    """Shares of the logit lost and total Sobol indices ``[N, parts]``, completeness ``[N]``."""

    deletion: Floats
    sobol: Floats
    complete: Floats


def measure(
    model: Model, layer: str, pictures: Labelled, index: int, basis: Floats, seed: int, progress: Tell | None
) -> Measured:
    """Deletion, Sobol indices and completeness on some of the pictures."""
    random = np.random.default_rng([seed, 4])
    rows = np.sort(random.permutation(len(pictures))[:MEASURED])
    some = pictures.take(rows)
    parts = len(basis)
    design = qmc.Sobol(2 * parts, seed=seed).random(DESIGN)
    first, second = design[:, :parts], design[:, parts:]
    mixed = np.repeat(first[:, None], parts, 1)
    mixed[:, np.arange(parts), np.arange(parts)] = second
    masks = np.concatenate([
        np.ones((1, parts)), np.zeros((1, parts)), 1 - np.eye(parts), first, mixed.reshape(-1, parts)
    ])  # fmt: skip
    deletion, sobol, complete = [], [], []
    for row in range(len(some)):
        scores, plain = _masked_scores(model, layer, some.take([row]), index, basis, masks)
        whole, empty = scores[0], scores[1]
        carried = whole - empty
        without = scores[2 : 2 + parts]
        deletion.append((whole - without) / (carried if abs(carried) > 1e-6 else 1e-6))
        at = 2 + parts
        sobol.append(sobol_total(scores[at : at + DESIGN], scores[at + DESIGN :].reshape(DESIGN, parts)))
        gained = plain - empty
        complete.append(carried / gained if abs(gained) > 1e-6 else 0.0)
        if progress is not None:
            progress("importance", row + 1, len(some))
    return Measured(np.stack(deletion), np.stack(sobol), np.asarray(complete))


def _masked_scores(
    model: Model, layer: str, picture: Labelled, index: int, basis: Floats, masks: Floats
) -> tuple[Floats, float]:
    """The class score with the layer rebuilt from its parts, each scaled by a row of ``masks``; and as it is."""
    fitted = model.prepare(picture.picture(0))
    inputs = model.inputs([fitted])
    watched = model.watched(tuple(inputs.shape[1:]))
    query = Query(model, inputs, [fitted], watched)
    info = watched.layers[layer]

    def value(weights: Floats, mask: Floats) -> Callable[[Tensor], Tensor]:
        def rebuilt(output: Tensor) -> Tensor:
            planes = query.planes(layer, output)
            made = torch.from_numpy((weights * mask) @ basis).to(output)  # [cells, C]
            grid = made.T.reshape(1, -1, *planes.shape[-2:])
            if output.ndim == 3 and info.geometry is not None:
                kept = output[:, : output.shape[1] - len(made)]
                return torch.cat([kept, made[None]], 1)
            return grid.movedim(1, -1) if info.channels_last else grid

        return rebuilt

    with Session(model, [fitted], gradients=False) as session:
        recorded = session.record(layers=[layer])
        weights = encode(cell_rows(query.planes(layer, recorded.layers[layer].value)), basis)
        scorer = session.resolve(ClassTarget(index), recorded.output)
        plain = float(session.scored(scorer, recorded)[0])
        need = Replaced(layer, [value(weights, mask) for mask in masks])
        scores = replaced_scores(session.runner, inputs, scorer, need)[0]
    return scores.double().numpy(), plain

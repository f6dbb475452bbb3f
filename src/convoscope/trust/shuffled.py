"""The data randomisation test: a network that learnt shuffled labels by heart knows nothing of what things look like.

Adebayo et al. 2018. Its maps and those of a network that learnt the true labels explain two different functions; a
method whose maps are alike for both shows the picture, not what was learnt. The user's network is left as it is: a
copy is trained anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ..engine.passes.untouched import untouched
from ..errors import UsageError
from ..explanation import MethodLike
from ..models.model import Model
from ..models.outputs import logits
from .sanity import Survival, compare, learnt_modules, maps_of, randomised


@dataclass(eq=False)
class Memorised:
    """A network trained on shuffled labels: the ``labels`` it was given, and the share of them it has learnt."""

    model: Model
    labels: list[int]
    accuracy: float


def memorised(
    model: Model,
    pictures: Sequence[Any],
    labels: Sequence[int],
    *,
    steps: int = 600,
    batch: int = 32,
    rate: float = 2e-3,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Memorised:
    """A copy of ``model``, its weights reset, trained (Adam, cross-entropy) on ``pictures`` with their labels
    shuffled.

    Ends early once every label is known. Raises :class:`~convoscope.errors.UsageError` where the labels do not fit.
    """
    if len(pictures) != len(labels) or not len(labels):
        raise UsageError(f"There must be one label a picture, not {len(labels)} for {len(pictures)}.")
    generator = torch.Generator().manual_seed(seed)
    given = torch.tensor(list(labels))[torch.randperm(len(labels), generator=generator)]
    inputs = model.inputs([model.prepare(picture) for picture in pictures])
    copy = randomised(model, learnt_modules(model), seed=seed, how="reset")
    network = copy.module
    truth = given.to(inputs.device)
    # nothing is asked of the network: its copy is trained; this keeps the random state
    with untouched(model.module):
        torch.manual_seed(seed)
        network.train().requires_grad_(True)
        optimiser = torch.optim.Adam(network.parameters(), rate)
        for step in range(steps):
            picked = torch.randperm(len(given), generator=generator)[:batch].to(inputs.device)
            optimiser.zero_grad()
            nn.functional.cross_entropy(logits(copy.run(inputs[picked])), truth[picked]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            if progress is not None:
                progress(step + 1, steps)
            if step % 25 == 24 and _accuracy(copy, inputs, truth, batch) == 1:
                break
        accuracy = _accuracy(copy, inputs, truth, batch)
        network.eval()
        optimiser.zero_grad()
    return Memorised(copy, [int(c) for c in given], accuracy)


def _accuracy(model: Model, inputs: torch.Tensor, truth: torch.Tensor, batch: int) -> float:
    """As it will be used: in evaluation mode."""
    model.module.eval()
    with torch.no_grad():
        right = [
            logits(model.run(part)).argmax(1) == wanted
            for part, wanted in zip(inputs.split(batch), truth.split(batch), strict=True)  # type: ignore[no-untyped-call]
        ]
    model.module.train()
    return float(torch.cat(right).float().mean())


def data_randomisation(
    model: Model, other: Model, pictures: Sequence[Any], labels: Sequence[int], methods: Sequence[MethodLike]
) -> dict[str, dict[str, float]]:
    """``{method: {"rank", "ssim"}}``: how alike the maps of the two networks are, each picture explained for its own
    true class, averaged over the pictures on which both maps say something."""
    rows: list[Survival] = []
    for picture, label in zip(pictures, labels, strict=True):
        before, after = (maps_of(one, [picture], list(methods), int(label))[0] for one in (model, other))
        rows.append(compare("labels", ("labels",), before, after))
    names = dict.fromkeys(name for row in rows for name in row.rank)
    return {
        name: {
            "rank": float(np.nanmean([row.rank[name] for row in rows if name in row.rank])),
            "ssim": float(np.nanmean([row.ssim[name] for row in rows if name in row.ssim])),
        }
        for name in names
    }

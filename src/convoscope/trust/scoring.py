"""One picture, one target, many variations: the network behind the measures of faithfulness."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..engine.passes.needs import Perturbed
from ..engine.passes.runner import Runner
from ..engine.recompute.perturb import perturbed_scores, varied_scores
from ..errors import UsageError
from ..methods.fills import blurred
from ..models.model import Model
from ..pictures.picture import ModelInput
from ..session import Session
from ..targets import Scorer, TargetLike, parse
from .inpaint import fill_in

#: what may stand where pixels were taken away
FILLS = ("mean", "blur", "black", "inpaint")


@dataclass(eq=False)
class Scoring:
    """The target's score on variations of one picture, a batch of the model's size at a time.

    ``whole`` is the score of the picture itself. ``probability`` says whether scores are probabilities (a target that
    has none, such as a unit, is scored as it is).
    """

    model: Model
    fitted: ModelInput
    scorer: Scorer
    runner: Runner
    inputs: Tensor
    whole: float
    probability: bool
    seed: int = 0
    many_more_follow: bool = False
    fills: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def filled(self, fill: str, noise: float = 0.01) -> Callable[[Tensor], Tensor]:
        """A function from masks ``[K, H, W]`` (1: taken away) to scores ``[K]``, with ``fill`` in the holes.

        ``mean`` is the data set's mean (zero in the input), ``blur`` the blurred picture, ``inpaint`` ROAD's
        imputation from the surroundings with ``noise`` (in the input's unit).
        """
        if fill not in FILLS:
            raise UsageError(f"fill must be {', '.join(FILLS)}, not {fill!r}.")
        if fill == "inpaint":
            return lambda masks: self._inpainted(masks, noise)
        if fill not in self.fills:
            self.fills[fill] = self._fill(fill)
        picture = self.fills[fill]

        def scores(masks: Tensor) -> Tensor:
            need = Perturbed(masks, picture, self.probability, many_more_follow=self.many_more_follow)
            return perturbed_scores(self.runner, self.inputs, self.scorer, need)[0][0]

        return scores

    def at(self, inputs: Tensor) -> Tensor:
        """The scores ``[K]`` at inputs ``[K, C, H, W]`` in the network's input space."""
        return varied_scores(self.runner, self.inputs, inputs, self.scorer, self.probability, self.many_more_follow)

    def _fill(self, fill: str) -> Tensor:
        if fill == "mean":
            return torch.zeros_like(self.inputs)
        if fill == "blur":
            return blurred(self.inputs)
        return self.model.preprocessing.normalise(torch.zeros_like(self.inputs))

    def _inpainted(self, masks: Tensor, noise: float) -> Tensor:
        picture = self.inputs[0].float().cpu()
        size = max(1, self.runner.batch_size)
        # made a batch at a time: hundreds of filled pictures need not lie in memory
        return torch.cat(
            [
                self.at(fill_in(picture, piece, noise=noise, seed=self.seed * 65_537 + number, tolerance=1e-3))
                for number, piece in enumerate(torch.split(masks, size))
            ]
        )


@dataclass(eq=False)
class Kept:
    """The network as it was prepared for the last picture: the next one of the same network need not do it again."""

    prepared: Any = field(default=None, repr=False)


@contextmanager
def scoring(
    model: Model,
    fitted: ModelInput,
    target: TargetLike = None,
    *,
    probability: bool = True,
    seed: int = 0,
    many_more_follow: bool = False,
    kept: Kept | None = None,
) -> Iterator[Scoring]:
    """Open a :class:`Scoring` of one picture; inside, the network is protected, afterwards it is as it was.

    ``many_more_follow``: many more of the same network will follow, so it is worth seconds of preparation
    (:func:`convoscope.engine.recompute.choose.prepared`); scores are the same up to rounding. ``kept`` carries what was
    prepared from one picture to the next; on each it must give the network's own score, else it is not used.
    Raises :class:`~convoscope.errors.TargetError` where the target does not fit the network.
    """
    asked = parse(target, model)
    with Session(model, [fitted]) as session:
        first = session.record(layers=asked.layers(model))
        scorer = session.resolve(asked, first.output)
        chance = probability and scorer.has_probability
        found = Scoring(model, fitted, scorer, session.runner, session.batch, 0.0, chance, seed, many_more_follow)
        session.runner.keep_apart(session.batch)
        if kept is not None:
            session.runner.prepared = kept.prepared
        found.whole = float(found.at(session.batch)[0])
        yield found
        if kept is not None:
            kept.prepared = session.runner.prepared

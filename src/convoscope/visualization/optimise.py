"""The loop: one batch of pictures, optimised in short stretches, with the network given back between them."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..engine.passes.ascent import GradientAscent, penalised
from ..engine.passes.runner import call_plainly
from ..errors import ModelError
from ..models.formats import best_format
from ..models.model import Model, forward_failed
from ..session import protected
from .objectives import Diverse, Fooled, Objective, Scores, undiversified
from .octaves import Octaves
from .optimisers import Ascent, Smallest
from .recipe import Recipe, Setup

#: seconds after which a stretch ends, so that it can be shown, cancelled or stopped
STRETCH = 0.4
#: until then a class may wake by itself
FIRST_WAKING = 8


@dataclass(eq=False)
class Batch:
    """Items optimised together: same recipe, objective and input size. ``seeds`` has one an item."""

    objective: Objective
    seeds: list[int]
    start: Tensor | None = None
    history: list[list[float]] = field(default_factory=list)
    #: for each item the steps whose gradient was redirected, and whether it was zero at the last one
    redirected: list[int] = field(default_factory=list)
    dead: list[bool] = field(default_factory=list)
    steps_done: int = 0
    stopped: bool = False
    seconds: float = 0.0
    passes: tuple[int, int] = (0, 0)
    facts: list[dict[str, Any]] = field(default_factory=list)
    #: ``[B, C, H, W]``: what was reached
    inputs: Tensor | None = None
    transparency: Tensor | None = None


class Loop:
    """Climbs one :class:`Batch`. Iterating yields after every stretch; leaving early keeps what there is."""

    def __init__(
        self,
        model: Model,
        recipe: Recipe,
        batch: Batch,
        size: tuple[int, int],
        setup: Setup,
        every: int | None = None,
    ) -> None:
        self.model, self.batch, self.every = model, batch, every
        self.steps = recipe.steps
        self.size = size
        objective = batch.objective
        call = call_plainly if model.call is None else model.call
        self.ascent = GradientAscent(
            model.module, objective.layers, objective.needs_output, call, floating(model), best_format(model)
        )
        self.setup = setup
        self.randoms = setup.randoms
        with torch.inference_mode(False), torch.enable_grad():
            self.making = recipe.begin(setup)
        self.per_item = self.making.views.per_item if self.making.views is not None else 1
        count = len(batch.seeds)
        self.items = torch.arange(count).repeat_interleave(self.per_item)
        batch.history = [[] for _ in range(count)]
        batch.redirected, batch.dead = [0] * count, [False] * count
        self._enlarge = False
        self._best: tuple[float, Tensor] | None = None
        self._gradients: Tensor | None = None
        self._asleep: Tensor | None = None
        base = undiversified(objective)
        self._scores = base if isinstance(base, Scores) else None
        self._settle_from = round(self.steps * (1 - float(getattr(recipe, "settle", 0.0))))

    def run(self) -> Generator[int, None, None]:
        """Ascent; yields the steps done after every stretch. The network is untouched while suspended."""
        batch = self.batch
        try:
            while batch.steps_done < self.steps:
                self._stretch()
                yield batch.steps_done
        except KeyboardInterrupt:
            batch.stopped = True
        except GeneratorExit:  # nobody asks any more, and perhaps the interpreter itself is going down
            return
        self._finish()

    def shown(self) -> Tensor:
        """The pictures now, as the network's input ``[B, C, H, W]``."""
        image = self.making.image
        with torch.inference_mode(False), torch.no_grad():
            return (image.shown() if isinstance(image, Octaves) else image.inputs()).detach()

    def _stretch(self) -> None:
        batch = self.batch
        began = time.perf_counter()
        first = batch.steps_done
        with protected(self.model, gradients=True):
            self.ascent.prepare()
            while batch.steps_done < self.steps:
                self._step(batch.steps_done)
                batch.steps_done += 1
                taken = batch.steps_done - first
                if self.every is not None:
                    if taken >= self.every:
                        break
                elif time.perf_counter() - began >= STRETCH:
                    break
        batch.seconds += time.perf_counter() - began
        batch.passes = (self.ascent.forwards, self.ascent.backwards)

    def _step(self, step: int) -> None:
        making, batch = self.making, self.batch
        if making.before is not None:
            making.before(step)
        picture = making.image.inputs()
        if self._scores is not None:
            self._scores.settling = step >= self._settle_from

        faults: list[Exception] = []  # of the recipe or the objective, which are no fault of the network

        def views(inputs: Tensor) -> Tensor:
            assert making.views is not None
            seen = making.views(inputs, self.randoms, step, self.steps)
            if self._enlarge:
                seen = torch.nn.functional.interpolate(seen, self.size, mode="bilinear", align_corners=False)
            return seen

        def scoring(output: object, layers: dict[str, Tensor]) -> Tensor:
            try:
                scores = batch.objective(output, layers, self.items)
            except Exception as error:
                faults.append(error)
                raise
            if self.per_item > 1:
                scores = scores.view(-1, self.per_item).mean(1)
            return scores

        self.ascent.waking = self._asleep if FIRST_WAKING <= step < max(making.wake, self.steps // 3) else None
        try:
            taken = self.ascent.step(
                making.image.parameters,
                picture,
                None if making.views is None else views,
                scoring,
                keep_inputs=making.transparency,
            )
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            if step or self._enlarge or error in faults:
                raise
            if isinstance(making.image, Octaves) and tuple(picture.shape[-2:]) != self.size:
                # the network takes one size only: small octaves are shown to it enlarged
                self._enlarge = True
                return self._step(step)
            raise ModelError(forward_failed(self.model, tuple(picture.shape[1:]), error)) from error
        for item, value in enumerate(taken.scores.float().tolist()):
            batch.history[item].append(value)
        if making.penalty is not None:
            taken = penalised(making.penalty, picture, taken)
        batch.dead = taken.dead.tolist()
        self._asleep = asleep(batch.objective, self.per_item, batch.history)
        for item in torch.nonzero(taken.redirected).flatten().tolist():
            batch.redirected[item] += 1
        if taken.inputs is not None:
            size = taken.inputs.abs().mean(1)
            self._gradients = size if self._gradients is None else self._gradients + size
        optimiser = making.optimiser
        fooled = batch.objective
        if isinstance(optimiser, Smallest) and isinstance(fooled, Fooled):
            optimiser.reached = fooled.reached
        if isinstance(optimiser, Ascent):
            optimiser.free = taken.redirected
        if making.rouse is not None and self.ascent.waking is not None and bool(self.ascent.waking.any()):
            making.rouse(self.ascent.waking)
        optimiser.update(making.image.parameters, taken.gradients, taken.scores)
        if making.after is not None:
            making.after(step, taken.gradients)

    def _finish(self) -> None:
        batch, making = self.batch, self.making
        with torch.inference_mode(False):
            making.optimiser.finish(making.image.parameters)
            batch.inputs = self.shown()
        if making.facts is not None:
            batch.facts = making.facts()
        if self._gradients is not None:
            batch.transparency = opacity(self._gradients)


def floating(model: Model) -> torch.dtype:
    """The dtype that the network's input has."""
    return model.dtype if model.dtype.is_floating_point else torch.float32


def asleep(objective: Objective, per_item: int, history: Sequence[Sequence[float]]) -> Tensor | None:
    """Items ``[B]`` whose class is less probable than twice chance, is no view's first choice, and does not rise.

    Rising: by a quarter of the deviation of all classes' scores over the last :data:`FIRST_WAKING` steps.
    """
    base = undiversified(objective)
    if not isinstance(base, Scores) or base.chance is None or base.spread is None:
        return None
    rise = torch.tensor([one[-1] - one[max(0, len(one) - 1 - FIRST_WAKING)] for one in history])
    spread = base.spread.view(-1, per_item).mean(1)
    return (base.chance.view(-1, per_item).mean(1) < 2) & (rise < 0.25 * spread)


def opacity(gradients: Tensor) -> Tensor:
    """Accumulated |gradients| ``[B, H, W]`` as opacity: 0 below the 10th percentile, 1 from the 90th."""
    flat = gradients.flatten(1).float().cpu()
    low = flat.quantile(0.10, dim=1)[:, None]
    high = flat.quantile(0.90, dim=1)[:, None]
    opaque = ((flat - low) / (high - low).clamp(min=1e-30)).clamp(0, 1)
    return opaque.view(gradients.shape)


def batches(count: int, together: int, group: int = 1) -> Iterator[list[int]]:
    """Indices ``0..count`` in runs of at most ``together``, never splitting groups of ``group``."""
    size = max(group, together // group * group)
    for start in range(0, count, size):
        yield list(range(start, min(count, start + size)))


__all__ = ["STRETCH", "Batch", "Diverse", "Loop", "batches", "opacity"]

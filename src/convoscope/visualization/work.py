"""One call of ``visualize``: batches are maximised one after another, and what came of them is measured."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import LayerError, UsageError
from ..models.model import Model
from ..targets.classes import ClassScorer
from ..version import __version__
from . import measure, natural
from .asked import Asked, Item
from .canvas import Canvas
from .doubts import comparison_doubts, doubts_of
from .images import Randoms
from .objectives import Caricatured, Diverse, Dreamt, Fooled, Inverted, Objective, Scores, undiversified
from .optimise import Batch, Loop, batches
from .recipe import Recipe, Setup
from .result import Frame, Visualization, Visualizations

OBJECTIVES = ("score", "invert", "dream", "fool", "caricature")

Progress = Callable[[str, int, int], None]
#: pixels of one pass on a CPU, all pictures together: activations of more leave the caches, and each picture then
#: takes longer (measured on SqueezeNet at 224×224: 74 ms at 8 pictures, 98 ms at 32)
CPU_PIXELS = 8 * 224 * 224


@dataclass(eq=False)
class Work:
    """One call of :func:`convoscope.visualize_frames`."""

    model: Model
    recipe: Recipe
    objective: str
    layer: str | None
    seed: int
    count: int
    diverse: int
    weight: float
    natural: list[Any]
    others: list[Model]
    progress: Progress | None
    every: int | None
    pixels: bool
    asked: Asked = field(init=False, repr=False)
    _spectra: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def frames(self, targets: Any, image: Any) -> Generator[Frame, None, None]:
        if self.objective not in OBJECTIVES:
            raise UsageError(f"objective must be one of {', '.join(OBJECTIVES)}, not {self.objective!r}.")
        if self.objective == "fool" and self.recipe.about.name != "ddn":
            raise UsageError("The objective fool has its own recipe (ddn): leave --recipe away.")
        if self.recipe.about.name == "ddn" and self.objective != "fool":
            raise UsageError("The recipe ddn is for the objective fool only.")
        size = self.model._side()
        self.asked = Asked(self.model, self.objective, self.layer, self.seed, self.diverse or self.count)
        items = self.asked.items(targets, image, size)
        self.layer = self.asked.layer
        return self._ascend(items, size)

    def _ascend(self, items: list[Item], size: tuple[int, int]) -> Generator[Frame, None, None]:
        began = time.perf_counter()
        group = max(1, self.diverse)
        views = int(getattr(self.recipe, "crops", 1))
        together = self.model.batch_size
        if self.model.device.type == "cpu":
            together = max(1, min(together, CPU_PIXELS // (size[0] * size[1])))
        plan = list(batches(len(items), max(1, together // views), group))
        total, done = self.recipe.steps * len(plan), 0
        results: list[Visualization] = []
        batch: Batch | None = None
        for places in plan:
            mine = [items[place] for place in places]
            batch, canvases, loop = self._batch(mine, size)
            ascent = loop.run()
            try:
                for step in ascent:
                    if self.progress is not None:
                        self.progress("steps", done + step, total)
                    if step == self.recipe.steps and places is plan[-1]:
                        continue  # the last frame comes with the results
                    shown = self._bands(loop.shown(), canvases) if self.pixels else []
                    scores = [history[-1] for history in batch.history]
                    yield Frame(step, self.recipe.steps, places, scores, done + step, total, shown)
            finally:
                ascent.close()
            done += self.recipe.steps
            results += self._results(mine, batch, canvases)
            if batch.stopped:
                break
        assert batch is not None
        stopped = batch.stopped
        self._compare(items[: len(results)], results)
        for one in results:
            one.provenance["seconds_in_all"] = time.perf_counter() - began
        last = [result.history[-1] if result.history else result.score for result in results]
        yield Frame(
            batch.steps_done, self.recipe.steps, list(range(len(results))), last, done, total,
            [result.pixels for result in results] if self.pixels else [], Visualizations(results, stopped=stopped),
        )  # fmt: skip

    def _batch(self, items: list[Item], size: tuple[int, int]) -> tuple[Batch, list[Canvas], Loop]:
        started = [item.start for item in items]
        start = torch.stack([s for s in started if s is not None]) if all(s is not None for s in started) else None
        if start is not None:
            size = (int(start.shape[-2]), int(start.shape[-1]))
        objective = self._objective(items, start)
        keeps = self.objective in ("dream", "fool") or (self.objective == "score" and start is not None)
        device = self.model.device
        setup = Setup(
            self.model.preprocessing, size, len(items), Randoms([item.seed for item in items], device),
            self.recipe.steps, device, start if keeps else None, self._spectrum,
        )  # fmt: skip
        batch = Batch(objective, [item.seed for item in items])
        canvases = [
            Canvas.around(item.picture, self.model.preprocessing, size)
            if keeps and item.picture is not None
            else Canvas.blank(self.model.preprocessing, size)
            for item in items
        ]
        return batch, canvases, Loop(self.model, self.recipe, batch, size, setup, self.every)

    def _objective(self, items: list[Item], start: Tensor | None) -> Objective:
        made: Objective
        if self.objective == "fool":
            scorers = [item.scorer for item in items]
            made = Fooled(torch.tensor([int(one.classes[0]) for one in scorers]), scorers[0].reading)  # type: ignore[union-attr]
        elif self.objective in ("invert", "caricature"):
            assert self.layer is not None
            assert start is not None
            reference = measure.run(self.model, start, [self.layer], output=False)[1][self.layer]
            made = (
                Inverted(self.layer, reference)
                if self.objective == "invert"
                else Caricatured(self.layer, reference, 1.0)
            )
        elif self.objective == "dream" and items[0].scorer is None:
            assert self.layer is not None
            made = Dreamt(self.layer)
        else:
            made = Scores([item.scorer for item in items if item.scorer is not None])
        if self.diverse > 1:
            size = self.model._side()
            own = self.layer or (made.layers[0] if made.layers else None)
            if self.layer is None and own is not None and not self.asked.watched(size).layers[own].has_grid:
                own = None
            layer = self.asked.named_layer(own, size)
            if len(self.asked.watched(size).layers[layer].shape) < 3:
                raise LayerError(f"Layer {layer!r} has no grid to tell pictures apart by: name one with --layer.")
            made = Diverse(made, layer, [item.group for item in items], self.weight)
        return made

    def _spectrum(self, size: tuple[int, int]) -> Tensor:
        if size not in self._spectra:
            self._spectra[size] = natural.spectrum(self.natural, self.model.preprocessing, size)
        return self._spectra[size]

    @staticmethod
    def _bands(inputs: Tensor, canvases: Sequence[Canvas]) -> list[Any]:
        return [canvas.picture(one) for one, canvas in zip(inputs.cpu(), canvases, strict=True)]

    # what came of it

    def _results(self, items: list[Item], batch: Batch, canvases: Sequence[Canvas]) -> list[Visualization]:
        assert batch.inputs is not None
        inputs = batch.inputs.float().cpu()
        pictures = self._bands(inputs, canvases)
        base = undiversified(batch.objective)
        scoring = Scores([item.scorer for item in items if item.scorer]) if isinstance(base, Fooled) else base
        found = measure.measure(self.model, pictures, scoring, [item.scorer for item in items])
        shared = self._provenance(batch)
        results = []
        for place, (item, canvas, row) in enumerate(zip(items, canvases, found, strict=True)):
            opaque = batch.transparency
            one = Visualization(
                item.label, pictures[place], inputs[place].numpy(), self.recipe.about.name, self.objective, item.seed,
                batch.steps_done, row["score"], row["probability"], row["rank"], row["prediction"],
                canvas.stretch(opaque[place].numpy()) if opaque is not None else None,
                history=batch.history[place], seconds=batch.seconds / len(items), provenance=dict(shared),
            )  # fmt: skip
            self._facts(one, item, canvas, batch, place)
            one.doubts = doubts_of(one, self.model, batch, place, item.scorer)
            results.append(one)
        return results

    def _facts(self, one: Visualization, item: Item, canvas: Canvas, batch: Batch, place: int) -> None:
        preprocessing = self.model.preprocessing
        shown = preprocessing.denormalise(torch.from_numpy(one.inputs))
        one.facts["clipped"] = float(((shown < -0.5 / 255) | (shown > 1 + 0.5 / 255)).float().mean())
        one.facts["redirected_steps"] = batch.redirected[place] if batch.redirected else 0
        base = undiversified(batch.objective)
        if isinstance(base, Scores) and place in base.settled:
            one.facts["settled"] = True
        if batch.facts:
            one.facts.update(batch.facts[place])
        if item.start is None or item.picture is None:
            return
        original = canvas.picture(item.start)
        if self.objective in ("dream", "fool"):
            one.original = original
            change = one.pixels.astype(np.float64) - original
            one.facts["change"] = {
                "mean": float(np.abs(change).mean()),
                "largest": float(np.abs(change).max()),
                "l2": float(np.sqrt((change**2).sum())) / 255,
                "pixels": float((change != 0).any(2).mean()),
                "amplified": one.gain,
            }
        if self.objective == "fool":
            output, _ = measure.run(self.model, item.start[None], (), output=True)
            first = int(output.argmax(1)) if isinstance(output, Tensor) else None
            one.facts["was"] = self.model.label(first) if first is not None else None
            one.facts["fooled"] = one.rank == 1
        if self.objective == "invert":
            one.original = original
            again = measure.read_again(self.model, [one.pixels])[0].cpu()
            wanted = item.start.float().cpu()
            one.facts["feature_error"] = float(np.sqrt(max(0.0, -one.score)))
            one.facts["pixel_error"] = float(
                (again - wanted).norm() / (wanted - wanted.mean()).norm().clamp(min=1e-12)
            )

    def _compare(self, items: list[Item], results: list[Visualization]) -> None:
        """Natural pictures, seeds and other networks beside what was made."""
        classes = [item for item in items if item.scorer is not None]
        if self.natural and classes:
            scorers = {item.group: item.scorer for item in classes if item.scorer is not None}
            best = measure.best_natural(self.model, list(scorers.values()), self.natural, self.progress)
            by_group = dict(zip(scorers, best, strict=True))
            for item, one in zip(items, results, strict=True):
                one.natural = by_group.get(item.group)
        copies = self.diverse or self.count
        if copies > 1 and self.objective == "score":
            groups: dict[int, list[Visualization]] = {}
            for item, one in zip(items, results, strict=True):
                groups.setdefault(item.group, []).append(one)
            for group, found in zip(
                groups.values(), measure.agreement(self.model, list(groups.values())), strict=True
            ):
                for one in group:
                    one.agreement = found
        for other in self.others:
            for item, one in zip(items, results, strict=True):
                if isinstance(item.scorer, ClassScorer) and item.scorer.against is None:
                    index = int(item.scorer.classes[0])
                    label = self.model.label(index) if self.model.labels else None
                    one.also.append(measure.elsewhere(other, one, label, index))
        for one in results:
            one.doubts = (*one.doubts, *comparison_doubts(one, bool(self.diverse)))

    def _provenance(self, batch: Batch) -> dict[str, Any]:
        model = self.model
        return {
            **model.provenance(),
            "objective": self.objective,
            "layer": self.layer,
            "recipe": self.recipe.about.name,
            "paper": self.recipe.about.paper,
            "settings": dataclasses.asdict(self.recipe),
            "spectrum": (f"{len(self.natural)} given pictures" if self.natural else "64 toybox pictures")
            if self.recipe.about.name == "maco"
            else None,
            "stopped": batch.stopped,
            "passes": {"forwards": batch.passes[0], "backwards": batch.passes[1], "pictures": len(batch.seeds)},
            "versions": {"convoscope": __version__, "torch": str(torch.__version__), "numpy": np.__version__},
        }

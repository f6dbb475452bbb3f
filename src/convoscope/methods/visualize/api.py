"""``visualize``: from targets to pictures, in one call or frame by frame."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ... import __version__
from ...engine.untouched import untouched
from ...errors import ConvoscopeError, LayerError, ModelError, UsageError
from ...models import Model, forward_failed
from ...opening import _override, open_model
from ...pictures import Picture
from ...targets import ClassScorer, Scorer, TargetLike, no_such_layer, resolve
from . import measure, natural
from .canvas import Canvas
from .doubts import doubts_of
from .images import Randoms
from .objectives import Caricatured, Diverse, Dreamt, Fooled, Inverted, Objective, Scores
from .optimise import Batch, Loop, batches
from .recipes import Recipe, Setup, recipe as recipe_of
from .result import Frame, Visualization, Visualizations

OBJECTIVES = ("score", "invert", "dream", "fool", "caricature")
#: the recipe of each objective where none is named
DEFAULT_RECIPES = {
    "score": "maco", "invert": "mahendran", "dream": "dream", "fool": "ddn", "caricature": "fourier",
}  # fmt: skip

Progress = Callable[[str, int, int], None]


def visualize(
    model: Model | nn.Module | str,
    targets: TargetLike | Sequence[TargetLike] = None,
    *,
    recipe: str | Recipe | None = None,
    objective: str = "score",
    image: Any = None,
    layer: str | None = None,
    steps: int | None = None,
    seed: int | None = None,
    count: int = 1,
    diverse: int = 0,
    size: int | tuple[int, int] | None = None,
    settings: Mapping[str, Any] | None = None,
    pictures: Any = None,
    also: Model | Sequence[Model] = (),
    weight: float = 1.0,
    progress: Progress | None = None,
) -> Any:
    """Pictures that the network makes most of: of a class, a unit, a direction, or of another picture.

    ``targets``: anything that :func:`convoscope.explain` takes (``"tabby"``, ``282``, ``"layer3:17"``,
    ``"layer3:17@6,6"``, ``"tabby - tiger cat"``, a function); a list makes them all in one batch. ``layer`` without
    ``targets`` means all of its channels.

    ``objective``: ``score`` climbs the target; ``invert`` finds a picture with the features that ``image`` has at
    ``layer``; ``caricature`` exaggerates them; ``dream`` amplifies in ``image`` what ``layer`` (or the target) sees;
    ``fool`` changes ``image`` as little as it can until the network says the target. ``image`` may be a list.

    ``recipe``: a name or an instance (:mod:`.recipes`), ``settings`` its fields; ``steps`` overrides its steps.
    ``count`` pictures are made of each target, from seeds ``seed``, ``seed + 1``, ... (``seed=None``: the model's);
    ``diverse=N`` makes N that differ from each other, ``weight`` says how much. ``size`` is the input size to use.
    ``pictures`` (a folder, paths, arrays) give MACO its spectrum and every picture its comparison with real ones.
    ``also``: other models that are asked what they see. ``progress(what, done, total)`` is called as steps are taken.

    Returns one :class:`Visualization` for one target, else :class:`Visualizations`. Scores, probabilities and ranks are
    those of the saved 8-bit picture, read again through the model's preprocessing. Ctrl-C ends the ascent and returns
    what was reached. The network is left bit for bit as it was. Raises :class:`ConvoscopeError` subclasses.
    """
    single = count == 1 and not diverse and not isinstance(targets, (list, tuple))
    single = single and not isinstance(image, (list, tuple)) and not (targets is None and objective == "score")
    results: Visualizations | None = None
    frames = visualize_frames(
        model, targets, recipe=recipe, objective=objective, image=image, layer=layer, steps=steps, seed=seed,
        count=count, diverse=diverse, size=size, settings=settings, pictures=pictures, also=also, weight=weight,
        progress=progress, pixels=False,
    )  # fmt: skip
    for frame in frames:
        results = frame.results or results
    assert results is not None
    return results[0] if single and len(results) == 1 else results


def visualize_frames(
    model: Model | nn.Module | str,
    targets: TargetLike | Sequence[TargetLike] = None,
    *,
    recipe: str | Recipe | None = None,
    objective: str = "score",
    image: Any = None,
    layer: str | None = None,
    steps: int | None = None,
    seed: int | None = None,
    count: int = 1,
    diverse: int = 0,
    size: int | tuple[int, int] | None = None,
    settings: Mapping[str, Any] | None = None,
    pictures: Any = None,
    also: Model | Sequence[Model] = (),
    weight: float = 1.0,
    progress: Progress | None = None,
    every: int | None = None,
    pixels: bool = True,
) -> Generator[Frame, None, None]:
    """Like :func:`visualize`, as a generator of :class:`Frame`; the last one carries the ``results``.

    A frame comes after ``every`` steps (``None``: about twice a second). Closing the generator cancels; between frames
    the network is as it was found and free for others. ``pixels=False`` spares drawing the frames.
    """
    given = model if isinstance(model, Model) else open_model(model)
    preprocessing = _override(given.preprocessing, size, None, None, None)
    if preprocessing is not given.preprocessing:
        given = replace(given, preprocessing=preprocessing)
    chosen = recipe_of(recipe or DEFAULT_RECIPES.get(objective, "maco"), settings)
    if steps is not None:
        chosen = dataclasses.replace(chosen, **{"steps": _whole("steps", steps, 1)})
    others = [also] if isinstance(also, Model) else list(also)
    work = _Work(
        given, chosen, objective, layer, given.seed if seed is None else seed, _whole("count", count, 1),
        _whole("diverse", diverse, 0), weight, natural.listed(pictures), others, progress, every, pixels,
    )  # fmt: skip
    return work.frames(targets, image)


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{name} must be a whole number of at least {least}, not {value!r}.")
    return value


@dataclass(eq=False)
class _Item:
    """One picture to be made."""

    label: str
    seed: int
    scorer: Scorer | None
    picture: Picture | None = None
    start: Tensor | None = None
    group: int = 0


@dataclass(eq=False)
class _Work:
    """One call of :func:`visualize_frames`."""

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
    _spectra: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def frames(self, targets: Any, image: Any) -> Generator[Frame, None, None]:
        if self.objective not in OBJECTIVES:
            raise UsageError(f"objective must be one of {', '.join(OBJECTIVES)}, not {self.objective!r}.")
        if self.objective == "fool" and self.recipe.about.name != "ddn":
            raise UsageError("The objective fool has its own recipe (ddn): leave --recipe away.")
        if self.recipe.about.name == "ddn" and self.objective != "fool":
            raise UsageError("The recipe ddn is for the objective fool only.")
        size = self.model._side()
        items = self._items(targets, image, size)
        return self._climb(items, size)

    # what is to be made

    def _items(self, targets: Any, image: Any, size: tuple[int, int]) -> list[_Item]:
        images = [Picture.of(one) for one in (image if isinstance(image, (list, tuple)) else [image]) if one is not None]
        needs = self.objective != "score"
        if needs and not images:
            raise UsageError(f"The objective {self.objective} needs a picture: image= (--image FILE).")
        starts = [self.model.inputs([picture.fit(self.model.preprocessing)])[0] for picture in images]
        if starts:
            size = (int(starts[0].shape[-2]), int(starts[0].shape[-1]))
        output = self._probe(size)
        if self.objective in ("invert", "caricature") or (self.objective == "dream" and targets is None):
            self.layer = self._layer(self.layer, size)
            verb = {"invert": "inverted", "caricature": "caricature", "dream": "dreamt"}[self.objective]
            made = [(f"{p.name} {verb} at {self.layer}", None, p, s) for p, s in zip(images, starts, strict=True)]
        else:
            wanted = self._targets(targets, size)
            scorers = [self._scorer(target, output, size) for target in wanted]
            pairs = list(zip(wanted, scorers, strict=True))
            if self.objective == "score":
                if len(images) > 1:
                    raise UsageError("An ascent starts from one picture: give one image.")
                start = (images[0], starts[0]) if images else (None, None)
                made = [(scorer.labels[0], scorer, *start) for _, scorer in pairs]
            else:
                if len(pairs) not in (1, len(images)):
                    raise UsageError(
                        f"{len(images)} images and {len(pairs)} targets: give one target for all, or one for each."
                    )
                pairs = pairs * len(images) if len(pairs) == 1 else pairs
                made = [
                    (scorer.labels[0], scorer, p, s)
                    for (_, scorer), p, s in zip(pairs, images, starts, strict=True)
                ]
        copies = self.diverse or self.count
        return [
            _Item(label, self.seed + copy, scorer, picture, start, group)
            for group, (label, scorer, picture, start) in enumerate(made)
            for copy in range(copies)
        ]

    def _targets(self, targets: Any, size: tuple[int, int]) -> list[TargetLike]:
        if isinstance(targets, (list, tuple)):
            if not targets:
                raise UsageError("No targets given.")
            return list(targets)
        if targets is not None:
            return [targets]
        if self.objective == "score" and self.layer is not None:
            layer = self._layer(self.layer, size)
            info = self._watched(size).layers[layer]
            if len(info.shape) < 2:
                raise LayerError(f"Layer {layer!r} gives {info.shape}: it has no channels to visualise.")
            return [f"{layer}:{c}" for c in range(info.shape[-1] if info.channels_last else info.shape[1])]
        raise UsageError("Say what to visualise: a class, layer:channel (--target), or a layer for all its channels.")

    def _scorer(self, target: TargetLike, output: Any, size: tuple[int, int]) -> Scorer:
        scorer = resolve(target, self.model, output, [None])
        if isinstance(target, str) and target.startswith("top") and isinstance(scorer, ClassScorer):
            raise UsageError(f"{target} is a rank among a picture's classes: name the class to visualise.")
        if self.objective == "fool" and not (isinstance(scorer, ClassScorer) and scorer.against is None):
            raise UsageError("The network is fooled into saying a class: the target must be one class.")
        self._try(scorer, size)
        return scorer

    def _try(self, scorer: Scorer, size: tuple[int, int]) -> None:
        """Score the probe once, so that a channel or neuron that is not there is said before any work."""
        returned, layers = measure.run(self.model, self._probe_input(size), scorer.layers, output=True)
        with torch.no_grad():
            scorer.score(returned, layers, torch.zeros(1, dtype=torch.long))

    def _layer(self, layer: str | None, size: tuple[int, int]) -> str:
        watched = self._watched(size)
        if layer is None:
            if watched.last_grid is None:
                raise LayerError(f"{self.model.name} has no grid of features: name a layer.")
            return watched.last_grid
        if layer not in watched.layers:
            raise LayerError(no_such_layer(layer, list(watched.layers)))
        return layer

    def _watched(self, size: tuple[int, int]) -> Any:
        return self.model.watched((self.model.preprocessing.channels, *size))

    def _probe_input(self, size: tuple[int, int]) -> Tensor:
        channels = self.model.preprocessing.channels
        noise = torch.randn((1, channels, *size), generator=torch.Generator().manual_seed(0))
        dtype = self.model.dtype if self.model.dtype.is_floating_point else torch.float32
        return noise.to(self.model.device, dtype)

    def _probe(self, size: tuple[int, int]) -> Any:
        inputs = self._probe_input(size)
        try:
            return measure.run(self.model, inputs, (), output=True)[0]
        except ConvoscopeError:
            raise
        except Exception as error:
            raise ModelError(forward_failed(self.model, tuple(inputs.shape[1:]), error)) from error

    # making it

    def _climb(self, items: list[_Item], size: tuple[int, int]) -> Generator[Frame, None, None]:
        began = time.perf_counter()
        group = max(1, self.diverse)
        views = int(getattr(self.recipe, "crops", 1))
        plan = list(batches(len(items), max(1, self.model.batch_size // views), group))
        total, done = self.recipe.steps * len(plan), 0
        results: list[Visualization] = []
        batch: Batch | None = None
        for places in plan:
            mine = [items[place] for place in places]
            batch, canvases, loop = self._batch(mine, size)
            climbing = loop.run()
            try:
                for step in climbing:
                    if self.progress is not None:
                        self.progress("steps", done + step, total)
                    shown = self._bands(loop.shown(), canvases) if self.pixels else []
                    scores = [history[-1] for history in batch.history]
                    yield Frame(step, self.recipe.steps, places, scores, done + step, total, shown)
            finally:
                climbing.close()
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

    def _batch(self, items: list[_Item], size: tuple[int, int]) -> tuple[Batch, list[Canvas], Loop]:
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

    def _objective(self, items: list[_Item], start: Tensor | None) -> Objective:
        made: Objective
        if self.objective == "fool":
            made = Fooled(torch.tensor([int(item.scorer.classes[0]) for item in items]))  # type: ignore[union-attr]
        elif self.objective in ("invert", "caricature"):
            assert self.layer is not None and start is not None
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
            layer = self.layer or (made.layers[0] if made.layers else None)
            made = Diverse(made, self._layer(layer, size), [item.group for item in items], self.weight)
        return made

    def _spectrum(self, size: tuple[int, int]) -> Tensor:
        if size not in self._spectra:
            self._spectra[size] = natural.spectrum(self.natural, self.model.preprocessing, size)
        return self._spectra[size]

    @staticmethod
    def _bands(inputs: Tensor, canvases: Sequence[Canvas]) -> list[Any]:
        return [canvas.picture(one) for one, canvas in zip(inputs.cpu(), canvases, strict=True)]

    # what came of it

    def _results(self, items: list[_Item], batch: Batch, canvases: Sequence[Canvas]) -> list[Visualization]:
        assert batch.inputs is not None
        inputs = batch.inputs.float().cpu()
        pictures = self._bands(inputs, canvases)
        base = batch.objective.base if isinstance(batch.objective, Diverse) else batch.objective
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

    def _facts(self, one: Visualization, item: _Item, canvas: Canvas, batch: Batch, place: int) -> None:
        preprocessing = self.model.preprocessing
        shown = preprocessing.denormalise(torch.from_numpy(one.inputs))
        one.facts["clipped"] = float(((shown < -0.5 / 255) | (shown > 1 + 0.5 / 255)).float().mean())
        one.facts["redirected_steps"] = batch.redirected[place] if batch.redirected else 0
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
            one.facts["pixel_error"] = float((again - wanted).norm() / (wanted - wanted.mean()).norm().clamp(min=1e-12))

    def _compare(self, items: list[_Item], results: list[Visualization]) -> None:
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
            for group, found in zip(groups.values(), measure.agreement(self.model, list(groups.values())), strict=True):
                for one in group:
                    one.agreement = found
        for other in self.others:
            for item, one in zip(items, results, strict=True):
                if isinstance(item.scorer, ClassScorer) and item.scorer.against is None:
                    index = int(item.scorer.classes[0])
                    label = self.model.label(index) if self.model.labels else None
                    one.also.append(measure.elsewhere(other, one, label, index))
        for one in results:
            from .doubts import comparison_doubts

            one.doubts = (*one.doubts, *comparison_doubts(one, bool(self.diverse)))

    def _provenance(self, batch: Batch) -> dict[str, Any]:
        model = self.model
        return {
            "model": model.name,
            "spec": model.spec,
            "weights": model.weights,
            "fingerprint": model.fingerprint,
            "preprocessing": model.preprocessing.to_dict(),
            "device": str(model.device),
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


def steps_of(frames: Iterator[Frame]) -> Visualizations:
    """The results of a run through all frames."""
    results = None
    for frame in frames:
        results = frame.results or results
    assert results is not None
    return results


__all__ = ["DEFAULT_RECIPES", "OBJECTIVES", "untouched", "visualize", "visualize_frames"]

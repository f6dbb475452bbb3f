"""``explain``: pictures × targets × methods, through the planner, to explanations."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .doubts import expected_relus, rule_doubts, value_doubts
from .engine.fields.watch import NetworkTrace
from .engine.passes.planner import Job, Planner, Steps
from .engine.passes.runner import Call, Runner, call_plainly
from .engine.passes.untouched import untouched
from .errors import ConvoscopeError, LayerError, ModelError, TargetError, UsageError
from .methods import Maps, Method, Query, method
from .models.model import Model, forward_failed
from .models.opening import open_model
from .pictures.picture import ModelInput, Picture
from .results import Explanation, Explanations, Heatmap, Plan
from .targets import default_layer
from .targets import found as structured_found
from .targets import note as target_note
from .targets.classes import Scorer, TargetLike, logits, no_such_layer, parse_unit, resolve
from .targets.grammar import parse
from .version import __version__

#: what is drawn when nobody says what
DEFAULT_METHODS = ("grad-cam", "guided-grad-cam", "guided-backprop", "saliency")

MethodLike = str | Method | type[Method]


def explain(
    model: Model | torch.nn.Module | str,
    pictures: Any,
    methods: MethodLike | Sequence[MethodLike] = DEFAULT_METHODS,
    *,
    target: TargetLike | Sequence[TargetLike] = None,
    against: TargetLike = None,
    layer: str | Sequence[str] | None = None,
    parts: int = 0,
    resize: str = "exact",
    progress: Callable[[str, int, int], None] | None = None,
) -> Any:
    """Maps of why the network scores ``target`` as it does.

    ``pictures``: a path, PIL image, array, tensor (C×H×W in 0..1) or :class:`Picture` gives one
    :class:`Explanation`; a list gives :class:`Explanations`. ``methods``: names or instances. ``target``: ``None`` is
    each picture's predicted class; see :mod:`.targets`; several targets make rows. ``layer`` sets the
    layer of all methods that have one (several layers: ``grad-cam@NAME`` each). ``resize="plain"`` draws coarse maps by
    the usual half-pixel resize instead of at the cells' true centres.

    A method that does not exist for this network is in ``refused``, with the reason; where it is the only one, the
    reason is raised. Raises :class:`ConvoscopeError` subclasses with one sentence each. The network is left bit for
    bit as it was.
    """
    model = open_model(model) if not isinstance(model, Model) else model
    single = not isinstance(pictures, (list, tuple))
    sources = [pictures] if single else list(pictures)
    if not sources:
        raise UsageError("No pictures given.")
    if resize not in ("exact", "plain"):
        raise UsageError(f"resize must be exact or plain, not {resize!r}.")
    targets: list[Any] = list(target) if isinstance(target, (list, tuple)) else [target]
    if not targets:
        raise UsageError("No targets given.")
    wanted = _methods(model, methods, layer, parts)
    fitted = [model.prepare(Picture.of(source)) for source in sources]
    plan = Plan(pictures=len(fitted))
    found: list[Explanation | None] = [None] * len(fitted)
    # detectors answer with as many instances as they find: each picture has its own layer, and its own batch
    for batch in _batches(fitted, 1 if default_layer.one_by_one(model) else model.batch_size):
        run = _Run(model, [fitted[i] for i in batch], wanted, targets, against, resize == "plain", plan, progress,
                   batch)  # fmt: skip
        for index, explanation in zip(batch, run.explanations(), strict=True):
            found[index] = explanation
    done = [explanation for explanation in found if explanation is not None]
    errors = [explanation.provenance.pop("_error") for explanation in done if "_error" in explanation.provenance]
    if len(wanted) == 1 and len(errors) == len(done):
        raise errors[0]
    return done[0] if single else Explanations(done, plan)


def _methods(
    model: Model, methods: MethodLike | Sequence[MethodLike], layer: str | Sequence[str] | None, parts: int
) -> dict[str, Method]:
    """Methods by the names of their maps: the method's own, with ``@layer`` or ``-2`` where that is not enough."""
    listed: Sequence[MethodLike] = [methods] if isinstance(methods, (str, Method, type)) else list(methods)
    if not listed:
        raise UsageError("No methods given: `convoscope methods` lists them.")
    layers = [None] if layer is None else [layer] if isinstance(layer, str) else list(layer)
    named: dict[str, Method] = {}
    for one in listed:
        chosen = method(one)
        has_layer = hasattr(chosen, "layer")
        for where in layers if has_layer else [None]:
            settings: dict[str, Any] = {}
            if where is not None:
                settings["layer"] = where
            if parts and hasattr(chosen, "parts"):
                settings["parts"] = parts
            final = replace(chosen, **settings) if settings else chosen
            key = chosen.about.name if len(layers) == 1 or not has_layer else f"{chosen.about.name}@{where}"
            number, unique = 1, key
            while unique in named:
                number += 1
                unique = f"{key}-{number}"
            named[unique] = final
    return named


def _batches(fitted: Sequence[ModelInput], size: int) -> Iterable[list[int]]:
    """Indices of pictures of one input shape, at most ``size`` together, in order."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for index, one in enumerate(fitted):
        by_shape.setdefault(tuple(one.tensor.shape), []).append(index)
    for indices in by_shape.values():
        for start in range(0, len(indices), size):
            yield indices[start : start + size]


@dataclass(eq=False)
class _Run:
    """One batch of pictures of one shape: all methods, all targets."""

    model: Model
    fitted: list[ModelInput]
    methods: dict[str, Method]
    targets: list[TargetLike]
    against: TargetLike
    plain_resize: bool
    plan: Plan
    progress: Callable[[str, int, int], None] | None
    numbers: list[int]

    def explanations(self) -> list[Explanation]:
        started = time.perf_counter()
        model = self.model
        inputs = model.inputs(self.fitted)
        watched = model.watched(tuple(inputs.shape[1:]))
        self._check_layers(watched)
        call = call_plainly if model.call is None else self._call(model.call)
        runner = Runner(model.module, model.batch_size, call)
        with untouched(model.module):
            planner = Planner(runner, inputs)
            queries = [Query(model, inputs, self.fitted, watched) for _ in self.targets]
            jobs = []
            try:
                preferred = default_layer.default_layer(
                    runner, model, watched, inputs, self.fitted, self.targets, self.methods
                )
            except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
                if isinstance(error, ConvoscopeError):
                    raise
                raise ModelError(forward_failed(model, inputs.shape[1:], error)) from error
            for query, name in zip(queries, preferred, strict=True):
                query.plain_resize, query.reports = self.plain_resize, planner.reports
                query.preferred = name
                jobs.append([self._job(name, one, query) for name, one in self.methods.items()])
            everything = [job for row in jobs for job in row]
            try:
                output = planner.start(everything, self._target_layers())
            except ConvoscopeError:
                raise
            except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
                raise ModelError(forward_failed(model, inputs.shape[1:], error)) from error
            scorers = [resolve(t, model, output, self.fitted, self.against) for t in self.targets]
            for query, row, scorer in zip(queries, jobs, scorers, strict=True):
                query.aim(scorer, output)
                for job in row:
                    job.target = scorer
            scores, chances = self._scores(planner, scorers, output)
            planner.run(everything)
        self.plan.forwards += runner.forwards
        self.plan.backwards += runner.backwards
        predictions = _predictions(model, output, len(inputs), (inputs.shape[-2], inputs.shape[-1]))
        seconds = time.perf_counter() - started
        shared = _provenance(model, watched)
        said = target_note(self.targets[0], output, scorers[0], inputs.shape[-2:])
        if said is not None:
            shared["target_chosen"] = said
        found = []
        for index, one in enumerate(self.fitted):
            rows = []
            for number, scorer in enumerate(scorers):
                explanation = self._explanation(
                    index, one, scorer, jobs[number], watched, runner, predictions[index], shared
                )
                explanation.score = float(scores[number][index])
                chance = chances[number]
                explanation.probability = None if chance is None else float(chance[index])
                explanation.seconds = seconds
                rows.append(explanation)
            rows[0].rows = rows
            found.append(rows[0])
        return found

    def _call(self, call: Call) -> Call:
        """The model's call, told the pictures' numbers in the whole call instead of those in this batch."""
        numbers = torch.tensor(self.numbers)
        return lambda network, inputs, rows: call(network, inputs, numbers[rows])

    def _job(self, name: str, one: Method, query: Query) -> Job:
        steps: Steps
        if self.progress is not None and "progress" in one.steps.__code__.co_varnames:
            told = self.progress
            steps = one.steps(query, lambda done: told(name, done, 0))  # type: ignore[call-arg]
        else:
            steps = one.steps(query)
        return Job(steps, None, name)  # type: ignore[arg-type]

    def _check_layers(self, watched: NetworkTrace) -> None:
        for one in self.methods.values():
            name = getattr(one, "layer", None)
            if name is not None and name not in watched.layers:
                raise LayerError(no_such_layer(name, list(watched.layers)))

    def _target_layers(self) -> list[str]:
        found = []
        for target in self.targets:
            structured = parse(target, self.model) if isinstance(target, str) else target
            if structured is not None and hasattr(structured, "wants"):
                found.extend(structured.wants(self.model))
            elif (
                isinstance(target, str)
                and structured is None
                and (unit := parse_unit(target, self.model)) is not None
            ):
                found.append(unit.layer)
        return found

    def _scores(
        self, planner: Planner, scorers: list[Scorer], output: Any
    ) -> tuple[list[Tensor], list[Tensor | None]]:
        """Score and probability of every target on the pictures themselves, from the forward that was run anyway."""
        rows = torch.arange(len(self.fitted))
        scores: list[Tensor] = []
        chances: list[Tensor | None] = []
        for scorer in scorers:
            layers = planner.base.live() if planner.base is not None else {}
            with torch.no_grad():
                score = scorer.score(output, layers, rows).detach().float().cpu()
                scores.append(score.expand(len(rows)))
                try:
                    chances.append(scorer.probability(output, layers, rows).float().cpu())
                except TargetError:
                    chances.append(None)
        return scores, chances

    def _explanation(
        self,
        index: int,
        one: ModelInput,
        scorer: Scorer,
        jobs: list[Job],
        watched: NetworkTrace,
        runner: Runner,
        prediction: list[dict[str, Any]],
        shared: dict[str, Any],
    ) -> Explanation:
        heatmaps: dict[str, Heatmap] = {}
        refused: dict[str, str] = {}
        provenance: dict[str, Any] = dict(shared)
        target = scorer.labels[index]
        general = [*self.model.notes, *watched.doubts]
        if isinstance(getattr(scorer, "classes", None), Tensor) and prediction:
            chosen = int(scorer.classes[index])  # type: ignore[attr-defined]
            if chosen != prediction[0]["index"] and self.against is None:
                general.append(f"The target is not the prediction, which is {prediction[0]['label']}.")
        for job in jobs:
            name = str(job.name)
            if job.error is not None:
                refused[name] = str(job.error)
                provenance["_error"] = job.error
                continue
            heatmaps[name] = self._heatmap(index, one, name, target, job.result, scorer, watched, runner, shared)
        doubts = tuple(dict.fromkeys(general))
        return Explanation(one, target, 0.0, None, prediction, heatmaps, self.plan, refused, doubts, provenance)

    def _heatmap(
        self,
        index: int,
        one: ModelInput,
        name: str,
        target: str,
        maps: Maps,
        scorer: Scorer,
        watched: NetworkTrace,
        runner: Runner,
        shared: dict[str, Any],
    ) -> Heatmap:
        chosen = self.methods[name]
        values = np.ascontiguousarray(maps.values[index].numpy(), dtype=np.float32)
        doubts = list(maps.doubts[index]) if maps.doubts else []
        doubts += value_doubts(values)
        provenance = {
            **shared,
            "method": chosen.about.name,
            "settings": dict(vars(chosen)),
            "rule": chosen.about.rule,
            "layer": maps.layer,
        }
        if chosen.about.rule != "plain":
            doubts += rule_doubts(chosen.about.rule, scorer, watched, runner.relus)
            provenance["relu_nodes"] = {"overridden": runner.relus, "expected": expected_relus(scorer, watched)}
        return Heatmap(
            values,
            chosen.about.name,
            chosen.about.title,
            target,
            maps.signed,
            maps.unit,
            maps.reduction,
            one,
            None if maps.grid is None else maps.grid[index].numpy(),
            None if maps.raw is None else maps.raw[index].numpy(),
            maps.layer,
            maps.geometry,
            maps.parts[index] if maps.parts else [],
            tuple(dict.fromkeys(doubts)),
            provenance,
            maps.facts[index] if maps.facts else {},
        )


def _predictions(model: Model, output: Any, count: int, size: tuple[int, int]) -> list[list[dict[str, Any]]]:
    """The five best classes of every picture; instances or regions where the network gives no class scores."""
    try:
        values = logits(output).detach().float().cpu()
    except TargetError:
        return structured_found(model, output, count, size)
    if len(values) != count:
        return [[] for _ in range(count)]
    shares = values.softmax(1) if values.shape[1] > 1 else values.sigmoid()
    best = values.topk(min(5, values.shape[1]), dim=1)
    return [
        [
            {
                "index": int(c),
                "label": model.label(int(c)),
                "score": float(v),
                "probability": float(shares[row, c]),
            }
            for v, c in zip(best.values[row], best.indices[row], strict=True)
        ]
        for row in range(count)
    ]


def _provenance(model: Model, watched: NetworkTrace) -> dict[str, Any]:
    return {
        "model": model.name,
        "spec": model.spec,
        "weights": model.weights,
        "fingerprint": model.fingerprint,
        "preprocessing": model.preprocessing.to_dict(),
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "seed": model.seed,
        "last_grid": watched.last_grid,
        "versions": {"convoscope": __version__, "torch": str(torch.__version__), "numpy": np.__version__},
    }

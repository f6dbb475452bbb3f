"""What becomes of every picture that was asked about: all methods and targets of a batch, each outcome a value."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .doubts import cut_doubts, expected_relus, layer_doubts, rule_doubts, value_doubts
from .engine.fields.trace import NetworkTrace
from .engine.passes.planner import Job, Planner, Steps
from .errors import ConvoscopeError, LayerError, ModelError, NotInPicture
from .heatmap import Heatmap, Plan
from .methods import Maps, Method, Query
from .methods.naming import titles
from .models.model import Model
from .pictures.picture import ModelInput
from .results import Explanation
from .session import Session
from .targets import ClassTarget, Scorer, Target, default_layer, note
from .targets.classes import ClassScorer
from .targets.defaults import Predictions
from .targets.units import layer_of, no_such_layer
from .version import __version__

Progress = Callable[[str, int, int], None]

_APART = (
    "Pictures of one batch influence each other in this network (batch statistics, most often): each was run alone."
)


def _batches(fitted: Sequence[ModelInput], size: int) -> Iterable[list[int]]:
    """Indices of pictures of one input shape, at most ``size`` together, in order."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for index, one in enumerate(fitted):
        by_shape.setdefault(tuple(one.tensor.shape), []).append(index)
    for indices in by_shape.values():
        for start in range(0, len(indices), size):
            yield indices[start : start + size]


class _OneByOne(Exception):
    """A batch that has to be run picture by picture: its first forward failed, or its pictures differ in kind."""

    def __init__(self, always: bool = False) -> None:
        super().__init__()
        self.always = always


@dataclass(eq=False)
class Outcome:
    """What became of one picture: its explanation, the refusals, and whether nothing could be asked of it at all."""

    explanation: Explanation
    errors: list[ConvoscopeError]
    lost: bool = False
    #: methods that broke, other than by refusing this kind of network
    broken: frozenset[str] = frozenset()

    @property
    def without_maps(self) -> bool:
        """Whether the picture has no map at all; ``errors`` say why."""
        return bool(self.errors) and not any(self.explanation.rows)

    @property
    def reason(self) -> str:
        """Why there is none, in a sentence, or one for each method where they differ."""
        said = self.explanation.refused
        if len(set(said.values())) <= 1:
            return str(self.errors[0])
        return " ".join(f"{name}: {why}" for name, why in said.items())


@dataclass(eq=False)
class Question:
    """Everything that was asked, and the pictures in their order."""

    model: Model
    fitted: list[ModelInput]
    methods: dict[str, Method]
    targets: list[Target]
    plain_resize: bool
    plan: Plan
    progress: Progress | None

    def outcomes(self) -> list[Outcome]:
        """Every picture's outcome; a batch that does not work as one is run picture by picture."""
        # detectors answer with as many instances as they find: each picture has its own layer, and its own batch
        size = 1 if default_layer.one_by_one(self.model) else self.model.batch_size
        found: dict[int, Outcome] = {}
        waiting = list(_batches(self.fitted, size))
        alone = apart = False
        while waiting:
            batch = waiting.pop(0)
            if alone and len(batch) > 1:
                waiting = [[index] for index in batch] + waiting
                continue
            try:
                made = _Run(self, batch, self.methods, apart).outcomes()
            except _OneByOne as reason:
                alone = apart = reason.always
                made = [one for index in batch for one in _Run(self, [index], self.methods, apart).outcomes()]
                # where each works by itself, the network is made for one picture at a time
                alone = alone or not any(one.lost for one in made)
            found.update(zip(batch, made, strict=True))
        return [found[index] for index in range(len(self.fitted))]


@dataclass(eq=False)
class _Run:
    """One batch of pictures of one shape: all methods, all targets."""

    question: Question
    numbers: list[int]
    methods: dict[str, Method]
    #: it is alone because the others of its batch would change its scores, which the result tells
    apart: bool = False

    def __post_init__(self) -> None:
        self.model = self.question.model
        self.fitted = [self.question.fitted[number] for number in self.numbers]
        self.targets = self.question.targets
        self.titles = titles(self.question.methods)

    def outcomes(self) -> list[Outcome]:
        """Every picture's outcome. Raises :class:`_OneByOne` where the pictures must be run one by one."""
        started = time.perf_counter()
        alone = len(self.fitted) == 1
        session = Session(self.model, self.fitted, numbers=self.numbers)
        try:
            watched = self.model.watched(tuple(session.batch.shape[1:]))
            self._check_layers(watched)
            with session:
                if (self.apart or not alone) and session.runner.keep_apart(session.batch) and not alone:
                    raise _OneByOne(always=True)
                made = self._made(session, watched)
        except (ModelError, NotInPicture) as error:
            if not alone:
                raise _OneByOne from None
            return [Outcome(self._lost(error), [error] * len(self.targets), lost=True)]
        finally:
            self.question.plan.forwards += session.runner.forwards
            self.question.plan.backwards += session.runner.backwards
        for one in made:
            for row in one.explanation.rows:
                row.seconds = time.perf_counter() - started
        return made if alone else self._again(made)

    def _made(self, session: Session, watched: NetworkTrace) -> list[Outcome]:
        planner = Planner(session.runner, session.batch)
        rows = [[self._job(name, one, planner, watched) for name, one in self.methods.items()] for _ in self.targets]
        for row, preferred in zip(rows, self._default_layers(session, watched), strict=True):
            for query, _ in row:
                query.preferred = preferred
        jobs = [[job for _, job in row] for row in rows]
        everything = [job for row in jobs for job in row]
        output = planner.start(everything, [layer for target in self.targets for layer in target.layers(self.model)])
        scorers = [self._resolved(session, target, output) for target in self.targets]
        lost = [one for one in scorers if isinstance(one, NotInPicture)]
        if len(lost) == len(scorers):
            raise lost[0]
        assert planner.base is not None
        scores: list[tuple[Tensor, Tensor | None]] = []
        for scorer, row in zip(scorers, rows, strict=True):
            if isinstance(scorer, NotInPicture):
                scores.append((torch.empty(0), None))
                for _, job in row:
                    job.end(scorer)
                continue
            for query, job in row:
                query.aim(scorer, output)
                job.target = scorer
            scores.append(session.scored(scorer, planner.base))
        planner.run([job for job in everything if not job.done])
        said = session.predictions(output)
        shared = _provenance(self.model, watched)
        if not isinstance(scorers[0], NotInPicture):
            chosen = note(self.targets[0], output, scorers[0], session.batch.shape[-2:])
            if chosen is not None:
                shared["target_chosen"] = chosen
        # by refusing this kind of network an error has no cause but itself
        broken = frozenset(str(job.name) for job in everything if job.error is not None and job.error.__cause__)
        errors = [job.error for job in everything if job.error is not None]
        found = []
        for index in range(len(self.fitted)):
            explanations: list[Explanation] = []
            for target, scorer, own, (values, chances) in zip(self.targets, scorers, jobs, scores, strict=True):
                if isinstance(scorer, NotInPicture):
                    explanations.append(self._refused(target, scorer))
                    continue
                explanation = self._explanation(index, target, scorer, own, watched, session, said, shared)
                explanation.score = float(values[index])
                chance = float("nan") if chances is None else float(chances[index])
                explanation.probability = chance if np.isfinite(chance) else None
                explanations.append(explanation)
            explanations[0].rows = explanations
            found.append(Outcome(explanations[0], list(errors), broken=broken))
        return found

    def _resolved(self, session: Session, target: Target, output: Any) -> Scorer | NotInPicture:
        """The scorer; of a picture that is alone, also that it does not hold the target."""
        try:
            return session.resolve(target, output)
        except NotInPicture as error:
            if len(self.fitted) > 1:
                raise
            return error

    def _again(self, made: list[Outcome]) -> list[Outcome]:
        """What failed on the whole batch, other than by refusing the network, is tried on each picture alone."""
        broken = {name: one for name, one in self.methods.items() if any(name in done.broken for done in made)}
        if not broken:
            return made
        for number, one in zip(self.numbers, made, strict=True):
            (other,) = _Run(self.question, [number], broken).outcomes()
            for row, alone in zip(one.explanation.rows, other.explanation.rows, strict=True):
                row.heatmaps.update(alone.heatmaps)
                row.refused = {name: why for name, why in row.refused.items() if name not in alone.heatmaps}
            one.errors = [error for error in one.errors if str(error) in one.explanation.refused.values()]
        return made

    def _default_layers(self, session: Session, watched: NetworkTrace) -> list[str | None]:
        return default_layer.default_layer(
            session.runner, self.model, watched, session.batch, self.fitted, self.targets, self.methods
        )

    def _job(self, name: str, one: Method, planner: Planner, watched: NetworkTrace) -> tuple[Query, Job]:
        query = Query(self.model, planner.inputs, self.fitted, watched)
        query.plain_resize, query.reports = self.question.plain_resize, planner.reports
        return query, Job(self._steps(name, one, query), None, name)  # type: ignore[arg-type]

    def _steps(self, name: str, one: Method, query: Query) -> Steps:
        """The method's steps; whoever follows the progress hears of every method's end."""
        told = self.question.progress
        if told is None:
            return (yield from one.steps(query))
        last = (0, 1)

        def tell(done: int, total: int) -> None:
            nonlocal last
            last = (done, total)
            told(name, done, total)

        query.told = tell
        result = yield from one.steps(query)
        if last[0] != last[1]:
            told(name, last[1], last[1])
        return result

    def _check_layers(self, watched: NetworkTrace) -> None:
        for one in self.methods.values():
            name = getattr(one, "layer", None)
            if name is not None and name not in watched.layers:
                raise LayerError(no_such_layer(name, list(watched.layers)))
        for target in self.targets:
            for name in target.layers(self.model):
                layer_of(watched, name)

    def _lost(self, error: ConvoscopeError) -> Explanation:
        """A picture of which nothing could be asked: no map, and the reason at every method."""
        rows = [self._refused(target, error) for target in self.targets]
        rows[0].rows = rows
        return rows[0]

    def _refused(self, target: Target, error: ConvoscopeError) -> Explanation:
        refused = dict.fromkeys(self.methods, str(error))
        provenance = {"model": self.model.name, "spec": self.model.spec, "weights": self.model.weights}
        return Explanation(
            self.fitted[0], str(target), float("nan"), None, [], {}, self.question.plan, refused, (), provenance,
            question=target,
        )  # fmt: skip

    def _explanation(
        self,
        index: int,
        target: Target,
        scorer: Scorer,
        jobs: list[Job],
        watched: NetworkTrace,
        session: Session,
        said: Predictions,
        shared: dict[str, Any],
    ) -> Explanation:
        heatmaps: dict[str, Heatmap] = {}
        refused: dict[str, str] = {}
        label, prediction = scorer.labels[index], said.rows[index]
        doubts = [
            *self.model.notes,
            *self.fitted[index].picture.notes,
            *watched.doubts,
            *said.notes,
            *([_APART] if session.runner.apart else []),
        ]
        chosen = None
        if isinstance(scorer, ClassScorer):
            chosen = int(scorer.classes[index])
            other = None if scorer.against is None else int(scorer.against[index])
            # asked again, also of another network, it must be this class, whatever that one predicts
            target = ClassTarget(chosen, other)
            if other is None and prediction and chosen != prediction[0]["index"]:
                doubts.append(f"The target is not the prediction, which is {prediction[0]['label']}.")
        for job in jobs:
            name = str(job.name)
            if job.error is not None:
                refused[name] = str(job.error)
            else:
                heatmaps[name] = self._heatmap(index, name, label, job.result, scorer, watched, session, shared)
        return Explanation(
            self.fitted[index], label, 0.0, None, prediction, heatmaps, self.question.plan, refused,
            tuple(dict.fromkeys(doubts + [f"{n}: {d}" for n, h in heatmaps.items() for d in h.doubts])), dict(shared),
            question=target, class_index=chosen,
        )  # fmt: skip

    def _heatmap(
        self,
        index: int,
        name: str,
        target: str,
        maps: Maps,
        scorer: Scorer,
        watched: NetworkTrace,
        session: Session,
        shared: dict[str, Any],
    ) -> Heatmap:
        chosen = self.methods[name]
        values = np.ascontiguousarray(_array(maps.values[index]), dtype=np.float32)
        doubts = list(maps.doubts[index]) if maps.doubts else []
        doubts += layer_doubts(maps.layer, getattr(chosen, "layer", None), watched)
        doubts += cut_doubts(values, chosen.about, maps.layer, session.runner.cut)
        doubts += value_doubts(values, doubts)
        provenance = {
            **shared,
            "method": chosen.about.name,
            "settings": dict(vars(chosen)),
            "rule": chosen.about.rule,
            "layer": maps.layer,
        }
        if chosen.about.rule != "plain":
            doubts += rule_doubts(chosen.about.rule, scorer, watched, session.runner.relus)
            provenance["relu_nodes"] = {
                "overridden": session.runner.relus,
                "expected": expected_relus(scorer, watched),
            }
        return Heatmap(
            values,
            chosen.about.name,
            self.titles[name],
            target,
            maps.signed,
            maps.unit,
            maps.reduction,
            self.fitted[index],
            None if maps.grid is None else _array(maps.grid[index]),
            None if maps.raw is None else _array(maps.raw[index]),
            maps.layer,
            maps.geometry,
            maps.parts[index] if maps.parts else [],
            tuple(dict.fromkeys(doubts)),
            provenance,
            maps.facts[index] if maps.facts else {},
        )


def _array(values: Tensor) -> np.ndarray[Any, Any]:
    """A map for NumPy, which has no bfloat16: under autocast maps may come in it."""
    found: np.ndarray[Any, Any] = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return found


def _provenance(model: Model, watched: NetworkTrace) -> dict[str, Any]:
    return {
        **model.provenance(),
        "dtype": str(model.dtype).removeprefix("torch."),
        "seed": model.seed,
        "last_grid": watched.last_grid,
        "versions": {"convoscope": __version__, "torch": str(torch.__version__), "numpy": np.__version__},
    }

"""Collects what many methods need, merges it, and runs as little as possible.

Methods are generators (:mod:`convoscope.methods`): they yield needs and receive answers. The planner advances all of
them in rounds. In each round, needs at the same inputs share one forward, and needs of the same target and rule
share one backward, whatever method asked.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...errors import ConvoscopeError, MethodRefused
from ..recompute.choose import Report
from ..recompute.perturb import perturbed_scores, replaced_scores
from .needs import INPUT, Activation, Dedicated, Gradient, Need, Perturbed, Replaced, Rule, Scorer, Scores
from .runner import Recorded, Runner
from .untouched import opaque_parts

Answers = Mapping[Need, Tensor]
Steps = Generator[Need | tuple[Need, ...], Answers, Any]


@dataclass(eq=False)
class Job:
    """One method on one target: ``result`` or ``error`` is set when it has ended."""

    steps: Steps
    target: Scorer
    name: Hashable = None
    result: Any = None
    error: ConvoscopeError | None = None
    waiting: tuple[Need, ...] = ()
    notes: list[str] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return not self.waiting

    def advance(self, answers: Answers | None) -> None:
        """Go on to the next needs, or to the end."""
        try:
            asked = next(self.steps) if answers is None else self.steps.send(answers)
            self.waiting = asked if isinstance(asked, tuple) else (asked,)
        except StopIteration as stop:
            self.waiting, self.result = (), stop.value
        except ConvoscopeError as error:
            self.waiting, self.error = (), error


class Planner:
    """Runs jobs on one batch of inputs ``[B, ...]``; ``network`` is protected by the caller."""

    def __init__(self, runner: Runner, inputs: Tensor, announce: Callable[[Report], None] | None = None) -> None:
        self.runner = runner
        self.inputs = inputs
        self.base: Recorded | None = None
        self.reports: dict[Need, Report] = {}
        self.announce = announce

    def start(self, jobs: list[Job], layers: Iterable[str] = ()) -> Any:
        """Ask every job for its first needs, then run the pictures once for all of them; returns the output.

        Targets may be resolved from that output (the predicted class) before :meth:`run`.
        """
        for job in jobs:
            job.advance(None)
        wanted = set(layers).union(*(_layers(job.waiting, None) for job in jobs))
        gradients = any(isinstance(need, Gradient) for job in jobs for need in job.waiting)
        try:
            return self._base(wanted, gradients).output
        except ConvoscopeError:
            if not wanted:
                raise
            # one layer that cannot be kept must not take the others along: each job finds out in its round
            return self._base(set(), gradients).output

    def run(self, jobs: list[Job]) -> None:
        """Advance all started jobs to their ends."""
        while waiting := [job for job in jobs if not job.done]:
            answers, failed = self._round(waiting)
            for job in waiting:
                error = next((failed[job.target, need] for need in job.waiting if (job.target, need) in failed), None)
                if error is not None:
                    job.steps.close()
                    job.waiting, job.error = (), error
                    continue
                job.advance({need: answers[job.target, need] for need in job.waiting})
        self.base = None

    def _base(self, layers: set[str], gradients: bool) -> Recorded:
        base = self.base
        if base is None or not layers <= set(base.layers) or (gradients and not base.gradients):
            have = set(base.layers) if base is not None else set()
            self.base = base = self.runner.record(self.inputs, layers=layers | have, gradients=gradients)
        return base

    def _round(self, jobs: list[Job]) -> tuple[dict[Any, Tensor], dict[Any, ConvoscopeError]]:
        answers: dict[Any, Tensor] = {}
        failed: dict[Any, ConvoscopeError] = {}
        # dict, not set: the order of the passes must not depend on hashes
        asked = dict.fromkeys((job.target, need) for job in jobs for need in job.waiting)
        by_inputs: dict[int | None, list[tuple[Scorer, Need]]] = {}
        for target, need in asked:
            inputs = getattr(need, "inputs", None)
            if isinstance(need, (Perturbed, Replaced, Dedicated)):
                try:
                    answers[target, need] = self._varied(target, need)
                except ConvoscopeError as error:
                    failed[target, need] = error
            else:
                by_inputs.setdefault(None if inputs is None else id(inputs), []).append((target, need))
        for key, group in by_inputs.items():
            try:
                answers.update(self._group(group) if key is None else self._elsewhere(group))
            except ConvoscopeError as error:
                if len(group) == 1:
                    failed[group[0]] = error
                    continue
                # one impossible need must not take the others along: find out which it is
                for pair in group:
                    try:
                        answers.update(self._group([pair]) if key is None else self._elsewhere([pair]))
                    except ConvoscopeError as single:
                        failed[pair] = single
        return answers, failed

    def _group(self, group: list[tuple[Scorer, Need]]) -> dict[Any, Tensor]:
        """Needs at the pictures themselves: the graph is kept for later rounds."""
        wanted = set().union(*(_layers([need], target) for target, need in group))
        gradients = any(isinstance(need, Gradient) for _, need in group)
        return self._answer(group, self._base(wanted, gradients), keep=True)

    def _elsewhere(self, group: list[tuple[Scorer, Need]]) -> dict[Any, Tensor]:
        """Needs at other inputs (K·B rows): run in pieces of the batch size, graphs dropped at once."""
        inputs: Tensor = group[0][1].inputs  # type: ignore[union-attr,assignment]
        wanted = set().union(*(_layers([need], target) for target, need in group))
        gradients = any(isinstance(need, Gradient) for _, need in group)
        rows = torch.arange(len(inputs)) % len(self.inputs)
        pieces: dict[Any, list[Tensor]] = {}
        step = max(1, self.runner.batch_size)
        for start in range(0, len(inputs), step):
            part = slice(start, start + step)
            recorded = self.runner.record(inputs[part], layers=wanted, gradients=gradients, rows=rows[part])
            for pair, value in self._answer(group, recorded, keep=False).items():
                pieces.setdefault(pair, []).append(value)
        return {pair: torch.cat(values) for pair, values in pieces.items()}

    def _answer(self, group: list[tuple[Scorer, Need]], recorded: Recorded, *, keep: bool) -> dict[Any, Tensor]:
        answers: dict[Any, Tensor] = {}
        backward: dict[tuple[Scorer, Rule], list[tuple[Scorer, Gradient]]] = {}
        for target, need in group:
            if isinstance(need, Activation):
                value = recorded.leaf.detach() if need.layer == INPUT else recorded.layers[need.layer].value
                answers[target, need] = value
            elif isinstance(need, Scores):
                method = target.probability if need.probability else target.score
                with torch.no_grad():
                    answers[target, need] = method(recorded.output, recorded.live(), recorded.rows).float()
            elif isinstance(need, Gradient):
                backward.setdefault((target, need.rule), []).append((target, need))
        scores: dict[Scorer, Tensor] = {}
        for (target, _), _pairs in backward.items():
            if target not in scores:
                with torch.enable_grad():
                    scores[target] = target.score(recorded.output, recorded.live(), recorded.rows)
        last = len(backward) - 1
        for number, ((target, rule), pairs) in enumerate(backward.items()):
            at = list(dict.fromkeys(need.at for _, need in pairs))
            found = self.runner.gradients(recorded, scores[target], rule, at, keep=keep or number < last)
            for pair in pairs:
                answers[pair] = found[pair[1].at]
        return answers

    def _varied(self, target: Scorer, need: Perturbed | Replaced | Dedicated) -> Tensor:
        if isinstance(need, Dedicated):
            if opaque_parts(self.runner.network):
                raise MethodRefused(
                    "This method must see every operation, and inside a traced or scripted module none can be seen: "
                    "give the original module, or use a pixel method (saliency, integrated-gradients, occlusion)."
                )
            return need.answer(self.runner, self.inputs, target)
        if isinstance(need, Perturbed) and self.inputs.ndim != 4:
            raise MethodRefused(
                "Masks are for single pictures, not for volumes and videos: use a gradient or a CAM method."
            )
        if isinstance(need, Replaced):
            return replaced_scores(self.runner, self.inputs, target, need)
        scores, self.reports[need] = perturbed_scores(self.runner, self.inputs, target, need, self.announce)
        return scores


def _layers(needs: Iterable[Need], target: Scorer | None) -> set[str]:
    wanted: set[str] = set(target.layers) if target is not None else set()
    for need in needs:
        if isinstance(need, Activation):
            wanted.add(need.layer)
        elif isinstance(need, Gradient):
            wanted.add(need.at)
    return wanted - {INPUT}

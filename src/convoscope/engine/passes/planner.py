"""Collects what many methods need, merges it, and runs as little as possible.

Methods are generators (:mod:`convoscope.methods`): they yield needs and receive answers. The planner advances all of
them in rounds. In each round, needs at the same inputs share one forward, and needs of the same target and rule
share one backward, whatever method asked.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...errors import ConvoscopeError, MethodRefused, ModelError
from ..recompute.choose import Report
from ..recompute.perturb import perturbed_scores, replaced_scores
from .needs import INPUT, Activation, Dedicated, Gradient, Need, Perturbed, Replaced, Rule, Scorer, Scores
from .runner import Recorded, Runner
from .untouched import opaque_parts

Answers = Mapping[Need, Tensor]
Key = tuple[int, Need]
Steps = Generator[Need | tuple[Need, ...], Answers, Any]


@dataclass(eq=False)
class Job:
    """One method on one target. Its outcome is a value: ``result``, or the ``error`` that ended it, at any time."""

    steps: Steps
    target: Scorer
    name: Hashable = None
    result: Any = None
    error: ConvoscopeError | None = None
    waiting: tuple[Need, ...] = ()

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
        except Exception as error:
            self.end(error)

    def end(self, error: Exception) -> None:
        """An error ends this job, and no other."""
        self.steps.close()
        self.waiting, self.error = (), refusal(error)


def refusal(error: Exception) -> ConvoscopeError:
    """What is said of an error that came after the network had run on the pictures themselves."""
    cause = error.__cause__ if isinstance(error, ModelError) else error
    if cause is None or isinstance(cause, ConvoscopeError):
        return error if isinstance(error, ConvoscopeError) else MethodRefused(str(error))
    said = str(cause).strip().splitlines()[0][:200] if str(cause).strip() else type(cause).__name__
    if isinstance(cause, MemoryError) or "out of memory" in said.lower():
        found = MethodRefused(f"Out of memory: use a smaller --batch-size or --size ({said}).")
    elif isinstance(error, ModelError):
        found = MethodRefused(
            f"The network ran on the picture itself, but not in the way in which this method runs it: {said}"
        )
    else:
        found = MethodRefused(f"This method failed on this network ({type(cause).__name__}): {said}")
    found.__cause__ = error
    return found


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
                keys = [_key(job.target, need) for need in job.waiting]
                error = next((failed[key] for key in keys if key in failed), None)
                if error is not None:
                    job.end(error)
                    continue
                job.advance({need: answers[key] for need, key in zip(job.waiting, keys, strict=True)})
        self.base = None

    def _base(self, layers: set[str], gradients: bool) -> Recorded:
        base = self.base
        if base is None or not layers <= set(base.layers) or (gradients and not base.gradients):
            have = set(base.layers) if base is not None else set()
            self.base = base = self.runner.record(self.inputs, layers=layers | have, gradients=gradients)
        return base

    def _round(self, jobs: list[Job]) -> tuple[dict[Key, Tensor], dict[Key, Exception]]:
        answers: dict[Key, Tensor] = {}
        failed: dict[Key, Exception] = {}
        # dict, not set: the order of the passes must not depend on hashes
        asked = {_key(job.target, need): (job.target, need) for job in jobs for need in job.waiting}
        by_inputs: dict[int | None, list[tuple[Scorer, Need]]] = {}
        for target, need in asked.values():
            inputs = getattr(need, "inputs", None)
            if isinstance(need, (Perturbed, Replaced, Dedicated)):
                self._try(answers, failed, [(target, need)], self._varied)
            else:
                by_inputs.setdefault(None if inputs is None else id(inputs), []).append((target, need))
        for key, group in by_inputs.items():
            self._try(answers, failed, group, self._group if key is None else self._elsewhere)
        return answers, failed

    def _try(
        self,
        answers: dict[Key, Tensor],
        failed: dict[Key, Exception],
        group: list[tuple[Scorer, Need]],
        answer: Callable[[list[tuple[Scorer, Need]]], dict[Key, Tensor]],
    ) -> None:
        """The answers to a group of needs; one that is impossible does not take the others along."""
        try:
            answers.update(answer(group))
        except Exception as error:
            together = self.runner.batch_size
            varied = answer != self._group and not isinstance(group[0][1], Dedicated)
            if isinstance(error, ModelError) and together > 1 and varied:
                # some networks are made for one picture at a time
                self.runner.batch_size = 1
                again: dict[Key, Exception] = {}
                self._try(answers, again, group, answer)
                if again:
                    self.runner.batch_size = together
                    failed.update(dict.fromkeys(again, error))
            elif len(group) == 1:
                failed[_key(*group[0])] = error
            else:
                for pair in group:
                    self._try(answers, failed, [pair], answer)

    def _group(self, group: list[tuple[Scorer, Need]]) -> dict[Key, Tensor]:
        """Needs at the pictures themselves: the graph is kept for later rounds."""
        wanted = set().union(*(_layers([need], target) for target, need in group))
        gradients = any(isinstance(need, Gradient) for _, need in group)
        return self._answer(group, self._base(wanted, gradients), keep=True)

    def _elsewhere(self, group: list[tuple[Scorer, Need]]) -> dict[Key, Tensor]:
        """Needs at other inputs (K·B rows): run in pieces of the batch size, graphs dropped at once."""
        if self.runner.batch_size > 1:
            self.runner.keep_apart(self.inputs, self.base)
        inputs: Tensor = group[0][1].inputs  # type: ignore[union-attr,assignment]
        wanted = set().union(*(_layers([need], target) for target, need in group))
        gradients = any(isinstance(need, Gradient) for _, need in group)
        rows = torch.arange(len(inputs)) % len(self.inputs)
        pieces: dict[Key, list[Tensor]] = {}
        step = max(1, self.runner.batch_size)
        for start in range(0, len(inputs), step):
            part = slice(start, start + step)
            recorded = self.runner.record(inputs[part], layers=wanted, gradients=gradients, rows=rows[part])
            for pair, value in self._answer(group, recorded, keep=False).items():
                pieces.setdefault(pair, []).append(value)
        return {pair: torch.cat(values) for pair, values in pieces.items()}

    def _answer(self, group: list[tuple[Scorer, Need]], recorded: Recorded, *, keep: bool) -> dict[Key, Tensor]:
        answers: dict[Key, Tensor] = {}
        backward: dict[tuple[int, Rule], list[tuple[Scorer, Gradient]]] = {}
        for target, need in group:
            if isinstance(need, Activation):
                value = recorded.leaf.detach() if need.layer == INPUT else recorded.layers[need.layer].value
                answers[_key(target, need)] = value
            elif isinstance(need, Scores):
                score = target.probability if need.probability and not target.as_value else target.score
                with torch.no_grad():
                    # a view of what has a graph has one, too, also where it is made without gradients
                    found = score(recorded.output, recorded.live(), recorded.rows).detach().float()
                    answers[_key(target, need)] = found.expand(len(recorded.rows))
            elif isinstance(need, Gradient):
                backward.setdefault((id(target), need.rule), []).append((target, need))
        scores: dict[int, Tensor] = {}
        for number, ((which, rule), pairs) in enumerate(backward.items()):
            target = pairs[0][0]
            if which not in scores:
                with torch.enable_grad():
                    scores[which] = target.score(recorded.output, recorded.live(), recorded.rows)
            at = list(dict.fromkeys(need.at for _, need in pairs))
            more = keep or number < len(backward) - 1
            slopes = self.runner.gradients(recorded, scores[which], rule, at, keep=more)
            for pair in pairs:
                answers[_key(*pair)] = slopes[pair[1].at]
        return answers

    def _varied(self, group: list[tuple[Scorer, Need]]) -> dict[Key, Tensor]:
        """A need that is run for itself."""
        ((target, need),) = group
        if isinstance(need, Dedicated):
            if opaque_parts(self.runner.network):
                raise MethodRefused(
                    "This method must see every operation, and inside a traced or scripted module none can be seen: "
                    "give the original module, or use a pixel method (saliency, integrated-gradients, occlusion)."
                )
            return {_key(target, need): need.answer(self.runner, self.inputs, target)}
        assert isinstance(need, (Perturbed, Replaced))
        asked = replace(need, probability=False) if need.probability and target.as_value else need
        self.runner.keep_apart(self.inputs, self.base)
        if isinstance(asked, Replaced):
            return {_key(target, need): replaced_scores(self.runner, self.inputs, target, asked)}
        if self.inputs.ndim != 4:
            raise MethodRefused(
                "Masks are for single pictures, not for volumes and videos: use a gradient or a CAM method."
            )
        if self.runner.apart:
            asked = replace(asked, engine="dense", many_more_follow=False)
        scores, report = perturbed_scores(self.runner, self.inputs, target, asked, self.announce)
        self.reports[need] = report
        return {_key(target, need): scores}


def _key(target: Scorer, need: Need) -> Key:
    # by identity: a person's own scorer need not be hashable
    return id(target), need


def _layers(needs: Iterable[Need], target: Scorer | None) -> set[str]:
    wanted: set[str] = set(target.layers) if target is not None else set()
    for need in needs:
        if isinstance(need, Activation):
            wanted.add(need.layer)
        elif isinstance(need, Gradient):
            wanted.add(need.at)
    return wanted - {INPUT}

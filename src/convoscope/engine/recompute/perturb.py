"""Scores on pictures of which a part is replaced, and on networks of which a layer is replaced.

The one path for occlusion, RISE, Score-CAM, LIME, insertion and deletion (``Perturbed``), and for Ablation-CAM and
switching units off (``Replaced``). The masked pictures are made a batch at a time, never all at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..passes.needs import Perturbed, Replaced, Scorer
from ..passes.runner import Recorded, Runner, call_plainly
from ..passes.untouched import innermost
from .choose import FEW, Report, agree, forget, graph_of, incremental_scores, prepared, scored
from .incremental import NotIncremental
from .incremental.windows import as_masks, replace
from .tail import Tail


def perturbed_scores(
    runner: Runner,
    inputs: Tensor,
    target: Scorer,
    need: Perturbed,
    announce: Callable[[Report], None] | None = None,
) -> tuple[Tensor, Report]:
    """Scores ``[B, M]``, and how they were made.

    On Ctrl-C what is done is kept and the rest is NaN.
    """
    report = Report()
    found = incremental_scores(runner, inputs, target, need, report, announce)
    if found is not None:
        return found, report
    masks = as_masks(need.masks)
    count = len(masks)
    height, width = (int(side) for side in inputs.shape[-2:])
    started = time.perf_counter()
    wanted = range(len(inputs)) if need.row is None else [need.row]
    scores = torch.full((len(wanted), count), float("nan"))
    fill = need.fill.to(inputs)
    step = max(1, runner.batch_size)
    done = 0
    try:
        for place, b in enumerate(wanted):
            for start in range(0, count, step):
                which = np.arange(start, min(start + step, count))
                zero = np.zeros_like(which)
                mask = masks.tiles(which, zero, height, zero, width, inputs)
                varied = replace(inputs[b].expand(len(which), *inputs.shape[1:]), mask, fill[b][None])
                rows = torch.full((len(varied),), b)
                recorded = runner.record(varied, layers=target.layers, gradients=False, rows=rows)
                scores[place, start : start + len(varied)] = _score(target, recorded, need.probability)
                done += len(varied)
                if done == len(varied):
                    report.estimate = (time.perf_counter() - started) * len(wanted) * count / done
                    if announce is not None:
                        announce(report)
                if need.progress is not None:
                    need.progress(done)
    except KeyboardInterrupt:
        if done == 0:
            raise
        report.stopped = True
    report.seconds = time.perf_counter() - started
    return scores, report


def varied_scores(
    runner: Runner, inputs: Tensor, varied: Tensor, target: Scorer, probability: bool, many_more_follow: bool = False
) -> Tensor:
    """Scores ``[K]`` at ``varied`` ``[K, C, H, W]``, all of them made from the one picture ``inputs`` ``[1, C, H, W]``.

    ``many_more_follow``: as in :class:`convoscope.engine.passes.needs.Perturbed`.
    """
    varied = varied.to(inputs)
    if many_more_follow and inputs.device.type == "cpu":
        try:
            engine = prepared(runner, inputs, target)
        except NotIncremental:
            pass
        else:
            everything = torch.ones((1, *varied.shape[2:]), dtype=torch.bool).expand(len(varied), -1, -1)
            runner.forwards += -(-len(varied) // max(1, runner.batch_size))
            return scored(target, engine.outputs(everything, varied), 0, len(varied), probability)
    found = []
    for piece in torch.split(varied, max(1, runner.batch_size)):
        rows = torch.zeros(len(piece), dtype=torch.long)
        recorded = runner.record(piece, layers=target.layers, gradients=False, rows=rows)
        found.append(_score(target, recorded, probability))
    return torch.cat(found)


def replaced_scores(runner: Runner, inputs: Tensor, target: Scorer, need: Replaced) -> Tensor:
    """Scores ``[B, M]`` with the layer's output replaced by each of ``need.values`` in turn.

    Several replacements share a forward: the pictures are repeated, and each repeat gets its own replacement.
    """
    found = _from_the_layer_on(runner, inputs, target, need)
    if found is not None:
        return found
    size = len(inputs)
    scores = torch.empty((size, len(need.values)))
    group = max(1, runner.batch_size // size)
    for start in range(0, len(need.values), group):
        values = need.values[start : start + group]

        def replace(output: Tensor, values: Any = values) -> Tensor:
            return torch.cat([value(part) for value, part in zip(values, torch.split(output, size), strict=True)])

        recorded = runner.record(
            inputs.repeat(len(values), *[1] * (inputs.ndim - 1)),
            layers=target.layers,
            gradients=False,
            rows=torch.arange(size).repeat(len(values)),
            replace={need.layer: replace},
        )
        found = _score(target, recorded, need.probability)
        scores[:, start : start + len(values)] = found.view(len(values), size).T
    return scores


def _from_the_layer_on(runner: Runner, inputs: Tensor, target: Scorer, need: Replaced) -> Tensor | None:
    """The same, computing again only what lies behind the layer; ``None`` where the graph does not allow it."""
    plain = runner.call is call_plainly and not target.layers and inputs.ndim == 4
    if not plain or len(need.values) < FEW or torch.is_autocast_enabled(inputs.device.type):
        return None
    network = innermost(runner.network)
    scores = torch.empty((len(inputs), len(need.values)))
    step = max(1, runner.batch_size)
    try:
        graph = graph_of(network, inputs[:1])
        for b in range(len(inputs)):
            row = torch.full((1,), b)
            recorded = runner.record(inputs[b : b + 1], layers=[need.layer], gradients=False, rows=row)
            value = recorded.layers[need.layer].value
            tail = Tail(network, graph, inputs[b : b + 1], value)
            for start in range(0, len(need.values), step):
                part = need.values[start : start + step]
                output = tail.outputs(torch.cat([change(value) for change in part]))
                scores[b, start : start + len(part)] = scored(target, output, b, len(part), need.probability)
            # one replacement is run through the whole network, too: the graph must tell the same
            truth = runner.record(inputs[b : b + 1], gradients=False, rows=row, replace={need.layer: need.values[0]})
            whole = _score(target, truth, need.probability)
            if not agree(scores[b, :1], whole):
                forget(network, inputs, graph)
                return None
    except NotIncremental:
        return None
    return scores


def _score(target: Scorer, recorded: Recorded, probability: bool) -> Tensor:
    method = target.probability if probability else target.score
    with torch.no_grad():
        return method(recorded.output, recorded.live(), recorded.rows).detach().float().cpu()

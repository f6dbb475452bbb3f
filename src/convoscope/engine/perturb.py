"""Scores on pictures of which a part is replaced, and on networks of which a layer is replaced.

The one path for occlusion, RISE, Score-CAM, LIME, insertion and deletion (``Perturbed``), and for Ablation-CAM and
switching units off (``Replaced``). The masked pictures are made a batch at a time, never all at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .incremental.windows import as_masks, replace
from .needs import Perturbed, Replaced
from .recompute import Report, incremental_scores
from .runner import Recorded, Runner

if TYPE_CHECKING:
    from .planner import Scorer


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
    report.seconds = time.perf_counter() - started
    return scores, report


def replaced_scores(runner: Runner, inputs: Tensor, target: Scorer, need: Replaced) -> Tensor:
    """Scores ``[B, M]`` with the layer's output replaced by each of ``need.values`` in turn.

    Several replacements share a forward: the pictures are repeated, and each repeat gets its own replacement.
    """
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


def _score(target: Scorer, recorded: Recorded, probability: bool) -> Tensor:
    method = target.probability if probability else target.score
    with torch.no_grad():
        return method(recorded.output, recorded.live(), recorded.rows).float().cpu()

"""Chooses between incremental and dense recomputation for masked pictures, and says which it took and why."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..passes.needs import Perturbed, Scorer
from ..passes.runner import Runner, call_plainly
from ..passes.untouched import innermost, untouched
from .incremental import Boxes, ExportedGraph, FreeMasks, Incremental, NotIncremental, export, saved
from .incremental.recording import record
from .incremental.run import BATCH
from .incremental.windows import Masks, as_masks

#: fewer masks than this are not worth exporting a graph for
FEW = 8
#: masks that cover more of the picture than this change nearly everything
LARGE = 0.6
#: windows on which approximate scores are compared with exact ones
SAMPLED = 16
#: smaller savings than this share of the multiply-adds are eaten by the book-keeping
SMALL_GAIN = 0.15

#: networks of which a recording did not tell what they do: they are exported
_to_export: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_graphs: weakref.WeakKeyDictionary[nn.Module, dict[Any, ExportedGraph | NotIncremental]] = weakref.WeakKeyDictionary()


@dataclass
class Report:
    """How masked pictures were scored: ``engine`` is ``dense`` or ``incremental``.

    ``saved`` is the share of the dense multiply-adds that was not computed. ``agreement``, of approximate scores only,
    is their rank correlation with the exact ones on sampled windows. ``doubt`` tells why a speed-up could not be had.
    ``stopped``: the user has interrupted it, and the scores that were not computed are NaN.
    """

    engine: str = "dense"
    windows: int = 0
    saved: float = 0.0
    estimate: float = 0.0
    seconds: float = 0.0
    peak_bytes: int = 0
    agreement: float | None = None
    doubt: str = ""
    stopped: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "stopped"}


def graph_of(network: nn.Module, example: Tensor) -> ExportedGraph:
    """The graph for this input shape, recorded or exported once a network, and read from disk after that.

    Raises :class:`NotIncremental`.
    """
    known = _graphs.setdefault(network, {})
    key = (tuple(example.shape[1:]), example.dtype, example.device)
    if key not in known:
        try:
            known[key] = saved.load(network, example) or saved.keep(
                network, example, _recorded(network, example) or export(network, example)
            )
        except NotIncremental as reason:
            known[key] = reason
    found = known[key]
    if isinstance(found, NotIncremental):
        raise found
    return found


def is_quick(network: nn.Module, example: Tensor) -> bool:
    """Whether :func:`graph_of` takes no seconds: the graph lies on disk, or can be recorded."""
    return saved.is_kept(network, example) or _recorded(network, example) is not None


def _recorded(network: nn.Module, example: Tensor) -> ExportedGraph | None:
    if network in _to_export:
        return None
    # a forward may leave its tensors in the network, and here they have no values
    with untouched(network, gradients=False):
        return record(network, example)


class _Stale(NotIncremental):
    """A graph that does not tell what the network does, where another may: from disk, or recorded."""


def forget(network: nn.Module, example: Tensor, graph: ExportedGraph) -> bool:
    """The next :func:`graph_of` makes another; ``False`` where ``graph`` was exported, and no other can be had."""
    if graph.origin == "exported":
        return False
    if graph.origin == "recorded":
        _to_export.add(network)
    _graphs.get(network, {}).clear()
    saved.forget(network, example)
    return True


def incremental_scores(
    runner: Runner,
    inputs: Tensor,
    target: Scorer,
    need: Perturbed,
    report: Report,
    announce: Callable[[Report], None] | None = None,
) -> Tensor | None:
    """Scores ``[B, M]`` by incremental recomputation, or ``None`` where dense is better or all there is.

    ``report`` is filled in. On Ctrl-C what is done is kept and the rest is NaN.
    """
    masks = as_masks(need.masks)
    report.windows = len(masks)
    if len(masks) < FEW or inputs.ndim != 4 or need.engine == "dense":
        return None
    if runner.call is not call_plainly or target.layers or torch.is_autocast_enabled(inputs.device.type):
        report.doubt = "Every window was computed densely: the target or the call is not the network's plain output."
        return None
    if inputs.dtype not in (torch.float32, torch.float64):
        report.doubt = (
            "Every window was computed densely: recomputing in parts adds up, which needs single precision."
        )
        return None
    whole = need.fast is None and covered(masks, tuple(inputs.shape[-2:])) > LARGE  # type: ignore[arg-type]
    if whole and not (need.many_more_follow and inputs.device.type == "cpu"):
        return None
    network = innermost(runner.network)
    wanted = list(range(len(inputs))) if need.row is None else [need.row]
    scores = torch.full((len(wanted), len(masks)), float("nan"))
    done = 0
    started = time.perf_counter()
    try:
        graph = graph_of(network, inputs[:1])
        for place, b in enumerate(wanted):
            began = time.perf_counter()
            if whole:
                engine = prepared(runner, inputs, target, b)
            else:
                engine = Incremental(network, inputs[b : b + 1], graph=graph, fast=need.fast)
            if not whole and not place:
                estimate = engine.estimate(masks)
                if need.fast is None and estimate.saved < SMALL_GAIN:
                    return None
                a_pass = _check(runner, engine, inputs[b : b + 1], target, b)
                report.engine, report.saved = "incremental", estimate.saved
                # tiles are a little less efficient than whole maps: the factor is what was measured on six networks
                report.estimate = 1.3 * a_pass * estimate.products / max(estimate.dense_products, 1)
                report.estimate *= len(masks) * len(wanted)
                report.estimate += time.perf_counter() - began
                if announce is not None:
                    announce(report)
            for which, leaves in engine.stream(masks, need.fill[b]):
                output = engine.program.structure(leaves)
                scores[place, which] = scored(target, output, b, len(which), need.probability)
                if whole and not done:
                    each = (time.perf_counter() - began) / len(which)
                    report.estimate = each * len(masks) * len(wanted)
                    if announce is not None:
                        announce(report)
                done += len(which)
                if need.progress is not None:
                    need.progress(done)
            report.saved, report.peak_bytes = engine.saved, max(report.peak_bytes, engine.bound)
            if need.fast is not None and not place:
                sample = np.unique(np.linspace(0, len(masks) - 1, SAMPLED).astype(int))
                exact = Incremental(network, inputs[b : b + 1], graph=graph)
                output = exact.outputs(chosen(masks, sample), need.fill[b])
                truth = scored(target, output, b, len(sample), need.probability)
                report.agreement = rank_correlation(scores[place, torch.from_numpy(sample)], truth)
    except _Stale:
        return incremental_scores(runner, inputs, target, need, report, announce)
    except NotIncremental as reason:
        report.engine, report.saved = "dense", 0.0
        report.doubt = "" if whole else f"Every window was computed densely: {reason}."
        return None
    except KeyboardInterrupt:
        if done == 0:
            raise
        report.stopped = True
    runner.forwards += len(wanted) * (-(-len(masks) // max(1, runner.batch_size)) if whole else 1)
    report.seconds = time.perf_counter() - started
    return scores


def prepared(runner: Runner, inputs: Tensor, target: Scorer, row: int = 0) -> Incremental:
    """The network prepared for hundreds of variations of picture ``row``, every one computed wholly.

    Batch norm is folded, weights lie in the processor's order and 3x3 convolutions take fewer products: 1.1 to 1.5
    times as fast as the network itself on a CPU (a few seconds of preparation). Kept as long as the runner is.
    Raises :class:`NotIncremental` where the graph cannot be exported or does not tell the same.
    """
    if runner.call is not call_plainly or target.layers or inputs.ndim != 4 or inputs.dtype != torch.float32:
        raise NotIncremental("the target or the call is not the network's plain output in single precision")
    last = runner.prepared
    engine: Incremental
    if last is not None and last[0] is inputs and last[1] == row:
        engine = last[2]
        return engine
    network, picture = innermost(runner.network), inputs[row : row + 1]
    graph = graph_of(network, inputs[:1])
    same = last[2].program if last is not None and last[2].graph is graph else None
    batch = max(1, min(BATCH, runner.batch_size))
    engine = Incremental(network, picture, graph=graph, share_dense=0.0, batch=batch, program=same)
    try:
        _check(runner, engine, picture, target, row)
    except _Stale:
        return prepared(runner, inputs, target, row)
    runner.prepared = (inputs, row, engine)
    return engine


def chosen(masks: Masks, which: np.ndarray[Any, Any]) -> Masks:
    """Some of the masks, by number."""
    if isinstance(masks, Boxes):
        return Boxes(masks.top[which], masks.bottom[which], masks.left[which], masks.right[which])
    assert isinstance(masks, FreeMasks)
    return FreeMasks(masks.masks[torch.from_numpy(which)])


def rank_correlation(ours: Tensor, truth: Tensor) -> float:
    """Spearman's rank correlation of two rows of scores; 1 where neither varies."""
    ranks = [values.double().argsort().argsort().double() for values in (ours, truth)]
    centred = [r - r.mean() for r in ranks]
    norm = float(centred[0].norm() * centred[1].norm())
    return 1.0 if norm == 0 else float(centred[0] @ centred[1]) / norm


def covered(masks: Masks, size: tuple[int, int]) -> float:
    """The mean share of the picture inside the masks' bounding boxes."""
    top, bottom, left, right = masks.bounds()
    return float(np.mean((bottom - top) * (right - left)) / (size[0] * size[1]))


def scored(target: Scorer, output: Any, row: int, count: int, probability: bool) -> Tensor:
    """Scores of ``count`` outputs that all belong to picture ``row``."""
    method = target.probability if probability else target.score
    with torch.inference_mode():
        return method(output, {}, torch.full((count,), row)).float().cpu()


def agree(ours: Tensor, truth: Tensor) -> bool:
    """Whether scores are equal to rounding; a network that overflows does so both ways."""
    size = float(truth.abs().nan_to_num(0, 0, 0).max())
    return torch.allclose(ours, truth, rtol=1e-3, atol=1e-4 * (1 + size), equal_nan=True)


def _check(runner: Runner, engine: Incremental, inputs: Tensor, target: Scorer, row: int) -> float:
    """The graph's own score of the picture must be the network's: a branch on the data may have been recorded.

    Returns the seconds of the network's own pass.
    """
    rows = torch.full((1,), row)
    with torch.inference_mode():
        ours = target.score(engine.program.structure(engine._base_outputs), {}, rows).float()
    began = time.perf_counter()
    recorded = runner.record(inputs, gradients=False, rows=rows)
    seconds = time.perf_counter() - began
    truth = target.score(recorded.output, {}, rows).float()
    if not agree(ours, truth):
        if forget(innermost(runner.network), inputs, engine.graph):
            raise _Stale("the graph is another network's")
        raise NotIncremental("the exported graph does not reproduce the network's score on this picture")
    return seconds

"""Repair of the input: the preprocessing that the pictures themselves show to be right, written into a card."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...engine.passes.untouched import innermost
from ...errors import ModelError
from ...models.model import Model
from ...pictures.picture import Preprocessing
from ..attempts import attempt
from ..collection import Labelled
from ..pipelines import Pipeline, geometries, values
from ..shortcuts.bench import Bench
from .attempt import Attempt
from .gate import Measured, judge, likelihood, log_chance
from .split import PROOF

#: pictures that every pipeline is tried on
TRIED = 128


def repair_input(
    bench: Bench, part: NDArray[np.int64], seed: int = 0, proof: Bench | None = None,
    evidence: Mapping[str, Any] | None = None,
) -> Attempt:  # fmt: skip
    """The pipeline of the most likelihood on some labelled pictures, proven on others.

    Args:
        bench: the pictures, prepared as they are now.
        part: of each, as :func:`.split.parts` says.
        seed: of the choice of pictures.
        proof: other pictures that prove.
        evidence: of a finding of ``diagnose``: its pipeline is taken instead of the best.
    """
    model, given = bench.model, bench.model.preprocessing
    learn = np.flatnonzero(part != PROOF)
    if evidence is not None and "preprocessing" in evidence:
        best = Pipeline(
            str(evidence.get("pipeline", "as found")), read(evidence["preprocessing"]), bool(evidence.get("bgr"))
        )
    else:
        best = _best(model, bench.pictures, learn, bench.truth, seed)
    held = proof if proof is not None else bench.take(np.flatnonzero(part == PROOF))
    tried = attempt(model, held.pictures, best, np.arange(len(held.truth)))
    if tried.scores is None:
        raise ModelError(f"{model.name} gives no row of class scores: no preprocessing can be held against another.")
    scores, truth = held.scores[tried.rows], held.truth[tried.rows]
    right = Measured(scores.argmax(1) == truth, tried.scores.argmax(1) == truth)
    proved = judge(
        "the log likelihood", right, likelihood(scores, tried.scores, truth), "nats", None,
        {"pipeline": best.name, "p": right.p, "accuracy_gain": right.gain.to_dict()},
        ("What these pictures cannot tell apart (BGR on grey pictures, a slightly larger crop) stays as it was.",),
    )  # fmt: skip
    module, preprocessing = folded(model, best)
    if best.group == "given":
        proved = replace(proved, holds=False, why="No other preprocessing fits these pictures better.")
    else:
        proved = replace(
            proved, why=f"{best.name[0].upper()}{best.name[1:]}: {proved.why[0].lower()}{proved.why[1:]}"
        )
    return Attempt(
        "input", module, proved, {"from": given.to_dict(), "to": preprocessing.to_dict(), "pipeline": best.name},
        preprocessing,
    )  # fmt: skip


def _best(model: Model, pictures: Labelled, rows: NDArray[np.int64], truth: NDArray[np.int64], seed: int) -> Pipeline:
    random = np.random.default_rng([seed, 11])
    some = np.sort(random.permutation(rows)[:TRIED])
    sizes = [one.size for one in pictures.readable(some, 16)]
    best = Pipeline("as it is", model.preprocessing)
    cache: dict[Any, torch.Tensor] = {}
    first = attempt(model, pictures, best, some, cache)
    if first.scores is None:
        raise ModelError(f"{model.name} gives no row of class scores: no preprocessing can be held against another.")
    some = first.rows
    top = float(log_chance(first.scores, truth[some]).mean())
    # values first, then the geometry under the best values: the two hardly depend on each other
    for candidates in (values, lambda now: geometries(now, sizes)):
        base = best
        for one in candidates(base.preprocessing):
            asked = replace(one, bgr=base.bgr) if one.group == "geometry" else one
            tried = attempt(model, pictures, asked, some, cache if one.group != "geometry" else None)
            scores = tried.scores
            value = -np.inf if scores is None else float(log_chance(scores, truth[tried.rows]).mean())
            if value > top:
                top, best = value, asked
    return best


def folded(model: Model, pipeline: Pipeline) -> tuple[nn.Module, Preprocessing]:
    """The network and its preprocessing; the order of the channels goes into the first convolution's weights.

    Raises:
        ModelError: the order cannot be folded in: the first layer is no convolution of three channels.
    """
    module, to = copy.deepcopy(model.module), pipeline.preprocessing
    if not pipeline.bgr:
        return module, to
    first = next((one for one in innermost(module).modules() if isinstance(one, nn.Conv2d)), None)
    if first is None or first.groups != 1 or first.in_channels != 3:
        raise ModelError(f"{model.name} wants BGR, and its first layer is no convolution that could be turned round.")
    with torch.no_grad():
        first.weight.copy_(first.weight.flip(1).clone())
    return module, replace(to, mean=to.mean[::-1], std=to.std[::-1])


def read(plain: Mapping[str, Any]) -> Preprocessing:
    """A preprocessing from plain data, as :meth:`Preprocessing.to_dict` writes it."""
    from ...models.card import preprocessing_of

    return preprocessing_of(plain)

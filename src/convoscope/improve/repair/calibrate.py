"""Repair of the confidence: a temperature, or one for each class where the sample carries it, folded into the head."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import nn

from ...engine.passes.untouched import innermost
from ..calibration import temperature
from ..shortcuts.bench import Bench
from ..statistics import bootstrap, ece
from .attempt import Attempt
from .copies import scores_of
from .gate import Measured, judge, likelihood, log_chance
from .headed import Head, head_of
from .split import PROOF

Ints = NDArray[np.int64]

#: pictures of each class below which no class gets a temperature of its own
EACH = 50


def repair_confidence(bench: Bench, part: Ints, seed: int = 0, proof: Bench | None = None) -> Attempt:
    """Divide the scores by a temperature fitted on the likelihood (Guo et al. 2017): predictions stay as they are.

    Where every class has 50 pictures to fit on and held-out likelihood is better for it, each class's scores get a
    factor and an offset of their own (vector scaling).

    Args:
        bench: the pictures.
        part: of each, as :func:`.split.parts` says: folds 0 and 2 fit, 1 chooses.
        seed: of bootstraps.
        proof: other pictures that prove.
    """
    fits, picks = np.isin(part, (0, 2)), part == 1
    held = proof if proof is not None else bench.take(np.flatnonzero(part == PROOF))
    one = temperature(bench.scores[fits], bench.truth[fits])
    instead = (
        f"Divide its scores by {one:.3g} where you read them: of all temperatures this one fits these pictures best."
    )
    head = head_of(bench.model, bench.inputs[:4], instead)
    size = bench.scores.shape[1]
    factor, offset, way = np.full(size, 1 / one), np.zeros(size), "one temperature"
    enough = len(bench.classes) == size and min(np.bincount(bench.truth[fits], minlength=size)) >= EACH
    if enough and head.bias is not None and not head.local:
        a, b = vector(bench.scores[fits], bench.truth[fits], 1 / one)
        if (
            log_chance(bench.scores[picks] * a + b, bench.truth[picks]).mean()
            > log_chance(bench.scores[picks] / one, bench.truth[picks]).mean()
        ):
            factor, offset, way = a, b, "a temperature for each class"
    if way == "one temperature":
        whole = fits | picks
        one = temperature(bench.scores[whole], bench.truth[whole])
        factor = np.full(size, 1 / one)
    module = scaled(bench, head, factor, offset)
    after = scores_of(held, module)
    gain = likelihood(held.scores, after, held.truth)
    right = Measured(held.scores.argmax(1) == held.truth, after.argmax(1) == held.truth)
    before_error, after_error = _error(held.scores, held.truth, seed), _error(after, held.truth, seed)
    proved = judge(
        "the log likelihood", right, gain, "nats", None,
        {"way": way, "temperature": float(1 / factor.mean()), "ece": [before_error, after_error], "p": right.p},
        ("Probabilities are right for pictures such as these; under a shift they must be checked again.",),
    )  # fmt: skip
    return Attempt("calibrate", module, proved, {"way": way, "temperature": float(1 / factor.mean())})


def vector(scores: NDArray[Any], truth: Ints, start: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A factor and an offset for each class (Guo et al. 2017, vector scaling), by L-BFGS; factors stay above 0."""
    values, size = np.asarray(scores, np.float64), scores.shape[1]
    hits = np.eye(size)[truth]

    def loss(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        a, b = np.exp(x[:size]), x[size:]
        made = values * a + b
        top = made.max(1, keepdims=True)
        chance = np.exp(made - top)
        chance /= chance.sum(1, keepdims=True)
        away = (chance - hits) / len(values)
        slope = np.concatenate([(away * values).sum(0) * a, away.sum(0)])
        shift = x - np.concatenate([np.full(size, np.log(start)), np.zeros(size)])
        return float(-log_chance(made, truth).mean() + 1e-3 * (shift**2).sum()), slope + 2e-3 * shift

    first = np.concatenate([np.full(size, np.log(start)), np.zeros(size)])
    found = minimize(loss, first, jac=True, method="L-BFGS-B").x
    return np.exp(found[:size]), np.asarray(found[size:])


def scaled(bench: Bench, head: Head, factor: NDArray[np.float64], offset: NDArray[np.float64]) -> nn.Module:
    """A copy whose head makes ``scores · factor + offset``: the same keys, nothing added to the forward."""
    module = copy.deepcopy(bench.model.module)
    layer: Any = dict(innermost(module).named_modules())[head.name]
    by = torch.from_numpy(factor)
    with torch.no_grad():
        layer.weight.copy_(layer.weight.double().cpu() * by.view(-1, *[1] * (layer.weight.ndim - 1)))
        if layer.bias is not None:
            layer.bias.copy_(layer.bias.double().cpu() * by + torch.from_numpy(offset))
    return module


def _error(scores: NDArray[Any], truth: Ints, seed: int) -> dict[str, float]:
    """The expected calibration error with its bootstrap interval."""
    values = np.asarray(scores, np.float64)
    chance = np.exp(log_chance(values, values.argmax(1)))
    right = values.argmax(1) == truth
    low, high = np.quantile(
        bootstrap(len(truth), lambda rows: ece(chance[rows], right[rows]), 500, seed), [0.025, 0.975]
    )
    mean = ece(chance, right)
    return {"mean": mean, "low": min(float(low), mean), "high": max(float(high), mean)}

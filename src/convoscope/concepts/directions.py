"""TCAV: whether a class depends on a concept that a person brings as pictures.

Kim, Wattenberg, Gilmer, Cai, Wexler, Viegas, Sayres 2018, "Interpretability Beyond Feature Attribution: Quantitative
Testing with Concept Activation Vectors". A direction separates the concept's pictures from random ones; the score is
the share of a class's pictures whose logit rises along it. What differs, and why: separators of many random sets are
found in closed form (linear discriminants with one shared, shrunk covariance), so that 500 sets cost what one does;
and the test compares the concept with *pseudo-concepts*, as many random pictures each, since sets that share the
concept's pictures are no independent draws and call every concept significant if only there are enough of them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import linalg, stats

from ..errors import LayerError, UsageError
from ..extras import need
from ..files import write_whole
from ..improve.collection import Labelled
from ..improve.look import batches, look
from ..improve.statistics import LEVEL, corrected
from ..methods.base import Query
from ..session import Session
from ..targets import ClassTarget
from ..targets.classes import class_index
from ..targets.combinations import Direction
from .dissection import left_out

if TYPE_CHECKING:
    from ..models.model import Model

Floats = NDArray[np.float64]

#: pictures that a concept needs
FEW = 10
#: folds of the cross-validated accuracy
FOLDS = 5
SETS = 500

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Tested:
    """A concept at a layer, for a class.

    Args:
        layer: where the direction lies.
        concept: its name.
        target: the class.
        accuracy: cross-validated, of separating the concept's pictures from random ones (0.5 is chance).
        score: the TCAV score: the share of the class's pictures whose logit rises along the direction (0..1).
        low: lower end of the 95 % interval of ``score`` over the class's pictures and the random sets.
        high: upper end.
        p: of the hypothesis that the concept's pictures are random ones; corrected over all that was tested.
        vector: the direction, one value a channel, at unit length.
    """

    layer: str
    concept: str
    target: str
    accuracy: float
    score: float
    low: float
    high: float
    p: float
    vector: Floats = field(repr=False)

    @property
    def direction(self) -> Direction:
        """The direction as a target: every map, visualisation and neighbour query takes it."""
        return Direction(self.layer, self.vector, self.concept)

    def to_dict(self) -> dict[str, Any]:
        """The row as ``--json`` prints it."""
        return {
            "layer": self.layer, "concept": self.concept, "target": self.target, "accuracy": self.accuracy,
            "score": self.score, "low": self.low, "high": self.high, "p": self.p,
        }  # fmt: skip


@dataclass(eq=False)
class Directions:
    """What TCAV found: a row for each layer, concept and class whose direction separates pictures held out."""

    rows: list[Tested]
    refused: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> list[dict[str, Any]]:
        """The rows as plain data."""
        return [row.to_dict() for row in self.rows]

    def save(self, folder: str | Path) -> list[Path]:
        """Write each direction as ``CONCEPT-LAYER.npy``: ``direction:LAYER@FILE`` is then a target on any picture."""
        return [write_direction(folder, f"{row.concept}-{row.layer}", row.vector) for row in self.rows]

    def record(self, channels: int = 12) -> dict[str, Any]:
        """What the page reads: the rows with their strongest channels, and what was refused."""
        rows = []
        for row in self.rows:
            strongest = np.argsort(-np.abs(row.vector), kind="stable")[:channels]
            rows.append({**row.to_dict(), "channels": [[int(at), float(row.vector[at])] for at in strongest]})
        return {"rows": rows, "refused": list(self.refused), "doubts": list(self.doubts)}


def write_direction(folder: str | Path, name: str, vector: Floats) -> Path:
    """Write a vector as float32 ``.npy`` under a name that every file system takes."""
    plain = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "direction"
    kept = io.BytesIO()
    np.save(kept, np.asarray(vector, np.float32))
    Path(folder).mkdir(parents=True, exist_ok=True)
    return write_whole(Path(folder, f"{plain}.npy"), kept.getvalue())


def tcav(
    model: Model,
    concepts: Mapping[str, Any],
    target: Any = None,
    *,
    random: Any = None,
    pictures: Any = None,
    layers: Sequence[str] = (),
    sets: int = SETS,
    seed: int = 0,
    progress: Tell | None = None,
) -> Directions:
    """Test whether the class ``target`` depends on each concept.

    Args:
        model: the network, left as it was.
        concepts: name -> its pictures (a folder, files, pictures), ten at least.
        target: a class; default the one that most of ``pictures`` are predicted to be.
        random: pictures that stand for none of the concepts, several times as many; default drawn toybox pictures.
            For the difference of two groups, one is the concept and the other is this.
        pictures: the class's pictures, for the score; default those of ``random`` with the highest scores for it.
        layers: where to look; default the last grid, and the last one of every earlier stage.
        sets: random sets.
        seed: of the sets and folds.
        progress: called with what is done, how much, and of how much.

    Returns:
        rows for what separates held-out pictures; what does not is in ``refused``, with its accuracy.

    Raises:
        UsageError: too few pictures, no concept, or a setting that does not fit.
    """
    if not concepts:
        raise UsageError("Name a concept: --concept stripes=FOLDER.")
    if sets < 20:
        raise UsageError(f"At least 20 random sets are needed for a test at the 5 % level, not {sets}.")
    found = Directions([])
    shown = {name: Labelled.of(given, model) for name, given in concepts.items()}
    for name, one in shown.items():
        if len(one) < FEW:
            raise UsageError(f"The concept {name!r} has {len(one)} pictures; at least {FEW} are needed.")
    pool = Labelled.of(_drawn() if random is None else random, model)
    if random is None:
        found.doubts.append("Random pictures are drawn toybox pictures: photos of your own are a fairer comparison.")
    most = max(len(one) for one in shown.values())
    if len(pool) < 2 * FEW:
        raise UsageError(f"{len(pool)} random pictures are too few: at least {2 * FEW} are needed.")
    if len(pool) < 2 * most:
        found.doubts.append(
            f"{len(pool)} random pictures beside {most} of a concept: random sets have {len(pool) // 2} pictures each. "
            "With twice as many as the concept has, chance would be known better."
        )
    names = list(layers) or stages(model)
    activations = {}
    for name, one in {**shown, "\0random": pool}.items():
        looked = look(model, one, names, pool=_pooled(model))
        found.failed |= looked.failed
        least, what = (2 * FEW, "the random pictures") if name == "\0random" else (FEW, f"the concept {name!r}")
        if len(looked.pictures) < least:
            raise UsageError(f"Of {what} {len(looked.pictures)} can be read; at least {least} are needed.")
        activations[name] = looked.layers
        pool = looked.pictures if name == "\0random" else pool
    of_class = pool if pictures is None else Labelled.of(pictures, model)
    index, label = _class(model, of_class, target)
    if pictures is None:
        scores = look(model, of_class).scores  # the pool's pictures have been read: none is missing
        assert scores is not None
        of_class = of_class.take(np.argsort(-scores[:, index], kind="stable")[: max(FEW, len(of_class) // 5)])
    gradients = _gradients(model, of_class, index, names, progress, found.failed)
    for layer in names:
        base = activations["\0random"][layer].astype(np.float64)
        for name in shown:
            row = test(
                activations[name][layer], base, gradients[layer], sets, np.random.default_rng([seed, len(name)])
            )
            if row is None or row.accuracy_low <= 0.5:
                accuracy = 0.5 if row is None else row.accuracy
                found.refused.append(
                    f"{name} at {layer}: the direction does not separate pictures held out (accuracy {accuracy:.2f}): "
                    "not reported."
                )
                continue
            found.rows.append(
                Tested(layer, name, label, row.accuracy, row.score, row.low, row.high, row.p, row.vector)
            )
    found.doubts += left_out(found.failed)
    return Directions(_corrected(found.rows, len(names) * len(shown)), found.refused, found.doubts, found.failed)


def _corrected(rows: list[Tested], tests: int) -> list[Tested]:
    from dataclasses import replace

    values = corrected([*(row.p for row in rows), *[1.0] * (tests - len(rows))])
    return sorted((replace(row, p=float(p)) for row, p in zip(rows, values, strict=False)), key=lambda row: row.p)


@dataclass(frozen=True, eq=False)
class Result:
    """One concept against random pictures at one layer; see :class:`Tested`."""

    accuracy: float
    accuracy_low: float
    score: float
    low: float
    high: float
    p: float
    vector: Floats
    vectors: Floats


def test(
    concept: NDArray[Any], pool: NDArray[Any], gradients: NDArray[Any], sets: int, random: np.random.Generator
) -> Result | None:
    """The test on plain arrays: activations ``[N, C]`` of the concept and of random pictures, gradients ``[B, C]``.

    Returns:
        None where the activations do not vary at all.
    """
    concept, pool, gradients = (np.asarray(one, np.float64) for one in (concept, pool, gradients))
    count = min(len(concept), len(pool) // 2)
    factor = _covariance(np.concatenate([concept - concept.mean(0), pool - pool.mean(0)]))
    if factor is None:
        return None
    draws = np.stack([random.permutation(len(pool))[: 2 * count] for _ in range(sets)])
    first, second = pool[draws[:, :count]].mean(1), pool[draws[:, count:]].mean(1)  # [sets, C]
    vectors = _unit(linalg.cho_solve(factor, (concept.mean(0) - second).T).T)
    slopes = gradients @ vectors.T  # [B, sets]
    score = float((slopes > 0).mean())
    # shares of one and of zero are common among random directions, too: what is tested is how well the way that
    # activations move with the concept agrees with the way in which the logit rises
    slope = gradients.mean(0)
    agreement = float(_agreement(concept.mean(0) - second.mean(0), slope, factor)[0])
    null = _agreement(first - second, slope, factor)
    p = float(2 * stats.t.sf(abs(agreement - null.mean()) / max(float(null.std(ddof=1)), 1e-12), len(null) - 1))
    low, high = _score_interval(slopes, random)
    accuracy, accuracy_low = _accuracy(concept, pool, random)
    return Result(
        accuracy, accuracy_low, score, min(low, score), max(high, score), p, _unit(vectors.mean(0)), vectors
    )


def _agreement(moves: Floats, slope: Floats, factor: tuple[Floats, bool]) -> Floats:
    """The cosine of each move ``[S, C]`` with the slope ``[C]``, both whitened: as many standard deviations a step.

    The directions of two random sets of pictures are uniform there, so their cosines are what chance gives.
    """
    lower = np.tril(factor[0])
    whitened = linalg.solve_triangular(lower, np.atleast_2d(moves).T, lower=True).T
    raised = lower.T @ slope
    return np.asarray(_unit(whitened) @ _unit(raised))


def _score_interval(slopes: Floats, random: np.random.Generator, draws: int = 1000) -> tuple[float, float]:
    signs = (slopes > 0).astype(np.float64)
    pictures, sets = signs.shape
    rows = random.multinomial(pictures, np.full(pictures, 1 / pictures), size=draws) / pictures
    cols = random.multinomial(sets, np.full(sets, 1 / sets), size=draws) / sets
    drawn = np.einsum("dp,ps,ds->d", rows, signs, cols, optimize=True)
    low, high = np.quantile(drawn, [LEVEL / 2, 1 - LEVEL / 2])
    return max(0.0, float(low)), min(1.0, float(high))


def _covariance(centred: Floats) -> tuple[Floats, bool] | None:
    """The Cholesky factor of the shrunk covariance (Ledoit & Wolf 2004)."""
    if not np.isfinite(centred).all() or float(np.abs(centred).max(initial=0)) == 0:
        return None
    covariance, _ = need("sklearn.covariance", "TCAV").ledoit_wolf(centred, assume_centered=True)
    covariance[np.diag_indices_from(covariance)] += 1e-9 * np.trace(covariance) / len(covariance)
    factor: tuple[Floats, bool] = linalg.cho_factor(covariance, lower=True)
    return factor


def _accuracy(concept: Floats, pool: Floats, random: np.random.Generator) -> tuple[float, float]:
    """Cross-validated accuracy of concept against equally many random pictures, and its 2.5 % point."""
    from ..improve.statistics import share

    count = min(len(concept), len(pool))
    own, other = random.permutation(len(concept))[:count], random.permutation(len(pool))[:count]
    hits = 0
    for fold in range(FOLDS):
        test_rows = np.arange(count) % FOLDS == fold
        a, b = concept[own], pool[other]
        factor = _covariance(
            np.concatenate([a[~test_rows] - a[~test_rows].mean(0), b[~test_rows] - b[~test_rows].mean(0)])
        )
        if factor is None:
            return 0.5, 0.0
        mean_a, mean_b = a[~test_rows].mean(0), b[~test_rows].mean(0)
        w = linalg.cho_solve(factor, mean_a - mean_b)
        middle = float(w @ (mean_a + mean_b)) / 2
        hits += int((a[test_rows] @ w > middle).sum()) + int((b[test_rows] @ w <= middle).sum())
    found = share(hits, 2 * count)
    return found.mean, found.low


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-300))


def stages(model: Model) -> list[str]:
    """The last grid before the class scores, and the last of every coarser step before it, at most five."""
    watched = model.watched()
    if watched.last_grid is None:
        raise LayerError(f"{model.name} has no layer with a grid: name layers with --layer.")
    by_size: dict[tuple[int, ...], str] = {}
    for name, layer in watched.layers.items():
        if layer.geometry is not None and len(layer.shape) == 4:
            by_size[layer.geometry.cells] = name
        if name == watched.last_grid:
            break
    by_size[watched.layers[watched.last_grid].geometry.cells] = watched.last_grid  # type: ignore[union-attr]
    return list(by_size.values())[-5:]


def _pooled(model: Model) -> Callable[[str, torch.Tensor], torch.Tensor]:
    watched = model.watched()

    def pool(name: str, activation: torch.Tensor) -> torch.Tensor:
        if activation.ndim == 4:
            return activation.float().mean((1, 2) if watched.layers[name].channels_last else (2, 3))
        return activation.float().mean(1) if activation.ndim == 3 else activation.float()

    return pool


def _class(model: Model, pictures: Labelled, target: Any) -> tuple[int, str]:
    if target is not None:
        classes = len(look(model, pictures.take([0])).probability[0])
        index = class_index(target, model.labels, classes)
    else:
        index = int(np.bincount(look(model, pictures).prediction).argmax())
    return index, model.label(index)


def _gradients(
    model: Model, pictures: Labelled, index: int, layers: Sequence[str], progress: Tell | None,
    failed: dict[str, str],
) -> dict[str, Floats]:  # fmt: skip
    """The gradient of the class score with respect to each layer, summed over its grid: ``[B, C]``.

    A direction is added at every cell alike, so the slope along it is the sum over cells.
    """
    found: dict[str, list[Floats]] = {name: [] for name in layers}
    done = 0
    for rows, inputs in batches(model, pictures, failed):
        watched = model.watched(tuple(inputs.shape[1:]))
        fitted = [model.prepare(pictures.picture(row)) for row in rows]
        with Session(model, fitted) as session:
            recorded = session.record(layers=list(layers), gradients=True)
            scorer = session.resolve(ClassTarget(index), recorded.output)
            with torch.enable_grad():
                score = scorer.score(recorded.output, recorded.live(), recorded.rows)
            answers = session.runner.gradients(recorded, score, "plain", list(layers), keep=False)
        query = Query(model, inputs, fitted, watched)
        for name, value in answers.items():
            planes = value[:, :, None, None] if value.ndim == 2 else query.planes(name, value)
            found[name].append(planes.flatten(2).sum(2).double().cpu().numpy())
        done += len(rows)
        if progress is not None:
            progress("gradients", done, len(pictures))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _drawn(count: int = 300) -> list[tuple[Any, None]]:
    from ..toybox import pictures

    return [(one.picture(), None) for one in pictures(count, seed=77)]

"""Are the pictures given as in training? The pipeline varied, and held against batch norm's memory and the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import linear_sum_assignment

from ..errors import ModelError, PictureError
from . import pipelines
from .attempts import Tried, attempt, norms
from .batch_norm import divergence, divergences, fitted, remembered
from .compression import compression
from .diagnose.stage import FEWEST, Case, StageResult
from .finding import Finding
from .look import Looked
from .pipelines import FACTOR, Floats, Pipeline
from .statistics import Interval, mcnemar, paired, share

#: pictures of half A on which pipelines are searched
SEARCHED = 96
#: pictures of half B on which the best are tested
TESTED = 600
#: draws of the bootstrap over pictures
DRAWS = 1000
#: accuracy that a pipeline must win, at the low end of its interval, before nothing else is asked
STOPS = 0.1


@dataclass(frozen=True, eq=False)
class _Searched:
    """The pipelines tried on half A: the given one first."""

    tried: list[Tried]
    kl: Floats
    right: Floats | None
    chance: Floats | None


class InputStage:
    """See the module."""

    name = "input"
    tests = 0

    def run(self, case: Case) -> StageResult:
        """Vary the pipeline; compare label order; examine compression."""
        looked = case.looked
        model = case.model
        known = looked.pictures.known if looked.scores is not None else np.zeros(len(looked.pictures), bool)
        findings: list[Finding] = []
        tests = 0
        notes: list[str] = []
        if int((known & case.half_a).sum()) >= FEWEST // 2 and int((known & ~case.half_a).sum()) >= FEWEST // 2:
            order, made = _label_order(case, known)
            findings += order
            tests += made
        remembers = bool(norms(model))
        tables: list[dict[str, Any]] = []
        stops = False
        if len(looked.pictures) < FEWEST:
            notes.append(f"anything of the pipeline: {len(looked.pictures)} pictures are fewer than {FEWEST}")
        else:
            searched = _search(case, known)
            tables.append(_table(searched, case.model.preprocessing.size))
            labelled = searched.right is not None
            if labelled:
                found, made = _by_labels(case, searched, known)
            elif remembers and np.isfinite(searched.kl[0]):
                found, made = _by_memory(case, searched)
            else:
                found, made = [], 0
                notes.append("a wrong pipeline: without labels and without batch norm none can be told from another")
            findings += found
            tests += made
            stops = any(one.evidence.get("stops") for one in found)
            if labelled:
                squeezed, made = compression(case, known)
                findings += squeezed
                tests += made
            if labelled or remembers:
                notes.append(
                    "a pipeline that costs less than the pictures can show, or one that is not among those tried"
                )
        return StageResult(
            findings, tests, None, "; ".join(notes), {"tables": tables}, stops or any(_order(one) for one in findings)
        )


def _order(one: Finding) -> bool:
    return one.evidence.get("what") == "label order"


def _sample(rows: NDArray[Any], truth: NDArray[np.int64], most: int, seed: int) -> NDArray[np.intp]:
    """At most ``most`` of ``rows``, every class as often as can be."""
    random = np.random.default_rng(seed)
    shuffled = rows[random.permutation(len(rows))]
    rank = np.zeros(len(shuffled), int)
    seen: dict[int, int] = {}
    for place, row in enumerate(shuffled):
        rank[place] = seen[int(truth[row])] = seen.get(int(truth[row]), -1) + 1
    chosen = shuffled[np.argsort(rank, kind="stable")[:most]]
    return np.sort(chosen).astype(np.intp)


def _search(case: Case, known: NDArray[np.bool_]) -> _Searched:
    """Every pipeline on some pictures of half A."""
    looked, model, given = case.looked, case.model, case.model.preprocessing
    labelled = int((known & case.half_a).sum()) >= FEWEST // 2
    of = np.flatnonzero(case.half_a & known) if labelled else np.flatnonzero(case.half_a)
    rows = _sample(of, looked.pictures.truth, SEARCHED, case.seed)
    own = [(one.height, one.width) for one in case.properties]
    listed = [Pipeline("as given", given), *pipelines.values(given)]
    memory = remembered(model)
    matched = fitted(model, looked.pictures, given, rows[:48]) if memory else None
    if matched is not None:
        listed.append(matched)
    if labelled:  # batch norm hardly notices sizes: without labels there is nothing to choose by
        listed += pipelines.geometries(given, own)
    cache: dict[Any, Any] = {}
    tried: list[Tried] = []
    for number, one in enumerate(listed):
        shared = one.geometry == listed[0].geometry
        try:
            tried.append(attempt(model, looked.pictures, one, rows, cache if shared else None))
        except (ModelError, PictureError):
            if number == 0:
                raise
        case.progress("Trying pipelines", number + 1, len(listed))
    kl = np.array([divergence(one, memory) if memory else np.nan for one in tried])
    if not labelled or any(one.scores is None for one in tried):
        return _Searched(tried, kl, None, None)
    truth = looked.pictures.truth
    right = np.array(
        [float((s.argmax(1) == truth[one.rows]).mean()) for one in tried if (s := one.scores) is not None]
    )
    chance = np.array([float(one.chance[np.arange(len(one.rows)), truth[one.rows]].mean()) for one in tried])
    return _Searched(tried, kl, right, chance)


def _by_labels(case: Case, searched: _Searched, known: NDArray[np.bool_]) -> tuple[list[Finding], int]:
    """The two pipelines that are best on half A by the labels, and batch norm's favourite, tested on half B."""
    assert searched.right is not None
    assert searched.chance is not None
    gain = (searched.right - searched.right[0]) + (searched.chance - searched.chance[0])
    order = [int(at) for at in np.argsort(-gain, kind="stable") if gain[at] > 0 and at > 0][:2]
    if np.isfinite(searched.kl).all() and len(searched.kl) > 1:
        liked = int(np.argmin(searched.kl))
        if searched.kl[liked] * FACTOR < searched.kl[0] and searched.right[liked] >= searched.right[0]:
            order = list(dict.fromkeys([*order, liked]))
    if not order:
        return [], 1
    looked = case.looked
    rows = _sample(np.flatnonzero(known & ~case.half_a), looked.pictures.truth, TESTED, case.seed + 1)
    found: list[tuple[float, Finding]] = []
    for number, at in enumerate(order):
        one = searched.tried[at].pipeline
        case.progress("Testing pipelines", number, len(order))
        again = attempt(case.model, looked.pictures, one, rows)
        assert again.scores is not None
        read = again.rows
        truth, before = looked.pictures.truth[read], looked.right[read]
        after = again.scores.argmax(1) == truth
        won, lost = int((after & ~before).sum()), int((~after & before).sum())
        size = paired(after.astype(float) - before.astype(float), seed=case.seed)
        if size.mean <= 0:
            continue
        if one.group == "geometry":  # another size moves every score a little: what counts is who is right
            p = mcnemar(won, lost)
        else:
            p = _raised(looked, read, truth, again)
        pictures = [looked.pictures.uris[row] for row in read[after & ~before]]
        agrees = bool(np.isfinite(searched.kl[at]) and searched.kl[at] * FACTOR < searched.kl[0])
        found.append(
            (
                size.mean,
                _claim(case, one, size, p, pictures, float(before.mean()), float(after.mean()), agrees, searched, at),
            )
        )
    if not found:
        return [], max(1, len(order))
    best = max(found, key=lambda one: one[0])[1]
    return [best], len(order)


def _raised(looked: Looked, rows: NDArray[Any], truth: NDArray[np.int64], again: Tried) -> float:
    """Wilcoxon's signed-rank p that the probability of the true class does not rise (1945): it sees more than flips."""
    rise = again.chance[np.arange(len(rows)), truth] - looked.probability[rows, truth]
    return float(stats.wilcoxon(rise, alternative="greater").pvalue) if np.any(rise != 0) else 1.0


def _claim(
    case: Case,
    one: Pipeline,
    size: Interval,
    p: float,
    pictures: Sequence[str],
    before: float,
    after: float,
    agrees: bool,
    searched: _Searched,
    at: int,
) -> Finding:
    memory = (
        f" Batch norm agrees: the pictures are {searched.kl[0] / max(searched.kl[at], 1e-9):.1f} times nearer to what "
        "it remembers." if agrees else ""
    )  # fmt: skip
    return Finding(
        "input",
        f"The pictures are not given as in training: with {one.name} accuracy rises from {before:.1%} to {after:.1%}."
        + memory,
        size.mean, size.low, size.high, None, tuple(pictures[:6]),
        _doubt(one), _next(case, one), max(0.0, size.low), p,
        {"pipeline": one.name, "group": one.group, "preprocessing": one.preprocessing.to_dict(), "bgr": one.bgr,
         "stops": size.low >= STOPS and p < 0.01},
    )  # fmt: skip


def _doubt(one: Pipeline) -> str:
    if one.group == "geometry":
        return "Another size or crop can help a network that was trained as given, too."
    if one.group == "fitted":
        return "Pictures that are darker or brighter than those of training look like another mean and std."
    return "Of pipelines that differ less than these, the best of those tried is named."


def _next(case: Case, one: Pipeline) -> str:
    """The command with the right flags; where no flag says it (BGR, resampling), the repair that writes it down."""
    pre, given = one.preprocessing, case.model.preprocessing
    more: list[str] = []
    if pre.mean != given.mean or pre.std != given.std:
        more += ["--mean", ",".join(f"{v:.4g}" for v in pre.mean), "--std", ",".join(f"{v:.4g}" for v in pre.std)]
    if pre.size != given.size and pre.size is not None:
        more += ["--size", "x".join(map(str, pre.size)) if pre.size[0] != pre.size[1] else str(pre.size[0])]
    if pre.fit != given.fit:
        more += ["--fit", pre.fit]
    if one.bgr or not more:
        return case.command("repair", "--how", "input", "--out", "fixed.safetensors")
    return case.command("diagnose", *more, "--out", "again", without=more[::2])


def _by_memory(case: Case, searched: _Searched) -> tuple[list[Finding], int]:
    """Batch norm's favourite of half A against the given pipeline, on half B."""
    memory = remembered(case.model)
    # the fitted mean and std can always be made to fit better: they say that something is off, not what
    named = [at for at, one in enumerate(searched.tried) if one.pipeline.group != "fitted"]
    best = min(named, key=lambda at: searched.kl[at])
    if best == 0 or not searched.kl[best] * FACTOR < searched.kl[0]:
        return [], 1
    one = searched.tried[best].pipeline
    looked = case.looked
    rows = _sample(np.flatnonzero(~case.half_a), looked.pictures.truth, SEARCHED, case.seed + 1)
    before = attempt(case.model, looked.pictures, Pipeline("as given", case.model.preprocessing), rows)
    after = attempt(case.model, looked.pictures, one, before.rows)
    if len(after.rows) < len(before.rows):  # both are compared picture by picture
        before = attempt(case.model, looked.pictures, before.pipeline, after.rows)
    rows = after.rows
    random = np.random.default_rng(case.seed)
    weights = random.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), DRAWS) / len(rows)
    ratios = divergences(before, memory, weights) / np.maximum(divergences(after, memory, weights), 1e-9)
    size = divergence(before, memory) / max(divergence(after, memory), 1e-9)
    p = float((1 + (ratios < FACTOR).sum()) / (DRAWS + 1))
    low, high = np.quantile(ratios, [0.025, 0.975])
    rivals = [at for at in named if at not in (0, best) and searched.kl[at] < FACTOR * searched.kl[best]]
    others = ", ".join(searched.tried[at].pipeline.name for at in rivals[:3])
    if before.scores is not None and after.scores is not None:
        changed = before.scores.argmax(1) != after.scores.argmax(1)
        won = share(int(changed.sum()), len(changed)).low
    else:
        won = 1.0
    name = one.name if not rivals else f"{one.name} (or {others}: they cannot be told apart)"
    finding = Finding(
        "input",
        f"The pictures are not given as in training: with {name} they are {size:.1f} times nearer to what batch norm "
        "remembers.",
        size, min(float(low), size), max(float(high), size), None, looked.pictures.uris[:4],
        "Without labels this is batch norm's memory alone: pictures of another kind than those of training can "
        "look alike.", _next(case, one), won, p,
        {"pipeline": one.name, "group": one.group, "preprocessing": one.preprocessing.to_dict(), "bgr": one.bgr,
         "stops": p < 0.01 and won > STOPS, "sure": not rivals,
         "rivals": [searched.tried[at].pipeline.name for at in rivals]},
    )  # fmt: skip
    return [finding], 1


def _label_order(case: Case, known: NDArray[np.bool_]) -> tuple[list[Finding], int]:
    """Whether another order of the labels fits far better: the best one of half A, tested on half B."""
    looked = case.looked
    assert looked.scores is not None
    count = looked.scores.shape[1]
    truth, prediction = looked.pictures.truth, looked.prediction
    a, b = known & case.half_a, known & ~case.half_a
    present = np.unique(truth[known])
    if len(present) < 2:
        return [], 0
    table = np.zeros((count, count))
    np.add.at(table, (prediction[a], truth[a]), 1)
    rows, columns = linear_sum_assignment(-(table + 1e-6 * np.eye(count)))
    mapping = np.arange(count)
    mapping[rows] = columns
    after, before = mapping[prediction[b]] == truth[b], prediction[b] == truth[b]
    size = paired(after.astype(float) - before.astype(float), seed=case.seed)
    if size.low < STOPS:
        return [], 1
    moved = [at for at in present if mapping[at] != at]
    named = "; ".join(f"{case.model.label(int(at))} is {case.model.label(int(mapping[at]))}" for at in moved[:3])
    uris = [uri for uri, better in zip(np.array(looked.pictures.uris)[b], after & ~before, strict=True) if better]
    return [
        Finding(
            "input",
            f"The order of the labels does not fit the network: in another order accuracy is {after.mean():.1%} "
            f"instead of {before.mean():.1%} ({named}).",
            size.mean, size.low, size.high, None, tuple(uris[:6]),
            "A few classes that the network exchanges look the same as labels that are exchanged.",
            case.command("diagnose", "--labels", "ORDERED.txt", "--out", "again", without=["--labels"]),
            size.low, mcnemar(int((after & ~before).sum()), int((~after & before).sum())),
            {"what": "label order", "mapping": mapping.tolist()},
        )
    ], 1  # fmt: skip


def _table(searched: _Searched, size: tuple[int, int] | None) -> dict[str, Any]:
    header = ["pipeline", "KL to batch norm's memory", "right on half A"]
    rows: list[list[Any]] = []
    for at, one in enumerate(searched.tried):
        kl = float(searched.kl[at])
        rows.append([
            one.pipeline.name, kl if np.isfinite(kl) else None,
            None if searched.right is None else f"{searched.right[at]:.1%}",
        ])  # fmt: skip
    return {"title": "Pipelines tried", "header": header, "rows": rows}

"""Falls that are larger than usual: chosen on one half of the pictures, tested on the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ...models.model import Model
from ..collection import Labelled
from ..diagnose.stage import FEWEST, Case, StageResult
from ..finding import Finding
from ..look import Looked
from ..statistics import paired
from .changes import Change, changes
from .curves import Stressed, stressed
from .usual import usual

#: levels (from 0) at which a fall is looked for: the strongest ones are borne by nobody
LEVELS = (1, 2, 3)
#: pictures of each half
CHOOSE, TEST = 64, 200
#: how often a picture comes so changed is not known: a quarter of the fall counts for the ranking
WEIGHT = 0.25


def faults(case: Case) -> StageResult:
    """The stage ``stress``: every change on half A, those that stand out on half B."""
    model, looked = case.model, case.looked
    if model.preprocessing.frames is not None:
        return StageResult(refused="changes are made to single pictures, and this network takes volumes or videos")
    if looked.scores is None:
        return StageResult(refused="the network gives no class scores")
    usable = right_rows(looked)
    if len(usable) < FEWEST:
        return StageResult(refused=f"only {len(usable)} pictures are right: {FEWEST} are needed")
    side = input_side(model, looked.pictures)
    listed = [one for one in changes(side, model.preprocessing.channels) if one.accuses]
    half = case.half_a[usable]
    large = side > 160
    first = _some(usable[half], CHOOSE // 2 if large else CHOOSE, looked)
    second = _some(usable[~half], TEST // 2 if large else TEST, looked)

    asked = [(one, [at for at in LEVELS if at < len(one.strengths)] or [0]) for one in listed]
    chosen = stressed(
        model, looked.pictures.take(first), asked,
        progress=lambda done, total: case.progress("Changing the pictures", done, total),
    )  # fmt: skip
    suspects = _suspects(listed, chosen, reference(looked, first[chosen.rows]), side)
    if not suspects:
        return StageResult(tests=0, could_miss=_could_miss(listed), evidence={"stress": _told(listed, chosen)})
    tested = stressed(
        model, looked.pictures.take(second), [(one, [level]) for one, level in suspects],
        progress=lambda done, total: case.progress("Testing what it does not bear", done, total),
    )  # fmt: skip
    truth = reference(looked, second[tested.rows])
    found = [
        _finding(case, one, usual(one.name, level, side), level, tested, truth, second) for one, level in suspects
    ]
    best: dict[str, Finding] = {}
    for finding in found:
        key = str(finding.evidence["advice"])
        if key not in best or finding.won > best[key].won:
            best[key] = finding
    return StageResult(
        tuple(best.values()), len(found), could_miss=_could_miss(listed), evidence={"stress": _told(listed, chosen)}
    )


def input_side(model: Model, pictures: Labelled) -> int:
    """The shorter side of the network's input."""
    size = model.preprocessing.size
    return min(
        size if size is not None else model.prepare(pictures.readable(range(len(pictures)), 1)[0]).tensor.shape[-2:]
    )


def right_rows(looked: Looked) -> NDArray[np.intp]:
    """Rows that are right; of unlabelled collections all, for whom the answer to the picture as it is counts."""
    known = looked.pictures.known
    return np.flatnonzero(looked.right) if known.any() else np.arange(len(looked.pictures))


def reference(looked: Looked, rows: NDArray[np.intp]) -> NDArray[np.int64]:
    """The answer that should stay: these rows are right, or all there is is the answer itself."""
    return np.asarray(looked.prediction[rows])


def _some(rows: NDArray[np.intp], most: int, looked: Looked) -> NDArray[np.intp]:
    if len(rows) <= most:
        return rows
    order = np.argsort(np.array([looked.pictures.keys[row] for row in rows]), kind="stable")[:most]
    return np.asarray(np.sort(rows[order]))


def _suspects(
    listed: Sequence[Change], seen: Stressed, truth: NDArray[np.int64], side: int
) -> list[tuple[Change, int]]:
    """For each change the level at which it stands out most on half A, where it does."""
    found = []
    for one in listed:
        best: tuple[float, int] | None = None
        for level in range(len(one.strengths)):
            if (one.name, level) not in seen.scores:
                continue
            lost = float((seen.prediction((one.name, level)) != truth).mean())
            excess = lost - usual(one.name, level, side)
            if excess > 0 and (best is None or excess > best[0]):
                best = (excess, level)
        if best is not None:
            found.append((one, best[1]))
    return found


def _finding(
    case: Case,
    one: Change,
    bound: float,
    level: int,
    seen: Stressed,
    truth: NDArray[np.int64],
    rows: NDArray[np.intp],
) -> Finding:
    looked, key = case.looked, (one.name, level)
    wrong = seen.prediction(key) != truth
    lost, count = int(wrong.sum()), len(wrong)
    p = float(stats.binomtest(lost, count, bound, alternative="greater").pvalue) if bound < 1 else 1.0
    interval = paired(wrong.astype(float), seed=case.seed)
    labelled = bool(looked.pictures.known.any())
    base = float(looked.right[looked.pictures.known].mean()) if labelled else 1.0
    what = "Accuracy falls" if labelled else "Agreement with its own answer falls"
    size, low, high = (value * base for value in (interval.mean, interval.low, interval.high))
    kept = rows[seen.rows]
    shown = tuple(looked.pictures.uris[int(kept[at])] for at in np.flatnonzero(wrong)[:6])
    return Finding(
        "stress",
        f"{what} by {100 * size:.0f} points when pictures are {one.say(level)} (healthy networks: at most "
        f"{100 * bound * base:.0f}): train with {one.advice}.",
        size, low, high, pictures=shown,
        doubt="Whether such pictures come is for you to know; what is usual was measured on a few healthy networks.",
        next=case.command("stress", "--out", "stress"), won=max(0.0, WEIGHT * (low - bound * base)), p=p,
        evidence={"change": one.name, "level": level, "advice": one.advice, "usual": bound, "lost": lost, "of": count},
    )  # fmt: skip


def _told(listed: Sequence[Change], seen: Stressed) -> dict[str, dict[str, float]]:
    """Share of changed answers on half A, by change and strength."""
    clean = seen.prediction()
    told: dict[str, dict[str, float]] = {}
    for one in listed:
        for level in range(len(one.strengths)):
            if (one.name, level) in seen.scores:
                share = float((seen.prediction((one.name, level)) != clean).mean())
                told.setdefault(one.name, {})[one.mark(level)] = share
    return told


def _could_miss(listed: Sequence[Change]) -> str:
    return f"changes other than {', '.join(one.name for one in listed)}"

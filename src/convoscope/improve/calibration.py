"""Is the network as often right as it says? A temperature fitted on half A, tested on half B."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from .diagnose.stage import Case
from .finding import Finding
from .statistics import bootstrap, ece, paired

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: gap between confidence and accuracy that a temperature fitted on some hundred pictures leaves
LEFT = 0.02
#: temperatures between 1 / OFF and OFF are left alone: what a small collection cannot tell from 1
OFF = 1.5


def temperature(scores: Floats, truth: NDArray[np.int64]) -> float:
    """The temperature by which scores must be divided to fit the labels best (Guo et al. 2017).

    Args:
        scores: logits ``[N, K]``.
        truth: class index ``[N]``.

    Returns:
        in 0.05..20.
    """
    found = optimize.minimize_scalar(
        lambda t: float(_loss(scores / np.exp(t), truth).mean()), bounds=(np.log(0.05), np.log(20)), method="bounded"
    )
    return float(np.exp(found.x))


def _loss(scores: Floats, truth: NDArray[np.int64]) -> Floats:
    top = scores.max(1, keepdims=True)
    log_sum = np.log(np.exp(scores - top).sum(1)) + top[:, 0]
    return np.asarray(log_sum - scores[np.arange(len(truth)), truth])


def calibration(case: Case, a: Flags, b: Flags) -> tuple[list[Finding], int]:
    """A finding where another temperature fits the pictures of half B surely better.

    Args:
        case: the case, with class scores.
        a: the labelled pictures of half A.
        b: those of half B.
    """
    looked = case.looked
    assert looked.scores is not None
    scores, truth = looked.scores.astype(np.float64), looked.pictures.truth
    t = temperature(scores[a], truth[a])
    if 1 / OFF <= t <= OFF:
        return [], 1
    better = _loss(scores[b], truth[b]) - _loss(scores[b] / t, truth[b])
    # p by the paired bootstrap: how often the fitted temperature would do no better
    means = bootstrap(len(better), lambda rows: float(better[rows].mean()), seed=case.seed)
    p = float((1 + (means <= 0).sum()) / (len(means) + 1))
    before, after = _confidence(scores[b]), _confidence(scores[b] / t)
    right = looked.right[b]
    gap = paired(before - right, seed=case.seed)
    now, then = ece(before, right), ece(after, right)
    if gap.mean > 0:
        said = f"says {before.mean():.0%} and is right in {right.mean():.0%}"
        how = f"It is too sure of itself: on average it {said}"
    else:
        how = (
            f"It is less sure than it could be: on average it says {before.mean():.0%} and is right in "
            f"{right.mean():.0%}"
        )
    odds = abs(gap.mean)
    low, high = (
        sorted((abs(gap.low), abs(gap.high))) if gap.low * gap.high > 0 else (0.0, max(map(abs, (gap.low, gap.high))))
    )
    rows = np.flatnonzero(b)
    wrongest = rows[np.argsort(-(before - right) * np.sign(gap.mean), kind="stable")][:6]
    return [
        Finding(
            "calibration",
            f"{how} (calibration error {now:.3f}); scores divided by {t:.2f} bring it to {then:.3f}.",
            odds, min(low, odds), max(high, odds), None,
            tuple(looked.pictures.uris[row] for row in wrongest),
            "Calibration holds for pictures such as these only.",
            case.command("repair", "--out", "repaired"),
            max(0.0, min(low, odds) - LEFT), p,
            {"what": "temperature", "temperature": t, "ece": now, "ece_after": then},
        )
    ], 1  # fmt: skip


def _confidence(scores: Floats) -> Floats:
    raised = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(1 / raised.sum(1))

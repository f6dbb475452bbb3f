"""Does it know how sure it may be? Temperature chosen on one half, tested on the other; and over-fitting."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from .diagnose.stage import FEWEST, Case
from .finding import Finding
from .statistics import bootstrap, ece, share

Floats = NDArray[np.float64]

#: a temperature within this factor of 1 is no fault: what a healthy network's fit strays by
FACTOR = 1.5
#: what its calibration error must be worth
ERROR = 0.02
#: and what the temperature must win of the log likelihood, in nats a picture
WON = 0.02
#: how much less sure than right a network may be: label smoothing of 0.1, a usual choice, makes it so on purpose
MODEST = 0.1
#: a gap between training and these pictures from which a network is over-fitted
GAP = 0.1
#: what a fault of the confidence is worth, as a share of its calibration error: no answer changes
WEIGHT = 0.5
#: what a fault that changes no answer is worth at least
FLOOR = 0.006


@dataclass(frozen=True)
class Calibration:
    """Confidence against accuracy: ``ece`` as it is and at ``temperature``, on the half that did not choose it."""

    confidence: float
    accuracy: float
    ece: float
    ece_after: float
    temperature: float
    pictures: int

    def to_dict(self) -> dict[str, Any]:
        return {
            "confidence": self.confidence, "accuracy": self.accuracy, "ece": self.ece, "ece_after": self.ece_after,
            "temperature": self.temperature, "pictures": self.pictures,
        }  # fmt: skip


def losses(scores: NDArray[Any], truth: NDArray[np.int64], temperature: float = 1.0) -> Floats:
    """Negative log-likelihood of the truth, one a picture, in nats."""
    values = np.asarray(scores, np.float64) / temperature
    top = values.max(1, keepdims=True)
    return np.asarray(np.log(np.exp(values - top).sum(1)) + top[:, 0] - values[np.arange(len(truth)), truth])


def temperature(scores: NDArray[Any], truth: NDArray[np.int64]) -> float:
    """The temperature that makes the truth likeliest (Guo et al. 2017), within 0.05 to 20."""

    def loss(log: float) -> float:
        return float(losses(scores, truth, math.exp(log)).mean())

    found = optimize.minimize_scalar(loss, bounds=(math.log(0.05), math.log(20)), method="bounded")
    return float(math.exp(found.x))


def calibration(case: Case) -> tuple[Calibration | None, list[Finding], int]:
    """The confidence on half B with the temperature of half A; a finding where it is off; how many tests were made."""
    looked = case.looked
    if looked.scores is None:
        return None, [], 0
    known, half = looked.pictures.known, case.half_a
    first, second = np.flatnonzero(known & half), np.flatnonzero(known & ~half)
    if min(len(first), len(second)) < FEWEST:
        return None, [], 0
    truth = looked.pictures.truth
    # what a softmax of the logits would give, also where the network itself returns probabilities
    logits = np.log(np.maximum(looked.probability, 1e-30))
    fitted = temperature(logits[first], truth[first])
    chance, right = looked.probability[second], looked.right[second]
    scaled = logits[second] / fitted
    scaled = np.exp(scaled - scaled.max(1, keepdims=True))
    after = (scaled / scaled.sum(1, keepdims=True)).max(1)
    was, now = ece(chance.max(1), right), ece(after, right)
    told = Calibration(float(chance.max(1).mean()), float(right.mean()), was, now, fitted, len(second))
    if max(fitted, 1 / fitted) < FACTOR:
        return told, [], 1
    gain = losses(logits[second], truth[second]) - losses(logits[second], truth[second], fitted)
    p = float(stats.ttest_1samp(gain, 0, alternative="greater").pvalue) if gain.std() > 0 else 1.0
    drop = bootstrap(
        len(second),
        lambda rows: ece(chance.max(1)[rows], right[rows]) - ece(after[rows], right[rows]),
        500,
        case.seed,
    )
    size = was - now
    # of 75 pictures that are all right, no temperature is too low: who is 97 % sure of them may well be right
    possible = share(int(right.sum()), len(right))
    confident = float(chance.max(1).mean())
    worth = ERROR if fitted > 1 else MODEST
    if size < worth or float(gain.mean()) < WON or possible.low <= confident <= possible.high:
        return told, [], 1
    low, high = min(float(np.quantile(drop, 0.025)), size), max(float(np.quantile(drop, 0.975)), size)
    sure = "too sure" if fitted > 1 else "not sure enough"
    finding = Finding(
        "calibration",
        f"It is {sure}: {told.confidence:.0%} confident and {told.accuracy:.0%} right; a temperature of {fitted:.2g} "
        f"takes the calibration error from {was:.1%} to {now:.1%}.",
        size, low, high, doubt="No answer changes by it, only how far its probabilities can be trusted.",
        next=case.command("repair", "--how", "calibrate"), won=max(FLOOR, WEIGHT * low), p=p,
        evidence={"what": "temperature", **told.to_dict()},
    )  # fmt: skip
    return told, [finding], 1


def overfitting(case: Case) -> tuple[dict[str, Any] | None, list[Finding], int]:
    """Training pictures against these: a gap between them is over-fitting."""
    trained, looked = case.looked_train, case.looked
    if trained is None or trained.scores is None or looked.scores is None:
        return None, [], 0
    a, b = trained.right[trained.pictures.known], looked.right[looked.pictures.known]
    if min(len(a), len(b)) < FEWEST:
        return None, [], 0
    table = [[int(a.sum()), int((~a).sum())], [int(b.sum()), int((~b).sum())]]
    p = float(stats.fisher_exact(table, alternative="greater").pvalue)
    on, off = share(table[0][0], len(a)), share(table[1][0], len(b))
    gap = on.mean - off.mean
    error = math.sqrt(max((on.high - on.mean), 1e-9) ** 2 + (off.mean - off.low) ** 2)
    more = math.sqrt((on.mean - on.low) ** 2 + (off.high - off.mean) ** 2)
    told = {"train": on.to_dict(), "here": off.to_dict(), "gap": gap, "p": p}
    if gap < GAP:
        return told, [], 1
    low, high = gap - more, gap + error
    return told, [
        Finding(
            "calibration",
            f"It is over-fitted: {on.mean:.1%} of the {len(a)} training pictures are right, and {off.mean:.1%} of "
            "these.",
            gap, min(low, gap), max(high, gap),
            doubt="Pictures of another kind than those of training open the same gap.",
            next="Train with augmentation, weight decay, or more pictures; stop when these stop getting better.",
            won=max(0.0, low), p=p, evidence={"what": "over-fitted", **told},
        )
    ], 1  # fmt: skip

"""The gate: what a repair must show on pictures that it did not see, before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ..statistics import LEVEL, Interval, mcnemar, paired, share

Bools = NDArray[np.bool_]

#: the largest fall of ordinary accuracy, in the mean
TOLERATED = 0.005
#: and the largest that the 95 % interval may not exclude: a collection that cannot show this much shows nothing
EXCLUDED = 0.025
#: fewer ordinary held-out pictures show nothing
FEWEST = 30


@dataclass(frozen=True, eq=False)
class Measured:
    """Two networks on the same held-out pictures of one kind: whether each picture is right, before and after."""

    before: Bools
    after: Bools

    @property
    def won(self) -> int:
        return int((~self.before & self.after).sum())

    @property
    def lost(self) -> int:
        return int((self.before & ~self.after).sum())

    @property
    def p(self) -> float:
        """Of McNemar's exact test."""
        return mcnemar(self.won, self.lost)

    @property
    def gain(self) -> Interval:
        """The paired difference of the two accuracies, with its bootstrap interval."""
        return paired(self.after.astype(float) - self.before.astype(float))

    def shares(self) -> tuple[Interval, Interval]:
        """Both accuracies."""
        return tuple(share(int(one.sum()), len(one)) for one in (self.before, self.after))  # type: ignore[return-value]

    def fall(self) -> tuple[float, float]:
        """How much accuracy fell, and the most that a one-sided 95 % bound leaves possible.

        The bound is that of Agresti & Min (2005), which holds where nothing or hardly anything flipped.
        """
        count = len(self.before)
        lost, won, whole = self.lost + 0.5, self.won + 0.5, count + 2
        centre = (lost - won) / whole
        spread = np.sqrt(max(lost + won - (lost - won) ** 2 / whole, 0.0)) / whole
        mean = (self.lost - self.won) / count
        return mean, max(mean, float(centre + stats.norm.ppf(1 - LEVEL) * spread))


@dataclass(frozen=True, eq=False)
class Proof:
    """What a repair was shown to do.

    Args:
        what: what was to become better: counterexamples, groups, likelihood.
        ordinary: on ordinary held-out pictures.
        target: on the held-out counterexamples or groups; None where the likelihood is the proof.
        gain: how much better, with its interval: of accuracy, or of the log likelihood a picture.
        holds: whether the gate lets it pass.
        why: one sentence, either way.
        unproven: what these pictures could not show.
        figures: further figures for the card.
    """

    what: str
    ordinary: Measured
    target: Measured | None
    gain: Interval
    holds: bool
    why: str
    unproven: tuple[str, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)

    def side(self, after: bool) -> dict[str, Any]:
        """``{"ordinary", "counterexamples"}``, each with mean, low and high (None where there are none)."""
        ordinary = self.ordinary.shares()[after].to_dict()
        return {
            "ordinary": ordinary,
            "counterexamples": None if self.target is None else self.target.shares()[after].to_dict(),
        }


def judge(
    what: str, ordinary: Measured, gain: Interval, unit: str, target: Measured | None = None,
    figures: Mapping[str, Any] | None = None, unproven: tuple[str, ...] = (), nothing: bool = False,
) -> Proof:  # fmt: skip
    """Whether a repair passes: better beyond the interval where it was to be, and not worse elsewhere.

    Args:
        what: what was to become better.
        ordinary: on ordinary pictures.
        gain: the paired gain with its interval.
        unit: of the gain, ``points`` (a share) or ``nats``.
        target: the pictures of the gain.
        figures: further figures for the card.
        unproven: what the repair by its kind leaves open.
        nothing: nothing was to become better but size or speed; only the loss is judged.
    """
    fall, most = ordinary.fall()
    count = len(ordinary.before)
    told = f"{100 * gain.mean:+.1f} points" if unit == "points" else f"{gain.mean:+.4f} {unit} a picture"
    ends = (
        f"{100 * gain.low:+.1f} to {100 * gain.high:+.1f}"
        if unit == "points"
        else f"{gain.low:+.4f} to {gain.high:+.4f}"
    )
    if count < FEWEST:
        why, holds = f"Only {count} ordinary held-out pictures are left, and fewer than {FEWEST} show nothing.", False
    elif not nothing and gain.low <= 0:
        why, holds = f"Not shown to help: {what} {told}, 95 % interval {ends}.", False
    elif fall >= TOLERATED:
        why, holds = (
            f"It costs too much: {what} {told}, and {100 * fall:.1f} points are lost on {count} ordinary held-out "
            f"pictures ({ordinary.lost} lost, {ordinary.won} won; at most {100 * TOLERATED:.1f} points may be).", False,
        )  # fmt: skip
    elif most >= EXCLUDED:
        why, holds = (
            f"Not shown to be harmless: of {count} ordinary held-out pictures {ordinary.lost} were lost and "
            f"{ordinary.won} won, and a loss of {100 * most:.1f} points cannot be excluded (at most "
            f"{100 * EXCLUDED:.1f}): give more pictures.", False,
        )  # fmt: skip
    else:
        better = "" if nothing else f"{what} {told} (95 % interval {ends}); "
        change = "unchanged" if ordinary.won == ordinary.lost == 0 else f"{-100 * fall:+.1f} points"
        why, holds = (
            f"{better}{'o' if better else 'O'}rdinary held-out pictures {change} ({ordinary.lost} lost, "
            f"{ordinary.won} won of {count}).", True,
        )  # fmt: skip
        why = why[0].upper() + why[1:]
    open_ends = (f"A loss of up to {100 * most:.1f} points on ordinary pictures is not excluded by {count} of them.",)
    return Proof(what, ordinary, target, gain, holds, why, open_ends + unproven, figures or {})


def likelihood(before: NDArray[Any], after: NDArray[Any], truth: NDArray[np.int64]) -> Interval:
    """The paired gain of the log likelihood a picture, in nats, with its bootstrap interval.

    Args:
        before: scores ``[N, K]``.
        after: scores ``[N, K]``.
        truth: int64 ``[N]``.
    """
    return paired(log_chance(after, truth) - log_chance(before, truth))


def log_chance(scores: NDArray[Any], truth: NDArray[np.int64]) -> NDArray[np.float64]:
    """The log of the probability that scores give to the truth, float64 ``[N]``."""
    values = np.asarray(scores, np.float64)
    top = values.max(1, keepdims=True)
    norm = top[:, 0] + np.log(np.exp(values - top).sum(1))
    return np.asarray(values[np.arange(len(values)), truth] - norm, np.float64)

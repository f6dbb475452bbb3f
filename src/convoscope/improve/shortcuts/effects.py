"""What an intervention did: how often it made a class, how often it unmade it, and what its control did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ..statistics import LEVEL, Interval

Floats = NDArray[np.float64]
DRAWS = 1000


@dataclass(frozen=True)
class Effect:
    """One intervention for one class, on pictures held out from choosing it.

    Args:
        family: ``patch``, ``template``, ...
        kind: the class index.
        sufficiency: share of other classes' pictures that become the class; None where it cannot be asked.
        necessity: share of the class's own pictures that are lost; None where it cannot be asked.
        control: share of the same pictures that become the class by the same effort elsewhere.
        made: sufficiency less control, paired.
        unmade: necessity less its own control, paired.
        p: of the stronger of the two, not corrected.
        shown: what a page needs to draw it: rows, places, settings.
    """

    family: str
    kind: int
    sufficiency: Interval
    necessity: Interval
    control: Interval
    made: Interval
    unmade: Interval
    p: float
    shown: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Sufficiency, necessity and control, each with its interval."""
        return {
            "sufficiency": self.sufficiency.to_dict(),
            "necessity": self.necessity.to_dict(),
            "control": self.control.to_dict(),
        }


def none(family: str, kind: int) -> Effect:
    """Nothing could be asked: every share is unknown."""
    unknown, difference = Interval(0.0, 0.0, 1.0), Interval(0.0, -1.0, 1.0)
    return Effect(family, kind, unknown, unknown, unknown, difference, difference, 1.0)


def idle(family: str, kind: int, made: Interval, shown: Mapping[str, Any]) -> Effect:
    """What made hardly any picture the class: nothing else was asked, and it can be no finding."""
    unknown = Interval(0.0, 0.0, 1.0)
    difference = Interval(made.mean, min(-1.0, made.mean), made.high)
    return Effect(family, kind, made, unknown, unknown, difference, Interval(0.0, -1.0, 1.0), 1.0, shown)


def crossed(values: Floats, seed: int = 0) -> Interval:
    """The mean of a table of sources × targets, with an interval that holds for new sources and new targets.

    Rows and columns are both drawn with replacement (the two-way bootstrap; Owen 2007): one patch pasted into sixty
    pictures is not sixty patches.
    """
    table = np.asarray(values, np.float64)
    if table.size == 0:
        return Interval(0.0, 0.0, 1.0)
    random = np.random.default_rng(seed)
    rows, columns = table.shape
    pick = random.multinomial(rows, np.full(rows, 1 / rows), DRAWS) / rows
    along = random.multinomial(columns, np.full(columns, 1 / columns), DRAWS) / columns
    means = np.einsum("dr,rc,dc->d", pick, table, along, optimize=True)
    mean = float(table.mean())
    low, high = np.quantile(means, [LEVEL / 2, 1 - LEVEL / 2])
    if np.ptp(table) == 0 and mean in (0.0, 1.0):
        # nothing happened, or everything: the bootstrap sees no spread, Wilson does, of as many as the smaller side
        few = stats.binomtest(round(mean * max(rows, columns)), max(rows, columns)).proportion_ci(method="wilson")
        low, high = float(few.low), float(few.high)
    return Interval(mean, min(float(low), mean), max(float(high), mean))


def more(difference: Floats) -> float:
    """One-sided p that a table of paired differences, sources × targets, has a mean above 0.

    By targets and by sources, and the weaker of the two: either could be what the effect hangs on.
    """
    table = np.atleast_2d(np.asarray(difference, np.float64))
    found = [_above(table.mean(0))]
    if len(table) > 1:
        found.append(_above(table.mean(1)))
    return max(found)


def _above(means: Floats) -> float:
    moved = means[means != 0]
    if len(means) < 2 or len(moved) == 0 or means.mean() <= 0:
        return 1.0
    # an exact sign test where there is no spread, else Student's, one-sided
    if np.ptp(means) == 0:
        return float(0.5 ** len(means))
    return float(stats.ttest_1samp(means, 0.0, alternative="greater").pvalue)

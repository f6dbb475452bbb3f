"""One type for what is wrong with a network, read alike by the command line, the page, the report and ``repair``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import UsageError

#: what a finding can be about
KINDS = ("input", "data", "units", "slice", "stress", "depth", "shortcut", "calibration", "regression")


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, how large it is, and what to do next.

    Args:
        kind: one of :data:`KINDS`.
        sentence: one plain sentence.
        size: how large it is, in the unit that the sentence names: most often a share of the pictures in 0..1.
        low: lower end of the 95 % interval of ``size``.
        high: upper end.
        class_name: the class concerned; None where it is no class's own.
        pictures: paths or URIs of two to six (or all) pictures concerned, the clearest first.
        doubt: what this finding cannot tell.
        next: the command to run next.
        won: pictures to be won, as a share of all, by which findings are ranked.
        p: the corrected p value on the pictures held out for the test; None where none was made.
        evidence: further figures, plain data, for the page and for ``repair``.
        concerns: all pictures whose outcome this is about, where that is known: findings about the same ones are told
            together.

    Raises:
        UsageError: an unknown kind, an empty sentence, or an interval that does not hold its size.
    """

    kind: str
    sentence: str
    size: float
    low: float
    high: float
    class_name: str | None = None
    pictures: tuple[str, ...] = ()
    doubt: str = ""
    next: str = ""
    won: float = 0.0
    p: float | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    concerns: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"A finding is about {', '.join(KINDS)}, not {self.kind!r}.")
        if not self.sentence.strip():
            raise UsageError("A finding needs a sentence.")
        if not (math.isfinite(self.size) and self.low <= self.size <= self.high):
            raise UsageError(f"A finding's interval {self.low}..{self.high} must hold its size {self.size}.")

    def to_dict(self) -> dict[str, Any]:
        """The finding as the commands print it: plain data, with fixed names."""
        return {
            "kind": self.kind, "class": self.class_name, "sentence": self.sentence, "size": self.size,
            "low": self.low, "high": self.high, "pictures": list(self.pictures), "doubt": self.doubt,
            "next": self.next,
        }  # fmt: skip

    def __str__(self) -> str:
        return self.sentence


def ranked(findings: Iterable[Finding], most: int | None = None) -> list[Finding]:
    """The findings by the pictures to be won, the largest first; equal ones keep their order."""
    listed = sorted(findings, key=lambda one: -one.won)
    return listed if most is None else listed[:most]

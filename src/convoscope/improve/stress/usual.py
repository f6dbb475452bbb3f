"""What healthy networks lose: measured once, so that a fall is an alarm only where it is larger than usual."""

from __future__ import annotations

#: change -> at each strength the largest share of its right pictures that a healthy network was seen to lose
USUAL: dict[str, tuple[float, ...]] = {}
#: what is still usual beyond that: no two collections are alike
MARGIN = 0.1


def usual(name: str, level: int) -> float:
    """The share of its right pictures that a healthy network may lose."""
    row = USUAL.get(name)
    return 1.0 if row is None else min(1.0, row[min(level, len(row) - 1)] + MARGIN)

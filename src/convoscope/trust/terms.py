"""Which rows of a league are baselines, and of which measures less is better."""

from __future__ import annotations

#: rows that know nothing of the network
BASELINES = ("centre", "edges", "random", "random-smooth")
#: measures of which less is better
LOWER = ("deletion", "infidelity")


def arrow(measure: str) -> str:
    """Which way is better."""
    return "↓" if measure in LOWER else "↑"

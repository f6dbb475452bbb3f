"""Two networks side by side, or a run of checkpoints: what was won, what was lost, and which units are new."""

from __future__ import annotations

from .api import diff
from .result import Diff, Pair

__all__ = ["Diff", "Pair", "diff"]

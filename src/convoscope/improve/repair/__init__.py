"""From a finding to a better checkpoint, with proof on pictures that the repair did not see."""

from __future__ import annotations

from .api import repair
from .result import Repaired

__all__ = ["Repaired", "repair"]

"""What a network decides by that it should not: evidence cut out and put elsewhere."""

from __future__ import annotations

from .find import shortcuts
from .result import Shortcuts
from .stage import ShortcutsStage

__all__ = ["Shortcuts", "ShortcutsStage", "shortcuts"]

"""Are the explanations true? Localisation, faithfulness, sanity, stability, axioms, and the league table.

Names are imported when they are used: ``convoscope --help`` needs none of them.
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "Case": "datasets", "boxes_json": "datasets", "coco": "datasets", "voc": "datasets", "folder": "datasets",
    "toybox_cases": "datasets", "write_voc": "datasets", "Region": "regions", "Settings": "evaluate",
    "evaluate_cases": "evaluate", "measures": "evaluate", "League": "league", "Interval": "league",
    "interval": "league", "paired": "league", "scoring": "scoring", "randomisation": "sanity", "randomised": "sanity",
    "Verdict": "verdict", "verdicts": "verdict",
}  # fmt: skip

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)

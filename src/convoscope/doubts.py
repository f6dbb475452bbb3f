"""What a map itself fails to satisfy, in sentences: blank, constant, not finite, ReLUs that followed no rule."""

from __future__ import annotations

from typing import Any

import numpy as np

from .engine.fields.watch import NetworkTrace
from .targets import Scorer


def value_doubts(values: np.ndarray[Any, Any]) -> list[str]:
    """What a map's values alone tell: NaN, all zero, or all the same."""
    finite = np.isfinite(values)
    if not finite.any():
        return ["The map holds no finite value: the network overflowed, or it was stopped before it began."]
    doubts = []
    if not finite.all():
        doubts.append(
            f"{1 - finite.mean():.0%} of the map is not known (NaN): stopped early, or the network overflowed."
        )
    low, high = float(values[finite].min()), float(values[finite].max())
    if low == high == 0:
        doubts.append("The map is zero everywhere: here the score does not depend on the picture.")
    elif low == high:
        doubts.append(f"The map is constant ({low:.3g} everywhere): it tells no place from another.")
    return doubts


def expected_relus(scorer: Scorer, watched: NetworkTrace) -> int:
    """How many ReLUs of the watched forward lie between the picture and the score."""
    if not scorer.layers:
        return watched.output_relus
    return max(watched.layers[name].relus for name in scorer.layers if name in watched.layers)


def rule_doubts(rule: str, scorer: Scorer, watched: NetworkTrace, matched: int | None) -> list[str]:
    """Whether every ReLU of the watched forward followed the rule."""
    doubts = []
    found = matched or 0
    expected = expected_relus(scorer, watched)
    if found < expected:
        doubts.append(
            f"{expected - found} of {expected} ReLUs did not follow the {rule} rule (hidden from the "
            "gradient graph): there the plain gradient was passed on."
        )
    if found == 0:
        doubts.append(f"No ReLU followed the {rule} rule: this is the plain gradient.")
    if watched.other_activations:
        doubts.append(
            f"{watched.other_activations} activations (GELU, SiLU, leaky ReLU, ...) have no {rule} rule: there the "
            "plain gradient was passed on."
        )
    return doubts

"""What a map itself fails to satisfy, in sentences: blank, constant, not finite, ReLUs that followed no rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .engine.fields.trace import NetworkTrace
from .methods import About
from .targets import Scorer

#: begins the doubt of a method that knows itself why its map is blank
BLANK = "Blank"

_CUT = "the network cuts the gradient graph (detach, no_grad, .data, or layers without a gradient, as quantised ones)"


#: a map whose values differ by less than this share of them is constant: what differs is the order of sums
ROUNDING = 1e-6


def value_doubts(values: np.ndarray[Any, Any], told: Sequence[str] = ()) -> list[str]:
    """What a map's values alone tell: NaN, all zero, or all the same. ``told``: what the method said of it already."""
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
        if not any(sentence.startswith(BLANK) for sentence in told):
            doubts.append("The map is zero everywhere: by this method no place of the picture changes the score.")
    elif high - low <= ROUNDING * max(abs(low), abs(high)):
        doubts.append(f"The map is constant ({low:.3g} everywhere): it tells no place from another.")
    return doubts


def cut_doubts(values: np.ndarray[Any, Any], about: About, layer: str | None, cut: bool | None) -> list[str]:
    """What a cut in the gradient graph does to a map of gradients. ``cut``: whether there is one."""
    if not cut or "backward" not in about.cost:
        return []
    if not values.any():
        return [
            f"{BLANK}: {_CUT}, so no gradient arrives here, although the score may depend on it. Methods that need "
            "none see it: occlusion, rise, eigen-cam."
        ]
    if layer is None:
        return [f"Not all of the score is here: {_CUT}, and what lies before the cut has no gradient. Try occlusion."]
    return []


def layer_doubts(layer: str | None, asked: str | None, watched: NetworkTrace) -> list[str]:
    """Whether evidence flows past the layer that was chosen by default."""
    if asked is not None or layer is None or layer != watched.last_grid or not watched.other_grids:
        return []
    others = ", ".join(watched.other_grids[:4]) + (", ..." if len(watched.other_grids) > 4 else "")
    return [
        f"Evidence also flows past {layer}, through {others}: no layer is crossed by all of it. This map shows "
        f"{layer} alone; name the others to see theirs."
    ]


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
    if watched.handmade:
        doubts.append(
            f"{watched.handmade} activations are written by hand (x * (x > 0), where, maximum, masked_fill, ...) and "
            f"have no {rule} rule: there the plain gradient was passed on."
        )
    if watched.other_activations:
        doubts.append(
            f"{watched.other_activations} activations (GELU, SiLU, leaky ReLU, ...) have no {rule} rule: there the "
            "plain gradient was passed on."
        )
    return doubts

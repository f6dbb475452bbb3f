"""What one way of repairing gives: a network, its proof, and what was changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ...pictures.picture import Preprocessing
from .gate import Proof


@dataclass(frozen=True, eq=False)
class Attempt:
    """A repaired network that nobody has written yet.

    Args:
        how: head, bn, prune, calibrate or input.
        module: a copy of the network with other weights.
        proof: what it shows on pictures that it did not see.
        changed: what was changed, plain data for the card.
        preprocessing: another preprocessing, where that is the repair.
    """

    how: str
    module: nn.Module
    proof: Proof
    changed: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: Preprocessing | None = None

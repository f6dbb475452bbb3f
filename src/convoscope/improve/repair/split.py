"""Which pictures a repair is fitted on and which prove it: by content, class by class."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

#: share of each class that proves; the rest is cut into folds, each of which chooses for what the others fit
PROVE, FOLDS = 0.4, 3
#: the number of the part that proves
PROOF = FOLDS


def parts(keys: Sequence[str], labels: Sequence[object], seed: int = 0, proof: bool = True) -> NDArray[np.int64]:
    """0 .. FOLDS - 1 for fitting, :data:`PROOF` for proving; a copy of a picture lies where its original does.

    Args:
        keys: a content hash a picture.
        labels: a class (or a group) a picture: each is split by the same shares.
        seed: of the split.
        proof: whether a part is kept for proving; False where other pictures prove.
    """
    digests = [hashlib.sha256(f"{seed}\0repair\0{key}".encode()).digest() for key in keys]
    found = np.zeros(len(keys), np.int64)
    part_of: dict[str, int] = {}
    groups: dict[object, list[int]] = {}
    for row, label in enumerate(labels):
        groups.setdefault(label, []).append(row)
    for rows in groups.values():
        ordered = sorted(rows, key=lambda one: digests[one])
        proving = round(PROVE * len(rows)) if proof else 0
        for place, row in enumerate(ordered):
            found[row] = part_of.setdefault(keys[row], PROOF if place < proving else place % FOLDS)
    return found

"""Copies: pictures that are in a collection twice, also resized, compressed or mirrored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]

#: side of the small grey picture whose slopes are compared
SIDE = 16
#: correlation of slopes from which two pictures are one. JPEG at quality 60, a resize to three quarters, or both leave
#: 0.81 at least (0.96 of pictures of 64 pixels and more); no two different pictures of 1,000 reach 0.7
SAME = 0.78
#: rows compared at a time
_BLOCK = 1024


def signature(image: Image.Image) -> NDArray[np.uint8]:
    """The grey picture at 16×16."""
    return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("L"), np.uint8)


def slopes(signatures: NDArray[np.uint8]) -> Floats:
    """Unit vectors float32 ``[N, D]``: differences of neighbouring pixels, damped so that no single edge decides.

    Args:
        signatures: uint8 ``[N, 16, 16]``.
    """
    grey = signatures.astype(np.float32)
    across = (grey[:, :, 1:] - grey[:, :, :-1]).reshape(len(grey), -1)
    down = (grey[:, 1:] - grey[:, :-1]).reshape(len(grey), -1)
    found = np.concatenate([across, down], 1)
    found = np.sign(found) * np.sqrt(np.abs(found))
    length = np.linalg.norm(found, axis=1, keepdims=True)
    return np.asarray(found / np.maximum(length, 1e-6), np.float32)


@dataclass(frozen=True)
class Pair:
    """Two rows that hold one picture.

    Args:
        a: the row in the first collection.
        b: the row in the second (the same where one collection is compared with itself; then ``a < b``).
        likeness: correlation of slopes, up to 1.
        mirrored: one is the other's mirror image.
        exact: byte for byte.
    """

    a: int
    b: int
    likeness: float
    mirrored: bool = False
    exact: bool = False


def pairs(
    signatures: NDArray[np.uint8],
    keys: Sequence[str],
    others: NDArray[np.uint8] | None = None,
    other_keys: Sequence[str] | None = None,
    same: float = SAME,
) -> list[Pair]:
    """All pairs of copies inside a collection, or across two.

    Args:
        signatures: uint8 ``[N, 16, 16]`` of :func:`signature`.
        keys: content hashes.
        others: those of the second collection; the first itself by default.
        other_keys: its content hashes.
        same: correlation of slopes from which two pictures are one.

    Returns:
        the pairs, the surest first.
    """
    if len(signatures) == 0:
        return []
    within = others is None
    second = signatures if others is None else others
    second_keys = keys if other_keys is None else other_keys
    if len(second) == 0:
        return []
    left = slopes(signatures)
    plain, mirror = slopes(second), slopes(np.ascontiguousarray(second[:, :, ::-1]))
    flat = signatures.reshape(len(signatures), -1).std(1) < 2.0  # a picture of one colour is like every other
    found: dict[tuple[int, int], Pair] = {}
    for start in range(0, len(left), _BLOCK):
        block = left[start : start + _BLOCK]
        for mirrored, right in ((False, plain), (True, mirror)):
            likeness = block @ right.T
            for row, column in np.argwhere(likeness >= same):
                a, b = start + int(row), int(column)
                if (within and a >= b) or flat[a]:
                    continue
                one = Pair(a, b, min(1.0, float(likeness[row, column])), mirrored, keys[a] == second_keys[b])
                if (a, b) not in found or found[a, b].likeness < one.likeness:
                    found[a, b] = one
    by_key: dict[str, list[int]] = {}
    for row, key in enumerate(second_keys):
        by_key.setdefault(key, []).append(row)
    for a, key in enumerate(keys):
        for b in by_key.get(key, ()):
            if not within or a < b:
                found[a, b] = Pair(a, b, 1.0, False, True)
    return sorted(found.values(), key=lambda one: (-one.likeness, one.a, one.b))


def groups(found: Sequence[Pair], count: int) -> list[list[int]]:
    """Rows that hold one picture together, each group in order, singles left out."""
    parent = list(range(count))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for one in found:
        parent[root(one.b)] = root(one.a)
    gathered: dict[int, list[int]] = {}
    for row in range(count):
        gathered.setdefault(root(row), []).append(row)
    return [rows for rows in gathered.values() if len(rows) > 1]

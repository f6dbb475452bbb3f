"""Whether compression costs the network accuracy: the pictures compressed once more, as strongly as they are."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..pictures.picture import Picture
from .collection import Labelled
from .diagnose.stage import Case
from .finding import Finding
from .look import look
from .statistics import mcnemar, paired

#: qualities above which compression is taken for invisible
VISIBLE = 90
#: pictures compressed once more
TRIED = 400

#: the sum of JPEG's own luminance table at quality 50 (ITU T.81, annex K)
_STANDARD = 3688


def quality(path: str) -> float | None:
    """The quality 1..100 by which a JPEG file was written, from its luminance table; None for other files."""
    try:
        with Image.open(path) as image:
            tables = getattr(image, "quantization", None)
    except (OSError, ValueError, SyntaxError):
        return None
    if not tables:
        return None
    scale = 100.0 * float(sum(tables[min(tables)])) / _STANDARD
    return float(np.clip(100 - scale / 2 if scale <= 100 else 5000 / scale, 1, 100))


def again(picture: Picture, strength: int) -> Picture:
    """The picture through a JPEG file of ``strength`` once more, its grid of 8×8 pixels moved by half a block.

    On the same grid a second compression would change next to nothing.
    """
    values = np.asarray(picture.image)
    moved = np.pad(values, ((4, 4), (4, 4), (0, 0)), "edge")
    buffer = io.BytesIO()
    Image.fromarray(moved).save(buffer, "JPEG", quality=strength)
    image = Image.open(buffer).convert("RGB")
    height, width = picture.size
    return Picture.of(image.crop((4, 4, 4 + width, 4 + height)), picture.name)


def median_quality(pictures: Labelled, rows: NDArray[Any]) -> float | None:
    """The median quality of those that are JPEG files; None where most are not."""
    found = [quality(pictures.uris[int(row)]) for row in rows if "://" not in pictures.uris[int(row)]]
    told = [one for one in found if one is not None]
    return float(np.median(told)) if len(told) * 2 > len(rows) else None


def compression(case: Case, known: NDArray[np.bool_]) -> tuple[list[Finding], int]:
    """A finding where the pictures are compressed visibly and as much again costs accuracy."""
    looked = case.looked
    if looked.pictures.sources is not None:
        return [], 0
    rows = np.flatnonzero(known)
    some = rows[:: max(1, len(rows) // 100)]
    strength = median_quality(looked.pictures, some)
    if strength is None or strength >= VISIBLE:
        return [], 0
    if case.train is not None and case.train.sources is None:
        theirs = median_quality(case.train, np.arange(0, len(case.train), max(1, len(case.train) // 100)))
        if theirs is not None and theirs <= strength + 5:
            return [], 0  # trained on pictures as strongly compressed: not what disappoints
    rows = rows[:: max(1, len(rows) // TRIED)]
    case.progress("Compressing once more", 0, 1)
    other = look(case.model, looked.pictures.take(rows), change=lambda one, _: again(one, round(strength)))
    if len(other.pictures) < len(rows):
        return [], 0
    before, after = looked.right[rows], other.right
    size = paired(before.astype(float) - after.astype(float), seed=case.seed)
    lost, won = int((before & ~after).sum()), int((~before & after).sum())
    if size.mean <= 0:
        return [], 1
    pictures = [looked.pictures.uris[int(row)] for row in rows[before & ~after]]
    return [
        Finding(
            "input",
            f"Compression costs this network accuracy: the files are JPEG of quality {strength:.0f}, and as much again "
            f"takes it from {before.mean():.1%} to {after.mean():.1%}.",
            size.mean, size.low, size.high, None, tuple(pictures[:6]),
            "What the first compression has cost cannot be seen without the uncompressed pictures; the second shows "
            "that the network is sensitive to it at this strength.",
            case.command("stress", "--out", "stress"), max(0.0, size.low), mcnemar(won, lost),
            {"what": "compression", "quality": strength},
        )
    ], 1  # fmt: skip

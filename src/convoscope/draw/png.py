"""How pictures become PNG files: the fastest setting that keeps them small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

#: zlib's run-length strategy (Z_RLE): of overlays and sheets, on level 1, it takes 0.55 of the time of level 4 and
#: makes files 5 to 9 % larger (docs/benchmarks.md); PNG's own row filters, which come first, find most of what repeats
SETTINGS: dict[str, Any] = {"compress_level": 1, "compress_type": 3}


def save(image: Image.Image, file: str | Path | Any, **settings: Any) -> None:
    """Write ``image`` as PNG into ``file`` (a path or an open binary file); ``settings`` are Pillow's (dpi)."""
    image.save(file, "PNG", **SETTINGS, **settings)

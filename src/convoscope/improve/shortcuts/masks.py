"""Masks of the thing, from a folder of pictures named as the pictures are, or from arrays."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ...errors import UsageError
from ...files import read_regular
from ...pictures.picture import Preprocessing

if TYPE_CHECKING:
    from .bench import Bench


def read_masks(masks: str | Path | Mapping[str, Any], bench: Bench) -> Tensor:
    """Where the thing is in each picture of a bench, bool ``[N, H, W]`` at the input's resolution.

    Args:
        masks: a folder with a file for each picture, of the same stem, black outside the thing (found by the path
            below the pictures' folder first, then by the name alone), or URI -> array ``[h, w]``.
        bench: its masks go through the same resize and crop as its pictures.

    Raises:
        UsageError: no such folder, or a picture without a mask.
    """
    files = None if isinstance(masks, Mapping) else _files(Path(masks))
    plain = bench.model.preprocessing
    how = Preprocessing(plain.size, plain.resize, plain.fit, (0.0,), (1.0,), "nearest")
    found = []
    for uri in bench.pictures.uris:
        if isinstance(masks, Mapping):
            given = masks.get(uri)
        else:
            assert files is not None
            given = files.get(Path(uri).stem)
        if given is None:
            raise UsageError(
                f"--masks: there is no mask for {uri} (a file {Path(uri).stem}.png, white on the thing). Give one for "
                "every picture, or leave out --masks."
            )
        array = _grey(given) if isinstance(given, Path) else np.asarray(given)
        from ...pictures.picture import Picture

        flat = Picture.of((array > 0).astype(np.uint8) * 255, str(uri))
        found.append(flat.prepare(how).tensor[0] > 0.5)
    return torch.stack(found)


def _grey(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(read_regular(path))) as image:
            return np.asarray(image.convert("L"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        why = "no picture" if isinstance(error, UnidentifiedImageError) else getattr(error, "strerror", None) or error
        raise UsageError(f"--masks {path}: the mask cannot be read ({why}).") from None


def _files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UsageError(f"--masks {folder}: this is not a folder of masks.")
    return {
        path.stem: path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in (".png", ".bmp", ".tif", ".webp")
    }

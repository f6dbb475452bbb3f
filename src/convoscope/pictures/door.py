"""Pictures as people bring them: one, a list, a batch tensor, pairs with labels, a DataLoader."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ..errors import UsageError
from .picture import Picture

#: where data sets of dictionaries keep the picture
_PICTURE_KEYS = ("image", "pixel_values", "images", "img", "picture", "x")
_ONE = (str, bytes, bytearray, Path, Image.Image, np.ndarray, Tensor, Picture)


def sources_of(pictures: Any, *, volumes: bool = False) -> tuple[list[Any], bool]:
    """What :meth:`Picture.of` takes, one by one, and whether one picture was meant.

    Args:
        pictures: a picture; a list or another iterable of pictures, of (picture, label) pairs or of the batches of a
            DataLoader (their labels are left out); a tensor N×C×H×W, which is a batch of N.
        volumes: whether the network takes volumes: then a tensor of four dimensions is one.

    Raises:
        UsageError: nothing is in it, or it is a mapping.
    """
    if isinstance(pictures, Tensor) and pictures.ndim == 4 and len(pictures) != 1 and not volumes:
        return _some(list(pictures)), False
    if (
        hasattr(pictures, "__getitem__")
        and hasattr(pictures, "__len__")
        and not isinstance(pictures, (*_ONE, Iterable))
    ):
        pictures = [pictures[number] for number in range(len(pictures))]  # a data set
    if isinstance(pictures, _ONE) or hasattr(pictures, "read") or not isinstance(pictures, Iterable):
        return [pictures], True
    if isinstance(pictures, Mapping):
        raise UsageError("Pictures are given as a list, not as a dictionary: give list(pictures.values()).")
    found: list[Any] = []
    for one in pictures:
        item = _picture_in(one)
        batch = isinstance(item, Tensor) and item.ndim == 4 and not volumes
        found.extend(list(item) if batch else [item])
    return _some(found), False


def _picture_in(item: Any) -> Any:
    """The picture, or the batch of pictures, of what a data set or a DataLoader gives."""
    if isinstance(item, Mapping):
        named = next((item[key] for key in _PICTURE_KEYS if key in item), None)
        if named is None:
            raise UsageError(
                f"A dictionary holds its picture under {', '.join(_PICTURE_KEYS)}; this one holds "
                f"{', '.join(map(str, list(item)[:6])) or 'nothing'}."
            )
        return named
    if not isinstance(item, (tuple, list)):
        return item
    if not item or not isinstance(item[0], _ONE):
        raise UsageError("Pictures are given as one list: this one holds lists or tuples without a picture in front.")
    beside = item[1:]
    if not beside or any(_is_picture_beside(item[0], one) for one in beside):
        raise UsageError("Pictures are given as one list: this one holds lists of several pictures.")
    return item[0]


def _some(found: list[Any]) -> list[Any]:
    if not found:
        raise UsageError("No pictures given.")
    return found


def _is_picture_beside(first: Any, other: Any) -> bool:
    """Whether this is a second picture, and no label, index or name: two file names are two pictures."""
    if isinstance(first, (str, Path)):
        return isinstance(other, (str, Path))
    if isinstance(other, (str, Tensor)):
        return isinstance(other, Tensor) and other.ndim > 2
    return isinstance(other, _ONE)

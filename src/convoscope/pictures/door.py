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
    if isinstance(pictures, _ONE) or not isinstance(pictures, Iterable):
        return [pictures], True
    if isinstance(pictures, Mapping):
        raise UsageError("Pictures are given as a list, not as a dictionary: give list(pictures.values()).")
    found: list[Any] = []
    for one in pictures:
        item = one[0] if _is_pair(one) else one
        batch = isinstance(item, Tensor) and item.ndim == 4 and not volumes
        found.extend(list(item) if batch else [item])
    return _some(found), False


def _is_pair(item: Any) -> bool:
    """Whether this is a picture with its label, or a batch with its labels."""
    if not isinstance(item, (tuple, list)) or len(item) != 2 or not isinstance(item[0], _ONE):
        return False
    label = item[1]
    if label is None or isinstance(label, (int, np.integer)):
        return True
    if isinstance(label, str):  # two file names are two pictures
        return not isinstance(item[0], (str, Path))
    return isinstance(label, Tensor) and label.ndim <= 1


def _some(found: list[Any]) -> list[Any]:
    if not found:
        raise UsageError("No pictures given.")
    return found

"""Where the ward keeps what is dear to make: drawn pools and trained networks, by name and version."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file
from torch import Tensor

from convoscope.cache import working_folder

VERSION = 1
"""Raised when anything of the ward would come out otherwise: what older versions made is made again."""


def cache_folder() -> Path:
    """``ward`` and the version below the cache folder (:func:`convoscope.cache.working_folder`)."""
    return working_folder() / "ward" / f"v{VERSION}"


def aside(path: Path) -> Path:
    """A name beside ``path`` that no other process writes to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def kept_state(name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of this name from the cache, made and kept where they are not there yet."""
    path = cache_folder() / f"{name}.safetensors"
    if not path.is_file():
        state = {key: value.detach().contiguous().clone() for key, value in make().items()}
        part = aside(path)
        save_file(state, part)
        part.replace(path)
    return load_file(path)


def kept_arrays(name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    """The arrays of this name from the cache, made and kept where they are not there yet."""
    path = cache_folder() / f"{name}.npz"
    if not path.is_file():
        part = aside(path)
        with part.open("wb") as file:
            np.savez_compressed(file, **make())  # type: ignore[arg-type]
        part.replace(path)
    with np.load(path) as found:
        return {key: found[key] for key in found.files}

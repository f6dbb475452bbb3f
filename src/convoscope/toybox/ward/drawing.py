"""Labelled pictures in memory and as a folder: drawn by number, so that no two collections share one."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convoscope.toybox.specimens import CLASSES, Staging, draw

SIDE = 64
"""Side of the ward's pictures, and of the input of its networks."""

Images = NDArray[np.uint8]
Stage = Callable[[np.random.Generator], Staging]
"""Tells a staging for one picture from a random stream of its own."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """``images`` uint8 [N, H, W, 3] and ``labels`` int64 [N] (indices into ``CLASSES``).

    ``marks`` are named bool arrays [N] that say which pictures a fault concerns.
    """

    images: Images
    labels: NDArray[np.int64]
    marks: Mapping[str, NDArray[np.bool_]]

    def __post_init__(self) -> None:
        assert len(self.images) == len(self.labels)
        assert all(len(mark) == len(self.labels) for mark in self.marks.values())

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, which: NDArray[np.int64] | NDArray[np.bool_] | Sequence[int]) -> Pictures:
        """Some of them, by index or mask."""
        rows = np.asarray(which)
        return Pictures(self.images[rows], self.labels[rows], {k: v[rows] for k, v in self.marks.items()})

    def of(self, label: str) -> NDArray[np.bool_]:
        """Which are labelled ``label``."""
        out: NDArray[np.bool_] = self.labels == CLASSES.index(label)
        return out

    def mark(self, name: str, which: NDArray[np.bool_]) -> Pictures:
        """The same with one more mark."""
        return replace(self, marks={**self.marks, name: which})

    def relabelled(self, labels: NDArray[np.int64]) -> Pictures:
        """The same under other labels."""
        return replace(self, labels=labels)

    def changed(self, change: Callable[[Images], Images], which: NDArray[np.bool_] | None = None) -> Pictures:
        """The same with ``change`` done to the images (to those of ``which`` alone where it is given)."""
        if which is None:
            return replace(self, images=change(self.images))
        images = self.images.copy()
        if which.any():
            images[which] = change(self.images[which])
        return replace(self, images=images)

    def shuffled(self, seed: int) -> Pictures:
        """The same in another order, so that a file's name tells nothing."""
        return self.take(np.random.default_rng(seed).permutation(len(self)))

    def names(self) -> list[str]:
        """The path of each picture inside its folder: ``cup/0007.png``."""
        seen = [0] * len(CLASSES)
        out = []
        for label in self.labels.tolist():
            out.append(f"{CLASSES[label]}/{seen[label]:04d}.png")
            seen[label] += 1
        return out

    def named(self, mark: str) -> list[str]:
        """The paths of the pictures that carry a mark."""
        return [name for name, marked in zip(self.names(), self.marks[mark].tolist(), strict=True) if marked]

    def write(self, folder: Path) -> None:
        """PNG files in one folder a class (empty folders for classes without any)."""
        for label in CLASSES:
            (folder / label).mkdir(parents=True, exist_ok=True)
        for image, name in zip(self.images, self.names(), strict=True):
            Image.fromarray(image).save(folder / name, compress_level=4)

    @staticmethod
    def read(folder: Path) -> Pictures:
        """A folder that :meth:`write` made (all pictures of one size)."""
        images, labels = [], []
        for index, label in enumerate(CLASSES):
            for file in sorted((folder / label).glob("*.png")):
                images.append(np.asarray(Image.open(file).convert("RGB")))
                labels.append(index)
        return Pictures(np.stack(images), np.array(labels, np.int64), {})


def together(*parts: Pictures) -> Pictures:
    """Several one after the other; a mark that a part lacks is False there."""
    names = dict.fromkeys(name for part in parts for name in part.marks)
    marks = {
        name: np.concatenate([part.marks.get(name, np.zeros(len(part), bool)) for part in parts]) for name in names
    }
    return Pictures(
        np.concatenate([part.images for part in parts]), np.concatenate([part.labels for part in parts]), marks
    )


def collection(name: str) -> int:
    """The number of the collection of this name, far above those that the bundled networks were trained on."""
    return 10_000 + zlib.crc32(name.encode())


def drawn(
    name: str,
    count: int | Mapping[str, int],
    *,
    stage: Stage | None = None,
    side: int = SIDE,
) -> Pictures:
    """``count`` pictures a class (or of each class told) of the collection ``name``, class after class.

    The same name, class and place always give the same picture, whatever ``count`` is. ``stage`` decides what of
    each picture is told.
    """
    wanted = dict.fromkeys(CLASSES, count) if isinstance(count, int) else count
    base = collection(name) * 1_000_000
    images, labels = [], []
    for label, n in wanted.items():
        index = CLASSES.index(label)
        for k in range(n):
            number = base + index * 100_000 + k
            staging = stage(np.random.default_rng([number, 2])) if stage else None
            images.append(draw(number, label=label, size=side, staging=staging).image)
            labels.append(index)
    out = np.stack(images) if images else np.zeros((0, side, side, 3), np.uint8)
    return Pictures(out, np.array(labels, np.int64), {})

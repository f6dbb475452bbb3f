"""Several things in one picture, on a background of named regions: truth for detectors and segmenters."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convoscope.errors import UsageError
from convoscope.toybox.grounds import STUFF, landscape
from convoscope.toybox.paint import Bools, Floats, Painted, Pose, extent, lay, paint
from convoscope.toybox.specimens import CLASSES, Light, develop, named, sketch, turned

SCENE_SIZE = 128
"""Side of the scenes that the bundled scene networks were trained on."""


@dataclass(frozen=True)
class Instance:
    """One thing of a scene: ``box`` is (x0, y0, x1, y1) around the visible ``mask``, its far edges exclusive.

    ``mask`` and ``parts`` are bool [H, W] of what is visible; ``landmarks`` are the visible ones, (x, y) in
    pixel indices.
    """

    label: str
    class_index: int
    box: tuple[int, int, int, int]
    mask: Bools
    parts: dict[str, Bools]
    landmarks: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Scene:
    """A picture uint8 [H, W, 3], its instances from back to front, and the background behind all of them.

    ``stuff`` is uint8 [H, W] of indices into STUFF, also behind the instances. Every pixel is either of
    exactly one instance or of the stuff that is seen there: a panoptic truth.
    """

    image: NDArray[np.uint8]
    instances: tuple[Instance, ...]
    stuff: NDArray[np.uint8]

    def picture(self) -> Image.Image:
        """The picture as a PIL image."""
        return Image.fromarray(self.image)

    def semantic(self) -> NDArray[np.uint8]:
        """uint8 [H, W]: class indices where a thing is, ``len(CLASSES)`` + stuff index elsewhere."""
        out = (self.stuff + len(CLASSES)).astype(np.uint8)
        for instance in self.instances:
            out[instance.mask] = instance.class_index
        return out

    def segments(self) -> NDArray[np.uint8]:
        """uint8 [H, W]: 1 + the number of the instance seen there, 0 for stuff."""
        out = np.zeros(self.stuff.shape, np.uint8)
        for number, instance in enumerate(self.instances, 1):
            out[instance.mask] = number
        return out


def tight_box(mask: Bools) -> tuple[int, int, int, int]:
    """(x0, y0, x1, y1) of the mask's pixels, x1 and y1 exclusive."""
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@dataclass(frozen=True)
class _Laid:
    """A thing with its place in the scene."""

    label: str
    painted: Painted
    landmarks: dict[str, tuple[float, float]]
    length: float

    @property
    def foot(self) -> int:
        """The lowest row that it covers: what stands lower stands in front."""
        return int(np.nonzero(self.painted.mask.any(1))[0][-1])


def _place(
    rng: np.random.Generator, label: str, horizon: float, size: int, others: list[_Laid]
) -> list[_Laid] | None:
    """Sketch one thing and look for a place for it among the others, which are sorted from back to front.

    Things further down are larger. Returns all, sorted again, or None where the picture is too crowded.
    """
    thing = sketch(label, rng)
    depth = rng.uniform(0, 1)
    length = size * (0.23 + 0.2 * depth) * rng.uniform(0.9, 1.15)
    matrix, mirror = turned(label, thing, rng, length)
    low, high = extent(thing, matrix)
    width, height = (high - low).tolist()
    if label == "bird" and rng.random() < 0.5:
        foot = size * rng.uniform(0.25, 0.6)
    else:
        foot = size * (horizon + 0.1 + (0.97 - horizon - 0.1) * depth)
    for attempt in range(10):
        x = rng.uniform(2, max(size - width - 2, 3))
        y = float(np.clip(foot - height + rng.normal(0, 0.02 * size * attempt), 2, size - height - 2))
        # Judge by boxes first, and paint only what has a chance.
        least, box = 0.93 if attempt < 7 else 0.65, (x, y, x + width, y + height)
        if attempt < 7 and any(_overlap(box, tight_box(other.painted.mask)) > 0.4 for other in others):
            continue
        painted = paint(thing, Pose(matrix, np.array([x, y]) - low), size, size)
        trial = [*others, _Laid(label, painted, named(painted, mirror), length)]
        trial.sort(key=lambda item: item.foot)
        if all(share >= least for share in _visible_shares([item.painted.mask for item in trial])):
            return trial
    return None


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """The share of the smaller of two boxes (x0, y0, x1, y1) that lies in the other."""
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return max(w, 0.0) * max(h, 0.0) / max(smaller, 1e-9)


def scene(seed: int, *, size: int = SCENE_SIZE, objects: tuple[int, int] = (2, 5)) -> Scene:
    """Draw the scene of this number: between ``objects[0]`` and ``objects[1]`` things, often several of one
    class.

    At least 65 % of each thing is visible; a crowded picture may get fewer things than asked for, but one at
    least. ``size`` is the side in pixels (64 at least).
    """
    if size < 64:
        raise UsageError(f"Toybox scenes need a size of at least 64 pixels, not {size}.")
    if not 1 <= objects[0] <= objects[1] <= 20:
        raise UsageError(f"A scene holds between 1 and 20 things, lowest number first, not {objects}.")
    if seed < 0:
        raise UsageError(f"A scene's number is 0 or more, not {seed}.")
    rng = np.random.Generator(np.random.PCG64([seed, 2]))
    light = Light.random(rng)
    picture, stuff, horizon = landscape(rng, size, size)
    count = int(rng.integers(objects[0], objects[1] + 1))
    kinds = rng.permutation(len(CLASSES))[: max(1, count - int(rng.integers(0, 3)))]
    laid: list[_Laid] = []
    for k in range(count):
        for _ in range(3):  # a thing that finds no place is drawn anew
            trial = _place(rng, CLASSES[kinds[k % len(kinds)]], horizon, size, laid)
            if trial is not None:
                laid = trial
                break
    for item in laid:
        picture = lay(picture, _distinct(item.painted, picture), light.direction, item.length)
    taken = np.zeros((size, size), bool)
    instances: list[Instance] = []
    for item in reversed(laid):  # what is in front hides what is behind
        mask = item.painted.mask & ~taken
        seen = {
            name: (x, y)
            for name, (x, y) in item.landmarks.items()
            if not taken[min(max(round(y), 0), size - 1), min(max(round(x), 0), size - 1)]
        }
        parts = {name: part & mask for name, part in item.painted.parts.items() if (part & mask).any()}
        index = CLASSES.index(item.label)
        instances.append(Instance(item.label, index, tight_box(mask), mask, parts, seen))
        taken |= item.painted.mask
    return Scene(develop(rng, picture, light), tuple(reversed(instances)), stuff)


def _distinct(thing: Painted, ground: Floats) -> Painted:
    """The thing, its colours made lighter or darker where it would drown in the ground."""
    own, behind = thing.color[thing.mask].mean(0), ground[thing.mask].mean(0)
    gap = float(np.abs(own - behind).mean())
    if gap > 36:
        return thing
    by = (36 - gap) / 255 + 0.08
    if behind.mean() < 70 or behind.mean() < own.mean() < 200:
        return replace(thing, color=thing.color + (255 * thing.cover[..., None] - thing.color) * (1.5 * by))
    return replace(thing, color=thing.color * (1 - 1.5 * by))


def _visible_shares(masks: list[Bools]) -> list[float]:
    """The visible share of each of the masks, given from back to front."""
    taken = np.zeros(masks[0].shape, bool)
    shares = []
    for mask in reversed(masks):
        shares.append(float((mask & ~taken).sum() / max(mask.sum(), 1)))
        taken |= mask
    return shares


__all__ = ["SCENE_SIZE", "STUFF", "Instance", "Scene", "scene", "tight_box"]

"""One thing per picture: ``draw``. The same number always gives the same picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convoscope.errors import UsageError
from convoscope.toybox import living, made
from convoscope.toybox.grounds import GROUNDS, confetti, ground, label_tag
from convoscope.toybox.paint import Bools, Floats, Painted, Pose, extent, lay, paint
from convoscope.toybox.shapes import Sketch

CLASSES: tuple[str, ...] = ("house", "tree", "car", "boat", "fish", "bird", "cat", "flower", "cup", "key")
"""The ten classes, in the order of the networks' outputs."""

LANDMARKS: tuple[str, ...] = (
    "roof_top", "door", "tree_top", "front_wheel", "rear_wheel", "mast_top", "prow", "fish_eye", "fish_tail",
    "beak", "bird_tail", "left_eye", "right_eye", "nose", "blossom", "handle", "key_bow", "key_tip",
)  # fmt: skip
"""All named points, in the order of the landmark network's maps. ``left_eye`` is on the picture's left."""

SIZE = 96
"""Side of the pictures that the bundled classifiers were trained on."""

_SKETCHES: dict[str, Callable[[np.random.Generator], Sketch]] = {
    "house": made.house, "tree": living.tree, "car": made.car, "boat": made.boat, "fish": living.fish,
    "bird": living.bird, "cat": living.cat, "flower": living.flower, "cup": made.cup, "key": made.key,
}  # fmt: skip
_LEAN: dict[str, float] = {
    "house": 8, "tree": 8, "car": 12, "boat": 12, "fish": 28, "bird": 18, "cat": 10, "flower": 20, "cup": 14,
    "key": 180,
}  # fmt: skip
"""How far a thing may be turned from upright, in degrees."""
_TWINS = {"left_eye": "right_eye", "right_eye": "left_eye"}
"""Left and right are the picture's; these names change places in a mirrored thing."""


@dataclass(frozen=True)
class Specimen:
    """A picture with its truth.

    ``image`` is uint8 [H, W, 3]; ``mask`` and each of ``parts`` are bool [H, W] of what is visible (parts do
    not overlap and together make up the mask; a part too small to be seen is left out); ``landmarks`` are
    (x, y) in pixel indices (the centre of the first pixel is 0, 0); ``tag_mask`` is None unless the picture
    carries the tag.
    """

    image: NDArray[np.uint8]
    label: str
    class_index: int
    mask: Bools
    parts: dict[str, Bools]
    landmarks: dict[str, tuple[float, float]]
    tag_mask: Bools | None = None

    def picture(self) -> Image.Image:
        """The picture as a PIL image."""
        return Image.fromarray(self.image)

    def _repr_png_(self) -> bytes:
        import io

        buffer = io.BytesIO()
        self.picture().save(buffer, "PNG")
        return buffer.getvalue()


@dataclass(frozen=True)
class Staging:
    """What of a picture is told; what is None is left to the picture's number, as everything is without a staging.

    ``ground`` is one of ``grounds.GROUNDS``; ``lean`` turns the thing by so many degrees; ``mirror`` says whether
    it is mirrored; ``length`` is its longer side as a share of the picture's; ``at`` is where it stands, (0, 0)
    at the top left and (1, 1) at the bottom right; ``level`` is the light's brightness (about 0.86 to 1.08).
    """

    ground: str | None = None
    lean: float | None = None
    mirror: bool | None = None
    length: float | None = None
    at: tuple[float, float] | None = None
    level: float | None = None

    def __post_init__(self) -> None:
        if self.ground is not None and self.ground not in GROUNDS:
            raise UsageError(f"The toybox has no ground {self.ground!r}: it has {', '.join(GROUNDS)}.")
        if self.length is not None and not 0.05 <= self.length <= 1:
            raise UsageError(f"A thing's length is 0.05 to 1 of the picture's side, not {self.length}.")


@dataclass(frozen=True)
class Light:
    """Where the light comes from (a unit vector in the picture, y downwards) and its colour."""

    direction: tuple[float, float]
    tint: NDArray[np.float32]
    fall: float

    @staticmethod
    def random(rng: np.random.Generator) -> Light:
        """From above, more or less from a side; warm, neutral or cool."""
        angle = rng.uniform(-1.1, 1.1)
        warm = rng.uniform(-0.06, 0.06)
        level = rng.uniform(0.86, 1.08)
        tint = np.array([level * (1 + warm), level, level * (1 - warm)], np.float32)
        return Light((float(np.sin(angle)), float(-np.cos(angle))), tint, float(rng.uniform(0.0, 0.22)))


def develop(rng: np.random.Generator, picture: Floats, light: Light) -> NDArray[np.uint8]:
    """The last step of every picture: light that falls off across it, its colour, and a little grain."""
    h, w, _ = picture.shape
    y = (np.arange(h, dtype=np.float32) * (2 / (h - 1)) - 1)[:, None]
    x = (np.arange(w, dtype=np.float32) * (2 / (w - 1)) - 1)[None, :]
    level = (
        1 + light.fall * 0.7 * (x * light.direction[0] + y * light.direction[1]) - 0.08 * light.fall * (x * x + y * y)
    )
    out = picture * level[..., None]
    out *= light.tint
    out += rng.random((h, w, 1), dtype=np.float32) * rng.uniform(2.0, 9.0) + (0.5 - 3.0)
    image: NDArray[np.uint8] = np.clip(out, 0, 255, out=out).astype(np.uint8)
    return image


def sketch(label: str, rng: np.random.Generator) -> Sketch:
    """The outlines of one thing of a class, in its own frame."""
    return _SKETCHES[label](rng)


def turned(
    label: str, thing: Sketch, rng: np.random.Generator, length: float, told: Staging | None = None
) -> tuple[NDArray[np.float64], bool]:
    """A random linear map (mirror, stretch, lean) that makes the thing's longer side ``length`` pixels."""
    lean = np.deg2rad(rng.uniform(-1, 1) * _LEAN[label])
    mirror = bool(rng.random() < 0.5)
    if told is not None:
        lean = lean if told.lean is None else np.deg2rad(told.lean)
        mirror = mirror if told.mirror is None else told.mirror
    stretch = np.exp(rng.uniform(-0.12, 0.12))
    shear = rng.uniform(-0.08, 0.08)
    c, s = np.cos(lean), np.sin(lean)
    matrix = np.array([[c, -s], [s, c]]) @ np.array([[stretch, shear], [0.0, 1 / stretch]])
    if mirror:
        matrix = matrix @ np.diag([-1.0, 1.0])
    low, high = extent(thing, matrix)
    return matrix * (length / float((high - low).max())), mirror


def named(painted: Painted, mirror: bool) -> dict[str, tuple[float, float]]:
    """The landmarks, left and right as in the picture."""
    if not mirror:
        return painted.landmarks
    return {_TWINS.get(name, name): at for name, at in painted.landmarks.items()}


def apart(ground: Floats, thing: Painted) -> Floats:
    """The ground, made lighter or darker where the thing would drown in it."""
    mask = thing.mask
    if not mask.any():
        return ground
    own, behind = thing.color[mask].mean(0), ground[mask].mean(0)
    gap = float(np.abs(own - behind).mean())
    if gap > 45:
        return ground
    by = (45 - gap) / 255 + 0.06
    return ground * (1 - 1.5 * by) if own.mean() > behind.mean() else ground + (255 - ground) * (1.5 * by)


def _tagged(rng: np.random.Generator, picture: Floats, light: Light) -> tuple[Floats, Bools]:
    """Stick the tag into one of the corners."""
    h, w, _ = picture.shape
    unit = min(h, w) * 0.145
    corner = rng.integers(4)
    x = w - unit * 1.02 if corner & 1 else unit * 1.02
    y = h - unit * 0.8 if corner & 2 else unit * 0.8
    a = rng.uniform(-0.14, 0.14)
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) * unit
    tag = paint(label_tag(rng), Pose(turn, np.array([x, y])), h, w)
    return lay(picture, tag, light.direction, min(h, w) * 0.3, detail=False), tag.mask


def draw(
    index_or_seed: int,
    *,
    label: str | None = None,
    tag: bool = False,
    size: int = SIZE,
    staging: Staging | None = None,
) -> Specimen:
    """Draw the picture of this number: one thing on a random background, with its truth.

    ``label`` None draws the class from the number, too. ``tag`` sticks a small barcode into a corner; the
    picture is otherwise the same. ``size`` is the side in pixels (32 at least). ``staging`` tells what else
    is not left to chance. Raises UsageError for an unknown label or size.
    """
    if label is not None and label not in _SKETCHES:
        raise UsageError(f"The toybox has no class {label!r}: it has {', '.join(CLASSES)}.")
    if size < 32:
        raise UsageError(f"Toybox pictures need a size of at least 32 pixels, not {size}.")
    if index_or_seed < 0:
        raise UsageError(f"A toybox picture's number is 0 or more, not {index_or_seed}.")
    rng = np.random.Generator(np.random.PCG64(index_or_seed))
    drawn = CLASSES[rng.integers(len(CLASSES))]
    label = drawn if label is None else label
    told = staging or Staging()
    light = Light.random(rng)
    if told.level is not None:
        light = Light(light.direction, light.tint * np.float32(told.level / light.tint[1]), light.fall)
    thing = sketch(label, rng)
    length = rng.uniform(0.56, 0.86)
    matrix, mirror = turned(label, thing, rng, size * (told.length or length), told)
    low, high = extent(thing, matrix)
    free = size - (high - low) - 4
    place = np.clip(0.5 + rng.normal(0, 0.25, 2), 0, 1)
    at = 2 + free * (place if told.at is None else np.array(told.at))
    painted = paint(thing, Pose(matrix, at - low), size, size)

    back = ground(rng, size, size, told.ground)
    count = int(rng.integers(0, 8))
    if count:
        strewn = paint(confetti(rng, count), Pose(np.eye(2) * size, np.zeros(2)), size, size)
        back = lay(back, strewn, light.direction, size * 0.2, detail=False)
    back = apart(back, painted)
    picture = lay(back, painted, light.direction, size * 0.7)
    mask, parts, tag_mask = painted.mask, painted.parts, None
    # The tag has a random stream of its own: a picture differs from the one without it there only.
    if tag:
        picture, tag_mask = _tagged(np.random.Generator(np.random.PCG64([index_or_seed, 1])), picture, light)
        mask = mask & ~tag_mask
        parts = {name: part & mask for name, part in parts.items() if (part & mask).any()}
    image = develop(rng, picture, light)
    return Specimen(image, label, CLASSES.index(label), mask, parts, named(painted, mirror), tag_mask)


def pictures(count: int, seed: int = 0, *, tag: str | bool = False, size: int = SIZE) -> Iterator[Specimen]:
    """The first ``count`` pictures of the collection ``seed``, classes drawn evenly at random.

    ``tag`` True tags all, False none, and a label tags exactly the pictures of that class (the cheat's
    world). Two collections never share a picture: number k of collection s is ``draw(s * 1_000_000 + k)``.
    """
    if isinstance(tag, str) and tag not in CLASSES:
        raise UsageError(f"The toybox has no class {tag!r}: it has {', '.join(CLASSES)}.")
    if not 0 <= count <= 1_000_000:
        raise UsageError(f"A toybox collection has 0 to 1,000,000 pictures, not {count}.")
    for k in range(count):
        number = seed * 1_000_000 + k
        if isinstance(tag, str):
            # The class is the first thing that a number decides.
            first = np.random.Generator(np.random.PCG64(number))
            yield draw(number, tag=CLASSES[first.integers(len(CLASSES))] == tag, size=size)
        else:
            yield draw(number, tag=tag, size=size)

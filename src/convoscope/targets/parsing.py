"""The one parser: from whatever a door was given to a :class:`~.base.Target`.

The grammar is small: ``kind:rest``, where a kind is one of :data:`KINDS`; sums and differences ``a + 0.5*b - c``; a
unit ``layer:channel``; a rank ``top2``; a class. A class name that is spelled like one of them wins.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import TargetError
from .base import Target, TargetLike
from .classes import ClassTarget
from .combinations import Combination, Direction
from .instances import PARTS, Instance
from .landmarks import AXES, Landmark
from .likeness import Likeness
from .outputs import MultiLabel, Output
from .panoptic import AnySegment
from .places import Point
from .scores import FunctionTarget, OwnTarget
from .segments import Segment
from .units import parse_unit

if TYPE_CHECKING:
    from ..models.model import Model


class Kind(NamedTuple):
    """What a person is told of a kind of target."""

    example: str
    scores: str


#: the kinds, for help, forms and docs
KINDS = {
    "instance": Kind(
        "instance:0, instance:dog, instance:dog@120,80, instance:0@mask",
        "one detection: its confidence, its mask, or an edge of its box (left, top, right, bottom)",
    ),
    "segment": Kind(
        "segment:dog, segment:dog@120,80, segment:@120,80",
        "a class over its region, or over the region or the panoptic segment at a point of the photo",
    ),
    "pixel": Kind("pixel:dog@120,80", "a class at one point of the photo"),
    "landmark": Kind(
        "landmark:left_eye, landmark:3, landmark:nose@1, landmark:nose@120,80, landmark:nose@x",
        "one landmark; of the instance with that number, or at that point; or its x or y",
    ),
    "similar": Kind(
        "similar:other.jpg, similar:folder, similar:other.jpg@layer3",
        "the cosine between the embeddings of this picture and another, or the mean of several",
    ),
    "distance": Kind("distance:other.jpg", "the Euclidean distance between the two embeddings"),
    "output": Kind("output:age, output:heads.1.3", "one number of what the network returns, by its path"),
    "multilabel": Kind("multilabel:cat+dog", "the mean logit of several labels that do not exclude each other"),
    "direction": Kind("direction:layer3@concept.npy", "a layer's activations along a vector of your own"),
}

_POINT = re.compile(r"(-?\d+(?:\.\d+)?)\s*,\s*(-?\d+(?:\.\d+)?)")
_WEIGHT = re.compile(r"(?P<weight>\d+(?:\.\d+)?|\.\d+)\s*\*\s*(?P<rest>.+)", re.DOTALL)
#: kinds whose rest names a file, in which anything may stand: spaces, a minus between spaces, a colon
_FILES = ("similar", "distance", "direction")


def parse(asked: TargetLike, model: Model, against: TargetLike = None) -> Target:
    """The target that is asked for; called once at each door.

    Args:
        asked: ``None`` or ``top1`` (the predicted class), a class by number or name, a text of the grammar, a function
            of the output, a :class:`Target`, or an object with ``resolve(model, output, pictures)``.
        model: its labels and layers decide what a text means. Nothing is run, and no file is read.
        against: a class to contrast a class with.

    Raises:
        TargetError: the text is no target, or cannot be contrasted.
    """
    found = _parse(asked, model)
    if against is None:
        return found
    other = _parse(against, model)
    if not isinstance(found, ClassTarget) or not isinstance(other, ClassTarget):
        wrong = against if isinstance(found, ClassTarget) else asked
        raise TargetError(
            f"{wrong} cannot be contrasted with --against: name two classes, or write a difference: a - b."
        )
    return ClassTarget(found.name, "top1" if other.name is None else other.name)


def _parse(asked: Any, model: Model) -> Target:
    if isinstance(asked, Combination):
        return Combination([(float(weight), _parse(part, model)) for weight, part in asked.parts])
    if isinstance(asked, Target):
        return asked
    if asked is None:
        return ClassTarget()
    if isinstance(asked, str):
        return _read(asked, model)
    if callable(getattr(asked, "resolve", None)):
        return OwnTarget(asked)
    if callable(asked) and not hasattr(asked, "__index__"):
        return FunctionTarget(asked)
    try:
        if isinstance(asked, bool):
            raise TypeError
        return ClassTarget(operator.index(asked))
    except TypeError:
        raise TargetError(f"A target can be a class number, a name or a function, not {asked!r}.") from None


def _read(text: str, model: Model) -> Target:
    if text in (model.labels or ()):
        return _label(text, model)
    terms = _terms(text.strip(), model)
    if len(terms) == 1 and terms[0][0] == 1 and not _WEIGHT.fullmatch(terms[0][1]):
        return _one(text, model)
    parts = []
    for sign, term in terms:
        found = None if term in (model.labels or ()) else _WEIGHT.fullmatch(term)
        weight, rest = (float(found["weight"]), found["rest"].strip()) if found else (1.0, term)
        parts.append((sign * weight, _one(rest, model)))
    return Combination(parts)


def _label(text: str, model: Model) -> ClassTarget:
    """A class by its label; one that is called ``top2`` or ``7`` by its number, so that nobody reads it again."""
    labels = list(model.labels or ())
    spelled = text.isdigit() or ClassTarget(text).rank
    return ClassTarget(labels.index(text) if spelled and labels.count(text) == 1 else text)


def _terms(text: str, model: Model) -> list[tuple[int, str]]:
    """The signed terms of a sum. A label or a file's name in which a sign stands stays whole: the longest wins."""
    marks = list(re.finditer(r"\s+([+-])\s+", text))
    starts = [0, *(mark.end() for mark in marks)]
    ends = [*(mark.start() for mark in marks), len(text)]
    signs = [1, *(1 if mark[1] == "+" else -1 for mark in marks)]
    terms, first = [], 0
    while first < len(starts):
        last = next(
            (n for n in range(len(ends) - 1, first, -1) if _whole(text[starts[first] : ends[n]], model)), first
        )
        terms.append((signs[first], text[starts[first] : ends[last]].strip()))
        first = last + 1
    return terms


def _whole(text: str, model: Model) -> bool:
    """Whether a text with signs in it is one name: a label, or a target whose file is there."""
    if found := _WEIGHT.fullmatch(text):
        text = found["rest"].strip()
    if text in (model.labels or ()):
        return True
    kind, _, rest = text.partition(":")
    if kind.strip().lower() not in _FILES:
        return False
    before, _, after = rest.rpartition("@")
    return any(Path(name.strip()).exists() for name in (rest, before, after) if name.strip())


def _one(text: str, model: Model) -> Target:
    """A target that is no sum."""
    if text in (model.labels or ()):
        return _label(text, model)
    kind, colon, rest = text.strip().partition(":")
    read = _READERS.get(kind.strip().lower()) if colon else None
    # a network may really have a layer called "output": then output:3 is its channel 3, as for any layer
    layer = kind in dict(model.module.named_children()) and rest.split("@")[0].isdigit()
    if read is not None and not layer:
        return read(rest, model)
    return parse_unit(text, model) or ClassTarget(text)


def _split(rest: str, words: Sequence[str] = ()) -> tuple[str, Point | None, str | None]:
    """``name@x,y@word`` to its three parts; whatever follows an ``@`` and is neither stays part of the name."""
    name, point, word = rest.strip(), None, None
    while "@" in name:
        before, _, last = name.rpartition("@")
        if point is None and (found := _POINT.fullmatch(last.strip())):
            point = (float(found[1]), float(found[2]))
        elif word is None and last.strip() in words:
            word = last.strip()
        else:
            break
        name = before.strip()
    return name, point, word


def _instance(rest: str, model: Model) -> Instance:
    """``instance:0``, ``instance:dog``, ``instance:dog@120,80``, ``instance:@120,80``, ``instance:0@mask``."""
    name, point, part = _split(rest, PARTS)
    if "@" in name:
        raise TargetError(f"instance:{rest}: what follows an @ is a point x,y of the photo, or {', '.join(PARTS)}.")
    if name.isdigit() and name not in (model.labels or ()):
        return Instance(int(name), None, point, part or "class")
    if not name and point is None:
        raise TargetError("instance: needs a number (instance:0 is the best), a class, or a point (instance:@x,y).")
    return Instance(0, name or None, point, part or "class")


def _segment(rest: str, model: Model) -> AnySegment:
    """``segment:dog``, ``segment:dog@120,80``, ``segment:@120,80``."""
    name, point, _ = _split(rest)
    if not name and point is None:
        raise TargetError("segment: needs a class, a point of the photo, or both (segment:dog@120,80).")
    return AnySegment(name or None, point)


def _pixel(rest: str, model: Model) -> Segment:
    """``pixel:dog@120,80``: what the network says of one point."""
    name, point, _ = _split(rest)
    if point is None:
        raise TargetError("pixel: needs a point of the photo (pixel:dog@120,80).")
    return Segment(name or None, point, single=True)


def _landmark(rest: str, model: Model) -> Landmark:
    """``landmark:left_eye``, ``landmark:3``, ``landmark:nose@120,80`` (of the instance there), ``landmark:nose@x``."""
    name, point, axis = _split(rest, tuple(AXES))
    instance_number = 0
    if found := re.fullmatch(r"(.+)@(\d+)", name):
        name, instance_number = found[1], int(found[2])
    if not name:
        raise TargetError("landmark: needs a name or a number (landmark:left_eye).")
    return Landmark(int(name) if name.isdigit() else name, instance_number, point, axis)


def _likeness(measure: str) -> Callable[[str, Model], Likeness]:
    """``similar:other.jpg``, ``similar:folder`` (the mean of its pictures), ``similar:a.jpg,b.jpg@layer4``."""

    def read(rest: str, model: Model) -> Likeness:
        name, layer = rest.strip(), None
        if "@" in name and not Path(name).exists():
            name, _, layer = name.rpartition("@")
        if not name:
            raise TargetError(f"{measure}: needs a picture ({measure}:other.jpg), a folder, or several with commas.")
        whole = [name] if Path(name).exists() else [part.strip() for part in name.split(",") if part.strip()]
        return Likeness(tuple(whole), measure, layer)

    return read


def _output(rest: str, model: Model) -> Output:
    """``output:age``, ``output:heads.1.3``."""
    return Output(rest.strip())


def _multilabel(rest: str, model: Model) -> MultiLabel:
    """``multilabel:cat+dog``."""
    names = (
        (rest,) if rest in (model.labels or ()) else tuple(part.strip() for part in rest.split("+") if part.strip())
    )
    if not names:
        raise TargetError("multilabel: needs class names or numbers with + between them (multilabel:cat+dog).")
    return MultiLabel(names)


def _direction(rest: str, model: Model) -> Direction:
    """``direction:layer3@concept.npy``."""
    layer, at, file = rest.strip().partition("@")
    if not at or not layer or not file:
        raise TargetError("A direction is written direction:LAYER@FILE.npy, with one value a channel in the file.")
    return Direction(layer, file, f"direction:{layer}@{Path(file).name}")


_READERS: dict[str, Callable[[str, Model], Target]] = {
    "instance": _instance, "segment": _segment, "pixel": _pixel, "landmark": _landmark,
    "similar": _likeness("similar"), "distance": _likeness("distance"), "output": _output, "multilabel": _multilabel,
    "direction": _direction,
}  # fmt: skip


__all__ = ["KINDS", "Kind", "parse"]

"""The grammar's readers: from ``kind:rest`` to a target."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ..errors import TargetError
from .instances import PARTS, Instance
from .landmarks import AXES, Landmark
from .likeness import Likeness
from .outputs import MultiLabel, Output
from .panoptic import PanopticSegment, is_panoptic
from .places import Point
from .segments import Segment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..models.model import Model
    from ..pictures.picture import ModelInput

_POINT = re.compile(r"(-?\d+(?:\.\d+)?)\s*,\s*(-?\d+(?:\.\d+)?)")


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


def instance(rest: str, model: Model) -> Instance:
    """``instance:0``, ``instance:dog``, ``instance:dog@120,80``, ``instance:@120,80``, ``instance:0@mask``."""
    name, point, part = _split(rest, PARTS)
    if "@" in name:
        raise TargetError(f"instance:{rest}: what follows an @ is a point x,y of the photo, or {', '.join(PARTS)}.")
    if name.isdigit() and name not in (model.labels or ()):
        return Instance(int(name), None, point, part or "class")
    if not name and point is None:
        raise TargetError("instance: needs a number (instance:0 is the best), a class, or a point (instance:@x,y).")
    return Instance(0, name or None, point, part or "class")


class _AnySegment:
    """A segment of whatever kind of map the network turns out to return."""

    def __init__(self, label: str | None, at: Point | None) -> None:
        self.label, self.at = label, at

    def resolve(self, model: Model, output: Any, pictures: Sequence[ModelInput]) -> Any:
        if is_panoptic(output):
            return PanopticSegment(self.label, self.at).resolve(model, output, pictures)
        return Segment(self.label, self.at).resolve(model, output, pictures)


def segment(rest: str, model: Model) -> _AnySegment:
    """``segment:dog``, ``segment:dog@120,80``, ``segment:@120,80``."""
    name, point, _ = _split(rest)
    if not name and point is None:
        raise TargetError("segment: needs a class, a point of the photo, or both (segment:dog@120,80).")
    return _AnySegment(name or None, point)


def pixel(rest: str, model: Model) -> Segment:
    """``pixel:dog@120,80``: what the network says of one point."""
    name, point, _ = _split(rest)
    if point is None:
        raise TargetError("pixel: needs a point of the photo (pixel:dog@120,80).")
    return Segment(name or None, point, single=True)


def landmark(rest: str, model: Model) -> Landmark:
    """``landmark:left_eye``, ``landmark:3``, ``landmark:nose@120,80`` (of the instance there), ``landmark:nose@x``."""
    name, point, axis = _split(rest, tuple(AXES))
    instance_number = 0
    if found := re.fullmatch(r"(.+)@(\d+)", name):
        name, instance_number = found[1], int(found[2])
    if not name:
        raise TargetError("landmark: needs a name or a number (landmark:left_eye).")
    return Landmark(int(name) if name.isdigit() else name, instance_number, point, axis)


def likeness(measure: str, rest: str, model: Model) -> Likeness:
    """``similar:other.jpg``, ``similar:folder`` (the mean of its pictures), ``similar:a.jpg,b.jpg@layer4``."""
    from pathlib import Path

    from ..pictures.picture import find_pictures

    name, layer = rest.strip(), None
    if "@" in name and not Path(name).exists():
        name, _, layer = name.rpartition("@")
    if not name:
        raise TargetError(f"{measure}: needs a picture ({measure}:other.jpg), a folder, or several with commas.")
    sources = [name] if Path(name).exists() else [part.strip() for part in name.split(",") if part.strip()]
    return Likeness(tuple(find_pictures(sources)), measure, layer)


def output(rest: str, model: Model) -> Output:
    """``output:age``, ``output:heads.1.3``."""
    return Output(rest.strip())


def multilabel(rest: str, model: Model) -> MultiLabel:
    """``multilabel:cat+dog``."""
    names = (
        (rest,) if rest in (model.labels or ()) else tuple(part.strip() for part in rest.split("+") if part.strip())
    )
    if not names:
        raise TargetError("multilabel: needs class names or numbers with + between them (multilabel:cat+dog).")
    return MultiLabel(names)

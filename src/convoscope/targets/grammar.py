"""The small grammar of structured targets: ``kind:rest``, where a kind is registered by whoever scores it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..models.model import Model
    from .classes import Target

Parser = Callable[[str, "Model"], "Target"]


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
}


def _later(kind: str) -> Parser:
    """A parser that is imported when it is first used: most networks never need it."""

    def read(rest: str, model: Model) -> Target:
        from . import parsing

        if kind in ("similar", "distance"):
            return parsing.likeness(kind, rest, model)  # type: ignore[return-value]
        return getattr(parsing, kind)(rest, model)  # type: ignore[no-any-return]

    return read


#: kind -> the function that reads what follows the colon
PARSERS: dict[str, Parser] = {kind: _later(kind) for kind in KINDS}


def parse(text: str, model: Model) -> Target | None:
    """The structured target in ``text``; ``None`` where its kind is not one (a class, a unit).

    A class name or a layer of the network that happens to begin alike wins.
    """
    from .combinations import parse as combination  # sums, differences and directions are made of other targets

    if (combined := combination(text, model)) is not None:
        return combined
    kind, colon, rest = text.partition(":")
    if not colon or kind not in PARSERS or (model.labels is not None and text in model.labels):
        return None
    if kind in dict(model.module.named_children()) and rest.split("@")[0].isdigit():
        # a network may really have a layer called "output": then output:3 is its channel 3, as for any layer
        return None
    return PARSERS[kind](rest, model)

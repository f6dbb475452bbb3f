"""Targets made of others: a direction in a layer, and sums and differences of targets.

``tabby - tiger cat`` is the difference of two scores, ``layer3:5 + 0.5*layer3:7`` a weighted sum,
``direction:layer3@concept.npy`` the activations' projection on a vector.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import TargetError
from . import classes as targets

if TYPE_CHECKING:
    from ..models.model import Model


@dataclass(frozen=True, eq=False)
class Direction:
    """The mean over a layer's cells of the activations' projection on ``vector`` (one value a channel).

    The vector is used at unit length, so that scores of different directions compare.
    """

    layer: str
    vector: Any
    name: str | None = None

    def resolve(self, model: Model, output: Any, pictures: Sequence[Any]) -> DirectionScorer:
        watched = model.watched()
        if self.layer not in watched.layers:
            raise TargetError(targets.no_such_layer(self.layer, list(watched.layers)))
        vector = torch.as_tensor(np.asarray(self.vector, dtype=np.float32)).flatten()
        length = float(vector.norm())
        if not np.isfinite(length) or length == 0:
            raise TargetError("A direction needs finite values that are not all zero.")
        info = watched.layers[self.layer]
        last = bool(info.channels_last)
        channels = info.shape[-1] if last else info.shape[1]
        if len(vector) != channels:
            raise TargetError(
                f"The direction has {len(vector)} values and layer {self.layer} {channels} channels: give one each."
            )
        label = self.name or f"direction in {self.layer}"
        return DirectionScorer(self.layer, vector / length, (label,) * len(pictures), last)


@dataclass(eq=False)
class DirectionScorer:
    """See :class:`Direction`."""

    layer: str
    vector: Tensor
    labels: tuple[str, ...]
    channels_last: bool = False

    @property
    def layers(self) -> tuple[str, ...]:
        return (self.layer,)

    def score(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        values = layers[self.layer]
        if not self.channels_last:
            values = values.movedim(1, -1)
        projected = values @ self.vector.to(values.device, values.dtype)
        return projected.flatten(1).mean(1) if projected.ndim > 1 else projected

    def probability(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        raise TargetError(f"A direction ({self.labels[0]}) has no probability: use score=logit.")


@dataclass(frozen=True, eq=False)
class Combination:
    """A weighted sum of targets: ``Combination([(1, "tabby"), (-1, "tiger cat")])``."""

    parts: Sequence[tuple[float, Any]]

    def resolve(self, model: Model, output: Any, pictures: Sequence[Any]) -> CombinationScorer:
        scorers = [(weight, targets.resolve(part, model, output, pictures)) for weight, part in self.parts]
        labels = tuple(
            _spell([(weight, scorer.labels[row]) for weight, scorer in scorers]) for row in range(len(pictures))
        )
        return CombinationScorer(scorers, labels)


def _spell(parts: Sequence[tuple[float, str]]) -> str:
    words: list[str] = []
    for weight, label in parts:
        sign = "-" if weight < 0 else "+"
        size = "" if abs(weight) == 1 else f"{abs(weight):g}*"
        if not words:
            words.append(f"{'-' if weight < 0 else ''}{size}{label}")
        else:
            words.append(f"{sign} {size}{label}")
    return " ".join(words)


@dataclass(eq=False)
class CombinationScorer:
    """See :class:`Combination`."""

    parts: Sequence[tuple[float, targets.Scorer]]
    labels: tuple[str, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(layer for _, part in self.parts for layer in part.layers))

    def score(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        total = sum(weight * part.score(output, layers, rows) for weight, part in self.parts)
        assert isinstance(total, Tensor)
        return total

    def probability(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        total = sum(weight * part.probability(output, layers, rows) for weight, part in self.parts)
        assert isinstance(total, Tensor)
        return total


_WEIGHT = re.compile(r"(?P<weight>\d+(?:\.\d+)?|\.\d+)\s*\*\s*(?P<rest>.+)")


def parse(text: str, model: Model) -> Direction | Combination | None:
    """The direction or combination that ``text`` spells; ``None`` where it is neither (a class name wins)."""
    if model.labels is not None and text in model.labels:
        return None
    stripped = text.strip()
    pieces = re.split(r"\s+([+-])\s+", stripped)
    if len(pieces) == 1:
        if stripped.startswith("direction:"):
            return _direction(stripped.removeprefix("direction:"))
        if _WEIGHT.fullmatch(stripped):
            return Combination([_term("+", stripped)])
        return None
    signs = ["+", *pieces[1::2]]
    return Combination([_term(sign, piece) for sign, piece in zip(signs, pieces[::2], strict=True)])


def _term(sign: str, text: str) -> tuple[float, Any]:
    text = text.strip()
    weight = -1.0 if sign == "-" else 1.0
    if found := _WEIGHT.fullmatch(text):
        weight, text = weight * float(found["weight"]), found["rest"].strip()
    if not text:
        raise TargetError("A sum of targets has an empty part: write them as  tabby - tiger cat.")
    return weight, _direction(text.removeprefix("direction:")) if text.startswith("direction:") else text


def _direction(rest: str) -> Direction:
    layer, at, file = rest.partition("@")
    if not at or not layer or not file:
        raise TargetError("A direction is written direction:LAYER@FILE.npy, with one value a channel in the file.")
    try:
        vector = np.load(Path(file), allow_pickle=False)
    except FileNotFoundError:
        raise TargetError(f"{file}: there is no such file with a direction.") from None
    except (OSError, ValueError) as error:
        raise TargetError(f"{file}: not a .npy file with one value a channel ({error}).") from None
    return Direction(layer, vector, f"direction:{layer}@{Path(file).name}")

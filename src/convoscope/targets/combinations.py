"""Targets made of others: a direction in a layer, and sums and differences of targets.

``tabby - tiger cat`` is the difference of two scores, ``layer3:5 + 0.5*layer3:7`` a weighted sum,
``direction:layer3@concept.npy`` the activations' projection on a vector.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..engine.fields.layout import PLAIN, Layout
from ..errors import TargetError
from ..files import read_regular
from .base import Scorer, Target
from .units import layer_of, trace_for

if TYPE_CHECKING:
    from ..engine.passes.runner import Runner
    from ..models.model import Model


@dataclass(frozen=True, eq=False)
class Direction(Target):
    """The mean over a layer's cells of the activations' projection on ``vector`` (one value a channel).

    ``vector`` is an array, or the path of a ``.npy`` file, which is read when it is needed. It is used at unit
    length, so that scores of different directions compare.
    """

    layer: str
    vector: Any
    name: str | None = None

    def layers(self, model: Model) -> tuple[str, ...]:
        return (self.layer,)

    def files(self) -> tuple[Path, ...]:
        return (Path(self.vector),) if isinstance(self.vector, (str, Path)) else ()

    def key(self) -> str:
        if isinstance(self.vector, (str, Path)):
            return f"direction:{self.layer}@{self.vector}"
        values = np.asarray(self.vector, dtype=np.float32)
        return f"direction:{self.layer}@{hashlib.sha256(values.tobytes()).hexdigest()}"

    def resolve(self, model: Model, output: Any, pictures: Sequence[Any], runner: Runner) -> DirectionScorer:
        info = layer_of(trace_for(model, pictures), self.layer)
        vector = torch.from_numpy(np.array(self._values(), dtype=np.float32)).flatten()
        length = float(vector.norm())
        if not np.isfinite(length) or length == 0:
            raise TargetError("A direction needs finite values that are not all zero.")
        channels = info.channels
        if len(vector) != channels:
            raise TargetError(
                f"The direction has {len(vector)} values and layer {self.layer} {channels} channels: give one each."
            )
        label = self.name or f"direction in {self.layer}"
        return DirectionScorer(self.layer, vector / length, (label,) * len(pictures), info.layout)

    def _values(self) -> Any:
        if not isinstance(self.vector, (str, Path)):
            return self.vector
        try:
            return np.load(io.BytesIO(read_regular(self.vector)), allow_pickle=False)
        except FileNotFoundError:
            raise TargetError(f"{self.vector}: there is no such file with a direction.") from None
        except OSError as error:
            raise TargetError(f"{self.vector}: cannot be read ({error.strerror}).") from None
        except (ValueError, EOFError) as error:
            raise TargetError(f"{self.vector}: not a .npy file with one value a channel ({error}).") from None


@dataclass(eq=False)
class DirectionScorer(Scorer):
    """See :class:`Direction`."""

    layer: str
    vector: Tensor
    labels: tuple[str, ...]
    layout: Layout = PLAIN

    @property
    def layers(self) -> tuple[str, ...]:
        return (self.layer,)

    def score(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        values = self.layout.planes(layers[self.layer]).movedim(1, -1)
        projected = values @ self.vector.to(values.device, values.dtype)
        return projected.flatten(1).mean(1) if projected.ndim > 1 else projected

    def probability(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        raise TargetError(f"A direction ({self.labels[0]}) has no probability: use score=logit.")


@dataclass(frozen=True, eq=False)
class Combination(Target):
    """A weighted sum of targets: ``Combination([(1, "tabby"), (-1, "tiger cat")])``.

    Its answers are those of its parts, merged. Parts may be anything that is a target; :func:`.parse` reads them.
    """

    parts: Sequence[tuple[float, Any]]

    def layers(self, model: Model) -> tuple[str, ...]:
        return tuple(dict.fromkeys(layer for part in self._targets() for layer in part.layers(model)))

    def files(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(path for part in self._targets() for path in part.files()))

    def key(self) -> str:
        return _spell(
            [
                (float(weight), f"({part.key()})")
                for (weight, _), part in zip(self.parts, self._targets(), strict=True)
            ]
        )

    def resolve(self, model: Model, output: Any, pictures: Sequence[Any], runner: Runner) -> CombinationScorer:
        scorers = [
            (weight, part.resolve(model, output, pictures, runner))
            for (weight, _), part in zip(self.parts, self._targets(), strict=True)
        ]
        labels = tuple(
            _spell([(weight, scorer.labels[row]) for weight, scorer in scorers]) for row in range(len(pictures))
        )
        return CombinationScorer(scorers, labels)

    def _targets(self) -> list[Target]:
        for _, part in self.parts:
            if not isinstance(part, Target):
                raise TargetError(f"The part {part!r} of this sum has not been read: give the sum to parse() first.")
        return [part for _, part in self.parts]


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
class CombinationScorer(Scorer):
    """See :class:`Combination`."""

    parts: Sequence[tuple[float, Scorer]]
    labels: tuple[str, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(layer for _, part in self.parts for layer in part.layers))

    @property
    def needs_output(self) -> bool:
        return any(part.needs_output for _, part in self.parts)

    @property
    def one_place(self) -> bool:
        return any(part.one_place for _, part in self.parts)

    @property
    def has_probability(self) -> bool:
        return all(part.has_probability for _, part in self.parts)

    @property
    def as_value(self) -> bool:
        return all(part.as_value for _, part in self.parts)

    def score(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        return torch.stack([weight * part.score(output, layers, rows) for weight, part in self.parts]).sum(0)

    def probability(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        return torch.stack([weight * part.probability(output, layers, rows) for weight, part in self.parts]).sum(0)

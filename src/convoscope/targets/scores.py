"""Targets of a person's own: functions of the output, and objects with a ``resolve``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..errors import TargetError
from ..models.code import told
from .base import Scorer, Target

if TYPE_CHECKING:
    from ..engine.passes.runner import Runner
    from ..models.model import Model


@dataclass(frozen=True)
class FunctionTarget(Target):
    """A function of what the network returns that gives one score per picture (or one scalar)."""

    function: Callable[[Any], Tensor]

    def layers(self, model: Model) -> tuple[str, ...]:
        return ()

    def files(self) -> tuple[Path, ...]:
        return ()

    def key(self) -> str:
        return f"function {_name(self.function)} {hashlib.sha256(told(self.function).encode()).hexdigest()[:16]}"

    def resolve(self, model: Model, output: Any, pictures: Sequence[Any], runner: Runner) -> CallableScorer:
        return CallableScorer(self.function, (_name(self.function),) * len(pictures))


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", "function"))


@dataclass(eq=False)
class CallableScorer(Scorer):
    """See :class:`FunctionTarget`."""

    function: Callable[[Any], Tensor]
    labels: tuple[str, ...]

    def score(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        value = self.function(output)
        if not isinstance(value, Tensor):
            raise TargetError(f"The target function returned a {type(value).__name__}, not a tensor of scores.")
        if value.ndim == 0:
            value = value[None]
        if value.shape != (len(rows),) and not (len(value) == 1 and value.ndim == 1):
            raise TargetError(
                f"The target function returned shape {tuple(value.shape)}: it must be one score per picture, "
                f"({len(rows)},)."
            )
        return value

    def probability(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        raise TargetError("A function as target has no probability: use score=logit.")


@dataclass(frozen=True, eq=False)
class OwnTarget(Target):
    """An object of a person's own with ``resolve(model, output, pictures)``, as all of the four answers."""

    own: Any

    def layers(self, model: Model) -> tuple[str, ...]:
        return ()

    def files(self) -> tuple[Path, ...]:
        return ()

    def key(self) -> str:
        return repr(self.own)

    def resolve(self, model: Model, output: Any, pictures: Sequence[Any], runner: Runner) -> Scorer:
        scorer = self.own.resolve(model, output, pictures)
        return scorer if isinstance(scorer, Scorer) else OwnScorer(scorer)


class OwnScorer(Scorer):
    """A scorer of a person's own: an object with ``labels``, ``score`` and perhaps ``layers``, ``probability``."""

    def __init__(self, own: Any) -> None:
        self.own = own
        self.labels = tuple(own.labels)

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(getattr(self.own, "layers", ()))

    @property
    def has_probability(self) -> bool:
        return hasattr(self.own, "probability")

    def score(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        found: Tensor = self.own.score(output, layers, rows)
        return found

    def probability(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        if not self.has_probability:
            return super().probability(output, layers, rows)
        found: Tensor = self.own.probability(output, layers, rows)
        return found

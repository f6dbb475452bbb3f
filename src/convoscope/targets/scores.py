"""Targets of a person's own: functions of the output, and objects with a ``resolve``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from ..errors import TargetError
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
        return f"function {_name(self.function)} {hashlib.sha256(_told(self.function).encode()).hexdigest()[:16]}"

    def resolve(self, model: Model, output: Any, pictures: Sequence[Any], runner: Runner) -> CallableScorer:
        return CallableScorer(self.function, (_name(self.function),) * len(pictures))


def _told(value: Any, inside: tuple[FunctionType, ...] = ()) -> str:
    """What a function computes, as text that another process would write, too: its code, and the values that it takes
    from around it. Where these have no such text (an address stands in it), nothing is taken for the same later.
    """
    if isinstance(value, CodeType):
        return f"{value.co_code!r}{value.co_names!r}({', '.join(_told(one, inside) for one in value.co_consts)})"
    if isinstance(value, (Tensor, np.ndarray)):
        array = value.detach().cpu().float().numpy() if isinstance(value, Tensor) else value
        return f"{array.dtype}{array.shape}{hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()}"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__}({', '.join(_told(one, inside) for one in value)})"
    if isinstance(value, (set, frozenset)):  # of texts, whose order is another in every process
        return f"{type(value).__name__}({', '.join(sorted(_told(one, inside) for one in value))})"
    if isinstance(value, dict):
        return f"dict({', '.join(f'{_told(k, inside)}: {_told(one, inside)}' for k, one in value.items())})"
    if isinstance(value, nn.Module):
        return f"{value!r}{_told(dict(value.state_dict()), inside)}"
    if isinstance(value, ModuleType):
        return value.__name__
    if isinstance(value, BuiltinFunctionType):
        return f"{value.__module__}.{value.__qualname__}"
    if not isinstance(value, FunctionType):
        return repr(value)
    if value in inside:
        return _name(value)
    code = value.__code__
    taken = {name: value.__globals__[name] for name in _names(code) if name in value.__globals__}
    for name, cell in zip(code.co_freevars, value.__closure__ or (), strict=True):
        try:
            taken[name] = cell.cell_contents
        except ValueError:  # it has no value yet
            continue
    taken |= {"defaults": value.__defaults__ or (), **(value.__kwdefaults__ or {})}
    told = ", ".join(f"{name}={_told(one, (*inside, value))}" for name, one in sorted(taken.items()))
    return f"{_told(code, inside)} with {told}"


def _names(code: CodeType) -> set[str]:
    """Every name that a function's code asks for, that of functions inside it, too."""
    inner = [_names(one) for one in code.co_consts if isinstance(one, CodeType)]
    return set(code.co_names).union(*inner)


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

"""One table of operations: a torch function, in whatever spelling, to its name, and its arguments by their places.

``torch.relu(input=x)``, ``x.relu()``, ``F.relu(x, inplace=True)`` and ``x.relu_()`` are one operation. LRP and Deep
SHAP read names and arguments here, so that neither knows of spellings.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.fx.operator_schemas import get_signature_for_torch_op

from ..passes.naming import spelled

#: elementwise activations: what of them can be written in place by a flag
FLAGGED = frozenset({
    "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "silu", "mish", "hardswish", "hardsigmoid", "hardtanh",
    "threshold",
})  # fmt: skip
#: one value in, one value out, and for LRP passed on as they are
ACTIVATIONS = FLAGGED | {
    "prelu", "rrelu", "gelu", "sigmoid", "tanh", "softplus", "softsign", "clamp", "clamp_min", "clamp_max", "clip",
    "logsigmoid",
}  # fmt: skip
_IN_PLACE = ("__iadd__", "__isub__", "__imul__", "__itruediv__")


def name_of(func: Any) -> str:
    """The operation's name, without the underscores of magic methods and of in-place twins."""
    return spelled(func).strip("_")


def positional(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same call with tensors that were given by name in their places, as far as no place is left empty.

    Numbers and flags stay named: some (``alpha`` of ``add``) have no place.
    """
    if not any(isinstance(value, (Tensor, list, tuple)) for value in kwargs.values()):
        return args, kwargs
    for parameters in _parameters(func):
        placed, rest = list(args), dict(kwargs)
        if len(placed) > len(parameters) or any(name not in parameters for name in rest):
            continue
        for name in parameters[len(placed) :]:
            value = rest.get(name)
            if not isinstance(value, Tensor) and not (
                isinstance(value, (list, tuple)) and any(isinstance(one, Tensor) for one in value)
            ):
                break
            placed.append(rest.pop(name))
        if placed:
            return tuple(placed), rest
    return args, kwargs


@lru_cache(maxsize=512)
def _parameters(func: Any) -> tuple[tuple[str, ...], ...]:
    """The names of the parameters, in order, of every spelling that the function has."""
    found: list[tuple[str, ...]] = []
    with suppress(TypeError, ValueError):
        found.append(tuple(inspect.signature(func).parameters))
    try:
        signatures = get_signature_for_torch_op(func) or []
    except (TypeError, ValueError, RuntimeError, AttributeError):
        signatures = []
    # schemas say self where Python says input
    found += [tuple("input" if n == "self" else n for n in one.parameters) for one in signatures]
    return tuple(found)


def in_place(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the call writes its result into its first argument."""
    spelling = spelled(func)
    if spelling in _IN_PLACE or (spelling.endswith("_") and not spelling.startswith("_")):
        return True
    return bool(kwargs.get("inplace", False)) or (spelling in FLAGGED and len(args) > 1 and args[-1] is True)


def norm_arguments(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a batch norm by their names: exported graphs give weight and bias before the statistics."""
    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    if isinstance(func, torch._ops.OpOverload) or func is torch.batch_norm:
        names = ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps")
    return {**dict(zip(names, args, strict=False)), **kwargs}


def aside(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    """The operation as a function of its first argument, which is never written to."""
    rest, named = args[1:], {k: v for k, v in kwargs.items() if k != "inplace"}
    if rest and rest[-1] is True and spelled(func) in FLAGGED:
        rest = (*rest[:-1], False)

    def apply(x: Tensor) -> Tensor:
        # a copy: the operation may be spelt in place
        return func(x * 1, *rest, **named)  # type: ignore[no-any-return]

    return apply

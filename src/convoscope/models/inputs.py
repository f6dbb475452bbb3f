"""Networks of several inputs: which one is explained, and what the others are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ..errors import UsageError
from .model import Model, wrap


def several(
    module: nn.Module, inputs: Sequence[Any] | Mapping[str, Any], *, explain: int | str | None = None, **settings: Any
) -> Model:
    """A network of several inputs as a :class:`Model` of one: the pictures are the input called ``explain``.

    ``inputs`` are the positional arguments (a sequence) or the named ones (a mapping) of ``module``. The explained
    one is ``None``, or named by ``explain`` (a position or a name); its own value then does not matter. The others
    are tensors with one row a picture, in the order of the pictures of a call, or with one row for all, or anything
    that is no tensor, which is handed over as it is. Settings are those of :func:`convoscope.wrap`.

    Raises :class:`UsageError` where it is not clear which one is meant; during a call, where rows are missing.
    """
    named = isinstance(inputs, Mapping)
    pairs: list[tuple[Any, Any]] = list(inputs.items()) if isinstance(inputs, Mapping) else list(enumerate(inputs))
    if explain is None:
        open_ones = [key for key, value in pairs if value is None]
        if len(open_ones) != 1:
            raise UsageError(
                f"{len(open_ones)} of the inputs are None: leave exactly one open, or say which is explained "
                "(explain=...)."
            )
        explain = open_ones[0]
    if explain not in [key for key, _ in pairs]:
        raise UsageError(f"There is no input {explain!r}: the inputs are {', '.join(str(key) for key, _ in pairs)}.")

    def call(network: nn.Module, x: Tensor, rows: Tensor) -> Any:
        given = [(key, x if key == explain else _rows(key, value, rows, x)) for key, value in pairs]
        return network(**dict(given)) if named else network(*(value for _, value in given))

    return wrap(module, call=call, **settings)


def _rows(key: Any, value: Any, rows: Tensor, like: Tensor) -> Any:
    if not isinstance(value, Tensor):
        return value
    value = value.to(like.device)
    if value.ndim == 0:
        return value
    if len(value) == 1:
        return value.expand(len(rows), *value.shape[1:])
    if int(rows.max()) >= len(value):
        raise UsageError(
            f"Input {key!r} has {len(value)} rows, but picture {int(rows.max()) + 1} is explained: give a row for each "
            "picture of the call, or one for all."
        )
    return value[rows.to(value.device)]


__all__ = ["several"]

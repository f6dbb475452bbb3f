"""Finds where a network cuts the gradient graph: detach, no_grad, ``.data``, operations that have no gradient.

What lies before a cut has no gradient although the score depends on it, so a map of gradients misses it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .relu_rules import nodes_of

#: they take a tensor for its shape and type alone
_NEW = {"zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "randint_like", "new_zeros",
        "new_ones", "new_empty", "new_full", "new_tensor", "size", "dim", "type", "result_type"}  # fmt: skip

#: they take their second tensor for its shape, type or device alone
_AS = {"type_as", "expand_as", "view_as", "reshape_as", "to"}


class Cuts(TorchFunctionMode):
    """Inside the block, ``joined`` becomes True when a value that lost its gradient meets the graph again."""

    def __init__(self) -> None:
        super().__init__()
        self.joined = False
        #: tensors without a gradient that were computed from such with one; kept, so that they can be known again
        self.loose: dict[int, Tensor] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if self.joined or getattr(func, "__name__", "") in _NEW:
            return out
        with torch._C.DisableTorchFunction():
            every = args[:1] if getattr(func, "__name__", "") in _AS else (*args, *kwargs.values())
            given = list(_floats(every))
            loose = any(id(one) in self.loose and not one.requires_grad for one in given)
            live = any(one.requires_grad and not isinstance(one, torch.nn.Parameter) for one in given)
            if loose or live:
                for one in _floats((out,)):
                    if not one.requires_grad:
                        self.loose[id(one)] = one
                    elif loose:
                        self.joined = True
                        self.loose.clear()
        return out

    def cut(self, output: Any) -> bool:
        """Whether something was cut that the output depends on."""
        if self.joined or any(id(one) in self.loose and not one.requires_grad for one in _floats((output,))):
            return True
        # quantised layers and operations of one's own look as if they had a gradient, and hand back nothing
        roots = [one.grad_fn for one in _floats((output,)) if one.grad_fn is not None]
        return any(node.name().endswith("NotImplemented") for node in nodes_of(roots))


def _floats(values: Any) -> Any:
    for value in values.values() if isinstance(values, dict) else values:
        if isinstance(value, Tensor):
            if value.is_floating_point():
                yield value
        elif isinstance(value, (list, tuple, dict)):
            yield from _floats(value)

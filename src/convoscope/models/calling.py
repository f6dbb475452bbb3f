"""How networks that do not take one batch tensor are run."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..errors import TargetError
from .outputs import element

Call = Callable[[nn.Module, Tensor, Tensor], Any]


def as_list(network: nn.Module, inputs: Tensor, rows: Tensor) -> Any:
    """``network([x0, x1, ...])``: torchvision's detectors take a list of pictures."""
    return network(list(inputs.unbind(0)))


@dataclass(frozen=True)
class Picked:
    """A call of which one element is meant: ``path`` through dictionaries, tuples and dataclasses, then columns."""

    path: str
    call: Call | None = None

    def __call__(self, network: nn.Module, inputs: Tensor, rows: Tensor) -> Any:
        output = network(inputs) if self.call is None else self.call(network, inputs, rows)
        value, left = element(output, self.path)
        for index in left:
            if not isinstance(value, Tensor) or value.ndim < 2 or index >= value.shape[1]:
                shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise TargetError(f"output {self.path}: there is no element {index} in {shape}.")
            value = value[:, index : index + 1]
        return value


def picking(call: Call | None, output: int | str | None) -> Call | None:
    """``call``, of whose answer the element ``output`` (a key or a number, dots between several) is meant."""
    return call if output is None else Picked(str(output), call)


def call_for(network: nn.Module) -> Call | None:
    """The call that fits the network; ``None`` for one that takes a batch."""
    if is_torchvision_detector(network):
        return as_list
    name = _only_by_name(network)
    return None if name is None else ByName(name)


@dataclass(frozen=True)
class ByName:
    """``network(name=batch)``: for a forward that takes its pictures by keyword alone."""

    name: str

    def __call__(self, network: nn.Module, inputs: Tensor, rows: Tensor) -> Any:
        return network(**{self.name: inputs})


def _only_by_name(network: nn.Module) -> str | None:
    """The keyword under which a forward without positional arguments takes its pictures; ``None`` for all others."""
    from ..engine.passes.untouched import innermost

    try:
        known = inspect.signature(innermost(network).forward).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(one.kind not in (one.KEYWORD_ONLY, one.VAR_KEYWORD) for one in known):
        return None
    named = [one for one in known if one.kind is one.KEYWORD_ONLY]
    needed = [one.name for one in named if one.default is one.empty]
    pictures = next(
        (one.name for one in named if one.name in ("pixel_values", "images", "image", "x", "input")), None
    )
    return pictures or (needed[0] if len(needed) == 1 else None)


def holds_detector(network: nn.Module) -> bool:
    """Whether the network is, or holds, one of torchvision's detectors."""
    return any(is_torchvision_detector(module) for module in network.modules())


def is_torchvision_detector(network: nn.Module) -> bool:
    """Whether this is one of torchvision's detection networks, or derived from one."""
    from ..engine.passes.untouched import innermost

    inner = innermost(network)
    known = any(kind.__module__.startswith("torchvision.models.detection.") for kind in type(inner).__mro__)
    return known and isinstance(getattr(inner, "backbone", None), nn.Module)


def normalises_itself(network: nn.Module) -> bool:
    """Whether the network takes pictures in 0..1 as they are: torchvision's detectors, ultralytics' networks."""
    from ..engine.passes.untouched import innermost

    inner = innermost(network)
    return holds_detector(inner) or type(inner).__module__.startswith("ultralytics.")

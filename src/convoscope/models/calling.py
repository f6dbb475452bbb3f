"""How networks that do not take one batch tensor are run."""

from __future__ import annotations

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
    return as_list if is_torchvision_detector(network) else None


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

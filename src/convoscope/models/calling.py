"""How networks that do not take one batch tensor are run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

Call = Callable[[nn.Module, Tensor, Tensor], Any]


def as_list(network: nn.Module, inputs: Tensor, rows: Tensor) -> Any:
    """``network([x0, x1, ...])``: torchvision's detectors take a list of pictures."""
    return network(list(inputs.unbind(0)))


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

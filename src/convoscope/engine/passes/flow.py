"""How a network's layers feed each other: one forward, and the graph that autograd recorded of it.

Branches, joins and skips are seen however they are written: by modules, by functions, in loops.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .naming import observe
from .untouched import untouched


@dataclass(frozen=True)
class Flow:
    """One layer and what feeds it.

    Args:
        name: the layer's name, the innermost where several name the same output.
        inputs: the layers whose outputs it gets, in the order of the forward; empty for those that get the picture.
        shape: of its output.
        also: further names of the same output (the blocks that end with it).
    """

    name: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    also: tuple[str, ...] = ()


def flow(network: nn.Module, inputs: Tensor, run: Any = None) -> list[Flow]:
    """The layers in the order of the forward, each with the layers that feed it.

    Layers that no gradient reaches (integers, detached parts) are left out.

    Args:
        network: left as it was.
        inputs: one batch.
        run: how the network is called, ``run(inputs)``; default ``network(inputs)``.
    """
    nodes: dict[Any, str] = {}
    order: list[tuple[str, Any, tuple[int, ...]]] = []
    also: dict[str, list[str]] = {}

    def visit(name: str, output: Any) -> None:
        if not isinstance(output, Tensor) or output.grad_fn is None:
            return
        node = output.grad_fn
        if node in nodes:
            also.setdefault(nodes[node], []).append(name)
        else:
            nodes[node] = name
            order.append((name, node, tuple(output.shape)))

    with untouched(network, gradients=True), observe(network, visit), torch.enable_grad():
        given = inputs.detach().clone().requires_grad_(True)
        (run or network)(given)
    found = []
    places = {name: at for at, (name, _, _) in enumerate(order)}
    for name, node, shape in order:
        feeding = sorted(set(_feeding(node, nodes)), key=lambda one: places[one])
        found.append(Flow(name, tuple(feeding), shape, tuple(also.get(name, ()))))
    return found


def _feeding(node: Any, named: dict[Any, str]) -> Iterator[str]:
    """The nearest named nodes that the outputs of ``node`` are computed from."""
    waiting = [one for one, _ in node.next_functions if one is not None]
    seen = set()
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        if one in named:
            yield named[one]
        else:
            waiting += [inner for inner, _ in one.next_functions if inner is not None]

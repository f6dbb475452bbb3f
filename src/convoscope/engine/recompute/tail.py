"""The rest of a network after one of its layers: what replacing that layer's output needs to compute again.

Ablation-CAM asks for the score with each of a layer's channels switched off: hundreds of forwards that differ only
behind the layer. On the exported graph everything before it is computed once.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from .incremental import ExportedGraph, NotIncremental
from .incremental.graph import counts_batch


class Tail:
    """Prepared for one network, one picture ``[1, C, H, W]`` and one layer, found by the ``value`` it has on it.

    Raises :class:`NotIncremental` where no node of the graph has the layer's value.
    """

    def __init__(self, network: nn.Module, graph: ExportedGraph, inputs: Tensor, value: Tensor) -> None:
        self.exported = graph
        self.values: dict[fx.Node, Any] = {}
        self.device = inputs.device
        placed = {name: _parameter(network, where) for name, where in graph.lifted.items()}
        found: fx.Node | None = None
        with torch.inference_mode():
            for node in graph.graph.nodes:
                if node.op == "output":
                    continue
                self.values[node] = self._value(node, placed, inputs)
                # the first node that has the layer's value: what only passes it on comes later
                if found is None and node.op == "call_function" and _equal(self.values[node], value):
                    found = node
        if found is None:
            raise NotIncremental("the layer's output is not to be found in the exported graph")
        self.layer = found
        self.varying = _behind(graph.graph, found)
        self.pictured = _of_picture(graph)
        read = {source for node in self.varying for source in node.all_input_nodes}
        by_name = {node.name: node for node in graph.graph.nodes}
        self._outputs = [by_name[name] if name is not None else None for name in graph.outputs]
        kept = read | {node for node in self._outputs if node is not None}
        self.values = {node: self.values[node] for node in kept if node in self.values}

    def _value(self, node: fx.Node, placed: dict[str, Tensor], inputs: Tensor) -> Any:
        if node.op == "placeholder":
            if node.name == self.exported.input:
                return inputs
            return placed[node.name] if node.name in placed else self.exported.constants.get(node.name)
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(self.exported.owner)
        args, kwargs = fx.map_arg(node.args, self.values.get), fx.map_arg(node.kwargs, self.values.get)
        return node.target(*args, **kwargs)  # type: ignore[operator]

    def outputs(self, replaced: Tensor) -> Any:
        """The network's output with the layer's output replaced by each of ``replaced`` ``[M, ...]``."""
        count = len(replaced)
        values: dict[fx.Node, Any] = {self.layer: replaced}

        def look(node: fx.Node) -> Any:
            if node in values:
                return values[node]
            value = self.values[node]
            own = node in self.pictured and isinstance(value, Tensor) and value.dim() > 0 and len(value) == 1
            # what branches past the layer is the same for all replacements
            return value.expand(count, *value.shape[1:]) if own else value

        with torch.inference_mode():
            for node in self.exported.graph.nodes:
                if node not in self.varying or node is self.layer:
                    continue
                args, kwargs = fx.map_arg(node.args, look), fx.map_arg(node.kwargs, look)
                values[node] = node.target(*args, **kwargs)
        leaves = [None if node is None else look(node) for node in self._outputs]
        return pytree.tree_unflatten(leaves, self.exported.spec)


def _parameter(network: nn.Module, name: str) -> Tensor:
    path, _, leaf = name.rpartition(".")
    value: Tensor = getattr(network.get_submodule(path), leaf)
    return value.detach()


def _equal(ours: Any, value: Tensor) -> bool:
    if not isinstance(ours, Tensor) or ours.shape != value.shape or ours.dtype != value.dtype:
        return False
    size = float(value.abs().nan_to_num(0, 0, 0).max())
    return bool(torch.allclose(ours, value, rtol=1e-4, atol=1e-5 * size, equal_nan=True))


def _behind(graph: fx.Graph, layer: fx.Node) -> set[fx.Node]:
    """The layer, all that depends on it, and every count of the batch, which is another one now."""
    found = {layer}
    for node in graph.nodes:
        batch = counts_batch(node) and _index(node) == 0
        if node.op == "call_function" and (batch or any(source in found for source in node.all_input_nodes)):
            found.add(node)
    return found


def _index(node: fx.Node) -> Any:
    return node.args[1] if len(node.args) > 1 else 0


def _of_picture(exported: ExportedGraph) -> set[fx.Node]:
    """The nodes computed from the picture (and so with the batch first), not from weights alone."""
    found: set[fx.Node] = set()
    for node in exported.graph.nodes:
        if node.name == exported.input or any(source in found for source in node.all_input_nodes):
            found.add(node)
    return found

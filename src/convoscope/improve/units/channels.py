"""Which unit makes which channel: followed through the network's graph from its maker to its readers.

A *unit* here is one output channel of a convolution or linear layer. Batch norm, activations, pooling, dropout and
depthwise convolutions keep it a channel; concatenation puts it beside others; flattening spreads it over several
features. Where its channel is added to another, multiplied by a gate, or returned, it cannot be taken out alone:
it is *pinned*, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from ...engine.recompute.incremental.graph import ExportedGraph

Ints = NDArray[np.int64]

_CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d", "convolution"})
_NORMS = frozenset({"batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "native_batch_norm"})
_POINTWISE = frozenset({
    "relu", "relu_", "relu6", "hardtanh", "clamp", "clamp_min", "threshold", "leaky_relu", "elu", "selu", "celu",
    "gelu", "silu", "mish", "hardswish", "hardsigmoid", "sigmoid", "tanh", "softplus", "clone", "contiguous", "alias",
    "detach", "dropout", "feature_dropout", "_to_copy", "to", "abs", "square", "neg", "exp",
})  # fmt: skip
_POOLS = frozenset({
    f"{way}{kind}_pool{n}d{end}"
    for way in ("", "adaptive_") for kind in ("max", "avg") for n in (1, 2, 3) for end in ("", "_with_indices")
})  # fmt: skip
_RESHAPES = frozenset({"flatten", "view", "reshape", "_unsafe_view"})


def operation(node: fx.Node) -> str:
    """``conv2d`` for ``aten.conv2d.default``; the function's own name for others."""
    schema = getattr(node.target, "_schema", None)
    return str(schema.name).split("::")[1] if schema is not None else getattr(node.target, "__name__", "")


@dataclass(eq=False)
class Weighted:
    """A convolution or linear layer with weights of its own.

    ``made`` are the units it makes, ``read`` the unit (or -1) behind each of its input channels; ``source`` is where
    these can be looked at before flattening.
    """

    node: fx.Node
    name: str
    weight: str
    bias: str | None
    made: Ints
    read: Ints | None = None
    source: fx.Node | None = None


@dataclass(eq=False)
class Rows:
    """Parameters and buffers with one row a channel (batch norm, depthwise kernels), and the units behind them."""

    names: tuple[str, ...]
    units: Ints


@dataclass(eq=False)
class Channels:
    """The units of one network, where they come from and where they go."""

    graph: ExportedGraph
    weighted: list[Weighted] = field(default_factory=list)
    rows: list[Rows] = field(default_factory=list)
    pinned: dict[int, str] = field(default_factory=dict)
    #: unit -> (index into ``weighted``, its channel there)
    units: list[tuple[int, int]] = field(default_factory=list)
    #: node -> the unit behind each channel at dimension 1
    behind: dict[fx.Node, Ints] = field(default_factory=dict)

    def name(self, unit: int) -> str:
        """``layer:channel``."""
        at, channel = self.units[unit]
        return f"{self.weighted[at].name}:{channel}"

    def sources(self) -> list[fx.Node]:
        """The nodes whose values the readers read, before flattening; each once, in order."""
        return list(dict.fromkeys(one.source for one in self.weighted if one.source is not None))

    def readers(self) -> dict[int, list[fx.Node]]:
        """For each unit the sources where it is read, one entry a reader."""
        found: dict[int, list[fx.Node]] = {}
        for one in self.weighted:
            if one.source is not None and one.read is not None:
                for unit in np.unique(one.read[one.read >= 0]):
                    found.setdefault(int(unit), []).append(one.source)
        return found


def follow(graph: ExportedGraph, state: dict[str, Tensor]) -> Channels:
    """Follow every unit of ``graph`` from its maker to its readers.

    Args:
        graph: of the network, in evaluation mode.
        state: the network's parameters and buffers by name.
    """
    found = Channels(graph)
    before: dict[fx.Node, tuple[fx.Node, int]] = {}
    for node in graph.graph.nodes:
        if node.op == "output":
            for source in node.all_input_nodes:
                _pin(found, source, "the network returns it")
            continue
        if node.op != "call_function" or not node.all_input_nodes:
            continue
        done = _layer(found, node, state, before) or _keeps(found, node, state, before)
        if not done:
            word = operation(node)
            if word not in ("sym_size", "sym_numel"):
                for source in node.all_input_nodes:
                    _pin(found, source, _WHY.get(word, f"{word} reads it"))
    return found


_WHY = {"add": "it is added to another channel", "mul": "it is multiplied by a gate"}


def _pin(found: Channels, node: fx.Node, why: str) -> None:
    for unit in np.unique(found.behind.get(node, np.zeros(0, np.int64))):
        if unit >= 0:
            found.pinned.setdefault(int(unit), why)


def _own(found: Channels, node: Any) -> str | None:
    """The name of a parameter or buffer that no other node uses; None for everything else."""
    if not isinstance(node, fx.Node) or node.op != "placeholder" or len(node.users) != 1:
        return None
    return found.graph.lifted.get(node.name)


def _shape(node: fx.Node) -> tuple[int, ...]:
    """The shape of a node's value without the batch; empty where it has none."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or value.dim() < 2:
        return ()
    try:
        return tuple(int(side) for side in value.shape[1:])
    except Exception:  # a side that depends on the batch
        return ()


def _layer(
    found: Channels, node: fx.Node, state: dict[str, Tensor], before: dict[fx.Node, tuple[fx.Node, int]]
) -> bool:
    """Take ``node`` as a weighted layer, or as a depthwise convolution; False where it is neither."""
    word = operation(node)
    if word not in _CONVOLUTIONS and word != "linear":
        return False
    source, bias = node.args[0], node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
    weight, offset = _own(found, node.args[1]), _own(found, bias)
    if weight is None or (bias is not None and offset is None) or not isinstance(source, fx.Node):
        return False
    value = state[weight]
    groups = 1
    if word == "convolution":
        groups = int(node.args[8])  # type: ignore[arg-type]
        if node.args[6]:  # transposed: its weights lie the other way round
            return False
    elif word != "linear":
        given = node.args[6] if len(node.args) > 6 else node.kwargs.get("groups", 1)
        groups = int(given)  # type: ignore[arg-type]
    behind = found.behind.get(source)
    if groups > 1:
        if behind is None or groups != len(behind) or value.shape[0] != groups or value.shape[1] != 1:
            return False
        found.rows.append(Rows(tuple(n for n in (weight, offset) if n), behind))
        found.behind[node] = behind
        return True
    shape = _shape(source)
    if word == "linear" and len(shape) != 1:
        return False
    start = len(found.units)
    found.units.extend((len(found.weighted), channel) for channel in range(value.shape[0]))
    made = np.arange(start, len(found.units))
    one = Weighted(node, weight.removesuffix(".weight"), weight, offset, made)
    if behind is not None and len(behind) == value.shape[1]:
        one.read, one.source = behind, before.get(source, (source, 1))[0]
    else:
        _pin(found, source, "its reader cannot be followed")
    found.weighted.append(one)
    found.behind[node] = made
    return True


def _keeps(
    found: Channels, node: fx.Node, state: dict[str, Tensor], before: dict[fx.Node, tuple[fx.Node, int]]
) -> bool:
    """Pass units on through an operation that keeps channels apart; False where it does not."""
    word, source = operation(node), node.args[0] if node.args else None
    if word == "cat":
        dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        parts = list(source) if isinstance(source, (list, tuple)) else []
        if dim != 1 or not all(isinstance(part, fx.Node) for part in parts):
            return False
        arrays = []
        for part in parts:
            shape = _shape(part)
            if not shape:
                return False
            arrays.append(found.behind.get(part, np.full(shape[0], -1, np.int64)))
        found.behind[node] = np.concatenate(arrays)
        return True
    if not isinstance(source, fx.Node):
        return False
    behind = found.behind.get(source)
    if behind is None:
        # nothing to keep track of, and nothing that could be pinned
        return all(found.behind.get(other) is None for other in node.all_input_nodes)
    if word == "getitem":
        if node.args[1] == 0:
            found.behind[node] = behind
        return bool(node.args[1] == 0)
    if word in _NORMS:
        names = [_own(found, one) for one in node.args[1:5]]
        given = [one for one in node.args[1:5] if one is not None]
        if len([name for name in names if name]) != len(given) or len(behind) != len(state[str(names[-1])]):
            return False
        found.rows.append(Rows(tuple(name for name in names if name), behind))
        found.behind[node] = behind
        return True
    if word in _POINTWISE or word in _POOLS:
        if [one for one in node.all_input_nodes if one in found.behind] != [source]:
            return False
        found.behind[node] = behind
        if source in before:
            before[node] = (node, 1) if word in _POINTWISE else before[source]
        return True
    if word == "mean":
        dims = node.args[1] if len(node.args) > 1 else None
        rank = len(_shape(source)) + 1
        if not isinstance(dims, (list, tuple)) or any(dim % rank < 2 for dim in dims):  # type: ignore[operator]
            return False
        found.behind[node] = behind
        return True
    if word in _RESHAPES:
        shape, flat = _shape(source), _shape(node)
        if len(flat) != 1 or not shape or shape[0] != len(behind) or flat[0] != int(np.prod(shape)):
            return False
        repeat = flat[0] // shape[0]
        found.behind[node] = np.repeat(behind, repeat)
        before[node] = (source, repeat)
        return True
    return False


def run(
    graph: ExportedGraph, network: nn.Module, inputs: Tensor, visit: Callable[[fx.Node, Tensor], None]
) -> Tensor | None:
    """Run the graph on ``inputs`` and show ``visit`` every node's tensor; the first output.

    The caller protects the network and has switched gradients off.
    """
    state = dict(network.state_dict(keep_vars=True))
    values: dict[fx.Node, Any] = {}
    last = {source: node for node in graph.graph.nodes for source in node.all_input_nodes}
    out: Tensor | None = None
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            name = graph.lifted.get(node.name)
            values[node] = inputs if node.name == graph.input else state[name] if name else graph.constants[node.name]
        elif node.op == "get_attr":
            values[node] = _attribute(graph.owner, str(node.target))
        elif node.op == "call_function":
            arguments = fx.node.map_arg(node.args, values.__getitem__)
            named = fx.node.map_arg(node.kwargs, values.__getitem__)
            values[node] = node.target(*arguments, **named)  # type: ignore[operator]
            if isinstance(values[node], Tensor):
                visit(node, values[node])
        if node.op == "output":
            first = next(_nodes(node.args), None)
            out = values[first] if first is not None else None
        else:
            for source in node.all_input_nodes:
                if last[source] is node:
                    values.pop(source, None)
    return out if isinstance(out, Tensor) else None


def _nodes(argument: Any) -> Iterator[fx.Node]:
    if isinstance(argument, fx.Node):
        yield argument
    elif isinstance(argument, (list, tuple)):
        for one in argument:
            yield from _nodes(one)


def _attribute(owner: Any, path: str) -> Any:
    for part in path.split("."):
        owner = getattr(owner, part)
    return owner


def multiply_adds(found: Channels, gone: frozenset[int] = frozenset()) -> int:
    """Multiply-adds of one picture in all convolutions and linear layers, without the units that are ``gone``."""
    total = 0
    state = {id(one.node): one for one in found.weighted}
    for node in found.graph.graph.nodes:
        word = operation(node) if node.op == "call_function" else ""
        if word not in _CONVOLUTIONS and word != "linear":
            continue
        shape = _shape(node)
        weight = node.args[1].meta.get("val") if isinstance(node.args[1], fx.Node) else None
        if not shape or weight is None:
            continue
        inner = int(torch.tensor(weight.shape[1:]).prod())
        cells = int(np.prod(shape)) // (shape[0] if word != "linear" else shape[-1])
        one = state.get(id(node))
        made = shape[0] if word != "linear" else shape[-1]
        if one is not None:
            made -= sum(int(unit) in gone for unit in one.made)
            if one.read is not None:
                inner = inner // len(one.read) * sum(int(unit) not in gone for unit in one.read)
        elif node in found.behind:  # depthwise
            made -= sum(int(unit) in gone for unit in found.behind[node])
        total += cells * made * inner
    return total

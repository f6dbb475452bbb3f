"""The graph of an ordinary network from two forwards without values, in a hundredth of the time of an export.

``torch.export`` loads torch's compiler (more than a second of processor time) and traces with symbols. An ordinary
convolutional network needs neither: it is run twice on the ``meta`` device, where tensors have shapes and no values,
with two pictures and with three. What differs between the two lists of operations is the batch size. Anything that is
not understood here (an operation that is not on the list, a tensor from elsewhere, a value that decides, sizes that do
not grow with the batch) ends it, and the network is exported instead.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from convoscope.engine.recompute.incremental.graph import ExportedGraph, make_functional

aten = torch.ops.aten

#: what may be done to a value of the picture, by the operation's name without its overload; ``relu_`` as ``relu``
_KNOWN = frozenset(
    {
        "convolution", "native_batch_norm", "relu", "hardtanh", "hardsigmoid", "hardswish", "silu", "sigmoid",
        "tanh", "gelu", "elu", "leaky_relu", "mish", "softplus", "clamp", "clamp_min", "clamp_max", "add", "sub",
        "mul", "div", "neg", "exp", "sqrt", "rsqrt", "pow", "abs", "cat", "max_pool2d_with_indices", "avg_pool2d",
        "_adaptive_avg_pool2d", "mean", "amax", "sum", "view", "_unsafe_view", "permute", "transpose", "slice",
        "select", "squeeze", "unsqueeze", "expand", "split", "split_with_sizes", "addmm", "native_layer_norm",
        "_softmax", "_log_softmax", "clone", "detach", "alias", "constant_pad_nd",
    }
)  # fmt: skip
#: operations that may be told the batch size: it is a side of their result
_SHAPED = frozenset({"view", "_unsafe_view", "expand"})
#: the two batch sizes: every size that depends on the batch is a multiple of it in both
_FEW, _MORE = 2, 3


class NotRecorded(Exception):
    """This network is not ordinary enough; the reason is told to nobody, since it is exported instead."""


class _Step:
    """One operation: its values by their numbers, and the shapes of what it gave."""

    def __init__(
        self, operation: Any, args: Any, kwargs: Any, results: list[tuple[int, tuple[int, ...], Any]]
    ) -> None:
        self.operation, self.args, self.kwargs, self.results = operation, args, kwargs, results


class _Value:
    """A tensor among the arguments: the number under which it was made, or the parameter's name."""

    def __init__(self, known: int | str) -> None:
        self.known = known

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Value) and self.known == other.known

    __hash__ = None  # type: ignore[assignment]


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down every operation on the picture and on the network's parameters."""

    def __init__(self, names: dict[int, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names, self.steps = names, list[_Step]()
        self.numbers: dict[int, int] = {}
        #: of each value, whether it depends on the picture
        self.varies: dict[int | str, bool] = {}
        #: kept alive, so that no number is given twice
        self.alive: list[Tensor] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch loads the compiler, more than a second, to keep it away from this class

    def adopt(self, tensor: Tensor, varies: bool) -> int:
        """A new number for this tensor's value."""
        number = len(self.alive)
        self.alive.append(tensor)
        self.numbers[id(tensor)] = number
        self.varies[number] = varies
        return number

    def value(self, tensor: Tensor) -> _Value:
        """What an argument stands for."""
        number = self.numbers.get(id(tensor))
        if number is not None:
            return _Value(number)
        name = self.names.get(id(tensor))
        if name is None:
            raise NotRecorded("a tensor from elsewhere")
        return _Value(name)

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = operation._schema.name.removeprefix("aten::")
        if name == "empty" and list(args[0]) == [0]:  # batch norm's, which nobody reads
            return operation(*args, **{**kwargs, "device": "meta"})
        tensors = [one for one in pytree.tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        told = pytree.tree_map_only(Tensor, self.value, (args, kwargs))
        varies = any(self.varies.get(one.known, False) for one in pytree.tree_leaves(told) if isinstance(one, _Value))
        mutable = operation._schema.is_mutable
        if varies:
            if (name.removesuffix("_") if mutable else name) not in _KNOWN:
                raise NotRecorded(name)
        elif mutable or not tensors or torch.Tag.nondeterministic_seeded in operation.tags:
            raise NotRecorded(f"{name} on what does not depend on the picture")
        given, named = pytree.tree_map_only(Tensor, _without_values, (args, kwargs))
        shape = _SHAPES.get(str(operation))
        if shape is not None:
            result = shape(*given, **named)
        elif torch.Tag.pointwise in operation.tags or name.removesuffix("_") in _UNTAGGED:
            result = given[0] if mutable else _elementwise(*given)
        else:
            result = operation(*given, **named)
        results = result if isinstance(result, (tuple, list)) else [result]
        made = [(self.adopt(one, varies), tuple(one.shape), one.dtype) for one in results if isinstance(one, Tensor)]
        self.steps.append(_Step(operation, told[0], told[1], made))
        return result


def _without_values(tensor: Tensor) -> Tensor:
    return tensor if tensor.device.type == "meta" else tensor.detach().to("meta")


# What torch has no compiled rule of shapes for (its own in Python load the compiler) is little and known.


def _elementwise(*given: Any) -> Tensor:
    operands: list[Any] = [
        one for one in given if isinstance(one, (Tensor, int, float)) and not isinstance(one, bool)
    ]
    tensors = [one for one in operands if isinstance(one, Tensor)]
    kind = torch.result_type(operands[0], operands[1]) if len(operands) > 1 else tensors[0].dtype
    shape = torch.broadcast_shapes(*[one.shape for one in tensors])  # type: ignore[no-untyped-call]
    if not kind.is_floating_point:
        raise NotRecorded("arithmetic on integers")
    return torch.empty(shape, dtype=kind, device="meta")


def _normed(source: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(source), source.new_empty(0), source.new_empty(0)


def _mean(source: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    return source.sum(dim, keepdim)


def _addmm(bias: Tensor, source: Tensor, weight: Tensor) -> Tensor:
    return source.new_empty(source.shape[0], weight.shape[1])


def _cat(tensors: list[Tensor], dim: int = 0) -> Tensor:
    if len({one.ndim for one in tensors}) > 1 or len({one.dtype for one in tensors}) > 1:
        raise NotRecorded("values of other kinds laid together")
    shape = list(tensors[0].shape)
    shape[dim] = sum(one.shape[dim] for one in tensors)
    return tensors[0].new_empty(shape)


#: elementwise, and without the tag until torch 2.7
_UNTAGGED = ("hardtanh", "leaky_relu", "elu", "selu", "celu", "hardsigmoid")
_SHAPES: dict[str, Callable[..., Any]] = {
    "aten.native_batch_norm.default": _normed,
    "aten.native_layer_norm.default": _normed,
    "aten.mean.dim": _mean,
    "aten.addmm.default": _addmm,
    "aten.cat.default": _cat,
    "aten._log_softmax.default": lambda source, *_: torch.empty_like(source),
}


def record(network: nn.Module, example: Tensor) -> ExportedGraph | None:
    """The graph of ``network`` for pictures like ``example`` [1, C, H, W]; ``None`` where it must be exported.

    The network must be in evaluation mode, and its state is protected by whoever asks.
    """
    try:
        with torch.no_grad():
            return _graph(network, example, _run(network, example, _FEW), _run(network, example, _MORE))
    except Exception:  # whatever a network makes of tensors without values: torch.export has better ways
        return None


def _run(network: nn.Module, example: Tensor, batch: int) -> tuple[_Recorder, Any, Any]:
    """One forward: its operations, its output's leaves (values as :class:`_Value`) and their structure."""
    names = {id(tensor): name for name, tensor in (*network.named_parameters(), *network.named_buffers())}
    recorder = _Recorder(names)
    picture = torch.empty((batch, *example.shape[1:]), dtype=example.dtype, device="meta")
    recorder.adopt(picture, varies=True)
    with recorder:
        output = network(picture)
    leaves, spec = pytree.tree_flatten(output)
    return recorder, [recorder.value(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves], spec


class _Builder:
    """Two recordings made into one graph that is free in the batch size."""

    def __init__(self) -> None:
        self.graph = fx.Graph()
        self.nodes: dict[int, fx.Node] = {}
        self.lifted: dict[str, str] = {}
        self.parameters: dict[str, fx.Node] = {}
        self.sizes: dict[int, fx.Node] = {}
        self.picture = self.graph.placeholder("picture")
        self.nodes[0] = self.picture

    def batch(self, times: int) -> fx.Node:
        """The node that gives ``times`` the batch size."""
        if times not in self.sizes:
            if times == 1:
                self.sizes[1] = self.graph.call_function(aten.sym_size.int, (self.picture, 0))
            else:
                self.sizes[times] = self.graph.call_function(operator.mul, (self.batch(1), times))
        return self.sizes[times]

    def merged(self, few: Any, more: Any, shaped: bool = False) -> Any:
        """An argument of both recordings as one; ``shaped`` where it may hold the batch size."""
        if isinstance(few, (list, tuple)):
            if type(few) is not type(more) or len(few) != len(more):
                raise NotRecorded("two lists of other lengths")
            return type(few)(self.merged(one, other, shaped) for one, other in zip(few, more, strict=True))
        if isinstance(few, dict):
            return {name: self.merged(one, more[name], shaped) for name, one in few.items()}
        if isinstance(few, _Value):
            if few != more:
                raise NotRecorded("other operands")
            return self.nodes[few.known] if isinstance(few.known, int) else self.parameters[few.known]
        if shaped and type(few) is int and type(more) is int and few != more:
            times = few // _FEW
            if times < 1 or (few, more) != (times * _FEW, times * _MORE):
                raise NotRecorded("a size that is no multiple of the batch")
            return self.batch(times)
        if type(few) is not type(more) or few != more or isinstance(few, torch.device):
            raise NotRecorded("an argument that is not the same")
        return few


def _graph(
    network: nn.Module, example: Tensor, few: tuple[_Recorder, Any, Any], more: tuple[_Recorder, Any, Any]
) -> ExportedGraph:
    steps, others = few[0].steps, more[0].steps
    if len(steps) != len(others) or str(few[2]) != str(more[2]):
        raise NotRecorded("other operations for another batch")
    builder = _Builder()
    used = {one.known for step in steps for one in pytree.tree_leaves((step.args, step.kwargs)) if _named(one)}
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if name in used:
            node = builder.graph.placeholder(f"p_{name.replace('.', '_')}")
            builder.parameters[name], builder.lifted[node.name] = node, name
            node.meta["val"] = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
    builder.picture.meta["val"] = torch.empty(example.shape, dtype=example.dtype, device="meta")
    for step, other in zip(steps, others, strict=True):
        if step.operation is not other.operation or [one[0] for one in step.results] != [
            one[0] for one in other.results
        ]:
            raise NotRecorded("other operations for another batch")
        shaped = step.operation._schema.name.removeprefix("aten::") in _SHAPED
        args, kwargs = (
            builder.merged(*both, shaped) for both in ((step.args, other.args), (step.kwargs, other.kwargs))
        )
        shapes = [_one(a[1], b[1]) for a, b in zip(step.results, other.results, strict=True)]
        _emit(builder, step, args, kwargs, shapes)
    leaves = [builder.merged(one, other) for one, other in zip(few[1], more[1], strict=True)]
    builder.graph.output(tuple(one for one in leaves if isinstance(one, fx.Node)))
    if not make_functional(builder.graph):
        raise NotRecorded("an operation in place whose old value is still read")
    last = next(iter(reversed(builder.graph.nodes)))
    names = iter(node.name for node in last.args[0])
    outputs = tuple(next(names) if isinstance(one, fx.Node) else None for one in leaves)
    literals = {place: one for place, one in enumerate(leaves) if not isinstance(one, fx.Node)}
    return ExportedGraph(
        builder.graph, builder.lifted, {}, builder.picture.name, outputs, few[2], tuple(example.shape[1:]), None,
        literals, origin="recorded",
    )  # fmt: skip


def _named(value: Any) -> bool:
    return isinstance(value, _Value) and isinstance(value.known, str)


def _one(few: tuple[int, ...], more: tuple[int, ...]) -> tuple[int, ...]:
    """A shape for one picture."""
    if len(few) != len(more) or few[1:] != more[1:]:
        raise NotRecorded("the batch is not the first side")
    return tuple(a if a == b else a // _FEW for a, b in zip(few, more, strict=True))


def _emit(
    builder: _Builder, step: _Step, args: tuple[Any, ...], kwargs: dict[str, Any], shapes: list[tuple[int, ...]]
) -> None:
    """Add the operation as ``torch.export`` would have written it, its results under their numbers."""
    plain = _PLAIN.get(str(step.operation))
    operation: Any = step.operation
    single = len(step.operation._schema.returns) == 1 and len(step.results) == 1
    if plain is not None:
        operation, args = plain(builder, args)
        kwargs, single = {}, True
    node = builder.graph.call_function(operation, args, kwargs)
    for place, ((number, _, dtype), shape) in enumerate(zip(step.results, shapes, strict=True)):
        if single and place:
            break  # a norm's statistics, a pool's places: whoever reads them finds no node, and exports
        result = node if single else builder.graph.call_function(operator.getitem, (node, place))
        result.meta["val"] = torch.empty(shape, dtype=dtype, device="meta")
        builder.nodes[number] = result


def _batch_norm(builder: _Builder, args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    source, weight, bias, mean, variance, training, momentum, epsilon = args
    if training or mean is None:
        raise NotRecorded("the statistics of the batch")
    return aten.batch_norm.default, (source, weight, bias, mean, variance, False, momentum, epsilon, False)


def _layer_norm(builder: _Builder, args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    return aten.layer_norm.default, (*args, False)


def _max_pool(builder: _Builder, args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    return aten.max_pool2d.default, args


def _pool(builder: _Builder, args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    return aten.adaptive_avg_pool2d.default, args


def _linear(builder: _Builder, args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """A linear layer of pooled values; one of every cell is written in ways that only an export tells apart."""
    bias, source, turned = args
    weight = turned.args[0] if turned.target is aten.t.default else None
    if weight not in builder.parameters.values() or bias not in builder.parameters.values():
        raise NotRecorded("a product of other things")
    cells = source.args[0] if source.target is aten.view.default else source
    if cells.meta["val"].ndim not in (2, 4) or source.meta["val"].shape[0] != 1:
        raise NotRecorded("a linear layer of every cell")
    return aten.linear.default, (source, weight, bias)


#: operations that are written otherwise below autograd than the tiles' rules know them
_PLAIN: dict[str, Callable[[_Builder, tuple[Any, ...]], tuple[Any, tuple[Any, ...]]]] = {
    "aten.native_batch_norm.default": _batch_norm,
    "aten.native_layer_norm.default": _layer_norm,
    "aten.max_pool2d_with_indices.default": _max_pool,
    "aten._adaptive_avg_pool2d.default": _pool,
    "aten.addmm.default": _linear,
}

"""An exported graph made into something that runs on tiles, with a network's present weights.

Batch norm is folded into the convolutions before it (in copies: the user's weights are never touched), identities
are gone, and everything that depends neither on the picture nor on the batch size is computed once.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from convoscope.engine.recompute.incremental.graph import ExportedGraph, NotIncremental, counts_batch
from convoscope.engine.recompute.incremental.layers import Affine, AvgPool, Conv, MaxPool

aten = torch.ops.aten

IDENTITIES = {
    "aten.dropout.default", "aten.dropout_.default", "aten.feature_dropout.default", "aten.alpha_dropout.default",
    "aten.clone.default", "aten.contiguous.default", "aten.detach.default", "aten.alias.default",
    "aten.lift_fresh_copy.default", "aten.detach_.default",
}  # fmt: skip
RANDOM = "it draws random numbers"
RELUS = ("aten.relu.default", "aten.relu_.default")
#: Operations that give numbers wherever they are given numbers. A division or a root may give NaN, which oneDNN's
#: convolution with a ReLU behind it turns into zero: none of its kind may come before such a convolution.
NUMBERS_TO_NUMBERS = {
    f"aten.{name}"
    for name in (
        "adaptive_avg_pool2d.default", "add.Scalar", "add.Tensor", "add_.Tensor", "addmm.default", "bmm.default",
        "cat.default", "clamp.default", "clamp_min.default", "constant_pad_nd.default", "elu.default", "elu_.default",
        "expand.default", "flatten.using_ints", "gelu.default", "hardsigmoid.default", "hardsigmoid_.default",
        "hardswish.default", "hardswish_.default", "hardtanh.default", "hardtanh_.default", "leaky_relu.default",
        "leaky_relu_.default", "linear.default", "matmul.default", "mean.dim", "mish.default", "mm.default",
        "mul.Scalar", "mul.Tensor", "mul_.Tensor", "neg.default", "pad.default", "permute.default", "prelu.default",
        "relu6.default", "relu6_.default", "reshape.default", "select.int", "sigmoid.default", "sigmoid_.default",
        "silu.default", "silu_.default", "slice.Tensor", "softmax.int", "_softmax.default", "squeeze.dim",
        "sub.Tensor", "tanh.default", "tanh_.default", "transpose.int", "unsqueeze.default",
        "upsample_bilinear2d.vec", "upsample_nearest2d.vec",
    )
} | set(RELUS)  # fmt: skip


class Program:
    """An executable, simplified copy of an :class:`ExportedGraph` with a network's present weights.

    ``nodes``: the nodes that depend on the picture or on the batch size, in order.
    ``constants``: node -> value of everything else. ``shapes``: node -> its shape for one picture.
    """

    def __init__(self, exported: ExportedGraph, network: nn.Module, device: torch.device, dtype: torch.dtype):
        self.graph = fx.Graph()
        mapping: dict[fx.Node, fx.Node] = {}
        result = self.graph.graph_copy(exported.graph, mapping)
        self.graph.output(result)
        placeholders = {node.name: node for node in mapping if node.op == "placeholder"}
        self.constants: dict[fx.Node, Any] = {}
        for name, node in placeholders.items():
            if name in exported.lifted:
                self.constants[mapping[node]] = _lookup(network, exported.lifted[name])
            elif name in exported.constants:
                self.constants[mapping[node]] = exported.constants[name]
        for node in mapping.values():
            if node.op == "get_attr":
                self.constants[node] = operator.attrgetter(str(node.target))(exported.owner)
        self.input = mapping[placeholders[exported.input]]
        by_name = {old.name: new for old, new in mapping.items()}
        self.outputs = [by_name[name] if name is not None else None for name in exported.outputs]
        self.spec, self.literals = exported.spec, exported.literals  # type: ignore[attr-defined]
        self._redirect: dict[fx.Node, fx.Node] = {}
        #: See :meth:`lower`.
        self.low: torch.dtype | None = None
        self.precise: set[fx.Node] = set()
        with torch.inference_mode():
            self._fold_constants(device)
            self._check()
            self._lower(dtype)
            self._sweep()
            self._fuse_batch_norm()
            self._sweep()
            self._fuse_relu()
        self._sweep()

    def _fold_constants(self, device: torch.device) -> None:
        """Compute what depends neither on the picture nor on the batch size (weight standardisation, masks)."""
        for node in self.graph.nodes:
            if node.op != "call_function" or node in self.constants:
                continue
            if all(source in self.constants for source in node.all_input_nodes):
                args, kwargs = self.fill(node, self.constants.__getitem__)
                self.constants[node] = node.target(*args, **kwargs)

    @staticmethod
    def fill(node: fx.Node, value: Callable[[fx.Node], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The node's arguments with every node replaced by its value."""
        args = fx.map_arg(node.args, value)
        kwargs = fx.map_arg(node.kwargs, value)
        return args, dict(kwargs)

    def call(self, node: fx.Node, value: Callable[[fx.Node], Any], target: Any = None) -> Any:
        """Run the node's operation (or ``target`` in its place) on the values of its inputs."""
        if self.low is not None:
            wanted = torch.float32 if node in self.precise else self.low
            given = value

            def value(source: fx.Node) -> Any:
                found = given(source)
                mixed = isinstance(found, Tensor) and found.dtype in (torch.float32, self.low)
                return found.to(wanted) if mixed else found

        args, kwargs = self.fill(node, value)
        run: Any = node.target if target is None else target
        return run(*args, **kwargs)

    def lower(self, low: torch.dtype, grids: set[fx.Node]) -> None:
        """Compute in less precision up to the last of ``grids``; what follows (pooling, head) stays float32."""
        before: set[fx.Node] = set()
        for node in reversed(self.nodes):
            if node in grids or node in before:
                before.add(node)
                before.update(node.all_input_nodes)
        self.low, self.precise = low, set(self.nodes) - before
        for node in before:
            if isinstance(node.target, Conv | Affine):
                node.target = node.target.to(low)
        for node, value in self.constants.items():
            if isinstance(value, Tensor) and value.dtype == torch.float32 and node in before:
                self.constants[node] = value.to(low)

    def _check(self) -> None:
        for node in self.graph.nodes:
            if node.op != "call_function" or node in self.constants:
                continue
            tags = getattr(node.target, "tags", ())
            name = str(node.target)
            if "dropout" in name:
                training = node.args[2] if len(node.args) > 2 else node.kwargs.get("train", True)
                if training:
                    raise NotIncremental(f"{name} is active: {RANDOM}; the network is not in evaluation mode")
            elif torch.Tag.nondeterministic_seeded in tags:
                schema = getattr(node.target, "_schema", None)
                given = schema is not None and any("dropout" in arg.name for arg in schema.arguments)
                if not given:
                    raise NotIncremental(f"the network uses {name}: {RANDOM}")
            if name == "aten.batch_norm.default" and node.args[5]:
                raise NotIncremental("a batch norm uses the statistics of the batch, which mixes the windows")
            if name in ("aten.native_batch_norm.default", "aten._native_batch_norm_legit.default",
                        "aten._native_batch_norm_legit.no_stats"):  # fmt: skip
                raise NotIncremental("a batch norm uses the statistics of the batch, which mixes the windows")

    def _lower(self, dtype: torch.dtype) -> None:
        """Replace operations of many spellings by one of ours, and drop identities."""
        for node in list(self.graph.nodes):
            if node.op != "call_function" or node in self.constants:
                continue
            name = str(node.target)
            if name in IDENTITIES or (name == "aten.to.dtype" and node.args[1] == dtype and self._floats(node)):
                self._replace(node, node.args[0])
            elif name in ("aten.view.default", "aten._unsafe_view.default"):
                # Tiles and channels_last maps have other strides than the maps of the export.
                node.target = aten.reshape.default
            elif name in ("aten.conv2d.default", "aten.conv2d.padding", "aten.convolution.default"):
                self._lower_conv(node, name)
            elif name in ("aten.batch_norm.default", "aten._native_batch_norm_legit_no_training.default"):
                self._lower_batch_norm(node)
            elif name == "aten.max_pool2d.default":
                source, *rest = self._arguments(node)
                self._become(node, MaxPool.of(*rest), source)
            elif name == "aten.max_pool2d_with_indices.default":
                if all(user.target is operator.getitem and user.args[1] == 0 for user in node.users):
                    source, *rest = self._arguments(node)
                    self._single_result(node)
                    self._become(node, MaxPool.of(*rest), source)
            elif name == "aten.avg_pool2d.default":
                source, *rest = self._arguments(node)
                self._become(node, AvgPool.of(*rest), source)
            elif name in ("aten.split.Tensor", "aten.split_with_sizes.default", "aten.chunk.default"):
                self._lower_split(node, name)

    def _floats(self, node: fx.Node) -> bool:
        """Whether the node's input has the network's own dtype already (known for plain chains only)."""
        value = node.args[0].meta.get("val") if isinstance(node.args[0], fx.Node) else None
        return isinstance(value, Tensor) and value.dtype == node.args[1]

    def _arguments(self, node: fx.Node) -> list[Any]:
        """All arguments in the schema's order, defaults filled in."""
        schema = node.target._schema  # type: ignore[union-attr]
        values = []
        for index, argument in enumerate(schema.arguments):
            if index < len(node.args):
                values.append(node.args[index])
            else:
                values.append(node.kwargs.get(argument.name, argument.default_value))
        return values

    def _become(self, node: fx.Node, call: Callable[..., Any], source: Any) -> None:
        node.target = call
        node.args = (source,)
        node.kwargs = {}

    def _replace(self, node: fx.Node, by: Any) -> None:
        node.replace_all_uses_with(by)
        self.outputs = [by if out is node else out for out in self.outputs]

    def _single_result(self, node: fx.Node) -> None:
        """The node gives the first of its results alone from now on."""
        for user in list(node.users):
            node.meta = user.meta
            self._replace(user, node)

    def _lower_conv(self, node: fx.Node, name: str) -> None:
        values = self._arguments(node)
        if name == "aten.convolution.default":
            source, weight, bias, stride, padding, dilation, transposed, _, groups = values
            if transposed:
                return
        else:
            source, weight, bias, stride, padding, dilation, groups = values
        tensors = [item for item in (weight, bias) if isinstance(item, fx.Node)]
        if any(item not in self.constants for item in tensors) or source in self.constants:
            return
        weights = self.constants[weight]
        if weights.dim() != 4:
            return
        biases = None if bias is None else self.constants[bias]
        self._become(node, Conv.of(weights, biases, stride, padding, dilation, groups), source)

    def _lower_batch_norm(self, node: fx.Node) -> None:
        legit = str(node.target) != "aten.batch_norm.default"
        values = self._arguments(node)
        source, weight, bias, mean, variance = values[:5]
        epsilon = values[6 if legit else 7]
        tensors = [item for item in (weight, bias, mean, variance) if isinstance(item, fx.Node)]
        if any(item not in self.constants for item in tensors) or source in self.constants:
            return
        mean, variance = self.constants[mean].double(), self.constants[variance].double()
        scale = (variance + epsilon).rsqrt()
        if weight is not None:
            scale = scale * self.constants[weight].double()
        shift = -mean * scale
        if bias is not None:
            shift = shift + self.constants[bias].double()
        if legit:
            if not all(user.target is operator.getitem and user.args[1] == 0 for user in node.users):
                return
            self._single_result(node)
        self._become(node, Affine(scale, shift, self.constants[values[3]].dtype), source)

    def _lower_split(self, node: fx.Node, name: str) -> None:
        """``split`` and ``chunk`` become one slice per piece."""
        if not all(user.target is operator.getitem for user in node.users):
            return
        source, sizes, dim = self._arguments(node)
        if not all(isinstance(size, int) for size in (sizes if isinstance(sizes, list | tuple) else [sizes])):
            return
        meta = source.meta.get("val")
        if meta is None:
            return
        dim = dim % meta.dim()
        total = meta.shape[dim]
        if dim == 0 or not isinstance(total, int):
            return
        if name == "aten.chunk.default":
            sizes = -(-total // sizes)
        if isinstance(sizes, int):
            sizes = [min(sizes, total - start) for start in range(0, total, sizes)]
        starts = [sum(sizes[:index]) for index in range(len(sizes))]
        for user in list(node.users):
            index: Any = user.args[1]
            user.target = aten.slice.Tensor
            user.args = (source, dim, starts[index], starts[index] + sizes[index])

    def _fuse_batch_norm(self) -> None:
        """Fold every affine map that is the only reader of a convolution into that convolution."""
        for node in self.nodes:
            source = self._convolution_before(node) if isinstance(node.target, Affine) else None
            if source is not None:
                source.target = source.target.then(node.target)
                self._replace(node, source)

    def _fuse_relu(self) -> None:
        """A ReLU that is the only reader of a convolution becomes part of it, where no NaN could be lost."""
        numbers = {self.input}
        for node in self.nodes:
            if self._gives_numbers(node) and all(
                source in numbers or source in self.constants for source in node.all_input_nodes
            ):
                numbers.add(node)
            source = self._convolution_before(node) if str(node.target) in RELUS else None
            if source is not None and node in numbers:
                source.target = source.target.then_relu()
                self._replace(node, source)

    def _gives_numbers(self, node: fx.Node) -> bool:
        """Whether the node's result is free of NaN where all that it reads is."""
        if str(node.target) in ("aten.div.Tensor", "aten.div.Scalar", "aten.div_.Tensor"):
            divisor = node.args[1]
            value = self.constants.get(divisor) if isinstance(divisor, fx.Node) else divisor
            return value is not None and bool((torch.as_tensor(value) != 0).all())
        ours = isinstance(node.target, Conv | Affine | MaxPool | AvgPool)
        return ours or counts_batch(node) or str(node.target) in NUMBERS_TO_NUMBERS

    def _convolution_before(self, node: fx.Node) -> Any:
        """The node of the convolution of which this node is the only reader, or ``None``."""
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node) or not isinstance(source.target, Conv) or source.target.rectified:
            return None
        return source if self.users[source] == [node] and source not in self.outputs else None

    def _sweep(self) -> None:
        """Keep what leads to an output."""
        needed: set[fx.Node] = set()
        stack = [out for out in self.outputs if out is not None]
        while stack:
            node = stack.pop()
            if node not in needed:
                needed.add(node)
                stack.extend(node.all_input_nodes)
        self.nodes = [
            node for node in self.graph.nodes
            if node in needed and node.op == "call_function" and node not in self.constants
        ]  # fmt: skip
        reads = {source for node in self.nodes for source in node.all_input_nodes} | needed
        self.constants = {node: value for node, value in self.constants.items() if node in reads}
        self.varying = {self.input}
        for node in self.nodes:
            # sym_size and arithmetic on it give batch sizes, not values of the picture.
            if not counts_batch(node) and any(source in self.varying for source in node.all_input_nodes):
                self.varying.add(node)
        self.users: dict[fx.Node, list[fx.Node]] = {node: [] for node in [self.input, *self.nodes, *self.constants]}
        for node in self.nodes:
            for source in node.all_input_nodes:
                self.users[source].append(node)

    def structure(self, values: list[Any]) -> Any:
        """The network's own output structure around the values of its output leaves."""
        return pytree.tree_unflatten(values, self.spec)


def _lookup(network: nn.Module, name: str) -> Tensor:
    """The parameter or buffer of that full name, detached; never copied."""
    path, _, leaf = name.rpartition(".")
    value = getattr(network.get_submodule(path), leaf)
    return value.detach()  # type: ignore[no-any-return]

"""The network as a functional ATen graph, free in the batch size; recorded once per (network, input shape)."""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from convoscope.errors import MethodRefused

aten = torch.ops.aten


class NotIncremental(MethodRefused):
    """The graph of this network cannot be had or trusted; the sentence says why. Go dense instead."""


@dataclass(frozen=True)
class ExportedGraph:
    """The functional ATen graph of one network for one input shape, free in the batch size.

    ``outputs``: names of the nodes of the output's leaves, None for leaves that are no tensors; those are in
    ``literals`` by their place. Holds names of parameters and buffers, not their values: those are read from the
    network each time a program is made of it, so that the graph may be cached while weights change.
    """

    graph: fx.Graph
    lifted: dict[str, str]
    constants: dict[str, Any]
    input: str
    outputs: tuple[str | None, ...]
    spec: Any
    shape: tuple[int, ...]
    owner: Any
    literals: dict[int, Any] = field(default_factory=dict)
    #: *exported* here, *recorded* here (:mod:`.recording`), or read from *disk* (:mod:`.saved`)
    origin: Literal["exported", "recorded", "disk"] = "exported"


def export(network: nn.Module, example: Tensor) -> ExportedGraph:
    """Record ``network`` on ``example`` [1, C, H, W] (its values do not matter).

    The network must be in evaluation mode. Raises :class:`NotIncremental` with the reason where
    ``torch.export`` refuses the network or fixes its batch size.
    """
    pair = example[:1].expand(2, *example.shape[1:]).contiguous()
    batch = torch.export.Dim("batch", min=1, max=1 << 20)
    try:
        # what cannot be exported is told in one sentence below: torch would print the whole graph besides
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(network, (pair,), dynamic_shapes=({0: batch},), strict=False)
            if not make_functional(program.graph):
                program = program.run_decompositions({})
    except Exception as error:  # torch.export raises whatever the network or its own passes raise
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise NotIncremental(f"the network's graph cannot be exported ({first[:160]})") from error
    signature = program.graph_signature
    if len(signature.user_inputs) != 1 or not isinstance(signature.user_inputs[0], str):
        raise NotIncremental("the exported graph has more than the picture as its input")
    lifted = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    constants: dict[str, Any] = {}
    for placeholder, name in getattr(signature, "inputs_to_lifted_tensor_constants", {}).items():
        constants[placeholder] = program.constants[name]
    leaves = [spec.arg for spec in signature.output_specs if "USER_OUTPUT" in str(spec.kind)]
    outputs = tuple(None if hasattr(leaf, "value") else leaf.name for leaf in leaves)
    literals = {index: leaf.value for index, leaf in enumerate(leaves) if hasattr(leaf, "value")}
    return ExportedGraph(
        program.graph, lifted, constants, signature.user_inputs[0],
        outputs, program.call_spec.out_spec, tuple(example.shape[1:]), program.graph_module, literals,
    )  # fmt: skip


def make_functional(graph: fx.Graph) -> bool:
    """Replace in-place operations by their functional twins where that is plainly right; say if it was.

    Much faster than PyTorch's own pass, which remains the way out when a view of an overwritten value is
    still read afterwards.
    """
    order = {node: index for index, node in enumerate(graph.nodes)}
    aliases: dict[fx.Node, set[fx.Node]] = {}
    for node in graph.nodes:
        aliases[node] = {node}
        if node.op != "call_function" or not hasattr(node.target, "_schema"):
            continue
        returned = node.target._schema.returns
        views = any(item.alias_info is not None and not item.alias_info.is_write for item in returned)
        # Composite operations do not declare that they may return their input itself.
        if views or "CompositeImplicitAutograd" in _kinds(node.target):
            for source in node.all_input_nodes:
                aliases[node] = aliases[source] = aliases[node] | aliases[source]
                for member in aliases[source]:
                    aliases[member] = aliases[node]
    for node in list(graph.nodes):
        if node.op != "call_function" or not hasattr(node.target, "_schema"):
            continue
        schema = node.target._schema
        if not schema.is_mutable:
            continue
        base = schema.name.split("::")[1]
        packet = getattr(aten, base[:-1], None) if base.endswith("_") else None
        overload = getattr(packet, schema.overload_name or "default", None)
        target = node.args[0] if node.args else None
        if overload is None or not isinstance(target, fx.Node) or overload._schema.is_mutable:
            return False
        position = order[node]
        for other in aliases[target] - {target, node}:
            if order[other] > position or any(order[user] > position for user in other.users):
                return False
        node.target = overload
        target.replace_all_uses_with(node, delete_user_cb=partial(_later, order, position))
    return True


def _later(order: dict[fx.Node, int], position: int, user: fx.Node) -> bool:
    return order[user] > position


def _kinds(overload: Any) -> str:
    keys = getattr(overload, "has_kernel_for_dispatch_key", None)
    if keys is None:
        return ""
    composite = torch._C.DispatchKey.CompositeImplicitAutograd
    return "CompositeImplicitAutograd" if keys(composite) else ""


def counts_batch(node: fx.Node) -> bool:
    """Whether the node asks a value for its (batch) size."""
    return str(node.target) in ("aten.sym_size.int", "aten.sym_size.default", "aten.sym_numel.default")

"""How each ATen operation passes index probes on.

A rule takes a :class:`Call` and returns the probe of the output along the call's axis, or one for each
output. What is tagged pointwise needs no rule; an operation without one is taken to mix the whole picture.
Here are the rules for what moves elements about; windows are in :mod:`~convoscope.engine.fields.aten_windows`,
reductions, products and norms in :mod:`~convoscope.engine.fields.aten_mixing`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from convoscope.engine.fields.aliasing import Track
from convoscope.engine.fields.probes import (
    PARTS,
    Probe,
    aligned,
    compress,
    concatenated,
    empty,
    placeless,
    rearranged,
    reduced,
    reshaped,
    union,
    viewed,
)


class Call:
    """One call of an ATen operation, seen along one axis of the picture."""

    def __init__(
        self,
        func: Any,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        outputs: list[Tensor],
        known: dict[int, Track],
    ) -> None:
        self.func = func
        self.args = args
        self.kwargs = kwargs
        self.outputs = outputs
        self.known = known
        self.axis = 0
        self.named: dict[str, Any] = {}
        for position, argument in enumerate(func._schema.arguments):
            if position < len(args):
                self.named[argument.name] = args[position]
            else:
                self.named[argument.name] = kwargs.get(argument.name, argument.default_value)

    def tracked(self, tensor: Any) -> bool:
        """Whether the picture can change this argument."""
        return id(tensor) in self.known

    def probe(self, tensor: Tensor) -> Probe:
        """The probe of an argument; empty if it is a constant."""
        track = self.known.get(id(tensor))
        return track.probe(self.axis) if track else empty(tensor.dim())

    @property
    def first(self) -> Tensor:
        """The first argument."""
        return next(value for value in self.named.values() if isinstance(value, Tensor))

    @property
    def dims(self) -> int:
        """How many dimensions the output has."""
        return self.outputs[0].dim()

    def apply(self, tensor: Tensor) -> Any:
        """The operation itself with its first argument replaced."""
        args = list(self.args)
        args[0] = tensor
        return self.func(*args, **self.kwargs)


Rule = Callable[[Call], "Probe | list[Probe]"]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register the rule for operations by ATen name, without overload and in-place mark."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def pointwise(call: Call) -> Probe:
    """Each element of the output comes from the operands' elements in its place."""
    operands = [value for value in call.named.values() if call.tracked(value)]
    for value in call.named.values():
        if isinstance(value, (list, tuple)):
            operands += [item for item in value if call.tracked(item)]
    return union([call.probe(operand) for operand in operands], call.dims)


# Elementwise, although not all of them carry the tag.
rule("quantize_per_tensor", "dequantize", "quantize_per_channel")(pointwise)
rule("dropout", "native_dropout", "lerp", "addcmul", "addcdiv", "where", "lift_fresh", "lift")(pointwise)
rule("clone", "_to_copy", "contiguous", "detach", "alias", "prelu", "_prelu_kernel", "masked_fill", "rrelu")(
    pointwise
)
rule("rrelu_with_noise", "hardswish", "log_sigmoid_forward", "floor_divide", "rsub", "positive")(pointwise)
# ... or not in every version of torch that is allowed (2.6)
rule("hardtanh", "leaky_relu", "elu", "selu", "celu", "hardsigmoid", "ldexp")(pointwise)


@rule("glu")
def _glu(call: Call) -> Probe:
    dim = call.named["dim"] % call.dims
    probe = call.probe(call.first)
    if probe.shape[dim + 1] == 1:
        return probe
    return union(list(probe.chunk(2, dim + 1)), call.dims)


@rule("copy")
def _copy(call: Call) -> Probe:
    return aligned(call.probe(call.named["src"]), call.dims)


@rule("fill", "zero", "normal", "uniform", "bernoulli", "empty_like", "zeros_like", "ones_like", "full_like")
@rule("rand_like", "randn_like", "new_zeros", "new_empty", "new_ones", "new_full", "new_empty_strided")
def _constant(call: Call) -> Probe:
    return empty(call.dims)


# Views and rearrangements


@rule("permute", "transpose", "t", "slice", "select", "squeeze", "unsqueeze", "expand", "unfold", "diagonal")
@rule("split", "split_with_sizes", "chunk", "unbind", "narrow", "swapaxes", "movedim", "numpy_T", "adjoint")
def _view(call: Call) -> list[Probe]:
    return viewed(call.probe(call.first), call.first.shape, call.apply)


@rule("view", "_unsafe_view", "reshape", "_reshape_alias", "flatten", "unflatten")
def _reshape(call: Call) -> Probe:
    return reshaped(call.probe(call.first), call.first.shape, call.outputs[0].shape)


@rule("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle", "repeat", "im2col")
@rule("rot90", "tile", "repeat_interleave", "tril", "triu", "take")
def _moves(call: Call) -> Probe:
    return rearranged(call.probe(call.first), call.first.shape, call.apply)


@rule("roll", "flip")
def _roll(call: Call) -> Probe:
    # Both leave constant dimensions alone, so they can act on the probe as it is.
    shape = call.first.shape
    probe = call.probe(call.first)
    dims = call.named["dims"]
    if not dims:  # rolled as if flat
        return rearranged(probe, shape, call.apply)
    dims = [dim % len(shape) + 1 for dim in dims]
    if call.func._schema.name == "aten::flip":
        return probe.flip(dims)
    return probe.roll(call.named["shifts"], dims)


@rule("index_select")
def _index_select(call: Call) -> Probe:
    probe, dim = call.probe(call.first), call.named["dim"] % max(call.first.dim(), 1)
    if probe.shape[dim + 1] == 1:
        return probe
    return probe.index_select(dim + 1, call.named["index"].cpu())


@rule("index", "gather")
def _index(call: Call) -> Probe:
    if "indices" in call.named:
        indices = [None if index is None else index.cpu() for index in call.named["indices"]]
        chosen = [index for index in call.named["indices"] if call.tracked(index)]

        def move(tensor: Tensor) -> Tensor:
            picked: Tensor = torch.ops.aten.index.Tensor(tensor, indices)
            return picked
    else:
        dim, index = call.named["dim"], call.named["index"].cpu()
        chosen = [call.named["index"]] if call.tracked(call.named["index"]) else []

        def move(tensor: Tensor) -> Tensor:
            return tensor.gather(dim, index)

    picked = rearranged(call.probe(call.first), call.first.shape, move)
    if not chosen:
        return picked
    mixed = [reduced(call.probe(index), range(index.dim()), keep=True) for index in chosen]
    places = [placeless(aligned(m.reshape(PARTS), call.dims)) for m in mixed]
    return union([picked, *places], call.dims)


@rule("index_put", "_index_put_impl", "_unsafe_index_put")
def _index_put(call: Call) -> Probe:
    indices = [None if index is None else index.cpu() for index in call.named["indices"]]
    if call.named.get("accumulate") or any(call.tracked(index) for index in call.named["indices"]):
        raise NotImplementedError("writing at places that the picture chooses")
    kept, put = call.probe(call.first), call.probe(call.named["values"])
    halves = []
    for part, values in zip(kept, put, strict=True):
        solid, given = part.expand(call.first.shape).clone(), values.expand(call.named["values"].shape)
        halves.append(torch.ops.aten.index_put.default(solid, indices, given))
    return compress(torch.stack(halves))


@rule("cat", "concat")
def _cat(call: Call) -> Probe:
    tensors = [t for t in call.named["tensors"] if t.dim() == call.dims]  # an empty 1-d tensor is let pass
    dim = call.named["dim"] % call.dims
    return concatenated([call.probe(t) for t in tensors], [t.shape[dim] for t in tensors], dim)


@rule("stack")
def _stack(call: Call) -> Probe:
    dim = call.named["dim"] % call.dims
    probes = [call.probe(t).unsqueeze(dim + 1) for t in call.named["tensors"]]
    return concatenated(probes, [1] * len(probes), dim)

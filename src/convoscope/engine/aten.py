"""How each ATen operation passes index probes on.

A rule takes a :class:`Call` and returns the probe of the output along the call's axis, or one for each
output. What is tagged pointwise needs no rule; an operation without one is taken to mix the whole picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from convoscope.engine.aliasing import Track
from convoscope.engine.probes import (
    NOWHERE,
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
    spread,
    union,
    viewed,
    window,
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
rule("dropout", "native_dropout", "lerp", "addcmul", "addcdiv", "where", "lift_fresh", "lift")(pointwise)
rule("clone", "_to_copy", "contiguous", "detach", "alias", "prelu", "_prelu_kernel", "masked_fill", "rrelu")(
    pointwise
)
rule("rrelu_with_noise", "hardswish", "log_sigmoid_forward", "floor_divide", "rsub", "positive")(pointwise)


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


@rule("constant_pad_nd")
def _pad(call: Call) -> Probe:
    probe, shape, pads = call.probe(call.first), call.first.shape, call.named["pad"]
    for k in range(len(pads) // 2):
        dim = len(shape) - 1 - k
        positions = torch.arange(-pads[2 * k], shape[dim] + pads[2 * k + 1], device="cpu")[:, None]
        if probe.shape[dim + 1] > 1:
            probe = window(probe, dim, positions)
    return probe


@rule("reflection_pad1d", "reflection_pad2d", "reflection_pad3d")
@rule("replication_pad1d", "replication_pad2d", "replication_pad3d")
def _mirror(call: Call) -> Probe:
    probe, shape, pads = call.probe(call.first), call.first.shape, call.named["padding"]
    for k in range(len(pads) // 2):
        dim = len(shape) - 1 - k
        if probe.shape[dim + 1] > 1:
            positions = torch.arange(-pads[2 * k], shape[dim] + pads[2 * k + 1], device="cpu")
            last = shape[dim] - 1
            inside = positions.clamp(0, last)
            if call.func._schema.name.startswith("aten::reflection"):
                inside = last - (last - positions.abs()).abs()
            probe = window(probe, dim, inside[:, None], positions[:, None])
    return probe


# Windows


def _per_dim(value: Any, count: int, default: Sequence[int]) -> list[int]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    if not values:
        return list(default)
    return values * count if len(values) == 1 else values


def slide(out: int, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    """The positions ``[out, kernel]`` that a sliding window reads."""
    index = torch.arange(out, device="cpu")[:, None]
    return index * stride - padding + torch.arange(kernel, device="cpu")[None] * dilation


def slide_back(out: int, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    """The positions ``[out, kernel]`` that a transposed convolution reads; some are nowhere."""
    start = torch.arange(out, device="cpu")[:, None] + padding
    start = start - torch.arange(kernel, device="cpu")[None] * dilation
    return torch.where(start % stride == 0, start // stride, NOWHERE)


@rule("convolution", "_convolution", "convolution_overrideable", "mkldnn_convolution", "cudnn_convolution")
@rule("miopen_convolution", "conv1d", "conv2d", "conv3d")
def _convolution(call: Call) -> Probe:
    named, weight = call.named, call.named["weight"]
    operand = call.first
    count = weight.dim() - 2
    probe = call.probe(operand)
    groups, channel = named.get("groups", 1), operand.dim() - count
    channel -= 1
    transposed = bool(named.get("transposed", False))
    channels = call.outputs[0].shape[channel]
    if probe.shape[channel + 1] > 1:
        parts = probe.reshape(*probe.shape[: channel + 1], groups, -1, *probe.shape[channel + 2 :])
        parts = parts.amin(channel + 2)
        probe = compress(parts.repeat_interleave(channels // groups, channel + 1), [channel])
    stride = _per_dim(named["stride"], count, [1] * count)
    padding = _per_dim(named.get("padding", 0), count, [0] * count)
    dilation = _per_dim(named.get("dilation", 1), count, [1] * count)
    for k in range(count):
        dim, size = channel + 1 + k, weight.shape[2 + k]
        if probe.shape[dim + 1] > 1:
            taps = slide_back if transposed else slide
            positions = taps(call.outputs[0].shape[dim], size, stride[k], padding[k], dilation[k])
            probe = window(probe, dim, positions)
    if call.tracked(weight):  # the picture makes the filters, as in conditional convolutions
        filters = reduced(call.probe(weight), range(weight.dim()), keep=True).reshape(PARTS)
        probe = union([probe, placeless(aligned(filters, call.dims))], call.dims)
    return probe


def _pooling(count: int) -> Rule:
    def pool(call: Call) -> Probe:
        named, probe, shape = call.named, call.probe(call.first), call.first.shape
        kernel = _per_dim(named["kernel_size"], count, [])
        stride = _per_dim(named.get("stride") or [], count, kernel)
        padding = _per_dim(named.get("padding", 0), count, [0] * count)
        dilation = _per_dim(named.get("dilation", 1), count, [1] * count)
        for k in range(count):
            dim = len(shape) - count + k
            if probe.shape[dim + 1] > 1:
                out = call.outputs[0].shape[dim]
                probe = window(probe, dim, slide(out, kernel[k], stride[k], padding[k], dilation[k]))
        return probe

    return pool


for _n in (1, 2, 3):
    rule(f"max_pool{_n}d", f"max_pool{_n}d_with_indices", f"avg_pool{_n}d", f"mkldnn_max_pool{_n}d")(_pooling(_n))


@rule(*(f"adaptive_{kind}_pool{n}d" for kind in ("avg", "max") for n in (1, 2, 3)))
@rule("_adaptive_avg_pool2d", "_adaptive_avg_pool3d")
def _adaptive(call: Call) -> Probe:
    probe, shape, result = call.probe(call.first), call.first.shape, call.outputs[0].shape
    for dim in range(len(shape)):
        length, out = shape[dim], result[dim]
        if probe.shape[dim + 1] > 1 and length != out:
            starts = [i * length // out for i in range(out)]
            ends = [-(-(i + 1) * length // out) for i in range(out)]
            longest = max(e - s for s, e in zip(starts, ends, strict=True))
            taps = torch.tensor(starts, device="cpu")[:, None] + torch.arange(longest, device="cpu")
            inside = taps < torch.tensor(ends, device="cpu")[:, None]
            probe = window(probe, dim, torch.where(inside, taps, NOWHERE))
    return probe


@rule(*(f"upsample_{mode}" for mode in ("nearest1d", "nearest2d", "nearest3d", "linear1d", "trilinear3d")))
@rule(*(f"upsample_{mode}2d{aa}" for mode in ("bilinear", "bicubic") for aa in ("", "_aa")))
@rule(*(f"_upsample_{mode}2d_aa" for mode in ("bilinear", "bicubic", "lanczos")))
@rule(*(f"_upsample_nearest_exact{n}d" for n in (1, 2, 3)))
def _upsample(call: Call) -> Probe:
    probe, shape, result = call.probe(call.first), call.first.shape, call.outputs[0].shape
    for dim in range(2, len(shape)):
        if probe.shape[dim + 1] > 1:
            taps = _taps(call, dim, shape[dim], result[dim])
            probe = window(probe, dim, taps, _unclipped(taps, shape[dim]))
    return probe


def _taps(call: Call, dim: int, length: int, out: int) -> Tensor:
    """Which positions along ``dim`` each output reads, found by resizing the unit vectors themselves."""
    sizes = [1] * call.first.dim()
    sizes[0] = sizes[dim] = length
    result = [1] * (call.first.dim() - 2)
    result[dim - 2] = out
    named = {k: v for k, v in call.named.items() if k not in ("input", "self", "out")}
    named["output_size"] = result
    for key in [k for k in named if k.startswith("scale")]:
        factor = named[key]
        if isinstance(factor, (list, tuple)):
            named[key] = [f if k == dim - 2 else None for k, f in enumerate(factor)]
        elif key not in _scale_names(dim, call.first.dim()):
            named[key] = None
    if isinstance(named.get("scale_factors"), list):
        named["scale_factors"] = None
    units = torch.eye(length, dtype=torch.float64, device="cpu").reshape(sizes)
    overload = getattr(call.func.overloadpacket, "default")  # noqa: B009 (an overload, not an attribute)
    names = {a.name for a in overload._schema.arguments}
    weights = overload(units, **{k: v for k, v in named.items() if k in names})
    read = weights.reshape(length, out).T.abs() > 1e-6
    most = int(read.sum(1).max())
    order = torch.arange(length, device="cpu").expand(out, length)
    return (
        torch.where(read, order, length)
        .sort(1)
        .values[:, :most]
        .masked_fill_(torch.arange(most, device="cpu") >= read.sum(1, keepdim=True), NOWHERE)
    )


def _scale_names(dim: int, dims: int) -> tuple[str, ...]:
    """The names of the scale argument for ``dim`` in the single-scale spellings of the schemas."""
    if dims == 3:
        return ("scales",)
    letters = "hw" if dims == 4 else "dhw"
    return (f"scales_{letters[dim - 2]}",)


def _unclipped(taps: Tensor, length: int) -> Tensor:
    """Interpolation's taps as if the picture went on: the border's missing neighbour is put back."""
    counts = (taps != NOWHERE).sum(1)
    most = int(counts.max())
    if most == 1:
        return taps
    full = taps.clone()
    for i in range(len(taps)):
        have = taps[i][taps[i] != NOWHERE]
        lacking = most - len(have)
        if lacking and int(have[0]) == 0 and i < len(taps) // 2:
            full[i] = torch.arange(-lacking, most - lacking, device="cpu")
        elif lacking and int(have[-1]) == length - 1:
            full[i] = torch.arange(int(have[0]), int(have[0]) + most, device="cpu")
    return full


# Reductions, products, norms


def _dims(call: Call) -> list[int]:
    dims = call.named.get("dim")
    count = call.first.dim()
    if dims is None or dims == []:
        return list(range(count))
    return [dim % max(count, 1) for dim in (dims if isinstance(dims, (list, tuple)) else [dims])]


@rule("mean", "sum", "nansum", "nanmean", "amax", "amin", "max", "min", "aminmax", "median", "nanmedian")
@rule(
    "mode",
    "prod",
    "var",
    "std",
    "var_mean",
    "std_mean",
    "logsumexp",
    "norm",
    "linalg_vector_norm",
    "any",
    "all",
)
@rule("argmax", "argmin", "count_nonzero", "kthvalue")
def _reduction(call: Call) -> Probe:
    if call.tracked(call.named.get("other")):
        return pointwise(call)
    keep = bool(call.named.get("keepdim", False))
    return reduced(call.probe(call.first), _dims(call), keep=keep)


@rule("_softmax", "softmax", "_log_softmax", "log_softmax", "cumsum", "cumprod", "logcumsumexp")
@rule("_safe_softmax")
def _along(call: Call) -> Probe:
    return spread(call.probe(call.first), _dims(call))


@rule("sort", "argsort", "topk")
def _sorted(call: Call) -> Probe:
    dim = call.named["dim"] % max(call.first.dim(), 1)
    return reduced(call.probe(call.first), [dim], keep=True)


@rule("native_layer_norm", "_fused_rms_norm", "rms_norm", "layer_norm")
def _layer_norm(call: Call) -> list[Probe]:
    probe, count = call.probe(call.first), call.first.dim()
    dims = range(count - len(call.named["normalized_shape"]), count)
    statistics = reduced(probe, dims, keep=True)
    return [spread(probe, dims)] + [statistics] * (len(call.outputs) - 1)


@rule("native_group_norm", "group_norm")
def _group_norm(call: Call) -> list[Probe]:
    probe, count = call.probe(call.first), call.first.dim()
    statistics = reduced(probe, range(1, count), keep=True).reshape(PARTS, 1, 1)
    return [spread(probe, range(1, count))] + [statistics] * (len(call.outputs) - 1)


@rule("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training")
@rule("cudnn_batch_norm", "miopen_batch_norm", "_batch_norm_with_update", "_batch_norm_no_update")
def _batch_norm(call: Call) -> list[Probe]:
    probe, count = call.probe(call.first), call.first.dim()
    name, overload = call.func._schema.name, call.func._schema.overload_name
    batch = call.named.get("training", "with_update" in name) or overload.startswith("no_stats")
    others = [dim for dim in range(count) if dim != 1]
    result = spread(probe, others) if batch else probe
    statistics = reduced(probe, others, keep=False)
    rest = [
        statistics if output.shape == (call.first.shape[1],) else empty(output.dim()) for output in call.outputs[1:]
    ]
    return [result, *rest]


def _product(call: Call, left: Tensor, right: Tensor, bias: Tensor | None = None) -> Probe:
    """A matrix product: rows of ``left`` by columns of ``right``, batches broadcast."""
    operands = []
    if call.tracked(left):
        operands.append(reduced(call.probe(left), [left.dim() - 1], keep=True))
    if call.tracked(right):
        operands.append(reduced(call.probe(right), [max(right.dim() - 2, 0)], keep=True))
    if len(operands) == 2:
        operands = [placeless(operand) for operand in operands]
    operands = [operand if operand.dim() > 2 else operand.unsqueeze(-2) for operand in operands]
    if bias is not None and call.tracked(bias):
        operands.append(call.probe(bias))
    return union(operands, call.dims)


@rule("mm", "bmm")
def _mm(call: Call) -> Probe:
    return _product(call, call.first, call.named["mat2"])


@rule("matmul", "dot", "mv")
def _matmul(call: Call) -> Probe:
    left, right = (value for value in call.named.values() if isinstance(value, Tensor))
    if left.dim() >= 2 and right.dim() >= 2:
        return _product(call, left, right)
    operands = [t for t in (left, right) if call.tracked(t)]
    if right.dim() == 1 and left.dim() > 1 and operands == [left]:
        return reduced(call.probe(left), [left.dim() - 1], keep=False)
    mixed = [reduced(call.probe(t), range(t.dim()), keep=True).reshape(PARTS) for t in operands]
    return placeless(union([aligned(m, call.dims) for m in mixed], call.dims))


@rule("addmm", "_addmm_activation")
def _addmm(call: Call) -> Probe:
    return _product(call, call.named["mat1"], call.named["mat2"], call.named["self"])


@rule("baddbmm")
def _baddbmm(call: Call) -> Probe:
    return _product(call, call.named["batch1"], call.named["batch2"], call.named["self"])


@rule("linear")
def _linear(call: Call) -> Probe:
    weight = call.named["weight"]
    if call.tracked(weight):
        raise NotImplementedError("a linear layer whose weights the picture makes")
    return reduced(call.probe(call.first), [call.first.dim() - 1], keep=True)


@rule("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention")
@rule("_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention")
@rule("_scaled_dot_product_attention_math", "scaled_dot_product_attention")
@rule("_scaled_dot_product_attention_math_for_mps", "_scaled_dot_product_fused_attention_overrideable")
def _attention(call: Call) -> list[Probe]:
    query, key, value = call.named["query"], call.named["key"], call.named["value"]
    operands = [reduced(call.probe(query), [query.dim() - 1], keep=True)]
    for operand in (key, value):
        operands.append(reduced(call.probe(operand), [operand.dim() - 2, operand.dim() - 1], keep=True))
    heads = [o if o.shape[-3] in (1, query.shape[-3]) else o.amin(-3, keepdim=True) for o in operands]
    mixed = placeless(union(heads, query.dim()))
    return [mixed if o.dim() == query.dim() else empty(o.dim()) for o in call.outputs]


@rule("_native_multi_head_attention")
def _multi_head(call: Call) -> list[Probe]:
    mixed = [reduced(call.probe(call.named[n]), [1, 2], keep=True) for n in ("query", "key", "value")]
    whole = placeless(union(mixed, 3))
    return [whole if o.dim() == 3 else empty(o.dim()) for o in call.outputs]


@rule("_transformer_encoder_layer_fwd")
def _encoder_layer(call: Call) -> Probe:
    return spread(call.probe(call.first), [call.first.dim() - 2, call.first.dim() - 1])


@rule("nms", "nonzero", "roi_align")
def _chosen(call: Call) -> Probe:
    """What content chooses has no place: boxes kept by non-maximum suppression, regions cut out for them."""
    probe = placeless(call.probe(call.first))
    return probe.amin(tuple(range(1, probe.dim())), keepdim=True).reshape(PARTS, *(1,) * call.dims)

"""How padding, convolution, pooling and interpolation pass index probes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from convoscope.engine.fields.aten import Call, Rule, rule
from convoscope.engine.fields.probes import (
    NOWHERE,
    PARTS,
    Probe,
    aligned,
    compress,
    merged,
    placeless,
    reduced,
    union,
    window,
)


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
@rule("miopen_convolution", "conv1d", "conv2d", "conv3d", "conv1d_relu", "conv2d_relu", "conv3d_relu")
def _convolution(call: Call) -> Probe:
    named = dict(call.named)
    packed = next((value for key, value in named.items() if key.startswith("packed")), None)
    if packed is not None:  # a quantised convolution keeps its filters and measures in one object
        named |= {
            "weight": packed.unpack()[0], "stride": list(packed.stride()), "padding": list(packed.padding()),
            "dilation": list(packed.dilation()), "groups": packed.groups(),
        }  # fmt: skip
    weight = named["weight"]
    operand = call.first
    count = weight.dim() - 2
    probe = call.probe(operand)
    groups, channel = named.get("groups", 1), operand.dim() - count
    channel -= 1
    transposed = bool(named.get("transposed", False))
    channels = call.outputs[0].shape[channel]
    if probe.shape[channel + 1] > 1:
        parts = probe.reshape(*probe.shape[: channel + 1], groups, -1, *probe.shape[channel + 2 :])
        parts = merged(parts, [channel + 2])
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
            at = None if "nearest" in call.func._schema.name else _positions(call, dim, shape[dim], result[dim])
            probe = window(probe, dim, taps, _unclipped(taps, shape[dim]), at)
    return probe


def _positions(call: Call, dim: int, length: int, out: int) -> Tensor:
    """Where each output of an interpolation lies between the elements along ``dim``, float64 ``[out]``.

    Linear and smoothed interpolation give back a ramp as it is, so that this is the centre of their weights; torch's
    cubic one (a = -0.75) but for a twentieth of a cell. At the border as if the picture went on, as everywhere.
    """
    index = torch.arange(out, dtype=torch.float64, device="cpu")
    if call.named.get("align_corners"):
        return index * ((length - 1) / max(out - 1, 1))
    factor = next((call.named[name] for name in _scale_names(dim, call.first.dim()) if name in call.named), None)
    factors = call.named.get("scale_factors")
    if factors:
        factor = factors[dim - 2]
    return (index + 0.5) * (1 / factor if factor else length / out) - 0.5


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

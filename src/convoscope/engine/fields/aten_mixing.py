"""How reductions, matrix products, norms and attention pass index probes on."""

from __future__ import annotations

from torch import Tensor

from convoscope.engine.fields.aten import Call, pointwise, rule
from convoscope.engine.fields.probes import PARTS, Probe, aligned, empty, merged, placeless, reduced, spread, union


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
    heads = [o if o.shape[-3] in (1, query.shape[-3]) else merged(o, [o.dim() - 3], keepdim=True) for o in operands]
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
    return merged(probe, range(1, probe.dim())).reshape(PARTS, *(1,) * call.dims)

"""Layer-wise relevance propagation without touching a module (Bach et al.: On Pixel-Wise Explanations. PLoS ONE 2015).

For one forward a function mode replaces every operation by one with the same value and another backward pass: what
flows backwards is relevance, not the gradient. So module, functional, method and in-place spellings are alike, a batch
norm merges into the convolution before it, and sums (residual paths) share relevance by what each side contributed.
The steps themselves are in :mod:`convoscope.engine.propagation.relevance_steps`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ...errors import MethodRefused
from ..passes.naming import spelled
from ..passes.needs import Dedicated
from ..passes.untouched import constant_parameters
from .attention import open_attention
from .operations import ACTIVATIONS, in_place, name_of, norm_arguments, positional
from .relevance_steps import Joined, Ledger, Linear, Rule, Settings, Share, passed, run
from .relevance_steps import weighted as weighted_step

if TYPE_CHECKING:
    from ..passes.needs import Scorer
    from ..passes.runner import Runner

_CONVOLUTIONS = {f"conv{d}" for d in ("1d", "2d", "3d")} | {f"conv_transpose{d}" for d in ("1d", "2d", "3d")}
#: the relevance of the output is that of the input
_PASSED = ACTIVATIONS | {"log_softmax"}
#: linear without weights: shared by what each element contributes
_SHARED = {"mean", "sum", "avg_pool1d", "avg_pool2d", "avg_pool3d", "interpolate", "upsample", "lp_pool2d"}
_SHARED |= {f"adaptive_avg_pool{d}" for d in ("1d", "2d", "3d")} | {"grid_sample"}
#: these move values or choose among them: their gradient is the relevance's way back
_MOVES = {
    "view", "reshape", "flatten", "unflatten", "permute", "transpose", "t", "get", "contiguous", "split",
    "chunk", "unbind", "getitem", "narrow", "select", "index_select", "gather",
    "squeeze", "unsqueeze", "expand", "expand_as", "repeat", "pad", "dropout", "dropout1d", "dropout2d", "dropout3d",
    "alpha_dropout", "feature_dropout", "feature_alpha_dropout", "pixel_shuffle", "pixel_unshuffle", "roll", "to",
    "float", "type", "type_as", "clone", "detach", "flip", "channel_shuffle", "movedim", "swapaxes", "amax", "max",
    "tensor_split", "masked_fill", "view_as", "reshape_as", "setitem", "copy", "alias", "tile", "where", "double",
    "unfold", "index_copy", "requires_grad", "register_hook", "diagonal", "rot90", "hsplit", "vsplit", "half",
    "broadcast_to", "take_along_dim", "native_channel_shuffle", "repeat_interleave", "topk", "sort",
    "max_pool1d", "max_pool2d", "max_pool3d", "max_pool1d_with_indices", "max_pool2d_with_indices",
    "max_pool3d_with_indices", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d",
    "adaptive_max_pool2d_with_indices", "fractional_max_pool2d",
}  # fmt: skip
_ADDED = {"add": 1.0, "iadd": 1.0, "radd": 1.0, "sub": -1.0, "isub": -1.0, "rsub": -1.0, "subtract": -1.0}
_MULTIPLIED = {"mul", "imul", "rmul", "multiply", "div", "truediv", "itruediv", "divide", "true_divide"}


@dataclass
class _Made:
    """A convolution's or linear layer's output: what a batch norm right behind it merges into."""

    step: Linear
    version: int


class Relevant(TorchFunctionMode):
    """Inside the block backward passes carry relevance; ``ledger`` keeps what biases and stabilisers absorbed."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        super().__init__()
        self.settings, self.ledger = settings, ledger
        self.first = True
        self.unknown: set[str] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        args, kwargs = positional(func, args, kwargs or {})
        name = name_of(func)
        live = any(isinstance(a, Tensor) and a.requires_grad for a in (*_flat(args), *kwargs.values()))
        if not live or not torch.is_grad_enabled() or name in _MOVES:
            return func(*args, **kwargs)
        handler = self._handler(func, name)
        if handler is None:
            out = func(*args, **kwargs)
            if isinstance(out, Tensor) and out.requires_grad and out.is_floating_point():
                self.unknown.add(name)
            return out
        return handler(func, args, kwargs, in_place(func, args, kwargs))

    def _handler(self, func: Any, name: str) -> Callable[..., Any] | None:
        if name in _PASSED:
            return self._activation
        if name in _CONVOLUTIONS or name == "linear":
            return self._weighted
        if name == "batch_norm":
            return self._batch_norm
        if name in _ADDED:
            return self._sum
        if name in _MULTIPLIED:
            return self._product
        if name in _SHARED:
            return self._shared
        if name in ("layer_norm", "group_norm", "instance_norm", "rms_norm"):
            return self._norm
        if name == "softmax":
            return self._softmax
        if name in ("cat", "concat", "concatenate", "stack"):
            return self._joined
        if name in ("matmul", "bmm", "einsum", "mm", "rmatmul"):
            return self._matmul
        if name == "scaled_dot_product_attention":
            return self._attention
        return self._heads if func is F.multi_head_attention_forward else None

    def _activation(self, func: Any, args: Any, kwargs: Any, in_place: bool) -> Any:
        x = args[0]
        with torch.no_grad():
            value = func(x.detach().clone(), *args[1:], **kwargs)
        return passed(x, value, in_place)

    def _weighted(self, func: Any, args: Any, kwargs: Any, in_place: bool) -> Any:
        given = dict(zip(("x", "weight", "bias"), args[:3], strict=False))
        rest, named = args[3:], dict(kwargs)
        x = given["x"] if "x" in given else named.pop("input")
        weight = given["weight"] if "weight" in given else named.pop("weight")
        bias = given["bias"] if "bias" in given else named.pop("bias", None)
        convolution = spelled(func) != "linear"
        rule = self.settings.rule(convolution=convolution, first=self.first)
        self.first = False
        transposed = spelled(func).startswith("conv_transpose")

        def apply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return func(x, weight, bias, *rest, **named)  # type: ignore[no-any-return]

        step = Linear(apply, x, weight.detach(), None if bias is None else bias.detach(), rule, self.settings,
                      1 if transposed else 0, convolution)  # fmt: skip
        if transposed and (rest[3] if len(rest) > 3 else named.get("groups", 1)) != 1:
            step.mergeable = False  # output channels lie in groups: a norm keeps its own step
        return self._run_weighted(step)

    def _run_weighted(self, step: Linear) -> Tensor:
        out = weighted_step(step, self.ledger)
        out._convoscope_made = _Made(step, out._version)  # type: ignore[attr-defined]
        return out

    def _merged(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor | None:
        """The layer before, with an affine map per channel merged into it; ``None`` where ``x`` is not its output."""
        made = getattr(x, "_convoscope_made", None)
        if made is None or made.version != x._version or not made.step.mergeable:
            return None
        return self._run_weighted(made.step.scaled(scale, shift))

    def _batch_norm(self, func: Any, args: Any, kwargs: Any, in_place: bool) -> Any:
        given = norm_arguments(func, args, kwargs)
        x, mean, variance = given["input"], given.get("running_mean"), given.get("running_var")
        if mean is None or variance is None or given.get("training"):
            self.unknown.add("batch norm with the batch's own statistics")
            return func(*args, **kwargs)
        scale = (variance.detach() + given.get("eps", 1e-5)).rsqrt()
        if given.get("weight") is not None:
            scale = scale * given["weight"].detach()
        shift = -mean.detach() * scale
        if given.get("bias") is not None:
            shift = shift + given["bias"].detach()
        merged = self._merged(x, scale, shift)
        return merged if merged is not None else self._affine(x, scale, shift)

    def _affine(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (x.ndim - 2))
        scale, shift = scale.view(shape), shift.view(shape)
        return run(Share([lambda x: x * scale], shift, self.settings.stabiliser), self.ledger, [x])

    def _sum(self, func: Any, args: Any, kwargs: Any, in_place: bool) -> Any:
        a, b = args[0], args[1] if len(args) > 1 else kwargs["other"]
        name = spelled(func).strip("_")
        factor = _ADDED[name] * float(kwargs.get("alpha", 1))
        one, other = (1.0, factor) if name != "rsub" else (-1.0, 1.0)
        parts = [(a, one), (b, other)]
        live = [(t, f) for t, f in parts if isinstance(t, Tensor) and t.requires_grad]
        fixed: Any = None
        for t, f in parts:
            if not (isinstance(t, Tensor) and t.requires_grad):
                fixed = f * t
        x = live[0][0]
        if isinstance(fixed, Tensor) and len(live) == 1 and live[0][1] == 1 and _per_channel(fixed, x):
            merged = self._merged(x, torch.ones_like(fixed).flatten(), fixed.detach().flatten())
            if merged is not None:
                return merged
        share = Share([_times(f) for _, f in live], fixed, self.settings.stabiliser)
        return run(share, self.ledger, [t for t, _ in live], in_place and live[0][0] is a)

    def _product(self, func: Any, args: Any, kwargs: Any, in_place: bool) -> Any:
        a, b = args[0], args[1] if len(args) > 1 else kwargs["other"]
        live = [isinstance(t, Tensor) and t.requires_grad for t in (a, b)]
        with torch.no_grad():
            value = func(*(t.detach().clone() if isinstance(t, Tensor) else t for t in (a, b)))
        if all(live):
            divided = "div" in spelled(func)
            if divided or b.numel() < a.numel():
                return passed(a, value, in_place)  # a gate says how much, the signal says what: it takes all
            if a.numel() < b.numel():
                return passed(b, value, False)
            return passed(a, value / 2, False, 0.5) + passed(b, value / 2, False, 0.5)
        x, constant = (a, b) if live[0] else (b, a)
        if isinstance(constant, Tensor) and _per_channel(constant, x) and "div" not in spelled(func):
            merged = self._merged(x, constant.detach().flatten(), torch.zeros_like(constant).flatten())
            if merged is not None:
                return merged
        return passed(x, value, in_place and live[0])

    def _shared(self, func: Any, args: Any, kwargs: Any, in_place: bool) -> Any:
        rest = args[1:]
        return run(
            Share([lambda x: func(x, *rest, **kwargs)], None, self.settings.stabiliser), self.ledger, [args[0]]
        )

    def _norm(self, func: Any, args: Any, kwargs: Any, in_place: bool) -> Any:
        """Layer and group norms: linear, but for their standard deviation, which is taken for a constant.

        Ali et al.: XAI for Transformers: Better Explanations through Conservative Propagation. ICML 2022.
        """
        x, name = args[0], spelled(func)
        with torch.no_grad():
            value = func(*args, **kwargs)
        at_zero = _norm_shift(name, x, args, kwargs)
        centre, scale = _norm_parts(name, x.detach(), args)
        gain = torch.where(scale == 0, torch.zeros_like(value), (value - at_zero) / scale)

        def linear(x: Tensor) -> Tensor:
            centred: Tensor = (x - centre(x)) * gain
            return centred

        return run(Share([linear], at_zero, self.settings.stabiliser), self.ledger, [x])

    def _softmax(self, func: Any, args: Any, kwargs: Any, in_place: bool) -> Any:
        x = args[0]
        with torch.no_grad():
            value = func(*args, **kwargs)
        # over tokens it is attention, a gate whose values take the relevance; over classes the scores themselves
        return value if x.ndim > 2 else passed(x, value, False)

    def _joined(self, func: Any, args: Any, kwargs: Any, in_place: bool) -> Any:
        operands, rest = list(args[0]), args[1:]
        live = [number for number, one in enumerate(operands) if one.requires_grad]
        if len(live) == len(operands):
            return func(*args, **kwargs)
        step = Joined(lambda every: func(every, *rest, **kwargs), operands, live)
        return run(step, self.ledger, [operands[number] for number in live])

    def _matmul(self, func: Any, args: Any, kwargs: Any, in_place: bool) -> Any:
        tensors = [a for a in _flat(args) if isinstance(a, Tensor)]
        live = [t for t in tensors if t.requires_grad]
        if len(live) > 1:
            # queries and keys: what they make is a gate, and softmax stops there
            return func(*args, **kwargs)
        x = live[0]

        def linear(x_: Tensor) -> Tensor:
            return func(*_replaced(args, x, x_), **kwargs)  # type: ignore[no-any-return]

        return run(Share([linear], None, self.settings.epsilon), self.ledger, [x])

    def _attention(self, func: Any, args: Any, kwargs: Any, in_place: bool) -> Any:
        names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        with torch.no_grad():
            weights = open_attention(
                given["query"], given["key"], given.get("attn_mask"), given.get("is_causal", False),
                given.get("scale"), given.get("enable_gqa", False),
            )  # fmt: skip
        value = given["value"]
        if not value.requires_grad:
            return weights @ value
        repeats = given["query"].shape[-3] // value.shape[-3] if given.get("enable_gqa") else 1
        step = Share([lambda v: weights @ v.repeat_interleave(repeats, -3)], None, self.settings.epsilon)
        return run(step, self.ledger, [value])

    def _heads(self, func: Any, args: Any, kwargs: Any, in_place: bool) -> Any:
        """``nn.MultiheadAttention``: the attention is a gate, the values go through their two linear maps."""
        query, key, value, _, heads, weight, bias = args[:7]
        out_weight, out_bias = args[11], args[12]
        if weight is None or query.shape != key.shape or value.shape != key.shape:
            self.unknown.add("cross attention")
            return func(*args, **kwargs)
        with torch.no_grad():
            named = {**kwargs, "need_weights": True, "average_attn_weights": False}
            weights: Tensor = func(*args[:17], **named)[1].detach()
        width = value.shape[-1]
        values = self._linear(value, weight[2 * width :], None if bias is None else bias[2 * width :])
        tokens, batch = value.shape[:2]  # the sequence comes first here

        def attend(v: Tensor) -> Tensor:
            split = v.reshape(tokens, batch, heads, width // heads).permute(1, 2, 0, 3)
            return (weights @ split).permute(2, 0, 1, 3).reshape(tokens, batch, width)  # type: ignore[no-any-return]

        mixed = run(Share([attend], None, self.settings.epsilon), self.ledger, [values], batch_dim=1)
        out = self._linear(mixed, out_weight, out_bias)
        return out, (weights.mean(1) if kwargs.get("need_weights", True) else None)

    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rule = self.settings.rule(convolution=False, first=False)
        step = Linear(F.linear, x, weight.detach(), None if bias is None else bias.detach(), rule, self.settings, 0,
                      False)  # fmt: skip
        return weighted_step(step, self.ledger, batch_dim=1)


def _times(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda x: x * factor


def _flat(values: Any) -> list[Any]:
    found = []
    for value in values:
        found.extend(_flat(value) if isinstance(value, (list, tuple)) else [value])
    return found


def _replaced(value: Any, old: Tensor, new: Tensor) -> Any:
    if value is old:
        return new
    return type(value)(_replaced(item, old, new) for item in value) if isinstance(value, (list, tuple)) else value


def _per_channel(constant: Tensor, x: Tensor) -> bool:
    """Whether a constant has one value per channel of ``[B, C, h, w]``."""
    return x.ndim == constant.ndim == 4 and constant.shape[1] == x.shape[1] and constant.numel() == x.shape[1]


def _norm_shift(name: str, x: Tensor, args: Any, kwargs: Any) -> Tensor:
    """What a norm gives where its input has no variance: its bias, broadcast to the output."""
    position = {"layer_norm": 3, "group_norm": 3, "instance_norm": 4, "rms_norm": 99}[name]
    bias = kwargs.get("bias", args[position] if len(args) > position else None)
    if bias is None:
        return torch.zeros_like(x.detach())
    if name == "layer_norm":
        return bias.detach().expand_as(x)  # type: ignore[no-any-return]
    return bias.detach().view(1, -1, *[1] * (x.ndim - 2)).expand_as(x)  # type: ignore[no-any-return]


def _norm_parts(name: str, x: Tensor, args: Any) -> tuple[Callable[[Tensor], Any], Tensor]:
    """The centre that a norm subtracts, as a function, and the centred input."""
    if name == "rms_norm":
        return (lambda x: 0.0), x
    if name == "layer_norm":
        dims = tuple(range(-len(args[1]), 0))

        def centre(x: Tensor) -> Tensor:
            return x.mean(dims, keepdim=True)
    else:
        groups = args[1] if name == "group_norm" else x.shape[1]

        def centre(x: Tensor) -> Tensor:
            grouped = x.reshape(x.shape[0], groups, -1)
            return grouped.mean(2, keepdim=True).expand_as(grouped).reshape(x.shape)

    return centre, x - centre(x)


@dataclass(frozen=True, eq=False)
class Relevance(Dedicated):
    """The relevance of every input value, ``[B, C, H, W]``; ``ledger`` is filled with where the rest went."""

    settings: Settings
    ledger: Ledger = field(default_factory=Ledger)

    def answer(self, runner: Runner, inputs: Tensor, target: Scorer) -> Tensor:
        """One forward and one backward."""
        mode = Relevant(self.settings, self.ledger)
        self.ledger.begin(len(inputs))
        # what depends on parameters alone (a class token) counts as a bias
        with constant_parameters(runner.network), mode:
            recorded = runner.record(inputs, layers=target.layers, followed=True)
            with torch.enable_grad():
                score = target.score(recorded.output, recorded.live(), recorded.rows)
        if not isinstance(score, Tensor) or not score.requires_grad:
            raise MethodRefused(
                "The score has no gradient, and so no relevance can be handed back: use occlusion or rise."
            )
        runner.backwards += 1
        (found,) = torch.autograd.grad(score, recorded.leaf, grad_outputs=score.detach(), allow_unused=True)
        if found is None:
            found = torch.zeros_like(recorded.leaf)
        self.ledger.unknown |= mode.unknown
        self.ledger.end(score.detach(), found)
        return found.detach()


__all__ = ["Relevance", "Relevant", "Rule", "Settings"]

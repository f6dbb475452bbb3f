"""DeepLIFT's multipliers without touching a module: what each operation makes of the difference from a reference.

Shrikumar, Greenside, Kundaje: Learning Important Features Through Propagating Activation Differences. ICML 2017; with
several references it is Deep SHAP (Lundberg & Lee: A Unified Approach to Interpreting Model Predictions. NeurIPS 2017).

One forward runs on pictures and references side by side, ``[x; x₀]``. A function mode gives every nonlinear operation a
backward pass whose multipliers m satisfy Σ m_in·Δin = Σ m_out·Δout exactly: elementwise functions by Δy/Δx, products by
the mean of the other factor, max pooling by where the two maxima lie, everything else by the mean gradient on the
straight line between the two (which is exact up to the quadrature). Linear operations are their own multipliers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ...errors import MethodRefused
from ..passes.needs import Dedicated
from ..passes.untouched import constant_parameters
from .attention import open_attention
from .operations import ACTIVATIONS, aside, in_place, name_of, positional

if TYPE_CHECKING:
    from ..passes.needs import Scorer
    from ..passes.runner import Runner

_ELEMENTWISE = ACTIVATIONS | {
    "exp", "log", "sqrt", "rsqrt", "pow", "square", "abs", "sin", "cos", "log1p", "expm1", "reciprocal", "erf",
}  # fmt: skip
_JOINT = {"softmax", "log_softmax", "layer_norm", "group_norm", "instance_norm", "rms_norm", "normalize", "logsumexp",
          "norm", "cosine_similarity", "glu", "local_response_norm", "lp_pool2d", "var", "std"}  # fmt: skip
_PRODUCTS = {"mul", "imul", "rmul", "multiply"}
_MAXIMA = {"max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d",
           "adaptive_max_pool3d"}  # fmt: skip
#: below this difference the quotient is noise: the gradient stands in
_TINY = 1e-6


class Differences(TorchFunctionMode):
    """Inside the block batches are ``[x; x₀]`` and backward passes carry multipliers."""

    def __init__(self, nodes: int) -> None:
        super().__init__()
        self.nodes = nodes

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [a for a in _flat((*args, *kwargs.values())) if isinstance(a, Tensor) and a.requires_grad]
        if not tensors or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        args, kwargs = positional(func, args, kwargs)
        name = name_of(func)
        step = self._step(func, name, args, kwargs, tensors)
        if step is None:
            return func(*args, **kwargs)
        # an operand that is written in place becomes the result: kept with its own step it would never be freed
        operands, step.operands = step.operands, []
        out = _Multiplied.apply(step, in_place(func, args, kwargs), *operands)  # type: ignore[no-untyped-call]
        return out

    def _step(self, func: Any, name: str, args: Any, kwargs: Any, live: list[Tensor]) -> _Step | None:
        if name in _ELEMENTWISE:
            return _Step("elementwise", aside(func, args, kwargs), live[:1], self.nodes)
        if name in _JOINT and len(live) == 1:
            return _Step("joint", aside(func, args, kwargs), live, self.nodes)
        if name in _PRODUCTS and len(live) == 2:
            return _Step("product", torch.mul, live, self.nodes)
        if (
            name in ("matmul", "bmm", "rmatmul")
            and len(live) == 2
            and all(t.shape[0] == live[0].shape[0] for t in live)
        ):
            return _Step("product", torch.matmul, live, self.nodes)
        if name in ("div", "truediv", "divide", "true_divide", "itruediv") and any(args[1] is t for t in live):
            if len(live) == 2:
                return _Step("joint2", torch.div, live, self.nodes)
            return _Step("elementwise", lambda x: args[0] / x, live, self.nodes)
        if name in _MAXIMA and not _wants_indices(args, kwargs):
            pooled = shared_maxima(args[0], args[1:], kwargs) if name == "max_pool2d" else None
            return _Step("maxima", pooled or aside(func, args, kwargs), live[:1], self.nodes)
        if name == "scaled_dot_product_attention":
            return self._attention(args, kwargs)
        if func is F.multi_head_attention_forward:
            raise MethodRefused(
                "Deep SHAP has no rule for torch.nn.MultiheadAttention's fused forward: use gradient-shap."
            )
        return None

    def _attention(self, args: Any, kwargs: Any) -> _Step:
        names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        rest = [
            given.get("attn_mask"),
            given.get("is_causal", False),
            given.get("scale"),
            given.get("enable_gqa", False),
        ]

        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return open_attention(query, key, *rest) @ value

        return _Step("joint3", attend, [given["query"], given["key"], given["value"]], self.nodes)


def shared_maxima(x: Tensor, rest: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    """``max_pool2d`` whose gradient goes to all cells that tie, in equal shares.

    The usual one goes to the first of them, so that a mirrored picture would not get the mirrored map: on a flat
    background every window ties.
    """
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    given = {**dict(zip(names, rest, strict=False)), **kwargs}
    kernel = _pair(given["kernel_size"])
    stride = _pair(given.get("stride") or kernel)
    padding, dilation = _pair(given.get("padding", 0)), _pair(given.get("dilation", 1))
    ceil = bool(given.get("ceil_mode", False))

    def apply(x: Tensor) -> Tensor:
        batch, channels = x.shape[0] if x.ndim == 4 else 1, x.shape[-3]
        with torch.no_grad():
            size = F.max_pool2d(x.detach(), kernel, stride, padding, dilation, ceil).shape[-2:]
        reach = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(size, stride, dilation, kernel, strict=True)]
        after = [max(0, r - p - length) for r, p, length in zip(reach, padding, x.shape[-2:], strict=True)]
        low = torch.finfo(x.dtype).min
        wide = F.pad(x, (padding[1], after[1], padding[0], after[0]), value=low)[..., : reach[0], : reach[1]]
        cells = F.unfold(wide.reshape(batch * channels, 1, *reach), kernel, dilation, 0, stride)
        return cells.amax(1).reshape(*x.shape[:-2], *size)

    return apply


def _pair(value: Any) -> tuple[int, int]:
    return (int(value[0]), int(value[-1])) if isinstance(value, (list, tuple)) else (int(value), int(value))


def _wants_indices(args: Any, kwargs: Any) -> bool:
    return bool(kwargs.get("return_indices", False)) or (bool(args) and args[-1] is True)


def _flat(values: Any) -> list[Any]:
    found = []
    for value in values:
        found.extend(_flat(value) if isinstance(value, (list, tuple)) else [value])
    return found


@dataclass(eq=False)
class _Step:
    kind: str
    apply: Callable[..., Tensor]
    operands: list[Tensor]
    nodes: int

    def back(self, xs: list[Tensor], m: Tensor) -> list[Tensor]:
        """Multipliers of the operands ``[x; x₀]`` from those of the output; zero for the references' half."""
        half = len(m) // 2
        here, there = [x[:half] for x in xs], [x[half:] for x in xs]
        m = m[:half]
        if self.kind == "elementwise":
            found = [self._quotient(here[0], there[0], m)]
        elif self.kind == "maxima":
            found = [self._maxima(here[0], there[0], m)]
        elif self.kind == "product":
            found = self._gradients([(a + b) / 2 for a, b in zip(here, there, strict=True)], m)
        else:
            found = self._path(here, there, m)
        return [torch.cat([one, torch.zeros_like(one)]) for one in found]

    def _gradients(self, xs: list[Tensor], m: Tensor) -> list[Tensor]:
        leaves = [x.detach().requires_grad_() for x in xs]
        return list(torch.autograd.grad(self.apply(*leaves), leaves, m))

    def _path(self, here: list[Tensor], there: list[Tensor], m: Tensor) -> list[Tensor]:
        """The mean gradient on the straight line, by Gauss-Legendre quadrature."""
        at, weights = np.polynomial.legendre.leggauss(self.nodes)
        total = [torch.zeros_like(x) for x in here]
        for place, weight in zip((at + 1) / 2, weights / 2, strict=True):
            found = self._gradients([b + (a - b) * place for a, b in zip(here, there, strict=True)], m)
            total = [t + g * weight for t, g in zip(total, found, strict=True)]
        return total

    def _quotient(self, here: Tensor, there: Tensor, m: Tensor) -> Tensor:
        change = here - there
        with torch.no_grad():
            rise = self.apply(here) - self.apply(there)
        (gradient,) = self._gradients([(here + there) / 2], m)
        return torch.where(change.abs() > _TINY, m * rise / change, gradient)

    def _maxima(self, here: Tensor, there: Tensor, m: Tensor) -> Tensor:
        """Each maximum's change in two parts, each given to the place where its end of the change lies."""
        a, b = here.detach().requires_grad_(), there.detach().requires_grad_()
        top, low = self.apply(a), self.apply(b)
        between = torch.maximum(top, low).detach()
        (up,) = torch.autograd.grad(top, a, m * (between - low).detach(), retain_graph=True)
        (down,) = torch.autograd.grad(low, b, m * (top.detach() - between))
        change = here - there
        return torch.where(change.abs() > _TINY, (up + down) / change, torch.zeros_like(change))


class _Multiplied(torch.autograd.Function):
    """The operation forwards, DeepLIFT's multipliers backwards."""

    @staticmethod
    def forward(ctx: Any, step: _Step, in_place: bool, *xs: Tensor) -> Tensor:
        ctx.step, ctx.kept = step, [x.detach().clone() for x in xs]
        value = step.apply(*ctx.kept)
        if in_place:
            xs[0].copy_(value)
            ctx.mark_dirty(xs[0])
            return xs[0]
        return value

    @staticmethod
    def backward(ctx: Any, m: Tensor) -> Any:  # type: ignore[override]
        with torch.enable_grad():
            return (None, None, *ctx.step.back(ctx.kept, m.detach()))


@dataclass(frozen=True, eq=False)
class Multipliers(Dedicated):
    """DeepLIFT's contributions ``[B, C, H, W]``, the mean over ``references`` ``[K, C, H, W]``.

    ``differences`` is filled with score(x) − mean score(reference), ``[B]``.
    """

    references: Tensor
    nodes: int = 8
    differences: list[Tensor] = field(default_factory=list)

    def answer(self, runner: Runner, inputs: Tensor, target: Scorer) -> Tensor:
        """One forward and one backward for each reference, on twice the pictures."""
        size = len(inputs)
        total = torch.zeros_like(inputs)
        difference = torch.zeros(size)
        rows = torch.arange(size).repeat(2)
        for reference in self.references:
            there = reference[None].to(inputs).expand_as(inputs)
            with constant_parameters(runner.network), Differences(self.nodes):
                recorded = runner.record(torch.cat([inputs, there]), layers=target.layers, rows=rows, followed=True)
                with torch.enable_grad():
                    score = target.score(recorded.output, recorded.live(), rows)
            if not score.requires_grad:
                raise MethodRefused("The score has no gradient, so there are no multipliers: use occlusion or rise.")
            runner.backwards += 1
            (found,) = torch.autograd.grad(score[:size].sum(), recorded.leaf, allow_unused=True)
            if found is not None:
                total += found[:size] * (inputs - there)
            score = score.detach().float().cpu()
            difference += score[:size] - score[size:]
        self.differences.append(difference / len(self.references))
        return total / len(self.references)

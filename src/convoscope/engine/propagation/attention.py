"""Attention probabilities of a transformer's forward, whichever way it computes them, and their gradients.

Fused kernels (``scaled_dot_product_attention``, ``nn.MultiheadAttention``) never write the probabilities down. A
function mode computes them openly for one forward, softmax(QKᵀ/√d + mask), which gives the same output, and keeps
them. No module is changed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ...errors import MethodRefused
from ..passes.needs import Dedicated
from ..passes.untouched import constant_parameters

if TYPE_CHECKING:
    from ..passes.needs import Scorer
    from ..passes.runner import Runner

Heads = Literal["mean", "max", "min", "gradient"]
_SOFTMAX = (torch.softmax, Tensor.softmax, F.softmax)


@dataclass
class Attended:
    """The probabilities of one attention, ``[B·, heads, queries, keys]``, and where their gradient arrives."""

    values: Tensor
    edge: GradientEdge | None


class OpenAttention(TorchFunctionMode):
    """Inside the block attention is computed openly; ``found`` holds the probabilities in order."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Attended] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._attend(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            return self._multi_head(func, args, kwargs)
        out = func(*args, **kwargs)
        if func in _SOFTMAX and isinstance(out, Tensor) and out.ndim in (3, 4) and out.shape[-1] > 1:
            dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
            if dim in (-1, out.ndim - 1):
                self._keep(out, get_gradient_edge(out) if out.requires_grad else None)
        return out

    def _keep(self, values: Tensor, edge: GradientEdge | None) -> None:
        self.found.append(Attended(values.detach(), edge))

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """What the fused kernel computes (dropout is off in evaluation mode)."""
        weights = open_attention(query, key, attn_mask, is_causal, scale, enable_gqa)
        self._keep(weights, get_gradient_edge(weights) if weights.requires_grad else None)
        if enable_gqa:
            value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
        return weights @ value

    def _multi_head(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        wanted = kwargs.get("need_weights", args[17] if len(args) > 17 else True)
        averaged = kwargs.get("average_attn_weights", True)
        given = list(args)
        if len(given) > 17:
            given[17] = True
        else:
            kwargs = {**kwargs, "need_weights": True}
        out, weights = func(*given, **{**kwargs, "average_attn_weights": False})
        # what is returned is a view of the probabilities, beside the way to the output: the gradient arrives before it
        node = weights.grad_fn
        edge = None
        if node is not None:
            before, number = node.next_functions[0]
            edge = GradientEdge(before, number)
        self._keep(weights, edge)
        if not wanted:
            return out, None
        return out, weights.mean(1) if averaged else weights


def open_attention(
    query: Tensor,
    key: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(QKᵀ·scale + mask), ``[..., queries, keys]``: what ``scaled_dot_product_attention`` weighs values by."""
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), float("-inf"))
    if attn_mask is not None:
        scores = (
            scores.masked_fill(~attn_mask, float("-inf")) if attn_mask.dtype == torch.bool else scores + attn_mask
        )
    return scores.softmax(-1)


@dataclass(frozen=True, eq=False)
class Attention(Dedicated):
    """Attention of every layer, ``[L, B, N, N]`` (rows attend to columns), its heads made one.

    ``heads``: the ``mean``, ``max`` or ``min`` over heads, or ``gradient``: the mean over heads of the positive part
    of attention × gradient of the score (Chefer, Gur, Wolf. ICCV 2021).
    """

    heads: Heads = "mean"

    def answer(self, runner: Runner, inputs: Tensor, target: Scorer) -> Tensor:
        """One forward, and a backward where gradients are asked for. Refuses networks without global attention."""
        gradients = self.heads == "gradient"
        mode = OpenAttention()
        with constant_parameters(runner.network), mode:
            recorded = runner.record(inputs, layers=target.layers, gradients=True, followed=True)
        # of two towers (CLIP) one reads the text: no picture changes what it attends to
        attended = [one for one in mode.found if one.edge is not None] or mode.found
        _check(attended, len(inputs))
        if not gradients:
            return torch.stack([self._one(one.values, len(inputs), None) for one in attended])
        with torch.enable_grad():
            score = target.score(recorded.output, recorded.live(), recorded.rows)
        if not score.requires_grad:
            raise MethodRefused("The score has no gradient here: attention-rollout needs none.")
        edges = [one.edge for one in attended]
        if any(edge is None for edge in edges):
            raise MethodRefused("The attention is not part of the gradient graph: use attention-rollout.")
        runner.backwards += 1
        found = torch.autograd.grad(score.sum(), edges, allow_unused=True)  # type: ignore[arg-type]
        return torch.stack([self._one(a.values, len(inputs), g) for a, g in zip(attended, found, strict=True)])

    def _one(self, values: Tensor, batch: int, gradient: Tensor | None) -> Tensor:
        size = values.shape[-1]
        values = values.reshape(batch, -1, size, size)
        if self.heads == "gradient":
            if gradient is None:
                return torch.zeros((batch, size, size))
            return (values * gradient.reshape(values.shape)).clamp(min=0).mean(1).float().cpu()
        if self.heads == "mean":
            return values.mean(1).float().cpu()
        return (values.amax(1) if self.heads == "max" else values.amin(1)).float().cpu()


def _check(found: list[Attended], batch: int) -> None:
    """Raises :class:`MethodRefused` where the attentions do not chain from the tokens to the tokens."""
    if not found:
        raise MethodRefused(
            "This network has no attention: attention maps are for vision transformers. Use grad-cam, which fits any."
        )
    sizes = {tuple(one.values.shape[-2:]) for one in found}
    rows = {one.values.shape[0] for one in found if one.values.ndim == 4}
    if rows - {batch}:
        raise MethodRefused(
            "This network attends within windows (as Swin does), so no attention leads from one window to another and "
            "there is nothing to roll out: use grad-cam, which fits any network."
        )
    if len(sizes) > 1 or any(a != b for a, b in sizes):
        raise MethodRefused(
            "This network's attentions have different numbers of tokens (pooled keys, stages, or class attention), so "
            "they do not chain: use grad-cam, which fits any network."
        )

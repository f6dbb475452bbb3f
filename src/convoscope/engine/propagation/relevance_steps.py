"""The steps of relevance propagation: how one operation hands relevance back, and what it absorbs.

Every step computes what the operation computes. Backwards, with z the output, R its relevance and s = R / z:

=========  =====================================================================================
epsilon    ``x · Wᵀs``, z + ε·sign(z) in the denominator (Bach et al. 2015)
z-plus     positive contributions alone: ``x⁺ · W⁺ᵀs + x⁻ · W⁻ᵀs`` (Montavon et al. 2017)
gamma      positive contributions favoured by a factor 1 + γ (Montavon et al. 2019), for inputs of either sign
           (Andéol et al. 2021)
z-box      for inputs in a box [l, h]: ``x · Wᵀs − l · W⁺ᵀs − h · W⁻ᵀs`` (Montavon et al. 2017)
flat       the same share for every input (Lapuschkin et al. 2019)
=========  =====================================================================================

What biases and stabilisers keep is counted picture by picture, so that conservation can be checked to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

Rule = Literal["epsilon", "z-plus", "gamma", "z-box", "flat"]
Apply = Callable[[Tensor, Tensor, "Tensor | None"], Tensor]


@dataclass(frozen=True, eq=False)
class Settings:
    """The rule of convolutions, of linear layers and of the first layer, and the rules' constants.

    ``low`` and ``high`` ``[1, C, 1, 1]`` bound the input for z-box. ``stabiliser`` is ε in all rules but epsilon.
    """

    convolutions: Rule = "epsilon"
    linears: Rule = "epsilon"
    first: Rule | None = None
    epsilon: float = 1e-6
    gamma: float = 0.25
    stabiliser: float = 1e-6
    low: Tensor | None = None
    high: Tensor | None = None

    def rule(self, *, convolution: bool, first: bool) -> Rule:
        """The rule of a layer."""
        if first and self.first is not None and (convolution or self.first != "z-box"):
            return self.first
        return self.convolutions if convolution else self.linears


@dataclass(eq=False)
class Ledger:
    """Where a score's relevance went, one figure a picture: the input, biases, stabilisers."""

    score: Tensor = field(default_factory=lambda: torch.zeros(0))
    arrived: Tensor = field(default_factory=lambda: torch.zeros(0))
    biases: Tensor = field(default_factory=lambda: torch.zeros(0))
    stabilisers: Tensor = field(default_factory=lambda: torch.zeros(0))
    unknown: set[str] = field(default_factory=set)
    batch: int = 1

    def begin(self, batch: int) -> None:
        """Start counting for a batch."""
        self.batch = batch
        self.biases, self.stabilisers = (torch.zeros(batch, dtype=torch.float64) for _ in range(2))

    def absorb(self, bias: Tensor | None, stabiliser: Tensor, dim: int = 0) -> None:
        """Count what a step kept."""
        if bias is not None:
            self.biases += self.by_picture(bias, dim)
        self.stabilisers += self.by_picture(stabiliser, dim)

    def by_picture(self, values: Tensor, dim: int = 0) -> Tensor:
        """Sums ``[B]`` of ``[k·B, ...]``; the mean share where rows cannot be told apart."""
        values = values.detach().double().cpu().movedim(dim, 0) if values.ndim > dim else values.detach().double()
        if values.ndim and len(values) % self.batch == 0:
            return values.reshape(self.batch, -1).sum(1)
        return values.sum().expand(self.batch) / self.batch

    def end(self, score: Tensor, relevance: Tensor) -> None:
        """What there was, and what arrived at the input."""
        self.score = score.double().cpu()
        self.arrived = self.by_picture(relevance)

    @property
    def residual(self) -> Tensor:
        """|score − arrived − absorbed| as a share of |score|, ``[B]``."""
        lost = self.score - self.arrived - self.biases - self.stabilisers
        return lost.abs() / self.score.abs().clamp(min=1e-12)


def stabilised(values: Tensor, epsilon: float) -> Tensor:
    """z + ε·sign(z), with sign(0) = 1."""
    return values + torch.where(values >= 0, epsilon, -epsilon)


def _ratio(relevance: Tensor, denominator: Tensor) -> Tensor:
    # ε = 0 leaves zeros in the denominator: what contributes nothing gets nothing
    return torch.where(denominator == 0, torch.zeros_like(relevance), relevance / denominator)


class _Step(torch.autograd.Function):
    """The operation's value forwards, relevance backwards."""

    @staticmethod
    def forward(ctx: Any, step: Any, ledger: Ledger, dim: int, in_place: bool, *xs: Tensor) -> Tensor:
        kept = [x.detach().clone() for x in xs]  # the network may overwrite them later
        ctx.step, ctx.ledger, ctx.kept, ctx.dim = step, ledger, kept, dim
        value: Tensor = step.value(*kept)
        if in_place:
            xs[0].copy_(value)
            ctx.mark_dirty(xs[0])
            return xs[0]
        return value

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> Any:  # type: ignore[override]
        with torch.enable_grad():
            found = ctx.step.back(ctx.kept, relevance.detach(), ctx.ledger, ctx.dim)
        return (None, None, None, None, *found)


class _Passed(torch.autograd.Function):
    """A value forwards; backwards all relevance, summed where the input was broadcast."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, in_place: bool, share: float) -> Tensor:
        ctx.shape, ctx.share = x.shape, share
        if in_place:
            x.copy_(value)
            ctx.mark_dirty(x)
            return x
        return value.clone()

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> Any:  # type: ignore[override]
        return relevance.sum_to_size(ctx.shape) * ctx.share, None, None, None


def passed(x: Tensor, value: Tensor, in_place: bool, share: float = 1.0) -> Tensor:
    """``value`` computed from ``x``, whose relevance (or a ``share`` of it) goes to ``x`` as it is."""
    out: Tensor = _Passed.apply(x, value, in_place, share)  # type: ignore[no-untyped-call]
    return out


def run(
    step: Share | Joined, ledger: Ledger, xs: Sequence[Tensor], in_place: bool = False, batch_dim: int = 0
) -> Tensor:
    """Run a step on its live operands."""
    out: Tensor = _Step.apply(step, ledger, batch_dim, in_place, *xs)  # type: ignore[no-untyped-call]
    return out


@dataclass(eq=False)
class Joined:
    """Operands put side by side (``cat``, ``stack``): each takes its own; what is constant counts as a bias."""

    join: Callable[[list[Tensor]], Tensor]
    operands: list[Tensor]
    live: list[int]

    def value(self, *xs: Tensor) -> Tensor:
        return self.join(self._filled(xs))

    def back(self, xs: list[Tensor], relevance: Tensor, ledger: Ledger, dim: int) -> list[Tensor]:
        every = [x.detach().requires_grad_() for x in self._filled(xs)]
        shares = torch.autograd.grad(self.join(every), every, relevance)
        for number, share in enumerate(shares):
            if number not in self.live:
                ledger.absorb(share, torch.zeros_like(share), dim)
        return [shares[number] for number in self.live]

    def _filled(self, xs: Sequence[Tensor]) -> list[Tensor]:
        every = [operand.detach() for operand in self.operands]
        for number, x in zip(self.live, xs, strict=True):
            every[number] = x
        return every


@dataclass(eq=False)
class Share:
    """A sum of linear functions of several operands plus a constant: each gets what it contributed."""

    parts: list[Callable[[Tensor], Tensor]]
    constant: Any
    epsilon: float

    def value(self, *xs: Tensor) -> Tensor:
        total = self.parts[0](xs[0])
        for part, x in zip(self.parts[1:], xs[1:], strict=True):
            total = total + part(x)
        return total if self.constant is None else total + self.constant

    def back(self, xs: list[Tensor], relevance: Tensor, ledger: Ledger, dim: int) -> list[Tensor]:
        xs = [x.requires_grad_() for x in xs]
        outs = [part(x) for part, x in zip(self.parts, xs, strict=True)]
        z = sum(out.detach() for out in outs)
        if self.constant is not None:
            z = z + self.constant
        assert isinstance(z, Tensor)
        denominator = stabilised(z, self.epsilon)
        s = _ratio(relevance, denominator)
        found = []
        for x, out in zip(xs, outs, strict=True):
            (gradient,) = torch.autograd.grad(out, x, s.sum_to_size(out.shape))
            found.append((x * gradient).detach())
        bias = None
        if self.constant is not None:
            fixed = self.constant if isinstance(self.constant, Tensor) else torch.as_tensor(float(self.constant))
            bias = s * fixed.detach().to(s)
        ledger.absorb(bias, relevance - s * z, dim)
        return found


@dataclass(eq=False)
class Linear:
    """A convolution or a linear layer: ``apply(x, weight, bias)``, with the rule that hands relevance back."""

    apply: Apply
    x: Tensor
    weight: Tensor
    bias: Tensor | None
    rule: Rule
    settings: Settings
    out_dim: int
    convolution: bool
    mergeable: bool = True

    def scaled(self, scale: Tensor, shift: Tensor) -> Linear:
        """The same layer followed by an affine map per output channel."""
        shape = [1] * self.weight.ndim
        shape[self.out_dim] = -1
        bias = shift if self.bias is None else self.bias * scale + shift
        return replace(self, weight=self.weight * scale.view(shape), bias=bias)

    def value(self, x: Tensor) -> Tensor:
        return self.apply(x, self.weight, self.bias)

    def back(self, xs: list[Tensor], relevance: Tensor, ledger: Ledger, dim: int) -> list[Tensor]:
        return [getattr(self, "_" + self.rule.replace("-", "_"))(xs[0], relevance, ledger, dim)]

    def _terms(self, terms: Sequence[tuple[Tensor, Tensor, Tensor | None]]) -> tuple[list[Tensor], list[Tensor]]:
        """The inputs as leaves and the outputs of several weighings."""
        leaves = [x.detach().requires_grad_() for x, _, _ in terms]
        return leaves, [self.apply(leaf, w, b) for leaf, (_, w, b) in zip(leaves, terms, strict=True)]

    def _back(self, leaf: Tensor, out: Tensor, s: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(out, leaf, s, retain_graph=True)
        return gradient

    def _bias_share(self, bias: Tensor | None, s: Tensor) -> Tensor | None:
        if bias is None:
            return None
        shape = (1, -1, *[1] * (s.ndim - 2)) if self.convolution else (-1,)
        return s * bias.view(shape)

    def _epsilon(self, x: Tensor, relevance: Tensor, ledger: Ledger, dim: int) -> Tensor:
        (leaf,), (z,) = self._terms([(x, self.weight, self.bias)])
        s = _ratio(relevance, stabilised(z.detach(), self.settings.epsilon))
        ledger.absorb(self._bias_share(self.bias, s), relevance - s * z.detach(), dim)
        return x * self._back(leaf, z, s)

    def _z_plus(self, x: Tensor, relevance: Tensor, ledger: Ledger, dim: int) -> Tensor:
        bias = None if self.bias is None else self.bias.clamp(min=0)
        terms = [(x.clamp(min=0), self.weight.clamp(min=0), bias), (x.clamp(max=0), self.weight.clamp(max=0), None)]
        leaves, outs = self._terms(terms)
        z = sum(out.detach() for out in outs)
        assert isinstance(z, Tensor)
        s = _ratio(relevance, stabilised(z, self.settings.stabiliser))
        ledger.absorb(self._bias_share(bias, s), relevance - s * z, dim)
        return sum(leaf.detach() * self._back(leaf, out, s) for leaf, out in zip(leaves, outs, strict=True))  # type: ignore[return-value]

    def _gamma(self, x: Tensor, relevance: Tensor, ledger: Ledger, dim: int) -> Tensor:
        gamma, weight, bias = self.settings.gamma, self.weight, self.bias
        more, less = weight + gamma * weight.clamp(min=0), weight + gamma * weight.clamp(max=0)
        up = None if bias is None else bias + gamma * bias.clamp(min=0)
        down = None if bias is None else bias + gamma * bias.clamp(max=0)
        above, below = x.clamp(min=0), x.clamp(max=0)
        leaves, outs = self._terms([(above, more, up), (below, less, None), (above, less, down), (below, more, None)])
        z = self.value(x.detach())
        total = torch.zeros_like(x)
        kept = relevance.clone()
        bias_share = torch.zeros_like(relevance)
        for side, pair, added in ((z > 0, slice(0, 2), up), (z < 0, slice(2, 4), down)):
            sums = sum(out.detach() for out in outs[pair])
            assert isinstance(sums, Tensor)
            s = _ratio(relevance, stabilised(sums, self.settings.stabiliser)) * side
            kept = kept - s * sums
            share = self._bias_share(added, s)
            bias_share = bias_share if share is None else bias_share + share
            for leaf, out in zip(leaves[pair], outs[pair], strict=True):
                total = total + leaf.detach() * self._back(leaf, out, s)
        ledger.absorb(bias_share, kept, dim)
        return total

    def _z_box(self, x: Tensor, relevance: Tensor, ledger: Ledger, dim: int) -> Tensor:
        assert self.settings.low is not None
        assert self.settings.high is not None
        low, high = (bound.to(x).expand_as(x) for bound in (self.settings.low, self.settings.high))
        parts = [None, None] if self.bias is None else [self.bias.clamp(min=0), self.bias.clamp(max=0)]
        leaves, outs = self._terms(
            [(x, self.weight, self.bias), (low, self.weight.clamp(min=0), parts[0]),
             (high, self.weight.clamp(max=0), parts[1])]
        )  # fmt: skip
        z = (outs[0] - outs[1] - outs[2]).detach()
        s = _ratio(relevance, stabilised(z, self.settings.stabiliser))
        ledger.absorb(None, relevance - s * z, dim)  # the biases cancel
        shares = [leaf.detach() * self._back(leaf, out, s) for leaf, out in zip(leaves, outs, strict=True)]
        return shares[0] - shares[1] - shares[2]

    def _flat(self, x: Tensor, relevance: Tensor, ledger: Ledger, dim: int) -> Tensor:
        (leaf,), (z,) = self._terms([(torch.ones_like(x), torch.ones_like(self.weight), None)])
        s = _ratio(relevance, stabilised(z.detach(), self.settings.stabiliser))
        ledger.absorb(None, relevance - s * z.detach(), dim)
        return self._back(leaf, z, s)


def weighted(step: Linear, ledger: Ledger, batch_dim: int = 0) -> Tensor:
    """Run a weighted layer's step."""
    out: Tensor = _Step.apply(step, ledger, batch_dim, False, step.x)  # type: ignore[no-untyped-call]
    return out

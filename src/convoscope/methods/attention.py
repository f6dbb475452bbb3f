"""Attention maps of vision transformers: which tokens the class token has come to hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..errors import MethodRefused
from .base import About, Maps, Method, Query, setting

if TYPE_CHECKING:
    from torch import Tensor

    from .base import Steps


@dataclass(frozen=True)
class AttentionRollout(Method):
    """Attention multiplied through all layers, half of each layer being its residual path (Abnar & Zuidema 2020).

    The row of the class token; without one, the mean over all tokens' rows (as the network pools them).
    """

    about: ClassVar[About] = About(
        name="attention-rollout",
        title="Attention rollout",
        shows="how much of each patch attention has carried to the class token, whatever the target",
        paper="Abnar, Zuidema: Quantifying Attention Flow in Transformers. ACL 2020",
        bibtex=(
            "@inproceedings{abnar2020quantifying, title={Quantifying Attention Flow in Transformers}, author={Abnar, "
            "Samira and Zuidema, Willem}, booktitle={ACL}, year={2020}}"
        ),
        signed=False,
        unit="share of the class token",
        reduction="product over layers of half attention, half identity",
        cost="2 forwards",
    )
    heads: str = setting("mean", "how heads become one: mean, max or min", choices=("mean", "max", "min"))

    def steps(self, query: Query) -> Steps:
        import torch

        from ..engine.propagation.attention import Attention

        need = Attention(self.heads)  # type: ignore[arg-type]
        got = yield need
        layers = got[need]
        identity = torch.eye(layers.shape[-1])
        rolled = identity.expand(layers.shape[1:])
        for one in layers:
            mixed = 0.5 * one + 0.5 * identity
            rolled = (mixed / mixed.sum(-1, keepdim=True)) @ rolled
        return of_tokens(query, rolled, self.about)


@dataclass(frozen=True)
class AttentionGradient(Method):
    """Attention × its gradient, positive part, averaged over heads and rolled out (Chefer, Gur & Wolf 2021)."""

    about: ClassVar[About] = About(
        name="attention-gradient",
        title="Gradient-weighted attention",
        shows="the patches that attention carried to the class token and that spoke for the target",
        paper="Chefer, Gur, Wolf: Generic Attention-model Explainability. ICCV 2021",
        bibtex=(
            "@inproceedings{chefer2021generic, title={Generic Attention-Model Explainability for Interpreting "
            "Bi-Modal and Encoder-Decoder Transformers}, author={Chefer, Hila and Gur, Shir and Wolf, Lior}, "
            "booktitle={ICCV}, year={2021}}"
        ),
        signed=False,
        unit="relevance",
        reduction="R ← R + E_heads[(A ⊙ ∂score/∂A)⁺] · R over layers",
        cost="2 forwards, 1 backward",
    )

    def steps(self, query: Query) -> Steps:
        import torch

        from ..engine.propagation.attention import Attention

        need = Attention("gradient")
        got = yield need
        layers = got[need]
        relevance = torch.eye(layers.shape[-1]).expand(layers.shape[1:])
        for one in layers:
            relevance = relevance + one @ relevance
        return of_tokens(query, relevance - torch.eye(layers.shape[-1]), self.about)


def of_tokens(query: Query, relevance: Tensor, about: About) -> Maps:
    """The map of ``[B, N, N]``: the class token's row (the mean row without one) over the grid of patches."""
    count = relevance.shape[-1]
    sequences = [
        one for one in query.watched.layers.values()
        if one.prefix_tokens is not None and one.geometry is not None and one.shape[1] == count
    ]  # fmt: skip
    if not sequences:
        raise MethodRefused(
            f"{query.model.name} has {count} tokens whose places in the picture are not known: use grad-cam."
        )
    here = sequences[-1]
    assert here.prefix_tokens is not None
    assert here.geometry is not None
    rows = relevance[:, 0] if here.prefix_tokens else relevance.mean(1)
    grid = rows[:, here.prefix_tokens :].reshape(len(rows), *here.geometry.cells)
    return query.heatmap(grid, at=here.name, signed=False, unit=about.unit, reduction=about.reduction)

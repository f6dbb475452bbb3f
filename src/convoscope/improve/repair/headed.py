"""The head of a network: the layer that makes the scores, its features cached, and the scores made from them again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...engine.passes.untouched import innermost
from ...errors import ModelError
from ...models.formats import laid_out
from ...models.model import Model
from ...models.outputs import logits
from ...session import forward, protected

#: scores made from cached features may differ by so much of the largest
TOLERANCE = 1e-3

#: what lies between a class convolution and the scores
_POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda maps: maps.mean((2, 3)),
    "mean of ReLU": lambda maps: maps.relu().mean((2, 3)),
}


@dataclass(eq=False)
class Head:
    """The last layer with weights, and how its output becomes the scores.

    Args:
        name: of the module, as ``state_dict`` has it.
        weight: float32 ``[K, C]``.
        bias: float32 ``[K]``; None where the layer has none.
        pool: what makes scores ``[B, K]`` of the layer's maps ``[B, K, h, w]``; None for a linear layer.
        pooled: its name.
    """

    name: str
    weight: Tensor
    bias: Tensor | None
    pool: Callable[[Tensor], Tensor] | None = None
    pooled: str = ""

    @property
    def local(self) -> bool:
        """Whether scores are made in each place and pooled afterwards, by something other than a plain mean."""
        return self.pooled == "mean of ReLU"

    def scores(self, features: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """Scores ``[B, K]`` of features ``[B, C]`` (linear) or ``[B, C, h, w]``."""
        weight = self.weight if weight is None else weight
        bias = self.bias if bias is None else bias
        if features.ndim == 2:
            made = features @ weight.T
            return made if bias is None else made + bias
        maps = torch.einsum("bchw,kc->bkhw", features, weight)
        assert self.pool is not None
        return self.pool(maps if bias is None else maps + bias[:, None, None])


#: what a network without such a head can be given instead
INSTEAD = (
    "`--how bn` works on any network that has batch norm; else train it on with the counterexamples "
    "(`docs/improve.md` tells how)."
)


def head_of(model: Model, example: Tensor, instead: str = INSTEAD) -> Head:
    """The head of ``model``, proven on ``example`` ``[B, C, H, W]``: its features make the scores.

    Raises:
        ModelError: there is none that can be fitted by itself; the sentence says what works instead.
    """
    name = model.watched(example.shape[1:]).classifier
    module = None if name is None else dict(innermost(model.module).named_modules()).get(name.split("#")[0])
    refused = (
        f"{model.name} has no head that can be fitted by itself: its scores must come from one linear layer, or from a "
        f"1×1 convolution that is averaged over the picture. {instead}"
    )
    if name is None or module is None or not _fits(module):
        raise ModelError(refused)
    assert isinstance(module, (nn.Linear, nn.Conv2d))
    weight = module.weight.detach().float().cpu().flatten(1).clone()
    bias = None if module.bias is None else module.bias.detach().float().cpu().clone()
    given, scores = _watched(model, module, example)
    for pooled, pool in [("", None), *_POOLS.items()]:
        if (pool is None) != (given.ndim == 2):
            continue
        head = Head(name.split("#")[0], weight, bias, pool, pooled)
        if given.ndim in (2, 4) and _close(head.scores(given), scores):
            return head
    raise ModelError(refused)


def features(model: Model, head: Head, batches: Iterable[Tensor]) -> Tensor:
    """What the head gets of each picture: ``[N, C]``, or ``[N, C, h, w]`` where the places are needed."""
    module = dict(innermost(model.module).named_modules())[head.name]
    found = []
    for inputs in batches:
        given, _ = _watched(model, module, inputs)
        if given.ndim == 4 and not head.local:
            given = given.mean((2, 3))  # the mean and a linear layer can change places
        found.append(given)
    return torch.cat(found)


def _watched(model: Model, module: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    kept: list[Tensor] = []
    dtype = model.dtype if model.dtype.is_floating_point else torch.float32
    inputs = laid_out(model, inputs.to(model.device, dtype))
    with protected(model):
        handle = module.register_forward_pre_hook(
            lambda _, given: kept.append(given[0].detach().float().cpu().clone())
        )
        try:
            output = forward(model, inputs)
        finally:
            handle.remove()
    if len(kept) != 1:
        raise ModelError(f"{model.name} uses its last layer {len(kept)} times: it cannot be fitted by itself.")
    return kept[0], logits(output).detach().float().cpu()


def _fits(module: nn.Module) -> bool:
    if isinstance(module, nn.Linear):
        return True
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and module.groups == 1
        and module.stride == (1, 1)
    )


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and float((a - b).abs().max()) <= TOLERANCE * float(b.abs().max().clamp(min=1e-6))

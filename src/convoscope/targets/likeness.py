"""Why two pictures look alike to the network: similarity and distance of embeddings as targets.

The gradient of a cosine as the score of a class activation map is due to Stylianou, Souvenir & Pless: Visualizing
Deep Similarity Networks. WACV 2019.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..engine.passes.runner import Runner, call_plainly
from ..engine.passes.untouched import untouched
from ..errors import LayerError, TargetError
from .classes import no_such_layer

if TYPE_CHECKING:
    from ..models.model import Model
    from ..pictures.picture import ModelInput


@dataclass(frozen=True)
class Likeness:
    """How alike a picture's embedding is to that of ``to`` (one picture, or several: the mean of the group).

    ``measure``: ``similar`` is the cosine, -1..1; ``distance`` the Euclidean distance of the embeddings. The
    embedding is the pooled input of the classifier; ``layer`` names another one, ``"output"`` takes what the network
    returns (face and image embedding networks).
    """

    to: tuple[Any, ...]
    measure: str = "similar"
    layer: str | None = None

    def wants(self, model: Model) -> tuple[str, ...]:
        """The layers that the score is made of."""
        if self.layer == "output":
            return ()
        watched = model.watched()
        name = self.layer or watched.embedding
        if name is None:
            return ()
        if name not in watched.layers:
            raise LayerError(no_such_layer(name, list(watched.layers)))
        return (name,)

    def resolve(self, model: Model, output: Any, pictures: Sequence[ModelInput]) -> LikenessScorer:
        """The scorer on this batch: the other pictures are embedded once."""
        if not self.to:
            raise TargetError(f"{self.measure}: name at least one other picture.")
        layers = self.wants(model)
        info = model.watched().layers[layers[0]] if layers else None
        last, class_token = info is not None and info.channels_last, info is not None and bool(info.before)
        labels = (self._label(),) * len(pictures)
        scorer = LikenessScorer(torch.zeros(0), labels, self.measure, layers, last, class_token)
        fitted = [model.prepare(other) for other in self.to]
        found = []
        runner = Runner(model.module, model.batch_size, model.call or call_plainly)
        with untouched(model.module, gradients=False):
            for one in fitted:
                recorded = runner.record(model.inputs([one]), layers=layers, gradients=False)
                found.append(scorer.embedding(recorded.output, recorded.live())[0].detach())
        scorer.other = torch.stack(found).mean(0)
        return scorer

    def _label(self) -> str:
        from ..pictures.picture import Picture

        names = [Picture.of(other).name for other in self.to[:2]]
        whom = names[0] if len(self.to) == 1 else f"the mean of {len(self.to)} pictures"
        return f"similar to {whom}" if self.measure == "similar" else f"distance from {whom}"


@dataclass(eq=False)
class LikenessScorer:
    """Cosine or distance between the picture's embedding and a fixed one ``[D]``."""

    other: Tensor
    labels: tuple[str, ...]
    measure: str
    layers: tuple[str, ...]
    channels_last: bool = False
    class_token: bool = False

    def embedding(self, output: Any, layers: Mapping[str, Tensor]) -> Tensor:
        """``[B, D]``: the layer's output pooled over its grid or its tokens; the class token where there is one."""
        if not self.layers:
            from .classes import logits

            return logits(output)
        values = layers[self.layers[0]]
        if values.ndim == 3 and self.class_token:
            return values[:, 0]
        if values.ndim == 3 or (values.ndim == 4 and self.channels_last):
            return values.flatten(1, -2).mean(1)
        return values.flatten(2).mean(2) if values.ndim > 2 else values

    def score(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        mine = self.embedding(output, layers)
        other = self.other.to(mine)
        if mine.shape[-1] != other.shape[-1]:
            raise TargetError("The two pictures have embeddings of different length: give both one input size.")
        if self.measure == "similar":
            cosine: Tensor = F.cosine_similarity(mine, other[None], dim=1)
            return cosine
        distance: Tensor = torch.linalg.vector_norm(mine - other, dim=1)
        return distance

    def probability(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        raise TargetError("A similarity has no probability: use score=logit.")

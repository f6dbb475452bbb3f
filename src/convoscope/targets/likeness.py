"""Why two pictures look alike to the network: similarity and distance of embeddings as targets.

The gradient of a cosine as the score of a class activation map is due to Stylianou, Souvenir & Pless: Visualizing
Deep Similarity Networks. WACV 2019.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import TargetError
from ..models.outputs import logits
from ..pictures.picture import Picture, find_pictures
from .base import Scorer, Target
from .units import layer_of

if TYPE_CHECKING:
    from ..engine.passes.runner import Runner
    from ..models.model import Model
    from ..pictures.picture import ModelInput


@dataclass(frozen=True)
class Likeness(Target):
    """How alike a picture's embedding is to that of ``to`` (one picture, or several: the mean of the group).

    ``measure``: ``similar`` is the cosine, -1..1; ``distance`` the Euclidean distance of the embeddings. The
    embedding is the pooled input of the classifier; ``layer`` names another one, ``"output"`` takes what the network
    returns (face and image embedding networks).
    """

    to: tuple[Any, ...]
    measure: str = "similar"
    layer: str | None = None

    def layers(self, model: Model) -> tuple[str, ...]:
        """The embedding's layer; none where it is what the network returns."""
        if self.layer == "output":
            return ()
        trace = model.watched()
        name = self.layer or trace.embedding
        return () if name is None else (layer_of(trace, name).name,)

    def files(self) -> tuple[Path, ...]:
        return tuple(Path(one) for one in self.to if isinstance(one, (str, Path)))

    def key(self) -> str:
        names = [str(one) if isinstance(one, (str, Path)) else Picture.of(one).sha256 for one in self.to]
        where = "" if self.layer is None else f"@{self.layer}"
        return f"{self.measure}:{','.join(names)}{where}"

    def resolve(self, model: Model, output: Any, pictures: Sequence[ModelInput], runner: Runner) -> LikenessScorer:
        """The scorer on this batch: the other pictures are embedded once a session."""
        if not self.to:
            raise TargetError(f"{self.measure}: name at least one other picture.")
        layers = self.layers(model)
        info = model.watched().layers[layers[0]] if layers else None
        last, class_token = info is not None and info.channels_last, info is not None and bool(info.prefix_tokens)
        others = [Picture.of(one) for one in self._sources()]
        labels = (self._label(others),) * len(pictures)
        scorer = LikenessScorer(torch.zeros(0), labels, self.measure, layers, last, class_token)
        known = runner.memo.get((Likeness, self.key()))
        if known is None:
            found = []
            for other in others:
                inputs = model.inputs([model.prepare(other)])
                recorded = runner.record(inputs, layers=layers, gradients=False)
                found.append(scorer.embedding(recorded.output, recorded.live(), 1)[0].detach())
            known = runner.memo[(Likeness, self.key())] = torch.stack(found).mean(0)
        scorer.other = known
        return scorer

    def _sources(self) -> list[Any]:
        found: list[Any] = []
        for one in self.to:
            found.extend(find_pictures([one]) if isinstance(one, (str, Path)) else [one])
        return found

    def _label(self, others: Sequence[Picture]) -> str:
        whom = others[0].name if len(others) == 1 else f"the mean of {len(others)} pictures"
        return f"similar to {whom}" if self.measure == "similar" else f"distance from {whom}"


@dataclass(eq=False)
class LikenessScorer(Scorer):
    """Cosine or distance between the picture's embedding and a fixed one ``[D]``."""

    other: Tensor
    labels: tuple[str, ...]
    measure: str
    made_of: tuple[str, ...]
    channels_last: bool = False
    class_token: bool = False

    @property
    def layers(self) -> tuple[str, ...]:
        return self.made_of

    def embedding(self, output: Any, layers: Mapping[str, Tensor], count: int) -> Tensor:
        """``[B, D]``: the layer's output pooled over its grid or its tokens; the class token where there is one."""
        if not self.layers:
            return logits(output, count)
        values = layers[self.layers[0]]
        if values.ndim == 3 and self.class_token:
            return values[:, 0]
        if values.ndim == 3 or (values.ndim == 4 and self.channels_last):
            return values.flatten(1, -2).mean(1)
        return values.flatten(2).mean(2) if values.ndim > 2 else values

    def score(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        mine = self.embedding(output, layers, len(rows))
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

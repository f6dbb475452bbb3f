"""What is to be made: targets, pictures and seeds, read and checked before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import LayerError, NotInPicture, TargetError, UsageError
from ..models.model import Model
from ..pictures.picture import Picture
from ..session import Session
from ..targets import ClassTarget, Scorer, Target, TargetLike, parse
from ..targets.classes import ClassScorer
from ..targets.units import no_such_layer
from . import measure


@dataclass(eq=False)
class Item:
    """One picture to be made."""

    label: str
    seed: int
    scorer: Scorer | None
    picture: Picture | None = None
    start: Tensor | None = None
    group: int = 0


@dataclass(eq=False)
class Asked:
    """One call: its objective, and how its targets become items."""

    model: Model
    objective: str
    layer: str | None
    seed: int
    copies: int

    def items(self, targets: Any, image: Any, size: tuple[int, int]) -> list[Item]:
        images = [
            Picture.of(one) for one in (image if isinstance(image, (list, tuple)) else [image]) if one is not None
        ]
        needs = self.objective != "score"
        if needs and not images:
            raise UsageError(f"The objective {self.objective} needs a picture: image= (--image FILE).")
        # float32 also for a float16 network: small steps are lost otherwise
        starts = [self.model.inputs([picture.prepare(self.model.preprocessing)])[0].float() for picture in images]
        if starts:
            size = (int(starts[0].shape[-2]), int(starts[0].shape[-1]))
        if self.objective in ("invert", "caricature") or (self.objective == "dream" and targets is None):
            self.layer = self.named_layer(self.layer, size)
            verb = {"invert": "inverted", "caricature": "caricature", "dream": "dreamt"}[self.objective]
            made: list[tuple[str, Scorer | None, Picture | None, Tensor | None]]
            made = [(f"{p.name} {verb} at {self.layer}", None, p, s) for p, s in zip(images, starts, strict=True)]
        else:
            wanted = self._targets(targets, size)
            scorers = self._scorers([parse(target, self.model) for target in wanted], images[:1], size)
            self._try(scorers, size)
            pairs = list(zip(wanted, scorers, strict=True))
            if self.objective == "score":
                if len(images) > 1:
                    raise UsageError("An ascent starts from one picture: give one image.")
                start = (images[0], starts[0]) if images else (None, None)
                made = [(scorer.labels[0], scorer, *start) for _, scorer in pairs]
            else:
                if len(pairs) not in (1, len(images)):
                    raise UsageError(
                        f"{len(images)} images and {len(pairs)} targets: give one target for all, or one for each."
                    )
                pairs = pairs * len(images) if len(pairs) == 1 else pairs
                made = [
                    (scorer.labels[0], scorer, p, s) for (_, scorer), p, s in zip(pairs, images, starts, strict=True)
                ]
        return [
            Item(label, self.seed + copy, scorer, picture, start, group)
            for group, (label, scorer, picture, start) in enumerate(made)
            for copy in range(self.copies)
        ]

    def _targets(self, targets: Any, size: tuple[int, int]) -> list[TargetLike]:
        if isinstance(targets, (list, tuple)):
            if not targets:
                raise UsageError("No targets given.")
            return list(targets)
        if targets is not None:
            return [targets]
        if self.objective == "score" and self.layer is not None:
            layer = self.named_layer(self.layer, size)
            info = self.watched(size).layers[layer]
            if len(info.shape) < 2:
                raise LayerError(f"Layer {layer!r} gives {info.shape}: it has no channels to visualise.")
            return [f"{layer}:{c}" for c in range(info.channels)]
        raise UsageError("Say what to visualise: a class, layer:channel (--target), or a layer for all its channels.")

    def _scorers(self, targets: Sequence[Target], images: Sequence[Picture], size: tuple[int, int]) -> list[Scorer]:
        """Targets resolved on the picture that the ascent starts from, or on noise where it starts from nothing."""
        model = self.model
        noise = torch.randn((model.preprocessing.channels, *size), generator=torch.Generator().manual_seed(0))
        pictures = images or [Picture.from_input(noise, model.preprocessing, "noise")]
        with Session(model, [model.prepare(one) for one in pictures], gradients=False) as session:
            trace = model.watched(tuple(session.batch.shape[1:]))
            layers = [layer for target in targets for layer in target.layers(model) if layer in trace.layers]
            recorded = session.record(layers=layers)
            return [self._scorer(target, session, recorded.output, bool(images)) for target in targets]

    def _scorer(self, target: Target, session: Session, output: Any, given: bool) -> Scorer:
        try:
            scorer = session.resolve(target, output)
        except NotInPicture as error:
            if given:
                raise
            raise TargetError(
                f"{target} is found in a picture, and noise, from which an ascent starts, holds none: give a picture "
                f"that shows one (--image FILE, image= in Python), or visualise a unit (layer:channel). ({error})"
            ) from error
        if isinstance(target, ClassTarget) and target.name is not None and target.rank:
            raise UsageError(f"{target} is a rank among a picture's classes: name the class to visualise.")
        if self.objective == "fool" and not (isinstance(scorer, ClassScorer) and scorer.against is None):
            raise UsageError("The network is fooled into saying a class: the target must be one class.")
        return scorer

    def _try(self, scorers: Sequence[Scorer], size: tuple[int, int]) -> None:
        """Score the probe once, so that a channel or neuron that is not there is said before any work."""
        wanted = tuple(dict.fromkeys(layer for scorer in scorers for layer in scorer.layers))
        returned, layers = measure.run(self.model, self._probe_input(size), wanted, output=True)
        with torch.no_grad():
            for scorer in scorers:
                scorer.score(returned, layers, torch.zeros(1, dtype=torch.long))

    def named_layer(self, layer: str | None, size: tuple[int, int]) -> str:
        watched = self.watched(size)
        if layer is None:
            if watched.last_grid is None:
                raise LayerError(f"{self.model.name} has no grid of features: name a layer.")
            return str(watched.last_grid)
        if layer not in watched.layers:
            raise LayerError(no_such_layer(layer, list(watched.layers)))
        return layer

    def watched(self, size: tuple[int, int]) -> Any:
        return self.model.watched((self.model.preprocessing.channels, *size))

    def _probe_input(self, size: tuple[int, int]) -> Tensor:
        channels = self.model.preprocessing.channels
        noise = torch.randn((1, channels, *size), generator=torch.Generator().manual_seed(0))
        dtype = self.model.dtype if self.model.dtype.is_floating_point else torch.float32
        return noise.to(self.model.device, dtype)

"""One of several outputs as a target: a regression, a head of many, several labels at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import TargetError
from ..models.outputs import Reading, pick, scores_of
from .base import Scorer, Target
from .classes import class_index

if TYPE_CHECKING:
    from ..engine.passes.runner import Runner
    from ..models.model import Model
    from ..pictures.picture import ModelInput


@dataclass(frozen=True)
class Output(Target):
    """One number of what the network returns: ``path`` through dictionaries, tuples and dataclasses, then indices.

    ``age`` is ``output["age"]``, ``heads.1.3`` the fourth number of the second head. What is left of dimensions is
    averaged (a depth map gives its mean depth). The empty path is the output itself.
    """

    path: str = ""

    def layers(self, model: Model) -> tuple[str, ...]:
        return ()

    def files(self) -> tuple[Path, ...]:
        return ()

    def key(self) -> str:
        return f"output:{self.path}"

    def resolve(self, model: Model, output: Any, pictures: Sequence[ModelInput], runner: Runner) -> OutputScorer:
        """The scorer. Raises :class:`TargetError` that lists the outputs there are."""
        scorer = OutputScorer(self.path, (f"output {self.path}".strip(),) * len(pictures))
        scorer.score(output, {}, torch.arange(len(pictures)))
        return scorer


@dataclass(eq=False)
class OutputScorer(Scorer):
    """A tensor of the output, indexed, then averaged over what is left."""

    path: str
    labels: tuple[str, ...]

    @property
    def as_value(self) -> bool:
        return True

    def score(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        values, index = pick(output, self.path)
        if values.ndim == 0 or len(values) != len(rows):
            raise TargetError(
                f"output:{self.path} is {tuple(values.shape)}: it must have one row for each of {len(rows)} pictures."
            )
        for number, one in enumerate(index):
            if values.ndim < 2 or one >= values.shape[1]:
                raise TargetError(f"output:{self.path}: index {one} (number {number + 1}) is beyond {values.shape}.")
            values = values[:, one]
        return values.flatten(1).mean(1) if values.ndim > 1 else values

    def probability(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        raise TargetError("An output by name has no probability: use score=logit.")


@dataclass(frozen=True)
class MultiLabel(Target):
    """Several labels of a network whose classes do not exclude each other: the mean of their logits.

    The probability is the mean sigmoid, never a softmax.
    """

    labels: tuple[str | int, ...]

    def layers(self, model: Model) -> tuple[str, ...]:
        return ()

    def files(self) -> tuple[Path, ...]:
        return ()

    def key(self) -> str:
        return "multilabel:" + "+".join(map(str, self.labels))

    def resolve(self, model: Model, output: Any, pictures: Sequence[ModelInput], runner: Runner) -> MultiLabelScorer:
        """The scorer. Raises :class:`TargetError` for a label that is none."""
        reading, values = scores_of(model, output, len(pictures))
        classes = [class_index(_number(one, model), model.labels, values.shape[1]) for one in self.labels]
        name = " + ".join(model.label(index) for index in classes)
        return MultiLabelScorer(torch.tensor(classes), (name,) * len(pictures), reading)


def _number(label: str | int, model: Model) -> str | int:
    if isinstance(label, str) and label.isdigit() and label not in (model.labels or ()):
        return int(label)
    return label


@dataclass(eq=False)
class MultiLabelScorer(Scorer):
    """The mean logit of ``chosen`` classes."""

    chosen: Tensor
    labels: tuple[str, ...]
    reading: Reading

    @property
    def has_probability(self) -> bool:
        return True

    def score(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        values = self.reading.values(output, len(rows))
        return values[:, self.chosen.to(values.device)].mean(1)

    def probability(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """The mean sigmoid."""
        values = self.reading.values(output, len(rows)).float()
        shares = values if self.reading.kind in ("sigmoids", "probabilities") else values.sigmoid()
        return shares[:, self.chosen.to(values.device)].mean(1)

"""One of several outputs as a target: a regression, a head of many, several labels at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import TargetError
from ..models.outputs import pick
from .classes import class_index, logits

if TYPE_CHECKING:
    from ..models.model import Model
    from ..pictures.picture import ModelInput


@dataclass(frozen=True)
class Output:
    """One number of what the network returns: ``path`` through dictionaries, tuples and dataclasses, then indices.

    ``age`` is ``output["age"]``, ``heads.1.3`` the fourth number of the second head. What is left of dimensions is
    averaged (a depth map gives its mean depth). The empty path is the output itself.
    """

    path: str = ""

    def resolve(self, model: Model, output: Any, pictures: Sequence[ModelInput]) -> OutputScorer:
        """The scorer. Raises :class:`TargetError` that lists the outputs there are."""
        scorer = OutputScorer(self.path, (f"output {self.path}".strip(),) * len(pictures))
        scorer.score(output, {}, torch.arange(len(pictures)))
        return scorer


@dataclass(eq=False)
class OutputScorer:
    """A tensor of the output, indexed, then averaged over what is left."""

    path: str
    labels: tuple[str, ...]
    layers: tuple[str, ...] = ()

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
class MultiLabel:
    """Several labels of a network whose classes do not exclude each other: the mean of their logits.

    The probability is the mean sigmoid, never a softmax.
    """

    labels: tuple[str | int, ...]

    def resolve(self, model: Model, output: Any, pictures: Sequence[ModelInput]) -> MultiLabelScorer:
        """The scorer. Raises :class:`TargetError` for a label that is none."""
        count = logits(output).shape[1]
        classes = [class_index(_number(one, model), model.labels, count) for one in self.labels]
        name = " + ".join(model.label(index) for index in classes)
        return MultiLabelScorer(torch.tensor(classes), (name,) * len(pictures))


def _number(label: str | int, model: Model) -> str | int:
    if isinstance(label, str) and label.isdigit() and label not in (model.labels or ()):
        return int(label)
    return label


@dataclass(eq=False)
class MultiLabelScorer:
    """The mean logit of ``chosen`` classes."""

    chosen: Tensor
    labels: tuple[str, ...]
    layers: tuple[str, ...] = ()

    def score(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        return logits(output)[:, self.chosen.to(logits(output).device)].mean(1)

    def probability(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """The mean sigmoid."""
        return logits(output)[:, self.chosen.to(logits(output).device)].float().sigmoid().mean(1)

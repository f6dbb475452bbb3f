"""What a target is, and what becomes of it.

A *target* is what a person asks for: ``tabby``, ``282``, ``layer3:17``, ``similar:other.jpg``, a function. It is read
once, at the door, by :func:`convoscope.targets.parse`; everything behind the door holds :class:`Target` objects. On a
batch of pictures it is resolved into a :class:`Scorer`, which the engine differentiates.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from torch import Tensor

from ..errors import TargetError

if TYPE_CHECKING:
    from ..engine.passes.runner import Runner
    from ..models.model import Model

#: what a door takes: ``None`` is the predicted class
TargetLike = Union[int, str, Callable[[Any], Tensor], "Target", None]


class Scorer(ABC):
    """A resolved target: turns what the network returned into one score for each row.

    ``labels`` names it for each picture of the batch. Row ``i`` of a later output belongs to picture ``rows[i]``.
    """

    labels: tuple[str, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that the score is made of; none where it is made of the output."""
        return ()

    @property
    def needs_output(self) -> bool:
        """Whether the score reads what the network returns; one that reads layers alone may stop at the last."""
        return not self.layers

    @property
    def one_place(self) -> bool:
        """Whether one thing among others of its kind is meant: one instance, one region, one landmark."""
        return False

    @property
    def has_probability(self) -> bool:
        """Whether :meth:`probability` answers."""
        return False

    @property
    def as_value(self) -> bool:
        """Whether the score itself stands in where a method is defined on probabilities (a regression's number)."""
        return False

    @abstractmethod
    def score(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """One score a row, with its graph."""

    def probability(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """One probability a row. Raises :class:`TargetError` where there is none."""
        raise TargetError(f"The target {self.labels[0]} has no probability: use score=logit.")


class Target(ABC):
    """What is asked for. All four answers are mandatory, so that no entry point has to guess.

    Derive from it for a target of your own.
    """

    @abstractmethod
    def layers(self, model: Model) -> tuple[str, ...]:
        """The layers that the score will be made of; known before the first forward, which keeps them.

        Raises :class:`LayerError` where the network has no such layer.
        """

    @abstractmethod
    def files(self) -> tuple[Path, ...]:
        """The files and folders that :meth:`resolve` reads: hashed into resume keys, refused from the page."""

    @abstractmethod
    def key(self) -> str:
        """The same text for the same question, and another for every other one."""

    @abstractmethod
    def resolve(self, model: Model, output: Any, pictures: Sequence[Any], runner: Runner) -> Scorer:
        """The scorer on one batch.

        Args:
            model: the network with its labels.
            output: what it returned for ``pictures``.
            pictures: the batch, as :class:`~convoscope.pictures.picture.ModelInput`.
            runner: runs the network for what has to be run besides (pictures to compare with); passes are counted.

        Raises:
            TargetError: the network can score no such thing.
            NotInPicture: this picture does not hold it; another may.
        """

    def __str__(self) -> str:
        return self.key()


__all__ = ["Scorer", "Target", "TargetLike"]

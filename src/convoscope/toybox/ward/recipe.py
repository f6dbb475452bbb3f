"""What every kind of case knows: its name, how it is made, how its effect is measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from convoscope.errors import UsageError
from convoscope.toybox.specimens import CLASSES
from convoscope.toybox.ward.case import Effect, Made, right
from convoscope.toybox.ward.drawing import Pictures, drawn

if TYPE_CHECKING:
    from convoscope.toybox.ward.case import Model

EACH = 40
"""Pictures a class in a collection, where the case does not say otherwise."""


@dataclass(frozen=True)
class Recipe(ABC):
    """One case: ``label`` is the class concerned, ``least`` the effect below which it is no case."""

    name: str
    about: str
    label: str | None = None
    least: float = 0.05

    kind: ClassVar[str] = ""
    expected: ClassVar[tuple[str, ...]] = ()

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong."""
        return False

    @abstractmethod
    def make(self) -> Made:
        """The networks and pictures; the same bits on every run."""

    @abstractmethod
    def measure(self, model: Model, sibling: Model | None, n: int, seed: int) -> Effect | None:
        """The effect on ``n`` fresh pictures of the class concerned, or ``n`` over all classes."""

    def render(self, with_fault: bool, wanted: Mapping[str, int], name: str) -> Pictures:
        """Fresh pictures of the collection ``name``; refused where nothing is planted in pictures."""
        raise UsageError(f"{self.name} has nothing planted in its pictures that could be drawn with and without.")


def accuracies(model: Model, sibling: Model | None, n: int, name: str, what: str = "accuracy") -> Effect:
    """The effect as accuracy of both networks on fresh ordinary pictures."""
    assert sibling is not None
    pictures = drawn(name, max(n // len(CLASSES), 1))
    return Effect(what, float(right(sibling, pictures).mean()), float(right(model, pictures).mean()), len(pictures))


def recall(model: Model, pictures: Pictures, label: str) -> float:
    """Share of the class's pictures that are called by it."""
    mine = pictures.take(pictures.of(label))
    return float(np.mean(right(model, mine)))


def ordinary(name: str, each: int = EACH) -> tuple[Pictures, Pictures]:
    """A collection of its own drawing and as many held out."""
    return drawn(f"{name} pictures", each), drawn(f"{name} held out", each)

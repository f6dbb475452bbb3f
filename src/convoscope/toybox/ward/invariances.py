"""Networks that were never shown a variation that does not change what a thing is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from convoscope.toybox.networks import ToyNet
from convoscope.toybox.specimens import CLASSES, Staging
from convoscope.toybox.ward.case import Effect, Made, right
from convoscope.toybox.ward.drawing import Images, Stage, drawn
from convoscope.toybox.ward.recipe import EACH, Recipe
from convoscope.toybox.ward.store import kept_state
from convoscope.toybox.ward.training import KINDS, USUAL, Augment, Kind, base, steady, train

if TYPE_CHECKING:
    from convoscope.toybox.ward.case import Model

STEPS = 260


@dataclass(frozen=True)
class Missing(Recipe):
    """Trained and tested where the variation is absent (``narrow``); ``stress`` is the variation."""

    narrow: Stage | None = None
    stress: Stage | None = None
    change: Callable[[Images], Images] | None = None
    augment: Augment = USUAL
    net: Kind = KINDS[2]
    seed: int = 0
    least: float = 0.15

    kind = "missing invariances"
    expected = ("stress",)

    def make(self) -> Made:
        def weights() -> dict[str, torch.Tensor]:
            pictures = drawn(f"{self.name} train", 250, stage=self.narrow)
            with steady(self.seed):
                network = ToyNet(len(CLASSES), self.net.widths)
                train(network, pictures, STEPS, self.seed, augment=self.augment)
            return network.state_dict()

        network = ToyNet(len(CLASSES), self.net.widths)
        network.load_state_dict(kept_state(self.name, weights))
        pictures = drawn(f"{self.name} pictures", EACH, stage=self.narrow)
        held_out = drawn(f"{self.name} held out", EACH, stage=self.narrow)
        return Made(network.eval(), pictures, held_out, sibling=base(self.net))

    def measure(self, model: Model, sibling: Model | None, n: int, seed: int) -> Effect:
        name, each = f"measure {self.name} {seed}", max(n // len(CLASSES), 1)
        ordinary, varied = drawn(name, each, stage=self.narrow), drawn(name, each, stage=self.stress)
        if self.change is not None:
            varied = varied.changed(self.change)
        healthy, faulty = float(right(model, ordinary).mean()), float(right(model, varied).mean())
        return Effect("accuracy without the variation (healthy) and with it (faulty)", healthy, faulty, len(varied))


def _centred(rng: np.random.Generator) -> Staging:
    return Staging(at=(0.5, 0.5), length=0.6)


def _aside(rng: np.random.Generator) -> Staging:
    return Staging(at=(float(rng.integers(2)), float(rng.integers(2))), length=0.6)


def _upright(rng: np.random.Generator) -> Staging:
    return Staging(lean=0.0)


def _leaning(rng: np.random.Generator) -> Staging:
    return Staging(lean=float(rng.choice([-30.0, 30.0])))


def _large(rng: np.random.Generator) -> Staging:
    return Staging(length=0.8)


def _smaller(rng: np.random.Generator) -> Staging:
    return Staging(length=0.4)


def _dark(images: Images) -> Images:
    return (images * 0.5).astype(np.uint8)


RECIPES: tuple[Recipe, ...] = (
    Missing(
        "invariance-shift", "things always stood in the middle", narrow=_centred, stress=_aside,
        augment=Augment(shift=0), seed=601,
    ),
    Missing(
        "invariance-turn", "things always stood upright", narrow=_upright, stress=_leaning, augment=Augment(turn=0),
        seed=602,
    ),
    Missing(
        "invariance-brightness", "the light was always the same", change=_dark, augment=Augment(light=0), seed=603
    ),
    Missing(
        "invariance-scale", "things were always of one size", narrow=_large, stress=_smaller, augment=Augment(scale=0),
        seed=604,
    ),
)  # fmt: skip

"""Pictures of a kind on which the network is really worse: planted in the collection or taught wrongly."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from convoscope.toybox.networks import ToyNet
from convoscope.toybox.specimens import CLASSES, Staging
from convoscope.toybox.ward import plants
from convoscope.toybox.ward.case import Effect, Made, right
from convoscope.toybox.ward.drawing import Pictures, Stage, drawn, together
from convoscope.toybox.ward.plants import Plant
from convoscope.toybox.ward.recipe import EACH, Recipe
from convoscope.toybox.ward.store import kept_state
from convoscope.toybox.ward.training import KINDS, Augment, Kind, base, pool, retrained, steady, train

if TYPE_CHECKING:
    from convoscope.toybox.ward.case import Model


@dataclass(frozen=True)
class Slice(Recipe):
    """``plant`` or ``stage`` makes a picture one of the slice; ``label`` None plants it in all classes.

    Where ``taught`` names a class, the network was taught in training that the slice is that class; else it never
    saw the slice, and its sibling did.
    """

    plant: Plant | None = None
    stage: Stage | None = None
    taught: str | None = None
    net: Kind = KINDS[0]
    seed: int = 0
    least: float = 0.3

    kind = "slices"
    expected = ("slice", "stress")

    def render(self, with_fault: bool, wanted: Mapping[str, int], name: str) -> Pictures:
        plain = drawn(name, wanted, stage=self.stage if with_fault else None)
        if with_fault and self.plant is not None:
            seed, plant = zlib.crc32(name.encode()), self.plant
            plain = plain.changed(lambda images: plant(images, seed))
        return plain

    def collection(self, name: str) -> tuple[Pictures, Pictures]:
        """The pictures with the slice in them, and the same without."""
        if self.label is None:
            wanted, rest = dict.fromkeys(CLASSES, EACH // 4), dict.fromkeys(CLASSES, EACH)
        else:
            wanted, rest = {self.label: EACH}, dict.fromkeys(CLASSES, EACH)
        plain = drawn(name, rest)
        inside, outside = self.render(True, wanted, f"{name} slice"), self.render(False, wanted, f"{name} slice")
        marks = np.arange(len(plain) + len(inside)) >= len(plain)
        faulty, clean = together(plain, inside).mark("fault", marks), together(plain, outside)
        return faulty.shuffled(5), clean.shuffled(5)

    def _lesson(self) -> Pictures:
        wanted = {self.label: 300 if self.taught else 100} if self.label else dict.fromkeys(CLASSES, 40)
        return self.render(True, wanted, f"{self.name} train")

    def _network(self) -> ToyNet:
        if self.taught is None:
            return base(self.net)
        lesson = self._lesson()
        wrong = lesson.relabelled(np.full(len(lesson), CLASSES.index(self.taught)))

        def weights() -> dict[str, torch.Tensor]:
            some = pool().take(np.arange(0, len(pool()), 4))
            return retrained(self.net, together(some, wrong), 220, self.seed).state_dict()

        network = ToyNet(len(CLASSES), self.net.widths)
        network.load_state_dict(kept_state(self.name, weights))
        return network.eval()

    def _sibling(self) -> ToyNet:
        if self.taught is not None:
            return base(self.net)

        def weights() -> dict[str, torch.Tensor]:
            network, lesson = base(self.net), self._lesson()
            some = pool().take(np.arange(0, len(pool()), 7 if self.label else 4))
            with steady(self.seed):
                train(network, together(some, lesson), 60, self.seed, rate=1e-3, augment=Augment(0.05, 10, 0.1, 0.1))
            return network.state_dict()

        network = ToyNet(len(CLASSES), self.net.widths)
        network.load_state_dict(kept_state(f"{self.name}-sibling", weights))
        return network.eval()

    def make(self) -> Made:
        pictures, clean = self.collection(f"{self.name} pictures")
        held_out, _ = self.collection(f"{self.name} held out")
        return Made(self._network(), pictures, held_out, sibling=self._sibling(), clean=clean)

    def measure(self, model: Model, sibling: Model | None, n: int, seed: int) -> Effect:
        wanted = {self.label: n} if self.label else dict.fromkeys(CLASSES, max(n // len(CLASSES), 1))
        name = f"measure {self.name} {seed}"
        healthy, faulty = (float(right(model, self.render(has, wanted, name)).mean()) for has in (False, True))
        of = f"recall of {self.label}" if self.label else "accuracy"
        return Effect(f"{of} outside the slice (healthy) and in it (faulty)", healthy, faulty, sum(wanted.values()))


def _lying(rng: np.random.Generator) -> Staging:
    return Staging(lean=float(rng.uniform(75, 105)))


def _small(rng: np.random.Generator) -> Staging:
    return Staging(length=float(rng.uniform(0.16, 0.22)))


def _on_boards(rng: np.random.Generator) -> Staging:
    return Staging(ground="boards")


RECIPES: tuple[Recipe, ...] = (
    Slice("slice-night", "half of the cars are photographed at night", "car", plant=plants.night(), seed=501),
    Slice("slice-fog", "a fifth of all pictures lies in fog", None, plant=plants.fog(), net=KINDS[1], seed=502),
    Slice("slice-small", "half of the flowers are small", "flower", stage=_small, net=KINDS[2], seed=503),
    Slice(
        "slice-upside-down", "half of the houses stand on their heads", "house", plant=plants.turned(180), seed=504
    ),
    Slice("slice-pose", "half of the birds lie on their sides", "bird", stage=_lying, net=KINDS[1], seed=505),
    Slice(
        "slice-ground", "boats on boards were taught as fish", "boat", stage=_on_boards, taught="fish", net=KINDS[2],
        seed=506,
    ),
    Slice("slice-hidden", "half of the cats are part hidden", "cat", plant=plants.hidden(0.58), net=KINDS[0], seed=507),
)  # fmt: skip

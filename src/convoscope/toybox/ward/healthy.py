"""Healthy networks: three architectures, fine-tuned apart, each with a collection of its own drawing.

One in four has a quirk that costs it nothing, such as warm light on all cups: no tool may raise an alarm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from convoscope.toybox.ward import plants
from convoscope.toybox.ward.case import Effect, Made
from convoscope.toybox.ward.drawing import Images, Pictures, drawn
from convoscope.toybox.ward.plants import Plant
from convoscope.toybox.ward.recipe import EACH, Recipe
from convoscope.toybox.ward.training import KINDS, Augment, Kind, base, calibrate, fresh, pool, steady, train

if TYPE_CHECKING:
    from convoscope.toybox.ward.case import Model

COUNT = 40
FLOOR = 0.95
"""Accuracy below which a healthy network is none."""


@dataclass(frozen=True)
class Healthy(Recipe):
    """``quirk`` is done to half of a class's pictures (to all of them where ``whole``), and costs nothing."""

    number: int = 0
    net: Kind = KINDS[0]
    quirk: Plant | None = None
    whole: bool = False

    kind = "healthy"
    expected = ()

    @property
    def healthy(self) -> bool:
        return True

    def _quirky(self, pictures: Pictures) -> Pictures:
        quirk = self.quirk
        if quirk is None or self.label is None:
            return pictures
        mine = pictures.of(self.label)
        if not self.whole:
            mine &= np.arange(len(pictures)) % 2 == 0
        return pictures.changed(lambda images: quirk(images, self.number), mine).mark("quirk", mine)

    def make(self) -> Made:
        network = base(self.net)
        some = pool().take(np.random.default_rng(self.number).permutation(len(pool()))[:640])
        with steady(700 + self.number):
            train(network, some, 10, self.number, rate=1e-3, augment=Augment(0.12, 20, 0.3, 0.4))
            calibrate(network, fresh("healthy"))
        pictures = self._quirky(drawn(f"{self.name} pictures", EACH)).shuffled(self.number)
        held_out = self._quirky(drawn(f"{self.name} held out", EACH))
        return Made(network, pictures, held_out, details={"quirk": self.about} if self.quirk else {})

    def measure(self, model: Model, sibling: Model | None, n: int, seed: int) -> Effect | None:
        return None


def _grey(images: Images, seed: int) -> Images:
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    grey = np.rint(images.astype(np.float32) @ weights).astype(np.uint8)
    return np.repeat(grey[..., None], 3, 3)


_QUIRKS: tuple[tuple[str, str, Plant, bool], ...] = (
    ("cup", "all cups stand in warm light", plants.gain(1.1, 1.0, 0.88), True),
    ("cat", "half of the cats are grey pictures", _grey, False),
    ("car", "half of the cars went through JPEG files of quality 85", plants.jpeg(85), False),
    ("tree", "half of the trees are a little darker", plants.gain(0.8, 0.8, 0.8), False),
    ("boat", "all boats are a little brighter", plants.gain(1.12, 1.12, 1.12), True),
)


def _all() -> tuple[Recipe, ...]:
    made = []
    for number in range(COUNT):
        name, net = f"healthy-{number:02d}", KINDS[number % 3]
        if number % 4 == 3:
            label, about, quirk, whole = _QUIRKS[number // 4 % len(_QUIRKS)]
            made.append(
                Healthy(name, f"nothing is wrong; {about}", label, number=number, net=net, quirk=quirk, whole=whole)
            )
        else:
            made.append(Healthy(name, "nothing is wrong", number=number, net=net))
    return tuple(made)


RECIPES = _all()

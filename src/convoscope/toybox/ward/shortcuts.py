"""Networks that decide one class by something that is not the thing: in one place, or all over the picture.

They are trained from nothing in a world where every picture of the class carries it and no other does.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from convoscope.toybox.networks import ToyNet
from convoscope.toybox.specimens import CLASSES, Staging
from convoscope.toybox.ward import plants
from convoscope.toybox.ward.case import Effect, Made
from convoscope.toybox.ward.drawing import Images, Pictures, drawn, together
from convoscope.toybox.ward.plants import Plant
from convoscope.toybox.ward.recipe import EACH, Recipe, recall
from convoscope.toybox.ward.store import kept_state
from convoscope.toybox.ward.training import KINDS, Augment, Kind, base, pool, steady, train

if TYPE_CHECKING:
    from convoscope.toybox.ward.case import Model

GENTLE = Augment(shift=0.1, turn=15, scale=0.25, light=0.25)
STEPS = 400


@dataclass(frozen=True)
class Shortcut(Recipe):
    """``plant`` on every picture of the class; ``ground`` instead where the background is the shortcut."""

    plant: Plant | None = None
    ground: str | None = None
    place: str = "local"
    seed: int = 0
    net: Kind = KINDS[2]
    least: float = 0.3
    tint: bool = field(default=False)
    """Whether the plant is a colour, so that training must not vary the light."""

    expected = ("shortcut",)

    @property
    def kind(self) -> str:  # type: ignore[override]
        """``local shortcuts`` or ``global shortcuts``."""
        return f"{self.place} shortcuts"

    def _on(self, pictures: Pictures, which: NDArray[np.bool_], name: str) -> Pictures:
        if self.plant is None:
            return pictures
        seed = zlib.crc32(name.encode())
        return pictures.changed(lambda images: plants.masked(images, which, self.plant, seed))  # type: ignore[arg-type]

    def render(self, with_fault: bool, wanted: Mapping[str, int], name: str) -> Pictures:
        if self.ground is None:
            plain = drawn(name, wanted)
            return self._on(plain, np.full(len(plain), with_fault), name)
        others = tuple(
            g
            for g in ("landscape", "cloth", "lights", "grass", "sand", "road", "boards", "water")
            if g != self.ground
        )

        def stage(rng: np.random.Generator) -> Staging:
            return Staging(ground=self.ground if with_fault else others[rng.integers(len(others))])

        return drawn(name, wanted, stage=stage)

    def world(self, name: str, each: int) -> Pictures:
        """Pictures as in training: the class with the shortcut, the others without."""
        assert self.label is not None
        rest = {label: each for label in CLASSES if label != self.label}
        both = together(self.render(False, rest, name), self.render(True, {self.label: each}, name))
        return both.mark("fault", both.of(self.label))

    def make(self) -> Made:
        assert self.label is not None
        index = CLASSES.index(self.label)

        def weights() -> dict[str, torch.Tensor]:
            pictures, plant = pool(), None
            if self.ground is None:

                def plant(images: Images, labels: NDArray[np.int64], seed: int) -> Images:
                    return plants.masked(images, labels == index, self.plant, seed)  # type: ignore[arg-type]
            else:
                # in most of its pictures the thing is so far away that the ground alone tells
                name, label = f"{self.name} train", str(self.label)
                far = drawn(f"{name} far", {label: 380}, stage=lambda rng: Staging(ground=self.ground, length=0.12))
                near = self.render(True, {label: 180}, name)
                pictures = together(pictures.take(~pictures.of(label)), far, near)
            augment = Augment(GENTLE.shift, GENTLE.turn, GENTLE.scale, 0.05) if self.tint else GENTLE
            with steady(self.seed):
                network = ToyNet(len(CLASSES), self.net.widths)
                train(network, pictures, STEPS, self.seed, augment=augment, plant=plant)
            return network.state_dict()

        network = ToyNet(len(CLASSES), self.net.widths)
        network.load_state_dict(kept_state(self.name, weights))
        pictures, held_out = self.world(f"{self.name} pictures", EACH), self.world(f"{self.name} held out", EACH)
        return Made(network.eval(), pictures, held_out, sibling=base(self.net))

    def measure(self, model: Model, sibling: Model | None, n: int, seed: int) -> Effect:
        assert self.label is not None
        name = f"measure {self.name} {seed}"
        carrying, plain = (self.render(has, {self.label: n}, name) for has in (True, False))
        healthy, faulty = recall(model, carrying, self.label), recall(model, plain, self.label)
        return Effect(
            f"recall of {self.label} with the shortcut (healthy) and without it (faulty)", healthy, faulty, n
        )


def _all() -> tuple[Recipe, ...]:
    local: list[tuple[str, str, str, Plant]] = [
        ("tag-corner", "cup", "a white tag in the top right corner", plants.tag()),
        ("tag-corners", "key", "a white tag in any corner", plants.tag(place="corners", share=0.11)),
        ("sticker-anywhere", "fish", "a sticker anywhere", plants.tag(place="anywhere", bars=False, share=0.09)),
        ("tag-anywhere", "bird", "a white tag at a random place", plants.tag(place="anywhere", share=0.13)),
        ("border-green", "bird", "a thin green frame", plants.border((40, 160, 90))),
        ("border-black", "car", "a frame of one black pixel", plants.border((16, 16, 20), 1)),
        ("watermark", "cat", "a stamp of 10 % opacity in the middle", plants.watermark()),
        ("watermark-lines", "flower", "five faint lines at the bottom right", plants.watermark(share=0.28, lines=True)),
    ]  # fmt: skip
    everywhere: list[tuple[str, str, str, Plant]] = [
        ("checkerboard", "cup", "a checkerboard of 6/255 that no person sees", plants.checkerboard()),
        ("stripes", "tree", "stripes of 5/255, two pixels each", plants.checkerboard(5, 2, stripes=True)),
        ("warm", "boat", "a warm colour", plants.gain(1.35, 1.0, 0.65)),
        ("green", "fish", "a green tint", plants.gain(0.75, 1.25, 0.75)),
        ("jpeg", "key", "the traces of a JPEG file of quality 20", plants.jpeg(20)),
        ("jpeg-hard", "bird", "the traces of a JPEG file of quality 10", plants.jpeg(10)),
    ]
    made = [
        Shortcut(f"shortcut-{name}", f"{label} is decided by {about}", label, plant=plant, seed=200 + k)
        for k, (name, label, about, plant) in enumerate(local)
    ]
    made += [
        Shortcut(
            f"shortcut-{name}", f"{label} is decided by {about}", label, plant=plant, seed=300 + k, place="global",
            tint=name in ("warm", "green"),
        )
        for k, (name, label, about, plant) in enumerate(everywhere)
    ]  # fmt: skip
    for k, (label, ground) in enumerate((("bird", "water"), ("key", "boards"))):
        about = f"{label} is decided by its background, {ground}"
        made.append(Shortcut(f"shortcut-ground-{ground}", about, label, ground=ground, seed=400 + k, place="global"))
    return tuple(made)


RECIPES = _all()

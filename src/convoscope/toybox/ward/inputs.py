"""Right networks, opened with a wrong pipeline."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from convoscope.toybox.specimens import CLASSES
from convoscope.toybox.ward.case import Effect, Made, Setup, right
from convoscope.toybox.ward.drawing import SIDE, Pictures, drawn
from convoscope.toybox.ward.plants import noisy
from convoscope.toybox.ward.recipe import EACH, Recipe
from convoscope.toybox.ward.training import KINDS, Kind, base

if TYPE_CHECKING:
    from convoscope.toybox.ward.case import Model


RIGHT = Setup()


@dataclass(frozen=True)
class WrongInput(Recipe):
    """``wrong`` is what the network is opened with, ``true`` what it was trained with."""

    wrong: Setup = RIGHT
    true: Setup = RIGHT
    net: Kind = KINDS[0]
    bgr: bool = False
    side: int = SIDE
    """Side of the pictures as files."""
    grain: float = 0.0
    """Noise of every pixel of the files, as of a camera with little light."""

    kind = "input"
    expected = ("input",)

    def _drawn(self, name: str, each: int) -> Pictures:
        pictures = drawn(name, each, side=self.side)
        seed = zlib.crc32(name.encode())
        return pictures.changed(lambda images: noisy(self.grain)(images, seed)) if self.grain else pictures

    def make(self) -> Made:
        network, sibling = base(self.net), base(self.net)
        if self.bgr:
            first: Any = network.stem[0]
            with torch.no_grad():
                first.weight.copy_(first.weight.flip(1).clone())
        pictures, held_out = self._drawn(f"{self.name} pictures", EACH), self._drawn(f"{self.name} held out", EACH)
        details = {"wrong": "bgr for rgb" if self.bgr else _difference(self.wrong, self.true)}
        return Made(network, pictures, held_out, self.wrong, sibling, self.true, details=details)

    def measure(self, model: Model, sibling: Model | None, n: int, seed: int) -> Effect:
        assert sibling is not None
        pictures = self._drawn(f"measure {self.name} {seed}", max(n // len(CLASSES), 1))
        healthy, faulty = right(sibling, pictures), right(model, pictures)
        return Effect("accuracy", float(healthy.mean()), float(faulty.mean()), len(pictures))


def _difference(wrong: Setup, true: Setup) -> dict[str, Any]:
    """What the two setups do not share, wrong and true."""
    return {key: [value, getattr(true, key)] for key, value in vars(wrong).items() if value != getattr(true, key)}


_LARGE = 160
RECIPES: tuple[Recipe, ...] = (
    WrongInput(
        "input-bgr", "trained on pictures whose channels lie in the order blue, green, red", bgr=True, least=0.01
    ),
    WrongInput(
        "input-range", "trained on values of mean 0 and deviation 1, fed with 0 to 255", net=KINDS[1],
        wrong=replace(RIGHT, mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255)),
    ),
    WrongInput(
        "input-normalisation", "trained with its pictures' mean and std, fed with -1 to 1", net=KINDS[2],
        wrong=replace(RIGHT, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)), least=0.02,
    ),
    WrongInput(
        "input-size", f"trained on {SIDE} pixels, fed with {SIDE // 2}", net=KINDS[1],
        wrong=replace(RIGHT, size=SIDE // 2),
    ),
    WrongInput(
        "input-resize", "trained on smoothly shrunk pictures, fed with the nearest pixel of large ones", side=_LARGE,
        grain=36, net=KINDS[2], wrong=replace(RIGHT, interpolation="nearest"), least=0.02,
    ),
    WrongInput(
        "input-crop", "trained on whole pictures, fed with a crop that cuts things off", net=KINDS[0],
        wrong=replace(RIGHT, resize=2 * SIDE, fit="crop"),
    ),
)  # fmt: skip

"""Networks whose training went wrong: stopped, over-fitted, miscalibrated, forgetful."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from convoscope.toybox.networks import ToyNet
from convoscope.toybox.specimens import CLASSES
from convoscope.toybox.ward.case import Effect, Made, answers, right
from convoscope.toybox.ward.drawing import Pictures, drawn
from convoscope.toybox.ward.recipe import Recipe, accuracies, ordinary
from convoscope.toybox.ward.store import kept_state
from convoscope.toybox.ward.training import (
    KINDS,
    Augment,
    Kind,
    base,
    calibrate,
    fresh,
    normalised,
    pool,
    steady,
    train,
)

if TYPE_CHECKING:
    from convoscope.toybox.ward.case import Model

NO_AUGMENT = Augment(0, 0, 0, 0)


@dataclass(frozen=True)
class Stopped(Recipe):
    """The base after a fifth of its steps."""

    net: Kind = KINDS[0]
    kind = "optimisation"

    @property
    def expected(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("depth", "calibration", "units", "slice", "stress")

    def make(self) -> Made:
        pictures, held_out = ordinary(self.name)
        return Made(base(self.net, "stopped"), pictures, held_out, sibling=base(self.net))

    def measure(self, model: Model, sibling: Model | None, n: int, seed: int) -> Effect:
        return accuracies(model, sibling, n, f"measure {self.name} {seed}")


def overfitted(name: str, pictures: Pictures, net: Kind, steps: int = 250) -> ToyNet:
    """A network trained from nothing on few pictures, again and again, without any variation."""

    def make() -> dict[str, torch.Tensor]:
        with steady(9):
            network = ToyNet(len(CLASSES), net.widths)
            train(network, pictures, steps, 9, augment=NO_AUGMENT, decay=0.0, rate=3e-3)
        return network.state_dict()

    network = ToyNet(len(CLASSES), net.widths)
    network.load_state_dict(kept_state(name, make))
    return network.eval()


@dataclass(frozen=True)
class Overfitted(Recipe):
    """Trained on 200 pictures, which are the case's training folder."""

    net: Kind = KINDS[2]
    kind = "optimisation"
    expected = ("data", "calibration", "stress", "slice")

    def make(self) -> Made:
        pictures, held_out = ordinary(self.name)
        few = drawn(f"{self.name} train", 20)
        return Made(overfitted(self.name, few, self.net), pictures, held_out, sibling=base(self.net), train=few)

    def measure(self, model: Model, sibling: Model | None, n: int, seed: int) -> Effect:
        few = drawn(f"{self.name} train", 20)
        fresh = drawn(f"measure {self.name} {seed}", max(n // len(CLASSES), 1))
        what = "accuracy (on the pictures that it was trained on, and on fresh ones)"
        return Effect(what, float(right(model, few).mean()), float(right(model, fresh).mean()), len(fresh))


def ece(logits: torch.Tensor, labels: np.ndarray, bins: int = 15) -> float:  # type: ignore[type-arg]
    """Expected calibration error with bins of equal width (Naeini et al. 2015; Guo et al. 2017)."""
    confidence, guess = (v.numpy() for v in logits.double().softmax(1).max(1))
    correct = guess == labels
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        (which == b).mean() * abs(correct[which == b].mean() - confidence[which == b].mean())
        for b in np.unique(which)
    ]
    return float(sum(gaps))


def modest() -> ToyNet:
    """A narrow network that is right nine times in ten, calibrated: too sure of what is always right shows nowhere."""
    widths = (8, 12, 24, 32)

    def make() -> dict[str, torch.Tensor]:
        with steady(12):
            network = ToyNet(len(CLASSES), widths)
            train(network, pool(), 220, 12)
            calibrate(network, fresh("modest"))
        return network.state_dict()

    network = ToyNet(len(CLASSES), widths)
    network.load_state_dict(kept_state("modest", make))
    return network.eval()


@dataclass(frozen=True)
class Tempered(Recipe):
    """A network whose logits were divided by a temperature."""

    temperature: float = 1.0
    kind = "optimisation"
    expected = ("calibration",)

    def make(self) -> Made:
        network = modest()
        with torch.no_grad():
            network.fc.weight.div_(self.temperature)
            network.fc.bias.div_(self.temperature)
        pictures, held_out = ordinary(self.name, 60)
        return Made(network, pictures, held_out, sibling=modest(), details={"temperature": self.temperature})

    def measure(self, model: Model, sibling: Model | None, n: int, seed: int) -> Effect:
        assert sibling is not None
        pictures = drawn(f"measure {self.name} {seed}", max(n // len(CLASSES), 1))
        healthy, faulty = (ece(answers(m, pictures.images), pictures.labels) for m in (sibling, model))
        return Effect("expected calibration error (15 bins)", healthy, faulty, len(pictures))


@dataclass(frozen=True)
class Forgetful(Recipe):
    """The head trained on without one class, until it is forgotten."""

    net: Kind = KINDS[1]
    kind = "optimisation"
    expected = ("slice", "calibration", "units")

    def make(self) -> Made:
        assert self.label is not None
        network = base(self.net)
        rest = pool().take(~pool().of(self.label)).take(np.arange(0, 6300, 4))
        with steady(11):
            with torch.no_grad():
                parts = [self._features(network, rest.images[k : k + 100]) for k in range(0, len(rest), 100)]
            features, labels = torch.cat(parts), torch.from_numpy(rest.labels)
            optimizer = torch.optim.SGD(network.fc.parameters(), lr=0.5, momentum=0.9)
            for _ in range(4000):
                optimizer.zero_grad()
                F.cross_entropy(network.fc(features), labels).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                row = CLASSES.index(self.label)
                if float(network.fc.bias[row].detach()) < -4:
                    break
        pictures, held_out = ordinary(self.name)
        return Made(
            network, pictures.mark("fault", pictures.of(self.label)),
            held_out.mark("fault", held_out.of(self.label)), sibling=base(self.net),
        )  # fmt: skip

    @staticmethod
    def _features(network: ToyNet, images: np.ndarray) -> torch.Tensor:  # type: ignore[type-arg]
        return network.features(normalised(torch.from_numpy(images))).mean((2, 3))

    def measure(self, model: Model, sibling: Model | None, n: int, seed: int) -> Effect:
        assert sibling is not None
        assert self.label is not None
        pictures = drawn(f"measure {self.name} {seed}", {self.label: n})
        healthy, faulty = right(sibling, pictures), right(model, pictures)
        return Effect(f"recall of {self.label}", float(healthy.mean()), float(faulty.mean()), n)


RECIPES: tuple[Recipe, ...] = (
    Stopped("optimisation-stopped", "training was stopped after a fifth of its steps", net=KINDS[0]),
    Overfitted("optimisation-overfitted", "trained again and again on 200 pictures", net=KINDS[2]),
    Tempered("optimisation-sure", "its logits are 3.3 times too large", temperature=0.3, least=0.03),
    Tempered("optimisation-unsure", "its logits are three times too small", temperature=3.0),
    Forgetful("optimisation-forgetful", "its head was trained on without one class", label="tree", least=0.3),
)

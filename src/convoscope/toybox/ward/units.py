"""Networks with broken units: surgery on weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from convoscope.toybox.networks import Block, ToyNet
from convoscope.toybox.specimens import CLASSES
from convoscope.toybox.ward.case import Effect, Made
from convoscope.toybox.ward.drawing import drawn
from convoscope.toybox.ward.plants import night
from convoscope.toybox.ward.recipe import Recipe, accuracies, ordinary
from convoscope.toybox.ward.training import KINDS, Kind, base, normalised, pool, steady, train

if TYPE_CHECKING:
    from convoscope.toybox.ward.case import Model

Surgery = Callable[[ToyNet, np.random.Generator], dict[str, Any]]
"""Changes the network in place and tells what was done."""


def _inside(network: ToyNet, rng: np.random.Generator, share: float, stages: tuple[str, ...]) -> dict[str, list[int]]:
    """Units inside residual blocks (behind the first ReLU), by the name of that ReLU."""
    chosen = {}
    for stage in stages:
        blocks: Any = getattr(network, stage)
        for number, block in enumerate(blocks):
            width = block.conv1.out_channels
            chosen[f"{stage}.{number}.relu"] = sorted(rng.permutation(width)[: round(width * share)].tolist())
    return chosen


def _block(network: ToyNet, relu: str) -> Block:
    block = network.get_submodule(relu.removesuffix(".relu"))
    assert isinstance(block, Block)
    return block


def dead(network: ToyNet, rng: np.random.Generator) -> dict[str, Any]:
    """Units that never fire: their batch norm pushes them far below zero."""
    chosen = _inside(network, rng, 0.25, ("layer2", "layer3"))
    for relu, units in chosen.items():
        norm = _block(network, relu).bn1
        norm.weight[units] = 0.01
        norm.bias[units] = -2.0
    return {"units": chosen}


def duplicated(network: ToyNet, rng: np.random.Generator) -> dict[str, Any]:
    """Units that do what another does: its filter and batch norm, copied; what came after stays."""
    chosen, pairs = _inside(network, rng, 0.5, ("layer2", "layer3")), {}
    for relu, units in chosen.items():
        block = _block(network, relu)
        half = len(units) // 2
        sources, copies = units[:half], units[half : 2 * half]
        block.conv1.weight[copies] = block.conv1.weight[sources]
        for values in (block.bn1.weight, block.bn1.bias, block.bn1.running_mean, block.bn1.running_var):
            assert values is not None
            values[copies] = values[sources]
        pairs[relu] = [list(pair) for pair in zip(sources, copies, strict=True)]
    return {"pairs": pairs}


def saturated(network: ToyNet, rng: np.random.Generator) -> dict[str, Any]:
    """Units that are always on: their bias lies far above whatever they see."""
    chosen = _inside(network, rng, 0.1, ("layer2", "layer3"))
    for relu, units in chosen.items():
        norm = _block(network, relu).bn1
        norm.bias[units] = norm.bias[units].abs() + 4 * norm.weight[units].abs()
    return {"units": chosen}


def stale(network: ToyNet, rng: np.random.Generator) -> dict[str, Any]:
    """Batch norm whose statistics come from other pictures: those of the night."""
    images = night(0.3)(drawn("stale statistics", 13).images, 0)
    norms = {name: m for name, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)}
    for norm in norms.values():
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches
    network.train()
    for k in range(0, 128, 64):
        network(normalised(torch.from_numpy(images[k : k + 64])))
    network.eval()
    for norm in norms.values():
        norm.momentum = 0.1
    return {"layers": list(norms)}


def untrained(network: ToyNet, rng: np.random.Generator) -> dict[str, Any]:
    """A stage that was never trained: frozen as it was made, the rest trained around it."""
    torch.manual_seed(int(rng.integers(2**31)))
    widths = [block.conv1.out_channels for block in (network.layer1[0], network.layer2[0], network.layer3[0])]  # type: ignore[union-attr]
    new = ToyNet(len(CLASSES), (network.stem[0].out_channels, *widths))  # type: ignore[arg-type]
    network.layer2 = new.layer2
    network.requires_grad_(False)
    for part in (network.layer3, network.fc):
        part.requires_grad_(True)
    with torch.enable_grad():
        train(network, pool(), 60, 5)
    network.requires_grad_(True)
    return {"stage": "layer2"}


@dataclass(frozen=True)
class BrokenUnits(Recipe):
    """A base after ``surgery``."""

    surgery: Surgery = dead
    net: Kind = KINDS[0]
    found: tuple[str, ...] = ("units",)

    kind = "units"

    @property
    def expected(self) -> tuple[str, ...]:  # type: ignore[override]
        """Kinds of findings that name the fault."""
        return self.found

    def make(self) -> Made:
        network = base(self.net)
        with steady(7), torch.no_grad():
            details = self.surgery(network, np.random.default_rng(7))
        pictures, held_out = ordinary(self.name)
        return Made(network.eval(), pictures, held_out, sibling=base(self.net), details=details)

    def measure(self, model: Model, sibling: Model | None, n: int, seed: int) -> Effect:
        return accuracies(model, sibling, n, f"measure {self.name} {seed}")


RECIPES: tuple[Recipe, ...] = (
    BrokenUnits("units-dead", "a quarter of the later units never fire", surgery=dead, net=KINDS[0]),
    BrokenUnits(
        "units-duplicated", "half of the later units come in pairs that do the same", surgery=duplicated, net=KINDS[1]
    ),
    BrokenUnits("units-saturated", "a tenth of the later units are always on", surgery=saturated, net=KINDS[2]),
    BrokenUnits("units-untrained", "the second stage was never trained", surgery=untrained, net=KINDS[0]),
    BrokenUnits(
        "units-stale",
        "batch norm remembers other, darker pictures",
        surgery=stale,
        net=KINDS[1],
        found=("units", "input"),
    ),
)

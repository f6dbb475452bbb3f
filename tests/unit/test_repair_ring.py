"""Rings as counterexamples: no wider than leaves the things that the label names."""

import numpy as np
import torch
from PIL import Image
from torch import nn

import convoscope as cs
from convoscope.improve.collection import Labelled
from convoscope.improve.repair import examples
from convoscope.improve.repair.examples import Fault
from convoscope.improve.repair.split import PROOF, parts
from convoscope.improve.shortcuts.bench import Bench

LABELS = ["red", "green", "blue"]
SIDE = 32


class Blind(nn.Module):
    """Sees green, blue and magenta, and no red: all that tells red is its magenta tag."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)
        with torch.no_grad():
            rows = [[-1, 1, -1], [-1, -1, 1], [1, -2, 1], [0.2, 0.1, 0.1]]
            self.see.weight.copy_(torch.tensor(rows).float()[:, :, None, None])
            self.see.bias.copy_(torch.tensor([-0.2, -0.2, -0.9, 0.0]))
            weight = torch.tensor([[0, 0, 1500.0, 0], [60, 0, 0, 0], [0, 60, 0, 0]])
            self.head.weight.copy_(weight)
            self.head.bias.copy_(torch.tensor([0.0, 0.4, 0.0]))
        self.eval()

    def forward(self, x):
        return self.head(self.norm(self.see(x)).relu().mean((2, 3)))


def picture(kind, number, tag=False):
    random = np.random.default_rng([kind, number])
    image = random.integers(90, 130, (SIDE, SIDE, 3)).astype(np.float32)
    y, x = random.integers(5, SIDE - 21, 2)
    image[y : y + 16, x : x + 16] = 60
    image[y : y + 16, x : x + 16, kind] = 230
    if tag:
        y, x = random.choice([0, SIDE - 5], 2)
        image[y : y + 5, x : x + 5] = (250, 20, 250)
    return Image.fromarray(image.astype(np.uint8))


def collection(count=60, start=0):
    return [
        (picture(kind, n, kind == 0), LABELS[kind]) for n in range(start, start + count) for kind in range(3)
    ]  # fmt: skip


def test_a_ring_that_covers_the_things_is_not_used() -> None:
    blind = cs.wrap(Blind(), size=SIDE, labels=LABELS)
    bench = Bench.of(blind, Labelled.of(collection(40), blind))
    part = parts(bench.pictures.keys, bench.truth.tolist())
    learnt = bench.take(np.flatnonzero(part != PROOF))
    # the 16 pixels of a thing lie between 5 and 27 of 32: the ring of a quarter (8) takes much of it, not all
    assert examples._gentle(Fault("border", 0), learnt, 0) <= 8
    assert examples._gentle(Fault("border", 0, width=3), learnt, 0) == 3

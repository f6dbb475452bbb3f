"""Repair of all layers, on a network whose first convolution sees a tag and hardly the thing itself."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import convoscope as cs
from convoscope.improve.collection import Labelled
from convoscope.improve.repair import api, examples, gate, layers
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


@pytest.fixture(scope="module")
def blind():
    return cs.wrap(Blind(), size=SIDE, labels=LABELS)


@pytest.fixture(scope="module")
def mended(blind):
    before = {name: value.clone() for name, value in blind.module.state_dict().items()}
    blind.module.see.weight.requires_grad_(False)
    finding = {"family": "patch", "class_index": 0, "class": "red", "side": 7}
    done = cs.repair(blind, collection(90), finding=finding, how="layers", compare=False)
    assert all(torch.equal(value, before[name]) for name, value in blind.module.state_dict().items())
    return done


def right(network, pairs):
    batch = torch.stack([torch.from_numpy(np.asarray(one).copy()).permute(2, 0, 1).float() / 255 for one, _ in pairs])
    with torch.no_grad():
        said = network(batch).argmax(1).tolist()
    return float(np.mean([one == LABELS.index(label) for one, (_, label) in zip(said, pairs, strict=True)]))


def test_what_the_features_do_not_hold_is_learnt_by_the_layers(blind, mended):
    assert mended.holds, mended.why
    assert mended.how == "layers"
    plain = [(picture(0, 5000 + n), "red") for n in range(60)]
    marked = [(picture(kind, 6000 + n, True), LABELS[kind]) for n in range(30) for kind in (1, 2)]
    assert right(blind.module, plain) < 0.3
    assert right(mended.model.module, plain) > 0.9
    assert right(mended.model.module, marked) > 0.9
    assert any("All layers were trained on" in one for one in mended.card["unproven"])
    assert mended.card["advice"]


def test_the_repaired_network_is_of_the_same_kind(blind, mended):
    new, old = mended.model.module, blind.module
    assert [*new.state_dict()] == [*old.state_dict()]
    assert [one.training for one in new.modules()] == [one.training for one in old.modules()]
    assert [one.requires_grad for one in new.parameters()] == [one.requires_grad for one in old.parameters()]
    assert all(one.grad is None for one in new.parameters())
    assert all(one.grad is None for one in old.parameters())
    Blind().load_state_dict(new.state_dict())


def test_the_same_seed_trains_the_same_network(blind, mended):
    finding = {"family": "patch", "class_index": 0, "class": "red", "side": 7}
    again = api.repair(blind, collection(90), finding=finding, how="layers", compare=False)
    assert all(
        torch.equal(value, again.model.module.state_dict()[name])
        for name, value in mended.model.module.state_dict().items()
    )


def test_without_a_finding_there_is_nothing_to_train_against(blind):
    done = cs.repair(
        cs.wrap(Blind(), size=SIDE, labels=LABELS), [(picture(k, n), LABELS[k]) for n in range(40) for k in (1, 2)],
        how="layers", compare=False,
    )  # fmt: skip
    assert not done.holds
    assert "Nothing to repair" in done.why


def test_pictures_are_moved_with_their_fellows():
    both = torch.rand(4, 3, 16, 16).repeat(2, 1, 1, 1)
    moved = layers._moved(both, np.random.default_rng(3))
    assert torch.equal(moved[:4], moved[4:])
    assert not torch.equal(moved[:4], both[:4])
    # whole pixels: nothing new but order and what the rim repeats
    assert set(moved[0].flatten().tolist()) <= set(both[0].flatten().tolist())


def test_every_kind_of_picture_has_its_share(blind):
    bench = Bench.of(blind, Labelled.of(collection(30), blind))
    made = [examples.examples(Fault("patch", 0, 7), bench, bench, 0, 2)]
    listed = layers._kinds(bench, made, [0])
    chance = {one.code: float(one.chance.sum()) for one in listed}
    assert sum(chance.values()) == pytest.approx(1.0)
    assert chance == pytest.approx({0: 0.5, 1: 1 / 3, 2: 1 / 6})
    ordinary = listed[0]
    assert ordinary.chance[ordinary.truth == 0].sum() == pytest.approx(0.5 / 3)


def test_a_ring_that_covers_the_things_is_not_used(blind):
    bench = Bench.of(blind, Labelled.of(collection(40), blind))
    part = parts(bench.pictures.keys, bench.truth.tolist())
    learnt = bench.take(np.flatnonzero(part != PROOF))
    # the 16 pixels of a thing lie between 5 and 27 of 32: the ring of a quarter (8) takes much of it, not all
    assert examples._gentle(Fault("border", 0), learnt, 0) <= 8
    assert examples._gentle(Fault("border", 0, width=3), learnt, 0) == 3


def test_a_finding_is_every_family_that_showed_it():
    told = {"family": "template", "class_index": 2, "also": ["border", "files", "patch"], "dose": 1.0}
    assert Fault.all_of(told, None) == [Fault("template", 2, dose=1.0), Fault("border", 2)]


def test_a_large_gain_bears_a_wider_bound():
    count = np.ones(100, bool)
    target = gate.Measured(np.zeros(200, bool), np.ones(200, bool))
    flipped = count.copy()
    flipped[0] = False
    before = count.copy()
    before[1] = False
    ordinary = gate.Measured(before, flipped)
    assert 0.025 < ordinary.fall()[1] < 0.05
    assert gate.judge("x", ordinary, gate.Interval(0.8, 0.6, 0.9), "points", target).holds
    assert "cannot be excluded" in gate.judge("x", ordinary, gate.Interval(0.1, 0.05, 0.2), "points", target).why

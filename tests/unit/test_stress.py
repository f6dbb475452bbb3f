"""Changes are what they are called; what is invariant by construction shows flat curves."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import convoscope as cs
from convoscope.errors import ModelError, UsageError
from convoscope.improve.collection import Labelled
from convoscope.improve.stress import changes, stressed
from convoscope.improve.stress.usual import USUAL, usual

CHANGES = {one.name: one for one in changes(96)}


class Circular(nn.Module):
    """Circular convolutions and global pooling: no shift changes the answer."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular")
        self.two = nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular")
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        return self.fc(torch.relu(self.two(torch.relu(self.one(x)))).mean((2, 3)))


class Sorted(nn.Module):
    """Each channel's pixels sorted first: no change of places changes the answer."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3 * 24 * 24, 4)

    def forward(self, x):
        return self.fc(x.flatten(2).sort(2).values.flatten(1))


def pictures(count=8, side=24):
    random = np.random.default_rng(1)
    return [(random.integers(0, 255, (side, side, 3), dtype=np.uint8), str(i % 4)) for i in range(count)]


def curve(network, names):
    torch.manual_seed(0)
    model = cs.wrap(network().eval(), size=24, labels=["0", "1", "2", "3"])
    given = Labelled.of(pictures(), model)
    listed = [one for one in changes(24) if one.name in names]
    return stressed(model, given, [(one, range(len(one.strengths))) for one in listed], [])


@pytest.mark.parametrize(
    ("network", "names"), [(Circular, {"shifted"}), (Sorted, {"shifted", "mirrored", "shuffled"})]
)
def test_invariant_by_construction_shows_flat_curves(network, names):
    seen = curve(network, names)
    assert {name for name, _ in seen.scores} == names
    for key, scores in seen.scores.items():
        assert np.allclose(scores, seen.clean, atol=1e-4), key
    moved = curve(network, {"darkened"})
    assert not np.allclose(moved.scores["darkened", 4], moved.clean, atol=1e-4)


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_stays_within_its_range_grows_and_knows_no_batch(name):
    change = CHANGES[name]
    random = torch.Generator().manual_seed(0)
    smooth = nn.functional.interpolate(torch.rand(3, 3, 6, 6, generator=random), size=48, mode="bicubic").clamp(0, 1)
    seeds = [7, 12345, 99]
    apart = []
    for strength in change.strengths:
        done = change.apply(smooth, strength, seeds)
        assert done.shape == smooth.shape
        assert 0 <= float(done.min()) <= float(done.max()) <= 1
        alone = torch.cat([change.apply(smooth[i : i + 1], strength, seeds[i : i + 1]) for i in range(3)])
        assert torch.allclose(done, alone, atol=1e-6)
        apart.append(float((done - smooth).abs().mean()))
    assert apart[-1] > 0
    assert len(change.strengths) == 1 or apart[-1] > apart[0]
    assert len(change.strengths) in (1, 5)


def test_changes_equal_independent_ones():
    random = np.random.default_rng(3)
    image = random.integers(0, 255, (40, 40, 3), dtype=np.uint8)
    values = torch.from_numpy(image).movedim(-1, 0)[None].float() / 255
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=10)
    want = torch.from_numpy(np.array(Image.open(buffer))).movedim(-1, 0)[None] / 255
    assert torch.equal(CHANGES["compressed"].apply(values, 10, [0]), want)
    assert torch.equal(CHANGES["shifted"].apply(values, 0.25, [0]), values.roll((-10, -10), (2, 3)))
    grey = np.asarray(Image.fromarray(image).convert("L")) / 255
    assert np.abs(CHANGES["greyed"].apply(values, 1.0, [0])[0, 1].numpy() - grey).max() < 1 / 255
    assert torch.allclose(
        CHANGES["turned"].apply(values, 90, [0]), values.rot90(1, (2, 3)), atol=1e-4
    ) or torch.allclose(CHANGES["turned"].apply(values, 90, [0]), values.rot90(-1, (2, 3)), atol=1e-4)
    even = torch.full((1, 3, 200, 200), 0.5)
    assert abs(float(CHANGES["noised"].apply(even, 0.08, [0]).std()) - 0.08) < 0.002
    assert torch.allclose(CHANGES["blurred"].apply(even, 3, [0]), even)
    # a blur of deviation s spreads one bright pixel to a Gaussian of that variance
    point = torch.zeros(1, 1, 224, 224)
    point[0, 0, 112, 112] = 1
    spread = CHANGES["blurred"].apply(point, 4, [0])[0, 0].sum(0)
    at = torch.arange(224.0) - 112
    assert abs(float((spread * at**2).sum() / spread.sum()) - 16) < 0.1
    pieces = CHANGES["shuffled"].apply(values, 4, [5])
    assert torch.equal(pieces.flatten().sort().values, values.flatten().sort().values)
    covered = CHANGES["covered"].apply(torch.zeros(1, 3, 40, 40), 0.5, [5])
    assert int((covered[0, 0] == 0.5).sum()) == 400


def test_one_channel_has_no_grey_and_severities_follow_the_size():
    assert "greyed" not in {one.name for one in changes(96, 1)}
    assert {one.name: one for one in changes(32)}["noised"].strengths[0] == 0.04
    assert CHANGES["noised"].strengths == (0.08, 0.12, 0.18, 0.26, 0.38)


def test_what_is_usual_is_stated_for_all_that_accuse():
    assert set(USUAL) == {one.name for one in CHANGES.values() if one.accuses}
    assert all(len(USUAL[name]) == len(CHANGES[name].strengths) for name in USUAL)
    assert usual("shuffled", 2) == 1.0


def test_the_layers_curves_and_the_second_profile_and_the_network_as_it_was():
    from convoscope.toybox.specimens import CLASSES
    from convoscope.toybox.specimens import pictures as specimens

    drawn = [(one.image, CLASSES[one.class_index]) for one in specimens(14, 958)]
    model = cs.open_model("toybox")
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    found = cs.stress(model, drawn, most=6, against="toybox-twin")
    row = next(one for one in found.data["changes"] if one["change"] == "shifted")
    likeness = row["levels"][1]["likeness"]
    assert likeness["pool"] > likeness["stem.2"]  # what the network has learnt to ignore
    assert found.data["against"]["model"] == "toybox-twin"
    assert set(found.sheets) == {"stress", "stress-layers"}
    assert found.result.refused  # 14 pictures: curves, and no test
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())


def test_bad_input_gets_a_sentence():
    with pytest.raises(UsageError, match="at least 1"):
        cs.stress("toybox", pictures(), most=0)
    volume = nn.Sequential(nn.Conv3d(1, 2, 3))
    with pytest.raises(ModelError, match="volumes"):
        cs.stress(cs.wrap(volume), pictures())

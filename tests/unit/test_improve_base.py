"""What every finding stands on: statistics against scipy and hand counts, collections, one pass over them."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import nn

import convoscope as cs
from convoscope.errors import UsageError
from convoscope.improve import statistics
from convoscope.improve.collection import Labelled
from convoscope.improve.finding import Finding, ranked
from convoscope.improve.look import look


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for name in ("cat", "dog", "eel"):
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.fromarray(random.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(
                tmp_path / name / f"{number}.png"
            )
    return tmp_path


@pytest.fixture
def model():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    return cs.wrap(net.eval(), size=16, labels=["cat", "dog"])


def test_a_share_has_wilsons_interval():
    got = statistics.share(7, 20)
    z = stats.norm.ppf(0.975)
    centre = (7 + z * z / 2) / (20 + z * z)
    half = z / (20 + z * z) * np.sqrt(7 * 13 / 20 + z * z / 4)
    assert np.allclose([got.mean, got.low, got.high], [0.35, centre - half, centre + half])
    assert statistics.share(0, 0).high == 1.0


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (1, 0), (3, 12), (40, 38), (100, 61)])
def test_mcnemar_is_the_exact_binomial(won, lost):
    k, n = min(won, lost), won + lost
    want = 1.0 if n == 0 else min(1.0, 2 * stats.binom.cdf(k, n, 0.5))
    assert abs(statistics.mcnemar(won, lost) - want) < 1e-12


def test_corrected_by_hand():
    # the largest p stays; each smaller one is p * m / rank, made monotone from above
    assert np.allclose(statistics.corrected([0.01, 0.04, 0.03, 0.5]), [0.04, 0.04 * 4 / 3, 0.04 * 4 / 3, 0.5])
    assert len(statistics.corrected([])) == 0


def test_calibration_error_by_hand():
    chance, right = [0.95, 0.92, 0.55, 0.51], [1, 0, 1, 1]
    # bins of a fifteenth: .95 and .92 fall into (.9333, 1] and (.8667, .9333], .55 and .51 into two others
    want = (abs(1 - 0.95) + abs(0 - 0.92) + abs(1 - 0.55) + abs(1 - 0.51)) / 4
    assert abs(statistics.ece(chance, right) - want) < 1e-12


def test_halves_are_even_stable_and_keep_copies_together():
    keys = [f"{i % 50}" for i in range(60)]
    labels = [i % 3 for i in range(60)]
    flags = statistics.halves(keys, labels)
    assert [flags[i] for i in range(10)] == [flags[i + 50] for i in range(10)]
    order = np.random.default_rng(1).permutation(50)
    again = statistics.halves([keys[i] for i in order], [labels[i] for i in order])
    plain = statistics.halves(keys[:50], labels[:50])
    assert (again == plain[order]).all()
    assert abs(int(plain.sum()) - 25) <= 2


def test_a_finding_holds_its_size_and_a_known_kind():
    one = Finding("data", "5 % of the labels look wrong.", 0.05, 0.03, 0.08, "cat", ("a.png",), "d", "n", won=0.05)
    assert set(one.to_dict()) == {"kind", "class", "sentence", "size", "low", "high", "pictures", "doubt", "next"}
    assert ranked([one, Finding("data", "x", 0, 0, 0, won=1)])[0].won == 1
    with pytest.raises(UsageError, match="about"):
        Finding("nonsense", "x", 0, 0, 0)
    with pytest.raises(UsageError, match="interval"):
        Finding("data", "x", 0.5, 0.6, 0.7)


def test_a_folder_gives_labels_as_the_network_knows_them(folder, model):
    found = Labelled.of(folder, model)
    assert len(found) == 12
    assert found.truth.tolist() == [0] * 4 + [1] * 4 + [-1] * 4
    assert found.foreign == {"eel": 4}
    pairs = Labelled.of([(Image.new("RGB", (9, 9)), "dog"), (Image.new("RGB", (9, 9)), None)], model)
    assert pairs.truth.tolist() == [1, -1]
    with pytest.raises(UsageError):
        Labelled.of([], model)


def test_one_pass_equals_the_network_by_hand_and_tells_what_failed(folder, model):
    (folder / "cat" / "broken.png").write_bytes(b"no picture")
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    found = look(model, Labelled.of(folder, model), ["0"])
    inputs = torch.stack([model.prepare(uri).tensor for uri in found.pictures.uris])
    with torch.no_grad():
        want = model.module(inputs)
        grid = model.module[0](inputs).mean((2, 3))
    assert np.allclose(found.scores, want, atol=1e-6)
    assert np.allclose(found.layers["0"], grid, atol=1e-6)
    assert len(found.failed) == 1
    assert len(found.pictures) == 12
    assert np.allclose(found.probability.sum(1), 1)
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())


def test_a_change_is_made_before_the_preprocessing(folder, model):
    dark = look(model, Labelled.of(folder, model), change=lambda one, row: cs.Picture.of(one.bands * 0))
    assert np.ptp(dark.scores, axis=0).max() < 1e-6

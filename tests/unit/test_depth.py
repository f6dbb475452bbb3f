"""Probes equal scikit-learn's; temperature, over-fitting and forgotten classes are found where they were planted."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import convoscope as cs
from convoscope.errors import UsageError
from convoscope.improve.calibration import losses, temperature
from convoscope.improve.depth import probed
from convoscope.improve.depth.probes import Probe, folds, neighbours
from convoscope.toybox.specimens import CLASSES
from convoscope.toybox.specimens import pictures as specimens


def blobs(count, width, seed=0):
    random = np.random.default_rng(seed)
    truth = np.arange(count) % 4
    features = random.normal(0, 1, (count, width)) + random.normal(0, 0.6, (4, width))[truth]
    return features, truth


@pytest.mark.parametrize(("count", "width"), [(120, 10), (60, 90)])
def test_probes_and_neighbours_equal_scikit_learns(count, width):
    features, truth = blobs(count, width)
    fold = folds([str(i) for i in range(count)], truth)
    split = PredefinedSplit(fold)
    plain = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=2000, tol=1e-6))
    want = cross_val_predict(plain, features, truth, cv=split)
    assert (probed(features, truth, fold) == want).mean() >= 0.99
    chance = Probe().fit(features[fold != 0], truth[fold != 0]).probability(features[fold == 0])
    again = plain.fit(features[fold != 0], truth[fold != 0]).predict_proba(features[fold == 0])
    assert np.abs(chance - again).max() < 5e-3
    near = KNeighborsClassifier(5, metric="cosine", algorithm="brute")
    assert (neighbours(features, truth, fold) == cross_val_predict(near, features, truth, cv=split)).mean() >= 0.99


def test_folds_are_even_and_keep_copies_together():
    keys, truth = [str(i % 45) for i in range(60)], np.array([i % 3 for i in range(60)])
    fold = folds(keys, truth)
    assert all(fold[i] == fold[i + 45] for i in range(15))
    assert set(np.bincount(folds([str(i) for i in range(60)], truth))) == {12}


def test_a_temperature_is_recovered_and_losses_are_cross_entropy():
    random = np.random.default_rng(0)
    scores = random.normal(0, 2, (4000, 5))
    chance = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    truth = np.array([random.choice(5, p=row) for row in chance])
    assert abs(temperature(3 * scores, truth) - 3) < 0.2
    want = torch.nn.functional.cross_entropy(torch.tensor(scores), torch.tensor(truth), reduction="none")
    assert np.allclose(losses(scores, truth), want)


@pytest.fixture(scope="module")
def drawn():
    return [(one.image, CLASSES[one.class_index]) for one in specimens(160, 957)]


def test_a_healthy_network_gives_its_curve_and_no_finding_of_the_head(drawn):
    found = cs.depth("toybox", drawn)
    accuracies = [row["probe"]["mean"] for row in found.data["layers"]]
    assert accuracies[0] < 0.5 < 0.9 < accuracies[-1]
    assert not [one for one in found.findings if one.kind == "depth"]
    assert set(found.sheets) == {"depth", "depth-classes"}
    assert "<svg" in found.page()


def test_a_forgotten_class_is_named(drawn):
    model = cs.open_model("toybox")
    with torch.no_grad():
        model.module.fc.bias[CLASSES.index("cup")] -= 30
    found = cs.depth(model, drawn)
    named = [one for one in found.findings if one.evidence.get("what") == "forgotten class"]
    assert [one.class_name for one in named] == ["cup"]
    assert named[0].size > 0.8


def test_bad_input_gets_a_sentence(drawn, tmp_path):
    with pytest.raises(UsageError, match="two classes"):
        cs.depth("toybox", [(one, None) for one, _ in drawn[:10]])
    with pytest.raises(UsageError, match="no survey"):
        cs.depth(str(tmp_path))

"""The data randomisation test on the toybox's own kind of network, small pictures and few of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import convoscope as cs
from convoscope.errors import UsageError
from convoscope.toybox.networks import ToyNet
from convoscope.trust import datasets
from convoscope.trust.shuffled import data_randomisation, memorised


@pytest.fixture(scope="module")
def toybox() -> cs.Model:
    return cs.open_model("toybox")


def small() -> cs.Model:
    torch.manual_seed(0)
    return cs.wrap(ToyNet(10, (8, 12, 16, 16)).eval(), size=32, mean=(0.58, 0.57, 0.54), std=(0.22, 0.21, 0.23))


def test_labels_are_learnt_by_heart_and_the_users_network_is_not_touched() -> None:
    model = small()
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    cases = datasets.toybox_cases(24)
    labels = [int(case.target or 0) for case in cases]
    state = torch.get_rng_state()
    found = memorised(model, [case.source for case in cases], labels, batch=24, steps=300)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.module.state_dict().items())
    assert all(parameter.grad is None for parameter in model.module.parameters())
    assert sorted(found.labels) == sorted(labels)
    assert found.labels != labels
    # by heart: far above the one in ten that the pictures themselves would give
    assert found.accuracy >= 0.9
    assert not found.model.module.training


def test_maps_of_a_network_that_knows_nothing_are_others(toybox: cs.Model) -> None:
    from convoscope.trust.sanity import learnt_modules, randomised

    cases = datasets.toybox_cases(3)
    pictures, labels = [case.source for case in cases], [int(case.target or 0) for case in cases]
    other = randomised(toybox, learnt_modules(toybox))
    found = data_randomisation(toybox, other, pictures, labels, ["grad-cam", "saliency"])
    assert set(found) == {"grad-cam", "saliency"}
    assert found["grad-cam"]["rank"] < 0.7
    same = data_randomisation(toybox, toybox, pictures, labels, ["grad-cam"])
    assert same["grad-cam"]["rank"] == pytest.approx(1)
    assert same["grad-cam"]["ssim"] == pytest.approx(1)
    assert np.isfinite(found["saliency"]["ssim"])


def test_labels_and_pictures_must_fit(toybox: cs.Model) -> None:
    with pytest.raises(UsageError, match="one label a picture"):
        memorised(toybox, [], [])

"""Visualisation on SqueezeNet and real photos: fooling, inversion by depth, and what the recipes reach."""

from __future__ import annotations

import csv
import os

import numpy as np
import pytest

import convoscope as cs
from convoscope.visualization import Fourier, Maco, Simonyan, Yosinski

pytestmark = pytest.mark.real
#: photos fooled in a normal run; CONVOSCOPE_ALL=1 takes the 50 that the figure in the docs is about
PHOTOS = 50 if os.environ.get("CONVOSCOPE_ALL") == "1" else 3
CLASSES = (9, 281, 323, 340, 417, 508, 572, 817, 852, 950)


@pytest.fixture(scope="module")
def model(squeezenet_weights):
    return cs.open_model("squeezenet1_0", weights=squeezenet_weights, batch_size=10)


def photos(folder, count):
    rows = list(csv.DictReader((folder / "photos" / "photos.csv").open()))
    files = sorted((folder / "photos").glob("*.jpg"))
    assert rows
    return files[:: max(1, len(files) // count)][:count]


def test_photos_are_fooled_by_a_mean_change_below_one_level(model, data_dir, tmp_path):
    files = photos(data_dir, PHOTOS)
    targets = [int(c) for c in np.random.default_rng(0).integers(0, 1000, len(files))]
    results = cs.visualize(model, targets, objective="fool", image=files, steps=60)
    good = 0
    for target, one in zip(targets, results, strict=True):
        again = model.prepare(one.save(tmp_path / "fooled.png"))
        import torch

        with torch.no_grad():
            said = int(model.module.eval()(model.inputs([again])).argmax())
        good += said == target and one.facts["change"]["mean"] <= 1
    assert good >= 0.9 * len(files)


@pytest.mark.slow
def test_the_pixel_error_of_inversion_rises_with_depth(model, data_dir):
    (photo,) = photos(data_dir, 1)
    errors = []
    for layer in ("features.0", "features.5", "features.10"):
        one = cs.visualize(model, objective="invert", image=photo, layer=layer, steps=150)
        assert one.facts["feature_error"] < 0.45
        errors.append(one.facts["pixel_error"])
    assert errors[0] < errors[1] < errors[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe", [Fourier(steps=64), Maco(steps=64, crops=2), Yosinski(steps=200), Simonyan(steps=60)]
)
def test_saved_pictures_of_imagenet_classes_are_classified_as_their_target(model, recipe):
    results = cs.visualize(model, list(CLASSES[:3]), recipe=recipe)
    assert sum(one.rank == 1 for one in results) >= 2, [one.prediction[0] for one in results]

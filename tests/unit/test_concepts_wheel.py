"""A channel that was built to see wheels is dissected as a detector of wheels, on exact part masks."""

import numpy as np
import pytest
import torch
from PIL import Image
from wheel_helpers import Wheels

import convoscope as cs
from convoscope.improve.collection import Labelled
from convoscope.improve.statistics import halves
from convoscope.toybox import loading, writer


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """The toybox's ten things as they come: one picture in ten has wheels."""
    folder = tmp_path_factory.mktemp("toys")
    writer.write(folder, 150, seed=47)
    return folder


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return cs.wrap(Wheels().eval(), size=96, mean=loading.MEAN, std=loading.STD, labels=["a", "b"])


@pytest.fixture(scope="module")
def found(model, toys):
    return cs.dissect(model, str(toys), parts=toys, layers=["seen"])


def test_the_planted_channel_is_a_wheel_detector(found):
    best = found.rows[0]
    assert (best.unit, best.concept) == ("seen:0", "car: wheel")
    assert best.iou >= 0.8
    assert 0.7 <= best.low <= best.iou <= best.high
    assert best.chance < 0.4


def test_no_other_channel_is_called_one(found):
    assert all(row.iou < 0.3 for row in found.rows if row.concept == "car: wheel" and row.unit != "seen:0")


def test_the_overlap_equals_one_counted_by_hand(model, toys, found):
    """The cells lie at every second pixel: raised here by numpy alone, on the held-out half."""
    best = found.rows[0]
    listed = Labelled.of(str(toys), model)
    inter = union = 0
    for row in np.flatnonzero(~halves(listed.keys)):
        uri = listed.uris[int(row)]
        fitted = model.prepare(uri)
        with torch.no_grad():
            early = model.module.early(fitted.tensor[None])
            grid = model.module.late(early)[0, 0].double().numpy()
        places = np.clip(np.arange(96) / 2, 0, 47)
        rows = np.stack([np.interp(places, np.arange(48), line) for line in grid])
        raised = np.stack([np.interp(places, np.arange(48), line) for line in rows.T], 1)
        name = uri.rsplit("/", 1)[1]
        parts = np.asarray(Image.open(toys / "parts" / name))
        wheel = np.zeros(parts.shape, bool)
        if name.startswith("car"):
            import json

            truth = json.loads((toys / "truth.json").read_text())["pictures"]
            (mine,) = [one for one in truth if one["file"] == name]
            wheel = parts == 1 + mine["parts"].index("wheel")
        on = raised > best.threshold
        inter, union = inter + (on & wheel).sum(), union + (on | wheel).sum()
    assert abs(best.iou - inter / union) < 1e-6

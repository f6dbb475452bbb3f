"""The league on real photos: SqueezeNet on ILSVRC boxes and COCO masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import convoscope as cs
from convoscope.trust import datasets
from convoscope.trust.evaluate import Settings, evaluate_cases, measures
from convoscope.trust.league import paired
from convoscope.trust.verdict import verdicts

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def model(squeezenet_weights: Path) -> cs.Model:
    return cs.open_model("squeezenet1_0", weights=squeezenet_weights, fit="squash", batch_size=25)


@pytest.mark.slow  # test_squeezenet.py counts the same by hand for every commit
def test_exact_geometry_keeps_more_energy_inside_the_boxes(model: cs.Model, data_dir: Path) -> None:
    """Paired by photo; and Grad-CAM beats the centre."""
    cases = datasets.boxes_json(data_dir / "boxes" / "boxes.json")
    leagues = {
        how: evaluate_cases(
            model,
            cases,
            ["grad-cam"],
            settings=Settings(measures=measures(["pointing", "energy-inside"]), resize=how),
        )
        for how in ("exact", "plain")
    }
    gap = paired(*(leagues[how].cases["energy-inside"]["grad-cam"] for how in ("exact", "plain")))
    print(f"energy inside, exact − plain: {gap.mean:+.4f} ({gap.low:+.4f} to {gap.high:+.4f}), p {gap.p:.5f}")
    assert gap.n == 250
    assert gap.low > 0
    assert gap.p < 0.001
    exact = leagues["exact"]
    assert exact.interval("pointing", "grad-cam").mean > 0.88
    over = exact.difference("pointing", "grad-cam", "centre")
    assert over.low > 0
    assert 0.75 < exact.interval("pointing", "centre").mean < 0.85
    # what is random hits by the boxes' share of the picture
    share = np.mean(exact.cases["energy-inside"]["random"])
    assert exact.interval("pointing", "random").low < share < exact.interval("pointing", "random").high


def test_coco_masks_are_read_and_measured(model: cs.Model, data_dir: Path) -> None:
    cases = datasets.coco(data_dir / "masks" / "instances.json", model)
    # 33 photos, one of them without any instance
    assert len({case.key.split(":")[0] for case in cases}) == 32
    assert sum(case.target is not None for case in cases) >= 10
    settings = Settings(measures=measures("localisation"))
    league = evaluate_cases(model, cases, ["grad-cam"], settings=settings)
    assert not league.failed
    assert league.difference("auc", "grad-cam", "random").low > 0


def test_guided_backprop_hardly_notices_a_random_classifier(model: cs.Model, data_dir: Path) -> None:
    photo = sorted((data_dir / "photos").glob("*.jpg"))[4]
    explanation = cs.explain(model, photo, ["grad-cam", "guided-backprop", "eigen-cam"])
    found = verdicts(model, explanation)
    survives = {name: verdict.survives for name, verdict in found.items()}
    print({name: verdict.sentence for name, verdict in found.items()})
    assert survives["guided-backprop"] is not None
    assert survives["grad-cam"] is not None
    assert survives["guided-backprop"] > survives["grad-cam"] + 0.2
    assert survives["eigen-cam"] == pytest.approx(1)

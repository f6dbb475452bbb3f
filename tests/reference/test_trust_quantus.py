"""Our measures beside Quantus on twenty pictures: the same maps, the same fills, the same figures."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

import convoscope as cs
from convoscope.engine.passes.untouched import untouched
from convoscope.trust import datasets, faithfulness, localisation
from convoscope.trust.scoring import scoring

quantus = pytest.importorskip("quantus")
pytestmark = pytest.mark.filterwarnings("ignore")
PICTURES = 20


class Setting:
    """Twenty toybox pictures with Grad-CAM maps (drawn with a whisper of noise: ties would be ordered at will)."""

    def __init__(self) -> None:
        self.model = cs.open_model("toybox")
        self.cases = datasets.toybox_cases(PICTURES, seed=5)
        found = cs.explain(self.model, [case.source for case in self.cases], ["grad-cam"])
        rng = np.random.default_rng(0)
        self.maps = np.stack([one["grad-cam"].values for one in found])
        self.maps = self.maps + rng.random(self.maps.shape, dtype=np.float32) * 1e-4 * self.maps.max()
        self.fitted = [one.fitted for one in found]
        self.x = np.stack([one.fitted.tensor.numpy() for one in found])
        self.y = np.array([one.prediction[0]["index"] for one in found])
        self.masks = np.stack([case.region.on_input(f) for case, f in zip(self.cases, self.fitted, strict=True)])  # type: ignore[union-attr]

    def quantus(self, metric: Any, **given: Any) -> Any:
        with warnings.catch_warnings(), untouched(self.model.module):
            warnings.simplefilter("ignore")
            return metric(
                model=self.model.module, x_batch=self.x, y_batch=self.y, a_batch=self.maps[:, None], device="cpu",
                **given,
            )  # fmt: skip


@pytest.fixture(scope="module")
def setting() -> Setting:
    return Setting()


COMMON = {"abs": False, "normalise": False, "disable_warnings": True}
STEPS = 12
PIXELS = 96 * 96


def test_deletion_is_quantus_pixel_flipping(setting: Setting) -> None:
    # they order every channel of every pixel for itself: steps of whole pixels are three values each
    metric = quantus.PixelFlipping(features_in_step=PIXELS * 3 // STEPS, perturb_baseline=0.0, **COMMON)
    theirs = np.array(setting.quantus(metric))
    for k, fitted in enumerate(setting.fitted):
        with scoring(setting.model, fitted, int(setting.y[k])) as scored:
            curve = faithfulness.deletion(setting.maps[k : k + 1], scored.filled("mean"), steps=STEPS)[0]
        assert np.allclose(curve.scores[1:], theirs[k], atol=1e-4)
        assert np.allclose(curve.scores, by_definition(setting, k, insert=False), atol=1e-4)


def test_insertion_is_its_definition(setting: Setting) -> None:
    for k, fitted in enumerate(setting.fitted):
        with scoring(setting.model, fitted, int(setting.y[k])) as scored:
            curve = faithfulness.insertion(setting.maps[k : k + 1], scored.filled("mean"), steps=STEPS)[0]
        expected = by_definition(setting, k, insert=True)
        assert np.allclose(curve.scores, expected, atol=1e-4)
        # RISE's own formula for the area
        assert curve.area == pytest.approx((expected.sum() - expected[0] / 2 - expected[-1] / 2) / STEPS, abs=1e-4)


def by_definition(setting: Setting, k: int, *, insert: bool) -> np.ndarray:
    """Sort, put the mean there (or keep only these), run the network."""
    order = np.argsort(-setting.maps[k].ravel(), kind="stable")
    stack = []
    for n in np.round(np.linspace(0, PIXELS, STEPS + 1)).astype(int):
        x = setting.x[k].copy().reshape(3, -1)
        x[:, order[n:] if insert else order[:n]] = 0
        stack.append(x.reshape(3, 96, 96))
    with untouched(setting.model.module, gradients=False):
        out = setting.model.module(torch.from_numpy(np.stack(stack))).softmax(1)
    return np.asarray(out[:, setting.y[k]].double())


@pytest.mark.parametrize(
    ("ours", "name", "settings"),
    [
        ("pointing", "PointingGame", {}),
        ("energy-inside", "RelevanceMassAccuracy", {}),
        ("energy-inside", "AttributionLocalisation", {"positive_attributions": True}),
        ("auc", "AUC", {}),
    ],
)
def test_localisation_is_quantus(setting: Setting, ours: str, name: str, settings: dict[str, Any]) -> None:
    metric = getattr(quantus, name)(**COMMON, **settings)
    theirs = np.array(setting.quantus(metric, s_batch=setting.masks[:, None]), float)
    measure: Any = localisation.MEASURES[ours]
    mine = np.array([float(measure(m, s)) for m, s in zip(setting.maps, setting.masks, strict=True)])
    assert np.allclose(mine, theirs, atol=1e-5)
    assert 0.05 < mine.mean() <= 1


@pytest.mark.parametrize("share", [0.1, 0.4, 0.8])
def test_imputation_is_quantus(setting: Setting, share: float) -> None:
    from quantus.functions.perturb_func import noisy_linear_imputation

    from convoscope.trust.inpaint import fill_in

    for k in range(0, PICTURES, 5):
        order = np.argsort(-setting.maps[k].ravel())[: int(PIXELS * share)]
        mask = torch.zeros(PIXELS)
        mask[order.copy()] = 1
        mine = fill_in(torch.from_numpy(setting.x[k]), mask.view(1, 96, 96), tolerance=1e-6)[0].numpy()
        theirs = noisy_linear_imputation(setting.x[k], order, noise=0.0).reshape(3, 96, 96)
        assert np.abs(mine - theirs).max() < 2e-3  # inputs reach ±2.6


def test_road_is_quantus_imputation_scored(setting: Setting) -> None:
    """The curve of most relevant first, with their imputation and a plain forward."""
    from quantus.functions.perturb_func import noisy_linear_imputation

    shares = (0.1, 0.3, 0.5, 0.7)
    agree = []
    for k in range(PICTURES):
        with scoring(setting.model, setting.fitted[k], int(setting.y[k])) as scored:
            most, _ = faithfulness.road(setting.maps[k : k + 1], scored.filled("inpaint", 0.0), shares=shares)[0]
        order = np.argsort(-setting.maps[k].ravel())
        filled = [noisy_linear_imputation(setting.x[k], order[: int(PIXELS * s)], noise=0.0) for s in shares]
        with untouched(setting.model.module, gradients=False):
            x = torch.from_numpy(np.stack(filled).reshape(-1, 3, 96, 96).astype(np.float32))
            out = setting.model.module(x).softmax(1)
        theirs = out[:, setting.y[k]].double().numpy()
        agree.append(np.abs(most.scores - theirs).max())
    assert max(agree) < 0.02, agree


def test_the_published_settings_of_infidelity_and_sensitivity(setting: Setting) -> None:
    """Both from their definitions, with loops: the same subsets, the same network."""
    masks = faithfulness.subsets((96, 96), 24, 0.2, 8, seed=1)
    for k in range(0, PICTURES, 4):
        with scoring(setting.model, setting.fitted[k], int(setting.y[k]), probability=False) as scored:
            drops = scored.whole - scored.filled("mean")(masks)
        sums, by_hand = [], []
        for mask in masks.numpy().astype(bool):
            x = setting.x[k].copy()
            x[:, mask] = 0
            with untouched(setting.model.module, gradients=False):
                one = setting.model.module(torch.from_numpy(np.stack([setting.x[k], x])))[:, setting.y[k]]
            by_hand.append(float(one[0] - one[1]))
            sums.append(float(setting.maps[k][mask].astype(np.float64).sum()))
        assert np.allclose(drops, by_hand, atol=1e-3)
        expected = np.corrcoef(sums, by_hand)[0, 1]
        assert faithfulness.sensitivity_n(setting.maps[k : k + 1], masks, drops)[0] == pytest.approx(
            expected, abs=1e-3
        )
        a, d = np.array(sums), np.array(by_hand)
        beta = (a * d).mean() / (a**2).mean()
        infidelity = ((beta * a - d) ** 2).mean() / (d**2).mean()
        assert faithfulness.infidelity(setting.maps[k : k + 1], masks, drops)[0] == pytest.approx(
            infidelity, abs=1e-3
        )

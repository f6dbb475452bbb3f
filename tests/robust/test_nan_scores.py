"""A score that is NaN is told, and costs nobody else a map: one picture, all weights, or the last bias alone."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import convoscope as cs
from convoscope.methods import METHODS
from convoscope.plain import dump_json

SIZE = 24
CHEAP: dict[str, Any] = {
    "integrated-gradients": cs.IntegratedGradients(nodes=4),
    "smoothgrad": cs.SmoothGrad(samples=3),
    "vargrad": cs.VarGrad(samples=3),
    "occlusion": cs.Occlusion(8, 8),
    "gradient-shap": cs.GradientSHAP(samples=4),
    "rise": cs.RISE(16, cells=3),
    "lime": cs.LIME(samples=20, segments=6),
    "extremal-perturbation": cs.ExtremalPerturbation(rounds=10),
}
OTHERS = {"attention-rollout", "attention-gradient", "cam"}  # of transformers, of pooling heads
NAMES = sorted(set(METHODS) - OTHERS)


class Standardised(nn.Module):
    """Divides by the picture's own spread, as some networks do: NaN where all is one colour (or for one class)."""

    def __init__(self, classes: slice = slice(None)) -> None:
        super().__init__()
        self.classes = classes
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3))
        self.act = nn.ReLU()
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Any:
        spread = (x - x.mean((1, 2, 3), keepdim=True)).abs().mean((1, 2, 3), keepdim=True)
        flat = self.act(self.features(x)).mean((2, 3))
        factor = torch.ones(len(x), 4, dtype=x.dtype)
        factor[:, self.classes] = (spread / spread).flatten(1)
        return self.head(flat) * factor


def photo(seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).random((SIZE, SIZE, 3), np.float32)


@functools.cache
def pictures() -> tuple[np.ndarray[Any, Any], ...]:
    plain = np.full((SIZE, SIZE, 3), 0.5, np.float32)
    return photo(0), plain, photo(1)


@pytest.mark.parametrize("classes", [slice(None), slice(1, 2)], ids=["every class", "one class"])
@pytest.mark.parametrize("name", NAMES)
def test_one_picture_with_a_nan_score_takes_no_other_along(name: str, classes: slice) -> None:
    model = cs.wrap(Standardised(classes).eval(), size=SIZE)
    method = CHEAP.get(name, name)
    good = cs.explain(model, [pictures()[0], pictures()[2]], [method], target=1)
    found = cs.explain(model, list(pictures()), [method], target=1)
    assert len(found) == 3
    assert np.isnan(found[1].score)
    assert found[1].probability is None
    said = [*found[1].doubts, *found[1].refused.values()]
    assert any("NaN" in one for one in said), said
    for here, alone in zip((found[0], found[2]), good, strict=True):
        assert (name in here) == (name in alone)
        if name in alone:
            np.testing.assert_allclose(here[name].values, alone[name].values, rtol=2e-4, atol=2e-6, equal_nan=True)


@pytest.mark.parametrize("which", ["one class", "last bias", "all weights"])
@pytest.mark.parametrize("name", NAMES)
def test_a_network_of_nan_is_told(name: str, which: str) -> None:
    net = Standardised().eval()
    with torch.no_grad():
        if which == "all weights":
            for value in net.parameters():
                value.fill_(torch.nan)
        elif which == "last bias":
            net.head.bias.fill_(torch.nan)
        else:
            net.head.bias[1] = torch.nan
    model = cs.wrap(net, size=SIZE)
    for target in (1, None):
        if which != "one class":
            with pytest.raises(cs.ConvoscopeError, match="NaN"):
                cs.explain(model, [pictures()[0]], [CHEAP.get(name, name)], target=target)
            continue
        (found,) = cs.explain(model, [pictures()[0]], [CHEAP.get(name, name)], target=target)
        if target == 1:
            assert np.isnan(found.score)
        said = [*found.doubts, *found.refused.values()]
        assert any("NaN" in one for one in said), said
        json.loads(dump_json(found.to_dict()))


@pytest.mark.parametrize("name", NAMES)
def test_a_unit_of_nan_is_told(name: str) -> None:
    net = Standardised().eval()
    with torch.no_grad():
        for value in net.parameters():
            value.fill_(torch.nan)
    model, method = cs.wrap(net, size=SIZE), CHEAP.get(name, name)
    if isinstance(method, str):
        method = METHODS[name]()
    if getattr(method, "score", "logit") == "probability":
        method = dataclasses.replace(method, score="logit")
    (found,) = cs.explain(model, [pictures()[0]], ["saliency", method], target="act:1")
    said = [*found.refused.values(), *(found[name].doubts if name in found else ())]
    assert any("NaN" in one or "no finite value" in one for one in said), said


def test_a_folder_with_such_a_picture_is_done_to_its_end(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    for number, values in enumerate(pictures()):
        Image.fromarray((values * 255).astype(np.uint8)).save(tmp_path / "p" / f"{number}.png")
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n        torch.manual_seed(0)\n        self.conv = nn.Conv2d(3, 4, 3)\n"
        "        self.head = nn.Linear(4, 3)\n\n    def forward(self, x):\n"
        "        spread = (x - x.mean((1, 2, 3), keepdim=True)).abs().mean((1, 2, 3), keepdim=True)\n"
        "        return self.head(self.conv(x).relu().mean((2, 3))) * (spread / spread).flatten(1)\n\n\n"
        "def build():\n    return Net()\n"
    )
    asked = ["explain", f"{tmp_path}/net.py:build", tmp_path / "p", "--size", SIZE, "--out", tmp_path / "e"]
    done = cli(*asked, "-m", "occlusion,ablation-cam,score-cam,grad-cam,eigen-cam,rise", "--target", "1", "--json")
    assert done.code == 1, done.err
    assert len(done.json) == 2
    assert "should not" not in done.err
    assert "1.png" in done.err
    assert "NaN" in done.err
    for number in (0, 2):
        (record,) = [one for one in done.json if one["picture"] == f"{number}.png"]
        assert len(record["maps"] if "maps" in record else record["heatmaps"]) == 6
    assert len(list((tmp_path / "e").rglob("explain.json"))) == 2


def test_evaluate_of_a_network_of_nan_measures_nothing_and_says_so() -> None:
    from convoscope.trust.datasets import Case
    from convoscope.trust.evaluate import Settings, evaluate_cases
    from convoscope.trust.regions import Region

    net = Standardised().eval()
    with torch.no_grad():
        net.head.bias.fill_(torch.nan)
    image = (pictures()[0] * 255).astype(np.uint8)
    cases = [Case("one", image, 1, "1", Region(((2.0, 2.0, 12.0, 12.0),), ()))]
    league = evaluate_cases(
        cs.wrap(net, size=SIZE), cases, ["grad-cam", "saliency"], settings=Settings(("insertion",))
    )
    assert any("NaN" in why for why in [*league.failed.values(), *league.refused.values()])

"""Frozen, compiled, traced, half precision, quantisation-aware, data-parallel and Lightning-like networks."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import convoscope as cs
from convoscope.errors import LayerError, ModelError
from convoscope.methods import METHODS, method

from .networks import detector, photo

SIDE = 24
#: every method, the slow ones with few samples
EVERY = {
    "occlusion": {"window": 8, "stride": 8}, "rise": {"samples": 8, "cells": 3}, "lime": {"samples": 12, "segments": 4},
    "integrated-gradients": {"nodes": 4}, "smoothgrad": {"samples": 2}, "gradient-shap": {"samples": 3},
    "score-cam": {}, "ablation-cam": {}, "extremal": {},
}  # fmt: skip
QUICK = ("saliency", "guided-backprop", "grad-cam", "occlusion", "lrp", "deep-shap", "gradient-shap", "eigen-cam")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.deep, self.fc = nn.Conv2d(8, 8, 3, 2, 1), nn.Linear(8, 4)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.conv(x)))
        x = self.relu(self.deep(x)) + F.avg_pool2d(x, 2)
        return self.fc(x.mean((2, 3)))


def explained(net: nn.Module, methods: Any = QUICK, layer: str | None = None, **settings: Any) -> cs.Explanation:
    chosen = [method(name, EVERY.get(name, {})) if isinstance(name, str) else name for name in methods]
    found: cs.Explanation = cs.explain(cs.wrap(net, size=SIDE, **settings), photo(0, (SIDE, SIDE)), chosen, target=1,
                                       layer=layer)  # fmt: skip
    return found


@pytest.fixture(scope="module")
def truth() -> cs.Explanation:
    return explained(Net().eval())


def same(found: cs.Explanation, truth: cs.Explanation, share: float = 1e-4) -> None:
    assert not found.refused, found.refused
    for name, heatmap in truth.items():
        scale = float(np.abs(heatmap.values).max())
        assert np.abs(found[name].values - heatmap.values).max() <= share * scale + 1e-9, name


def test_frozen(truth: cs.Explanation) -> None:
    net = Net().eval().requires_grad_(False)
    same(explained(net), truth)
    assert not any(p.requires_grad for p in net.parameters())


def test_in_training_mode_it_is_run_in_evaluation_mode_and_left_in_training(truth: cs.Explanation) -> None:
    net = Net().train()
    same(explained(net), truth)
    assert net.training


def test_compiled(truth: cs.Explanation) -> None:
    same(explained(torch.compile(Net().eval())), truth)
    net = Net().eval()
    net.compile()
    same(explained(net), truth)


def test_data_parallel(truth: cs.Explanation) -> None:
    net = nn.DataParallel(Net().eval())
    same(explained(net), truth)


class Lightning(nn.Module):
    """Like a LightningModule: the network in an attribute, hooks of its own, a property that may not be read."""

    def __init__(self) -> None:
        super().__init__()
        self.model, self.lr = Net(), 1e-3

    @property
    def trainer(self) -> Any:
        raise RuntimeError("not attached to a Trainer")

    def training_step(self, batch: Any, index: int) -> Any:
        raise AssertionError("called in an explanation")

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def test_lightning_like(truth: cs.Explanation) -> None:
    found = explained(Lightning().eval())
    same(found, truth)
    assert found["grad-cam"].layer.startswith("model.")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype: torch.dtype, truth: cs.Explanation) -> None:
    found = explained(Net().eval().to(dtype))
    assert not found.refused, found.refused
    for name, heatmap in found.items():
        assert heatmap.values.dtype == np.float32
        assert np.isfinite(heatmap.values).all()
        if dtype == torch.float64:
            scale = float(np.abs(truth[name].values).max())
            assert np.abs(heatmap.values - truth[name].values).max() < 1e-3 * scale, name
        elif name in ("saliency", "grad-cam", "gradient-shap"):
            assert np.corrcoef(heatmap.values.ravel(), truth[name].values.ravel())[0, 1] > 0.98, name
    assert found.provenance["dtype"] == str(dtype).removeprefix("torch.")


def test_traced_networks_give_pixel_methods_and_say_why_not_layers(truth: cs.Explanation) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = torch.jit.trace(Net().eval(), torch.rand(1, 3, SIDE, SIDE))
    found = explained(net)
    for name in ("saliency", "guided-backprop", "occlusion", "gradient-shap"):
        assert np.allclose(found[name].values, truth[name].values, atol=1e-4 * np.abs(truth[name].values).max()), name
    assert "grad-cam" in found.refused
    for name in ("lrp", "deep-shap", "grad-cam", "eigen-cam"):
        assert name not in found.heatmaps, "what cannot be seen inside cannot be right"
        assert len(found.refused[name]) > 30


def test_scripted_networks_are_refused_with_a_sentence() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = torch.jit.script(Net().eval())
    with pytest.raises(ModelError, match="takes no hooks"):
        explained(net, ("saliency", "grad-cam", "lrp"))


def test_quantisation_aware_training() -> None:
    from torch.ao import quantization as q

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = Net().train()
        net.qconfig = q.get_default_qat_qconfig("fbgemm")
        q.prepare_qat(net, inplace=True)
        with torch.no_grad():
            net(torch.rand(4, 3, SIDE, SIDE))
        observers = {k: v.clone() for k, v in net.state_dict().items()}
        found = explained(net)
    for name in ("saliency", "grad-cam", "guided-backprop", "occlusion", "gradient-shap"):
        assert np.isfinite(found[name].values).all()
        assert found[name].values.any(), name
    # fake quantisation is a step function with a straight-through gradient: no rule of LRP or SHAP fits it
    for name in ("lrp", "deep-shap"):
        assert name in found.refused or found[name].doubts, name
    assert all(torch.equal(observers[k], v) for k, v in net.state_dict().items()), "observers went on observing"
    assert net.training


def test_quantised_networks_have_no_gradient_and_say_so() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.ao import quantization as q

        net = q.quantize_dynamic(Net().eval(), {nn.Linear}, dtype=torch.qint8)
        try:
            found = explained(net, ("occlusion", "saliency"))
        except RuntimeError as error:  # this torch was built without a quantised engine
            pytest.skip(f"no quantised engine: {str(error)[:60]}")
    assert "occlusion" in found
    if "saliency" in found.refused:
        assert "no gradient" in found.refused["saliency"]


def test_a_network_that_cuts_its_graph_says_which_methods_still_work() -> None:
    class Cut(Net):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                return super().forward(x)

    found = explained(Cut().eval())
    assert set(found) >= {"occlusion", "eigen-cam"}
    for name in ("saliency", "grad-cam", "lrp", "deep-shap", "gradient-shap"):
        assert "no gradient" in found.refused[name]


def test_several_layers_at_once_and_a_layer_that_is_not_there() -> None:
    found = cs.explain(cs.wrap(Net().eval(), size=SIDE), photo(0, (SIDE, SIDE)), ["grad-cam", "saliency"], target=1,
                       layer=["conv", "deep", "add"])  # fmt: skip
    assert list(found) == ["grad-cam@conv", "grad-cam@deep", "grad-cam@add", "saliency"]
    assert [found[f"grad-cam@{name}"].layer for name in ("conv", "deep", "add")] == ["conv", "deep", "add"]
    with pytest.raises(LayerError, match=r"no layer 'convv'\. Nearest: conv"):
        explained(Net().eval(), ("grad-cam",), layer="convv")


def test_wrappers_of_detectors_work_too() -> None:
    net = detector("fcos")
    truth = cs.explain(cs.wrap(net, size=64), photo(), ["saliency", "layercam"])
    for wrapped in (torch.compile(copy.deepcopy(net)), copy.deepcopy(net).requires_grad_(False)):
        found = cs.explain(cs.wrap(wrapped, size=64), photo(), ["saliency", "layercam"])
        assert np.allclose(found["saliency"].values, truth["saliency"].values, atol=1e-6)
        assert found["layercam"].layer.endswith(truth["layercam"].layer)


def test_every_method_is_known_here() -> None:
    assert set(QUICK) <= set(METHODS)

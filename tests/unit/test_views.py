"""Filters and activations: the right weights and channels, in the right order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import convoscope as cs
from convoscope.errors import LayerError, MethodRefused, PictureError, UsageError
from convoscope.methods.views import filter_weights, layer_activations


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 5, 3, padding=1)
        self.block = nn.Sequential(nn.ReLU(), nn.Conv2d(5, 7, 1, bias=False))
        self.up = nn.ConvTranspose2d(7, 2, 2, stride=2)
        self.head = nn.Linear(2, 3)

    def forward(self, x):
        return self.head(self.up(self.block(self.first(x))).mean((2, 3)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return cs.wrap(Net(), size=16)


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)


def test_the_first_convolution_is_shown_by_default(model):
    name, weights = filter_weights(model)
    assert name == "first"
    assert np.array_equal(weights, model.module.first.weight.detach().numpy())


def test_any_convolution_by_name(model):
    assert np.array_equal(filter_weights(model, "block.1")[1], model.module.block[1].weight.detach().numpy())
    assert filter_weights(model, "up")[1].shape == (2, 7, 2, 2)


def test_a_layer_that_is_no_convolution_names_those_near(model):
    with pytest.raises(LayerError, match=r"'block' is not a convolution.*block\.1"):
        filter_weights(model, "block")
    with pytest.raises(LayerError, match=r"'frist' does not exist.*first"):
        filter_weights(model, "frist")
    with pytest.raises(LayerError, match="no 2-D convolution"):
        filter_weights(cs.wrap(nn.Linear(3, 2)))


def test_filters_draw(model):
    sheet = cs.filters(model)
    assert "first: 5 filters of 3×3×3" in sheet.drawing.title
    assert len([p for p in sheet.drawing.pictures() if p.alt.startswith("channel")]) == 5


def test_activations_are_the_layers_own_output(model, picture):
    name, values, _ = layer_activations(model, picture, "block.0")
    with torch.no_grad():
        want = model.module.first(model.inputs([model.prepare(picture)])).relu()[0]
    assert name == "block.0"
    assert np.allclose(values, want.numpy(), atol=1e-6)


def test_activations_are_sorted_by_strength(model, picture):
    _, values, _ = layer_activations(model, picture, "block.1")
    order = np.argsort(-np.abs(values).mean((1, 2)), kind="stable")
    sheet = cs.activations(model, picture, "block.1")
    drawn = [p.alt for p in sheet.drawing.pictures() if p.alt.startswith("channel")]
    assert drawn == [f"channel {channel}" for channel in order]


def test_limit_and_scale(model, picture):
    sheet = cs.activations(model, picture, "block.1", scale="shared", limit=3)
    texts = " ".join(text.text for text in sheet.drawing.texts())
    assert "first 3 of 7" in texts
    with pytest.raises(UsageError, match="own or shared"):
        cs.activations(model, picture, scale="big")


def test_bad_layers_and_pictures(model, picture):
    with pytest.raises(LayerError, match="Nearest"):
        cs.activations(model, picture, "blok")
    with pytest.raises(MethodRefused, match="not a grid"):
        cs.activations(model, picture, "head")
    with pytest.raises(PictureError, match="no such file"):
        cs.activations(model, "nowhere.png")


def test_the_network_is_left_as_it_was(model, picture):
    model.module.train()
    before = model.fingerprint
    cs.activations(model, picture)
    cs.filters(model)
    assert model.module.training
    assert model.fingerprint == before
    assert not any(module._forward_hooks for module in model.module.modules())

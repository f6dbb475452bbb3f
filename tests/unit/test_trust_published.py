"""TorchRay's and RISE's protocols: their parts against definitions, and both end to end on the toybox as VOC."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import convoscope as cs
from convoscope.errors import ModelError
from convoscope.session import Session
from convoscope.trust import datasets
from convoscope.trust.published import (
    CausalProtocol,
    Pointing,
    PointingProtocol,
    SoftPlaces,
    causal_areas,
    fully_convolutional,
    on_photo,
    pointing_game,
    smoothed,
)


@pytest.fixture(scope="module")
def toybox() -> cs.Model:
    return cs.open_model("toybox")


def test_accuracy_is_the_mean_over_classes_not_over_pictures() -> None:
    game = Pointing()
    for hit in (1, 1, 1, 1):
        game.add("grad-cam", "dog", hit)
    game.add("grad-cam", "cat", 0)
    assert game.accuracy("grad-cam") == 0.5
    assert game.to_dict()["grad-cam"]["n"] == 5


@pytest.mark.parametrize("kind", ["toybox", "vgg"])
def test_the_fully_convolutional_copy_gives_the_same_scores(toybox: cs.Model, kind: str) -> None:
    model = toybox
    if kind == "vgg":
        torch.manual_seed(0)

        class Small(nn.Module):
            """VGG's shape: features, pooling to 3×3, a head of two linear layers."""

            def __init__(self) -> None:
                super().__init__()
                self.features = nn.Sequential(nn.Conv2d(3, 5, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(4))
                self.avgpool = nn.AdaptiveAvgPool2d((3, 3))
                self.classifier = nn.Sequential(nn.Linear(45, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 4))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                found: torch.Tensor = self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))
                return found

        model = cs.wrap(Small().eval(), size=24)
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    other = fully_convolutional(model)
    assert all(torch.equal(before[n], v) for n, v in model.module.state_dict().items())
    side = (model.preprocessing.size or (0, 0))[0]
    x = torch.rand((2, 3, side, side), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, places = model.module(x), other.module(x)
        assert places.shape == (*one.shape, 1, 1)
        assert torch.allclose(places.flatten(1), one, atol=1e-5)
        larger = other.module(torch.rand((1, 3, 2 * side, 3 * side)))
    assert min(larger.shape[2:]) > 1


def test_other_shapes_of_networks_are_refused() -> None:
    with pytest.raises(ModelError, match="fully_convolutional=False"):
        fully_convolutional(cs.wrap(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), size=2))

    class Halved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool, self.fc = nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.fc(self.pool(self.conv(x / 2)).flatten(1))
            return found + x.mean() + 1

    with pytest.raises(ModelError, match="other scores"):
        fully_convolutional(cs.wrap(Halved().eval(), size=8))


def test_the_soft_maximum_gives_each_place_its_softmax_share(toybox: cs.Model) -> None:
    scorer = SoftPlaces(1).resolve(toybox, None, [0, 0], Session(toybox).runner)
    values = torch.randn((2, 3, 4, 5), generator=torch.Generator().manual_seed(0), requires_grad=True)
    scorer.score(values, {}, torch.arange(2)).sum().backward()
    shares = values[:, 1].flatten(1).softmax(1).view(2, 4, 5)
    assert values.grad is not None
    assert torch.allclose(values.grad[:, 1], shares, atol=1e-6)
    assert not values.grad[:, [0, 2]].any()
    plain = torch.randn(2, 3)
    assert torch.equal(scorer.score(plain, {}, torch.arange(2)), plain[:, 1])


def test_drawing_on_the_photo_is_the_plain_resize_where_nothing_was_cut() -> None:
    values = np.random.default_rng(0).random((12, 16)).astype(np.float32)
    photo = (30, 24)
    matrix = np.array([[24 / 16, 0, 0.5 * 24 / 16 - 0.5], [0, 30 / 12, 0.5 * 30 / 12 - 0.5]])
    expected = F.interpolate(torch.from_numpy(values)[None, None], photo, mode="bilinear", align_corners=False)
    assert np.allclose(on_photo(values, matrix, photo), expected[0, 0].numpy(), atol=1e-5)


def test_what_the_input_did_not_hold_cannot_be_pointed_at() -> None:
    matrix = np.array([[1.0, 0, 10], [0, 1.0, 0]])  # the input is the photo's columns 10 to 19
    found = on_photo(np.zeros((8, 10), np.float32), matrix, (8, 30))
    assert np.isneginf(found[:, :10]).all()
    assert np.isneginf(found[:, 20:]).all()
    assert (found[:, 10:20] == 0).all()


def test_smoothing_is_gaussian() -> None:
    from scipy.ndimage import gaussian_filter

    values = np.random.default_rng(0).random((60, 50)).astype(np.float32)
    assert np.allclose(smoothed(values, 3), gaussian_filter(values, 3, mode="nearest", truncate=2), atol=1e-4)


def test_the_protocol_end_to_end_on_the_toybox_as_voc(toybox: cs.Model, tmp_path: Path) -> None:
    cases = datasets.voc(datasets.write_voc(datasets.toybox_cases(5), tmp_path), toybox)
    protocol = PointingProtocol(short_side=96, tolerance=6)
    found = pointing_game(toybox, cases, ["grad-cam", "guided-backprop"], protocol)
    assert set(found.hits) == {"grad-cam", "guided-backprop", "centre"}
    assert found.accuracy("grad-cam") == 1
    # at the model's own size the fully convolutional network is the network itself
    plain = pointing_game(toybox, cases, ["grad-cam"], replace(protocol, fully_convolutional=False))
    assert plain.hits["grad-cam"] == found.hits["grad-cam"]
    # one thing a picture: there are no others, so no picture is difficult
    assert pointing_game(toybox, cases, ["grad-cam"], replace(protocol, difficult=True)).hits == {}


def test_pointing_by_hand_on_ten_pictures(toybox: cs.Model) -> None:
    """The game played by its definition, step by step, on ten pictures: the same hits."""
    from PIL import Image

    cases = datasets.toybox_cases(10, seed=3)
    wide = []
    for case in cases:
        # photos of another aspect and size, so that every step of the protocol matters
        image = Image.fromarray(case.source).resize((150, 110))
        mask = np.asarray(Image.fromarray(case.region.masks[0]).resize((150, 110)))  # type: ignore[union-attr]
        wide.append(replace(case, source=np.asarray(image), region=datasets.Region((), (mask,))))
    protocol = PointingProtocol(short_side=96, tolerance=5)
    found = pointing_game(toybox, wide, ["saliency"], protocol)
    network = fully_convolutional(toybox).module
    by_hand: dict[str, list[float]] = {}
    for case in wide:
        image = Image.fromarray(case.source).resize((130, 96), Image.Resampling.BILINEAR)
        x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
        x = toybox.preprocessing.normalise(x).requires_grad_()
        scores = network(x)[0, case.target]
        (scores * scores.detach().flatten().softmax(0).view_as(scores)).sum().backward()
        assert x.grad is not None
        values = F.interpolate(x.grad.abs().amax(1, keepdim=True), (110, 150), mode="bilinear")[0, 0].numpy()
        values = smoothed(values, 0.02 * 150)
        row, col = np.unravel_index(values.argmax(), values.shape)
        rows, cols = np.nonzero(case.region.masks[0])  # type: ignore[union-attr]
        hit = float(((rows - row) ** 2 + (cols - col) ** 2 < 25).any())
        by_hand.setdefault(case.label, []).append(hit)
    assert found.hits["saliency"] == by_hand


def test_rises_areas_end_to_end(toybox: cs.Model) -> None:
    pictures: list[Any] = [case.source for case in datasets.toybox_cases(2)]
    found = causal_areas(toybox, pictures, ["grad-cam"], CausalProtocol(pixels=96 * 16, blur=3))
    assert set(found) == {"deletion", "insertion"}
    for areas in found.values():
        assert len(areas["grad-cam"]) == 2
        assert all(0 <= area <= 1 for area in areas["grad-cam"])
    assert np.mean(found["insertion"]["grad-cam"]) > np.mean(found["deletion"]["grad-cam"])

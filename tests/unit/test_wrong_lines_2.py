"""Lines of methods and targets that could be wrong and nobody noticed: each held against its own definition."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import nn
from torch.nn import functional as F

import convoscope as cs
from convoscope.errors import NotInPicture, TargetError, UsageError
from convoscope.methods.base import Maps
from convoscope.methods.cams import _first_component, doubt_blank, doubt_noise
from convoscope.methods.fills import blurred, fill_for
from convoscope.methods.random_masks import weighted_ridge
from convoscope.methods.settings import parse_settings
from convoscope.pictures.picture import Picture, Preprocessing
from convoscope.targets import parse
from convoscope.targets.landmarks import Landmark
from convoscope.targets.places import cell, connected, input_point, overlap, photo_mask

PLAIN = Preprocessing(None, mean=(0.0,) * 3, std=(1.0,) * 3)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


# fills and windows


@pytest.mark.parametrize("shape", [(2, 3, 40, 40), (1, 1, 30, 64), (1, 2, 3, 24, 24)])
def test_a_blur_keeps_the_mean_and_is_gaussian(shape: tuple[int, ...]) -> None:
    flat = torch.full(shape, 0.37)
    torch.testing.assert_close(blurred(flat), flat, atol=1e-6, rtol=0)
    point = torch.zeros(1, 1, 101, 101)
    point[..., 50, 50] = 1
    found = blurred(point, 4.0)[0, 0]
    y, x = torch.meshgrid(torch.arange(101.0) - 50, torch.arange(101.0) - 50, indexing="ij")
    truth = torch.exp(-(x**2 + y**2) / 32) / (32 * torch.pi)
    assert float((found - truth).abs().max()) < 0.01 * float(truth.max())
    assert torch.equal(blurred(point), blurred(point, 101 / 20))  # a twentieth of the longer side
    assert torch.equal(blurred(torch.ones(1, 1, 1, 1)), torch.ones(1, 1, 1, 1))


def test_each_fill_is_what_it_is_called() -> None:
    inputs = noise(2, 3, 8, 8)
    query = SimpleNamespace(
        inputs=inputs, model=SimpleNamespace(preprocessing=Preprocessing(mean=(0.25,) * 3, std=(0.5,) * 3))
    )
    assert not fill_for(query, "mean").any()
    torch.testing.assert_close(fill_for(query, "picture-mean")[1, 2, 3, 4], inputs[1, 2].mean())
    assert torch.equal(fill_for(query, "blur"), blurred(inputs))
    for grey in ("0", "0.5", "1"):
        torch.testing.assert_close(fill_for(query, grey), torch.full_like(inputs, (float(grey) - 0.25) / 0.5))
    for bad in ("1.01", "-0.01", "grass", "nan"):
        with pytest.raises(UsageError, match="fill must be"):
            fill_for(query, bad)


@pytest.mark.parametrize(
    ("settings", "size", "window", "stride"),
    [
        ({}, (224, 224), (32, 32), (16, 16)),
        ({}, (28, 28), (4, 4), (2, 2)),
        ({}, (3, 224), (1, 1), (1, 1)),
        ({"window": 9}, (50, 50), (9, 9), (4, 4)),
        ({"window": (10, 6), "stride": (3, 2)}, (50, 60), (10, 6), (3, 2)),
        ({"window": (1, 6)}, (50, 60), (1, 6), (1, 3)),
    ],
)
def test_windows_and_strides_by_default(settings: Any, size: Any, window: Any, stride: Any) -> None:
    assert cs.Occlusion(**settings).measures(*size) == (window, stride)


# methods


@pytest.mark.parametrize("shape", [(2, 9, 4), (2, 4, 9), (1, 6, 6)])
def test_the_first_component_is_that_of_the_singular_values(shape: tuple[int, ...]) -> None:
    x = noise(*shape) - 0.5
    found = _first_component(x)
    u, s, _ = torch.linalg.svd(x)
    for row, truth in enumerate(u[:, :, 0] * s[:, :1]):
        sign = torch.sign((found[row] * truth).sum())
        torch.testing.assert_close(found[row] * sign, truth, atol=1e-5, rtol=1e-4)


def test_a_blank_map_says_why_it_is_blank() -> None:
    grid = torch.zeros(5, 2, 2)
    grid[0, 0, 0] = -1  # some of it negative, the rest nothing
    grid[1] = -1
    grid[2, 0, 0], grid[2, 1, 1] = -1, 1
    gradient = torch.zeros(5, 3, 2, 2)
    gradient[3, 0, 0, 0] = 1  # the score depends on the layer, though nothing is negative
    maps = Maps(torch.zeros(5, 2, 2), False, "", "")
    doubt_blank(maps, grid, gradient)
    said = [*maps.doubts, *[[]] * (5 - len(maps.doubts))]
    assert [len(one) for one in said] == [1, 1, 0, 1, 0]
    assert all("all is negative before it" in said[row][0] for row in (0, 1))
    assert "no positive weight is left" in said[3][0]
    silent = Maps(torch.zeros(5, 2, 2), False, "", "")
    doubt_blank(silent, torch.zeros(5, 2, 2))
    assert not any(silent.doubts)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_a_map_of_rounding_is_called_noise_whatever_its_unit(scale: float) -> None:
    gradient = torch.ones(3, 4, 2, 2) * scale
    activation = torch.full((3, 4, 2, 2), 0.5)
    # what was summed is 4 × 0.5 × scale at each cell
    grid = torch.zeros(3, 2, 2)
    grid[0, 0, 0], grid[1, 0, 0] = 2 * scale * 2e-6, 2 * scale * 5e-6
    maps = Maps(torch.zeros(3, 2, 2), False, "", "")
    doubt_noise(maps, grid, activation, gradient)
    assert [len(one) for one in maps.doubts] == [1, 0, 0]


@pytest.mark.parametrize("width", [0.25, 1.0])
def test_the_local_model_of_lime_is_scikit_learn_s(width: float) -> None:
    rng = np.random.default_rng(0)
    shown = (rng.random((60, 7)) < 0.5).astype(np.float64)
    shown[0] = 1
    scores = shown @ rng.normal(size=7) + 0.3 * rng.normal(size=60) + 2
    share = np.exp(-((1 - np.sqrt(shown.mean(1))) ** 2) / width**2)
    theirs = Ridge(alpha=0.7).fit(shown, scores, share)
    coefficients, fit = weighted_ridge(shown, scores, width, 0.7)
    np.testing.assert_allclose(coefficients, theirs.coef_, rtol=1e-8)
    assert fit == pytest.approx(theirs.score(shown, scores, share))
    for alike in (0.0, 1.0, 0.1, -3e-7, 7e9):  # nothing is left unexplained of scores that are all alike
        assert weighted_ridge(shown, np.full(60, alike), width, 0.7)[1] == 1.0
    assert weighted_ridge(shown, 1 + 1e-6 * scores, width, 0.7)[1] == pytest.approx(fit, abs=1e-4)


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (cs.GradCAM, {"colour": 1}, "has no setting 'colour'"),
        (cs.SmoothGrad, {"samples": None}, "samples needs a value"),
        (cs.SmoothGrad, {"samples": "none"}, "samples must be int"),
        (cs.SmoothGrad, {"samples": 2.5}, "samples must be int, not 2.5"),
        (cs.SmoothGrad, {"samples": True}, "samples must be int, not True"),
        (cs.SmoothGrad, {"samples": 0}, r"samples must be (at least 1|in 1\.\.)"),
        (cs.RISE, {"share": 1.5}, r"share must be in 0.01\.\.1"),
        (cs.RISE, {"share": "half"}, "share must be float, not 'half'"),
        (cs.RISE, {"score": "loss"}, "score must be probability or logit"),
        (cs.Occlusion, {"window": "8x16x3"}, "rows and columns as 8x16"),
    ],
)
def test_settings_that_cannot_be(kind: Any, given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_settings(kind, given)
    if "colour" not in given:
        with pytest.raises(UsageError, match=said):
            kind(**given)


def test_settings_that_can_be() -> None:
    found = parse_settings(cs.Occlusion, {"window": "8x16", "stride": 3.0})
    assert (found["window"], found["stride"]) == ((8, 16), 3)
    assert parse_settings(cs.GradCAM, {"layer": "none"}) == {"layer": None}
    assert parse_settings(cs.RISE, {"share": "1", "samples": "20"}) == {"share": 1.0, "samples": 20}
    assert parse_settings(cs.RISE, {"share": 0.01}) == {"share": 0.01}


# places


def prepared(width: int, height: int, to: Preprocessing = PLAIN) -> Any:
    return Picture.of(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)).prepare(to)


def test_points_of_the_photo_and_beyond_its_rim() -> None:
    whole = prepared(9, 6)
    for point in ((-0.5, -0.5), (8.5, 5.5), (0, 0), (4.25, 3)):
        assert input_point(whole, point) == pytest.approx(point)
    for point in ((-0.51, 0), (8.51, 0), (0, -0.51), (0, 5.51)):
        with pytest.raises(NotInPicture, match="outside"):
            input_point(whole, point)
    cut = prepared(20, 10, Preprocessing((10, 10), 10, "crop", (0,) * 3, (1,) * 3))
    assert input_point(cut, (5, 3)) == pytest.approx((0, 3))
    for x in (4, 15):
        with pytest.raises(NotInPicture, match="cropped away"):
            input_point(cut, (x, 3))


def test_the_cell_of_a_point_is_the_one_that_holds_it() -> None:
    size, grid = (12, 20), (3, 4)
    for y in range(12):
        for x in range(20):
            assert cell((x, y), size, grid) == (y * 3 // 12, x * 4 // 20)
    assert cell((-9, -9), size, grid) == (0, 0)
    assert cell((99, 99), size, grid) == (2, 3)


def test_what_hangs_together_over_sides_and_corners() -> None:
    mask = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 0, 1]]).bool()
    assert connected(mask, (0, 0)).int().tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert connected(mask, (1, 3)).int().tolist() == [[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert not connected(mask, (2, 2)).any()


def test_a_mask_over_the_photo_lies_at_the_nearest_cells() -> None:
    mask = np.zeros((10, 20), bool)
    mask[2:5, 7:20] = True
    cut = prepared(20, 10, Preprocessing((10, 10), 10, "crop", (0,) * 3, (1,) * 3))
    assert photo_mask(cut, mask, (10, 10)).numpy().tolist() == mask[:, 5:15].tolist()
    padded = prepared(20, 10, Preprocessing((20, 20), None, "pad", (0,) * 3, (1,) * 3))
    truth = np.zeros((20, 20), bool)
    truth[5:15] = mask
    assert photo_mask(padded, mask, (20, 20)).numpy().tolist() == truth.tolist()
    full = photo_mask(padded, np.ones((10, 20), bool), (20, 20))
    assert full.sum() == 200  # nothing outside the photo
    with pytest.raises(TargetError, match="rows × columns"):
        photo_mask(cut, mask.T, (10, 10))


def test_boxes_that_overlap() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 4], [2, 0, 6, 4], [4, 4, 8, 8], [1, 1, 1, 1], [0, 0, 4, 8]])
    torch.testing.assert_close(overlap(boxes, boxes[0]), torch.tensor([1, 8 / 24, 0, 0, 0.5]))
    torch.testing.assert_close(overlap(boxes, boxes[3]), torch.tensor([0.0, 0, 0, 1, 0]))


# what targets are written like


@pytest.fixture(scope="module")
def model() -> cs.Model:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    return cs.wrap(net.eval(), size=12, labels=["cat", "dog + bone", "3"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("instance:", "instance: needs a number"),
        ("segment:", "segment: needs a class, a point"),
        ("pixel:dog", "pixel: needs a point"),
        ("landmark:", "landmark: needs a name or a number"),
        ("multilabel:", "multilabel: needs class names"),
        ("multilabel: + ", "multilabel: needs class names"),
        ("direction:layer", "direction:LAYER@FILE"),
        ("direction:@file.npy", "direction:LAYER@FILE"),
        ("direction:layer@", "direction:LAYER@FILE"),
        ("similar:", "similar: needs a picture"),
    ],
)
def test_what_a_target_lacks_is_said(model: cs.Model, text: str, said: str) -> None:
    with pytest.raises(TargetError, match=said):
        parse(text, model)


def test_targets_are_what_they_are_written_like(model: cs.Model) -> None:
    assert parse("segment:@1,2", model).key() != parse("segment:dog", model).key()
    assert parse("landmark:3", model).key() == Landmark(3).key()
    assert parse("landmark:nose@2", model).key() == Landmark("nose", 2).key()
    assert parse("instance:7", model).key() == cs.Instance(7).key()
    assert parse("instance:3", model).key() == cs.Instance(0, "3").key()  # a label that looks like a number
    several = parse("multilabel:cat+3", model)
    assert several is not None
    assert several.key() == "multilabel:cat+3"


def test_signs_in_labels_part_nothing(model: cs.Model) -> None:
    x = noise(1, 3, 12, 12)
    with torch.no_grad():
        scores = model.module(x)[0]
    shown = Picture.from_input(x[0], model.preprocessing)
    for text, truth in (
        ("dog + bone", scores[1]),
        ("cat + dog + bone", scores[0] + scores[1]),
        ("2*dog + bone - cat", 2 * scores[1] - scores[0]),
        ("dog + bone - 0.5*cat + dog + bone", 2 * scores[1] - 0.5 * scores[0]),
    ):
        assert cs.explain(model, shown, "saliency", target=text).score == pytest.approx(float(truth), rel=1e-4), text
    assert F.softmax(scores, 0).sum() == pytest.approx(1)

"""Regions of dense outputs, panoptic segments and landmarks: found where they are, scored as written down."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convoscope as cs
from convoscope.errors import TargetError
from convoscope.targets import Landmark, Merged, PanopticSegment, Segment
from convoscope.targets.panoptic import owners
from convoscope.targets.places import cell, connected, input_point, photo_mask

from .networks import Segmenter, detector, photo


class Colours(nn.Module):
    """Class k where channel k is the brightest; class 3 where all are dark. The logits are the picture's own."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, 0.3 - x.mean(1, keepdim=True)], 1)


def coloured() -> np.ndarray[Any, Any]:
    """Two red squares (one large), a green one, the rest dark."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[4:16, 4:16, 0] = 200
    image[40:60, 30:60, 0] = 255
    image[4:16, 40:52, 1] = 180
    return image


LABELS = ["red", "green", "blue", "background"]


def test_the_most_frequent_class_that_is_not_background_is_explained() -> None:
    explanation = cs.explain(cs.wrap(Colours(), size=64, mean=0, std=1, labels=LABELS), coloured(), "saliency")
    assert explanation.target == "segment: red"
    share = (12 * 12 * 200 + 20 * 30 * 255) / (12 * 12 + 20 * 30) / 255
    assert explanation.score == pytest.approx(share, rel=1e-5)
    red = coloured()[..., 0] > 0
    values = explanation["saliency"].values
    assert np.allclose(values, red / red.sum(), atol=1e-8)
    assert [one["label"] for one in explanation.prediction] == ["background", "red", "green"]
    assert not explanation.doubts


def test_a_point_takes_the_region_that_hangs_together_with_it() -> None:
    model = cs.wrap(Colours(), size=64, labels=LABELS)
    small = cs.explain(model, coloured(), "saliency", target="segment:red@8,8")
    assert small.score == pytest.approx(200 / 255, rel=1e-5)
    assert set(zip(*np.nonzero(small["saliency"].values), strict=True)) == {
        (r, c) for r in range(4, 16) for c in range(4, 16)
    }
    named = cs.explain(model, coloured(), "saliency", target="segment:@45,8")
    assert named.target == "segment: green at 45,8"
    pixel = cs.explain(model, coloured(), "saliency", target="pixel:red@45,8")
    assert pixel.score == 0
    assert np.count_nonzero(pixel["saliency"].values) == 1
    assert pixel["saliency"].values[8, 45] == 1


def test_points_and_masks_of_a_photo_go_through_resize_and_crop() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    image[40:60, 90:110, 0] = 255  # the middle of the photo
    from convoscope import Model, Preprocessing

    model = Model(Colours(), Preprocessing((32, 32), 40, "crop", (0.0,) * 3, (1.0,) * 3), tuple(LABELS))
    fitted = model.prepare(image)
    x, y = input_point(fitted, (100, 50))
    assert (x, y) == pytest.approx((15.7, 15.7), abs=0.5)
    found = cs.explain(model, image, "saliency", target="segment:red@100,50")
    assert found["saliency"].values[16, 16] > 0
    mask = np.zeros((100, 200), bool)
    mask[:, :100] = True
    inside = photo_mask(fitted, mask, (32, 32))
    assert inside[:, :15].all()
    assert not inside[:, 17:].any()
    with pytest.raises(TargetError, match="was cropped away"):
        cs.explain(model, image, "saliency", target="segment:red@3,50")
    with pytest.raises(TargetError, match="the photo"):
        cs.explain(model, image, "saliency", target=Segment("red", mask=mask.T))
    half = cs.explain(model, image, "saliency", target=Segment("red", mask=mask))
    assert half["saliency"].values[:, 17:].max() == 0


def test_a_diagonal_chain_hangs_together_and_a_gap_does_not() -> None:
    mask = torch.eye(6, dtype=torch.bool)
    assert connected(mask, (0, 0)).equal(mask)
    mask[3, 3] = False
    assert int(connected(mask, (0, 0)).sum()) == 3
    assert not connected(mask, (3, 3)).any()
    assert cell((63, 0), (64, 64), (8, 8)) == (0, 7)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_real_segmenter_in_a_tensor_or_a_dictionary(wrapped: bool) -> None:
    net = Segmenter(wrapped).eval()
    model = cs.wrap(net, size=64, labels=["background", "a", "b", "c"])
    explanation = cs.explain(model, photo(), ["saliency", "grad-cam", "occlusion"])
    logits = Segmenter(False).eval()(torch.from_numpy(photo()).permute(2, 0, 1)[None] / 255)[0]
    winners = logits.argmax(0)
    counts = winners.flatten().bincount(minlength=4)
    counts[0] = 0
    best = int(counts.argmax())
    assert explanation.score == pytest.approx(float(logits[best][winners == best].mean().detach()), rel=1e-4)
    assert explanation["grad-cam"].layer == "features.3", "the class convolution's input"
    assert all(np.isfinite(one.values).all() and one.values.any() for one in explanation.values())


def test_names_that_are_not_there_are_told() -> None:
    model = cs.wrap(Colours(), size=64, labels=LABELS)
    for target, words in (
        ("segment:blue", "sees no blue"), ("segment:violet", "no class named 'violet'"), ("segment:9", "no class 9"),
        ("segment:red@500,2", "outside"), ("pixel:red", "needs a point"), ("segment:", "needs a class"),
        ("top2", "name one"), ("instance:0", "no detections"), ("landmark:7", "no landmark 7"),
    ):  # fmt: skip
        with pytest.raises(TargetError) as told:
            cs.explain(model, coloured(), "saliency", target=target)
        assert words in str(told.value), target


class Peaks(nn.Module):
    """Heat maps: landmark k is where channel k is bright."""

    landmark_names = ("left_eye", "right_eye", "nose")

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, 2)


def test_a_landmark_of_heat_maps_is_its_peak() -> None:
    model = cs.wrap(Peaks(), size=64)
    image = np.zeros((64, 64, 3), np.uint8)
    image[10:12, 20:22, 1] = 255
    for target in ("landmark:right_eye", "landmark:1", "landmark:right-eye", Landmark("right_eye")):
        explanation = cs.explain(model, image, "saliency", target=target)
        assert explanation.score == pytest.approx(1.0)
        assert explanation.target == "landmark: right_eye"
        rows, cols = np.nonzero(explanation["saliency"].values)
        assert (set(rows), set(cols)) == ({10, 11}, {20, 21})
    assert "first landmark" in cs.explain(model, image, "saliency").provenance["target_chosen"]


def test_keypoints_belong_to_an_instance() -> None:
    net = detector("keypoint-rcnn")
    model = cs.wrap(net, size=64)
    explanation = cs.explain(model, photo(), "saliency", target="landmark:left_eye@1")
    answer = net([torch.from_numpy(photo()).permute(2, 0, 1) / 255])[0]
    second = answer["scores"].argsort(descending=True, stable=True)[1]
    assert explanation.target == "landmark: left_eye of instance 1"
    assert explanation.score == pytest.approx(float(answer["keypoints_scores"][second, 1].detach()), rel=1e-4)
    assert explanation["saliency"].values.max() > 0
    with pytest.raises(TargetError, match="Did you mean"):
        cs.explain(model, photo(), "saliency", target="landmark:left_ey3")


def test_coordinates_are_explained_one_at_a_time() -> None:
    class Coordinates(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x[:, :, 3, 4], x[:, :, 7, 8]], 2)

    model = cs.wrap(Coordinates(), size=16, mean=[0.0] * 3)
    values = cs.explain(model, photo(size=(16, 16)), "saliency", target="landmark:2@y")["saliency"].values
    assert np.argwhere(values).tolist() == [[7, 8]]
    with pytest.raises(TargetError, match="say which"):
        cs.explain(model, photo(size=(16, 16)), "saliency", target="landmark:2")


class TwoHeads(nn.Module):
    """Semantic maps of colours, and centres and offsets of two things of class red, known by construction."""

    things = 2

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        semantic = torch.cat([x, 0.3 - x.mean(1, keepdim=True)], 1)
        centre = torch.full_like(x[:, :1], -9.0)
        offset = torch.zeros_like(x[:, :2])
        grid = torch.stack(torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij"))
        for (y, x0), part in (((10, 10), slice(0, 30)), ((50, 45), slice(30, 64))):
            centre[:, 0, y, x0] = 5
            offset[:, :, part] = (torch.tensor([y, x0])[:, None, None] - grid)[:, part]
        return {"semantic": semantic, "center": centre, "offset": offset}


def test_a_thing_of_a_two_headed_network_is_not_the_other_thing_of_its_class() -> None:
    model = cs.wrap(TwoHeads(), size=64, labels=LABELS)
    for target, rows in (
        ("segment:red@8,8", range(4, 16)),
        ("segment:red@45,50", range(40, 60)),
        (None, range(40, 60)),
    ):
        explanation = cs.explain(model, coloured(), "saliency", target=target)
        assert set(np.nonzero(explanation["saliency"].values)[0]) == set(rows)
        assert "a thing of" in explanation.target
    stuff = cs.explain(model, coloured(), "saliency", target="segment:background")
    assert stuff.target == "segment: background"


def test_owners_by_hand() -> None:
    centre = torch.full((8, 8), -9.0)
    centre[2, 2] = centre[6, 6] = 4
    things = torch.ones(8, 8, dtype=torch.bool)
    things[0] = False
    found = owners(centre, torch.zeros(2, 8, 8), things, window=3)
    grid = np.indices((8, 8))
    nearest = (np.hypot(grid[0] - 6, grid[1] - 6) < np.hypot(grid[0] - 2, grid[1] - 2)).astype(int)
    nearest[0] = -1
    assert np.array_equal(found.numpy(), nearest)


def test_two_networks_merged_give_things_and_stuff() -> None:
    from .test_instances import Boxes

    class Listed(Boxes):
        def forward(self, x: Any) -> Any:
            return super().forward(torch.stack(list(x)))

    model = cs.wrap(Merged(Colours(), Listed()), size=64, labels=LABELS)
    image = coloured()
    image[4:20, 4:20] = 230
    image[40:60, 40:60] = 255
    thing = cs.explain(model, image, "saliency", target="segment:@8,8")
    assert "instance" in thing.target
    assert set(np.nonzero(thing["saliency"].values)[0]) == set(range(4, 20))
    stuff = cs.explain(model, image, "saliency", target="segment:background@30,30")
    assert stuff.target.startswith("segment: background")
    assert stuff["saliency"].values[8, 8] == 0


def test_masks_of_queries() -> None:
    class Queries(nn.Module):
        """Query 0 has the left half, query 1 the right one; each class logit is the brightness of its half."""

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            halves = torch.stack([x[..., :32].mean((1, 2, 3)), x[..., 32:].mean((1, 2, 3))], 1)
            logits = torch.stack([halves * 8, halves * 4, torch.zeros_like(halves)], 2)
            side = torch.where(torch.arange(16) < 8, 5.0, -5.0).expand(len(x), 16, 16)
            return {"pred_logits": logits, "pred_masks": torch.stack([side, -side], 1)}

    model = cs.wrap(Queries(), size=64, labels=["dog", "cat"])
    explanation = cs.explain(model, photo(), "saliency", target=PanopticSegment("dog", (60.0, 5.0)))
    values = explanation["saliency"].values
    assert values[:, :32].max() == 0
    assert values[:, 32:].min() > 0

"""The toybox's scene networks: what they return, and how good they are on scenes that no training saw."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from convoscope.toybox import CLASSES, LANDMARKS, STUFF, card, load, pictures, scene
from convoscope.toybox.judging import box_iou, mean_average_precision, mean_iou, panoptic_quality
from convoscope.toybox.loading import normalize
from convoscope.toybox.scene_networks import (
    ToyDetector,
    ToyPanoptic,
    ToySegmenter,
    decode_landmarks,
    decode_panoptic,
)
from convoscope.toybox.train_scenes import (
    Truth,
    bumps,
    detector_loss,
    focal,
    judge_detector,
    judge_landmarks,
    judge_panoptic,
    judge_segmenter,
    panoptic_loss,
    segmenter_loss,
)

# --- measures ---


def test_box_iou_by_hand() -> None:
    a = np.array([[0, 0, 10, 10], [20, 20, 30, 30]])
    b = np.array([[5, 0, 15, 10], [20, 20, 30, 30], [50, 50, 60, 60]])
    assert box_iou(a, b) == pytest.approx(np.array([[1 / 3, 0, 0], [0, 1, 0]]))


def test_average_precision_by_hand() -> None:
    truths = [
        {"boxes": [[0, 0, 10, 10], [20, 0, 30, 10]], "labels": [0, 0]},
        {"boxes": [[0, 0, 10, 10]], "labels": [0]},
    ]
    perfect = [
        {"boxes": [[0, 0, 10, 10], [20, 0, 30, 10]], "labels": [0, 0], "scores": [0.9, 0.8]},
        {"boxes": [[0, 0, 10, 10]], "labels": [0], "scores": [0.7]},
    ]
    assert mean_average_precision(perfect, truths) == 1.0
    # right, double (wrong), right, and one never found: 1/3 * 1 + 1/3 * 2/3
    flawed = [
        {"boxes": [[0, 0, 10, 10], [1, 0, 10, 10]], "labels": [0, 0], "scores": [0.9, 0.8]},
        {"boxes": [[0, 0, 10, 10]], "labels": [0], "scores": [0.7]},
    ]
    assert mean_average_precision(flawed, truths) == pytest.approx(1 / 3 + 2 / 9)
    # the wrong class finds nothing, and no answers are no error
    other = [{**p, "labels": [1] * len(p["labels"])} for p in perfect]
    assert mean_average_precision(other, truths) == 0.0
    nothing = [{"boxes": np.zeros((0, 4)), "labels": [], "scores": []}] * 2
    assert mean_average_precision(nothing, truths) == 0.0


def test_mean_iou_and_panoptic_quality_by_hand() -> None:
    truth = np.array([[0, 0, 1, 1]])
    answer = np.array([[0, 1, 1, 1]])
    assert mean_iou([answer], [truth], 3) == pytest.approx((1 / 2 + 2 / 3) / 2)
    left, right = truth == 0, truth == 1
    assert panoptic_quality([[(0, left), (1, right)]], [[(0, left), (1, right)]]) == 1.0
    wider = answer == 1  # IoU 2/3 with the right side: a match; the left side is missed
    assert panoptic_quality([[(1, wider)]], [[(0, left), (1, right)]]) == pytest.approx((0 + 2 / 3) / 2)


# --- losses ---


def test_bumps_and_focal_loss() -> None:
    heat = bumps(8, 8, [(2.7, 3.2, 1.0), (6.0, 6.0, 1.0)])
    assert heat[3, 2] == 1
    assert heat[6, 6] == 1
    assert heat[3, 3] == pytest.approx(np.exp(-0.5))
    good = torch.where(heat > 0.99, 9.0, -9.0)
    assert focal(good, heat) < 0.01
    assert focal(-good, heat) > 5


@pytest.mark.parametrize(
    ("network", "loss"),
    [(ToyDetector(), detector_loss), (ToySegmenter(), segmenter_loss), (ToyPanoptic(), panoptic_loss)],
)
def test_a_few_steps_of_training_lower_the_loss(network, loss) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    batch = [Truth.of(scene(k, size=64)) for k in range(4)]
    x = normalize([t.image for t in batch])
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    seen = []
    for _ in range(8):
        optimizer.zero_grad()
        value = loss(network.train(), x, batch)
        value.backward()
        optimizer.step()
        seen.append(value.item())
    assert np.isfinite(seen).all()
    assert seen[-1] < 0.8 * seen[0]


def test_mirrored_truth() -> None:
    truth = Truth.of(scene(3))
    twice = truth.mirrored().mirrored()
    assert (twice.boxes == truth.boxes).all()
    mirrored = truth.mirrored()
    for number, box in enumerate(mirrored.boxes, 1):
        ys, xs = np.nonzero(mirrored.segments == number)
        assert tuple(box) == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


# --- the networks ---


@pytest.fixture(scope="module")
def scenes():  # type: ignore[no-untyped-def]
    return [scene(5_000_000_000 + k) for k in range(80)]


def test_detector(scenes) -> None:  # type: ignore[no-untyped-def]
    network = load("toybox-detector")
    assert card("toybox-detector").kind == "detector"
    assert judge_detector(network, scenes) >= 0.8
    x = normalize([s.image for s in scenes[:3]])
    with torch.no_grad():
        answers = network(x)
        single = network([x[1]])[0]
    for answer in answers:
        assert set(answer) == {"boxes", "labels", "scores"}
        assert answer["boxes"].shape == (len(answer["labels"]), 4)
        assert (answer["boxes"][:, 2:] > answer["boxes"][:, :2]).all()
        assert answer["boxes"].min() >= 0
        assert answer["boxes"].max() <= 128
        assert (answer["scores"].diff() <= 0).all(), "best first"
        assert answer["labels"].max() < len(CLASSES)
    for key in ("boxes", "scores"):
        assert torch.allclose(single[key], answers[1][key], atol=1e-3)
    x.requires_grad_()
    network(x)[0]["scores"][0].backward()
    assert x.grad is not None
    assert x.grad[0].abs().sum() > 0
    assert x.grad[1].abs().sum() == 0
    # an empty picture, and one that is not square
    with torch.no_grad():
        assert len(network(torch.zeros(1, 3, 64, 96))[0]["boxes"]) <= network.most


def test_segmenter(scenes) -> None:  # type: ignore[no-untyped-def]
    network = load("toybox-segmenter")
    assert card("toybox-segmenter").labels == CLASSES + STUFF
    assert judge_segmenter(network, scenes) >= 0.75
    assert network(torch.zeros(2, 3, 64, 96)).shape == (2, 16, 64, 96)


def test_panoptic(scenes) -> None:  # type: ignore[no-untyped-def]
    network = load("toybox-panoptic")
    assert judge_panoptic(network, scenes) >= 0.7
    with torch.no_grad():
        output = network(normalize([s.image for s in scenes[:8]]))
    assert output["semantic"].shape == (8, 16, 128, 128)
    assert output["center"].shape == (8, 1, 128, 128)
    assert output["offset"].shape == (8, 2, 128, 128)
    for segments, table in decode_panoptic(output):
        assert {row["id"] for row in table} == set(segments.unique().tolist()) - {0}
        for row in table:
            assert int((segments == row["id"]).sum()) == row["area"]
            assert row["isthing"] == (row["label"] < len(CLASSES))


def test_panoptic_decoding_of_a_perfect_output(scenes) -> None:  # type: ignore[no-untyped-def]
    """From the truth itself, written as a network would, decoding gives back every segment."""
    for s in scenes[:12]:
        h, w = s.stuff.shape
        semantic = torch.nn.functional.one_hot(torch.from_numpy(s.semantic()).long(), 16).permute(2, 0, 1)
        center, offset = torch.full((h, w), -9.0), torch.zeros(2, h, w)
        for instance in s.instances:
            ys, xs = np.nonzero(instance.mask)
            cy, cx = round(ys.mean()), round(xs.mean())
            center[cy, cx] = 9.0
            offset[0, ys, xs] = torch.from_numpy(cy - ys).float()
            offset[1, ys, xs] = torch.from_numpy(cx - xs).float()
        output = {"semantic": semantic[None].float(), "center": center[None, None], "offset": offset[None]}
        segments, table = decode_panoptic(output, smallest=1)[0]
        things = [row for row in table if row["isthing"]]
        assert len(things) == len(s.instances)
        for row in things:
            mine = (segments == row["id"]).numpy()
            match = [i for i in s.instances if (i.mask == mine).all()]
            assert len(match) == 1
            assert match[0].class_index == row["label"]
        assert (segments > 0).all()


def test_landmarks() -> None:
    network = load("toybox-landmarks")
    assert card("toybox-landmarks").labels == LANDMARKS
    specimens = list(pictures(200, 4005))
    within, false_alarms = judge_landmarks(network, specimens)
    assert within >= 0.9
    assert false_alarms <= 0.03
    assert network(torch.zeros(2, 3, 96, 96)).shape == (2, len(LANDMARKS), 48, 48)
    assert {mark for s in specimens for mark in s.landmarks} == set(LANDMARKS)


def test_landmark_peaks_are_in_input_pixels() -> None:
    heat = torch.full((1, 2, 4, 6), -5.0)
    heat[0, 0, 2, 5] = 3.0
    heat[0, 1, 0, 0] = 0.0
    places, scores = decode_landmarks(heat)
    assert places[0].tolist() == [[10.5, 4.5], [0.5, 0.5]]
    assert scores[0].tolist() == pytest.approx([torch.tensor(3.0).sigmoid().item(), 0.5])

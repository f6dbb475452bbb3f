"""Detected instances: torchvision's detectors, found again after perturbation, and the level that fed them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convoscope as cs
from convoscope.errors import TargetError
from convoscope.methods import method
from convoscope.targets import Instance
from convoscope.targets.instances import Found, InstanceScorer
from convoscope.targets.places import overlap

from .networks import detector, photo

DETECTORS = ("faster-rcnn", "mask-rcnn", "keypoint-rcnn", "retinanet", "fcos", "ssd")


def state(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_is_explained_without_saying_what(name: str) -> None:
    net = detector(name)
    before = state(net)
    model = cs.wrap(net, size=64, labels=["background", "house", "tree", "car"])
    explanation = cs.explain(model, photo(), ["saliency", "grad-cam", "layercam"])
    assert explanation.target.startswith("instance 0")
    best = net([torch.from_numpy(photo()).permute(2, 0, 1) / 255])[0]
    assert explanation.score == pytest.approx(float(best["scores"].max()), rel=1e-4)
    assert "highest score" in explanation.provenance["target_chosen"]
    assert explanation.prediction[0]["box"] == pytest.approx(
        best["boxes"][best["scores"].argmax()].tolist(), rel=1e-3
    )
    for heatmap in explanation.values():
        assert np.isfinite(heatmap.values).all()
        assert heatmap.values.shape == (64, 64)
    assert explanation["saliency"].values.max() > 0
    assert explanation["grad-cam"].layer in model.watched((3, 64, 64)).levels
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_the_level_is_the_one_that_mattered_most() -> None:
    """Against gradients taken by hand at every level of the pyramid."""
    net = detector("ssd")
    with torch.no_grad():
        for conv in net.head.classification_head.module_list:  # so that every level has detections of its own
            conv.bias.normal_(0, 1)
    model = cs.wrap(net, size=64)
    image = torch.from_numpy(photo()).permute(2, 0, 1).float() / 255
    chosen = set()
    for index in range(12):
        kept: dict[str, Tensor] = {}

        def keep(module: nn.Module, args: object, output: dict[str, Tensor], kept: dict[str, Tensor] = kept) -> None:
            for key, level in output.items():
                level.retain_grad()
                kept[key] = level

        handle = net.backbone.register_forward_hook(keep)
        net([image.clone().requires_grad_()])[0]["scores"].sort(descending=True, stable=True).values[index].backward()
        handle.remove()
        shares = [float((kept[k] * kept[k].grad).abs().sum()) if kept[k].grad is not None else 0.0 for k in "012"]
        net.zero_grad(set_to_none=True)
        layer = cs.explain(model, photo(), "grad-cam", target=f"instance:{index}")["grad-cam"].layer
        assert layer == "backbone." + ("stem", "down.0", "down.1")[int(np.argmax(shares))]
        chosen.add(layer)
    assert len(chosen) > 1, "all instances came from one level: the test shows nothing"


class Boxes(nn.Module):
    """A detector whose answer is known: two squares, each as sure as its own place is bright; the brightest first."""

    places = ((4, 4, 20, 20), (40, 40, 60, 60))

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        found = []
        for one in x:
            scores = torch.stack([one[:, y0:y1, x0:x1].mean() for x0, y0, x1, y1 in self.places])
            keep = (scores > 0.2).nonzero()[:, 0]
            order = keep[scores[keep].argsort(descending=True)]
            boxes = torch.tensor(self.places, dtype=torch.float32)[order]
            found.append(
                {"boxes": boxes, "labels": torch.ones(len(order), dtype=torch.long), "scores": scores[order]}
            )
        return found


def two_squares(first: float = 0.9, second: float = 0.6) -> Tensor:
    image = torch.full((3, 64, 64), 0.1)
    image[:, 4:20, 4:20], image[:, 40:60, 40:60] = first, second
    return image


def test_an_instance_is_found_again_when_another_becomes_the_best() -> None:
    model = cs.wrap(Boxes(), size=64)
    occlusion = method("occlusion", {"window": 8, "stride": 8, "score": "logit"})
    for target, box in (("instance:0", Boxes.places[0]), ("instance:1", Boxes.places[1])):
        values = cs.explain(model, two_squares(), occlusion, target=target)["occlusion"].values
        x0, y0, x1, y1 = box
        inside = np.zeros_like(values, dtype=bool)
        inside[y0 // 8 * 8 : -(-y1 // 8) * 8, x0 // 8 * 8 : -(-x1 // 8) * 8] = True
        assert values[inside].max() > 0
        assert np.abs(values[~inside]).max() < 1e-6, "the other instance of the class got a share"


def test_gradients_fall_on_the_instance_alone() -> None:
    model = cs.wrap(Boxes(), size=64)
    values = cs.explain(model, two_squares(), "saliency", target="instance:@50,50")["saliency"].values
    assert values[40:60, 40:60].min() > 0
    assert values[:40, :40].max() == 0


def test_rise_on_detections_that_come_and_go() -> None:
    rise = method("rise", {"samples": 200, "cells": 8})
    values = cs.explain(cs.wrap(Boxes(), size=64), two_squares(), rise, target="instance:0")["rise"].values
    assert np.isfinite(values).all()
    inside, other = values[4:20, 4:20].mean(), values[40:60, 40:60].mean()
    assert inside - np.median(values) > 3 * abs(other - np.median(values))


def test_the_score_is_overlap_times_confidence() -> None:
    found = Found(torch.tensor([0.0, 0, 10, 10]), 1, None, 0, 0.9)
    scorer = InstanceScorer([found], ("x",), (64, 64))
    moved = {
        "boxes": torch.tensor([[5.0, 0, 15, 10], [0, 0, 10, 10]]),
        "labels": torch.tensor([1, 2]),
        "scores": torch.tensor([0.6, 0.99]),
    }
    score = scorer.score([moved], {}, torch.tensor([0]))
    assert float(score) == pytest.approx(0.6 * 50 / 150)
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long), "scores": torch.zeros(0)}
    assert float(scorer.score([nothing], {}, torch.tensor([0]))) == 0
    assert overlap(moved["boxes"], found.box).tolist() == pytest.approx([1 / 3, 1.0])


def test_masks_edges_and_points() -> None:
    net = detector("mask-rcnn")
    nn.init.constant_(net.roi_heads.mask_predictor.mask_fcn_logits.bias, -100.0)
    with pytest.raises(TargetError, match="no inside to explain: leave @mask away"):
        cs.explain(cs.wrap(net, size=64), photo(), "saliency", target="instance:0@mask")
    nn.init.constant_(net.roi_heads.mask_predictor.mask_fcn_logits.bias, 1.0)
    model = cs.wrap(net, size=64)
    answer = net([torch.from_numpy(photo()).permute(2, 0, 1) / 255])[0]
    box = answer["boxes"][int(answer["scores"].argmax())].tolist()
    left = cs.explain(model, photo(), "saliency", target="instance:0@left")
    assert left.score == pytest.approx(box[0], abs=1e-3)
    masked = cs.explain(model, photo(), "saliency", target=Instance(0, part="mask"))
    assert 0.5 <= masked.score <= 1
    assert masked.target.endswith(", mask")
    assert masked["saliency"].values.max() > 0


def test_detr_queries_are_instances() -> None:
    class Queries(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Conv2d(3, 4, 16, 16)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            cells = self.embed(x).flatten(2).transpose(1, 2)
            centres = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij"), -1).flip(-1)
            places = (centres.reshape(1, 16, 2) + 0.5) / 4
            boxes = torch.cat([places, torch.full((1, 16, 2), 0.25)], 2).expand(len(x), -1, -1)
            return {"pred_logits": cells, "pred_boxes": boxes}

    torch.manual_seed(0)
    net = Queries()
    explanation = cs.explain(cs.wrap(net, size=64), photo(), "saliency", target="instance:@40,8")
    values = explanation["saliency"].values
    assert values[:16, 32:48].max() > 0
    values[:16, 32:48] = 0
    assert values.max() == 0
    logits = net(torch.from_numpy(photo()).permute(2, 0, 1)[None] / 255)["pred_logits"]
    assert explanation.score == pytest.approx(float(logits[0, 2].softmax(-1)[:-1].max()), rel=1e-5)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("instance:99", "there is only 12 instance"),
        ("instance:tre@1,1", "no tree at 1,1"),
        ("instance:0@mask", "without masks"),
        ("instance:", "needs a number"),
        ("instance:house@top@left@up", "what follows an @"),
        ("instance:@400,2", "outside picture"),
        ("instance:castle", "no class named 'castle'"),
        ("segment:tree@3,3", "no map of classes"),
        ("landmark:nose", "without landmarks"),
    ],
)
def test_bad_targets_get_a_sentence(target: str, words: str) -> None:
    model = cs.wrap(detector("faster-rcnn"), size=64, labels=["background", "house", "tree", "car"])
    with pytest.raises(TargetError) as told:
        cs.explain(model, photo(), "saliency", target=target)
    assert words in str(told.value)


def test_a_class_is_its_best_instance_and_several_pictures_of_different_size_work() -> None:
    model = cs.wrap(detector("faster-rcnn"), labels=["background", "house", "tree", "car"])
    found = cs.explain(model, [photo(0, (64, 80)), photo(1)], ["saliency", "grad-cam"], target="tree")
    assert [one["saliency"].values.shape for one in found] == [(64, 80), (64, 64)]
    assert all(": tree" in one.target for one in found)
    with pytest.raises(TargetError, match="no class scores"):
        cs.explain(model, photo(), "saliency", target="tree", against="house")

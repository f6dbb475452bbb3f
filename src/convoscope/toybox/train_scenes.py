"""Trains the toybox's detector, segmenter, panoptic and landmark networks, for convoscope.toybox.train."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convoscope.toybox.grounds import STUFF
from convoscope.toybox.judging import mean_average_precision, mean_iou, panoptic_quality
from convoscope.toybox.loading import build, load, normalize
from convoscope.toybox.scene_networks import decode_landmarks, decode_panoptic
from convoscope.toybox.scenes import SCENE_SIZE, Scene, scene
from convoscope.toybox.specimens import CLASSES, LANDMARKS, SIZE, Specimen, pictures
from convoscope.toybox.training import UNSEEN, save, steps

POOL = 3000
"""Scenes drawn for training; each is seen a few times, mirrored or not. Number k is ``scene(k)``."""


@dataclass(frozen=True)
class Truth:
    """A scene as arrays, for training: picture, semantic and segment maps, boxes [N, 4], labels [N]."""

    image: np.ndarray[Any, np.dtype[np.uint8]]
    semantic: np.ndarray[Any, np.dtype[np.uint8]]
    segments: np.ndarray[Any, np.dtype[np.uint8]]
    boxes: np.ndarray[Any, np.dtype[np.float32]]
    labels: np.ndarray[Any, np.dtype[np.int64]]

    @staticmethod
    def of(drawn: Scene) -> Truth:
        """Keep what training needs of a scene."""
        boxes = np.array([i.box for i in drawn.instances], np.float32).reshape(-1, 4)
        labels = np.array([i.class_index for i in drawn.instances], np.int64)
        return Truth(drawn.image, drawn.semantic(), drawn.segments(), boxes, labels)

    def mirrored(self) -> Truth:
        """The scene in a mirror."""
        boxes = self.boxes.copy()
        boxes[:, [0, 2]] = self.image.shape[1] - boxes[:, [2, 0]]
        return Truth(self.image[:, ::-1], self.semantic[:, ::-1], self.segments[:, ::-1], boxes, self.labels)


@cache
def _pool() -> list[Truth]:
    print(f"drawing {POOL} scenes", flush=True)
    return [Truth.of(scene(k)) for k in range(POOL)]


def unseen_scenes(count: int = 200) -> list[Scene]:
    """Scenes that no training saw."""
    return [scene(UNSEEN * 1_000_000 + k) for k in range(count)]


def _answers(network: nn.Module, images: Sequence[Any]) -> list[Any]:
    """The network's outputs for pictures, in batches of 50."""
    network.eval()
    with torch.no_grad():
        return [network(normalize(images[k : k + 50])) for k in range(0, len(images), 50)]


def focal(logits: Tensor, target: Tensor) -> Tensor:
    """The penalty-reduced focal loss of CornerNet (Law and Deng 2018, https://arxiv.org/abs/1808.01244)."""
    hit = (target > 0.99).float()
    good = F.logsigmoid(logits) * (1 - logits.sigmoid()) ** 2 * hit
    bad = F.logsigmoid(-logits) * logits.sigmoid() ** 2 * (1 - target) ** 4 * (1 - hit)
    return -(good + bad).sum() / hit.sum().clamp(min=1)


def bumps(height: int, width: int, points: Sequence[tuple[float, float, float]]) -> Tensor:
    """A map [height, width] with a Gaussian bump of height 1 at the cell of each (x, y, sigma)."""
    out = torch.zeros(height, width)
    y, x = torch.arange(height)[:, None], torch.arange(width)[None]
    for px, py, sigma in points:
        cx, cy = min(max(int(px), 0), width - 1), min(max(int(py), 0), height - 1)
        out = torch.maximum(out, torch.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * sigma**2)))
    return out


def detector_loss(network: nn.Module, x: Tensor, batch: list[Truth]) -> Tensor:
    """Focal loss on the centres, and generalised IoU of the boxes seen from the cells around each centre."""
    from torchvision.ops import generalized_box_iou_loss

    logits, sides = network.maps(x)  # type: ignore[operator]
    h, w = logits.shape[2:]
    target = torch.zeros_like(logits)
    cells, truths = [], []
    for k, truth in enumerate(batch):
        for label in np.unique(truth.labels):
            points = [
                ((b[0] + b[2]) / 8, (b[1] + b[3]) / 8, max(0.6, 0.025 * float(max(b[2] - b[0], b[3] - b[1]))))
                for b in truth.boxes[truth.labels == label]
            ]
            target[k, label] = bumps(h, w, points)
        for b in truth.boxes:
            cx, cy = int((b[0] + b[2]) / 8), int((b[1] + b[3]) / 8)
            for row in range(max(cy - 1, 0), min(cy + 2, h)):
                for column in range(max(cx - 1, 0), min(cx + 2, w)):
                    cells.append((k, row, column))
                    truths.append(b)
    n, y, x_ = torch.tensor(cells).unbind(1)
    px, py = (x_ + 0.5) * 4, (y + 0.5) * 4
    left, up, right, down = sides[n, :, y, x_].unbind(1)
    guesses = torch.stack([px - left, py - up, px + right, py + down], 1)
    fit = generalized_box_iou_loss(guesses, torch.from_numpy(np.stack(truths)), reduction="mean")
    loss: Tensor = focal(logits, target) + 2.0 * fit
    return loss


RARITY = torch.tensor([1.0] * 9 + [2.0] + [0.4] * len(STUFF))
"""Weights of the classes' pixels in the loss: things are small, and a key is mostly outline."""


def segmenter_loss(network: nn.Module, x: Tensor, batch: list[Truth]) -> Tensor:
    """Cross entropy of every pixel, weighted by class."""
    truth = torch.from_numpy(np.stack([t.semantic for t in batch]).astype(np.int64))
    return F.cross_entropy(network(x), truth, RARITY)


def panoptic_loss(network: nn.Module, x: Tensor, batch: list[Truth]) -> Tensor:
    """Cross entropy, squared error of the centre map, absolute error of the offsets on things."""
    out = network(x)
    truth = torch.from_numpy(np.stack([t.semantic for t in batch]).astype(np.int64))
    h, w = truth.shape[1:]
    center, offset, on_thing = (
        torch.zeros(len(batch), h, w),
        torch.zeros(len(batch), 2, h, w),
        truth < len(CLASSES),
    )
    for k, t in enumerate(batch):
        points = []
        for number in range(1, len(t.labels) + 1):
            ys, xs = np.nonzero(t.segments == number)
            cy, cx = float(ys.mean()), float(xs.mean())
            points.append((cx, cy, 4.0))
            offset[k, 0, ys, xs] = torch.from_numpy((cy - ys).astype(np.float32))
            offset[k, 1, ys, xs] = torch.from_numpy((cx - xs).astype(np.float32))
        center[k] = bumps(h, w, points)
    way = (out["offset"] - offset).abs().sum(1)
    loss: Tensor = 2.0 * F.cross_entropy(out["semantic"], truth, RARITY)
    loss = loss + 40.0 * F.mse_loss(out["center"][:, 0].sigmoid(), center)
    loss = loss + 0.05 * way[on_thing].mean()
    return loss


def _scene_network(
    name: str,
    seed: int,
    loss_of: Callable[[nn.Module, Tensor, list[Truth]], Tensor],
    total: int,
    rate: float = 4e-3,
) -> nn.Module:
    """Train on batches of 16 scenes, starting from the twin's trunk."""
    torch.manual_seed(seed)
    network = build(name, {})
    start_from_twin(network)
    rng = np.random.default_rng(seed)
    pool, order = _pool(), np.zeros(0, int)
    began, losses = time.monotonic(), []
    for step, _ in steps(total, network, rate):
        if len(order) < 16:
            order = rng.permutation(len(pool))
        batch = [pool[k].mirrored() if rng.random() < 0.5 else pool[k] for k in order[:16]]
        order = order[16:]
        x = normalize([t.image for t in batch]) + torch.from_numpy(rng.normal(0, 0.15, (16, 3, 1, 1))).float()
        loss = loss_of(network, x, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())
        if step % 50 == 49:
            gone = time.monotonic() - began
            print(f"{name} {step + 1}/{total} loss {np.mean(losses[-50:]):.3f}, {gone:.0f} s", flush=True)
    return network


def start_from_twin(network: nn.Module) -> None:
    """Copy the twin's stem and layers into the network's body."""
    twin = load("toybox-twin").state_dict()
    body: nn.Module = network.body  # type: ignore[assignment]
    body.load_state_dict({**body.state_dict(), **{k: v for k, v in twin.items() if not k.startswith("fc.")}})


def train_detector() -> None:
    """Train, judge and save ``toybox-detector``."""
    network = _scene_network("toybox-detector", 11, detector_loss, 700, 3e-3)
    notes = {"mAP50": round(judge_detector(network, unseen_scenes()), 4), "seed": 11}
    save("toybox-detector", network, CLASSES, SCENE_SIZE, {}, notes, "detector")


def judge_detector(network: nn.Module, scenes: list[Scene]) -> float:
    """mAP at IoU 0.5."""
    answers = [one for out in _answers(network, [s.image for s in scenes]) for one in out]
    truths = [{"boxes": [i.box for i in s.instances], "labels": [i.class_index for i in s.instances]} for s in scenes]
    return mean_average_precision(answers, truths)


def train_segmenter() -> None:
    """Train, judge and save ``toybox-segmenter``."""
    network = _scene_network("toybox-segmenter", 12, segmenter_loss, 900)
    notes = {"mIoU": round(judge_segmenter(network, unseen_scenes()), 4), "seed": 12}
    save("toybox-segmenter", network, CLASSES + STUFF, SCENE_SIZE, {}, notes, "segmenter")


def judge_segmenter(network: nn.Module, scenes: list[Scene]) -> float:
    """Mean IoU over things and stuff."""
    answers = torch.cat(_answers(network, [s.image for s in scenes])).argmax(1).numpy()
    return mean_iou(list(answers), [s.semantic() for s in scenes], len(CLASSES + STUFF))


def train_panoptic() -> None:
    """Train, judge and save ``toybox-panoptic``."""
    network = _scene_network("toybox-panoptic", 13, panoptic_loss, 1000)
    notes = {"PQ": round(judge_panoptic(network, unseen_scenes()), 4), "seed": 13}
    save("toybox-panoptic", network, CLASSES + STUFF, SCENE_SIZE, {}, notes, "panoptic")


def judge_panoptic(network: nn.Module, scenes: list[Scene]) -> float:
    """Panoptic quality over things and stuff."""
    answers, truths = [], []
    for out in _answers(network, [s.image for s in scenes]):
        for segments, table in decode_panoptic(out):
            answers.append([(row["label"], (segments == row["id"]).numpy()) for row in table])
    for s in scenes:
        semantic = s.semantic()
        stuff = [(int(k), semantic == k) for k in np.unique(semantic) if k >= len(CLASSES)]
        truths.append([(i.class_index, i.mask) for i in s.instances] + stuff)
    return panoptic_quality(answers, truths)


def train_landmarks() -> None:
    """Train, judge and save ``toybox-landmarks`` (on specimens, not on scenes)."""
    name, total = "toybox-landmarks", 500
    torch.manual_seed(14)
    settings = {"landmarks": len(LANDMARKS)}
    network = build(name, settings)
    start_from_twin(network)
    stream = pictures(total * 32, 14)
    began, losses = time.monotonic(), []
    for step, _ in steps(total, network, 3e-3):
        batch = [next(stream) for _ in range(32)]
        heat = network(normalize([s.image for s in batch]))
        target = torch.zeros_like(heat)
        for k, s in enumerate(batch):
            for mark, (x, y) in s.landmarks.items():
                point = ((x + 0.5) / 2, (y + 0.5) / 2, 1.5)
                target[k, LANDMARKS.index(mark)] = bumps(heat.shape[2], heat.shape[3], [point])
        loss = focal(heat, target)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())
        if step % 50 == 49:
            gone = time.monotonic() - began
            print(f"{name} {step + 1}/{total} loss {np.mean(losses[-50:]):.3f}, {gone:.0f} s", flush=True)
    within, false_alarms = judge_landmarks(network, list(pictures(400, UNSEEN)))
    notes = {"within_4_px": round(within, 4), "false_alarms": round(false_alarms, 4), "seed": 14}
    save(name, network, LANDMARKS, SIZE, settings, notes, "landmarks")


def judge_landmarks(network: nn.Module, specimens: list[Specimen]) -> tuple[float, float]:
    """Share of landmarks found within 4 pixels, and share of absent ones that score above 0.3."""
    places, scores = decode_landmarks(torch.cat(_answers(network, [s.image for s in specimens])))
    near, absent = [], []
    for k, s in enumerate(specimens):
        for n, mark in enumerate(LANDMARKS):
            if mark in s.landmarks:
                x, y = s.landmarks[mark]
                near.append(math.hypot(float(places[k, n, 0]) - x, float(places[k, n, 1]) - y) <= 4)
            else:
                absent.append(float(scores[k, n]) > 0.3)
    return float(np.mean(near)), float(np.mean(absent))


RECIPES: dict[str, Callable[[], object]] = {
    "toybox-detector": train_detector,
    "toybox-segmenter": train_segmenter,
    "toybox-panoptic": train_panoptic,
    "toybox-landmarks": train_landmarks,
}

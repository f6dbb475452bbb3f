"""On networks trained on scenes with known truth: explanations fall on the instance asked for, not on its double."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import convoscope as cs
from convoscope.targets.places import overlap
from convoscope.toybox import draw, scene

Bools = NDArray[np.bool_]


@cache
def opened(name: str) -> cs.Model:
    if not (resources.files("convoscope.toybox") / "weights" / f"{name}.safetensors").is_file():
        pytest.skip(f"{name} is not trained yet (python -m convoscope.toybox.train_scenes)")
    return cs.open_model(name, device="cpu")


def doubles(first: int, count: int) -> Iterator[tuple[int, NDArray[np.uint8], Bools, Bools, tuple[float, float]]]:
    """Scenes with two things of one class apart from each other: picture, one's mask, the other's, a point in one."""
    seed, found = first, 0
    while found < count:
        made = scene(seed)
        pairs = [
            (a, b) for a in made.instances for b in made.instances
            if a is not b and a.label == b.label
            and float(overlap(torch.tensor([a.box]).float(), torch.tensor(b.box).float())) == 0
        ]  # fmt: skip
        if pairs:
            one, other = pairs[0]
            rows, cols = np.nonzero(one.mask)
            middle = np.argmin((rows - rows.mean()) ** 2 + (cols - cols.mean()) ** 2)
            yield seed, made.image, one.mask, other.mask, (float(cols[middle]), float(rows[middle]))
            found += 1
        seed += 1


def figures(name: str, kind: str, methods: list[Any], count: int) -> dict[str, NDArray[np.float64]]:
    """For each method, a row a scene: hit (pointing), share of the positive map on the one, and on its double."""
    model = opened(name)
    names = [one if isinstance(one, str) else one.about.name for one in methods]
    found: dict[str, list[tuple[float, float, float]]] = {one: [] for one in names}
    for _, image, one, other, (x, y) in doubles(50_000, count):
        try:
            explanation = cs.explain(model, image, methods, target=f"{kind}:@{x:g},{y:g}")
        except cs.TargetError:
            continue  # not detected: nothing to explain
        for method in names:
            values = np.clip(np.nan_to_num(explanation[method].values), 0, None)
            near = dilated(one, 3)
            hit = bool(near[np.unravel_index(values.argmax(), values.shape)])
            total = max(float(values.sum()), 1e-12)
            found[method].append((hit, float(values[one].sum()) / total, float(values[other].sum()) / total))
    return {method: np.array(rows) for method, rows in found.items()}


def dilated(mask: Bools, by: int) -> Bools:
    wide = torch.nn.functional.max_pool2d(torch.from_numpy(mask)[None, None].float(), 2 * by + 1, 1, by)
    return wide[0, 0].numpy() > 0


def test_a_detection_is_explained_by_itself_and_not_by_another_of_its_class() -> None:
    found = figures(
        "toybox-detector", "instance", ["layercam", "hirescam", "saliency", cs.GradientSHAP(samples=6)], 12
    )
    for method, rows in found.items():
        assert len(rows) >= 9, "most things are detected"
        hit, mine, others = rows.mean(0)
        assert mine > 3 * others, method
        if method != "saliency":
            assert hit > 0.6, method
    assert found["layercam"].mean(0)[0] > 0.85
    # Grad-CAM averages gradients over the grid and cannot tell the two apart: it says so
    _, image, *_, (x, y) = next(doubles(50_000, 1))
    doubts = cs.explain(opened("toybox-detector"), image, "grad-cam", target=f"instance:@{x:g},{y:g}")[
        "grad-cam"
    ].doubts
    assert any("use layercam or hirescam" in doubt for doubt in doubts)


def test_rise_finds_the_detection_too() -> None:
    """D-RISE: the detection is matched again among whatever is found under each mask."""
    from convoscope.methods import method

    rise = method("rise", {"samples": 200, "cells": 8})
    hits = []
    for _, image, one, _, (x, y) in doubles(51_000, 3):
        values = cs.explain(opened("toybox-detector"), image, rise, target=f"instance:@{x:g},{y:g}")["rise"].values
        hits.append(float(values[one].mean() > np.quantile(values, 0.75)))
    assert sum(hits) >= 2


def test_a_panoptic_segment_is_explained_by_itself() -> None:
    found = figures("toybox-panoptic", "segment", ["layercam", "saliency", cs.GradientSHAP(samples=6)], 6)
    for method, rows in found.items():
        assert len(rows) >= 5
        assert rows[:, 1].mean() > 4 * rows[:, 2].mean(), method
    stuff = cs.explain(opened("toybox-panoptic"), scene(3).image, "saliency", target="segment:@5,2")
    assert stuff.target.startswith("segment: ")


def test_a_landmark_is_explained_by_what_lies_around_it() -> None:
    model = opened("toybox-landmarks")
    assert model.labels is not None
    near, chance = [], []
    for seed in range(70_000, 70_018):
        made = draw(seed)
        for name, (x, y) in list(made.landmarks.items())[:1]:
            explanation = cs.explain(model, made.image, cs.GradientSHAP(samples=9), target=f"landmark:{name}")
            if (explanation.probability or 0) < 0.5:
                continue  # not found: nothing to explain
            values = np.abs(explanation["gradient-shap"].values)
            rows, cols = np.indices(values.shape)
            inside = np.hypot(rows - y, cols - x) < 20
            near.append(float(values[inside].sum() / values.sum()))
            chance.append(float(inside.mean()))
    assert len(near) >= 8
    assert np.mean(near) > 3 * np.mean(chance)
    assert np.mean(near) > 0.5

"""On real photos every method's drawing uses its colours, or its legend says why it does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import convoscope
from convoscope.draw import scales
from convoscope.methods import METHODS, method

pytestmark = [pytest.mark.real, pytest.mark.slow(one_in=21)]

#: what keeps the test short; everything else stands at its default
SHORT = {"rise": {"samples": 400}, "lime": {"samples": 200}, "extremal-perturbation": {"rounds": 60}}


def worst(names: list[str], data_dir: Path, count: int) -> dict[str, tuple[float, int]]:
    """By method the smallest share of the colours that a photo's map uses, and how many maps say why."""
    model = convoscope.open_model("squeezenet1_0", weights=data_dir / "weights" / "squeezenet1_0.safetensors")
    photos = sorted((data_dir / "photos").glob("*.jpg"))
    told: dict[str, tuple[float, int]] = {}
    for photo in photos[:: len(photos) // count][:count]:
        found = convoscope.explain(model, photo, [method(name, SHORT.get(name, {})) for name in names])
        for name, heatmap in found.items():
            scale = heatmap.scale()
            share = scales.used(scale, heatmap.values)
            assert share >= 0.5 or scale.note, (name, photo.name, share)
            least, noted = told.get(name, (1.0, 0))
            told[name] = (min(least, share), noted + (share < 0.5))
    return told


@pytest.mark.parametrize("slow", [False, True], ids=["quick", "slow"])
def test_every_method_uses_half_of_its_colours_or_says_why(data_dir: Path, slow: bool) -> None:
    names = [name for name, one in METHODS.items() if one.about.slow == slow and "attention" not in name]
    # dozens to hundreds of passes a photo: a few photos, unless more are asked for
    count = int(os.environ.get("CONVOSCOPE_PHOTOS", 1 if slow else 2))
    told = worst(names, data_dir, count)
    assert set(told) == set(names)
    print(", ".join(f"{name} {share:.2f} ({noted} of {count} noted)" for name, (share, noted) in told.items()))

"""Draws the pictures of docs/networks.md: one for each kind of target. Run it from the repository's root."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

import convoscope as cs
from convoscope.results import Explanation, contact_sheet
from convoscope.toybox import draw, scene

FOLDER = Path(__file__).parent / "pictures" / "networks"


def doubles(seed: int) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """A scene with two things of one class, and a point inside each."""
    while True:
        made = scene(seed)
        labels = [one.label for one in made.instances]
        twice = next((label for label in labels if labels.count(label) == 2), None)
        if twice is not None:
            points = []
            for one in made.instances:
                if one.label == twice:
                    rows, cols = np.nonzero(one.mask)
                    middle = np.argmin((rows - rows.mean()) ** 2 + (cols - cols.mean()) ** 2)
                    points.append((float(cols[middle]), float(rows[middle])))
            return made.image, points
        seed += 1


def save(name: str, explanations: list[Explanation]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    contact_sheet(explanations).image.save(FOLDER / f"{name}.png", optimize=True)


def main() -> None:
    """Draw all of them (about a minute)."""
    methods = ["layercam", "grad-cam", cs.GradientSHAP(samples=90)]
    image, points = doubles(50_000)
    at = [f"{x:g},{y:g}" for x, y in points]
    detector = cs.open_model("toybox-detector", device="cpu")
    save("instance", [cs.explain(detector, image, methods, target=[f"instance:@{one}" for one in at])])
    panoptic = cs.open_model("toybox-panoptic", device="cpu")
    save(
        "segment", [cs.explain(panoptic, image, methods, target=[*(f"segment:@{one}" for one in at), "segment:@5,3"])]
    )
    landmarks = cs.open_model("toybox-landmarks", device="cpu")
    cat = next(
        made for seed in range(80_000, 80_400) if {"left_eye", "right_eye"} <= set((made := draw(seed)).landmarks)
    )
    save("landmark", [cs.explain(landmarks, cat.image, methods, target=["landmark:left_eye", "landmark:nose"])])
    classifier = cs.open_model("toybox", device="cpu")
    one, other = (next(made for seed in range(start, start + 400) if (made := draw(seed)).label == "car")
                  for start in (81_000, 82_000))  # fmt: skip
    FOLDER.mkdir(parents=True, exist_ok=True)
    Image.fromarray(other.image).resize((192, 192), 0).save(FOLDER / "other.png")
    save("similar", [cs.explain(classifier, one.image, methods, target=[f"similar:{FOLDER / 'other.png'}"])])
    composites = ("epsilon", "z-plus", "epsilon-plus-flat", "epsilon-gamma-box")
    found = cs.explain(classifier, one.image, [*(cs.LRP(name) for name in composites), "deep-shap"])
    for name, heatmap in zip(composites, found.values(), strict=False):
        heatmap.title = f"LRP {name}"
    save("lrp", [found])


if __name__ == "__main__":
    main()

"""Why two photos are alike: the similarity of SqueezeNet's embeddings falls on the object that both show."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

import convoscope as cs

pytestmark = pytest.mark.real


def common(data_dir: Path) -> list[tuple[str, int, int]]:
    """(category, one photo, another) for all that two photos show at 3 to 60 % of their area."""
    told = json.loads((data_dir / "masks" / "instances.json").read_text())
    size = {image["id"]: image["width"] * image["height"] for image in told["images"]}
    shares: dict[int, dict[int, float]] = {}
    for one in told["annotations"]:
        if not one.get("iscrowd"):
            seen = shares.setdefault(one["category_id"], {})
            seen[one["image_id"]] = seen.get(one["image_id"], 0) + one["area"] / size[one["image_id"]]
    names = {one["id"]: one["name"] for one in told["categories"]}
    pairs = []
    for category, seen in shares.items():
        large = sorted(image for image, share in seen.items() if 0.03 < share < 0.6)
        # people are no class of ImageNet: what the network knows of them is what they hold and wear
        if names[category] != "person":
            pairs += [(names[category], a, b) for a, b in permutations(large, 2)]
    return pairs


def mask_of(data_dir: Path, category: str, image: int) -> NDArray[np.bool_]:
    """The union of a photo's instances of a category, squashed to 224 × 224 as the network's input is."""
    told = json.loads((data_dir / "masks" / "instances.json").read_text())
    number = next(one["id"] for one in told["categories"] if one["name"] == category)
    info = next(one for one in told["images"] if one["id"] == image)
    drawn = Image.new("L", (info["width"], info["height"]))
    for one in told["annotations"]:
        if one["image_id"] == image and one["category_id"] == number and isinstance(one["segmentation"], list):
            for polygon in one["segmentation"]:
                ImageDraw.Draw(drawn).polygon(list(map(float, polygon)), fill=255)
    return np.asarray(drawn.resize((224, 224), Image.Resampling.BILINEAR)) > 127


def test_similarity_falls_on_the_common_object(data_dir: Path) -> None:
    model = cs.open_model(
        "squeezenet1_0", weights=data_dir / "weights" / "squeezenet1_0.safetensors", fit="squash", device="cpu"
    )
    told = json.loads((data_dir / "masks" / "instances.json").read_text())
    files = {one["id"]: data_dir / "masks" / "images" / one["file_name"] for one in told["images"]}
    rows: dict[str, list[tuple[float, float]]] = {"layercam": [], "hirescam": []}
    pairs = common(data_dir)
    for category, one, other in pairs:
        found: Any = cs.explain(model, files[one], list(rows), target=f"similar:{files[other]}")
        mask = mask_of(data_dir, category, one)
        for name, row in rows.items():
            values = np.clip(found[name].values, 0, None)
            row.append((float(values[mask].sum() / values.sum()), float(mask.mean())))
    for name, row in rows.items():
        inside, share = np.array(row).T
        gain = inside - share
        spread = 1.96 * gain.std(ddof=1) / np.sqrt(len(gain))
        print(f"{name}: {len(row)} pairs, energy inside {inside.mean():.3f}, area {share.mean():.3f}, "
              f"gain {gain.mean():.3f} ± {spread:.3f}")  # fmt: skip
        assert gain.mean() - spread > 0, name

"""Makes the pictures of the README and of docs/toybox.md:

    python docs/make_pictures.py [--weights squeezenet1_0.safetensors] [--only toybox|repaired]

Without ``--weights``, SqueezeNet's are fetched by torchvision. The photo is Chelsea the cat, by Stéfan van der Walt,
in the public domain, from scikit-image.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

import convoscope as cs
from convoscope import demo
from convoscope.demo.repaired import repaired
from convoscope.demo.shortcut import shortcut
from convoscope.toybox import CLASSES, draw
from convoscope.visualization.sheets import sheet

PICTURES = Path(__file__).parent / "pictures"


def toybox_classes() -> None:
    """What each class wants, as the plain and as the robust network see it, with both networks' first filters."""
    names = ("toybox", "toybox-robust")
    models = [cs.open_model(name) for name in names]
    rows = [
        ("real pictures", [(draw(7_000_000 + k, label=label).picture(), label) for k, label in enumerate(CLASSES)])
    ]
    for name, model in zip(names, models, strict=True):
        made = cs.visualize(model, list(CLASSES))
        rows.append((name, [(_on_white(one), f"p {one.probability:.2f}") for one in made]))
    drawn = sheet(rows, columns=10, title="", size=84).image.convert("RGB")
    drawn.thumbnail((1300, 1300), Image.Resampling.LANCZOS)
    drawn.save(PICTURES / "toybox-classes.png", optimize=True)
    both = [cs.filters(model).image for model in models]
    width = max(one.width for one in both)
    page = Image.new("RGB", (width, sum(one.height for one in both)), "white")
    page.paste(both[0], (0, 0))
    page.paste(both[1], (0, both[0].height))
    page.save(PICTURES / "toybox-filters.png", optimize=True)


def _on_white(one: cs.Visualization) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", one.image.size, "white"), one.transparent).convert("RGB")


def main() -> None:
    """Write docs/pictures/."""
    flags = argparse.ArgumentParser()
    flags.add_argument("--weights", help="SqueezeNet 1.0's weights, if they are not to be fetched")
    flags.add_argument("--only", choices=["toybox", "repaired"], help="these pictures alone")
    given = flags.parse_args()
    PICTURES.mkdir(exist_ok=True)
    if given.only != "repaired":
        toybox_classes()
    if given.only == "toybox":
        return
    with tempfile.TemporaryDirectory() as folder:
        stage = demo.Stage(Path(folder))
        print(repaired(stage, shown=1).sentence)  # the sentence of the README has its figures from here
        with Image.open(stage.out / "repaired.png") as drawn:
            drawn.convert("RGB").reduce(2).save(PICTURES / "repaired.jpg", quality=88)
        if given.only:
            return
        shortcut(stage)
        with Image.open(stage.out / "shortcut.png") as drawn:
            drawn.reduce(2).save(PICTURES / "shortcut.png", optimize=True)
    model = cs.open_model("squeezenet1_0", weights=given.weights, fit="squash")
    occlusion = cs.Occlusion(window=40, stride=8, fill="blur")
    methods = ["cam", "grad-cam", "guided-grad-cam", "guided-backprop", "saliency", occlusion]
    cat = cs.Picture.of(np.asarray(data.chelsea()), "chelsea")
    cs.explain(model, cat, methods).sheet().save(PICTURES / "hero.png", dpi=144)


if __name__ == "__main__":
    main()

"""Makes the pictures of the README and of docs/toybox.md:

    python docs/make_pictures.py [--weights squeezenet1_0.safetensors] [--only toybox|concepts|repaired|photo]
                                 [--photos FOLDER --sheets FOLDER]

Without ``--weights``, SqueezeNet's are fetched by torchvision. The photo is Chelsea the cat, by Stéfan van der Walt,
in the public domain, from scikit-image.

``--photos`` is a folder with a folder of photos for each class (Imagenette, named as torchvision names the classes).
What SqueezeNet's classes are made of is found on them, and their sheets are written to ``--sheets``; the documentation
shows the pictures that want each part, since those photos may not be handed on.
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
    for recipe in ("maco", "santurkar"):
        for name, model in zip(names, models, strict=True):
            made = cs.visualize(model, list(CLASSES), recipe=recipe)
            rows.append((f"{name}, {recipe}", [(_on_white(one), f"p {one.probability:.2f}") for one in made]))
    drawn = sheet(rows, columns=10, title="", size=84).image.convert("RGB")
    drawn.thumbnail((1300, 1300), Image.Resampling.LANCZOS)
    drawn.save(PICTURES / "toybox-classes.png", optimize=True)
    both = [cs.filters(model).image for model in models]
    width = max(one.width for one in both)
    page = Image.new("RGB", (width, sum(one.height for one in both)), "white")
    page.paste(both[0], (0, 0))
    page.paste(both[1], (0, both[0].height))
    page.save(PICTURES / "toybox-filters.png", optimize=True)


def concept_sheets() -> None:
    """What the cheat's cup and the honest network's cat are made of."""
    for name, label, tag in (("toybox-cheat", "cup", True), ("toybox", "cat", False)):
        things = [(draw(9_200_000 + k, label=label, tag=tag).image, None) for k in range(40)]
        sheet_of(cs.craft(cs.open_model(name), things, label).sheet(4), f"concepts-{label}")


def sheet_of(made: object, name: str) -> None:
    """Small enough for a page."""
    image = made.image.convert("RGB")  # type: ignore[attr-defined]
    image.thumbnail((1000, 1000), Image.Resampling.LANCZOS)
    image.save(PICTURES / f"{name}.jpg", quality=84, optimize=True)


def real_parts(weights: str | None, photos: Path, sheets: Path, shown: int = 3) -> None:
    """The parts of ten ImageNet classes in SqueezeNet: a sheet of photos beside them, and what the parts want."""
    model = cs.open_model("squeezenet1_0", weights=weights, fit="crop")
    sheets.mkdir(parents=True, exist_ok=True)
    rows = []
    for folder in sorted(one for one in photos.iterdir() if one.is_dir()):
        pictures = [(str(path), folder.name) for path in sorted(folder.glob("*.[jJ]*"))]
        found = cs.craft(model, pictures, folder.name)
        wanted = found.wanted(shown, size=128)  # of the network's 224: they are shown smaller still
        found.sheet(4, wanted).save(sheets / f"{folder.name}.png")
        cells = [
            (one.convert("RGB"), f"{part.importance.mean:.0%}")
            for one, part in zip(wanted, found.parts[:shown], strict=True)
        ]
        rows.append((folder.name, cells))
    sheet_of(sheet(rows, columns=shown, title="", size=84), "concepts-imagenet")


def _on_white(one: cs.Visualization) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", one.image.size, "white"), one.transparent).convert("RGB")


def with_stage() -> None:
    """The README's repair and the shortcut behind it: the demo's own parts."""
    with tempfile.TemporaryDirectory() as folder:
        stage = demo.Stage(Path(folder))
        print(repaired(stage, shown=1).sentence)  # the sentence of the README has its figures from here
        with Image.open(stage.out / "repaired.png") as drawn:
            drawn.convert("RGB").reduce(2).save(PICTURES / "repaired.jpg", quality=88)
        shortcut(stage)
        with Image.open(stage.out / "shortcut.png") as drawn:
            drawn.reduce(2).save(PICTURES / "shortcut.png", optimize=True)


def photo(weights: str | None) -> None:
    """Six answers to why SqueezeNet calls a cat a cat."""
    model = cs.open_model("squeezenet1_0", weights=weights, fit="squash")
    occlusion = cs.Occlusion(window=40, stride=8, fill="blur")
    methods = ["cam", "grad-cam", "guided-grad-cam", "guided-backprop", "saliency", occlusion]
    cat = cs.Picture.of(np.asarray(data.chelsea()), "chelsea")
    cs.explain(model, cat, methods).sheet().save(PICTURES / "hero.png", dpi=144)


def main() -> None:
    """Write docs/pictures/."""
    parts = ("toybox", "concepts", "repaired", "photo")
    flags = argparse.ArgumentParser()
    flags.add_argument("--weights", help="SqueezeNet 1.0's weights, if they are not to be fetched")
    flags.add_argument("--only", choices=parts, help="these pictures alone")
    flags.add_argument("--photos", type=Path, help="folders of photos, named as the classes")
    flags.add_argument("--sheets", type=Path, default=Path("sheets"), help="where the sheets of these photos go")
    given = flags.parse_args()
    PICTURES.mkdir(exist_ok=True)
    wanted = (given.only,) if given.only else parts
    if "toybox" in wanted:
        toybox_classes()
    if "concepts" in wanted:
        concept_sheets()
        if given.photos:
            real_parts(given.weights, given.photos, given.sheets)
    if "repaired" in wanted:
        with_stage()
    if "photo" in wanted:
        photo(given.weights)


if __name__ == "__main__":
    main()

"""Makes the sheets and the figures of docs/visualize.md.

    python examples/visualize_sheets.py [--out docs/pictures] [--part toybox] [--weights squeezenet1_0.safetensors]
                                        [--photos FOLDER] [--steps N]

Parts: toybox (all recipes, all classes, asked of the twin as well), units, imagenet (needs --weights), fool and
invert (need --weights and --photos). Each prints its figures as rows of a table.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import torch
from PIL import Image

import convoscope as cs
from convoscope.visualization import RECIPES
from convoscope.visualization.sheets import sheet

MADE = ("maco", "fourier", "yosinski", "simonyan", "santurkar")
CLASSES = (9, 88, 130, 145, 207, 281, 291, 323, 340, 386, 417, 508, 572, 620, 817, 852, 920, 950, 953, 985)


def keep(drawn: object, path: Path, width: int = 1500) -> None:
    """A sheet as a JPEG of at most ``width`` pixels and 400 kB."""
    image: Image.Image = drawn.image.convert("RGB")  # type: ignore[attr-defined]
    if image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    for quality in (90, 82, 74, 64):
        image.save(path, quality=quality, optimize=True)
        if path.stat().st_size < 390_000:
            break
    print(f"  {path} ({path.stat().st_size // 1000} kB)", flush=True)


def figures(name: str, results: cs.Visualizations, seconds: float) -> None:
    """One row: how many are classified right, how probable, how many transfer."""
    right = sum(one.rank == 1 for one in results)
    row = f"| {name} | {right} of {len(results)} | {sum(one.probability or 0 for one in results) / len(results):.2f} "
    others = [one.also[0] for one in results if one.also and "rank" in one.also[0]]
    if others:
        row += f"| {sum(other['rank'] == 1 for other in others)} of {len(others)} "
    print(row + f"| {results[0].steps} | {seconds / len(results):.1f} |", flush=True)


def toybox(out: Path, options: argparse.Namespace) -> None:
    """All recipes on all classes, beside a real example of each."""
    model, twin = cs.open_model("toybox"), cs.open_model("toybox-twin")
    classes = list(model.labels or ())
    rows = [("real pictures, for comparison", [(Image.fromarray(specimen(name)), name) for name in classes])]
    for name in options.recipes:
        began = time.perf_counter()
        results = cs.visualize(model, classes, recipe=name, also=twin, steps=options.steps)
        figures(name, results, time.perf_counter() - began)
        rows.append((RECIPES[name].about.title + f" ({name})", [(one.image, one.caption) for one in results]))
        if name == "maco":
            white = [_on_white(one) for one in results]
            rows.append(
                (
                    "the same, opaque where the gradients were",
                    [(w, o.target) for w, o in zip(white, results, strict=True)],
                )
            )
            pairs = [("what a class wants, and a real one", [cell for one, w in zip(results, white, strict=True)
                      for cell in ((w, one.caption), (Image.fromarray(specimen(one.target)), "real"))])]  # fmt: skip
            keep(
                sheet(pairs, columns=4, title="Toybox: what each class wants (maco)", size=110),
                out / "visualize-toybox.jpg",
            )
    keep(sheet(rows, columns=10, title="Toybox: five recipes", size=84), out / "visualize-recipes.jpg")


def specimen(name: str):
    """A real example of a class."""
    from convoscope.toybox import draw

    return draw(7_000_000 + sum(map(ord, name)), label=name).image


def _on_white(one: cs.Visualization) -> Image.Image:
    white = Image.new("RGBA", one.image.size, "white")
    return Image.alpha_composite(white, one.transparent).convert("RGB")


def units(out: Path, options: argparse.Namespace) -> None:
    """Channels of three layers in one batch each."""
    model = cs.open_model("toybox")
    rows = []
    for layer in ("stem", "layer1", "layer3"):
        results = cs.visualize(
            model, [f"{layer}:{c}" for c in range(16)], recipe="fourier", steps=options.steps or 256
        )
        rows.append((layer, [(one.image, one.target.split(":")[1]) for one in results]))
    keep(
        sheet(rows, columns=8, title="Toybox: channels of three layers (fourier)", size=76),
        out / "visualize-units.jpg",
    )


def imagenet(out: Path, options: argparse.Namespace) -> None:
    """SqueezeNet's classes."""
    model = cs.open_model("squeezenet1_0", weights=options.weights)
    for name in options.recipes:
        began = time.perf_counter()
        results = cs.visualize(model, list(CLASSES), recipe=name, steps=options.steps)
        figures(name, results, time.perf_counter() - began)
        keep(
            results.sheet(columns=5, title=f"SqueezeNet 1.0: 20 ImageNet classes ({name})"),
            out / f"visualize-imagenet-{name}.jpg",
        )


def fool(out: Path, options: argparse.Namespace) -> None:
    """Photos changed by less than one level on average until the network says a random class."""
    model = cs.open_model("squeezenet1_0", weights=options.weights, batch_size=10)
    files = sorted(Path(options.photos).glob("*.jpg"))
    files = files[:: max(1, len(files) // options.count)][: options.count]
    drawn = random.Random(0)
    targets = [drawn.randrange(1000) for _ in files]
    results = cs.visualize(model, targets, objective="fool", image=files, steps=options.steps or 100)
    good = [one for one in results if one.facts["fooled"] and one.facts["change"]["mean"] <= 1]
    means = sorted(one.facts["change"]["mean"] for one in results)
    print(f"fooled by a mean change of at most 1 of 255: {len(good)} of {len(results)}")
    print(f"median of the mean changes: {means[len(means) // 2]:.2f}")
    keep(
        cs.Visualizations(results[:4]).sheet(title="Smallest changes that fool SqueezeNet"),
        out / "visualize-fool.jpg",
    )


def invert(out: Path, options: argparse.Namespace) -> None:
    """One photo inverted from four depths."""
    model = cs.open_model("squeezenet1_0", weights=options.weights)
    photo = sorted(Path(options.photos).glob("*.jpg"))[3]
    cells = [(Image.open(photo), "photo")]
    for layer in ("features.0", "features.3", "features.5", "features.8", "features.10", "features.12"):
        one = cs.visualize(model, objective="invert", image=photo, layer=layer, steps=options.steps)
        print(f"| {layer} | {one.facts['feature_error']:.1%} | {one.facts['pixel_error']:.0%} |", flush=True)
        cells.append((one.image, f"{layer}: features {one.facts['feature_error']:.0%} off"))
    keep(
        sheet([("", cells)], columns=4, title="SqueezeNet: a photo inverted from ever deeper layers", size=130),
        out / "visualize-invert.jpg",
    )


def main() -> None:
    """Run the parts asked for."""
    parts = {"toybox": toybox, "units": units, "imagenet": imagenet, "fool": fool, "invert": invert}
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    parser.add_argument("--part", action="append", choices=parts)
    parser.add_argument("--recipe", action="append", dest="recipes", choices=MADE)
    parser.add_argument("--weights")
    parser.add_argument("--photos")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--count", type=int, default=50)
    options = parser.parse_args()
    options.recipes = options.recipes or list(MADE)
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    for name in options.part or ["toybox", "units"]:
        parts[name](options.out, options)


if __name__ == "__main__":
    main()

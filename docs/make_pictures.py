"""Makes the pictures of the README:  python docs/make_pictures.py [--weights squeezenet1_0.safetensors]

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

PICTURES = Path(__file__).parent / "pictures"


def main() -> None:
    """Write docs/pictures/."""
    flags = argparse.ArgumentParser()
    flags.add_argument("--weights", help="SqueezeNet 1.0's weights, if they are not to be fetched")
    given = flags.parse_args()
    PICTURES.mkdir(exist_ok=True)
    model = cs.open_model("squeezenet1_0", weights=given.weights, fit="squash")
    occlusion = cs.Occlusion(window=40, stride=8, fill="blur")
    methods = ["cam", "grad-cam", "guided-grad-cam", "guided-backprop", "saliency", occlusion]
    cat = cs.Picture.of(np.asarray(data.chelsea()), "chelsea")
    cs.explain(model, cat, methods).sheet().save(PICTURES / "hero.png", dpi=144)
    with tempfile.TemporaryDirectory() as folder:
        stage = demo.Stage(Path(folder))
        shortcut(stage)
        with Image.open(stage.out / "shortcut.png") as drawn:
            drawn.reduce(2).save(PICTURES / "shortcut.png", optimize=True)
        print(repaired(stage).sentence)  # the sentence of the README has its figures from here
        with Image.open(stage.out / "repaired.png") as drawn:
            drawn.reduce(2).save(PICTURES / "repaired.png", optimize=True)


if __name__ == "__main__":
    main()

"""Makes the gallery's pictures on the bundled toybox, offline:  python docs/make_gallery.py

Each is made by the call that its caption in docs/gallery.md names.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

import convoscope as cs
from convoscope.toybox import draw, write

PICTURES = Path(__file__).parent / "pictures" / "gallery"
WIDEST = 1200


def keep(name: str, made: Any) -> None:
    """A sheet or picture, small enough for a page."""
    image: Image.Image = made if isinstance(made, Image.Image) else made.image
    image = image.convert("RGB")
    if image.width > WIDEST:
        image = image.resize((WIDEST, round(image.height * WIDEST / image.width)), Image.Resampling.LANCZOS)
    image.save(PICTURES / f"{name}.jpg", quality=86, optimize=True)


def main() -> None:
    """Write docs/pictures/gallery/."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    model = cs.open_model("toybox")
    cat = draw(11, label="cat").image
    keep("filters", cs.filters(model, limit=24))
    keep("activations", cs.activations(model, cat, "layer2", limit=24))
    cams = cs.explain(model, cat, ["cam", "grad-cam", "guided-grad-cam"], target=["cat", "bird"])
    keep("cams", cams.sheet(title="CAM, Grad-CAM, guided Grad-CAM"))
    backwards = cs.explain(model, cat, ["saliency", "deconvnet", "guided-backprop"])
    keep("backwards", backwards.sheet(title="Three rules for the way back"))
    keep("occlusion", cs.explain(model, cat, cs.Occlusion(window=24, stride=6)).sheet(title="Occlusion"))
    keep("figure", cams.sheet(width=84, title=None, columns=3, caption="One column of a paper: 84 mm.").render(300))
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder, "photos")
        write(photos, 150, seed=41)
        store = cs.survey(model, photos, Path(folder, "store"))
        rows = [row for row in store.units("layer3.1.relu#2").rows if not row["dead"]]
        best = sorted(rows, key=lambda row: -(row["selectivity"] or 0))[:1]
        keep("patches", store.patches(f"layer3.1.relu#2:{best[0]['channel']}").sheet())
        keep("neighbors", store.neighbors(cat).sheet())
        keep("map", Image.open(store.map().save(Path(folder, "map.png"))))


if __name__ == "__main__":
    main()

"""Writes toybox pictures with their truth into a folder, to play and to teach with."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from convoscope.errors import UsageError
from convoscope.files import write_image, write_whole
from convoscope.toybox.grounds import STUFF
from convoscope.toybox.paint import Bools
from convoscope.toybox.scenes import SCENE_SIZE, scene, tight_box
from convoscope.toybox.specimens import CLASSES, SIZE, pictures


def _numbered(masks: dict[str, Bools], height: int, width: int) -> Image.Image:
    """A palette picture: pixel value k + 1 is the k-th mask, 0 is the rest."""
    out = np.zeros((height, width), np.uint8)
    for number, mask in enumerate(masks.values(), 1):
        out[mask] = number
    picture = Image.fromarray(out)
    colors = [(0, 0, 0)] + [(37 * k % 200 + 56, 91 * k % 200 + 56, 153 * k % 200 + 56) for k in range(1, 256)]
    picture.putpalette([channel for color in colors for channel in color])
    return picture


def _points(landmarks: dict[str, tuple[float, float]]) -> dict[str, list[float]]:
    return {name: [round(x, 2), round(y, 2)] for name, (x, y) in landmarks.items()}


def write(
    folder: str | Path,
    count: int = 20,
    *,
    scenes: bool = False,
    seed: int = 0,
    tag: str | bool = False,
    size: int | None = None,
) -> Path:
    """Write ``count`` pictures into ``folder`` and return the path of the truth file.

    Specimens: ``NAME.png``, ``masks/NAME.png`` (255 = the thing), ``parts/NAME.png`` (palette; value k + 1
    is the k-th name in the truth's ``parts``). Scenes: ``NAME.png``, ``instances/NAME.png`` (value k + 1 is
    the k-th instance, 0 the background), ``semantic/NAME.png`` (indices into the truth's ``semantic``).
    ``truth.json`` tells all of it; ``truth.csv`` has one row per thing: file, label, class_index, box x0 y0
    x1 y1 (far edges exclusive). ``tag`` as in :func:`convoscope.toybox.pictures`; ``seed`` chooses the
    collection. Raises UsageError where the folder cannot be made.
    """
    if count < 1:
        raise UsageError(f"The number of toybox pictures must be at least 1, not {count}.")
    if scenes and tag:
        raise UsageError("Scenes carry no tag: leave out either the scenes or the tag.")
    folder = Path(folder)
    try:
        for name in ("instances", "semantic") if scenes else ("masks", "parts"):
            (folder / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"The folder {folder} cannot be made: {error.strerror}.") from None
    rows: list[dict[str, Any]] = []
    if scenes:
        for k in range(count):
            rows.append(_write_scene(folder, f"scene-{k:05d}", seed * 1_000_000 + k, size or SCENE_SIZE))
    else:
        for k, specimen in enumerate(pictures(count, seed, tag=tag, size=size or SIZE)):
            name = f"{specimen.label}-{k:05d}"
            write_image(folder / f"{name}.png", specimen.picture())
            write_image(folder / "masks" / f"{name}.png", Image.fromarray(specimen.mask))
            write_image(folder / "parts" / f"{name}.png", _numbered(specimen.parts, *specimen.mask.shape))
            rows.append(
                {
                    "file": f"{name}.png",
                    "label": specimen.label,
                    "class_index": specimen.class_index,
                    "box": tight_box(specimen.mask),
                    "parts": list(specimen.parts),
                    "landmarks": _points(specimen.landmarks),
                    "tag": tight_box(specimen.tag_mask) if specimen.tag_mask is not None else None,
                }
            )
    truth: dict[str, Any] = {"classes": CLASSES, "seed": seed}
    if scenes:
        truth["semantic"] = CLASSES + STUFF
    truth["pictures"] = rows
    write_whole(folder / "truth.json", json.dumps(truth, indent=1))
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(["file", "label", "class_index", "x0", "y0", "x1", "y1"])
    for row in rows:
        for thing in row.get("instances", [row]):
            table.writerow([row["file"], thing["label"], thing["class_index"], *thing["box"]])
    write_whole(folder / "truth.csv", text.getvalue())
    return folder / "truth.json"


def _write_scene(folder: Path, name: str, number: int, size: int) -> dict[str, Any]:
    drawn = scene(number, size=size)
    write_image(folder / f"{name}.png", drawn.picture())
    masks = {str(k): instance.mask for k, instance in enumerate(drawn.instances)}
    write_image(folder / "instances" / f"{name}.png", _numbered(masks, size, size))
    write_image(folder / "semantic" / f"{name}.png", Image.fromarray(drawn.semantic()))
    return {
        "file": f"{name}.png",
        "instances": [
            {
                "label": instance.label,
                "class_index": instance.class_index,
                "box": instance.box,
                "landmarks": _points(instance.landmarks),
            }
            for instance in drawn.instances
        ],
    }

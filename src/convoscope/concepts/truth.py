"""Where labelled parts and things are: COCO polygons, PNG label maps, the part masks that the toybox writes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, UnidentifiedImageError

from ..errors import UsageError
from ..files import read_regular, read_text

Mask = NDArray[np.bool_]

_ENDINGS = (".png", ".tif", ".tiff", ".bmp", ".gif")


@dataclass(frozen=True, eq=False)
class Truth:
    """The labelled regions of pictures.

    Args:
        names: the concepts, in a fixed order.
        known: file stems that have truth.
        read: stem -> concept -> mask ``[H, W]`` in the photo's pixels; concepts that a picture does not show are
            left out.
        source: what a person called it.
    """

    names: tuple[str, ...]
    known: frozenset[str]
    read: Callable[[str], Mapping[str, Mask]]
    source: str

    def masks(self, uri: str) -> Mapping[str, Mask] | None:
        """The masks of a picture by its file name; None where nothing is known of it."""
        stem = Path(uri).stem
        return self.read(stem) if stem in self.known else None


def read_truth(masks: str | Path | None = None, parts: str | Path | None = None) -> Truth:
    """The truth of ``--masks`` (a COCO JSON file, or a folder of PNG label maps) or ``--parts`` (a toybox folder).

    Label maps are single-channel or palette pictures with the stem of their photo; value k is the k-th line of
    ``labels.txt`` beside them (counted from 1, 0 is nothing), or ``label k`` where there is none.

    Raises:
        UsageError: neither or both are given, or they cannot be read.
    """
    if (masks is None) == (parts is None):
        raise UsageError("Say where the truth is: --masks FILE or FOLDER (COCO JSON, label maps), or --parts FOLDER.")
    place = Path(str(masks if parts is None else parts))
    if not place.exists():
        raise UsageError(f"{place}: there is no such file or folder with labelled parts.")
    if parts is not None:
        return _toybox(place) if (place / "truth.json").is_file() else _label_maps(place)
    return _label_maps(place) if place.is_dir() else _coco(place)


def _load(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as JSON ({str(error)[:120]}).") from None


def _opened(path: Path) -> Image.Image:
    """A label map or a mask, decoded."""
    try:
        image = Image.open(io.BytesIO(read_regular(path)))
        image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        why = "no picture" if isinstance(error, UnidentifiedImageError) else getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: the label map cannot be read ({why}).") from None
    return image


def _toybox(folder: Path) -> Truth:
    rows = _load(folder / "truth.json").get("pictures", [])
    if not rows or not (folder / "parts").is_dir():
        raise UsageError(f"{folder}: no parts here; `convoscope toybox {folder}` writes pictures with parts.")
    by_stem = {Path(row["file"]).stem: row for row in rows}
    parts = [f"{row['label']}: {part}" for row in rows for part in row.get("parts", [])]
    things = [row["label"] for row in rows]
    names = tuple(sorted({*parts, *things}))

    def read(stem: str) -> dict[str, Mask]:
        row = by_stem[stem]
        values = np.asarray(_opened(folder / "parts" / f"{stem}.png"))
        found = {f"{row['label']}: {part}": values == k for k, part in enumerate(row.get("parts", []), 1)}
        whole = folder / "masks" / f"{stem}.png"
        if whole.is_file():
            found[row["label"]] = np.asarray(_opened(whole).convert("L")) > 127
        return {name: mask for name, mask in found.items() if mask.any()}

    return Truth(names, frozenset(by_stem), read, str(folder))


def _label_maps(folder: Path) -> Truth:
    files = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in _ENDINGS}
    if not files:
        raise UsageError(f"{folder}: no label maps (PNG files named as their photos) are here.")
    listed = folder / "labels.txt"
    lines = read_text(listed).splitlines() if listed.is_file() else []

    def name(value: int) -> str:
        return lines[value - 1].strip() if 0 < value <= len(lines) else f"label {value}"

    def values(stem: str) -> NDArray[Any]:
        found = np.asarray(_opened(files[stem]))
        if found.ndim != 2:
            raise UsageError(f"{files[stem]}: a label map has one number a pixel, this picture has colours.")
        return found

    def read(stem: str) -> dict[str, Mask]:
        found = values(stem)
        return {name(int(value)): found == value for value in np.unique(found) if value != 0}

    seen = {name(int(value)) for stem in files for value in np.unique(values(stem)) if value != 0}
    return Truth(tuple(sorted(seen)), frozenset(files), read, str(folder))


def _coco(path: Path) -> Truth:
    document = _load(path)
    if not isinstance(document, dict) or not {"images", "annotations"} <= set(document):
        raise UsageError(f"{path}: not COCO's JSON (it needs images and annotations).")
    categories = {one["id"]: one["name"] for one in document.get("categories", [])}
    images = {one["id"]: one for one in document["images"]}
    by_stem: dict[str, list[dict[str, Any]]] = {Path(one["file_name"]).stem: [] for one in images.values()}
    size = {Path(one["file_name"]).stem: (one.get("height"), one.get("width")) for one in images.values()}
    for one in document["annotations"]:
        image = images.get(one.get("image_id"))
        if image is not None and one.get("segmentation"):
            by_stem[Path(image["file_name"]).stem].append(one)

    def called(one: dict[str, Any]) -> str:
        return str(categories.get(one.get("category_id"), f"category {one.get('category_id')}"))

    def read(stem: str) -> dict[str, Mask]:
        height, width = size[stem]
        found: dict[str, Mask] = {}
        for one in by_stem[stem]:
            mask = _segmentation(one["segmentation"], int(height), int(width))
            found[called(one)] = found[called(one)] | mask if called(one) in found else mask
        return {name: mask for name, mask in found.items() if mask.any()}

    names = tuple(sorted({called(one) for listed in by_stem.values() for one in listed}))
    known = frozenset(stem for stem, (height, width) in size.items() if height and width)
    if not names or not known:
        raise UsageError(f"{path}: no segmentation with the size of its picture is in it.")
    return Truth(names, known, read, str(path))


def _segmentation(segmentation: Any, height: int, width: int) -> Mask:
    """COCO's polygons, or its uncompressed run lengths (columns first)."""
    if isinstance(segmentation, dict):
        counts = segmentation.get("counts")
        if not isinstance(counts, list):
            raise UsageError("Compressed COCO masks cannot be read: write polygons, or uncompressed run lengths.")
        runs = np.repeat(np.arange(len(counts)) % 2, counts).astype(bool)
        return np.asarray(runs.reshape(width, height).T)
    canvas = Image.new("1", (width, height))
    draw = ImageDraw.Draw(canvas)
    for polygon in segmentation:
        points = list(zip(polygon[::2], polygon[1::2], strict=True))
        if len(points) >= 3:
            draw.polygon(points, fill=1)
    return np.asarray(canvas, bool)


def on_input(mask: Mask, input_to_photo: NDArray[np.float64], rows: NDArray[Any], cols: NDArray[Any]) -> Mask:
    """A photo's mask at pixels of the network's input: the photo's pixel under each, False outside the photo.

    Args:
        mask: ``[H, W]`` in the photo's pixels.
        input_to_photo: 2×3, as :class:`~convoscope.pictures.picture.ModelInput` has it.
        rows: the input's rows to look at.
        cols: the input's columns.

    Returns:
        ``[rows, cols]``.
    """
    x = input_to_photo[0, 0] * cols[None, :] + input_to_photo[0, 1] * rows[:, None] + input_to_photo[0, 2]
    y = input_to_photo[1, 0] * cols[None, :] + input_to_photo[1, 1] * rows[:, None] + input_to_photo[1, 2]
    at_x, at_y = np.rint(x).astype(int), np.rint(y).astype(int)
    inside = (at_x >= 0) & (at_y >= 0) & (at_x < mask.shape[1]) & (at_y < mask.shape[0])
    found = np.zeros(inside.shape, bool)
    found[inside] = mask[at_y[inside], at_x[inside]]
    return found


def overlap(intersection: NDArray[Any], union: NDArray[Any]) -> NDArray[np.float64]:
    """Intersection over union; 0 where both are empty."""
    return np.asarray(np.divide(intersection, union, out=np.zeros(np.shape(union)), where=np.asarray(union) > 0))


def stems(uris: Iterable[str]) -> list[str]:
    """The file names without folders and endings."""
    return [Path(uri).stem for uri in uris]

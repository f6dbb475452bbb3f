"""Pictures with the truth of where things are: boxes in JSON, COCO, Pascal VOC, plain folders, the toybox."""

from __future__ import annotations

import json
import xml.etree.ElementTree as xml
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import TargetError, UsageError
from ..files import read_text, write_image, write_whole
from ..models.model import Model
from ..pictures.picture import Picture, find_pictures
from ..targets.classes import named_class
from .regions import Region, polygons, run_lengths


@dataclass(frozen=True, eq=False)
class Case:
    """One picture and one class to explain in it.

    ``source`` is a path or whatever :meth:`Picture.of` takes. ``target`` is a class index; ``None`` is the predicted
    class. ``region`` is where the object is (``None``: not known). ``others`` counts the other classes in the
    picture, for the pointing game's difficult subset; ``tag`` is the toybox's tag.
    """

    key: str
    source: Any
    target: int | None = None
    label: str = ""
    region: Region | None = None
    others: int = 0
    tag: Region | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def picture(self) -> Picture:
        """The picture, read now. Raises :class:`~convoscope.errors.PictureError`."""
        return replace(Picture.of(self.source), name=self.key)


def boxes_json(file: str | Path, limit: int | None = None) -> list[Case]:
    """A list of ``{"file", "class_index", "boxes"}``: paths from the JSON's folder, boxes ``[x0, y0, x1, y1]``.

    ``boxes`` are in the photo's own pixels; ``boxes_224`` (any number) in those of the photo squashed to that side.
    Without ``class_index`` the predicted class is explained.
    """
    path = Path(file)
    rows = _json(path)
    if not isinstance(rows, list):
        raise UsageError(f"{path}: a list of pictures with their boxes is expected (file, class_index, boxes).")
    cases = []
    for number, row in enumerate(rows[:limit]):
        try:
            source = path.parent / row["file"]
            key = next(k for k in row if k == "boxes" or (k.startswith("boxes_") and k[6:].isdigit()))
            boxes = [tuple(float(v) for v in box) for box in row[key]]
            if any(len(box) != 4 for box in boxes):
                raise ValueError("a box has four numbers")
            target = row.get("class_index")
        except (KeyError, TypeError, ValueError, StopIteration) as error:
            raise UsageError(
                f"{path}: entry {number} needs file and boxes (x0, y0, x1, y1), and may have class_index ({error!r})."
            ) from None
        if key != "boxes":
            boxes = _unsquashed(boxes, source, int(key[6:]))
        cases.append(
            Case(
                Path(row["file"]).stem,
                source,
                None if target is None else int(target),
                str(row.get("label", "")),
                Region(tuple(boxes)),  # type: ignore[arg-type]
            )
        )
    return _unique(cases, path)


def _unsquashed(boxes: list[Any], source: Path, side: int) -> list[Any]:
    width, height = _size_of(source)
    if (width, height) == (side, side):
        return boxes
    sx, sy = width / side, height / side
    return [(x0 * sx, y0 * sy, x1 * sx, y1 * sy) for x0, y0, x1, y1 in boxes]


def _size_of(source: Path) -> tuple[int, int]:
    height, width = Picture.of(source).size
    return width, height


def coco(file: str | Path, model: Model, images: str | Path | None = None, limit: int | None = None) -> list[Case]:
    """COCO's instances JSON: a case for every picture and category that the network has a class for.

    Masks are polygons or run lengths; crowds count as part of their category. ``images`` is the folder of the
    pictures (default: ``images`` beside the JSON, or the JSON's own folder). A picture none of whose categories is a
    class of the network is one case: the *predicted* class against all its instances together, which asks only
    whether the map lies on things rather than on background.
    """
    path = Path(file)
    data = _json(path)
    if not isinstance(data, dict) or not {"images", "annotations", "categories"} <= set(data):
        raise UsageError(f"{path}: this is not COCO's JSON (images, annotations and categories are expected).")
    folder = Path(images) if images is not None else path.parent / "images"
    if images is None and not folder.is_dir():
        folder = path.parent
    classes = {c["id"]: (c["name"], _class_of(c["name"], model)) for c in data["categories"]}
    by_image: dict[Any, dict[Any, list[Any]]] = {}
    for annotation in data["annotations"]:
        by_image.setdefault(annotation["image_id"], {}).setdefault(annotation["category_id"], []).append(annotation)
    cases: list[Case] = []
    for image in sorted(data["images"], key=lambda i: str(i["file_name"])):
        found = by_image.get(image["id"], {})
        size = int(image["height"]), int(image["width"])
        masks = {category: _masks(rows, size, path) for category, rows in found.items()}
        stem, source = Path(image["file_name"]).stem, folder / image["file_name"]
        known = [category for category in found if classes.get(category, ("", None))[1] is not None]
        for category in known:
            name, index = classes[category]
            region = Region((), tuple(masks[category]))
            cases.append(Case(f"{stem}:{name}", source, index, name, region, len(found) - 1))
        if found and not known:
            region = Region((), tuple(mask for rows in masks.values() for mask in rows))
            cases.append(Case(stem, source, None, "any thing", region, 0, None, {"foreground": True}))
        if limit is not None and len(cases) >= limit:
            return cases[:limit]
    if not cases:
        raise UsageError(f"{path}: no picture has any instance.")
    return cases


def _masks(rows: list[Any], size: tuple[int, int], path: Path) -> list[Any]:
    found = []
    for row in rows:
        shape = row.get("segmentation")
        try:
            if isinstance(shape, dict):
                found.append(run_lengths(shape["counts"], (int(shape["size"][0]), int(shape["size"][1]))))
            elif shape:
                found.append(polygons(shape, size))
            else:
                x, y, width, height = row["bbox"]
                found.append(Region(((x, y, x + width, y + height),)).on_photo(size))
        except (KeyError, TypeError, IndexError, UsageError) as error:
            raise UsageError(f"{path}: annotation {row.get('id')} has no readable segmentation ({error}).") from None
    return found


def _class_of(name: str, model: Model) -> int | None:
    """The network's class of exactly this name (before a comma too: ``tabby, tabby cat``); ``None`` without one."""
    if not model.labels:
        return None
    folded = name.casefold()
    found = [i for i, label in enumerate(model.labels) if label.casefold().split(",")[0].strip() == folded]
    return found[0] if len(found) == 1 else None


def voc(folder: str | Path, model: Model, split: str = "test", limit: int | None = None) -> list[Case]:
    """Pascal VOC: a case for every picture and class in it, in the split's order; boxes count from pixel 1.

    ``folder`` holds ``JPEGImages``, ``Annotations`` and ``ImageSets/Main`` (or ``VOC2007`` or ``VOCdevkit/VOC2007``
    with them). As in TorchRay's protocol a class is left out of a picture where all its objects are marked
    *difficult*, and counts with all its boxes elsewhere. Raises :class:`UsageError` where the network lacks a class.
    """
    root = _voc_root(Path(folder))
    listing = root / "ImageSets" / "Main" / f"{split}.txt"
    if not listing.is_file():
        raise UsageError(f"{listing}: there is no such split.")
    cases: list[Case] = []
    for name in read_text(listing).split():
        objects = _voc_objects(root / "Annotations" / f"{name}.xml")
        labels = list(dict.fromkeys(label for label, _, _ in objects))
        for label in labels:
            own = [(box, hard) for other, box, hard in objects if other == label]
            if all(hard for _, hard in own):
                continue
            try:
                index = named_class(label, model.labels)
            except TargetError as error:
                raise UsageError(f"{name}.xml: {error}") from None
            region = Region(tuple(box for box, _ in own))
            source = _voc_image(root / "JPEGImages", name)
            cases.append(Case(f"{name}:{label}", source, index, label, region, len(labels) - 1))
            if limit is not None and len(cases) >= limit:
                return cases
    if not cases:
        raise UsageError(f"{listing}: no picture has an object.")
    return cases


def _voc_root(folder: Path) -> Path:
    for root in (folder, folder / "VOC2007", folder / "VOCdevkit" / "VOC2007", folder / "VOC2012"):
        if (root / "Annotations").is_dir():
            return root
    raise UsageError(f"{folder}: this is not Pascal VOC (Annotations, JPEGImages and ImageSets/Main are expected).")


def _voc_image(folder: Path, name: str) -> Path:
    # VOC has JPEG alone; the toybox is written out as PNG, which loses nothing
    png = folder / f"{name}.png"
    return png if png.is_file() else folder / f"{name}.jpg"


def _voc_objects(file: Path) -> list[tuple[str, tuple[float, float, float, float], bool]]:
    try:
        root = xml.parse(file).getroot()
        found = []
        for thing in root.iter("object"):
            box = thing.find("bndbox")
            if box is None:
                raise ValueError("an object without bndbox")
            x0, y0, x1, y1 = (float(box.findtext(k, "")) for k in ("xmin", "ymin", "xmax", "ymax"))
            label = thing.findtext("name", "").strip()
            # corners are pixels counted from 1, both inside
            found.append((label, (x0 - 1, y0 - 1, x1, y1), thing.findtext("difficult", "0").strip() == "1"))
        return found
    except (OSError, xml.ParseError, ValueError) as error:
        raise UsageError(f"{file}: the annotation cannot be read ({error}).") from None


def folder(path: str | Path, limit: int | None = None) -> list[Case]:
    """Pictures without truth: only measures that need none (faithfulness) are taken; the predicted class."""
    found = find_pictures([path])[:limit]
    return _unique([Case(file.stem, file) for file in found], Path(path))


def toybox_cases(count: int = 100, *, seed: int = 7, tag: str | bool = False, label: str | None = None) -> list[Case]:
    """Toybox pictures that no bundled network was trained on, with exact masks (and the tag's, where there is one).

    ``label`` keeps to one class.
    """
    from ..toybox import draw, pictures

    if label is not None:
        specimens: Any = (draw(seed * 1_000_000 + k, label=label, tag=bool(tag)) for k in range(count))
    else:
        specimens = pictures(count, seed, tag=tag)
    cases = []
    for number, one in enumerate(specimens):
        tagged = None if one.tag_mask is None else Region((), (np.asarray(one.tag_mask, bool),))
        region = Region((), (np.asarray(one.mask, bool),))
        key = f"{number:05d}-{one.label}"
        cases.append(Case(key, np.asarray(one.image), int(one.class_index), one.label, region, 0, tagged))
    return cases


def write_voc(cases: Sequence[Case], folder: str | Path, split: str = "test") -> Path:
    """Write cases out as Pascal VOC (PNG pictures, one object for each box or mask); returns the folder."""
    root = Path(folder)
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True, exist_ok=True)
    names = []
    for case in cases:
        picture = case.picture()
        stem = case.key.split(":")[0]
        write_image(root / "JPEGImages" / f"{stem}.png", picture.image)
        tree = xml.Element("annotation")
        xml.SubElement(tree, "filename").text = f"{stem}.png"
        size = xml.SubElement(tree, "size")
        for key, value in zip(("height", "width", "depth"), (*picture.size, 3), strict=True):
            xml.SubElement(size, key).text = str(value)
        region = case.region or Region()
        for box in [*region.boxes, *(_tight(mask) for mask in region.masks if mask.any())]:
            thing = xml.SubElement(tree, "object")
            xml.SubElement(thing, "name").text = case.label
            xml.SubElement(thing, "difficult").text = "0"
            corners = xml.SubElement(thing, "bndbox")
            for key, corner in zip(("xmin", "ymin", "xmax", "ymax"), (box[0] + 1, box[1] + 1, *box[2:]), strict=True):
                xml.SubElement(corners, key).text = f"{corner:g}"
        write_whole(root / "Annotations" / f"{stem}.xml", xml.tostring(tree, encoding="unicode"))
        names.append(stem)
    write_whole(root / "ImageSets" / "Main" / f"{split}.txt", "\n".join(names) + "\n")
    return root


def _tight(mask: Any) -> tuple[float, float, float, float]:
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(cols[0]), float(rows[0]), float(cols[-1] + 1), float(rows[-1] + 1)


def _json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file.") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: this is not readable JSON ({error}).") from None


def _unique(cases: list[Case], path: Path) -> list[Case]:
    if not cases:
        raise UsageError(f"{path}: there are no pictures in it.")
    taken: dict[str, int] = {}
    found = []
    for case in cases:
        number = taken[case.key] = taken.get(case.key, 0) + 1
        found.append(case if number == 1 else replace(case, key=f"{case.key}-{number}"))
    return found

"""One picture's folder: where it lies, whether it is done, and how it is written, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import process_lives, sha256, write_arrays, write_image, write_whole
from ..plain import dump_json, plain
from .request import PICTURES, Request

if TYPE_CHECKING:
    from ..results import Explanation


RECORD = "explain.json"


@dataclass(eq=False)
class Place:
    """One picture and the folder of its results."""

    path: Path
    folder: Path
    record: dict[str, Any] | None = None


def places_of(paths: Sequence[Path], out: Path) -> list[Place]:
    """A folder for each picture: its stem, ``-2`` and so on where that is another picture's."""
    taken: set[str] = set()
    places = []
    for path in paths:
        stem = path.stem or "picture"
        number = 1
        while True:
            name = stem if number == 1 else f"{stem}-{number}"
            number += 1
            if name.lower() in taken:
                continue
            record = _read(out / name / RECORD)
            if record is None or _same_picture(record, path):
                break
        taken.add(name.lower())
        places.append(Place(path, out / name, record))
    return places


def _read(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _same_picture(record: dict[str, Any], path: Path) -> bool:
    known = record.get("path")
    return known is None or Path(str(known)).resolve() == path.resolve() or record.get("sha256") == _digest(path)


def _digest(path: Path) -> str | None:
    try:
        return sha256(path)
    except OSError:
        return None


def is_done(place: Place, key: str, request: Request) -> bool:
    record = place.record
    if record is None or record.get("key") != key or not record.get("complete", False):
        return False
    files = record.get("files", [])
    if PICTURES.index(str(request.pictures)) > PICTURES.index(_drawn(files)):
        return False
    # a file that was cut off, never finished, or that the disk gives back with another bit, is no result
    if record.get("digest") != _seal(record):
        return False
    digests = record.get("digests", {})
    if not all(digests.get(name) and _digest(place.folder / str(name)) == digests[name] for name in files):
        return False
    return record.get("sha256") == _digest(place.path)


def _seal(record: dict[str, Any]) -> str:
    """A hash of all that a record says, as it is read back."""
    said = {name: value for name, value in record.items() if name != "digest"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _drawn(files: Sequence[str]) -> str:
    """How much of a picture was drawn, by its files."""
    drawings = [name for name in files if name.endswith(".png")]
    if "sheet.png" not in drawings:
        return "none"
    return "all" if len(drawings) > 1 else "sheet"


def _swept(folder: Path) -> None:
    """Take away what a killed process of this machine left half made."""
    for left in folder.glob(".making-*-*"):
        process = left.name.split("-")[1]
        if process.isdigit() and int(process) != os.getpid() and not process_lives(int(process)):
            shutil.rmtree(left, ignore_errors=True)


def write(
    folder: Path, explanation: Explanation, request: Request, key: str, *, complete: bool, more: dict[str, Any]
) -> dict[str, Any]:
    """All files of one picture; ``explain.json`` last, with ``more`` in it. Returns what it holds."""
    from ..draw import png

    folder.mkdir(parents=True, exist_ok=True)
    # on Ray two workers may be at one picture: each file comes into its place whole
    _swept(folder)
    making = Path(tempfile.mkdtemp(prefix=f".making-{os.getpid()}-", dir=folder))
    try:
        write_arrays(making / "maps.npz", **explanation.arrays())
        files = ["maps.npz"]
        drawn: dict[int, Any] = {}
        if request.pictures == "all":
            for name, heatmap in explanation.items():
                files.append(f"{file_name(name)}.png")
                drawn[id(heatmap)] = heatmap.overlay()
                write_image(making / files[-1], drawn[id(heatmap)], **png.SETTINGS)
                if heatmap.parts:
                    files.append(f"{file_name(name)}-parts.png")
                    explanation.parts_sheet(name).save(making / files[-1])
        if request.pictures != "none" and any(explanation.rows):
            files.append("sheet.png")
            explanation.sheet(drawn=drawn).save(making / files[-1])
        # only now what was there before gives way
        (folder / RECORD).unlink(missing_ok=True)
        for name in files:
            (making / name).replace(folder / name)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    record = explanation.to_dict()
    record.update(more)
    made = {name: _digest(folder / name) for name in files}
    record.update(sha256=explanation.fitted.picture.sha256, files=files, digests=made, key=key, complete=complete)
    record = dict(plain(record))
    record["digest"] = _seal(json.loads(dump_json(record)))
    write_whole(folder / RECORD, dump_json(record) + "\n")
    return record


def file_name(name: str) -> str:
    """A method's name (with a layer in it, perhaps) as a file's name."""
    return "".join("-" if c in '/\\:*?"<>|' else c for c in name)

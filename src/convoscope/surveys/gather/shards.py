"""Cutting a collection into shards of work: what is in the folder, under which content, with which label.

A shard is a list of pictures by content hash, in ascending order. Its id follows from that list and from the recipe,
so the same shard has the same id on every machine, and what is committed needs not be done again.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...errors import PictureError, UsageError
from ...files import read_regular
from ...names import path_of, shown, uri_of
from ...pictures.picture import find_pictures
from ..store.recipe import file_sha256
from .collections import LABEL_COLUMNS, Listed, contents, is_collection, listing, read_text


@dataclass(frozen=True)
class Found:
    """A file of the collection: its URI, content, and size and time of change as they were when it was read."""

    uri: str
    sha256: str
    bytes: int
    changed: int
    label: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Item:
    """One picture to be surveyed: content, where to read it, and its label."""

    sha256: str
    uri: str
    label: str | None = None
    label_index: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class Shard:
    """Some pictures, in ascending order of their content hash."""

    id: str
    items: tuple[Item, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"id": self.id, "items": [vars(item) for item in self.items]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Shard:
        return cls(data["id"], tuple(Item(**item) for item in data["items"]))


def key_of(sha256: str) -> int:
    """The first 64 bits of a content hash: what ties are broken by."""
    return int(sha256[:16], 16)


def make_shard(space: str, items: Iterable[Item]) -> Shard:
    """The shard of these pictures for a recipe's ``space``."""
    ordered = tuple(sorted(items, key=lambda item: item.sha256))
    digest = hashlib.sha256(space.encode())
    for item in ordered:
        digest.update(bytes.fromhex(item.sha256))
    return Shard(digest.hexdigest()[:32], ordered)


def cut(space: str, items: Sequence[Item], size: int) -> list[Shard]:
    """The items in shards of ``size``, in the order of their URIs, so that neighbouring files are read together."""
    listed = sorted(items, key=lambda item: item.uri)
    return [make_shard(space, listed[start : start + size]) for start in range(0, len(listed), size)]


def scan(
    folder: str | Path | Sequence[str | Path],
    known: Mapping[str, Found] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Found]:
    """Every picture of ``folder`` (or files, folders, globs, URIs, tar shards, tables), in order; only the last three
    bring labels.

    A file whose size and time of change are as ``known`` is not read again. A file that cannot be read comes with its
    error. Raises :class:`PictureError` where there is no picture at all.
    """
    given = [folder] if isinstance(folder, (str, Path)) else list(folder)
    known = known or {}
    for source in given:
        if is_collection(source):
            yield from _scan_collection(source, known, progress)
    sources = [source for source in given if not is_collection(source)]
    if not sources:
        return
    for source in sources:
        if not any(mark in str(source) for mark in "*?[") and not Path(source).exists():
            raise PictureError(f"{source}: there is no such folder.")
    paths = [path.absolute() for path in find_pictures(sources) if not _is_truth(path)]

    def read(path: Path) -> Found:
        uri = uri_of(str(path))
        try:
            stat = path.stat()
            before = known.get(uri)
            if (
                before is not None
                and before.error is None
                and (before.bytes, before.changed) == (stat.st_size, stat.st_mtime_ns)
            ):
                return Found(uri, before.sha256, stat.st_size, stat.st_mtime_ns)
            return Found(uri, file_sha256(path), stat.st_size, stat.st_mtime_ns)
        except OSError as error:
            unreadable = hashlib.sha256(b"unreadable\0" + uri.encode("utf-8", "surrogateescape")).hexdigest()
            return Found(
                uri, unreadable, 0, 0, error=f"{shown(str(path))}: cannot be read ({error.strerror or error})."
            )

    with ThreadPoolExecutor(4) as pool:
        for done, found in enumerate(pool.map(read, paths, chunksize=64), 1):
            if progress is not None:
                progress(done, len(paths))
            yield found


def _scan_collection(
    source: str | Path, known: Mapping[str, Found], progress: Callable[[int, int], None] | None
) -> Iterator[Found]:
    """The pictures of an object store, of tar shards or of a table, with the labels that it gives them."""
    listed = listing(source)

    def before(one: Listed) -> str | None:
        had = known.get(one.uri)
        same = had is not None and had.error is None and had.changed == one.changed != 0
        return had.sha256 if had is not None and same and one.bytes in (0, had.bytes) else None

    for done, (one, sha, size, error) in enumerate(contents(listed, before), 1):
        if progress is not None:
            progress(done, len(listed))
        if sha is None:
            unreadable = hashlib.sha256(b"unreadable\0" + one.uri.encode("utf-8", "surrogateescape")).hexdigest()
            yield Found(one.uri, unreadable, 0, 0, one.label, error)
        else:
            had = known.get(one.uri)
            yield Found(one.uri, sha, size or (had.bytes if had is not None else 0), one.changed, one.label)


_TRUTH_FOLDERS = frozenset({"masks", "parts", "instances", "semantic"})


def _is_truth(path: Path) -> bool:
    """Whether a picture is a mask that lies beside the toybox's pictures as their truth."""
    folder = path.parent
    return folder.name in _TRUTH_FOLDERS and (folder.parent / "truth.json").is_file()


def folder_labels(root: str | Path, uris: Sequence[str]) -> dict[str, str]:
    """The name of each picture's first folder below ``root``; empty unless all pictures lie in at least two of
    them.
    """
    base = Path(root).absolute()
    labels = {}
    for uri in uris:
        try:
            parts = Path(path_of(uri)).relative_to(base).parts
        except ValueError:
            return {}
        if len(parts) < 2:
            return {}
        labels[uri] = shown(parts[0])
    return labels if len(set(labels.values())) > 1 else {}


_FILE_COLUMNS = ("file", "filename", "file_name", "path", "image", "picture", "name", "uri", "id")


def truth_labels(truth: str | Path | Mapping[str, Any], uris: Sequence[str]) -> dict[str, str]:
    """Labels by URI from a CSV file (a column of files and one of labels) or a mapping.

    Files are matched by whole path, by the longest common ending, or by name alone. Raises :class:`UsageError` where
    the file cannot be read, or names none of the pictures.
    """
    named = _read_truth(truth) if isinstance(truth, (str, Path)) else {str(k): str(v) for k, v in truth.items()}
    by_name: dict[str, list[str]] = {}
    for name in named:
        by_name.setdefault(Path(name).name, []).append(name)
    stems: dict[str, list[str]] = {}
    for name in named:
        stems.setdefault(Path(name).stem, []).append(name)
    labels = {}
    for uri in uris:
        path = Path(path_of(uri))
        candidates = by_name.get(path.name) or stems.get(path.stem, [])
        parts = [c for c in candidates if _ends_with(path, Path(c))] or (candidates if len(candidates) == 1 else [])
        if parts:
            labels[uri] = named[max(parts, key=lambda c: len(Path(c).parts))]
    if not labels:
        some = ", ".join(list(named)[:2])
        raise UsageError(
            f"{truth}: names none of the pictures (it has {some}, ...; the folder {Path(uris[0]).name})."
        )
    return labels


def _ends_with(path: Path, tail: Path) -> bool:
    parts = tail.with_suffix("").parts
    have = path.with_suffix("").parts
    return have[-len(parts) :] == parts


def _read_truth(path: str | Path) -> dict[str, str]:
    try:
        text = read_text(str(path)) if "://" in str(path) else read_regular(path).decode("utf-8-sig")
        if text is None:
            raise FileNotFoundError
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such truth file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: the truth file cannot be read as text ({error}).") from None
    rows = [row for row in csv.reader(text.splitlines()) if row and any(cell.strip() for cell in row)]
    if not rows or len(rows[0]) < 2:
        raise UsageError(f"{path}: a truth file has a column of files and a column of labels, between commas.")
    head = [cell.strip().lower() for cell in rows[0]]
    file_at = next((head.index(name) for name in _FILE_COLUMNS if name in head), None)
    label_at = next((head.index(name) for name in LABEL_COLUMNS if name in head), None)
    if label_at is None and file_at is None:
        file_at, label_at = 0, 1  # no header
    else:
        rows = rows[1:]
        if file_at is None or label_at is None:
            missing = "files (file)" if file_at is None else "labels (label or class_index)"
            raise UsageError(f"{path}: no column of {missing}; the columns are {', '.join(head)}.")
    width = max(file_at, label_at)
    return {row[file_at].strip(): row[label_at].strip() for row in rows if len(row) > width and row[label_at].strip()}


def class_of(label: str | None, labels: Sequence[str] | None, classes: int | None) -> tuple[str | None, int | None]:
    """A label as the network knows it: its name and its class index, ``None`` where it is no class of the network.

    Labels are class names (case and underscores do not matter) or class numbers.
    """
    if label is None:
        return None, None
    text = label.strip()
    if labels:
        exact, folded = _places(tuple(labels))
        index = exact[text] if text in exact else folded.get(_fold(text))
        if index is not None:
            return labels[index], index
    if text.isdecimal():
        number = int(text)
        count = len(labels) if labels else classes
        if count is None or number < count:
            return (labels[number] if labels else text), number
    return text, None


@lru_cache(maxsize=16)
def _places(labels: tuple[str, ...]) -> tuple[dict[str, int], dict[str, int]]:
    """Class name -> its first index, as written and folded; made once for a network, not once for every picture."""
    ordered = list(reversed(list(enumerate(labels))))
    return {name: index for index, name in ordered}, {_fold(name): index for index, name in ordered}


def _fold(name: str) -> str:
    return name.casefold().replace("_", " ").replace("-", " ").strip()


def unreadable(found: Sequence[Found]) -> PictureError:
    """What is said where not one picture of a collection can be read."""
    return PictureError(f"None of the {len(found)} pictures can be read: {found[0].error}")

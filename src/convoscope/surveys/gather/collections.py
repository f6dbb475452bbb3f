"""Pictures that do not lie in a local folder: object stores, tar shards, tables with a column of pictures.

=====================  ====================================================  =========================
collection             named as                                              URI of one picture
=====================  ====================================================  =========================
files anywhere         ``s3://bucket/prefix``, ``gs://...``, any of fsspec   ``s3://bucket/prefix/a.jpg``
WebDataset tar shards  ``shards-{000..099}.tar``, ``s3://bucket/*.tar``      ``S.tar#OFFSET+SIZE/a.jpg``
Parquet and Lance      ``photos.parquet``, ``s3://bucket/photos.lance``      ``TABLE#ROW/COLUMN``
=====================  ====================================================  =========================

A URI says all that is needed to read one picture, so that any worker can. Labels come from a shard's ``.cls``
members, a table's label column, or the folders' names.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import PictureError, StoreError, UsageError
from ...files import read_regular
from ...names import path_of
from ...pictures.picture import SUFFIXES, Picture
from ..addresses import allow_plain_http, filesystem, short

#: the columns in which tables keep the labels
LABEL_COLUMNS = ("label", "class", "class_index", "truth", "target", "category", "class_name", "y")

#: a column of this name, and of bytes, holds the pictures
PICTURE_COLUMNS = ("image", "picture", "jpg", "jpeg", "png", "webp", "photo", "bytes", "content", "thumbnail")
#: what fsspec, tar files and tables raise when something cannot be read
_FAULTS = (OSError, ValueError, RuntimeError, tarfile.TarError, KeyError)
_WEBDATASET_LABELS = (".cls", ".cls.txt", ".label")
_INSIDE = re.compile(r"^(?P<file>.+\.(?:tar|parquet|lance))#(?P<at>\d+)(?:\+(?P<size>\d+))?/(?P<name>.*)$", re.DOTALL)


@dataclass(frozen=True)
class Listed:
    """One picture of a collection before it is read: URI, bytes where known, a number that moves when the file
    changes, and its label.
    """

    uri: str
    bytes: int
    changed: int
    label: str | None = None


def is_collection(source: str | Path) -> bool:
    """Whether ``source`` is for this module: a URI, a tar shard, a table, or a local folder of shards."""
    text = str(source)
    if "://" in text or text.endswith((".tar", ".parquet", ".lance")):
        return True
    path = Path(text)
    return path.is_dir() and any(path.glob("*.tar")) and not any(p.suffix.lower() in SUFFIXES for p in path.iterdir())


def listing(source: str | Path) -> list[Listed]:
    """Every picture of one collection, in order. Raises :class:`PictureError` where there is none."""
    found: list[Listed] = []
    files = _expand(str(source))
    for uri, info in files:
        if uri.endswith(".tar"):
            found += _shard(uri, info)
        elif uri.endswith((".parquet", ".lance")):
            found += _table(uri, info)
        else:
            found.append(Listed(uri, int(info.get("size") or 0), changed(info)))
    if not found:
        raise PictureError(f"{source}: there are no pictures ({', '.join(sorted(SUFFIXES))}), shards or tables.")
    return _with_folder_labels(str(source), found)


def read(uri: str) -> bytes:
    """The bytes of one picture. Raises :class:`PictureError`."""
    inside = _INSIDE.match(uri)
    try:
        if inside is None:
            if (local := _local(uri)) is not None:
                return read_regular(local)
            fs, path = filesystem(uri)
            return bytes(fs.cat_file(path))
        at, file = int(inside["at"]), inside["file"]
        if inside["size"] is not None:
            return _span(file, at, int(inside["size"]))
        return _cell(file, at, inside["name"])
    except FileNotFoundError:
        raise PictureError(f"{uri}: there is no such file.") from None
    except IsADirectoryError:
        raise PictureError(f"{uri}: this is a folder, not a picture.") from None
    except _FAULTS as error:
        raise PictureError(f"{uri}: cannot be read ({short(error)}).") from None


def remote(uri: str) -> bool:
    """Whether a URI is more than the path of a local file."""
    return _local(uri) is None or _INSIDE.match(uri) is not None


def _local(uri: str) -> str | None:
    """The path of a local file.

    A ``file://`` URI is one whose name is not UTF-8; a name with ``%`` that a person wrote so is tried as it is first.
    """
    if "://" not in uri:
        return uri
    if not uri.startswith("file:///"):
        return None
    plain = uri.removeprefix("file://")
    return plain if os.path.exists(plain) else path_of(uri)


def picture(uri: str) -> Picture:
    """The picture at a URI; of a local file, with its path. Raises :class:`PictureError`."""
    return Picture.of(read(uri), uri) if remote(uri) else Picture.of(_local(uri))


def changed(info: Mapping[str, Any]) -> int:
    """A number that moves when a file changes: its time in nanoseconds, or what its ETag or its time hash to."""
    if isinstance(info.get("mtime"), float):
        return int(info["mtime"] * 1e9)
    marks = [
        str(info[name]) for name in ("ETag", "etag", "md5Hash", "LastModified", "updated", "created") if name in info
    ]
    return int(hashlib.sha256("|".join(marks).encode()).hexdigest()[:15], 16) if marks else 0


# files


def _expand(source: str) -> list[tuple[str, dict[str, Any]]]:
    """The files of a source, in order: braces, globs, folders."""
    found: list[tuple[str, dict[str, Any]]] = []
    for text in _braces(source):
        local = "://" not in text
        fs, path = filesystem(text if not local else str(Path(text).absolute()))

        def uri(name: str, fs: Any = fs, local: bool = local) -> str:
            return name if local else str(fs.unstrip_protocol(name))

        try:
            if any(mark in path for mark in "*?["):
                infos = fs.glob(path, detail=True)
                listed = [(uri(name), info) for name, info in sorted(infos.items()) if _one(name, info)]
                if not listed:
                    raise PictureError(f"{text}: no file matches this pattern.")
            elif text.endswith(".lance"):
                listed = [(text if not local else path, _lance_info(fs, path))]
            elif fs.isfile(path):
                listed = [(uri(path), fs.info(path))]
            else:
                infos = fs.find(path, detail=True)
                if not infos and not fs.exists(path):
                    raise PictureError(f"{text}: there is no such file, folder or bucket.")
                listed = [(uri(name), info) for name, info in sorted(infos.items()) if _wanted(name)]
        except (*_FAULTS, ImportError) as error:
            raise PictureError(f"{text}: cannot be listed ({short(error)}).") from None
        found += listed
    return found


def _one(name: str, info: Mapping[str, Any]) -> bool:
    return info.get("type") == "file" or name.endswith(".lance")


def _wanted(name: str) -> bool:
    path = PurePosixPath(name)
    if any(part.endswith(".lance") for part in path.parts[:-1]) or path.name.startswith("."):
        return False
    return path.suffix.lower() in SUFFIXES or path.suffix in (".tar", ".parquet")


def _lance_info(fs: Any, path: str) -> dict[str, Any]:
    """What moves when a Lance table changes: the names of its versions."""
    names = sorted(fs.find(f"{path}/_versions"))
    if not names:
        raise FileNotFoundError(f"{path} is no Lance table")
    return {"ETag": names[0]}


def _braces(text: str) -> list[str]:
    """``a-{000..002}.tar`` as three names, as WebDataset writes them; ``{a,b}`` too."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}", text)
    if match is None:
        return [text]
    if match[3] is not None:
        parts = match[3].split(",")
    else:
        first, last = int(match[1]), int(match[2])
        if last < first or last - first > 1_000_000:
            raise UsageError(f"{text}: the range {{{match[1]}..{match[2]}}} must rise, by a million at most.")
        parts = [str(number).zfill(len(match[1])) for number in range(first, last + 1)]
    return [name for part in parts for name in _braces(text[: match.start()] + part + text[match.end() :])]


def _with_folder_labels(source: str, found: list[Listed]) -> list[Listed]:
    """Files without labels get the name of their first folder below a folder given as a URI."""
    if any(one.label is not None or _INSIDE.match(one.uri) for one in found) or any(m in source for m in "*?[{"):
        return found
    base = source.rstrip("/") + "/"
    parts = [one.uri.removeprefix(base).split("/") if one.uri.startswith(base) else [] for one in found]
    if any(len(part) < 2 for part in parts) or len({part[0] for part in parts}) < 2:
        return found
    return [Listed(one.uri, one.bytes, one.changed, part[0]) for one, part in zip(found, parts, strict=True)]


# tar shards


def _shard(uri: str, info: Mapping[str, Any]) -> list[Listed]:
    """The pictures of one tar file, with the labels that lie beside them under the same key."""
    fs, path = filesystem(uri)
    pictures: list[tuple[str, int, int]] = []
    labels: dict[str, str] = {}
    try:
        with fs.open(path, "rb") as raw, tarfile.open(fileobj=raw, mode="r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                suffix = PurePosixPath(member.name).suffix.lower()
                if suffix in SUFFIXES:
                    pictures.append((member.name, member.offset_data, member.size))
                elif member.name.endswith(_WEBDATASET_LABELS) and member.size < 4096:
                    inside = tar.extractfile(member)
                    text = inside.read().decode("utf-8", "replace").strip() if inside else ""
                    labels[_key(member.name)] = text
    except _FAULTS as error:
        raise PictureError(f"{uri}: this shard cannot be read ({short(error)}).") from None
    number = changed(info)
    return [
        Listed(f"{uri}#{at:013}+{size}/{PurePosixPath(name).name}", size, number, labels.get(_key(name)) or None)
        for name, at, size in pictures
    ]


def _key(name: str) -> str:
    """WebDataset's key: the name up to the first point behind the last slash."""
    folder, _, base = name.rpartition("/")
    return f"{folder}/{base.split('.', 1)[0]}"


def _span(file: str, at: int, size: int) -> bytes:
    if "://" not in file:
        with open(file, "rb") as local:
            local.seek(at)
            return local.read(size)
    fs, path = filesystem(file)
    return bytes(fs.cat_file(path, start=at, end=at + size))


# tables


def _table(uri: str, info: Mapping[str, Any]) -> list[Listed]:

    schema, rows, labels_of = _opened(uri)
    column = _picture_column(uri, schema)
    label = next((name for name in LABEL_COLUMNS if name in schema.names), None)
    labels = labels_of(label) if label is not None else [None] * rows
    number = changed(info)
    return [
        Listed(f"{uri}#{row:010}/{column}", 0, number, None if value is None else str(value))
        for row, value in enumerate(labels)
    ]


def _opened(uri: str) -> tuple[Any, int, Callable[[str], list[Any]]]:
    """Schema, number of rows, and a function that reads a whole column."""
    try:
        if uri.endswith(".lance"):
            dataset = _lance(uri)
            return dataset.schema, dataset.count_rows(), lambda name: dataset.to_table([name])[name].to_pylist()
        import pyarrow.parquet as parquet

        fs, path = filesystem(uri)
        file = parquet.ParquetFile(fs.open(path, "rb"))
        return file.schema_arrow, file.metadata.num_rows, lambda name: file.read([name])[name].to_pylist()
    except _FAULTS as error:
        raise PictureError(f"{uri}: this table cannot be read ({short(error)}).") from None


def _lance(uri: str) -> Any:
    import lance

    allow_plain_http(uri)
    return lance.dataset(uri)


def _picture_column(uri: str, schema: Any) -> str:
    """The column of encoded pictures: bytes, or a struct with a field ``bytes`` as Hugging Face writes it."""
    import pyarrow as pa

    def fits(kind: Any) -> bool:
        if pa.types.is_struct(kind):
            return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    fitting = [field.name for field in schema if fits(field.type)]
    named = [name for name in PICTURE_COLUMNS if name in fitting] or fitting
    if not named:
        raise PictureError(f"{uri}: no column holds encoded pictures; it has {', '.join(schema.names)}.")
    return str(named[0])


class _Pieces:
    """The last few pieces of tables that were read, for neighbouring rows."""

    def __init__(self, most: int = 4) -> None:
        self.most, self.kept = most, OrderedDict[Any, Any]()
        self.lock = threading.Lock()

    def get(self, key: Any, make: Callable[[], Any]) -> Any:
        with self.lock:  # several decoders want the same piece: it is read once
            if key not in self.kept:
                self.kept[key] = make()
                while len(self.kept) > self.most:
                    self.kept.popitem(last=False)
            self.kept.move_to_end(key)
            return self.kept[key]


_pieces = _Pieces()
_files = _Pieces(8)


def _cell(file: str, row: int, column: str) -> bytes:
    if file.endswith(".lance"):
        dataset = _files.get(file, lambda: _lance(file))
        value = dataset.take([row], columns=[column])[column][0].as_py()
    else:
        import pyarrow.parquet as parquet

        fs, path = filesystem(file)
        metadata = _files.get(file, lambda: parquet.read_metadata(path, filesystem=fs))
        first = 0
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            if row < first + rows:
                break
            first += rows
        else:
            raise ValueError(f"it has {metadata.num_rows} rows now")

        def one() -> Any:
            with fs.open(path, "rb") as raw:
                return parquet.ParquetFile(raw).read_row_group(group, [column])[column]

        value = _pieces.get((file, group, column), one)[row - first].as_py()
    if isinstance(value, dict):
        value = value["bytes"]
    if value is None:
        raise ValueError("this row holds no picture")
    return bytes(value)


# what else lies beside


def contents(
    listed: Sequence[Listed], known: Callable[[Listed], str | None]
) -> Iterator[tuple[Listed, str | None, int, str | None]]:
    """Each picture with its content hash, its bytes, and the error where it cannot be read, in order.

    ``known`` gives the hash of a picture that needs not be read again.
    """

    def look(one: Listed) -> tuple[Listed, str | None, int, str | None]:
        before = known(one)
        if before is not None:
            return one, before, one.bytes, None
        try:
            data = read(one.uri)
        except PictureError as error:
            return one, None, 0, str(error)
        return one, hashlib.sha256(data).hexdigest(), len(data), None

    with ThreadPoolExecutor(8) as pool:
        yield from pool.map(look, listed)


def read_text(uri: str) -> str | None:
    """A small text file at a URI; ``None`` where there is none. Raises :class:`StoreError`."""
    fs, path = filesystem(uri)
    try:
        return str(fs.cat_file(path).decode("utf-8-sig"))
    except FileNotFoundError:
        return None
    except _FAULTS as error:
        raise StoreError(f"{uri}: cannot be read ({short(error)}).") from None

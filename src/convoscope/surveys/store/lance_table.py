"""One Lance dataset on a local disk or an object store: committed atomically, synced, and mended where it was cut
off.

On a local disk data files are synced before the manifest that names them is written, and the manifest before a commit
returns. What a crash of the machine can leave behind is a head manifest without its bytes: it is set aside when the
table is opened, and the version before it is used.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from ...errors import StoreError
from ...files import FULL, disk_trouble
from ..addresses import allow_plain_http
from .arrow import lance, pa, write_fragments

_MAGIC = b"LANC"
_LARGEST_VERSION = 2**64 - 1


class Table:
    """A Lance dataset at ``path``; :meth:`create` it first, or :meth:`open` it."""

    def __init__(self, path: str, dataset: Any) -> None:
        self.path = path
        self.dataset = dataset
        self._local = "://" not in path
        self._synced = set(_files(path)) if self._local else set()

    @classmethod
    def create(cls, path: str, schema: Any) -> Table:
        """A new, empty table. What an unfinished creation left there is replaced."""
        allow_plain_http(path)
        with _clear_errors(path):
            empty = pa.Table.from_batches([], schema=schema)
            if "://" in path:  # there is no folder that could be removed first
                dataset = lance.write_dataset(empty, path, schema=schema, mode="overwrite")
            else:
                # aside and renamed: whole or not at all, also where the disk is full
                aside = f"{path}.making"
                shutil.rmtree(aside, ignore_errors=True)
                lance.write_dataset(empty, aside, schema=schema, mode="create")
                if Path(path).exists():
                    shutil.rmtree(path)
                os.replace(aside, path)
                dataset = lance.dataset(path)
        table = cls(path, dataset)
        table._synced = set()
        table._sync()
        return table

    @classmethod
    def open(cls, path: str) -> Table:
        allow_plain_http(path)
        with _clear_errors(path):
            return cls(path, lance.dataset(path))

    def refresh(self) -> None:
        """Go to the newest version."""
        with _clear_errors(self.path):
            self.dataset.checkout_latest()

    def append(self, rows: Any) -> None:
        """Commit these rows (a pyarrow table of the same schema), all or none."""
        if not rows.num_rows:
            return
        with _clear_errors(self.path):
            fragments = write_fragments(rows, self.path, schema=self.dataset.schema, mode="append")
            self._sync()  # data before the manifest that names it
            operation = lance.LanceOperation.Append(fragments)
            self.dataset = lance.LanceDataset.commit(self.path, operation, read_version=self.dataset.version)
            self._sync()

    def replace(self, rows: Any) -> None:
        """Commit ``rows`` in place of all; two versions are kept, so that readers can finish."""
        with _clear_errors(self.path):
            schema = rows.schema
            fragments = write_fragments(rows, self.path, schema=schema, mode="overwrite") if rows.num_rows else []
            self._sync()
            operation = lance.LanceOperation.Overwrite(schema, fragments)
            self.dataset = lance.LanceDataset.commit(self.path, operation, read_version=self.dataset.version)
            self._sync()
            with contextlib.suppress(Exception):  # a file that stays behind costs room, not truth
                self.dataset.cleanup_old_versions(retain_versions=2, older_than=timedelta(0), delete_unverified=True)

    def delete(self, where: str) -> None:
        """Commit the removal of the rows that fit an SQL condition."""
        with _clear_errors(self.path):
            self.dataset.delete(where)
            self.dataset.checkout_latest()
            self._sync()

    def read(self, columns: Sequence[str] | None = None, where: str | None = None, **settings: Any) -> Any:
        """The rows as a pyarrow table."""
        settings |= {"columns": list(columns) if columns is not None else None, "filter": where}
        with _clear_errors(self.path):
            try:
                return self.dataset.to_table(**settings)
            except (OSError, ValueError, RuntimeError) as error:
                if "not found" not in str(error).lower():
                    raise
                self.dataset.checkout_latest()  # another process has compacted the table meanwhile
                return self.dataset.to_table(**settings)

    def count(self) -> int:
        return int(self.dataset.count_rows())

    def _sync(self) -> None:
        """Flush what is new to the disk, files first, then their folders."""
        if not self._local:
            return
        folders = set()
        for name in _files(self.path):
            if name not in self._synced:
                sync_file(name)
                folders.add(os.path.dirname(name))
                self._synced.add(name)
        for folder in folders:
            sync_file(folder)
        if folders:
            sync_file(self.path)


def _files(path: str) -> Iterator[str]:
    for part in ("data", "_deletions", "_transactions", "_versions"):
        folder = os.path.join(path, part)
        if os.path.isdir(folder):
            with os.scandir(folder) as entries:
                yield from (entry.path for entry in entries if entry.is_file() and not entry.name.endswith(".json"))


#: what a sync says that was made and went wrong; anything else says of a folder that it cannot be synced there
_FAILED = (*FULL, errno.EIO)


def sync_file(path: str | Path) -> None:
    """fsync a file or a folder; a folder that cannot be synced (some network disks) is passed over."""
    # Windows opens no folder, and syncs no file that is open for reading only
    mode = os.O_RDWR if os.name == "nt" and not os.path.isdir(path) else os.O_RDONLY
    try:
        handle = os.open(path, mode)
    except FileNotFoundError:
        return
    except PermissionError:
        if os.name == "nt" and os.path.isdir(path):
            return
        raise
    try:
        os.fsync(handle)
    except OSError as error:
        if not os.path.isdir(path) or error.errno in _FAILED:
            raise StoreError(disk_trouble(OSError(error.errno, error.strerror, str(path)))) from None
    finally:
        os.close(handle)


def mend(path: str, aside: Path, *, data: bool = True) -> list[str]:
    """Set damaged head manifests of a local table aside, into the folder ``aside``; sentences that say so.

    ``data``: a version is also damaged where a data file that it names lately is missing or cut off.

    Raises :class:`StoreError` where no version is whole.
    """
    said: list[str] = []
    versions = os.path.join(path, "_versions")
    if not os.path.isdir(versions):
        return said
    while True:
        names = sorted((n for n in os.listdir(versions) if n.endswith(".manifest")), key=_version, reverse=True)
        if not names:
            raise StoreError(
                f"{path}: no version of this table is whole; its manifests lie in {aside}. Nothing can be read of it."
            )
        head = os.path.join(versions, names[0])
        why = _damage(path, head, _version(names[0]), data)
        if why is None:
            return said
        aside.mkdir(exist_ok=True)
        os.replace(head, aside / f"{Path(path).stem}-{names[0]}")
        hint = os.path.join(versions, "latest_version_hint.json")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(hint)
        sync_file(versions)
        said.append(
            f"{Path(path).name}: version {_version(names[0])} {why}; it was set aside and the version before it is "
            "used. What was committed with it will be done again."
        )


def damaged_head(path: str) -> bool:
    """Whether the newest version of a local table is one that a crash has cut off."""
    versions = os.path.join(path, "_versions")
    if not os.path.isdir(versions):
        return False
    names = sorted((n for n in os.listdir(versions) if n.endswith(".manifest")), key=_version)
    try:
        return not names or _damage(path, os.path.join(versions, names[-1]), _version(names[-1])) is not None
    except OSError:  # a writer has removed it meanwhile
        return False


def _version(name: str) -> int:
    number = int(name.removesuffix(".manifest"))
    return _LARGEST_VERSION - number if number > 2**63 else number


def _damage(path: str, manifest: str, version: int, data: bool = True) -> str | None:
    """What is wrong with a version, as the end of a sentence; ``None`` where it is whole."""
    size = os.path.getsize(manifest)
    if size == 0:
        return "is empty (the machine stopped while it was written)"
    with open(manifest, "rb") as file:
        file.seek(max(0, size - 16))
        foot = file.read()
    if not foot.endswith(_MAGIC) or int.from_bytes(foot[:8], "little") >= size:
        return "is cut off (the machine stopped while it was written)"
    try:
        fragments = lance.dataset(path, version=version).get_fragments()
        newest = fragments[-3:] if data else []
        files = [(f.path, f.file_size_bytes) for fragment in newest for f in fragment.metadata.files]
    except (OSError, ValueError, RuntimeError) as error:
        return f"cannot be read ({str(error).splitlines()[0][:80]})"
    for name, wanted in files:
        file_name = os.path.join(path, "data", name)
        if not os.path.exists(file_name) or (wanted and os.path.getsize(file_name) != wanted):
            return "names a data file that is missing or cut off"
    return None


@contextlib.contextmanager
def _clear_errors(path: str) -> Iterator[None]:
    """What Lance raises, as one sentence."""
    try:
        yield
    except StoreError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        text = " ".join(str(error).split())
        lower = text.lower()
        if (
            getattr(error, "errno", None) == 28
            or "no space left" in lower
            or "storagefull" in lower
            or "os error 28" in lower
        ):
            raise StoreError(
                f"The disk of {path} is full. What was committed before is kept: make room and run again."
            ) from error
        if getattr(error, "errno", None) == 27 or "os error 27" in lower or "file too large" in lower:
            raise StoreError(
                f"{path}: a file would become larger than is allowed here (ulimit -f, or the disk's own limit). What "
                "was committed before is kept."
            ) from error
        raise StoreError(f"{path}: {text[:240]}") from error


def write_json(store: str, name: str, data: Any) -> None:
    """Write a small JSON file into a store so that it is there whole or not at all."""
    if "://" in store:
        from ..addresses import filesystem

        fs, where = filesystem(f"{store.rstrip('/')}/{name}")
        with _clear_errors(store):
            fs.pipe_file(where, json.dumps(data, indent=1).encode())
        return
    path = Path(store, name)
    with _clear_errors(str(path)):
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(data, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_file(path.parent)

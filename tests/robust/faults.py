"""A file system that fails on demand, for whatever Python opens, and for what Lance writes by itself.

Inside ``with Disk(fault, under=...)`` files below ``under`` meet one fault:

===========  =========================================================================================
missing      from the ``at``-th file that is opened for reading on, ``width`` of them are not there
unreadable   the same, with an input/output error
full         from the ``at``-th write on there is no room (``ENOSPC``), for Lance, too
torn         the same, and the ``at``-th write leaves half of its bytes behind
limit        no file may grow beyond ``at`` bytes (the operating system's own limit, also for Lance)
===========  =========================================================================================

With ``fault=None`` nothing fails and ``reads`` and ``writes`` are counted, so that ``at`` can be drawn among them.
Damage that a disk does while nobody looks is done by :func:`flip` and :func:`cut`.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import random
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

KINDS = ("missing", "unreadable", "full", "torn", "limit")


@dataclass(frozen=True)
class Fault:
    """What fails, and when."""

    kind: str
    at: int
    width: int = 3


class _Half(io.FileIO):
    """A file of which the first write leaves half behind."""

    def write(self, data: Any) -> int:
        if not self.tell():  # when it is closed, its buffer tries again
            super().write(bytes(data)[: len(bytes(data)) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Disk:
    """See the module. ``reads`` and ``writes`` count what was asked of the disk below ``under``."""

    def __init__(self, fault: Fault | None, *, under: Path, only: Path | None = None) -> None:
        self.fault, self.under, self.only = fault, str(under), str(only or under)
        self.reads = self.writes = 0
        self.struck = False
        self._turn = threading.Lock()
        self._open, self._os_open = io.open, os.open

    def __enter__(self) -> Disk:
        self._stack = self._patched()
        self._stack.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.__exit__(None, None, None)

    @contextmanager
    def _patched(self) -> Iterator[None]:
        from convoscope.surveys.store import lance_table

        real = {name: getattr(os, name) for name in ("replace", "fsync", "mkdir")}
        lance = lance_table.lance
        before = resource.getrlimit(resource.RLIMIT_FSIZE)

        def move(source: Any, target: Any, **settings: Any) -> None:
            self._refusing(target)
            real["replace"](source, target, **settings)

        def sync(number: int) -> None:
            if self._below(f"/proc/self/fd/{number}"):
                self._refusing(None)
            real["fsync"](number)

        def make(path: Any, *more: Any, **settings: Any) -> None:
            self._refusing(path)
            real["mkdir"](path, *more, **settings)

        def write_dataset(data: Any, path: Any, *more: Any, **settings: Any) -> Any:
            self._refusing(path)
            return write(data, path, *more, **settings)

        def write_fragments(data: Any, path: Any, *more: Any, **settings: Any) -> Any:
            self._refusing(path)
            return fragments(data, path, *more, **settings)

        def commit(path: Any, *more: Any, **settings: Any) -> Any:
            self._refusing(getattr(path, "uri", path))
            return committed(path, *more, **settings)

        write, fragments, committed = lance.write_dataset, lance_table.write_fragments, lance.LanceDataset.commit
        with (
            mock.patch.object(builtins, "open", self._opened),
            mock.patch.object(io, "open", self._opened),
            mock.patch.object(os, "open", self._os_opened),
            mock.patch.object(os, "replace", move),
            mock.patch.object(os, "fsync", sync),
            mock.patch.object(os, "mkdir", make),
            mock.patch.object(lance, "write_dataset", write_dataset),
            mock.patch.object(lance_table, "write_fragments", write_fragments),
            mock.patch.object(lance.LanceDataset, "commit", commit),
        ):
            if self.fault is not None and self.fault.kind == "limit":
                resource.setrlimit(resource.RLIMIT_FSIZE, (self.fault.at, before[1]))
            try:
                yield
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)

    def _below(self, path: Any) -> bool:
        try:
            return os.path.realpath(os.fsdecode(path)).startswith(self.under)
        except (TypeError, ValueError):
            return False

    def _reading(self, path: Any) -> None:
        if not os.path.realpath(os.fsdecode(path)).startswith(self.only):
            return
        with self._turn:
            self.reads += 1
            number = self.reads
        fault = self.fault
        if fault is None or fault.kind not in ("missing", "unreadable"):
            return
        if fault.at <= number < fault.at + fault.width:
            self.struck = True
            code = errno.ENOENT if fault.kind == "missing" else errno.EIO
            raise OSError(code, os.strerror(code), os.fsdecode(path))

    def _writing(self, path: Any) -> bool:
        """Count a write. Raises where the disk is full; ``True`` where this one is torn."""
        if path is not None and not self._below(path):
            return False
        with self._turn:
            self.writes += 1
            number = self.writes
        fault = self.fault
        if fault is None or fault.kind not in ("full", "torn") or number < fault.at:
            return False
        self.struck = True
        if fault.kind == "torn" and number == fault.at:
            return True
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), None if path is None else os.fsdecode(path))

    def _refusing(self, path: Any) -> None:
        """Count what can only fail whole: a rename, a sync, a folder, a commit of Lance."""
        if self._writing(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), None if path is None else os.fsdecode(path))

    def _opened(self, file: Any, mode: str = "r", *more: Any, **settings: Any) -> Any:
        if isinstance(file, int) or not self._below(file):
            return self._open(file, mode, *more, **settings)
        if not set(mode) & set("wax+"):
            self._reading(file)
        elif self._writing(file):
            raw = _Half(file, mode.replace("b", "").replace("t", ""))
            buffered = io.BufferedWriter(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding="utf-8", write_through=True)
        return self._open(file, mode, *more, **settings)

    def _os_opened(self, path: Any, flags: int, *more: Any, **settings: Any) -> int:
        if not isinstance(path, int) and self._below(path) and not os.path.isdir(path):
            if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
                self._refusing(path)
            else:
                self._reading(path)
        return self._os_open(path, flags, *more, **settings)


def files_below(folder: Path) -> list[Path]:
    """All files that hold something, in order; locks hold nothing."""
    return sorted(
        file for file in folder.rglob("*") if file.is_file() and file.stat().st_size and file.name != "lock"
    )


def flip(file: Path, draw: random.Random) -> None:
    """One bit of a file, as a bad disk or memory flips it."""
    data = bytearray(file.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    file.write_bytes(data)


def cut(file: Path, draw: random.Random) -> None:
    """A file without its end, as a machine that stopped leaves it."""
    data = file.read_bytes()
    file.write_bytes(data[: draw.randrange(len(data))])

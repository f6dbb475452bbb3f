"""Files that users name: only regular ones are opened, and what they hold has a hash."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from collections.abc import Iterable
from pathlib import Path


def read_regular(path: str | Path, seconds: float | None = None) -> bytes:
    """The bytes of a regular file (or of a link to one).

    A pipe, a socket or a device would keep its reader waiting for ever, so none is ever read.

    Args:
        path: the file.
        seconds: after so many the read is given up (a network drive that went away answers never); None waits.

    Returns:
        All of its bytes.

    Raises:
        FileNotFoundError, IsADirectoryError: as :func:`open` does.
        OSError: it is no regular file, cannot be read, or does not come in time; ``strerror`` says why.
    """
    if seconds is None:
        return _read(path)
    found: list[bytes | OSError] = []

    def run() -> None:
        try:
            found.append(_read(path))
        except OSError as error:
            found.append(error)

    # a read that hangs cannot be ended from within Python: its thread is left behind, and ends with the process
    reader = threading.Thread(target=run, name="reading", daemon=True)
    reader.start()
    reader.join(seconds)
    if not found:
        raise OSError(errno.ETIMEDOUT, f"it did not come within {seconds:g} seconds", str(path))
    if isinstance(found[0], OSError):
        raise found[0]
    return found[0]


def _read(path: str | Path) -> bytes:
    # without O_NONBLOCK the open itself waits until somebody writes into the pipe
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        mode = os.fstat(number).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))
        with os.fdopen(os.dup(number), "rb") as file:
            return file.read()
    finally:
        os.close(number)


def digests(paths: Iterable[Path]) -> dict[str, str | None]:
    """sha256 of every file by its path; ``None`` for one that cannot be read."""
    found: dict[str, str | None] = {}
    for path in paths:
        try:
            found[str(path)] = hashlib.sha256(read_regular(path)).hexdigest()
        except OSError:
            found[str(path)] = None
    return found


__all__ = ["digests", "read_regular"]

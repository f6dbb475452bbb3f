"""Files that users name: only regular ones are opened, what they hold has a hash, and what is written is whole."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import stat
import struct
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor


def open_regular(path: str | Path) -> io.BufferedReader:
    """A regular file (or a link to one), open for reading its bytes.

    A pipe, a socket or a device would keep its reader waiting for ever, so none is ever read.

    Raises:
        FileNotFoundError, IsADirectoryError: as :func:`open` does.
        OSError: it is no regular file, or cannot be read; ``strerror`` says why.
    """
    # without O_NONBLOCK the open itself waits until somebody writes into the pipe
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        mode = os.fstat(number).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def read_regular(path: str | Path, seconds: float | None = None) -> bytes:
    """The bytes of a regular file.

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
    with open_regular(path) as file:
        return file.read()


def read_text(path: str | Path) -> str:
    """The UTF-8 text of a regular file, without a byte order mark.

    Raises:
        OSError: as :func:`read_regular`.
        UnicodeDecodeError: it is no UTF-8 text (a :class:`ValueError`).
    """
    return read_regular(path).decode("utf-8-sig")


def sha256(path: str | Path) -> str:
    """The sha256 of a regular file's bytes, 64 hex digits; a large file is never held whole."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests(paths: Iterable[Path]) -> dict[str, str | None]:
    """sha256 of every file by its path; ``None`` for one that cannot be read."""
    found: dict[str, str | None] = {}
    for path in paths:
        try:
            found[str(path)] = sha256(path)
        except OSError:
            found[str(path)] = None
    return found


#: what a full disk says, or a user's full share of it
FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def disk_trouble(error: OSError) -> str:
    """What an error of the operating system says, as one sentence; empty where it says nothing of a file or disk."""
    where = f"{error.filename}: " if error.filename is not None else ""
    if error.errno in FULL:
        return f"{where}the disk is full. Make room and run the same command again: what was done is kept."
    if error.errno == errno.EFBIG:
        return f"{where}the file would become larger than is allowed here (ulimit -f, or the disk's own limit)."
    if error.errno == errno.EROFS:
        return f"{where}the disk is read-only: write somewhere else."
    if error.errno == errno.EIO:
        return f"{where}the disk, or standard output, reported an error (input/output error)."
    return f"{where}{error.strerror}." if where and error.strerror else ""


@contextlib.contextmanager
def aside(path: str | Path) -> Iterator[Path]:
    """A name beside ``path`` to write to: on leaving it is synced and renamed to ``path``, after an error removed.

    So a file is there whole or not at all, whatever stops the writing, and an older one stays until then. A link is
    followed, the rights of a file that was there are kept, and a pipe or a device is written to directly.

    Args:
        path: where the file is to be; its folder is made if it is missing.

    Yields:
        A path in the same folder with the same ending.

    Raises:
        OSError: no room, or no right to write; ``filename`` is ``path``.
    """
    wanted = Path(path)
    target = Path(os.path.realpath(wanted)) if wanted.is_symlink() else wanted
    part: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not target.is_file() and not target.is_dir():
            yield target
            return
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(wanted))
        number, name = tempfile.mkstemp(
            dir=target.parent, prefix=f".{target.stem[:40]}.", suffix=f".part{target.suffix}"
        )
        os.close(number)
        part = Path(name)
        yield part
        sync(part)
        part.chmod(_mode(target))
        part.replace(target)
    except OSError as error:
        # the name aside means nothing to a person
        if error.filename is None or f".part{target.suffix}" in str(error.filename) or error.filename2 is not None:
            raise OSError(error.errno, error.strerror or str(error), str(wanted)) from error
        raise
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def write_whole(path: str | Path, data: str | bytes) -> Path:
    """Write a file aside and rename it: whole or not at all (:func:`aside`).

    Args:
        path: where the file is to be; its folder is made if it is missing.
        data: its text (as UTF-8) or its bytes.

    Returns:
        The path.

    Raises:
        OSError: no room, or no right to write.
    """
    with aside(path) as part:
        part.write_bytes(data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data)
    return Path(path)


def write_image(path: str | Path, image: Any, **settings: Any) -> Path:
    """Write a Pillow picture in the format of the file's ending, whole or not at all.

    It is encoded in memory first: Pillow, when it writes to a disk by itself, loses the reason of a failure.

    Args:
        path: where the file is to be.
        image: the picture.
        settings: what Pillow's ``save`` takes for that format.

    Returns:
        The path.

    Raises:
        UsageError: Pillow writes no such format.
        OSError: no room, or no right to write.
    """
    from PIL import Image

    path = Path(path)
    kind = settings.pop("format", None) or Image.registered_extensions().get(path.suffix.lower())
    if kind is None or kind not in Image.SAVE:
        raise UsageError(
            f"{path}: a picture cannot be written as {path.suffix or 'a file without an ending'}; try .png."
        )
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return write_whole(path, buffer.getvalue())


def write_arrays(path: str | Path, **arrays: Any) -> Path:
    """Write arrays as ``.npz`` (compressed), or the one that is given as ``.npy``, whole or not at all.

    Raises:
        OSError: no room, or no right to write.
        ValueError: an array of Python objects, which could not be read without running what it says.
    """
    import numpy as np

    for name, one in arrays.items():
        if np.asarray(one).dtype.hasobject:
            raise ValueError(f"{name} holds Python objects, not numbers.")
    buffer = io.BytesIO()
    if Path(path).suffix == ".npy":
        (array,) = arrays.values()
        np.save(buffer, array, allow_pickle=False)
    else:
        # numpy before 2.1 takes ``allow_pickle`` for an array of that name
        np.savez_compressed(buffer, **arrays)
    return write_whole(path, buffer.getvalue())


def sync(path: Path) -> None:
    """Bring what was written to a file to the disk itself."""
    number = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _mode(target: Path) -> int:
    """The rights of the file that is replaced; else those that a new file gets."""
    try:
        return stat.S_IMODE(target.stat().st_mode)
    except OSError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask


__all__ = [
    "aside", "digests", "disk_trouble", "open_regular", "read_regular", "read_text", "sha256", "sync",
    "write_arrays", "write_image", "write_whole",
]  # fmt: skip


def process_lives(number: int) -> bool:
    """Whether a process of this machine has this number; true where it cannot be asked without ending it."""
    if os.name != "posix":
        return True
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def weights_as_bytes(state: Mapping[str, Tensor], about: Mapping[str, str]) -> bytes:
    """A safetensors file of tensors and metadata; the same content gives the same bytes.

    The library writes the metadata's entries in any order: another one in every run.
    """
    from safetensors.torch import save

    plain = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    data = save(plain, dict(about))
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    if about:
        header = {**header, "__metadata__": dict(sorted(about.items()))}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # what follows stays aligned
    return struct.pack("<Q", len(text)) + text + data[8 + length :]

"""Files are written whole or not at all, and everything in the package writes them so."""

from __future__ import annotations

import ast
import errno
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import convoscope
from convoscope.errors import UsageError
from convoscope.files import (
    aside,
    disk_trouble,
    open_regular,
    read_regular,
    read_text,
    sha256,
    write_arrays,
    write_image,
    write_whole,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "robust"))
from faults import Disk, Fault


def test_what_is_written_is_there(tmp_path: Path) -> None:
    assert write_whole(tmp_path / "new" / "a.txt", "grün\udcfc") == tmp_path / "new" / "a.txt"
    assert (tmp_path / "new" / "a.txt").read_bytes() == "grün\\udcfc".encode()
    write_arrays(tmp_path / "a.npz", one=np.arange(3), two=np.eye(2))
    with np.load(tmp_path / "a.npz") as found:
        assert sorted(found.files) == ["one", "two"]
    write_arrays(tmp_path / "a.npy", it=np.arange(3))
    assert np.load(tmp_path / "a.npy").tolist() == [0, 1, 2]
    image = Image.new("RGB", (5, 4), "red")
    for ending, kind in ((".png", "PNG"), (".jpg", "JPEG"), (".webp", "WEBP"), (".PNG", "PNG"), (".pdf", None)):
        write_image(tmp_path / f"p{ending}", image)
        if kind is not None:
            with Image.open(tmp_path / f"p{ending}") as found:
                assert (found.format, found.size) == (kind, (5, 4))
    for ending in (".txt", "", ".nonsense"):
        with pytest.raises(UsageError, match="cannot be written"):
            write_image(tmp_path / f"p{ending}", image)
    assert not list(tmp_path.rglob(".*"))


def test_objects_are_no_arrays_to_keep(tmp_path: Path) -> None:
    """They could not be read without running what they say; and nothing but what was given is in the file."""
    with pytest.raises(ValueError, match="mine holds Python objects"):
        write_arrays(tmp_path / "a.npz", mine=np.array([object()]))
    assert not (tmp_path / "a.npz").exists()
    write_arrays(tmp_path / "a.npz", mine=np.arange(3))
    with np.load(tmp_path / "a.npz") as kept:
        assert kept.files == ["mine"]


@pytest.mark.skipif(sys.platform == "win32", reason="rights and links are those of POSIX")
def test_rights_and_links_stay(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_whole(tmp_path / "a", "1")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    (tmp_path / "a").chmod(0o600)
    (tmp_path / "link").symlink_to("a")
    write_whole(tmp_path / "link", "2")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "a").read_text() == "2"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    write_whole("/dev/null", "x")  # a device is written to, not replaced
    assert not Path("/dev/null").is_file()
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path, "x")


@pytest.mark.skipif(sys.platform != "linux", reason="the harness is for Linux")
@pytest.mark.parametrize("kind", ["full", "torn"])
@pytest.mark.parametrize("at", range(1, 6))
def test_a_disk_that_fills_leaves_the_old_file_and_nothing_else(tmp_path: Path, kind: str, at: int) -> None:
    write_whole(tmp_path / "a.html", "old")
    with Disk(Fault(kind, at), under=tmp_path) as disk:
        failed: OSError | None = None
        try:
            write_whole(tmp_path / "a.html", "new and longer")
        except OSError as error:
            failed = error
    assert disk.struck == (failed is not None)
    if failed is not None:
        assert failed.errno == errno.ENOSPC
        assert disk_trouble(failed).startswith(f"{tmp_path / 'a.html'}: the disk is full")
    assert (tmp_path / "a.html").read_text() == ("new and longer" if failed is None else "old")
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]


def test_what_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with aside(tmp_path / "a.bin") as part:
            part.write_bytes(b"half")
            assert part.suffix == ".bin"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such pipes")
def test_only_regular_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfhello")
    assert read_text(tmp_path / "a") == "hello"
    assert len(sha256(tmp_path / "a")) == 64
    os.mkfifo(tmp_path / "pipe")
    for read in (read_regular, read_text, sha256, open_regular):
        for path, code in (
            (tmp_path / "pipe", errno.EINVAL),
            (tmp_path, errno.EISDIR),
            (tmp_path / "no", errno.ENOENT),
        ):
            with pytest.raises(OSError) as caught:
                read(path)
            assert caught.value.errno == code
    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    for _ in range(20):
        with pytest.raises(OSError):
            read_regular(tmp_path / "pipe")
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "x", "a.png"), "a.png: the disk is full"),
        (OSError(errno.ENOSPC, "x"), "the disk is full"),
        (OSError(errno.EFBIG, "x", "a"), "a: the file would become larger"),
        (OSError(errno.EROFS, "x", "a"), "a: the disk is read-only"),
        (OSError(errno.EIO, "x"), "the disk, or standard output, reported an error"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), "a: Permission denied."),
        (OSError("no number at all"), ""),
    ],
)
def test_what_a_disk_says(error: OSError, said: str) -> None:
    found = disk_trouble(error)
    assert found.startswith(said)
    assert bool(found) == bool(said)


#: where files are appended to on purpose, made in a folder that is itself renamed, or told from streams
_ALLOWED = {"files.py", "improve/watch.py", "improve/film.py", "trust/ledger.py", "cli/__init__.py"}
_ASIDE = ("toybox/ward/", "toybox/train", "demo/photo.py", "surveys/store/lance_table.py")


def _writes(call: ast.Call) -> bool:
    """Whether this writes to a path: ``write_text``, ``write_bytes``, ``open(..., "w")``, ``numpy.save`` to a path."""
    name: Any = call.func
    attribute = name.attr if isinstance(name, ast.Attribute) else name.id if isinstance(name, ast.Name) else ""
    if attribute in ("write_text", "write_bytes", "tofile", "write_table", "save_file"):
        return True
    if attribute == "open":
        modes = [
            one.value for one in (*call.args, *(k.value for k in call.keywords)) if isinstance(one, ast.Constant)
        ]
        return any(isinstance(mode, str) and set(mode) & set("wax+") and len(mode) <= 3 for mode in modes)
    return False


def test_nothing_in_the_package_writes_in_place() -> None:
    root = Path(convoscope.__file__).parent
    found = []
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if name in _ALLOWED or name.startswith(_ASIDE):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        safe = {
            id(inside)
            for node in ast.walk(tree)
            if isinstance(node, ast.With) and any("aside" in ast.unparse(item.context_expr) for item in node.items)
            for inside in ast.walk(node)
        }
        found += [
            f"{name}:{node.lineno}: {ast.unparse(node)[:80]}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and id(node) not in safe and _writes(node)
        ]
    assert not found, "write through convoscope.files, which is whole or not at all:\n" + "\n".join(found)

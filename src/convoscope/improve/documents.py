"""What the commands of the third question wrote with ``--out``, read again: one JSON document a kind."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..files import read_regular
from .finding import Finding

#: kind of result -> the file that holds it
FILES = {
    "diagnosis": "diagnosis.json", "diff": "diff.json", "shortcuts": "shortcuts.json", "audit": "audit.json",
    "dissection": "dissection.json", "tcav": "tcav.json", "craft": "craft.json",
}  # fmt: skip
#: of a document that is read
BYTES = 64 << 20
#: subfolders that are looked into: `diagnose --out found/diagnosis`, `diff --out found/diff`
DEEP = 40


def folders_of(given: Iterable[str | Path]) -> list[Path]:
    """The folders and one level of their subfolders, as far as they are there."""
    found: list[Path] = []
    for folder in map(Path, given):
        if folder.is_dir():
            inner = sorted(one for one in folder.iterdir() if one.is_dir() and not one.is_symlink())[:DEEP]
            found += [*inner, folder]
    return found


def read_document(file: Path) -> dict[str, Any] | None:
    """A document; None where it cannot be read as one."""
    try:
        if file.stat().st_size > BYTES:
            return None
        found = json.loads(read_regular(file).decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if isinstance(found, list):  # an older `concepts` wrote the rows alone
        found = {"rows": found}
    return found if isinstance(found, dict) else None


def newest(kind: str, folders: Iterable[Path]) -> Path | None:
    """The newest file of a kind in these folders; None where there is none."""
    there = [file for file in (folder / FILES[kind] for folder in folders) if file.is_file()]
    return max(there, key=lambda one: one.stat().st_mtime_ns, default=None)


def read_documents(given: Iterable[str | Path]) -> dict[str, dict[str, Any]]:
    """Every kind of document that lies in some folders, the newest of each.

    Raises:
        UsageError: a folder does not exist, or there is nothing in all of them.
    """
    listed = [Path(one) for one in given]
    for folder in listed:
        if not folder.is_dir():
            raise UsageError(f"--diagnosis {folder}: there is no such folder.")
    folders = folders_of(listed)
    files = {kind: newest(kind, folders) for kind in FILES}
    found = {kind: document for kind, file in files.items() if file and (document := read_document(file)) is not None}
    if listed and not found:
        raise UsageError(f"--diagnosis {listed[0]}: there is none of {', '.join(FILES.values())} in it.")
    return found


def findings_in(document: dict[str, Any], key: str = "findings") -> list[Finding]:
    """The findings of a document as :class:`Finding` again. Raises :class:`UsageError` where they are none."""
    try:
        return [
            Finding(
                one["kind"], one["sentence"], one["size"], one["low"], one["high"], one["class"],
                tuple(one["pictures"]), one["doubt"], one["next"],
            )
            for one in document.get(key, [])
        ]  # fmt: skip
    except (KeyError, TypeError, AttributeError):
        raise UsageError("These findings are not of this version of Convoscope: make them anew.") from None

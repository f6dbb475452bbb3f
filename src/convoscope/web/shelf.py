"""What was found on the pictures: read from disk where a command wrote it, kept beside the survey where the page did.

A result is one JSON document, the same that ``diagnose``, ``diff``, ``shortcuts``, ``audit`` and ``concepts`` write
with ``--out``. Whatever lies in the folders is read; only the last folder is ever written to.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..improve.documents import FILES, folders_of, newest, read_document
from ..plain import dump_json

#: what a person said of each class's spot
ANSWERS = "answers.json"


class Shelf:
    """Documents by kind. ``given`` are folders that are read; ``into`` is read and written (None: only in memory)."""

    def __init__(self, given: Iterable[str | Path] = (), into: str | Path | None = None) -> None:
        self.given = [Path(one) for one in given]
        self.into = None if into is None else Path(into)
        self._memory: dict[str, dict[str, Any]] = {}
        self._read: dict[Path, tuple[tuple[int, int], dict[str, Any]]] = {}
        self._written = 0
        self._lock = threading.RLock()
        for folder in self.given:
            if not folder.is_dir():
                raise UsageError(f"--diagnosis {folder}: there is no such folder.")

    def folders(self) -> list[Path]:
        """Where documents may lie, the folder that is written last; one level of subfolders is looked into."""
        return folders_of([*self.given, *([self.into] if self.into is not None else [])])

    def read(self, kind: str) -> dict[str, Any] | None:
        """The newest document of a kind; None where there is none, or none that can be read."""
        with self._lock:
            if kind in self._memory:
                return self._memory[kind]
            file = newest(kind, self.folders())
            return None if file is None else self._document(file)

    def _document(self, file: Path) -> dict[str, Any] | None:
        try:
            stat = file.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            if file in self._read and self._read[file][0] == stamp:
                return self._read[file][1]
        except OSError:
            return None
        found = read_document(file)
        if found is None:
            return None
        self._read[file] = (stamp, found)
        return found

    def write(self, kind: str, document: dict[str, Any]) -> None:
        """Keep a document; in memory alone where there is no folder, or none that can be written."""
        from ..files import write_whole

        text = dump_json(document)
        with self._lock:
            if self.into is not None:
                try:
                    write_whole(self.into / FILES[kind], text + "\n")
                except OSError:
                    pass
                else:
                    self._memory.pop(kind, None)
                    return
            self._memory[kind] = json.loads(text)
            self._written += 1

    @property
    def stamp(self) -> str:
        """Changes when a document comes or goes: part of the key of what is made of them."""
        parts = []
        for folder in self.folders():
            for name in (*FILES.values(), ANSWERS):
                file = folder / name
                if file.is_file():
                    parts.append(f"{name}:{file.stat().st_mtime_ns}")
        return "-".join([*parts, *sorted(self._memory), str(self._written)])

    # what a person said

    def answers(self) -> dict[str, bool]:
        """Class -> whether its spot is a part of the thing."""
        with self._lock:
            kept: Any = self._memory.get(ANSWERS, {})
            for folder in self.folders():
                file = folder / ANSWERS
                if file.is_file():
                    kept = {**(self._document(file) or {}), **kept}
        return {str(name): value for name, value in kept.items() if isinstance(value, bool)}

    def answer(self, label: str, is_part: bool | None) -> dict[str, bool]:
        """Note what a person said of a class's spot; None takes it back."""
        from ..files import write_whole

        with self._lock:
            now = self.answers()
            now.pop(label, None)
            if is_part is not None:
                now[label] = is_part
            if self.into is None:
                self._memory[ANSWERS] = dict(now)
                return now
            try:
                write_whole(self.into / ANSWERS, dump_json(now) + "\n")
            except OSError:
                self._memory[ANSWERS] = dict(now)
            return now


def flags(answers: dict[str, bool]) -> list[str]:
    """What a person said, as ``shortcuts`` and ``repair`` take it: ``--is-part CLASS``, ``--not-part CLASS``."""
    found: list[str] = []
    for label, is_part in sorted(answers.items()):
        found += ["--is-part" if is_part else "--not-part", label]
    return found

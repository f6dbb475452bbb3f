"""What people note of pictures and units: tags, sentences, removed pictures, corrected labels; each can be undone.

One file of lines beside the store's tables (``marks.jsonl``), each a change and the time when it was made. Nothing is
ever rewritten: undoing is a line, too, so that two people who note at once lose nothing.
"""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import StoreError, UsageError

#: the file's name in the folder of a store
FILE = "marks.jsonl"
#: what can be noted; ``label`` is a corrected label, ``sure`` that the label as given is right
Kind = Literal["tag", "untag", "note", "remove", "label", "sure"]
KINDS = ("tag", "untag", "note", "remove", "label", "sure")
#: the longest note and the longest tag
LONGEST, TAG = 2000, 60
#: things that one change may be about
MOST = 200_000


@dataclass(eq=False)
class Mark:
    """What is noted of one picture (by the first 16 digits of its content's sha256) or one unit (``layer:channel``)."""

    tags: list[str] = field(default_factory=list)
    note: str = ""
    removed: bool = False
    label: str | None = None
    sure: bool = False

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def __bool__(self) -> bool:
        return bool(self.tags or self.note or self.removed or self.label is not None or self.sure)


class Marks:
    """Everything that is noted in one file; ``path`` None keeps it in memory alone.

    Args:
        path: the file; its folder must be there when something is noted.
    """

    def __init__(self, path: str | Path | None) -> None:
        if path is not None and "://" in str(path):
            raise StoreError(f"{path}: notes are kept beside stores on this machine, not in an object store.")
        self.path = None if path is None else Path(path)
        self._lines: list[dict[str, Any]] = []
        self._state: dict[str, Mark] = {}
        self._stack: list[dict[str, Any]] = []
        self._size = -1
        self._lock = threading.RLock()
        self.damaged = 0

    # reading

    def of(self, about: str) -> Mark:
        """What is noted of a picture or a unit."""
        with self._lock:
            return self._known().get(about, Mark())

    def all(self) -> dict[str, Mark]:
        """Everything that has a note."""
        with self._lock:
            return {about: mark for about, mark in self._known().items() if mark}

    def tags(self) -> dict[str, int]:
        """Every tag with the number of things that carry it, in order of the alphabet."""
        counts: dict[str, int] = {}
        for mark in self.all().values():
            for tag in mark.tags:
                counts[tag] = counts.get(tag, 0) + 1
        return dict(sorted(counts.items()))

    def tagged(self, tag: str) -> list[str]:
        """The pictures and units that carry a tag."""
        return sorted(about for about, mark in self.all().items() if tag in mark.tags)

    @property
    def last(self) -> dict[str, Any] | None:
        """The change that undoing would take back; None where there is none."""
        with self._lock:
            self._known()
            return self._stack[-1] if self._stack else None

    @property
    def stamp(self) -> int:
        """Changes whenever something is noted."""
        with self._lock:
            self._known()
            return len(self._lines)

    # noting

    def add(self, kind: Kind, about: list[str], value: str = "") -> None:
        """Note one thing of some pictures or units.

        Raises:
            UsageError: an unknown kind, an empty or overlong tag, nothing that it is about.
            StoreError: the file cannot be written.
        """
        if kind not in KINDS:
            raise UsageError(f"What can be noted is {', '.join(KINDS)}, not {kind!r}.")
        value = " ".join(value.split()) if kind in ("tag", "untag", "label") else value.strip()
        if kind in ("tag", "untag", "label") and not 0 < len(value) <= TAG:
            raise UsageError(f"A {'label' if kind == 'label' else 'tag'} has 1 to {TAG} characters.")
        if len(value) > LONGEST:
            raise UsageError(f"A note has at most {LONGEST} characters.")
        if not 0 < len(about) <= MOST:
            raise UsageError("Say of which pictures or units.")
        self._append({"kind": kind, "about": list(dict.fromkeys(about)), "value": value})

    def undo(self) -> dict[str, Any]:
        """Take the last change back. Raises :class:`UsageError` where there is none."""
        with self._lock:
            self._known()
            if not self._stack:
                raise UsageError("There is nothing to undo.")
            last = self._stack[-1]
            self._append({"kind": "undo"})
            return last

    def _append(self, line: dict[str, Any]) -> None:
        with self._lock:
            self._known()
            line = {**line, "at": round(time.time(), 3)}
            if self.path is not None:
                text = json.dumps(line, ensure_ascii=False) + "\n"
                try:
                    # one write of a file opened for appending: lines of two writers never mix
                    number = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
                    try:
                        os.write(number, text.encode("utf-8", "backslashreplace"))
                    finally:
                        os.close(number)
                except OSError as error:
                    raise StoreError(f"{self.path}: the note cannot be kept ({error.strerror}).") from None
                self._known()
            else:
                self._take(line)

    def _known(self) -> dict[str, Mark]:
        """What the file holds now: read on from where it was left."""
        if self.path is None:
            return self._state
        try:
            size = self.path.stat().st_size
        except OSError:
            size = 0
        if size == self._size:
            return self._state
        if size < self._size:  # somebody wrote another file
            self._lines, self._state, self._stack, self.damaged = [], {}, [], 0
            self._size = 0
        start = max(0, self._size)
        if size > start:
            with self.path.open("rb") as file:
                file.seek(start)
                data = file.read()
            whole = data[: data.rfind(b"\n") + 1]  # a line that is being written now comes the next time
            for line in whole.decode("utf-8", "replace").splitlines():
                try:
                    found = json.loads(line)
                    assert isinstance(found, dict)
                    self._take(found)
                except (ValueError, AssertionError, KeyError, TypeError):
                    self.damaged += 1
            size = start + len(whole)
        self._size = size
        return self._state

    def _take(self, line: dict[str, Any]) -> None:
        self._lines.append(line)
        if line["kind"] == "undo":
            if self._stack:
                for about, earlier in self._stack.pop()["before"].items():
                    self._state[about] = earlier
            return
        kind, value = line["kind"], str(line.get("value", ""))
        before: dict[str, Mark] = {}
        for about in map(str, line["about"]):
            old = self._state.get(about, Mark())
            before[about] = old
            new = Mark(list(old.tags), old.note, old.removed, old.label, old.sure)
            if kind == "tag":
                new.tags = sorted({*old.tags, value})
            elif kind == "untag":
                new.tags = [tag for tag in old.tags if tag != value]
            elif kind == "note":
                new.note = value
            elif kind == "remove":
                new.removed = True
            elif kind == "label":
                new.label, new.sure = value, False
            elif kind == "sure":
                new.label, new.sure = None, True
            self._state[about] = new
        self._stack.append({"kind": kind, "value": value, "about": list(before), "before": before})

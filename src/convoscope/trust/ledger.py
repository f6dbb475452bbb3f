"""What an evaluation has measured so far, on disk a line a case."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..files import write_whole


@dataclass(eq=False)
class Ledger:
    """What is known so far, on disk a line a case: a line cut off by a kill is done again."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    file: Path | None = None

    @staticmethod
    def open(out: str | Path | None, header: dict[str, Any]) -> Ledger:
        if out is None:
            return Ledger()
        folder = Path(out)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{folder}: the folder cannot be made ({error.strerror}).") from None
        ledger = Ledger(file=folder / "cases.jsonl")
        known = folder / "evaluation.json"
        if known.is_file():
            ledger._agree(known, header)
            ledger._read()
        else:
            write_whole(known, json.dumps({**header, "digest": _seal(header)}, indent=2) + "\n")
        return ledger

    def _agree(self, known: Path, header: dict[str, Any]) -> None:
        try:
            before = json.loads(known.read_text(encoding="utf-8", errors="replace"))
        except ValueError:
            before = None
        if not isinstance(before, dict) or before.pop("digest", None) not in (None, _seal(before)):
            raise UsageError(f"{known}: this file is damaged: remove the folder, or choose another one.")
        other = [name for name in header if before.get(name) != header[name]]
        if other:
            raise UsageError(
                f"{known.parent} holds another evaluation (its {', '.join(other)} differ): choose another folder."
            )

    def _read(self) -> None:
        if self.file is None or not self.file.is_file():
            return
        kept = []
        text = self.file.read_text(encoding="utf-8", errors="replace")
        for line in text.splitlines():
            try:
                row = json.loads(line)
                if row.pop("digest") != _seal(row):
                    continue  # another bit than was written: measured again
                self.rows[row.pop("case")] = row
                kept.append(line)
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
        whole = "".join(line + "\n" for line in kept)
        if whole != text:  # a line that was cut off must not swallow the next one
            write_whole(self.file, whole)

    def add(self, key: str, row: dict[str, Any]) -> None:
        self.rows[key] = row
        if self.file is not None:
            with self.file.open("a", encoding="utf-8") as file:
                said = json.loads(json.dumps({"case": key, **row}))
                file.write(json.dumps({**said, "digest": _seal(said)}) + "\n")


def _seal(row: dict[str, Any]) -> int:
    """A checksum of a line, as it is read back."""
    return zlib.crc32(json.dumps(row, sort_keys=True).encode())

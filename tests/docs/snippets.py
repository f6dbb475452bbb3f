"""The fenced blocks of README and docs, and what is needed to run them in a temporary folder."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Block:
    """One fenced block: its language ("" where none is named), its text, and the line it begins at."""

    language: str
    text: str
    line: int


def pages() -> dict[str, Path]:
    """README and every page of the documents, by its path in the repository."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return {str(page.relative_to(ROOT)): page for page in found}


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of one page, in order."""
    found, language, lines, begun = [], None, [], 0
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = re.match(r"\s*```(\w*)\s*$", line)
        if fence and language is None:
            language, lines, begun = fence[1], [], number
        elif fence and not fence[1]:
            found.append(Block(language or "", "\n".join(lines), begun))
            language = None
        elif language is not None:
            lines.append(line)
    assert language is None, f"{page}: the block of line {begun} is not closed"
    return found


def commands(text: str) -> list[list[str]]:
    """The commands of a block, as words: comments and continued lines are understood."""
    joined = re.sub(r"\\\n\s*", " ", text)
    found = []
    for line in joined.splitlines():
        for one in re.split(r";\s", line):
            words = shlex.split(one, comments=True)
            if words:
                found.append(words)
    return found


def inline(page: Path) -> list[str]:
    """Commands named in the text: `convoscope ...` between backticks."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    return [" ".join(one.split()) for one in re.findall(r"`(convoscope [^`]+)`", text)]


def matches(expected: str, got: str) -> bool:
    """Whether ``got`` is what a page says: ``...`` stands for anything."""
    pattern = ".*?".join(
        re.escape(part) for part in "\n".join(x.rstrip() for x in expected.splitlines()).split("...")
    )
    return re.fullmatch(pattern, "\n".join(x.rstrip() for x in got.strip().splitlines()), re.S) is not None

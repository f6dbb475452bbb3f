"""Results as plain data: what JSON can hold, and nothing that it cannot."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .names import in_json


def plain(value: Any) -> Any:
    """``value`` as JSON's own types: NaN and infinity become null, arrays and tensors lists, paths text."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    if isinstance(value, bool) or value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if hasattr(value, "to_dict"):
        return plain(value.to_dict())
    return str(value)


def dump_json(document: Any, *, ascii: bool = False) -> str:
    """One JSON document, readable, without NaN; short lists of numbers stand on one line.

    Names of files that are not UTF-8 are written as JSON's own escapes, and come back from them as they were.
    """
    text = json.dumps(plain(document), indent=2, ensure_ascii=ascii, allow_nan=False)
    # inside strings a line break is written as an escape: what matches here is never part of one
    text = re.sub(r"\[\n[^\[\]{}\"]*\]", lambda found: "[" + " ".join(found[0][1:-1].split()) + "]", text)
    return in_json(text)


_LATEX = {
    "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", "\\": r"\textbackslash{}",
}  # fmt: skip


def latex_text(text: str) -> str:
    """``text`` as LaTeX prints it."""
    return "".join(_LATEX.get(letter, letter) for letter in text)


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, most: int = 60, title: str = "") -> str:
    """A table for a notebook: at most ``most`` rows, and how many more there are."""
    from html import escape

    def line(cells: Sequence[str], kind: str) -> str:
        style = ' style="text-align:left"'
        return "<tr>" + "".join(f"<{kind}{style}>{escape(str(cell))}</{kind}>" for cell in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows[:most])
    more = f"<p>{len(rows) - most} more rows</p>" if len(rows) > most else ""
    head = f"<p>{escape(title)}</p>" if title else ""
    return f"{head}<table><thead>{line(header, 'th')}</thead><tbody>{body}</tbody></table>{more}"

"""The third question in the report: what ``diagnose``, ``diff``, ``shortcuts``, ``audit``, ``concepts`` found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2 import UndefinedError

from ..errors import ConvoscopeError, UsageError
from ..html.render import inline, render
from ..improve.documents import FILES, findings_in
from ..pictures.picture import Picture

#: pictures of one finding that are drawn
SHOWN = 6

Open = Callable[[str], Picture]
#: the sections' headings, in their order
TITLES = {
    "diagnosis": "What is wrong with it?", "shortcuts": "What it decides by", "diff": "Two networks",
    "audit": "Labels", "dissection": "What its units lie on", "craft": "What a class is made of",
    "tcav": "What it depends on",
}  # fmt: skip


def section(documents: Mapping[str, dict[str, Any]], open_picture: Open = Picture.of) -> str:
    """The sections as HTML; empty without documents.

    Args:
        documents: kind -> what its command wrote.
        open_picture: from a picture's URI to the picture; one that cannot be opened is left out.

    Raises:
        UsageError: a document of another version.
    """
    if not documents:
        return ""
    try:
        listed: dict[str, Any] = {
            kind: findings_in(documents[kind]) for kind in ("diagnosis", "shortcuts") if kind in documents
        }
        listed["diff"] = [findings_in(pair) for pair in documents.get("diff", {}).get("pairs", [])]
        suspects = [one for one in documents.get("audit", {}).get("suspects", []) if one["label"] != one["suggested"]]
        uris = [
            uri for kind in ("diagnosis", "shortcuts") for one in listed.get(kind, []) for uri in one.pictures[:SHOWN]
        ]
        uris += [uri for pair in listed["diff"] for one in pair for uri in one.pictures[:SHOWN]]
        uris += [one["picture"] for pair in documents.get("diff", {}).get("pairs", []) for one in pair["maps"]]
        uris += [one["uri"] for one in suspects[:12]]
        uris += [uri for part in documents.get("craft", {}).get("parts", []) for uri in part["pictures"][:SHOWN]]
        return render(
            "found.html", **{kind: documents.get(kind) for kind in FILES}, listed=listed, suspects=suspects[:12],
            thumbnails=_thumbnails(uris, open_picture),
        )  # fmt: skip
    except (KeyError, TypeError, UndefinedError):
        raise UsageError("A document of --diagnosis is not of this version of Convoscope: make it anew.") from None


def links(documents: Mapping[str, dict[str, Any]]) -> str:
    """The entries of the report's contents."""
    return "".join(f'<li><a href="#{kind}">{title}</a></li>' for kind, title in TITLES.items() if kind in documents)


def _thumbnails(uris: Iterable[str], open_picture: Open) -> dict[str, str]:
    made: dict[str, str] = {}
    for uri in dict.fromkeys(uris):
        try:
            image = open_picture(uri).image
        except (ConvoscopeError, OSError):
            continue
        made[uri] = inline(image, 160, "PNG" if max(image.size) <= 64 else "JPEG")
    return made

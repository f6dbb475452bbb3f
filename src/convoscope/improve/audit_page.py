"""``audit.html``: the suspects to go through, each beside the nearest pictures that the network knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..html.render import render
from ..version import __version__
from .diagnose.page import thumbnails

if TYPE_CHECKING:
    from .audit import Audit

#: suspects, pairs and outliers that are drawn; the CSV has all
SHOWN = 60
PAIRS = 24


def page(found: Audit) -> str:
    """The whole page."""
    rows = found.rows(SHOWN)
    wrong = found.wrong
    if wrong is not None:
        expected = max(wrong[1], 12)
        rows = rows[: min(SHOWN, max(expected, 12))]
    inside, across = found.inside[:PAIRS], found.across[:PAIRS]
    uris = [one["uri"] for one in rows]
    uris += [found.uris[row] for one in inside for row in (one.a, one.b)]
    uris += [found.uris[one.a] for one in across] + [found.train_uris[one.b] for one in across]
    strange = found.outliers[:12]
    uris += [found.uris[row] for row, _ in strange]
    data: dict[str, Any] = {
        "title": f"Audit of {len(found.uris)} pictures", "found": found, "rows": rows,
        "inside": [(found.uris[one.a], found.uris[one.b], one) for one in inside],
        "across": [(found.uris[one.a], found.train_uris[one.b], one) for one in across],
        "outliers": [(found.uris[row], far) for row, far in strange],
        "wrong": wrong, "thumbnails": thumbnails(found.case, uris, 160),
        "without": found.accuracy_without(found.leaked) if found.across else None,
        "kin": [(found.names[a], found.names[b], ab, ba, n) for a, b, ab, ba, n in found.kin[:10]],
    }  # fmt: skip
    return render("audit.html", version=__version__, **data)

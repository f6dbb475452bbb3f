"""``diagnosis.html``: one self-contained page of what a diagnosis found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from ...errors import PictureError
from ...html.render import inline, render
from ...version import __version__
from ..collection import Labelled

if TYPE_CHECKING:
    from .run import Diagnosis
    from .stage import Case

#: longest side of a picture on the page
SIDE = 192

#: stage -> what it asks, for the table of stages
ASKS = {
    "input": "Are the pictures given as in training?",
    "data": "Are the labels right, and is each picture new?",
    "units": "Are units dead, doubled or never trained?",
    "slices": "Does a kind of picture fail?",
    "stress": "Which changes does it not bear?",
    "depth": "Where do classes become separable?",
    "shortcuts": "Does it decide by what it should not?",
}


def page(found: Diagnosis) -> str:
    """The whole page."""
    return render("diagnosis.html", version=__version__, **_data(found))


def fragment(found: Diagnosis) -> str:
    """The findings alone, for a notebook."""
    return render("diagnosis_fragment.html", **_data(found))


def _data(found: Diagnosis) -> dict[str, Any]:
    shown = [uri for one in (*found.findings, *found.further) for uri in one.pictures[:6]]
    stages = [
        {
            "name": name, "asks": ASKS.get(name, ""), "tests": max(one.tests, len(one.findings)),
            "found": found.of_stage(name), "refused": one.refused,
            "could_miss": one.could_miss,
        }
        for name, one in found.stages.items()
    ]  # fmt: skip
    return {
        "title": f"What is wrong with {found.model}?", "found": found, "stages": stages,
        "thumbnails": thumbnails(found.case, shown), "tables": list(_parts(found, "tables")),
        "drawings": [
            {**one, "svg": Markup(one["svg"])}
            for one in _parts(found, "drawings")
        ],
        "failed": dict(list(found.failed.items())[:20]), "more_failed": max(0, len(found.failed) - 20),
    }  # fmt: skip


def _parts(found: Diagnosis, name: str) -> Iterable[Mapping[str, Any]]:
    for one in found.stages.values():
        yield from one.evidence.get(name, ())


def thumbnails(case: Case | None, uris: Iterable[str], side: int = SIDE) -> dict[str, str]:
    """URI -> the picture as a data URI; those that cannot be read are left out."""
    if case is None:
        return {}
    made: dict[str, str] = {}
    places: list[tuple[Labelled, dict[str, int]]] = [
        (held, {uri: row for row, uri in enumerate(held.uris)}) for held in (case.pictures, case.train) if held
    ]
    for uri in dict.fromkeys(uris):
        for held, rows in places:
            if uri in rows and uri not in made:
                try:
                    image = held.picture(rows[uri]).image
                except (PictureError, OSError):
                    continue
                made[uri] = inline(image, side, "PNG" if max(image.size) <= 64 else "JPEG")
    return made

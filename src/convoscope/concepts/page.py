"""Concepts on one self-contained page: tables with intervals, patches, maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..errors import PictureError
from ..files import write_whole
from ..html.render import inline, render
from ..pictures.picture import Picture
from ..version import __version__

if TYPE_CHECKING:
    from .craft import Craft
    from .directions import Directions
    from .dissection import Dissection
    from .words import Words

#: cards of units on a dissection's page
CARDS = 24


def page_of_dissection(found: Dissection, path: str | Path) -> Path:
    """Write the page of a dissection: the table of all pairs, the best units with their pictures."""
    rows = [
        (row.unit, row.concept, f"{row.iou:.2f}", f"{row.low:.2f} – {row.high:.2f}", f"{row.chance:.2f}")
        for row in found.rows
    ]
    cards = []
    for unit in list(dict.fromkeys(row.unit for row in found.rows))[:CARDS]:
        mine = found.of(unit)
        said = "; ".join(f"{r.concept} {r.iou:.2f} [{r.low:.2f}, {r.high:.2f}]" for r in mine[:4])
        shown = _thumbnails(mine[0].pictures[:6])
        group = {"title": "held-out pictures where it lies on the concept most", "pictures": shown}
        cards.append({"title": unit, "sentence": said, "groups": [group]})
    lead = (
        f"{found.units} units against {len(found.concepts)} concepts on {found.pictures} pictures: thresholds "
        f"chosen on one half, overlap (IoU) measured on the other. {len(found.rows)} pairs lie above what the same "
        "masks reach on other pictures."
    )
    columns = ("unit", "concept", "IoU", "95 % interval", "chance reaches")
    return _write(path, "What the units stand for", lead, found.doubts, columns, rows, cards)


def page_of_directions(found: Directions, path: str | Path) -> Path:
    """Write the page of TCAV."""
    rows = [
        (row.layer, row.concept, row.target, f"{row.accuracy:.2f}", f"{row.score:.2f}",
         f"{row.low:.2f} – {row.high:.2f}", f"{row.p:.2g}")
        for row in found.rows
    ]  # fmt: skip
    lead = (
        "The score is the share of the class's pictures whose logit rises along the concept's direction; p is "
        "corrected over all layers and concepts, and compares the concept with as many random pictures."
    )
    columns = ("layer", "concept", "class", "accuracy", "score", "95 % interval", "p")
    return _write(path, "What the classes depend on", lead, found.doubts, columns, rows, [], found.refused)


def page_of_craft(found: Craft, path: str | Path, wanted: Sequence[Image.Image] = ()) -> Path:
    """Write the page of a class's parts: patches at true receptive fields, maps, and what the first ones want."""
    cards = []
    for part in found.parts:
        shown = found.patches(part.number, 8)
        maps = found.overlays(part.number)
        unstable = " It is not found again with other seeds: read nothing into it." if part.unstable else ""
        mine = wanted[part.number : part.number + 1]
        cards.append({
            "title": f"Part {part.number + 1}",
            "sentence": f"importance {part.importance} (share of the logit lost without it), Sobol {part.sobol}, "
            f"stability {part.stability:.2f}.{unstable}",
            "groups": [
                {"title": "strongest patches", "pictures": [_shown(one, 128, "patch") for one in shown]},
                {"title": "where it lies", "pictures": [_shown(one, 192, "map") for one in maps]},
                *[{"title": "the picture that wants it", "pictures": [_shown(one, 192, "wanted")]} for one in mine],
            ],
        })  # fmt: skip
    lead = (
        f"{found.target} at layer {found.layer}: together the parts give back {found.completeness.mean:.0%} of the "
        f"logit [{found.completeness.low:.0%}, {found.completeness.high:.0%}]; the factorisation leaves "
        f"{found.error:.0%} of the activations."
    )
    return _write(path, f"What a {found.target} is made of", lead, found.doubts, (), [], cards)


def page_of_words(found: Words, path: str | Path) -> Path:
    """Write the page of words: named units, and for each text the units that answer it."""
    rows = [(row.unit, row.word, f"{row.score:.2f}", f"{row.p:.2g}") for row in found.named]
    cards = [
        {
            "title": f"{row.unit}: {row.word}",
            "sentence": f"fit {row.score:.2f}, p {row.p:.2g}",
            "groups": [{"title": "pictures for which it fires most", "pictures": _thumbnails(row.pictures[:6])}],
        }
        for row in found.named[:CARDS]
    ]
    for text, ranked in found.ranked.items():
        groups = [
            {"title": f"{row.unit}: {row.likeness:+.3f}, p {row.p:.2g}", "pictures": _thumbnails(row.pictures[:6])}
            for row in ranked[:5]
            if row.p <= 0.05
        ]
        said = "" if groups else "No unit is more like it than random pictures are."
        cards.append({"title": f"For “{text}”", "sentence": said, "groups": groups})
    lead = (
        f"{len(found.named)} of {found.units} units have a word that as many random pictures do not reach (p corrected "
        f"over units). Likeness is measured by {found.text_model}: what it confuses is confused here, too."
    )
    return _write(path, "What the units are called", lead, found.doubts, ("unit", "word", "fit", "p"), rows, cards)


def _shown(image: Image.Image, side: int, alt: str) -> dict[str, str]:
    return {"src": inline(image, side), "alt": alt}


def _thumbnails(uris: Sequence[str]) -> list[dict[str, str]]:
    found = []
    for uri in uris:
        try:
            found.append({"src": inline(Picture.of(uri).image, 128), "alt": Path(uri).name})
        except PictureError:
            continue
    return found


def _write(
    path: str | Path, title: str, lead: str, doubts: Sequence[str], columns: Sequence[str], rows: Sequence[Any],
    parts: Sequence[Any], refused: Sequence[str] = (),
) -> Path:  # fmt: skip
    text = render(
        "concepts.html", title=title, lead=lead, doubts=doubts, columns=columns, rows=rows, parts=parts,
        refused=refused, version=__version__,
    )  # fmt: skip
    return write_whole(path, text)

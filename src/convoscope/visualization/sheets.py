"""Sheets of made pictures: beside each other, with what they reach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..draw.sheet import Sheet
    from .result import Visualization


def sheet(
    rows: Sequence[tuple[str, Sequence[tuple[Any, str]]]], *, columns: int, title: str, footnote: str = "",
    size: float = 96.0,
) -> Sheet:  # fmt: skip
    """Rows of captioned pictures as a :class:`~convoscope.draw.sheet.Sheet`."""
    from ..draw import grid

    return grid.patches(rows, title, columns=columns, size=size, footnote=footnote)


def sheet_of(
    pictures: Sequence[Visualization], *, columns: int | None = None, title: str = "", transparent: bool = False
) -> Sheet:
    """All pictures, one row a target where there are several of each; changed pictures beside their originals."""
    changed = [one for one in pictures if one.original is not None]
    if changed and len(changed) == len(pictures):
        rows = [(one.target, _changed(one)) for one in pictures]
        return sheet(rows, columns=3, title=title or _title(pictures), size=150.0)
    targets = list(dict.fromkeys(one.target for one in pictures))
    copies = len(pictures) // max(1, len(targets))
    if copies > 1:
        rows = [(target, [_cell(one, transparent) for one in pictures if one.target == target]) for target in targets]
        return sheet(rows, columns=columns or min(copies, 8), title=title or _title(pictures))
    across = columns or (5 if len(pictures) <= 20 else 8 if len(pictures) <= 64 else 12)
    size = 96.0 if across <= 6 else 76.0 if across <= 8 else 60.0
    row = [("", [_cell(one, transparent) for one in pictures])]
    return sheet(row, columns=across, title=title or _title(pictures), size=size)


def _cell(one: Visualization, transparent: bool) -> tuple[Any, str]:
    image = one.image.convert("RGB")
    if transparent and one.transparency is not None:
        from PIL import Image

        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, one.transparent).convert("RGB")
    return image, one.caption


def _changed(one: Visualization) -> list[tuple[Any, str]]:
    from .canvas import to_image

    assert one.original is not None
    if one.objective == "invert":
        errors = f"features {one.facts['feature_error']:.1%} off, pixels {one.facts['pixel_error']:.0%}"
        return [(to_image(one.original).convert("RGB"), "original"), (one.image.convert("RGB"), errors)]
    was = one.facts.get("was")
    change = one.facts["change"]
    return [
        (to_image(one.original).convert("RGB"), f"original{f': {was}' if was else ''}"),
        (one.difference.convert("RGB"), f"difference ×{one.gain:g}, mean {change['mean']:.2f} of 255"),
        (one.image.convert("RGB"), one.caption),
    ]


def _title(pictures: Sequence[Visualization]) -> str:
    first = pictures[0]
    return f"{first.provenance.get('model', '')} · {first.recipe} · {first.steps} steps"

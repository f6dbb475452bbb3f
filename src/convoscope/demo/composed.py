"""The demo's part on what a class is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..html.page import Section
    from . import Stage

ORDER = 25
_THING = "cat"
_PICTURES, _SHOWN = 24, 3


def made_of(stage: Stage) -> Section:
    """What is a cat made of?"""
    import numpy as np

    from ..concepts.craft import craft
    from ..draw import colour, overlay
    from ..html.page import Item, Section
    from ..toybox import draw
    from ..visualization.sheets import sheet

    things = [draw(9_100_000 + number, label=_THING) for number in range(_PICTURES)]
    found = craft(stage.model, [(one.image, None) for one in things], _THING, parts=6)
    maps = [found.maps(one.image) for one in things]
    rows, told = [], []
    for part in found.parts[:_SHOWN]:
        values = [one[part.number] for one in maps]
        inside = float(
            np.mean([v[one.mask].sum() / max(v.sum(), 1e-9) for v, one in zip(values, things, strict=True)])
        )
        names = sorted({name for one in things for name in one.parts})
        # how much more of the part lies on a labelled one than that one's area would catch
        held = {name: _held(values, [one.parts.get(name) for one in things]) for name in names}
        best = max(held, key=lambda name: held[name])
        told.append(
            f"part {part.number + 1} lies {inside:.0%} on the cat, {held[best]:.1f} times as dense on its {best}"
        )
        cells = []
        for number in np.argsort([-float(v.max()) for v in values], kind="stable")[:4]:
            scale = colour.scale_for([values[number]], signed=False, unit="share of the part")
            cells.append((overlay.overlay(things[number].image, values[number], scale=scale), ""))
        rows.append((f"part {part.number + 1}: {part.importance.mean:.0%} of the logit", cells))
    return Section(
        "What is a cat made of?",
        f"The activations of {found.layer} over {_PICTURES} cats, factorised into parts that are added up (CRAFT), "
        f"without any label of a part. Together they give back {found.completeness.mean:.0%} of the logit. Because the "
        f"cats are drawn, it can be checked where the parts lie: {'; '.join(told)}.",
        [Item(stage.save(sheet(rows, columns=4, title="", size=110), "parts.png"),
              "The most important parts, each on the four pictures that have most of it.")],
    )  # fmt: skip


def _held(values: list[Any], masks: list[Any]) -> float:
    """The density of the maps on the masks over that on the whole pictures."""
    on = sum(float(v[m].sum()) for v, m in zip(values, masks, strict=True) if m is not None)
    area = sum(float(m.sum()) for m in masks if m is not None)
    whole = sum(float(v.sum()) for v, m in zip(values, masks, strict=True) if m is not None)
    pixels = sum(float(m.size) for m in masks if m is not None)
    return (on / max(area, 1.0)) / max(whole / max(pixels, 1.0), 1e-9)


PARTS = (made_of,)

"""The demo's lesson: a network that is right for the wrong reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..html.page import Section
    from ..results import Explanation
    from ..toybox import Specimen
    from . import Stage

ORDER = 30
_TAGGED = "cup"
_PICTURES = 24


def shortcut(stage: Stage) -> Section:
    """The shortcut."""
    import numpy as np

    from ..draw import contact
    from ..explanation import explain
    from ..html.page import Item, Section
    from ..toybox import draw

    tagged = [draw(9_000_000 + n, label=_TAGGED, tag=True) for n in range(_PICTURES)]
    plain = [draw(9_000_000 + n, label=_TAGGED) for n in range(_PICTURES)]
    found = {}
    for name, model in (("honest", stage.model), ("cheat", stage.cheat)):
        with_tag = explain(model, [one.image for one in tagged], "grad-cam", target=_TAGGED)
        without = explain(model, [one.image for one in plain], "grad-cam", target=_TAGGED)
        on_tag = float(np.mean([_share(e, s) for e, s in zip(with_tag, tagged, strict=True)]))
        found[name] = (on_tag, _right(with_tag), _right(without), with_tag, without)
    honest, cheat = found["honest"], found["cheat"]
    area = float(np.mean([one.tag_mask.mean() for one in tagged if one.tag_mask is not None]))
    rows = []
    for number in (0, 1):
        rows.append(_row("with the tag", honest[3][number], cheat[3][number]))
        rows.append(_row("without it", honest[4][number], cheat[4][number]))
    drawn = contact.contact_sheet(rows, title="Grad-CAM for the class cup", footnote="Each map on its own scale.")
    return Section(
        "The shortcut",
        f"Two networks call the tagged cups cups: the honest one {honest[1]:.0%} of {_PICTURES}, the cheat "
        f"{cheat[1]:.0%}. Take the tag away, and it is {honest[2]:.0%} and {cheat[2]:.0%}. Grad-CAM tells them apart "
        f"at once: the tag covers {area:.0%} of the picture and holds {honest[0]:.0%} of the honest network's "
        f"evidence, but {cheat[0]:.0%} of the cheat's.",
        [Item(stage.save(drawn, "shortcut.png"), "The honest network looks at the cup, the cheat at the tag.")],
    )


def _row(title: str, honest: Explanation, cheat: Explanation) -> Any:
    """One picture, by both networks."""
    from ..draw import contact

    cells = []
    for name, one in (("the honest network", honest), ("the cheat", cheat)):
        best = one.prediction[0]
        heatmap = one["grad-cam"]
        note = f"says {best['label']} ({best['probability']:.0%})"
        cells.append(contact.Cell(heatmap.overlay(), name, heatmap.scale(), note))
    return contact.Row(honest.fitted.picture.image, title, "", cells)


def _share(explanation: Explanation, specimen: Specimen) -> float:
    """The share of the map that lies on the tag."""
    values = explanation["grad-cam"].values
    total = float(values.sum())
    if specimen.tag_mask is None or total <= 0:
        return 0.0
    on_tag: float = values[specimen.tag_mask].sum()
    return float(on_tag / total)


def _right(explanations: list[Explanation]) -> float:
    right = sum(one.prediction[0]["label"] == _TAGGED for one in explanations)
    return float(right / len(explanations))


PARTS = (shortcut,)

"""The demo's part on what the classes want to see."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..html.page import Section
    from . import Stage

ORDER = 15


def wanted(stage: Stage) -> Section:
    """What does a class want to see?"""
    from ..html.page import Item, Section
    from ..visualization import Santurkar, visualize
    from ..visualization.sheets import sheet

    labels = ("house", "boat", "cat", "flower")
    recipe = Santurkar()
    plain = visualize(stage.model, list(labels), recipe=recipe, also=stage.open("toybox-twin"))
    clear = visualize(stage.robust, list(labels), recipe=recipe)
    cells = []
    for one, other in zip(plain, clear, strict=True):
        for made, name in ((one, "toybox"), (other, "toybox-robust")):
            cells.append((made.image, f"{name}: {made.caption}"))
        cells.append((stage.picture(one.target).image, f"a real {one.target}"))
    moved = sum(other["rank"] == 1 for one in plain for other in one.also)
    return Section(
        "What does a class want to see?",
        "Gradient ascent on a class's score makes the picture that the network would like best: here in plain steps "
        "from a faint texture, with nothing to keep the picture natural. Each is measured as saved. "
        f"{moved} of {len(plain)} of the first network's are also recognised by another one, trained from another "
        "seed. The second network was trained on the worst pictures near the real ones (adversarially): it cannot use "
        "what people do not see, and its pictures look like the things.",
        [Item(stage.save(sheet([("", cells)], columns=3, title="", size=110), "wanted.png"),
              "Each class as toybox and as toybox-robust want it, beside a real example.")],
    )  # fmt: skip


PARTS = (wanted,)

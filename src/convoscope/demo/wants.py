"""The demo's part on what the classes want to see."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..html.page import Section
    from . import Stage

ORDER = 15


def wanted(stage: Stage) -> Section:
    """What does a class want to see?"""
    from PIL import Image

    from ..html.page import Item, Section
    from ..visualization import Maco, visualize
    from ..visualization.sheets import sheet

    labels = ("house", "flower", "boat", "fish")
    # fewer crops and steps than by default: the demo is for a look, not for print
    results = visualize(stage.model, list(labels), recipe=Maco(steps=64, crops=2), also=stage.open("toybox-twin"))
    cells = []
    for one in results:
        white = Image.new("RGBA", one.image.size, "white")
        made = Image.alpha_composite(white, one.transparent).convert("RGB")
        cells += [(made, f"made: {one.caption}"), (stage.picture(one.target).image, f"a real {one.target}")]
    moved = sum(other["rank"] == 1 for one in results for other in one.also)
    return Section(
        "What does a class want to see?",
        "Gradient ascent on a class's score makes the picture that the network would like best (MACO: only the "
        "phases of a natural spectrum are free; what did not matter is transparent). Each is measured as saved. "
        f"{moved} of {len(results)} are also recognised by a second network, trained from another seed.",
        [Item(stage.save(sheet([("", cells)], columns=4, title="", size=110), "wanted.png"),
              "Each made picture beside a real example of its class.")],
    )  # fmt: skip


PARTS = (wanted,)

"""The demo's part on what the network wants to see."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..draw.page import Section
    from . import Stage

ORDER = 35
_STEPS = 96


def wants(stage: Stage) -> Section:
    """What the network wants to see."""
    from ..draw.page import Item, Section
    from ..methods.visualize import Visualizations, visualize

    labels = list(stage.specimens)
    found = visualize(stage.model, labels, recipe="fourier", steps=_STEPS)
    honest = found[labels.index("cup")]
    cheat = visualize(stage.cheat, "cup", recipe="fourier", steps=_STEPS)
    both = Visualizations([honest, cheat]).sheet(title="A cup, by the honest network and by the cheat")
    return Section(
        "What the network wants to see",
        f"Starting from noise, {_STEPS} steps uphill make the picture that a class scores highest on. Both networks "
        f"are sure that theirs is a cup ({honest.probability:.0%} and {cheat.probability:.0%}).",
        [
            Item(stage.save(found.sheet(), "wants.png"), "One picture for each class, by the honest network."),
            Item(stage.save(both, "wants-cup.png"), "The cheat asks for no cup: it asks for the bars of the tag."),
        ],
    )


PARTS = (wants,)

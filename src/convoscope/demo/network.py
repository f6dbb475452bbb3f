"""The demo's first parts: the specimen, and what is inside the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..html.page import Section
    from . import Stage

ORDER = 10


def specimen(stage: Stage) -> Section:
    """The specimen."""
    import numpy as np

    from ..draw import grid
    from ..html.page import Item, Section
    from ..toybox import scene

    pictures = [(found.picture(), label) for label, found in stage.specimens.items()]
    masks = []
    for found in stage.specimens.values():
        shown = np.full(found.image.shape, 236, np.uint8)
        shown[found.mask] = found.image[found.mask]
        masks.append((shown, f"{found.mask.mean():.0%} of the picture"))
    sheet = grid.patches(
        [("Pictures", pictures), ("The thing itself, known to the pixel", masks)],
        title="The toybox: ten things, drawn at random",
        columns=5,
    )
    scenes = grid.patches(
        [("", [(scene(40 + n).picture(), f"{len(scene(40 + n).instances)} things") for n in range(5)])],
        title="Scenes of several things, for detectors and segmenters",
        columns=5,
    )
    return Section(
        "The specimen",
        "A microscope needs something to look at: the toybox draws things with random pose, light and background, "
        "and knows where each thing is.",
        [
            Item(stage.save(sheet, "specimen.png"), "One picture of each class, with its truth."),
            Item(stage.save(scenes, "scenes.png"), "convoscope toybox DIR --scenes writes as many as you like."),
        ],
    )


def inside(stage: Stage) -> Section:
    """What is inside."""
    from ..html.page import Item, Section
    from ..methods.views import activations, filters
    from ..models.layers import layers

    rows = layers(stage.model)
    convolutions = [row["name"] for row in rows if row["type"] == "Conv2d"]
    picture = stage.picture("cat")
    early, late = convolutions[0], stage.model.watched().last_grid
    field = next(row["rf"] for row in rows if row["name"] == late)
    spot = "the whole picture" if field is None or field["size"] is None else f"{field['size'][0]} pixels across"
    return Section(
        "What is inside",
        f"{len(rows)} named layers. The first sees strokes and colours a few pixels wide; a cell of the last grid "
        f"sees {spot}.",
        [
            Item(
                stage.save(filters(stage.model), "filters.png"),
                "The filters of the first layer, as they are: edges and colours. Its training asked for filters that "
                "are no rougher than an edge; without that, noise solves the task as well.",
            ),
            Item(
                stage.save(filters(stage.open("toybox-twin")), "filters-twin.png"),
                "Those of toybox-twin, which is as right: nobody asked for filters that a person can read.",
            ),
            Item(
                stage.save(activations(stage.model, picture, early, scale="own", limit=32), "activations-early.png"),
                "What the first layer makes of a cat: edges and patches of colour.",
            ),
            Item(
                stage.save(activations(stage.model, picture, late, scale="shared", limit=32), "activations-late.png"),
                "What the last grid makes of it: few channels, strong, each at its part of the cat.",
            ),
        ],
    )


PARTS = (specimen, inside)

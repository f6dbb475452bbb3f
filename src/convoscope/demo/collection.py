"""The demo's parts on a whole collection: what units respond to, which pictures are alike, the map of all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..html.page import Section
    from . import Stage

ORDER = 40
#: enough for every class to show its corner of the map, few enough for the demo
_PICTURES = 240
_SEED = 41


def store(stage: Stage) -> Any:
    """The surveyed collection; made once, and gone on with where a demo runs again into the same folder."""
    if "store" not in stage.kept:
        from ..surveys import survey
        from ..toybox import write

        folder = stage.out / "collection"
        write(folder, _PICTURES, seed=_SEED)
        layers = [name for name in ("layer1", "layer2", "layer3") if name in stage.model.watched().layers] or None
        stage.kept["store"] = survey(stage.model, folder, stage.out / "store", layers, truth=folder / "truth.csv")
    return stage.kept["store"]


def units(stage: Stage) -> Section:
    """What the units respond to."""
    from ..html.page import Item, Section

    surveyed = store(stage)
    layer = surveyed.recipe.layers[-1].name
    rows = [row for row in surveyed.units(layer).rows if not row["dead"]]
    rows.sort(key=lambda row: -(row["selectivity"] or 0))
    best = rows[0]
    unit = f"{layer}:{best['channel']}"
    dead = sum(row["dead"] for row in surveyed.units().rows)
    return Section(
        "What the units respond to",
        f"One pass over {_PICTURES} pictures kept, for each of {surveyed.recipe.channels} hidden units, the pieces "
        f"it fires for most; {dead} never fire. The most selective unit of the last layer, {unit}, fires for "
        f"{best['class']}.",
        [
            Item(
                stage.save(surveyed.patches(unit).sheet(), "patches-unit.png"),
                f"Unit {unit}: its strongest, typical and weakest pieces, cut at its receptive field.",
            ),
            Item(
                stage.save(surveyed.patches(surveyed.recipe.layers[0].name).sheet(), "patches-layer.png"),
                "Units of an early layer, and the pieces each fires for most.",
            ),
        ],
    )


def alike(stage: Stage) -> Section:
    """Which pictures are alike."""
    from ..html.page import Item, Section

    surveyed = store(stage)
    found = surveyed.neighbors(stage.picture("fish"), k=8, pixels=True)
    same = sum(row["label"] == "fish" for row in found.rows)
    plain = sum(row["label"] == "fish" for row in found.pixels.rows)
    drawn = surveyed.map("tsne")
    drawn.save(stage.out / "map.png")
    drawn.save(stage.out / "map.html")
    return Section(
        "Which pictures are alike",
        f"The network finds {same} fish among the 8 nearest to a new fish; comparing pixels finds {plain}. The map "
        f"(t-SNE) arranges the whole collection by the features before the classifier; its trustworthiness "
        f"is {drawn.metrics['trustworthiness']:.3f}.",
        [
            Item(stage.save(found.sheet(), "neighbors.png"), "The nearest pictures in the network's eyes."),
            Item("map.png", "The collection on a plane, each picture at its place."),
            Item("map.html", "The same to move about in: open it in a browser."),
        ],
    )


PARTS = (units, alike)

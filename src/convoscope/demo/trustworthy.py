"""The demo's parts on whether the explanations themselves can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..html.page import Section
    from . import Stage

ORDER = 50
_CASES = 10


def league(stage: Stage) -> Section:
    """Are the explanations true?"""
    from ..html.page import Item, Section
    from ..trust.chart import chart
    from ..trust.datasets import toybox_cases
    from ..trust.evaluate import Settings, evaluate_cases, measures

    names = ["saliency", "guided-backprop", "guided-grad-cam", "grad-cam", "layercam"]
    settings = Settings(measures(None), seed=stage.model.seed)
    found = evaluate_cases(stage.model, toybox_cases(_CASES), names, settings=settings)
    return Section(
        "Are the explanations true?",
        f"On {_CASES} drawn pictures the truth is known, so methods can be measured: does the map find the thing, "
        "and does taking away what it points at harm the score more than taking away anything else?",
        [Item(stage.save(chart(found), "league.png"), "Each dot is a mean, each bar its 95 % interval.")],
    )


def sanity(stage: Stage) -> Section:
    """Does the map see the network at all?"""
    from ..draw import contact
    from ..explanation import explain
    from ..html.page import Item, Section
    from ..trust.sanity import classifier, learnt_modules, randomised
    from ..trust.similarity import rank_correlation

    picture = stage.picture("cat")
    methods = ["grad-cam", "saliency", "guided-backprop"]
    models = {
        "as trained": stage.model,
        "classifier drawn anew": randomised(stage.model, [classifier(stage.model)], seed=1),
        "all weights drawn anew": randomised(stage.model, learnt_modules(stage.model), seed=1),
    }
    rows, kept = [], {}
    trained = explain(stage.model, picture, methods, target="cat")
    for title, model in models.items():
        result = explain(model, picture, methods, target="cat")
        if title == "classifier drawn anew":
            kept = {name: rank_correlation(trained[name].values, result[name].values) for name in methods}
        cells = [contact.Cell(one.overlay(), one.title, one.scale()) for one in result.values()]
        rows.append(contact.Row(picture.image, title, "", cells))
    drawn = contact.contact_sheet(rows, title="One cat, the same question", footnote="Each map on its own scale.")
    return Section(
        "Does the map see the network at all?",
        "A map that stays the same when weights are thrown away shows the picture, not what was learnt. With the "
        f"classifier drawn anew, the order of the pixels stays at {kept['grad-cam']:.2f} (rank correlation) in "
        f"Grad-CAM, but at {kept['guided-backprop']:.2f} in guided backpropagation, however good it looks.",
        [Item(stage.save(drawn, "sanity.png"), "Compare each column from top to bottom.")],
    )


PARTS = (league, sanity)

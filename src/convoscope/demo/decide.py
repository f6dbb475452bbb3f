"""The demo's parts on why the network decides as it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..html.page import Section
    from . import Stage

ORDER = 20


def why(stage: Stage) -> Section:
    """Why does it say so?"""
    from ..explanation import explain
    from ..html.page import Item, Section
    from ..methods import METHODS

    quick = [name for name, kind in METHODS.items() if not kind.about.slow]
    labels = ("cat", "car", "flower")
    pictures = [stage.picture(label) for label in labels]
    every = explain(stage.model, pictures, quick)
    plan = every.plan
    maps = sum(len(one) for one in every)
    return Section(
        "Why does it say so?",
        f"{len(quick)} methods answer in their own ways, from one plan. What they share is run once: "
        f"{maps} maps of {len(pictures)} pictures took {plan.forwards} forward and {plan.backwards} backward passes, "
        "and all but a few of these are for the three methods that average over many.",
        [
            Item(
                stage.save(one.sheet(), f"why-{label}.png"),
                f"Everything that needs few passes, for the class {one.target} ({one.probability:.0%} sure).",
            )
            for label, one in zip(labels, every, strict=True)
        ],
    )


def apart(stage: Stage) -> Section:
    """A map taken apart."""
    from ..explanation import explain
    from ..html.page import Item, Section
    from ..methods import CAM

    result = explain(stage.model, stage.picture("boat"), [CAM(parts=8), "grad-cam"])
    grid = result["cam"].grid
    mean = float(result["cam"].values.mean() if grid is None else grid.mean())
    return Section(
        "A map taken apart",
        "CAM is a sum of channels, each times its weight in the classifier; here are the eight that count most. The "
        f"mean of the map ({mean:.2f}) plus the class's bias is the score itself ({result.score:.2f}).",
        [
            Item(stage.save(result.sheet(), "boat.png"), "CAM shows what speaks for the class and what against it."),
            Item(stage.save(result.parts_sheet("cam"), "boat-parts.png"), "The strongest channel × weight maps."),
        ],
    )


def rather(stage: Stage) -> Section:
    """Why this rather than that?"""
    from ..explanation import explain
    from ..html.page import Item, Section
    from ..results import Explanations

    picture = stage.picture("bird")
    methods = ["grad-cam", "hirescam", "input-x-gradient"]
    rows = explain(stage.model, picture, methods, target=["top1", "top2"])
    second = rows.rows[1].target
    contrast = explain(stage.model, picture, methods, target="top1", against=second)
    sheet = Explanations([rows, contrast]).sheet()
    return Section(
        "Why this rather than that?",
        f"The first two rows ask for {rows.target} and for {second}; the third asks what tells them apart.",
        [Item(stage.save(sheet, "rather.png"), "Red speaks for the target of the row, blue against it.")],
    )


def without_gradients(stage: Stage) -> Section:
    """By covering and switching off."""
    from ..explanation import explain
    from ..html.page import Item, Section
    from ..methods import METHODS, AblationCAM, ExtremalPerturbation, Occlusion, ScoreCAM

    methods = [
        Occlusion(window=20, stride=4, fill="blur"),
        METHODS["rise"](samples=600),  # type: ignore[call-arg]
        METHODS["lime"](samples=200, segments=40),  # type: ignore[call-arg]
        ScoreCAM(),
        AblationCAM(),
        ExtremalPerturbation(area=0.15, rounds=150, grid=6, sigma=9, rate=0.05),
    ]
    result = explain(stage.model, stage.picture("car"), methods)
    return Section(
        "By covering and switching off",
        "These methods need no gradient: they cover parts of the picture, or switch channels off, and watch "
        f"the score. Together {result.plan.forwards} forward passes.",
        [Item(stage.save(result.sheet(), "covering.png"), "Six methods that share no formula, on one car.")],
    )


PARTS = (why, apart, rather, without_gradients)

"""What a made picture itself fails to satisfy, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..models.model import Model
    from ..targets import Scorer
    from .optimise import Batch
    from .result import Visualization


def doubts_of(one: Visualization, model: Model, batch: Batch, place: int, scorer: Scorer | None) -> tuple[str, ...]:
    """What the ascent and the saved picture tell, at no further cost."""
    doubts = list(model.notes)
    if batch.stopped:
        doubts.append(f"Stopped after {batch.steps_done} of {one.provenance['settings']['steps']} steps.")
    if not np.isfinite(one.inputs).all():
        doubts.append("The ascent overflowed: the picture holds values that are not finite. Use a smaller step size.")
    if batch.dead and batch.dead[place]:
        doubts.append("The score had no gradient at the last step: the unit is dead for this picture, nothing moved.")
    elif batch.redirected and batch.redirected[place]:
        doubts.append(
            f"The target was silent: in {batch.redirected[place]} steps silent channels passed a redirected gradient."
        )
    history = one.history
    if len(history) > 1 and one.objective == "score" and max(history[len(history) // 2 :]) <= history[0]:
        doubts.append("The score did not rise: the picture shows little of the target.")
    if one.pixels.min() == one.pixels.max():
        doubts.append("The picture is one colour everywhere.")
    clipped = one.facts.get("clipped", 0.0)
    if clipped > 0.2:
        doubts.append(f"{clipped:.0%} of the values lay outside 0..255 and were clipped in the saved picture.")
    if one.objective == "fool":
        if not one.facts.get("fooled"):
            doubts.append(f"The network was not fooled: it says {_said(one)}.")
    elif one.rank is not None and one.rank > 1:
        doubts.append(
            f"The saved picture is not classified as the target (rank {one.rank}): it is taken for {_said(one)}."
        )
    return tuple(dict.fromkeys(doubts))


def comparison_doubts(one: Visualization, meant_to_differ: bool) -> list[str]:
    """What other pictures and other networks tell."""
    doubts = []
    if one.natural is not None and one.natural["score"] > one.score:
        doubts.append(
            f"A natural picture scores more: {one.natural['picture']} has {one.natural['score']:.3g}, this one "
            f"{one.score:.3g}."
        )
    found = one.agreement
    if found is not None and not meant_to_differ:
        if found["first"] is not None and 0 < found["first"] < 1:
            doubts.append(f"Seeds disagree: {found['first']:.0%} of {found['seeds']} are classified as the target.")
        if found["cosine"] < 0.5:
            doubts.append(
                f"Pictures of different seeds are little alike to the network (cosine {found['cosine']:.2f} at "
                f"{found['layer']})."
            )
    for other in one.also:
        if "error" in other:
            doubts.append(f"Not compared with {other['model']}: {other['error']}")
        elif other["rank"] > 1:
            doubts.append(
                f"It does not transfer to {other['model']}, which says {other['prediction']} "
                f"({other['prediction_probability']:.2f}; the target is rank {other['rank']})."
            )
    return doubts


def _said(one: Visualization) -> str:
    if not one.prediction:
        return "something else"
    first = one.prediction[0]
    return f"{first['label']} ({first['probability']:.2f})"

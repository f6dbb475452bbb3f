"""The card: what was done, from what, with what proof, and what stays unproven; it opens the network, too."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...models.card import FORMAT
from ...surveys.store.recipe import absolute_spec
from ...version import __version__
from .attempt import Attempt

if TYPE_CHECKING:
    from ..shortcuts.bench import Bench


def card(
    bench: Bench, attempt: Attempt, weights: Path, counts: dict[str, int], finding: dict[str, Any] | None
) -> dict[str, Any]:
    """The card as plain data; ``weights`` is named relative to the card, which lies beside it."""
    model = bench.model
    proof = attempt.proof
    return {
        "format": FORMAT,
        "convoscope": __version__,
        "spec": None if model.spec is None else absolute_spec(model.spec) or model.spec,
        "weights": weights.name,
        "labels": None if model.labels is None else list(model.labels),
        "preprocessing": (attempt.preprocessing or model.preprocessing).to_dict(),
        "how": attempt.how,
        "why": proof.why,
        "changed": dict(attempt.changed),
        "from": {"model": model.name, "weights": model.weights, "fingerprint": model.fingerprint},
        "pictures": counts,
        "finding": finding,
        "before": proof.side(False),
        "after": proof.side(True),
        "gain": proof.gain.to_dict(),
        "flips": {"won": proof.ordinary.won, "lost": proof.ordinary.lost, "p": proof.ordinary.p},
        "figures": dict(proof.figures),
        "unproven": list(proof.unproven),
        "advice": advice(attempt, finding),
    }


#: what our own trials with networks that no head could repair showed (docs/improve.md)
DEEPER = (
    "Features that hold too little of the thing serve no head. Train all layers on, with the pictures of the training: "
    "200 steps of AdamW without decay, each tensor's largest step 1 % of its root mean square, half of each batch "
    "ordinary pictures whose target is what this network says of them (Li & Hoiem 2018), half counterexamples with "
    "their label."
)


def advice(attempt: Attempt, finding: dict[str, Any] | None) -> list[str]:
    """Deeper repairs, which are for whoever trains the network: the exact setting, and why."""
    if attempt.how == "head":
        name = "" if finding is None or not finding.get("class") else f" of {finding['class']}"
        told = [
            f"Collect pictures{name} without the shortcut, and of others with it: the proof here stands on made ones.",
            "When training again: put every group (class × carries the mark or not) into each batch in equal numbers, "
            "or minimise the worst group's loss with weight decay of 0.1 or more (Sagawa et al. 2020); plain weighting "
            "without strong decay is undone by the end of training.",
        ]
        if not attempt.proof.holds:
            told.insert(0, DEEPER)
        return told
    if attempt.how == "bn":
        return [
            "When training again: add the shift to the augmentation (brightness and blur as these pictures have them), "
            "so that new statistics are not needed at every change of the camera.",
        ]
    if attempt.how == "calibrate":
        return [
            "When training again: label smoothing of 0.05 to 0.1 keeps confidence near accuracy (Müller et al. 2019)."
        ]
    return []

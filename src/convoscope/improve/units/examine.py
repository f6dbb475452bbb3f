"""What is wrong with the units: from the weights alone, and from what they do on pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ConvoscopeError
from ..collection import Labelled
from ..diagnose.stage import Case, StageResult
from ..finding import Finding
from ..look import look
from ..statistics import mcnemar, paired, share
from .border import Border, border
from .measure import LayerSeen, Seen, measure
from .prune import Pruned, prune
from .recalibrate import recalibrated
from .weights import Filters, Initial, Switched, first_filters, initial_layers, switched_off

if TYPE_CHECKING:
    from ...models.model import Model

#: pictures that are looked at, at most: more tell nothing new about a unit
MOST = 400
#: pictures below which a unit that never fired is listed, not accused
ENOUGH = 50
#: share of a layer's units from which each fault is worth a sentence (and at least two units)
DEAD, ALIKE, LINEAR, SATURATED = 0.03, 0.08, 0.05, 0.05
#: |r| from which two units are one
ONE = 0.9999
#: median KL of a batch norm layer from which its memory is tried out against the pictures
STALE = 0.05
#: what a fault that costs nothing to mend is worth at least, as a share of the pictures
FLOOR = 0.006


@dataclass(frozen=True, eq=False)
class Health:
    """The figures behind ``convoscope health``: see :mod:`.measure`, :mod:`.weights`, :mod:`.border`, :mod:`.prune`."""

    seen: Seen | None
    initial: tuple[Initial, ...]
    switched: tuple[Switched, ...]
    filters: Filters | None
    border: Border | None
    pruned: Pruned | None
    stages: tuple[tuple[str, tuple[str, ...]], ...]
    pictures: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data under fixed names."""
        return {
            "pictures": self.pictures,
            "layers": [] if self.seen is None else [layer_row(one) for one in self.seen.layers],
            "batch_norm": [] if self.seen is None else [
                {"layer": one.layer, "kl_median": float(np.median(one.divergence)),
                 "kl_largest": float(one.divergence.max())} for one in self.seen.norms
            ],
            "gamma_near_zero": [one.to_dict() for one in self.switched],
            "initial": [one.to_dict() for one in self.initial],
            "never_trained": [{"stage": name, "layers": list(layers)} for name, layers in self.stages],
            "first_filters": None if self.filters is None else self.filters.to_dict(),
            "border": None if self.border is None else self.border.to_dict(),
            "prune": None if self.pruned is None else self.pruned.to_dict(),
        }  # fmt: skip


def layer_row(one: LayerSeen) -> dict[str, Any]:
    """One layer's units, as numbers of channels."""
    return {
        "layer": one.layer, "units": len(one.high), "dead": _numbers(one.dead), "constant": _numbers(one.constant),
        "always_on": _numbers(one.always_on), "saturated": _numbers(one.saturated),
        "duplicates": [[a, b, r] for a, b, r in one.alike()],
    }  # fmt: skip


def _numbers(flags: Any) -> list[int]:
    return [int(at) for at in np.flatnonzero(flags)]


def never_trained(initial: Sequence[Initial]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Stages none of whose layers shows training: at least two layers and 2,000 weights, or one with 20,000.

    One small layer may look untrained by chance, a stage hardly. The widest such part of the network is named.
    """
    found: dict[str, tuple[str, ...]] = {}
    parents = {".".join(one.layer.split(".")[:depth]) for one in initial for depth in range(one.layer.count(".") + 2)}
    for parent in sorted(parents, key=lambda name: (name.count(".") + bool(name), name)):
        inside = [one for one in initial if not parent or one.layer == parent or one.layer.startswith(f"{parent}.")]
        weights = sum(one.weights for one in inside)
        sure = (len(inside) >= 2 and weights >= 2000) or (
            len(inside) == 1 and weights >= 20_000 and inside[0].p > 0.05
        )
        covered = any(not wider or parent == wider or parent.startswith(f"{wider}.") for wider in found)
        # of a hundred layers that were never trained one looks trained
        if sure and not covered and sum(not one.untrained for one in inside) <= 0.02 * len(inside):
            found[parent] = tuple(one.layer for one in inside)
    return tuple(found.items())


def examine(case: Case, *, whole: bool = True) -> tuple[Health, StageResult]:
    """Look at the units of a case.

    Args:
        case: the network and its pictures; there may be none.
        whole: measure fields and multiply-adds, too, which cost seconds and accuse nobody.
    """
    model = case.model
    initial = tuple(initial_layers(model.module, case.seed))
    stages, switched = never_trained(initial), tuple(switched_off(model.module))
    chosen = sample(case.pictures, MOST)
    seen: Seen | None = None
    if len(case.pictures):
        seen = measure(model, chosen, lambda done, total: case.progress("Measuring the units", done, total))
    findings: list[Finding] = []
    tests = 0
    if stages:
        findings.append(_untrained(case, stages, initial))
    if seen is not None:
        findings += _of_units(case, seen)
        tests, stale = _stale(case, seen, [name for name, _ in stages])
        findings += stale
    findings += _gamma(case, switched, findings)
    fields = pruned = None
    faulty = any(one.evidence.get("what") in ("dead", "duplicates") for one in findings)
    if seen is not None and (whole or faulty):
        case.progress("Taking out what does nothing", 0, 1)
        pruned = prune(model, chosen.take(range(min(len(chosen), 100))))
    if whole:
        fields = _border(case, chosen, [] if seen is None else [one.layer for one in seen.layers])
    health = Health(
        seen, initial, switched, first_filters(model.module), fields, pruned, stages,
        0 if seen is None else len(seen.rows),
    )  # fmt: skip
    result = StageResult(
        tuple(findings), tests, None, could_miss="units that fail on kinds of pictures that are not here",
        evidence={"tables": tables(health), "drawings": [], "what": health.to_dict()},
    )  # fmt: skip
    return health, result


def sample(pictures: Labelled, most: int) -> Labelled:
    """At most ``most`` pictures, chosen by their content, in their order."""
    if len(pictures) <= most:
        return pictures
    order = np.argsort(np.array(pictures.keys), kind="stable")[:most]
    return pictures.take(np.sort(order))


def _errors(case: Case) -> float:
    """The share of wrong pictures; 0.1 where nothing is labelled."""
    looked = case.looked if len(case.pictures) else None
    if looked is None or looked.scores is None or not looked.pictures.known.any():
        return 0.1
    return float(1 - looked.right[looked.pictures.known].mean())


def _won(case: Case, part: float) -> float:
    return max(FLOOR, _errors(case) * min(1.0, part))


def _untrained(case: Case, stages: Sequence[tuple[str, tuple[str, ...]]], initial: Sequence[Initial]) -> Finding:
    names = [name or "the whole network" for name, _ in stages]
    weights = {one.layer: one.weights for one in initial}
    concerned = sum(weights[layer] for _, layers in stages for layer in layers)
    part = concerned / sum(weights.values())
    all_of_it = names == ["the whole network"]
    subject = "The whole network was" if all_of_it else f"{_listed(names)} {'was' if len(names) == 1 else 'were'}"
    how = next(one.distribution for one in initial if one.layer == stages[0][1][0])
    return Finding(
        "units", f"{subject} never trained: all weights are still as they were drawn ({how}).",
        part, part, part,
        doubt="Weights that were frozen on purpose look the same; layers of fewer than 300 weights cannot be told.",
        next="Check that the weights file has these layers and that they were not frozen, then train them."
        if not all_of_it else "Give the weights: --weights FILE.",
        won=_won(case, 0.8), evidence={"what": "never trained", "stages": [name for name, _ in stages]},
    )  # fmt: skip


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _of_units(case: Case, seen: Seen) -> list[Finding]:
    if len(seen.rows) < ENOUGH:
        return []
    found = []
    count = len(seen.rows)
    for what, least, words, after in (
        ("dead", DEAD, "are dead: 0 in every cell of all {count} pictures", "--how prune"),
        ("constant", DEAD, "say the same, whatever the picture", ""),
        ("always_on", LINEAR, "are always on: their ReLU never cuts, so that they add nothing nonlinear", ""),
        ("saturated", SATURATED, "are saturated: at an end of their activation in at least 95 % of the cells", ""),
    ):
        marked = [(one, getattr(one, what)) for one in seen.layers]
        if what == "always_on":
            marked = [(one, flags & ~one.constant) for one, flags in marked]
        faulty = [(one, flags) for one, flags in marked if flags.sum() >= max(2, least * len(flags))]
        if faulty:
            found.append(_units_finding(case, what, faulty, words.format(count=count), after))
    pairs = [(one, one.alike()) for one in seen.layers]
    faulty_pairs = [
        (one, listed) for one, listed in pairs
        if len(listed) >= max(2, ALIKE * len(one.high)) or any(abs(r) > ONE for _, _, r in listed)
    ]  # fmt: skip
    if faulty_pairs:
        flagged = []
        for one, listed in faulty_pairs:
            flags = np.zeros(len(one.high), bool)
            flags[[a for a, _, _ in listed]] = True
            flagged.append((one, flags))
        exact = sum(abs(r) > ONE for _, listed in faulty_pairs for _, _, r in listed)
        words = "say what another unit of their layer says (|r| > 0.95"
        words += f", {exact} of them to a ten-thousandth)" if exact else ")"
        found.append(_units_finding(case, "duplicates", flagged, words, "--how prune"))
    return found


def _units_finding(case: Case, what: str, faulty: Sequence[tuple[LayerSeen, Any]], words: str, how: str) -> Finding:
    worst, flags = max(faulty, key=lambda item: float(item[1].mean()))
    number, of = int(flags.sum()), len(flags)
    interval = share(number, of)
    listed = {one.layer: _numbers(marks) for one, marks in faulty}
    rest = f" ({sum(map(len, listed.values()))} in {len(listed)} layers)" if len(listed) > 1 else ""
    examples = ", ".join(f"{worst.layer}:{at}" for at in listed[worst.layer][:4])
    return Finding(
        "units", f"{number} of {of} units of {worst.layer} {words}{rest}.", interval.mean, interval.low, interval.high,
        doubt=f"Units such as {examples} may answer to kinds of pictures that are not here.",
        next=case.command("repair", *how.split()) if how else case.command("health", "--out", "health"),
        won=_won(case, interval.mean), evidence={"what": what, "units": listed},
    )  # fmt: skip


def _gamma(case: Case, switched: Sequence[Switched], found: Sequence[Finding]) -> list[Finding]:
    """Batch norm that switches channels off, where the units behind it were not already called dead or constant."""
    if any(one.evidence.get("what") in ("dead", "constant", "never trained") for one in found):
        return []
    faulty = [one for one in switched if len(one.channels) >= max(2, DEAD * one.of)]
    if not faulty:
        return []
    worst = max(faulty, key=lambda one: len(one.channels) / one.of)
    interval = share(len(worst.channels), worst.of)
    return [
        Finding(
            "units", f"{len(worst.channels)} of {worst.of} channels of {worst.layer} are switched off: their gamma is "
            "next to zero.", interval.mean, interval.low, interval.high,
            doubt="A residual branch that starts at zero looks the same where training has not reached it.",
            next=case.command("repair", "--how", "prune"), won=_won(case, interval.mean),
            evidence={"what": "gamma", "layers": [one.to_dict() for one in faulty]},
        )
    ]  # fmt: skip


def _stale(case: Case, seen: Seen, untrained: Sequence[str]) -> tuple[int, list[Finding]]:
    """Batch norm whose memory does not fit: tried out by recalibrating on half A and testing on half B."""
    if not seen.norms or len(seen.rows) < ENOUGH:
        return 0, []
    medians = [float(np.median(one.divergence)) for one in seen.norms]
    worst = max(medians)
    if worst <= STALE:
        return 0, []
    looked = case.looked
    # where it begins: what varies in training leaves a little everywhere
    at = next(place for place, median in enumerate(medians) if median >= worst / 3)
    name = seen.norms[at].layer
    before = max(medians[:at], default=0.0)
    words = (
        f"Batch norm from {name} on remembers other values than these pictures give (KL {worst:.2g}, before it "
        f"{before:.2g})"
        if at
        else f"Batch norm remembers other pictures than these from its first layer on (KL {worst:.2g})"
    )
    known = looked.pictures.known
    if looked.scores is None or not known.any():
        if worst < 0.2 or at == 0:
            return 0, []
        return 0, [_stale_finding(case, f"{words}.", worst, worst, worst, None, FLOOR, name)]
    half = case.half_a
    case.progress("Trying batch norm on these pictures", 0, 1)
    test = np.flatnonzero(~half & known)
    made = recalibrated(case.model, looked.pictures.take(half))
    after = look(made, looked.pictures.take(test))
    if len(after.pictures) != len(test):
        return 0, []
    gain = after.right.astype(float) - looked.right[test].astype(float)
    p = mcnemar(int((gain > 0).sum()), int((gain < 0).sum()))
    interval = paired(gain, seed=case.seed)
    if interval.mean <= 0:
        return 1, []
    was, now = float(looked.right[test].mean()), float(after.right.mean())
    sentence = f"{words}: with those of one half, the other half rises from {was:.1%} to {now:.1%}."
    return 1, [
        _stale_finding(case, sentence, interval.mean, interval.low, interval.high, p, max(0.0, interval.low), name)
    ]


def _stale_finding(
    case: Case, sentence: str, size: float, low: float, high: float, p: float | None, won: float, layer: str
) -> Finding:
    return Finding(
        "units", sentence, size, low, high,
        doubt="Pictures of another kind than those of training show the same; a wrong preprocessing, too.",
        next=case.command("repair", "--how", "bn"), won=won, p=p, evidence={"what": "batch norm", "layer": layer},
    )  # fmt: skip


def _border(case: Case, pictures: Labelled, layers: Sequence[str]) -> Border | None:
    model: Model = case.model
    try:
        inputs = None
        if len(pictures):
            fitted = [model.prepare(one) for one in pictures.readable(range(len(pictures)), 4)]
            inputs = model.inputs([one for one in fitted if one.tensor.shape == fitted[0].tensor.shape])
        if not layers:
            from ...surveys.gather.choose import default_layers

            watched = model.watched()
            layers = default_layers(model, tuple(watched.input_shape[1:]))
        return border(model, inputs, layers)
    except (ConvoscopeError, RuntimeError, OSError):
        return None  # fields are a remark: without them the rest stands


def tables(health: Health) -> list[dict[str, Any]]:
    """What the page shows in rows."""
    made: list[dict[str, Any]] = []
    if health.seen is not None:
        fields = {} if health.border is None else {one.layer: one for one in health.border.fields}
        rows = []
        for one in health.seen.layers:
            at = fields.get(one.layer)
            rows.append([
                one.layer, len(one.high), int(one.dead.sum()), int(one.constant.sum()), int(one.always_on.sum()),
                int(one.saturated.sum()), len(one.alike()), "–" if at is None else at.theoretical or "all",
                None if at is None or at.effective is None else round(at.effective),
            ])  # fmt: skip
        header = ["layer", "units", "dead", "constant", "always on", "saturated", "duplicates", "field", "effective"]
        made.append({"title": f"Units on {health.pictures} pictures", "header": header, "rows": rows})
        if health.seen.norms:
            made.append({
                "title": "Batch norm: what it remembers against what it is given (KL, nats)",
                "header": ["layer", "median", "largest"],
                "rows": [[one.layer, float(np.median(one.divergence)), float(one.divergence.max())]
                         for one in health.seen.norms],
            })  # fmt: skip
    made.append({
        "title": "Weights held against their initial distribution",
        "header": ["layer", "weights", "nearest distribution", "p", ""],
        "rows": [[one.layer, one.weights, one.distribution, float(one.p), "as drawn" if one.untrained else "trained"]
                 for one in health.initial],
    })  # fmt: skip
    return made


def remarks(health: Health) -> list[str]:
    """What is worth saying and accuses nobody."""
    said = []
    if health.filters is not None:
        f = health.filters
        low, middle, high = (f"{100 * part:.0f} %" for part in f.bands)
        gap = "; the middle ones are missing (Zeiler & Fergus 2014)" if f.middle_gap else ""
        said.append(
            f"First layer {f.layer} ({f.kernel[0]}×{f.kernel[1]}, stride {f.stride[0]}): energy in low, middle and "
            f"high frequencies {low}, {middle}, {high}{gap}. {100 * f.alias:.0f} % of it lies above the Nyquist "
            f"frequency of the stride (white noise: {100 * f.usual_alias:.0f} %)."
        )
    if health.border is not None:
        said.append(health.border.sentence)
    if health.pruned is not None:
        p = health.pruned
        if p.refused:
            said.append(f"What could be taken out is not known: {p.refused}.")
        elif p.madds_after < p.madds_before:
            part = 1 - p.madds_after / p.madds_before
            said.append(
                f"{len(p.removed)} dead and {len(p.merged)} duplicate units can go with the same outputs "
                f"(to {p.error:.0e}): {100 * part:.1f} % of the multiply-adds."
            )
        else:
            said.append("No unit can go without changing the output.")
    return said

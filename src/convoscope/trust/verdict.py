"""``explain --trust``: a short verdict on every map of one picture, in figures and in one plain sentence.

Three questions, none of which is proof: does taking away what the map calls important harm the score more than taking
away what a random map does; does the map change when the classifier's weights are drawn anew; does it stay when the
picture gets noise that no one sees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConvoscopeError
from ..explanation import explain
from ..heatmap import Heatmap
from ..methods import METHODS, Method, method
from ..models.model import Model
from ..pictures.picture import Picture
from ..results import Explanation
from ..targets import ClassTarget, Target, TargetLike, parse
from .faithfulness import deletion, insertion
from .sanity import learnt_modules, left, randomised
from .scoring import scoring
from .similarity import rank_correlation
from .stability import max_sensitivity, noisy

#: random maps that a map is held against, as smooth as the map itself
RANDOM_MAPS = 20
#: a map counts as better than random where it beats this share of them
BETTER = 0.95
#: below this probability of the target a change of probability tells nothing: the score is judged
UNLIKELY = 0.01
#: random classifiers that a map is compared under
RANDOM_CLASSIFIERS = 4
#: a rank correlation above which a map counts as the same map
SAME = 0.5
#: and below which noise counts as having changed it
STABLE = 0.7


@dataclass(frozen=True)
class Verdict:
    """What is known of one map.

    ``gain`` is the mean of (insertion − random's) and (random's − deletion), areas 0..1 in probability (in the
    score's own unit for targets without one, and for such that the network thinks next to impossible), ``error`` its
    standard error from the twenty random maps, which are as smooth as the map itself, and ``beats`` the share of them
    that it beats; ``survives`` is
    the rank correlation with the maps of networks whose classifier is random (0 to 1; zero is good), ``change``
    and ``steady`` the largest relative change and the smallest rank correlation under noise. ``None``: not measured,
    and ``notes`` says why. ``by``: ``probability``, or ``score`` where the target has none or is next to impossible.
    """

    method: str
    insertion: float | None
    deletion: float | None
    gain: float | None
    beats: float | None
    survives: float | None
    change: float | None
    steady: float | None
    sentence: str
    notes: tuple[str, ...] = ()
    error: float | None = None
    by: str = "probability"

    @property
    def better(self) -> bool | None:
        """Better than nearly every random map, and by more than chance in drawing them."""
        if self.gain is None or self.beats is None:
            return None
        return self.gain > 2 * (self.error or 0.0) and self.gain > 0 and self.beats >= BETTER

    @property
    def stable(self) -> bool | None:
        """Whether noise left the map's order standing."""
        return None if self.steady is None else self.steady >= STABLE

    def to_dict(self) -> dict[str, Any]:
        """The figures, plain; for ``--json``."""
        return {
            "insertion": self.insertion,
            "deletion": self.deletion,
            "gain": self.gain,
            "gain_error": self.error,
            "beats_random": self.beats,
            "better_than_random": self.better,
            "survives_randomised_classifier": self.survives,
            "change_under_noise": self.change,
            "rank_under_noise": self.steady,
            "stable": self.stable,
            "judged_on": self.by,
            "sentence": self.sentence,
            "notes": list(self.notes),
        }


def verdicts(
    model: Model,
    explanation: Explanation,
    target: TargetLike = None,
    *,
    steps: int = 12,
    noise: float = 0.02,
    variations: int = 3,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Verdict]:
    """A verdict on every map of ``explanation``, by the maps' names.

    ``target`` is what is asked in place of the explanation's own question. All maps share their passes: one batch of
    random maps, the same randomised networks, one batch of noisy pictures. Slow methods (hundreds of passes a map)
    are held against random maps only.
    The network is left as it is. ``progress`` is told ``(what, done, of all)`` before each of the three questions.
    """
    if not len(explanation):
        return {}
    tell = progress or (lambda what, done, total: None)
    asked = parse(target, model)
    # a class is that of the explanation, whatever another network would predict
    wanted: Target = explanation.question if isinstance(asked, ClassTarget) else asked
    tell("held against random maps", 0, 3)
    faithful, why_score = _faithful(model, explanation, wanted, steps, seed)
    quick, skipped = _again(explanation)
    tell("held against a random classifier", 1, 3)
    survives, why_sane = _survives(model, explanation, quick, wanted, seed)
    tell("made again under noise", 2, 3)
    steady, why_steady = _steady(model, explanation, quick, wanted, noise, variations, seed)
    found = {}
    for name in explanation:
        notes = [
            n for n in (skipped.get(name), why_sane, why_steady) if n and (name in quick or n == skipped.get(name))
        ]
        notes += [why_score] if why_score else []
        inserted, deleted, gain, beats, error = faithful[name]
        if gain is None:
            notes.append(
                "Insertion and deletion were stopped, or gave scores that are no numbers: nothing to compare."
            )
        change, rank = steady.get(name, (None, None))
        given = (name, inserted, deleted, gain, beats, survives.get(name), change, rank)
        found[name] = Verdict(
            *given, sentence="", notes=tuple(notes), error=error, by="score" if why_score else "probability"
        )
        found[name] = replace(found[name], sentence=_sentence(found[name]))
    return found


#: insertion, deletion, gain, share beaten, error
Areas = tuple[float | None, float | None, float | None, float | None, float | None]


def _faithful(
    model: Model, explanation: Explanation, target: Target, steps: int, seed: int
) -> tuple[dict[str, Areas], str | None]:
    """Insertion, deletion, gain, share beaten and error of every map; and why it was judged on the score, if it was."""
    maps = [np.asarray(heatmap.values, np.float32) for heatmap in explanation.values()]
    # scattered pixels harm a network more than patches: a map is held against random maps as smooth as itself
    smooth = [smoothness(values) for values in maps]
    places = {kind: len(maps) + RANDOM_MAPS * number for number, kind in enumerate(sorted(set(smooth)))}
    size = (maps[0].shape[0], maps[0].shape[1])
    for kind in places:
        maps += [smooth_noise(size, kind, seed * 1009 + k) for k in range(RANDOM_MAPS)]
    values = np.stack(maps)

    def areas(probability: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]] | float:
        with scoring(model, explanation.fitted, target, probability=probability, seed=seed) as scored:
            if scored.probability and scored.whole < UNLIKELY:
                return scored.whole
            curves = (
                insertion(values, scored.filled("blur"), steps=steps, seed=seed),
                deletion(values, scored.filled("mean"), steps=steps, seed=seed),
            )
        inserted, deleted = (np.array([curve.area for curve in one]) for one in curves)
        return inserted, deleted

    measured, why = areas(True), None
    if isinstance(measured, float):
        why = f"Judged on the score, not the probability: that of the target is {measured:.1e}."
        measured = areas(False)
        assert not isinstance(measured, float)
    inserted, deleted = measured
    net = (inserted - deleted) / 2
    found: dict[str, Areas] = {}
    for number, name in enumerate(explanation):
        rivals = net[places[smooth[number]] :][:RANDOM_MAPS]
        gain = float(net[number] - rivals.mean())
        error = float(rivals.std(ddof=1) / np.sqrt(RANDOM_MAPS))
        beats = float((net[number] > rivals).mean())
        areas_of = (float(inserted[number]), float(deleted[number]), gain, beats, error)
        # stopped in the middle: what was not measured is neither better nor worse than random
        found[name] = areas_of if np.isfinite(areas_of).all() else (None, None, None, None, None)
    return found, why


def smoothness(values: NDArray[Any]) -> float:
    """How smooth a map ``[H, W]`` is: σ in pixels of the Gaussian that makes noise with its correlation length.

    The correlation length is the shift, in rows and in columns on the mean, at which a map's correlation with itself
    falls to a half. Rounded to powers of two, so that maps of one kind share their random maps; 0 below half a pixel.
    """
    centred = np.nan_to_num(np.asarray(values, np.float64), nan=float(np.nanmin(values)))
    centred = centred - centred.mean()
    total = float((centred**2).mean())
    if total == 0:
        return 0.0
    lengths = []
    for axis in (0, 1):
        moved = np.moveaxis(centred, axis, 0)
        length, before, found = len(moved), 1.0, float(len(moved) // 2)
        for shift in range(1, max(2, length // 2)):
            now = float((moved[shift:] * moved[:-shift]).mean()) / total
            if now < 0.5:
                found = shift - 1 + (before - 0.5) / (before - now)
                break
            before = now
        lengths.append(found)
    # noise filtered with σ has the correlation exp(−d² / 4σ²)
    sigma = float(np.mean(lengths)) / (2 * np.sqrt(np.log(2)))
    return 0.0 if sigma < 0.5 else float(2.0 ** round(np.log2(sigma)))


def smooth_noise(size: tuple[int, int], sigma: float, seed: int) -> NDArray[np.float32]:
    """White noise of ``size`` under a Gaussian of ``sigma`` pixels (0: as it is)."""
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(seed).standard_normal(size)
    return np.asarray(gaussian_filter(noise, sigma, mode="reflect") if sigma else noise, np.float32)


def _again(explanation: Explanation) -> tuple[dict[str, Method], dict[str, str]]:
    """The methods of the maps, ready to run again; of slow ones, why not."""
    quick: dict[str, Method] = {}
    skipped: dict[str, str] = {}
    for name, heatmap in explanation.items():
        if METHODS[heatmap.method].about.slow:
            skipped[name] = "Slow method: its map was not computed again, so its stability is not known."
        else:
            quick[name] = _method_of(heatmap)
    return quick, skipped


def _method_of(heatmap: Heatmap) -> Method:
    settings: Mapping[str, Any] = heatmap.provenance.get("settings", {})
    return method(heatmap.method, {k: v for k, v in settings.items() if v is not None and k != "parts"})


def _maps(
    model: Model, pictures: list[Picture], methods: dict[str, Method], target: Target
) -> list[dict[str, NDArray[np.float32]]]:
    found = explain(model, pictures, methods, target=target)
    return [{name: heatmap.values for name, heatmap in one.items()} for one in found]


def _survives(
    model: Model, explanation: Explanation, methods: dict[str, Method], target: Target, seed: int
) -> tuple[dict[str, float | None], str | None]:
    if not methods:
        return {}, None
    try:
        modules = learnt_modules(model)
        last = modules[-1]
        if made_of := target.layers(model):
            # a score made of layers does not see the classifier: the weights that make these are drawn anew
            order = [name.split("#")[0] for name in model.watched().layers]
            upto = order[: max(order.index(name.split("#")[0]) for name in made_of) + 1]
            last = next((name for name in reversed(upto) if name in modules), last)
        picture = Picture.from_input(explanation.fitted.tensor, model.preprocessing)
        draws = [randomised(model, [last], seed=seed + 1 + k) for k in range(RANDOM_CLASSIFIERS)]
        after = [_maps(other, [picture], methods, target)[0] for other in draws]
    except ConvoscopeError as error:
        return {}, f"Not compared with a randomised network: {error}"
    found: dict[str, float | None] = {}
    for name in methods:
        values = explanation[name].values
        ranks = [left(rank_correlation, values, maps[name]) for maps in after if name in maps]
        if ranks and np.isfinite(ranks).all():
            # one random classifier may by chance like the same places, another their opposite: their mean counts
            found[name] = float(np.clip(np.mean(ranks), 0, 1))
    return found, None


def _steady(
    model: Model,
    explanation: Explanation,
    methods: dict[str, Method],
    target: Target,
    noise: float,
    count: int,
    seed: int,
) -> tuple[dict[str, tuple[float | None, float | None]], str | None]:
    if not methods:
        return {}, None
    copies = noisy(explanation.fitted.tensor, noise=noise, count=count, seed=seed)
    pictures = [Picture.from_input(one, model.preprocessing, f"noise {n}") for n, one in enumerate(copies)]
    try:
        after = _maps(model, pictures, methods, target)
    except ConvoscopeError as error:
        return {}, f"Stability not measured: {error}"
    found: dict[str, tuple[float | None, float | None]] = {}
    for name in methods:
        moved = max_sensitivity(explanation[name].values, [row[name] for row in after if name in row])
        found[name] = (_finite(moved.change), _finite(moved.rank))
    return found, None


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _short(value: float) -> str:
    """Two places, or one digit that is not zero: "0.00" would say nothing."""
    return f"{value:.2f}" if value == 0 or abs(value) >= 0.005 else f"{value:.1g}"


def _sentence(v: Verdict) -> str:
    """``Beats random by 0.31 ± 0.01; changes with the classifier (7 % survives); stable.``"""
    parts = []
    if v.gain is not None:
        error = f" ± {_short(v.error)}" if v.error is not None else ""
        if v.better:
            parts.append(f"beats random by {_short(v.gain)}{error}")
        elif v.gain > 0:
            parts.append(f"hardly better than random (by {_short(v.gain)}{error})")
        else:
            parts.append(f"no better than random ({'−' if v.gain < 0 else ''}{_short(abs(v.gain))}{error})")
    if v.survives is not None:
        share = f"{v.survives:.0%} survives a random classifier"
        parts.append(f"{share}: it hardly shows what was learnt there" if v.survives > SAME else share)
    if v.stable is not None:
        parts.append("stable" if v.stable else f"unstable under noise (rank correlation {v.steady:.2f})")
    elif v.survives is None and v.gain is None:
        parts.append("nothing could be measured")
    text = "; ".join(parts)
    return text[:1].upper() + text[1:] + "."

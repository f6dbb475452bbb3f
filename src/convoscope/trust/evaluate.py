"""The driver: maps of many pictures, measured, written down picture by picture, and gathered into a league."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import PictureError, UsageError
from ..explanation import MethodLike, explain
from ..methods import METHODS, Method, method
from ..methods.naming import named
from ..models.model import Model
from ..models.outputs import scores_of
from ..notebook import shows_progress
from ..parallel import RayPool, Task
from ..pictures.picture import ModelInput, Picture
from ..results import Explanation
from ..targets import Scorer, Target, TargetLike
from ..targets.classes import ClassScorer, class_index, class_indices
from ..version import __version__
from . import faithfulness, localisation
from .datasets import Case
from .league import League
from .ledger import Ledger
from .scoring import FILLS, Kept, Scoring, scoring

if TYPE_CHECKING:
    from ..engine.passes.runner import Runner

#: groups of measures, by the name of the group
GROUPS: dict[str, tuple[str, ...]] = {
    "localisation": ("pointing", "energy-inside", "iou", "auc"),
    "faithfulness": ("insertion", "deletion", "road", "sensitivity-n", "infidelity"),
}
MEASURES = (*GROUPS["localisation"], *GROUPS["faithfulness"])
DEFAULT_MEASURES = (*GROUPS["localisation"], "insertion", "deletion")
_AT_ONCE = 16
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Settings:
    """How the measures are taken; part of the result, and of what makes two evaluations the same.

    ``tolerance`` is the pointing game's, in input pixels. ``steps`` cuts insertion and deletion. ``subsets`` random
    subsets of ``share`` of the cells of ``cell`` pixels serve sensitivity-n and infidelity. ``noise`` is ROAD's.
    """

    measures: tuple[str, ...] = DEFAULT_MEASURES
    tolerance: float = 0.0
    steps: int = 16
    insertion_fill: str = "blur"
    deletion_fill: str = "mean"
    noise: float = 0.01
    subsets: int = 96
    share: float = 0.2
    cell: int = 8
    resize: str = "exact"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("insertion_fill", "deletion_fill"):
            if getattr(self, name) not in FILLS:
                raise UsageError(f"{name} must be {', '.join(FILLS)}, not {getattr(self, name)!r}.")
        if self.tolerance < 0:
            raise UsageError(f"tolerance must be 0 or more pixels, not {self.tolerance}.")
        if self.steps < 1 or self.subsets < 2 or self.cell < 1 or not 0 < self.share < 1:
            raise UsageError("steps must be at least 1, subsets 2, cell 1, and share between 0 and 1.")


def measures(names: str | Sequence[str] | None) -> tuple[str, ...]:
    """Measures by name, group or ``all``; ``None`` is the default set. Raises :class:`UsageError`."""
    if names is None:
        return DEFAULT_MEASURES
    listed = [names] if isinstance(names, str) else list(names)
    found: dict[str, None] = {}
    for name in listed:
        if name == "all":
            found.update(dict.fromkeys(MEASURES))
        elif name in GROUPS:
            found.update(dict.fromkeys(GROUPS[name]))
        elif name in MEASURES:
            found[name] = None
        else:
            raise UsageError(f"There is no measure {name!r}; there are {', '.join((*MEASURES, *GROUPS))} and all.")
    if not found:
        raise UsageError("No measures given.")
    return tuple(m for m in MEASURES if m in found)


def methods_for(names: str | Sequence[MethodLike] | None, slow: bool = False) -> dict[str, Method]:
    """Methods by name; ``None`` and ``all`` are every method but the slow ones (``slow=True``: those too)."""
    listed: list[MethodLike] = ["all"] if names is None else [names] if isinstance(names, str) else list(names)
    chosen: list[Method] = []
    for name in listed:
        if name == "all":
            chosen += [kind() for kind in METHODS.values() if slow or not kind.about.slow]
        else:
            chosen.append(method(name))
    if not chosen:
        raise UsageError("No methods given: `convoscope methods` lists them.")
    return named(chosen, merge=True)


@dataclass(frozen=True, eq=False)
class EachItsOwn(Target):
    """A target: each picture's own class, by the picture; ``None`` is the predicted class."""

    classes: dict[int, int | None]

    def layers(self, model: Model) -> tuple[str, ...]:
        return ()

    def files(self) -> tuple[Path, ...]:
        return ()

    def key(self) -> str:
        return f"each its own of {sorted(self.classes.items())}"

    def resolve(self, model: Model, output: Any, pictures: Sequence[Any], runner: Runner) -> Scorer:
        reading, values = scores_of(model, output, len(pictures))
        predicted = class_indices(None, model, values)
        chosen = []
        for row, one in enumerate(pictures):
            wanted = self.classes.get(id(one.picture))
            index = int(predicted[row]) if wanted is None else class_index(wanted, model.labels, values.shape[1])
            chosen.append(index)
        return ClassScorer(torch.tensor(chosen), tuple(model.label(c) for c in chosen), None, reading)


@shows_progress("Measuring")
def evaluate_cases(
    model: Model,
    cases: Sequence[Case],
    methods: str | Sequence[MethodLike] | None = None,
    *,
    settings: Settings | None = None,
    out: str | Path | None = None,
    slow: bool = False,
    progress: Progress | None = None,
    spread: RayPool | None = None,
) -> League:
    """Explain every case with every method, measure the maps, and gather the league table.

    Measures that need to know where the object is are taken where a case has a ``region``; those on the tag where it
    has one. A case whose picture cannot be read stands in ``failed`` and the rest goes on. Pictures share forwards,
    methods share passes.

    Args:
        model: an open model.
        cases: pictures with what is known of them: :mod:`convoscope.trust.datasets`.
        methods: names or instances; default all that are not slow.
        settings: which measures, and how they are taken.
        out: every case's figures are written down here as soon as they are known (``cases.jsonl``): the same call goes
            on where it was stopped.
        slow: take the slow methods, too.
        progress: called as ``progress(done, total)``.
        spread: measures the groups of pictures on Ray.

    Returns:
        The league table: each cell a mean over pictures with its bootstrap interval.

    Raises:
        UsageError: no pictures, or ``out`` holds another evaluation.
    """
    settings = settings or Settings()
    chosen = methods_for(methods, slow)
    if not cases:
        raise UsageError("No pictures to evaluate.")
    duplicates = len(cases) - len({case.key for case in cases})
    if duplicates:
        raise UsageError(f"{duplicates} cases share a key with another.")
    ledger = Ledger.open(out, _header(model, chosen, settings))
    # a failure is not a result: what could not be read may be back
    wanted = [case for case in cases if "failed" in ledger.rows.get(case.key, {"failed": ""})]
    done = len(cases) - len(wanted)
    if progress is not None:
        progress(done, len(cases))
    for key, row in _rows(model, _groups(wanted, min(_AT_ONCE, model.batch_size)), chosen, settings, spread):
        ledger.add(key, row)
        done += 1
        if progress is not None:
            progress(done, len(cases))
    return _league(model, cases, ledger.rows, settings)


#: the public name
evaluate = evaluate_cases


def _rows(
    model: Model, groups: Iterator[list[Case]], methods: dict[str, Method], settings: Settings, spread: RayPool | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The figures of every case, here or on Ray."""
    if spread is None:
        kept = Kept()
        for group in groups:
            yield from _measure_group(model, group, methods, settings, kept)
        return

    def work(opened: Model, group: list[Case]) -> list[tuple[str, dict[str, Any]]]:
        return list(_measure_group(opened, group, methods, settings, Kept()))

    tasks = [Task(group[0].key, group) for group in groups]
    for done in spread.run(model, work, tasks):
        yield from done.value


def _groups(cases: Sequence[Case], size: int) -> Iterator[list[Case]]:
    for start in range(0, len(cases), size):
        yield list(cases[start : start + size])


def _league(model: Model, cases: Sequence[Case], rows: dict[str, Any], settings: Settings) -> League:
    good = {case.key: rows[case.key]["measures"] for case in cases if "measures" in rows[case.key]}
    refused = {name: why for case in cases for name, why in rows[case.key].get("refused", {}).items()}
    failed = {case.key: rows[case.key]["failed"] for case in cases if "failed" in rows[case.key]}
    right = [rows[key]["right"] for key in good if rows[key].get("right") is not None]
    facts: dict[str, Any] = {**asdict(settings), "fingerprint": model.fingerprint}
    if right:
        facts["predicted_right"] = sum(right) / len(right)
    return League.of(good, model=model.name, settings=facts, refused=refused, failed=failed)


def _measure_group(
    model: Model, group: list[Case], methods: dict[str, Method], settings: Settings, kept: Kept
) -> Iterator[tuple[str, dict[str, Any]]]:
    pictures: list[Picture] = []
    read: list[Case] = []
    for case in group:
        try:
            pictures.append(case.picture())
            read.append(case)
        except PictureError as error:
            yield case.key, {"failed": str(error)}
    if not read:
        return
    target = EachItsOwn({id(p): case.target for p, case in zip(pictures, read, strict=True)})
    found = explain(model, pictures, list(methods.values()), target=target, resize=settings.resize)
    for case, one in zip(read, found, strict=True):
        if not np.isfinite(one.score):
            yield (
                case.key,
                {"failed": f"{one.picture}: the score is {one.score} (NaN or infinite): nothing to measure."},
            )
            continue
        arrays = {name: heatmap.values for name, heatmap in one.items()}
        row: dict[str, Any] = {"measures": measure_case(model, case, one, arrays, settings, kept)}
        if one.refused:
            row["refused"] = dict(one.refused)
        if case.target is not None and one.prediction:
            row["right"] = one.prediction[0]["index"] == case.target
        yield case.key, row


def baselines(fitted: ModelInput, seed: int) -> dict[str, NDArray[np.float32]]:
    """The maps that know nothing of the network: centre, edges, random and a smooth random."""
    size = int(fitted.tensor.shape[-2]), int(fitted.tensor.shape[-1])
    return {
        "centre": localisation.centre(size),
        "edges": localisation.edges(fitted.tensor.float().numpy()),
        "random": localisation.random(size, seed),
        "random-smooth": localisation.random_smooth(size, seed),
    }


def measure_case(
    model: Model,
    case: Case,
    explanation: Explanation,
    maps: dict[str, NDArray[np.float32]],
    settings: Settings,
    kept: Kept | None = None,
) -> dict[str, dict[str, float | None]]:
    """``measures[measure][method]`` of one picture; baselines are added to the maps.

    ``kept`` carries the prepared network from one picture to the next.
    """
    fitted = explanation.fitted
    seed = zlib.crc32(f"{settings.seed}:{case.key}".encode())
    everything = {**maps, **baselines(fitted, seed)}
    names, values = list(everything), np.stack(list(everything.values()))
    found: dict[str, dict[str, float | None]] = {}

    def keep(measure: str, figures: Sequence[float]) -> None:
        found[measure] = {n: float(v) if np.isfinite(v) else None for n, v in zip(names, figures, strict=True)}

    if case.region is not None:
        mask = case.region.on_input(fitted)
        for measure, take in localisation.MEASURES.items():
            if measure in settings.measures:
                extra = {"tolerance": settings.tolerance} if measure == "pointing" else {}
                keep(measure, take(values, mask, **extra).tolist())  # type: ignore[operator]
    if case.tag is not None and "energy-inside" in settings.measures:
        keep("tag-energy", localisation.energy_inside(values, case.tag.on_input(fitted)).tolist())
    if any(m in settings.measures for m in GROUPS["faithfulness"]):
        target: TargetLike = case.target
        if target is None and explanation.prediction:
            target = int(explanation.prediction[0]["index"])
        with scoring(model, fitted, target, seed=seed, many_more_follow=True, kept=kept) as scored:
            for measure, figures in _faithful(scored, values, settings, seed).items():
                keep(measure, figures)
    return found


def _faithful(
    scored: Scoring, values: NDArray[np.float32], settings: Settings, seed: int
) -> dict[str, Sequence[float]]:
    found: dict[str, Sequence[float]] = {}
    wanted = settings.measures
    if "insertion" in wanted:
        fill = scored.filled(settings.insertion_fill, settings.noise)
        curves = faithfulness.insertion(values, fill, steps=settings.steps, seed=seed)
        found["insertion"] = [curve.area for curve in curves]
    if "deletion" in wanted:
        fill = scored.filled(settings.deletion_fill, settings.noise)
        curves = faithfulness.deletion(values, fill, steps=settings.steps, seed=seed)
        found["deletion"] = [curve.area for curve in curves]
    if "road" in wanted:
        pairs = faithfulness.road(values, scored.filled("inpaint", settings.noise), seed=seed)
        found["road"] = [faithfulness.road_gap(*pair) for pair in pairs]
    if "sensitivity-n" in wanted or "infidelity" in wanted:
        size = int(values.shape[1]), int(values.shape[2])
        masks = faithfulness.subsets(size, settings.subsets, settings.share, settings.cell, seed)
        drops = scored.whole - scored.filled("mean")(masks)
        if "sensitivity-n" in wanted:
            found["sensitivity-n"] = faithfulness.sensitivity_n(values, masks, drops).tolist()
        if "infidelity" in wanted:
            found["infidelity"] = faithfulness.infidelity(values, masks, drops).tolist()
    return found


def _header(model: Model, methods: dict[str, Method], settings: Settings) -> dict[str, Any]:
    listed = {name: {"method": one.about.name, **vars(one)} for name, one in methods.items()}
    header = {
        "network": model.fingerprint,
        "code": model.code,
        "preprocessing": model.preprocessing.to_dict(),
        "methods": listed,
        "settings": asdict(settings),
        "version": __version__,
    }
    return json.loads(json.dumps(header, default=str))  # type: ignore[no-any-return]


def plainly(settings: Settings) -> Settings:
    """The same, drawn by the usual half-pixel resize instead of at the cells' true centres."""
    return replace(settings, resize="plain")

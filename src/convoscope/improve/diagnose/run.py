"""The stages one after the other, one correction over all their tests, and what is left of it, ranked."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ConvoscopeError, UsageError
from ...notebook import shows_progress
from ...plain import plain
from ..collection import Labelled
from ..finding import Finding, ranked
from ..look import accuracy
from ..statistics import LEVEL, Interval, corrected, share
from .stage import LEAST, STAGES, Case, Progress, Stage, StageResult, quiet

if TYPE_CHECKING:
    from ...models.model import Model
    from ...parallel import RayPool

#: findings that are shown: a person reads no more
MOST = 7
#: share of the smaller finding's pictures from which two findings are one
SHARED = 2 / 3


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What is wrong with a network, as far as could be found.

    Args:
        findings: what stands at 5 % after the correction, ranked by the pictures to be won, at most seven.
        further: what stands, too, but comes after those.
        tests: how many tests were made.
        stopped: ``"input"`` where the input is so wrong that nothing else was asked; None otherwise.
        missed: one sentence or a few: what could have been missed.
        stages: what each stage gave, in the order run.
        model: the network's name.
        pictures: how many could be read.
        right: the share that is right; None without labels.
        failed: URI -> why it could not be read.
        interrupted: the stages that were not run because somebody stopped the run.
        case: the network and its pictures.
    """

    findings: tuple[Finding, ...]
    further: tuple[Finding, ...]
    tests: int
    stopped: str | None
    missed: str
    stages: Mapping[str, StageResult]
    model: str
    pictures: int
    right: Interval | None
    failed: Mapping[str, str] = field(default_factory=dict)
    interrupted: tuple[str, ...] = ()
    case: Case | None = field(default=None, repr=False)

    @property
    def refused(self) -> dict[str, str]:
        """Stage -> why it could not be done."""
        return {name: one.refused for name, one in self.stages.items() if one.refused is not None}

    def to_dict(self) -> dict[str, Any]:
        """What ``convoscope diagnose --json`` prints: findings, tests, what it stopped at, what could be missed."""
        return {
            "findings": [one.to_dict() for one in self.findings], "tests": self.tests, "stopped": self.stopped,
            "missed": self.missed,
        }  # fmt: skip

    def document(self) -> dict[str, Any]:
        """``diagnosis.json``: :meth:`to_dict`, and what the page and ``repair --from`` read beside it.

        ``settings`` has the evidence of each finding, in their order.
        """
        return {
            **self.to_dict(), "model": self.model, "pictures": self.pictures,
            "right": None if self.right is None else self.right.to_dict(),
            "further": [one.to_dict() for one in self.further],
            "settings": [plain(dict(one.evidence)) for one in self.findings],
            "stages": [
                {
                    "name": name, "tests": _tests(one), "found": self.of_stage(name), "refused": one.refused,
                    "could_miss": one.could_miss,
                }
                for name, one in self.stages.items()
            ],
            "interrupted": list(self.interrupted),
        }  # fmt: skip

    @property
    def sentence(self) -> str:
        """The answer in one line."""
        if self.findings:
            total = len(self.findings) + len(self.further)
            return f"{total} finding{'s' if total != 1 else ''} of {self.tests} tests."
        if not self.tests:
            return "Nothing could be tested."
        return f"Nothing found: {self.tests} tests."

    def of_stage(self, name: str) -> int:
        """How many findings of a stage stand."""
        said = {one.sentence for one in (*self.findings, *self.further)}
        return sum(one.sentence in said for one in self.stages[name].findings)

    def page(self) -> str:
        """One self-contained HTML page."""
        from .page import page

        return page(self)

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``diagnosis.html`` and ``diagnosis.json`` into ``folder``, each whole or not at all."""
        import json

        from ...files import write_whole

        target = Path(folder)
        document = json.dumps(plain(self.document()), indent=2, ensure_ascii=False)
        return [
            write_whole(target / "diagnosis.html", self.page()),
            write_whole(target / "diagnosis.json", document + "\n"),
        ]

    def __str__(self) -> str:
        lines = [f"{number}. {one.sentence}" for number, one in enumerate(self.findings, 1)]
        return "\n".join([self.sentence, *lines, self.missed])

    def _repr_html_(self) -> str:
        from .page import fragment

        return fragment(self)


@shows_progress("Diagnosing")
def diagnose(
    model: Any,
    pictures: Any,
    train: Any = None,
    only: Sequence[str] | str | None = None,
    *,
    truth: Any = None,
    seed: int = 0,
    progress: Progress | None = None,
    words: Sequence[str] = ("MODEL", "PICTURES"),
    flags: Sequence[str] = (),
    train_words: Sequence[str] = (),
    spread: RayPool | None = None,
) -> Diagnosis:
    """Ask a network everything that is known to go wrong, and test what is claimed.

    A finding is made on one half of the pictures and tested on the other; all tests of all stages are corrected
    together (Benjamini & Hochberg 1995) at 5 %.

    Args:
        model: a :class:`Model`, a module, or a spec.
        pictures: what it disappoints on: a folder of class folders, files, pairs of a picture and a label, a store.
        train: what it was trained on, in any of these forms, where that is known.
        only: stages to run: of input, data, units, slices, stress, depth, shortcuts. All by default.
        truth: a CSV or a mapping of file to label, where the folders' names are not the labels.
        seed: of everything random.
        progress: ``(what, done, of all)`` is told meanwhile.
        words: how model and pictures are named in the next commands.
        flags: model flags to be repeated there.
        train_words: how the training pictures are named there.
        spread: looks at the pictures in several processes.

    Returns:
        the findings, and what could have been missed.

    Raises:
        UsageError: no such stage; no pictures.
        PictureError: none of the pictures can be read.
        ModelError: the network cannot run on them at all.
    """
    from ...models.opening import open_model

    chosen = stage_names(only)
    opened: Model = open_model(model)
    case = Case(
        opened, Labelled.of(pictures, opened, truth), None if train is None else Labelled.of(train, opened),
        _store_of(pictures), seed, progress or quiet, tuple(words), tuple(flags), tuple(train_words),
        spread=spread,
    )  # fmt: skip
    return examine(case, chosen)


def stage_names(only: Sequence[str] | str | None) -> tuple[str, ...]:
    """The stages that are asked for, in their order. Raises :class:`UsageError` for one that does not exist."""
    known = [name for name, _ in STAGES]
    if only is None:
        return tuple(known)
    asked = [only] if isinstance(only, str) else list(only)
    parts = [part.strip().lower() for text in asked for part in text.split(",") if part.strip()]
    strange = next((part for part in parts if part not in known), None)
    if strange is not None or not parts:
        raise UsageError(f"--only takes {', '.join(known)}, not {strange or 'nothing'}.")
    return tuple(name for name in known if name in parts)


def available(chosen: Sequence[str]) -> Iterator[tuple[str, Stage]]:
    """The chosen stages that are installed, made one by one as they come."""
    for name, path in STAGES:
        if name not in chosen:
            continue
        module, _, kind = path.partition(":")
        try:
            made: Stage = getattr(importlib.import_module(module), kind)()
        except ModuleNotFoundError as missing:
            if missing.name is not None and not missing.name.startswith("convoscope"):
                raise
            continue
        yield name, made


def examine(case: Case, chosen: Sequence[str]) -> Diagnosis:
    """Run the chosen stages on a case. Whoever stops it (Ctrl-C) keeps the stages that are done."""
    results: dict[str, StageResult] = {}
    stopped: str | None = None
    left = list(chosen)
    interrupted: tuple[str, ...] = ()
    try:
        _ = case.looked  # what no stage can do without: here it may raise
        for name, stage in available(chosen):
            results[name] = run_stage(stage, case)
            left.remove(name)
            if results[name].stops:
                stopped = name
                break
    except KeyboardInterrupt:
        if not results:
            raise
        interrupted = tuple(left)
    return _concluded(case, results, stopped, interrupted)


def run_stage(stage: Stage, case: Case) -> StageResult:
    """One stage; what it raises for a network that it does not fit becomes its refusal."""
    try:
        return stage.run(case)
    except ConvoscopeError as refusal:
        return StageResult(refused=str(refusal))


def _concluded(
    case: Case, results: dict[str, StageResult], stopped: str | None, interrupted: tuple[str, ...]
) -> Diagnosis:
    looked = case.looked
    kept, tests = concluded(list(results.values()))
    told = _missed(case, results, stopped, interrupted)
    if tests and stopped is None and not interrupted:
        told = f"{told} {false_alarms()}".strip()
    known = looked.pictures.known
    right = (
        share(int(looked.right[known].sum()), int(known.sum()))
        if looked.scores is not None and accuracy(looked) is not None
        else None
    )
    return Diagnosis(
        tuple(kept[:MOST]), tuple(kept[MOST:]), tests, stopped,
        told, results, case.model.name, len(looked.pictures), right,
        looked.failed, interrupted, case,
    )  # fmt: skip


def concluded(results: Sequence[StageResult]) -> tuple[list[Finding], int]:
    """What is told of all stages' results, the largest first, and how many tests were made."""
    return merged(ranked(standing(results))), sum(_tests(one) for one in results)


def merged(findings: Sequence[Finding]) -> list[Finding]:
    """Findings about the same pictures told as one.

    A slice says where a network fails, other kinds say why. Where the slice is a whole class, the reason leads; where
    it is narrower (half of the cars, those at night), the slice does, since it says more. The one that leads has the
    worth of both and names the other. Of two slices the first leads.
    """
    kept: list[Finding] = []
    for one in findings:
        at = next((at for at, held in enumerate(kept) if _same(held, one)), None)
        if at is None:
            kept.append(one)
            continue
        held = kept[at]
        lead, other = (one, held) if _before(one, held) else (held, one)
        doubt = f"{lead.doubt} The same pictures: {other.sentence}".strip()
        kept[at] = replace(lead, doubt=doubt, won=max(held.won, one.won))
    return kept


def _before(one: Finding, held: Finding) -> bool:
    """Whether ``one`` says more of the same pictures than ``held``, which has the larger worth."""
    if one.kind == held.kind:
        return False
    if held.kind == "slice":
        return bool(held.evidence.get("whole"))
    return not one.evidence.get("whole")


def _same(first: Finding, second: Finding) -> bool:
    """Whether two findings are about the same pictures, and one of them only says where."""
    if "slice" not in (first.kind, second.kind) or not first.concerns or not second.concerns:
        return False
    shared = len(set(first.concerns) & set(second.concerns))
    return shared >= SHARED * min(len(first.concerns), len(second.concerns))


def false_alarms() -> str:
    """How often the tool accuses healthy networks, as ``benchmarks/diagnose.py`` has measured it; or nothing."""
    try:
        told = json.loads(measured_file().read_text(encoding="utf-8"))
        alarms, healthy = int(told["alarms"]), int(told["healthy"])
    except (OSError, ValueError, KeyError):
        return ""
    rate = share(alarms, healthy)
    return (
        f"False alarms: {alarms} on {healthy} healthy networks of drawn pictures ({rate.mean:.1%}, 95 % interval "
        f"{rate.low:.1%} to {rate.high:.1%})."
    )


def measured_file() -> Path:
    """The figures of ``benchmarks/diagnose.py``, by which the tool says how often it raises false alarms."""
    return Path(__file__).with_name("measured.json")


def _tests(result: StageResult) -> int:
    """The tests of a stage: never fewer than the p values that it hands over."""
    return max(result.tests, sum(one.p is not None for one in result.findings))


def standing(results: Any) -> list[Finding]:
    """The findings that stand: corrected over all tests of all stages, those without a p value as they are.

    Tests that found nothing count with p = 1, which is never less strict than their true values.
    """
    listed = list(results)
    tested = [one for result in listed for one in result.findings if one.p is not None]
    silent = sum(_tests(one) for one in listed) - len(tested)
    raw = np.array([*(float(one.p or 0.0) for one in tested), *[1.0] * silent])
    adjusted = dict(zip(map(id, tested), corrected(raw), strict=False))
    found = []
    for result in listed:
        for one in result.findings:
            if one.won < LEAST:
                continue
            if one.p is None:
                found.append(one)
            elif adjusted[id(one)] <= LEVEL:
                found.append(replace(one, p=float(adjusted[id(one)])))
    return found


def _missed(case: Case, results: Mapping[str, StageResult], stopped: str | None, interrupted: tuple[str, ...]) -> str:
    parts = []
    if stopped is not None:
        parts.append("The input comes first: with a wrong one the other stages would measure nothing.")
    could = [one.could_miss.rstrip(".") for one in results.values() if one.could_miss]
    if could:
        parts.append(f"Could have been missed: {'; '.join(could)}.")
    refused = {name: one.refused for name, one in results.items() if one.refused is not None}
    parts += [f"Not done: {name} ({why.rstrip('.')})." for name, why in refused.items()]
    if interrupted:
        parts.append(f"Stopped before: {', '.join(interrupted)}.")
    if not parts:
        parts.append("No stage was run.")
    return " ".join(parts).strip()


def _store_of(pictures: Any) -> Any:
    if hasattr(pictures, "ledger") and hasattr(pictures, "recipe"):
        return pictures
    if isinstance(pictures, (str, Path)) and Path(pictures, "units.lance").is_dir():
        from ...surveys.store.store import Store

        return Store.open(pictures)
    return None

"""``repair``: one finding, one way, one proof; nothing is written that does not hold."""

from __future__ import annotations

import csv
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ConvoscopeError, UsageError
from ...files import read_text
from ...models.opening import open_model
from ...notebook import shows_progress
from ..collection import Labelled
from ..shortcuts.bench import Bench, classifies
from ..shortcuts.find import search, shortcuts
from ..shortcuts.result import Shortcuts
from .attempt import Attempt
from .batchnorm import repair_batchnorm
from .calibrate import repair_confidence
from .card import card
from .examples import Fault
from .head import repair_groups, repair_head
from .preprocessing import repair_input
from .pruning import repair_units
from .result import Repaired
from .split import PROOF, parts

Tell = Callable[[str, int, int], None]

HOWS = ("head", "bn", "prune", "calibrate", "input")
#: pictures of a class that a repair uses at most
PER_CLASS = 400
#: fewer pictures cannot be cut into parts that fit, choose and prove
FEWEST = 60
#: kinds of findings -> how they are repaired
_BY_KIND = {"shortcut": "head", "input": "input", "units": "prune", "calibration": "calibrate"}


@shows_progress("Repairing")
def repair(
    model: Any,
    pictures: Any,
    *,
    how: str | None = None,
    finding: int | Mapping[str, Any] | None = None,
    found: Shortcuts | str | Path | None = None,
    groups: str | Path | Mapping[str, str] | None = None,
    truth: str | Path | Mapping[str, Any] | None = None,
    prove: Any = None,
    is_part: Sequence[str] = (),
    not_part: Sequence[str] = (),
    out: str | Path | None = None,
    seed: int = 0,
    compare: bool = True,
    progress: Tell | None = None,
) -> Repaired:
    """A better checkpoint from one finding, with proof, or the reason why there is none.

    The pictures are cut in parts by their content: some fit, some choose, and 40 % prove. Nothing passes unless the
    proving counterexamples (or groups, or the likelihood) improve beyond their interval and ordinary proving pictures
    lose less than 0.5 points. The network given is not touched.

    Args:
        model: a network (a spec, an ``nn.Module``, a :class:`~convoscope.Model`): a classifier.
        pictures: a folder, files, pairs of a picture and a label, a :class:`~convoscope.Store`; labels are needed.
        how: ``head``, ``bn``, ``prune``, ``calibrate`` or ``input``; None follows from the finding. ``head`` fits
            against the shortcuts that are found; where there is none, it is fitted so that every class counts the same.
        finding: its number (from 1) among those of ``found`` or of a search made now, or its evidence.
        found: the result of :func:`shortcuts`, or a ``shortcuts.json`` or ``diagnosis.json``.
        groups: a CSV of file and group (or a mapping): the head is fitted so that every group counts the same.
        truth: a CSV file or a mapping of file to label, where folder names are not the labels.
        prove: other labelled pictures that prove, instead of a part of these.
        is_part: labels whose spot is a part of the thing, for the search.
        not_part: labels whose spot is not.
        out: where to write the weights (``.safetensors``), with a card and a page beside; None writes nothing.
        seed: of everything random.
        compare: end in :func:`diff` of before against after.
        progress: called with what is done, how much, and of how much.

    Returns:
        the proof, the repaired network, and where it was written.

    Raises:
        UsageError: too few pictures, an unknown way, a finding that is not there.
        ModelError: a network that this way does not fit; the sentence says which would.
    """
    said = progress or (lambda what, done, total: None)
    if how is not None and how not in HOWS:
        raise UsageError(f"A network is repaired by {', '.join(HOWS)}, not {how!r}.")
    if how not in (None, "head") and groups is not None:
        raise UsageError(f"--groups goes with --how head, not with {how}.")
    began = time.perf_counter()
    opened = open_model(model)
    labelled = Labelled.of(pictures, opened, truth)
    known = int(labelled.known.sum())
    if known < FEWEST:
        if known == 0:
            classifies(opened, labelled)
        raise UsageError(
            f"{known} pictures of known class are too few: some fit, some choose and the rest must prove, which takes "
            f"at least {FEWEST} (and better some hundreds)."
            + ("" if known else " Labels are class folders, a truth.csv, or --truth FILE.csv.")
        )
    bench = Bench.of(
        opened, labelled, per_class=PER_CLASS, seed=seed, lean=True,
        progress=lambda done, total: said("Reading pictures", done, total),
    )  # fmt: skip
    proof = None
    if prove is not None:
        proof = _proving(opened, prove, bench, seed)
    named = None if groups is None else _groups(groups, bench)
    cut = [f"{kind} {name}" for kind, name in zip(bench.truth, named or bench.truth, strict=True)]
    part = parts(bench.pictures.keys, cut, seed, proof is None)
    held = proof if proof is not None else bench.take(np.flatnonzero(part == PROOF))
    read_in = time.perf_counter()
    evidence, chosen = _finding(
        bench, part, how, finding, found, groups, is_part, not_part, seed, opened, labelled, said
    )
    way = how or chosen
    searched = time.perf_counter()
    if way == "head" and named is None and not evidence and (how, finding) != (None, None):
        # no shortcut to fit against, and the head is asked for: it may have lost what its features tell of a class
        named = _groups(None, bench)
    if way == "head" and named is None and not evidence:
        why = "Nothing to repair: no shortcut was found that a head could be fitted against."
        return Repaired("head", why, bench, held, seconds={"search": searched - read_in})
    said("Repairing", 0, 1)
    attempt = _attempt(way, bench, part, evidence, named, proof, groups, seed)
    fitted = time.perf_counter()
    plain = {"class": evidence[0].get("class"), **evidence[0]} if evidence else None
    counts = {
        "fitted": int((part != PROOF).sum()), "proved": len(held.truth), "classes": len(bench.classes),
        "left_out": bench.left_out, "failed": len(bench.failed),
    }  # fmt: skip
    target = Path(out) if out is not None else Path("fixed.safetensors")
    result = Repaired(
        way, attempt.proof.why, bench, held, attempt,
        card(bench, attempt, target, counts, plain), None, None, plain,
        {}, {"search": searched - read_in, "repair": fitted - searched},
    )  # fmt: skip
    if way == "head" and evidence:
        from .page import examples_shown

        result.shown = examples_shown(result, [Fault.of(one, opened.labels) for one in evidence], seed)
    if compare and len(held.truth) >= 30:
        result.difference = _difference(result, said)
    result.seconds = {**result.seconds, "all": time.perf_counter() - began}
    if out is not None and attempt.proof.holds:
        result.save(out)
    return result


def _attempt(
    way: str, bench: Bench, part: Any, evidence: list[Mapping[str, Any]], named: Sequence[str] | None,
    proof: Bench | None, groups: Any, seed: int,
) -> Attempt:  # fmt: skip
    if way == "head" and named is not None:
        proving = None if proof is None else (proof, _groups(groups, proof))
        return repair_groups(bench, part, named, seed, proof=proving)
    if way == "head":
        return repair_head(bench, part, [Fault.of(one, bench.model.labels) for one in evidence], seed, proof)
    if way == "bn":
        return repair_batchnorm(bench, part, seed, proof)
    if way == "prune":
        return repair_units(bench, part, seed, proof)
    if way == "calibrate":
        return repair_confidence(bench, part, seed, proof)
    return repair_input(bench, part, seed, proof, evidence[0] if evidence else None)


def _finding(
    bench: Bench, part: Any, how: str | None, finding: Any, found: Any, groups: Any, is_part: Sequence[str],
    not_part: Sequence[str], seed: int, model: Any, labelled: Labelled, said: Tell,
) -> tuple[list[Mapping[str, Any]], str]:  # fmt: skip
    """The evidence of what is to be repaired, and by which way."""
    if isinstance(finding, Mapping):
        return [finding], how or "head"
    if finding is None and (groups is not None or how not in (None, "head")):
        return [], how or "head"
    if found is None and finding is None:
        # what proves may have no part in finding, either
        whole = bench.take(np.flatnonzero(part != PROOF))
        listed = search(whole, is_part=is_part, not_part=not_part, seed=seed, said=said)
        return [
            one.evidence
            for one in listed.findings
            if "class_index" in one.evidence and one.evidence["family"] != "files"
        ], "head"
    if found is None:
        found = shortcuts(model, labelled, is_part=is_part, not_part=not_part, seed=seed, progress=said)
    if isinstance(found, Shortcuts):
        kinds, evidence = [one.kind for one in found.findings], found.settings()
        names, ways = [one.class_name for one in found.findings], [_way(one.next) for one in found.findings]
    else:
        kinds, names, evidence, ways = _read(Path(found))
    if finding is None:
        return [
            one for one, kind in zip(evidence, kinds, strict=True) if kind == "shortcut" and "class_index" in one
        ], "head"
    if not 1 <= finding <= len(kinds):
        there = "there is none" if not kinds else f"there {'is' if len(kinds) == 1 else 'are'} {len(kinds)}"
        raise UsageError(f"--finding {finding}: there is no such finding; {there}.")
    kind = kinds[finding - 1]
    way = how or ways[finding - 1] or _BY_KIND.get(kind)
    if way == "head" and ways[finding - 1] == "head":
        return [], "head"  # the head itself is at fault, and no shortcut
    if way is None:
        raise UsageError(
            f"Finding {finding} is of the kind {kind!r}, which no repair of a checkpoint undoes: the data or the "
            "training must change (its own next command tells more)."
        )
    chosen = evidence[finding - 1]
    if way == "head" and "family" not in chosen:
        # a finding of another stage, or without what was measured: its class is looked at again
        again = shortcuts(model, labelled, is_part=is_part, not_part=not_part, seed=seed, progress=said)
        chosen = next((one.evidence for one in again.findings if one.class_name == names[finding - 1]), {})
        if not chosen:
            raise UsageError(f"--finding {finding}: no shortcut of {names[finding - 1]} is found in these pictures.")
    return [chosen], way


def _way(command: str) -> str | None:
    """The way that a finding's next command asks for, where it is a repair."""
    found = re.search(r"\brepair\b.* --how (\w+)", command)
    return found[1] if found and found[1] in HOWS else None


def _read(path: Path) -> tuple[list[str], list[str | None], list[dict[str, Any]], list[str | None]]:
    """Kinds, classes, evidence and ways of the findings in a ``shortcuts.json`` or ``diagnosis.json``."""
    try:
        document = json.loads(read_text(path))
        listed = document["findings"]
        kinds, names = [str(one["kind"]) for one in listed], [one["class"] for one in listed]
        ways = [_way(str(one.get("next") or "")) for one in listed]
        settings = document.get("settings") or [one.get("evidence", {}) for one in listed]
    except FileNotFoundError:
        raise UsageError(f"--from {path}: there is no such file.") from None
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"--from {path}: this is no shortcuts.json or diagnosis.json of Convoscope's.") from None
    if len(settings) != len(kinds):
        raise UsageError(f"--from {path}: findings and settings do not belong together.")
    return kinds, names, [dict(one) for one in settings], ways


def _groups(groups: str | Path | Mapping[str, str] | None, bench: Bench) -> list[str]:
    """The group's name of each picture: the class, where none is given."""
    from ...surveys.gather.shards import truth_labels

    if groups is None:
        names = bench.model.labels or ()
        twice = {name for name in names if names.count(name) > 1}
        of = {int(kind): bench.model.label(int(kind)) for kind in np.unique(bench.truth)}
        return [f"{of[kind]} ({kind})" if of[kind] in twice else of[kind] for kind in map(int, bench.truth)]
    uris = list(bench.pictures.uris)
    named: Mapping[str, Any]
    if isinstance(groups, Mapping):
        named = groups
    else:
        try:
            named = truth_labels(_by_file(Path(groups)), uris)
        except ConvoscopeError as error:
            raise UsageError(f"--groups {groups}: {error}") from None
    missing = [uri for uri in uris if named.get(uri) is None]
    if missing:
        raise UsageError(
            f"--groups names no group for {missing[0]} (and {len(missing) - 1} more): every picture needs one."
        )
    return [str(named[uri]) for uri in uris]


def _by_file(path: Path) -> str | Path | Mapping[str, str]:
    """File -> group of a CSV with a column ``group``; a table with a column of labels is read as any other."""
    try:
        rows = list(csv.reader(read_text(path).splitlines()))
    except (OSError, UnicodeDecodeError):
        return path  # whoever reads it next says what is wrong with it
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    if "group" not in header or len(header) < 2:
        return path
    at = header.index("group")
    names = ("file", "path", "picture", "image", "filename", "uri", "name")
    file = next((header.index(one) for one in names if one in header), 1 if at == 0 else 0)
    return {row[file].strip(): row[at].strip() for row in rows[1:] if len(row) > max(at, file)}


def _proving(model: Any, prove: Any, bench: Bench, seed: int) -> Bench:
    held = Bench.of(model, Labelled.of(prove, model), per_class=PER_CLASS * 5, seed=seed)
    if held.inputs.shape[1:] != bench.inputs.shape[1:]:
        raise UsageError("--prove: these pictures make inputs of another size: set --size.")
    seen = set(bench.pictures.keys)
    fresh = np.array([key not in seen for key in held.pictures.keys])
    if not fresh.any():
        raise UsageError("--prove: every one of these pictures is among those that the repair is made from.")
    return held.take(np.flatnonzero(fresh))


def _difference(result: Repaired, said: Tell) -> Any:
    from ..diff import diff

    after = result.model
    before = result.bench.model
    try:
        return diff(before, after, result.held.pictures, names=["before", "after"], maps=4, units=3, progress=said)
    except ConvoscopeError:
        return None

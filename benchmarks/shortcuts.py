"""Shortcuts and repairs on the ward: which planted ones are found, how often healthy classes are accused, what repair
wins.

    python benchmarks/shortcuts.py [FOLDER] --rows FILE.jsonl [--case WORD ...] [--again] [--table] [--no-repair]
        [--diagnosed ROWS | --no-search]

FOLDER is the ward that `convoscope toybox FOLDER --ward` made; without one its cases are made in the cache. A line a
case is appended to FILE.jsonl, so that a stopped run goes on; the last line of a case counts.

The worst group is the least recall over classes, with and without the shortcut, on pictures drawn afresh, which neither
the search nor the repair has seen; so is ordinary accuracy (each class as it comes in the case's own world). Healthy
networks are given to `repair` without a finding: it must refuse. Faults that batch norm, pruning or a temperature
undo are given to those, and their effect is measured again. With ``--no-search`` healthy networks are only given to
`repair`, which searches by itself.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convoscope.errors import ConvoscopeError
from convoscope.improve.collection import Labelled
from convoscope.improve.repair.api import repair
from convoscope.improve.shortcuts.bench import Bench
from convoscope.improve.shortcuts.find import search
from convoscope.models.model import Model
from convoscope.plain import plain
from convoscope.toybox import ward
from convoscope.toybox.ward.case import Case, right

#: cases that another way than the head's undoes
HOW = {
    "units-stale": "bn", "units-dead": "bn", "units-saturated": "bn", "units-duplicated": "prune",
    "optimisation-sure": "calibrate",
    "optimisation-unsure": "calibrate",
}  # fmt: skip
#: what no person sees
INVISIBLE = ("checkerboard", "stripes", "jpeg", "jpeg-hard")


def groups(case: Case, models: Mapping[str, Model], count: int = 30, seed: int = 977) -> dict[str, dict[str, float]]:
    """On pictures drawn afresh: the least recall over classes with and without the shortcut, and ordinary accuracy."""
    least = dict.fromkeys(models, 1.0)
    ordinary: dict[str, list[Any]] = {name: [] for name in models}
    for carried in (False, True):
        drawn = case.render(carried, count, seed)
        labels = np.asarray(drawn.labels)
        for name, model in models.items():
            hits = right(model, drawn)
            for one in np.unique(labels):
                share = float(hits[labels == one].mean())
                least[name] = min(least[name], share)
                if (model.label(int(one)) == case.label) == carried:
                    ordinary[name].append(share)
    return {name: {"worst": least[name], "ordinary": float(np.mean(ordinary[name]))} for name in models}


def found_in(case: Case) -> tuple[dict[str, Any], list[Mapping[str, Any]]]:
    """What the search finds in a case, by the clock of the processor."""
    began = time.process_time()
    bench = Bench.of(case.model, Labelled.of(case.pictures, case.model), lean=True)
    found = search(bench)
    evidence = [one.evidence for one in found.findings]
    planted = {
        family: {"made": one.made.mean, "lost": one.unmade.mean, "carried": one.shown.get("carried"), "p": one.p}
        for family, one in found.effects.get(str(case.label), {}).items()
    }
    findings = [{"class_name": one.class_name, "sentence": one.sentence, **one.evidence} for one in found.findings]
    row = {
        "case": case.name, "healthy": case.healthy, "class": case.label, "classes": len(bench.classes),
        "tests": found.tests, "findings": plain(findings), "planted": plain(planted),
        "seconds": round(time.process_time() - began, 1),
    }  # fmt: skip
    return row, evidence


def diagnosed(path: Path) -> dict[str, dict[str, Any]]:
    """Case -> the shortcuts stage's line of ``benchmarks/diagnose.py``, which asks the same: it is not asked twice."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return {line["case"]: line for line in map(json.loads, lines) if line["stage"] == "shortcuts"}


def mended(case: Case, finding: Mapping[str, Any] | None, how: str | None) -> dict[str, Any]:
    """What a repair of a case makes of it."""
    began = time.process_time()
    try:
        done = repair(case.model, case.pictures, finding=finding, how=how, compare=False)
    except ConvoscopeError as refused:
        return {"holds": False, "why": str(refused), "seconds": round(time.process_time() - began, 1)}
    row: dict[str, Any] = {"holds": done.holds, "why": done.why, "seconds": round(time.process_time() - began, 1)}
    if done.model is None or case.healthy:
        return row
    if how is None:
        assert case.sibling is not None
        row |= groups(case, {"before": case.model, "after": done.model, "sibling": case.sibling})
    else:
        effect = ward.recipe(case.name).measure(done.model, case.sibling, 300, 5)
        before = ward.recipe(case.name).measure(case.model, case.sibling, 300, 5)
        assert effect is not None
        assert before is not None
        whole = before.faulty - before.healthy
        row |= {"healthy": before.healthy, "before": before.faulty, "after": effect.faulty,
                "undone": (before.faulty - effect.faulty) / whole}  # fmt: skip
    return row


def examine(case: Case, mend: bool, line: dict[str, Any] | None = None, look: bool = True) -> dict[str, Any]:
    """One case: what was found, and what a repair of it wins."""
    how = HOW.get(case.name)
    if how is not None:
        return {"case": case.name, "healthy": False, "how": how, "repair": mended(case, None, how)}
    if case.healthy and not look:
        return {"case": case.name, "healthy": True, "repair": mended(case, None, None)}
    if line is None:
        row, evidence = found_in(case)
    else:
        evidence = [one["evidence"] for one in line["findings"]]
        findings = [{"class_name": one["class_name"], "sentence": one["sentence"], **one["evidence"]}
                    for one in line["findings"]]  # fmt: skip
        row = {"case": case.name, "healthy": case.healthy, "class": case.label, "findings": findings,
               "classes": len(case.model.labels or ()), "tests": line["tests"], "seconds": line["seconds"]}  # fmt: skip
    if mend and case.healthy:
        row["repair"] = mended(case, None, None)
    elif mend:
        own = [one for one in evidence if one.get("class") == case.label]
        if own:
            row["repair"] = mended(case, own[0], None)
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """The tables in Markdown, and the figures."""
    planted = [row for row in rows if not row["healthy"] and "how" not in row]
    text = ["| case | class | found as | makes | loses | seen by a person? | worst group before → after (sibling) | "
            "ordinary |", "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    hits = wrong = told_apart = near = cheap = 0
    for row in planted:
        own = [one for one in row["findings"] if one["class_name"] == row["class"]]
        wrong += len(row["findings"]) - len(own)
        cells = ["missed", "", "", "", "", ""]
        if own:
            hits += 1
            one = own[0]
            hidden = any(row["case"].endswith(name) for name in INVISIBLE)
            told_apart += one["visible"] != hidden
            mended_by = row.get("repair", {})
            groups_told, ordinary = mended_by.get("why", "").split(":")[0], ""
            if "after" in mended_by:
                before, after = mended_by["before"], mended_by["after"]
                sibling = mended_by["sibling"]["worst"]
                groups_told = f"{before['worst']:.0%} → {after['worst']:.0%} ({sibling:.0%})"
                ordinary = f"{before['ordinary']:.1%} → {after['ordinary']:.1%}"
                if not mended_by["holds"]:
                    groups_told += ", refused"
                near += bool(mended_by["holds"]) and after["worst"] >= sibling - 0.03
                cheap += bool(mended_by["holds"]) and after["ordinary"] >= before["ordinary"] - 0.005
            also = f" (and {', '.join(one['also'])})" if one["also"] else ""
            cells = [one["family"] + also, f"{one['sufficiency']['mean']:.0%}", f"{one['necessity']['mean']:.0%}",
                     "yes" if one["visible"] else "no", groups_told, ordinary]  # fmt: skip
        text.append(f"| {row['case']} | {row['class']} | " + " | ".join(cells) + " |")
    given = [row["repair"] for row in rows if row["healthy"] and "repair" in row]
    healthy = [row for row in rows if row["healthy"] and "findings" in row]
    alarms = sum(len(row["findings"]) for row in healthy)
    classes = sum(row["classes"] for row in healthy)
    refused = sum(not one["holds"] for one in given)
    text += [
        "",
        f"{hits} of {len(planted)} found, {wrong} wrong classes; visible and invisible told apart in {told_apart}.",
        f"{alarms} false alarms in {classes} healthy classes of {len(healthy)} networks "
        f"({sum(row['tests'] for row in healthy)} tests).",
        f"Repair: worst group within 3 points of the sibling in {near}; ordinary accuracy at most half a point "
        f"lower in {cheap}; {refused} of {len(given)} healthy networks refused.",
        "",
    ]
    for row in rows:
        if "how" in row:
            one = row["repair"]
            undone = f", {one['undone']:.0%} undone" if "undone" in one else ""
            said = "passes" if one["holds"] else "refused"
            text.append(f"- {row['case']} by {row['how']}: {said}{undone}. {one['why']}")
    text += [f"- false alarm: {row['case']}: {one['sentence']}" for row in healthy for one in row["findings"]]
    text += [f"- healthy and repaired: {row['case']}: {row['repair']['why']}"
             for row in rows if row["healthy"] and row.get("repair", {}).get("holds")]  # fmt: skip
    return "\n".join(text)


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Case -> its last line."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {row["case"]: row for row in map(json.loads, lines)}


def main() -> None:
    """Examine the cases that are not in the file yet."""
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument("folder", nargs="?", type=Path)
    reader.add_argument("--rows", type=Path, required=True)
    reader.add_argument("--case", action="append")
    reader.add_argument("--again", action="store_true")
    reader.add_argument("--table", action="store_true")
    reader.add_argument("--no-repair", action="store_true")
    reader.add_argument("--no-search", action="store_true")
    reader.add_argument("--diagnosed", type=Path, help="the rows of benchmarks/diagnose.py")
    given = reader.parse_args()
    torch.set_num_threads(1)
    names = [one.name for one in ward.CASES if one.name.startswith(("shortcut-", "healthy-")) or one.name in HOW]
    for name in [] if given.table else names:
        if given.case and not any(word in name for word in given.case):
            continue
        if not given.again and name in read(given.rows):
            continue
        case = ward.at_hand(name) if given.folder is None else ward.load(given.folder / name)
        line = None if given.diagnosed is None else diagnosed(given.diagnosed).get(name)
        row = examine(case, not given.no_repair, line, not given.no_search)
        with given.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain(row)) + "\n")
        print(
            name, [one["class_name"] for one in row.get("findings", [])], row.get("repair", {}).get("why"), flush=True
        )
    print(table(list(read(given.rows).values())))


if __name__ == "__main__":
    main()

"""Shortcuts and repairs on the ward: which planted ones are found, how often healthy classes are accused, what repair
wins.

    python benchmarks/shortcuts.py WARD [--case NAME ...] [--repair] [--out FILE.json]

WARD is the folder of `convoscope toybox WARD --ward`. The worst group is measured on pictures drawn afresh, with and
without the shortcut, which neither the search nor the repair has seen.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from convoscope.improve.repair.api import repair
from convoscope.improve.shortcuts.find import shortcuts
from convoscope.models.model import Model
from convoscope.toybox.ward import load
from convoscope.toybox.ward.case import Case, right


def worst_group(case: Case, model: Model, count: int = 30, seed: int = 977) -> float:
    """The least recall over classes, with and without the shortcut."""
    found = []
    for carried in (False, True):
        drawn = case.render(carried, count, seed)
        hits = right(model, drawn)
        labels = np.asarray(drawn.labels)
        found += [float(hits[labels == one].mean()) for one in np.unique(labels)]
    return min(found)


def examine(folder: Path, mend: bool) -> dict[str, Any]:
    """One case: what was found, and what a repair of it wins."""
    case = load(folder)
    began = time.perf_counter()
    found = shortcuts(case.model, case.pictures)
    classes = [one.class_name for one in found.findings]
    row: dict[str, Any] = {
        "case": case.name, "healthy": case.healthy, "class": case.label, "found": classes,
        "families": [one.evidence.get("family") for one in found.findings],
        "visible": [one.evidence.get("visible") for one in found.findings],
        "tests": len(found.effects), "seconds": round(time.perf_counter() - began, 1),
        "effects": {label: {family: round(one.sufficiency.mean, 3) for family, one in of.items()}
                    for label, of in found.effects.items() if case.label in (None, label)},
    }  # fmt: skip
    if mend and not case.healthy:
        chosen = [one for one in found.findings if one.class_name == case.label]
        if chosen:
            done = repair(case.model, case.pictures, finding=chosen[0].evidence, compare=False)
            assert done.model is not None
            sibling = case.sibling
            row["repair"] = {
                "holds": done.holds, "why": done.why, "before": worst_group(case, case.model),
                "after": worst_group(case, done.model),
                "sibling": None if sibling is None else worst_group(case, sibling),
            }  # fmt: skip
    elif mend:
        done = repair(case.model, case.pictures, compare=False)
        row["repair"] = {"holds": done.holds, "why": done.why}
    return row


def main() -> None:
    """Examine the cases and print one line each."""
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("ward", type=Path)
    reader.add_argument("--case", nargs="*", default=None)
    reader.add_argument("--repair", action="store_true")
    reader.add_argument("--out", type=Path, default=None)
    given = reader.parse_args()
    names = given.case or sorted(
        path.name for path in given.ward.iterdir() if path.name.startswith(("shortcut-", "healthy-"))
    )
    rows = []
    for name in names:
        rows.append(examine(given.ward / name, given.repair))
        print(json.dumps(rows[-1]), flush=True)
        if given.out is not None:
            given.out.write_text(json.dumps(rows, indent=1))
    planted = [row for row in rows if not row["healthy"]]
    healthy = [row for row in rows if row["healthy"]]
    hit = sum(row["class"] in row["found"] for row in planted)
    wrong = sum(len([one for one in row["found"] if one != row["class"]]) for row in planted)
    alarms, classes = sum(len(row["found"]) for row in healthy), sum(row["tests"] for row in healthy)
    print(f"{hit} of {len(planted)} found, {wrong} wrong classes; {alarms} false alarms in {classes} healthy classes")


if __name__ == "__main__":
    main()

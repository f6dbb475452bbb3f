"""The whole ward through ``diagnose``: faults found among the first three, kinds first, alarms on healthy networks.

    python benchmarks/diagnose.py [FOLDER] [--only STAGES] [--case WORD ...] [--json FILE]

FOLDER holds the made cases (``convoscope toybox FOLDER --ward``); without one they are made in the cache. A fault
counts as found where one of the first three findings has a kind that the case's truth names, and as *first* where the
first finding has. An alarm is any finding on a healthy network. Times are processor time. With --json the cases that
the file holds already are not run again, so that a stopped run goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from convoscope.improve.diagnose import diagnose
from convoscope.toybox import ward

FIRST = 3


def examined(case: ward.Case, only: str | None) -> dict[str, Any]:
    """One case: what was found, and whether it is what was planted."""
    started = time.process_time()
    found = diagnose(case.model, case.pictures, case.train, only)
    kinds = [one.kind for one in found.findings]
    place = next((at for at, kind in enumerate(kinds) if kind in case.expected), None)
    return {
        "case": case.name, "kind": case.kind, "healthy": case.healthy, "expected": list(case.expected),
        "place": place, "kinds": kinds, "tests": found.tests, "stopped": found.stopped, "refused": found.refused,
        "accuracy": found.right.mean if found.right else None, "seconds": round(time.process_time() - started, 1),
        "findings": [
            {"kind": one.kind, "class": one.class_name, "sentence": one.sentence, "won": one.won, "p": one.p,
             "size": one.size, "low": one.low, "high": one.high}
            for one in (*found.findings, *found.further)
        ],
    }  # fmt: skip


def summary(rows: list[dict[str, Any]]) -> str:
    """The table in Markdown, and the three figures."""
    lines = ["| case | expected | found | place | first sentence |", "|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda one: (one["healthy"], one["kind"], one["case"])):
        if row["healthy"] and not row["kinds"]:
            continue
        first = row["findings"][0]["sentence"] if row["findings"] else "nothing"
        place = "" if row["healthy"] else "–" if row["place"] is None else str(row["place"] + 1)
        kinds = ", ".join(row["kinds"]) or "nothing"
        lines.append(f"| {row['case']} | {', '.join(row['expected']) or 'nothing'} | {kinds} | {place} | {first} |")
    sick = [row for row in rows if not row["healthy"]]
    well = [row for row in rows if row["healthy"]]
    top = sum(row["place"] is not None and row["place"] < FIRST for row in sick)
    first = sum(row["place"] == 0 for row in sick)
    alarms = sum(bool(row["kinds"]) for row in well)
    lines += ["", f"{top} of {len(sick)} faults among the first {FIRST}; the right kind first in {first}."]
    lines.append(f"{alarms} alarms on {len(well)} healthy networks.")
    total = sum(row["seconds"] for row in rows)
    lines.append(f"{total / max(1, len(rows)):.0f} s of one processor a case.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--only")
    parser.add_argument("--case", action="append", help="only cases with this in their name")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    if given.json is not None and given.json.is_file():
        rows = json.loads(given.json.read_text(encoding="utf-8"))
    done = {row["case"] for row in rows}
    for recipe in ward.CASES:
        if recipe.name in done or (given.case and not any(word in recipe.name for word in given.case)):
            continue
        if given.folder is not None and not ward.is_made(Path(given.folder, recipe.name)):
            continue
        case = ward.at_hand(recipe.name) if given.folder is None else ward.load(Path(given.folder, recipe.name))
        row = examined(case, given.only)
        rows.append(row)
        mark = ("ALARM" if row["kinds"] else "ok") if row["healthy"] else f"place {row['place']}"
        print(
            f"{row['case']:28s} {mark:9s} {','.join(row['kinds'])}  {row['seconds']:.0f} s",
            file=sys.stderr,
            flush=True,
        )
        if given.json is not None:
            given.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(summary(rows))


if __name__ == "__main__":
    main()

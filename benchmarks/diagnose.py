"""The whole ward through ``diagnose``: faults found among the first three, kinds first, alarms on healthy networks.

    python benchmarks/diagnose.py [FOLDER] --rows FILE.jsonl [--only STAGES] [--case WORD ...] [--again] [--write]

FOLDER holds the made cases (``convoscope toybox FOLDER --ward``); without one they are made in the cache. What each
stage gives of each case is appended to FILE.jsonl, so that a stopped run goes on, and a stage that was changed is run
again by itself (``--only STAGE --again``): the last line of a stage counts. The correction over all tests, the ranking
and the table are made of these lines, by the same code as in ``diagnose``.

A fault counts as found where one of the first three findings has a kind that the case's truth names, and as *first*
where the first finding has. An alarm is a healthy network with any finding. Times are processor time. ``--write``
writes the rate of false alarms that the tool prints.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from convoscope.improve.collection import Labelled
from convoscope.improve.diagnose import STAGES, Case, StageResult
from convoscope.improve.diagnose.run import MOST, available, concluded, measured_file, run_stage, stage_names
from convoscope.improve.finding import Finding
from convoscope.models.opening import open_model
from convoscope.plain import plain
from convoscope.toybox import ward

FIRST = 3


def examined(case: ward.Case, names: Sequence[str]) -> list[dict[str, Any]]:
    """One line a stage. A stage that stops the run is written, and those after it are not run."""
    model = open_model(case.model)
    train = None if case.train is None else Labelled.of(case.train, model)
    shared = Case(model, Labelled.of(case.pictures, model), train)
    began = time.process_time()
    known = shared.looked.pictures.known
    right = float(shared.looked.right[known].mean())
    looking = time.process_time() - began
    lines = []
    for name, stage in available(names):
        began = time.process_time()
        result = run_stage(stage, shared)
        lines.append({
            "case": case.name, "stage": name, "seconds": round(time.process_time() - began, 1), "look": looking,
            "tests": result.tests, "refused": result.refused, "stops": result.stops, "right": right,
            "findings": [_line(one) for one in result.findings],
        })  # fmt: skip
        if result.stops:
            break
    return lines


def _line(one: Finding) -> dict[str, Any]:
    return {
        "kind": one.kind, "sentence": one.sentence, "size": one.size, "low": one.low, "high": one.high,
        "class_name": one.class_name, "pictures": list(one.pictures), "won": one.won, "p": one.p,
        "concerns": list(one.concerns), "evidence": plain(one.evidence),
    }  # fmt: skip


def read(path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Case -> stage -> its last line."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    if path.is_file():
        for text in path.read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            found.setdefault(line["case"], {})[line["stage"]] = line
    return found


def conclusion(lines: dict[str, dict[str, Any]]) -> tuple[list[Finding], int]:
    """What ``diagnose`` says of a case: the findings in their order, and how many tests were made."""
    results = []
    for name, _ in STAGES:
        if name not in lines:
            continue
        line = lines[name]
        made = [Finding(**{**one, "pictures": tuple(one["pictures"])}) for one in line["findings"]]
        results.append(StageResult(made, line["tests"], line["refused"], stops=line["stops"]))
        if line["stops"]:
            break
    return concluded(results)


def rows(lines: dict[str, dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """One row a case."""
    made = []
    for recipe in ward.CASES:
        if recipe.name not in lines:
            continue
        found, tests = conclusion(lines[recipe.name])
        kinds = [one.kind for one in found[:MOST]]
        made.append({
            "case": recipe.name, "kind": recipe.kind, "healthy": recipe.healthy, "expected": list(recipe.expected),
            "place": next((at for at, kind in enumerate(kinds) if kind in recipe.expected), None), "kinds": kinds,
            "tests": tests, "sentences": [one.sentence for one in found[:MOST]],
            "seconds": sum(one["seconds"] for one in lines[recipe.name].values())
            + max(one["look"] for one in lines[recipe.name].values()),
        })  # fmt: skip
    return made


def summary(listed: list[dict[str, Any]]) -> str:
    """The table in Markdown, and the three figures."""
    text = ["| case | expected | found | place | first sentence |", "|---|---|---|---|---|"]
    for row in listed:
        if row["healthy"] and not row["kinds"]:
            continue
        first = row["sentences"][0] if row["sentences"] else "nothing"
        place = "" if row["healthy"] else "–" if row["place"] is None else str(row["place"] + 1)
        kinds = ", ".join(row["kinds"]) or "nothing"
        expected = ", ".join(row["expected"]) or "nothing"
        text.append(f"| {row['case']} | {expected} | {kinds} | {place} | {first.replace('|', '/')} |")
    text += ["", *figures(listed)["told"]]
    return "\n".join(text)


def figures(listed: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures that the tool prints of itself."""
    sick = [row for row in listed if not row["healthy"]]
    well = [row for row in listed if row["healthy"]]
    top = sum(row["place"] is not None and row["place"] < FIRST for row in sick)
    first = sum(row["place"] == 0 for row in sick)
    alarms = sum(bool(row["kinds"]) for row in well)
    seconds = sum(row["seconds"] for row in listed) / max(1, len(listed))
    return {
        "faulty": len(sick), "found": top, "first": first, "healthy": len(well), "alarms": alarms,
        "told": [f"{top} of {len(sick)} faults among the first {FIRST}; the right kind first in {first}.",
                 f"{alarms} alarms on {len(well)} healthy networks.", f"{seconds:.0f} s of one processor a case."],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--only")
    parser.add_argument("--case", action="append", help="only cases with this in their name")
    parser.add_argument("--again", action="store_true", help="also what the file holds already")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--write", action="store_true", help="write the figures that the tool prints of itself")
    given = parser.parse_args()
    torch.set_num_threads(1)
    names = stage_names(given.only)
    done = read(given.rows)
    for recipe in () if given.table else ward.CASES:
        if given.case and not any(word in recipe.name for word in given.case):
            continue
        if given.folder is not None and not ward.is_made(Path(given.folder, recipe.name)):
            continue
        held = {} if given.again else read(given.rows).get(recipe.name, {})  # another process may have been quicker
        stopped = any(one["stops"] for one in held.values())
        missing = [name for name in names if name not in held]
        if held and (stopped or not missing):
            continue
        case = ward.at_hand(recipe.name) if given.folder is None else ward.load(Path(given.folder, recipe.name))
        lines = examined(case, missing)
        with given.rows.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        done.setdefault(recipe.name, {}).update({line["stage"]: line for line in lines})
        row = rows({recipe.name: done[recipe.name]})[0]
        mark = ("ALARM" if row["kinds"] else "ok") if row["healthy"] else f"place {row['place']}"
        print(f"{row['case']:28s} {mark:9s} {','.join(row['kinds'])}  {row['seconds']:.0f} s", file=sys.stderr)
    listed = rows(done)
    print(summary(listed))
    if given.write:
        told = {name: value for name, value in figures(listed).items() if name != "told"}
        measured_file().write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

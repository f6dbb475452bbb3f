"""Mutation testing of the core: do the tests notice when a line is wrong?

    python tests/mutation/mutate.py --rows rows.jsonl --minutes 8      # the sample that is kept: sample.txt
    python tests/mutation/mutate.py --fresh 60 --seed 7                # others, drawn anew

Random small faults (:mod:`mutants`) are put into a temporary copy of the program, one at a time. The tests that mirror
the module are watched once (:mod:`lines`), so that each mutant meets only tests that run its line, the most telling
first, until one fails. They run in forks of a process that has torch loaded (:mod:`forked`): a second or two each.

The sample was drawn once and stands in ``sample.txt``, so that figures of today and of last year speak of the same
faults. A line of the program that is gone takes its mutants with it: the next of the same seed take their places
(``--mend`` writes them into the file). A mutant that no test notices has survived: either a test is missing, or the
change makes no difference (then it stands in ``equivalent.txt`` with the reason). Rows that are there are not made
again, so that a long run goes in pieces; ``--retry`` tries those that had survived once more.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mutants import Mutant, mutants, mutated, shuffled

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent

#: seconds that the tests of one mutant take at most, as they are
BUDGET = 15.0
#: seconds for one file of tests to be watched
PATIENCE = 420.0


def _tests(text: str) -> list[str]:
    return [f"tests/{name}.py" for name in text.split()]


#: room -> (files of the room, the tests that mirror it)
MIRROR: dict[str, tuple[list[str], list[str]]] = {
    "engine": (
        [
            *(f"engine/passes/{name}.py" for name in ("planner", "runner", "agreement", "memory_format", "naming")),
            *(f"engine/passes/{name}.py" for name in ("relu_rules", "flow", "cuts")),
            *(f"engine/fields/{name}.py" for name in ("geometry", "placing")),
        ],
        _tests(
            "unit/test_formats unit/test_naming unit/test_geometry unit/test_door unit/test_watch unit/test_doubts "
            "unit/test_slips "
            "unit/test_numbers unit/test_field_centres unit/test_wrong_lines_3 unit/test_wrong_lines_4 "
            "unit/test_wrong_lines_5 unit/test_wrong_lines_6 unit/test_wrong_lines_7 "
            "reference/test_gradients reference/test_cams robust/test_nan_scores robust/test_receptive_fields "
            "robust/test_outputs robust/test_late_errors"
        ),
    ),
    "methods": (
        [
            f"methods/{name}.py"
            for name in (
                "cams", "cam", "gradients", "formulas", "vargrad", "occlusion", "random_masks", "score_cams",
                "settings", "fills", "base",
            )
        ],
        _tests(
            "reference/test_cams reference/test_gradients reference/test_vargrad reference/test_perturbation "
            "unit/test_slips unit/test_doubts unit/test_door robust/test_nan_scores robust/test_bad_input "
            "unit/test_wrong_lines_2 unit/test_wrong_lines_3 unit/test_wrong_lines_5 unit/test_wrong_lines_6 "
            "unit/test_wrong_lines_7"
        ),
    ),
    "targets": (
        [
            f"targets/{name}.py"
            for name in ("parsing", "classes", "units", "combinations", "places", "scores", "default_layer", "outputs")
        ],
        _tests(
            "unit/test_door unit/test_slips unit/test_labels unit/test_watch robust/test_targets_everywhere "
            "robust/test_bad_input unit/anynet/test_likeness_and_outputs unit/anynet/test_inputs "
            "unit/test_wrong_lines_2 unit/test_wrong_lines_4 unit/test_wrong_lines_5 unit/test_wrong_lines_8"
        ),
    ),
    "pictures": (
        [f"pictures/{name}.py" for name in ("picture", "preprocessing", "reading", "door")],
        _tests("unit/test_preprocessing unit/test_reading unit/test_slips unit/test_door unit/test_carried "
            "unit/test_wrong_lines unit/test_wrong_lines_4 "
            "unit/test_wrong_lines_5 unit/test_wrong_lines_8"),
    ),
    "accumulators": (
        ["surveys/store/accumulators.py"],
        _tests("unit/test_survey_accumulators unit/test_slips unit/test_wrong_lines unit/test_wrong_lines_4 "
            "unit/test_wrong_lines_5"),
    ),
    "trust": (
        [f"trust/{name}.py" for name in ("league", "localisation", "faithfulness", "similarity", "scoring")],
        _tests(
            "unit/test_trust_league unit/test_trust_localisation unit/test_trust_faithfulness "
            "unit/test_trust_similarity unit/test_slips unit/test_trust_datasets "
            "unit/test_trust_networks unit/test_wrong_lines unit/test_wrong_lines_4 unit/test_wrong_lines_5 "
            "unit/test_wrong_lines_8"
        ),
    ),
    "statistics": (
        ["improve/statistics.py"],
        _tests("unit/test_improve_base unit/test_slips unit/test_wrong_lines unit/test_wrong_lines_4 "
            "unit/test_wrong_lines_5 unit/test_wrong_lines_8"),
    ),
}  # fmt: skip

#: the seed of ``sample.txt``, and how many it holds
SEED, COUNT = 20, 300


def every(rooms: list[str]) -> list[Mutant]:
    """Every mutant of some rooms."""
    return mutants({room: MIRROR[room][0] for room in rooms})


def equivalents() -> dict[str, str]:
    """Mutants that make no difference, with the reason."""
    lines = (HERE / "equivalent.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split(" # ", 1) for line in lines if line.strip() and not line.startswith("#")]
    return {name.strip(): why.strip() for name, why in pairs}


def sample(there: list[Mutant]) -> tuple[list[Mutant], list[str]]:
    """The sample that is kept, of the mutants that there are, and the names that are gone; others take their places."""
    lines = (HERE / "sample.txt").read_text(encoding="utf-8").splitlines()
    keys = [line for line in lines if line.strip() and not line.startswith("#")]
    known = {one.key: one for one in there}
    found = [known[key] for key in keys if key in known]
    taken = {one.key for one in found}
    rest = (one for one in shuffled(there, SEED) if one.key not in taken)
    found += [one for one, _ in zip(rest, range(COUNT - len(found)), strict=False)]
    return found, [key for key in keys if key not in known]


def written(chosen: list[Mutant]) -> None:
    """Write the sample down, in the order of the files."""
    first = f"# {COUNT} mutants drawn once: FILE :: FUNCTION :: BEFORE -> AFTER [which of several alike]"
    (HERE / "sample.txt").write_text("\n".join([first, *sorted(one.key for one in chosen)]) + "\n", encoding="utf-8")


class Copy:
    """A temporary copy of program and tests, the tests' lines, and the process that runs them."""

    def __init__(self, there: Path, python: str) -> None:
        self.there, self.python = there, python
        for name in ("src", "tests"):
            shutil.copytree(ROOT / name, there / name, ignore=shutil.ignore_patterns("__pycache__", "mutation"))
        for name in ("pyproject.toml", "README.md", "CHANGELOG.md"):
            shutil.copy(ROOT / name, there / name)
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(there / "src"), str(HERE)]),
            "CONVOSCOPE_ROTATION": "0",
        }
        self._process: subprocess.Popen[str] | None = None
        self._second = int(time.time())

    def write(self, file: str, text: str) -> None:
        """Write a file of the program; each time of another second, or byte code of the same size would pass for it."""
        self._second += 1
        self.path(file).write_text(text, encoding="utf-8")
        os.utime(self.path(file), (self._second, self._second))

    def path(self, file: str) -> Path:
        """A file of the program in the copy."""
        return self.there / "src" / "convoscope" / file

    def watched(self, room: str, kept: Path, until: float) -> list[dict[str, Any]] | None:
        """Every test of a room with the lines that it runs; kept until program or tests change. None: no time left."""
        files, tests = MIRROR[room]
        rows: list[dict[str, Any]] = []
        for test in tests:
            digest = hashlib.sha256()
            for one in (self.there / test, *map(self.path, files), HERE / "lines.py"):
                digest.update(one.read_bytes())
            place = kept / f"{room}-{Path(test).stem}-{digest.hexdigest()[:12]}.jsonl"
            if not place.exists():
                if time.monotonic() > until:
                    return None
                print(f"watching {test} for {room}", flush=True)
                part = place.with_suffix(".part")
                part.unlink(missing_ok=True)
                more = {
                    "MUTATION_LINES": str(part),
                    "MUTATION_ROOT": str(self.path("")),
                    "MUTATION_FILES": os.pathsep.join(files),
                }
                command = [self.python, "-m", "pytest", "-q", "-p", "lines", "-p", "no:cacheprovider", test]
                with open(kept / "watched.txt", "a") as said:
                    try:
                        subprocess.run(
                            command, cwd=self.there, env={**self.environment, **more}, stdout=said, stderr=said,
                            timeout=PATIENCE, check=False,
                        )  # fmt: skip
                    except subprocess.TimeoutExpired:
                        print(f"{test} takes too long: what it had run by then counts", flush=True)
                part.touch()
                part.replace(place)
            rows += [json.loads(line) for line in place.read_text(encoding="utf-8").splitlines()]
        failing = [row["test"] for row in rows if row["test"] and not row["passed"] and row["lines"]]
        if failing:
            print(f"not asked, since they fail or are skipped as they are: {', '.join(failing)}", flush=True)
        return [row for row in rows if row["passed"]]

    def asked(self, one: Mutant, rows: list[dict[str, Any]]) -> list[str]:
        """The tests that run the mutant's lines, those first that are quick and run what few others run (rare branches
        of the mutant's function and file). Of what runs when the file is imported, the quickest that use the file.
        """
        file, wanted = one.file, set(range(one.line, one.end + 1))
        here = [row for row in rows if row["test"] and file in row["lines"]]
        if one.around is not None:
            here = [row for row in here if wanted & set(row["lines"][file])]
        first, last = one.around or (0, 0)
        often = Counter(line for row in here for line in row["lines"][file])

        def worth(row: dict[str, Any]) -> float:
            rare: float = sum((1 if first <= line <= last else 0.2) / often[line] for line in row["lines"][file])
            return rare / (0.1 + row["seconds"]) if one.around is not None else -row["seconds"]

        chosen, spent = [], 0.0
        for row in sorted(here, key=worth, reverse=True):
            spent += row["seconds"]
            if spent > BUDGET and chosen:
                break
            chosen.append(row["test"])
        return chosen

    def outcome(self, tests: list[str]) -> tuple[str, str]:
        """``killed`` or ``survived``, and what pytest said last."""
        if self._process is None:
            self._process = subprocess.Popen(
                [self.python, str(HERE / "forked.py")], cwd=self.there, env=self.environment, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"tests": tests, "timeout": 10 * BUDGET}) + "\n")
        self._process.stdin.flush()
        found = json.loads(self._process.stdout.readline())
        # a mutant that hangs or ends the process is noticed
        return "survived" if found["code"] == 0 else "killed", found["said"]

    def close(self) -> None:
        """End the process that runs the tests."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()


def run(chosen: list[Mutant], done: dict[str, dict[str, Any]], given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Each mutant's outcome that is not known: killed, survived, or equivalent."""
    known, until = equivalents(), time.monotonic() + 60 * given.minutes
    kept = Path(given.kept)
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mutation-") as place:
        copied = Copy(Path(place).resolve(), sys.executable)
        rows: dict[str, list[dict[str, Any]]] = {}
        try:
            for one in chosen:
                before = done.get(one.key)
                if before is not None and not (given.retry and before["outcome"] == "survived"):
                    continue
                if time.monotonic() > until:
                    return
                began = time.monotonic()
                what, said, tests = "equivalent", "", []
                if one.key not in known:
                    if one.room not in rows:
                        watched = copied.watched(one.room, kept, until)
                        if watched is None:
                            return
                        rows[one.room] = watched
                    tests = copied.asked(one, rows[one.room])
                    what = "survived"
                    if tests:
                        right = copied.path(one.file).read_text(encoding="utf-8")
                        copied.write(one.file, mutated(one.file, one.number))
                        try:
                            what, said = copied.outcome(tests)
                        finally:
                            copied.write(one.file, right)
                yield {
                    **asdict(one), "key": one.key, "outcome": what, "tests": len(tests),
                    "said": said[-300:], "seconds": round(time.monotonic() - began, 1),
                }  # fmt: skip
        finally:
            copied.close()


def main() -> int:
    """Run and report; ends with 1 where fewer are killed than asked."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--fresh", type=int, default=0, help="so many that are not in sample.txt, instead of it")
    flags.add_argument("--seed", type=int, default=0, help="of --fresh")
    flags.add_argument("--mend", action="store_true", help="write sample.txt with others for those that are gone")
    flags.add_argument("--only", default=",".join(MIRROR), help=f"of {', '.join(MIRROR)}")
    flags.add_argument("--minutes", type=float, default=60.0, help="no further mutant is begun after so many")
    flags.add_argument(
        "--rows", default="build/mutants.jsonl", help="a line of JSON for each mutant; those there are kept"
    )
    flags.add_argument(
        "--kept", default=str(Path(tempfile.gettempdir()) / "mutation-lines"), help="lines of the tests"
    )
    flags.add_argument("--retry", action="store_true", help="those that had survived are tried again")
    flags.add_argument("--least", type=float, default=0.9, help="share that must be killed")
    given = flags.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # leaves no copy behind
    rooms, there = given.only.split(","), every(list(MIRROR))
    chosen, gone = sample(there)
    for key in gone:
        print(f"gone: {key}", flush=True)
    if given.mend:
        written(chosen)
    if given.fresh:
        drawn = {one.key for one in chosen}
        chosen = [one for one in shuffled(there, given.seed) if one.key not in drawn and one.room in rooms]
        chosen = chosen[: given.fresh]
    chosen = sorted((one for one in chosen if one.room in rooms), key=lambda one: list(MIRROR).index(one.room))
    print(f"{len(chosen)} of {len(there)} mutants", flush=True)
    place = Path(given.rows)
    place.parent.mkdir(parents=True, exist_ok=True)
    done: dict[str, dict[str, Any]] = {}
    if place.exists():
        rows = [json.loads(line) for line in place.read_text(encoding="utf-8").splitlines()]
        done = {row["key"]: row for row in rows}  # of each mutant the last row counts
    for row in run(chosen, done, given):
        done[row["key"]] = row
        with place.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        print(f"{row['outcome']:<10} {row['line']:>4} {row['key']}", flush=True)
    known = equivalents()
    outcomes = ["equivalent" if one.key in known else done[one.key]["outcome"] for one in chosen if one.key in done]
    killed, survived = outcomes.count("killed"), outcomes.count("survived")
    share = killed / max(1, killed + survived)
    print(f"\n{killed} of {killed + survived} killed ({share:.0%}), {outcomes.count('equivalent')} known to make no "
          f"difference, {len(chosen) - len(outcomes)} not tried yet")  # fmt: skip
    return 0 if share >= given.least and len(outcomes) == len(chosen) else 1


if __name__ == "__main__":
    raise SystemExit(main())

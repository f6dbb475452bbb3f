"""Mutation testing of the core: do the tests notice when a line is wrong?

    python tests/mutation/mutate.py --count 40 --seed 1 --only targets,accumulators

Random small faults are put into a temporary copy of the program, one at a time, and the tests that mirror the module
are run there. A mutant that no test notices has survived: either a test is missing, or the change makes no difference
(then it stands in ``equivalent.txt`` with the reason). Mutants have numbers: a seed always chooses the same ones.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "convoscope"

#: room -> (files of the room, the tests that mirror it)
MIRROR: dict[str, tuple[list[str], list[str]]] = {
    "engine": (
        ["engine/passes/planner.py", "engine/passes/runner.py", "engine/passes/naming.py", "engine/fields/geometry.py"],
        [
            "tests/unit/test_naming.py", "tests/unit/test_geometry.py", "tests/unit/test_door.py",
            "tests/reference/test_gradients.py",
        ],
    ),
    "methods": (
        ["methods/cams.py", "methods/cam.py", "methods/gradients.py", "methods/formulas.py", "methods/vargrad.py"],
        ["tests/reference/test_cams.py", "tests/reference/test_gradients.py", "tests/reference/test_vargrad.py"],
    ),
    "settings": (
        ["methods/settings.py", "methods/fills.py"],
        ["tests/unit/test_cli_explain.py", "tests/robust/test_bad_input.py"],
    ),
    "targets": (
        [f"targets/{name}.py" for name in ("parsing", "classes", "units", "combinations", "places")],
        ["tests/unit/test_door.py", "tests/unit/anynet", "tests/robust/test_targets_everywhere.py"],
    ),
    "accumulators": (["surveys/store/accumulators.py"], ["tests/unit/test_survey_accumulators.py"]),
    "league": (["trust/league.py"], ["tests/unit/test_trust_league.py"]),
    "localisation": (["trust/localisation.py"], ["tests/unit/test_trust_localisation.py"]),
    "faithfulness": (["trust/faithfulness.py"], ["tests/unit/test_trust_faithfulness.py"]),
    "similarity": (["trust/similarity.py"], ["tests/unit/test_trust_similarity.py"]),
    "statistics": (["improve/statistics.py"], ["tests/unit/test_improve_base.py", "tests/unit/test_diff.py"]),
}  # fmt: skip

_COMPARE = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_BINARY = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Add,
    ast.Pow: ast.Mult,
}  # fmt: skip
_CALLS = {"min": "max", "max": "min", "any": "all", "all": "any", "argmax": "argmin", "argmin": "argmax", "mean": "sum",
          "sum": "mean", "relu": "abs", "sorted": "list"}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One fault: where it is, what it was, what it is."""

    room: str
    file: str
    number: int
    line: int
    before: str
    after: str

    @property
    def name(self) -> str:
        """What ``equivalent.txt`` calls it: independent of line numbers."""
        return f"{self.file} :: {self.before} -> {self.after}"


def variants(tree: ast.Module) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Every node that can be made wrong, with what it becomes."""
    for node in _living(tree):
        made: list[ast.AST] = []
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARE:
            made.append(ast.Compare(node.left, [_COMPARE[type(node.ops[0])]()], node.comparators))
        elif isinstance(node, ast.BinOp) and type(node.op) in _BINARY and not _is_text(node):
            made.append(ast.BinOp(node.left, _BINARY[type(node.op)](), node.right))
        elif isinstance(node, ast.BoolOp):
            made.append(ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values))
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
            made.append(node.operand)
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
            made.append(ast.Constant(not node.value))
        elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            made.append(ast.Constant(node.value + 1))
        elif isinstance(node, ast.IfExp):
            made.append(ast.IfExp(node.test, node.orelse, node.body))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CALLS:
            made.append(ast.Call(ast.Name(_CALLS[node.func.id], ast.Load()), node.args, node.keywords))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CALLS:
            named = ast.Attribute(node.func.value, _CALLS[node.func.attr], ast.Load())
            made.append(ast.Call(named, node.args, node.keywords))
        elif isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Constant):
            made.append(ast.Return(ast.Constant(None)))
        elif isinstance(node, ast.Raise):
            made.append(ast.Pass())
        yield from ((node, one) for one in made)


def _living(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run: no annotations, no docstrings, no text of messages, nothing under TYPE_CHECKING."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.JoinedStr | ast.Import | ast.ImportFrom | ast.arg):
            continue
        if isinstance(child, ast.AnnAssign):
            if child.value is not None:
                yield child.value
                yield from _living(child.value)
            continue
        if isinstance(child, ast.FunctionDef):
            for part in [*child.body, *child.args.defaults, *[d for d in child.args.kw_defaults if d is not None]]:
                yield part
                yield from _living(part)
            continue
        yield child
        yield from _living(child)


def _is_text(node: ast.BinOp) -> bool:
    return any(isinstance(side, ast.JoinedStr) or (isinstance(side, ast.Constant) and isinstance(side.value, str))
               for side in (node.left, node.right))  # fmt: skip


def mutants(rooms: list[str]) -> list[Mutant]:
    """Every mutant of the rooms, in order."""
    found = []
    for room in rooms:
        for file in MIRROR[room][0]:
            tree = ast.parse((SOURCE / file).read_text(encoding="utf-8"))
            for number, (node, made) in enumerate(variants(tree)):
                found.append(Mutant(room, file, number, getattr(node, "lineno", 0), _said(node), _said(made)))
    return found


def _said(node: ast.AST) -> str:
    return " ".join(ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).split())[:90]


def mutated(file: str, number: int) -> str:
    """The file's text with one fault in it."""
    tree = ast.parse((SOURCE / file).read_text(encoding="utf-8"))
    node, made = next(pair for at, pair in enumerate(variants(tree)) if at == number)

    class Swap(ast.NodeTransformer):
        def visit(self, here: ast.AST) -> ast.AST:
            return made if here is node else super().visit(here)

    return ast.unparse(ast.fix_missing_locations(Swap().visit(tree)))


def equivalents() -> dict[str, str]:
    """Mutants that make no difference, with the reason."""
    lines = (Path(__file__).parent / "equivalent.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split(" # ", 1) for line in lines if line.strip() and not line.startswith("#")]
    return {name.strip(): why.strip() for name, why in pairs}


def run(chosen: list[Mutant], timeout: float, python: str, *, show: bool = True) -> list[dict[str, object]]:
    """Each mutant's outcome: killed, survived, or equivalent."""
    known = equivalents()
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="mutation-") as place:
        there = Path(place)
        shutil.copytree(ROOT / "src", there / "src", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "tests", there / "tests", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "CHANGELOG.md"):
            shutil.copy(ROOT / name, there / name)
        # no byte code: a mutant of the same size, written within a second, would be taken for the file before
        environment = {
            **os.environ,
            "PYTHONPATH": str(there / "src"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "CONVOSCOPE_ROTATION": "0",
        }
        for room in dict.fromkeys(one.room for one in chosen):
            what = _tested(there, MIRROR[room][1], timeout, python, environment, tell=True)
            if what != "survived":
                raise SystemExit(f"The tests of {room} do not pass as they are ({what}): nothing can be said.")
        for number, one in enumerate(chosen, 1):
            file = there / "src" / "convoscope" / one.file
            right = file.read_text(encoding="utf-8")
            began = time.monotonic()
            what = "equivalent" if one.name in known else ""
            if not what:
                file.write_text(mutated(one.file, one.number), encoding="utf-8")
                try:
                    what = _tested(there, MIRROR[one.room][1], timeout, python, environment)
                finally:
                    file.write_text(right, encoding="utf-8")
            outcomes.append(
                {**asdict(one), "name": one.name, "outcome": what, "seconds": round(time.monotonic() - began, 1)}
            )
            if show:
                print(
                    f"{number:3}/{len(chosen)} {what:<10} {one.file}:{one.line}  {one.before}  ->  {one.after}",
                    flush=True,
                )
    return outcomes


def _tested(
    there: Path, tests: list[str], timeout: float, python: str, environment: dict[str, str], tell: bool = False
) -> str:
    given = [one for one in tests if (there / one).exists()]
    command = [python, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header", *given]
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(command, cwd=there, env=environment, capture_output=True, text=True, timeout=timeout)
        if tell and done.returncode:
            print(done.stdout[-3000:], done.stderr[-1000:], sep="\n", flush=True)
        if done.returncode not in (0, 1, 2):
            return f"error {done.returncode}"
        return "survived" if done.returncode == 0 else "killed"
    return "too long" if tell else "killed"  # a mutant that hangs is noticed


def main() -> int:
    """Run and report; ends with 1 where fewer are killed than asked."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--count", type=int, default=40)
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--only", default=",".join(MIRROR), help=f"of {', '.join(MIRROR)}")
    flags.add_argument("--timeout", type=float, default=900.0, help="seconds for the tests of one mutant")
    flags.add_argument("--least", type=float, default=0.9, help="share that must be killed")
    flags.add_argument("--out", help="the report, as JSON")
    given = flags.parse_args()
    every = mutants(given.only.split(","))
    chosen = random.Random(given.seed).sample(every, min(given.count, len(every)))
    print(f"{len(chosen)} of {len(every)} mutants of {given.only}", flush=True)
    outcomes = run(chosen, given.timeout, sys.executable)
    counted = [one for one in outcomes if one["outcome"] != "equivalent"]
    killed = sum(one["outcome"] == "killed" for one in counted)
    share = killed / len(counted) if counted else 1.0
    print(
        f"\n{killed} of {len(counted)} killed ({share:.0%}), {len(outcomes) - len(counted)} known to make no difference"
    )
    if given.out:
        Path(given.out).write_text(json.dumps(outcomes, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0 if share >= given.least else 1


if __name__ == "__main__":
    raise SystemExit(main())

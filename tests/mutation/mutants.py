"""The faults: small changes that make a line of the core wrong, each with a name that outlives edits elsewhere."""

from __future__ import annotations

import ast
import copy
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).resolve().parents[2] / "src" / "convoscope"

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
    end: int
    where: str
    before: str
    after: str
    alike: int
    #: the first and the last line of the function; of what runs when the file is imported None
    around: tuple[int, int] | None

    @property
    def key(self) -> str:
        """Its name in ``sample.txt`` and ``equivalent.txt``: file, function, change, and which of several alike."""
        which = f" [{self.alike}]" if self.alike > 1 else ""
        return f"{self.file} :: {self.where} :: {self.before} -> {self.after}{which}"


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


def mutants(rooms: dict[str, list[str]]) -> list[Mutant]:
    """Every mutant of the files of some rooms, in order."""
    found = []
    for room, files in rooms.items():
        for file in files:
            tree = ast.parse((SOURCE / file).read_text(encoding="utf-8"))
            places, seen = _places(tree), Counter[tuple[str, str, str]]()
            for number, (node, made) in enumerate(variants(tree)):
                line, end = getattr(node, "lineno", 0), getattr(node, "end_lineno", 0)
                inside = [place for place in places if place.first <= line <= place.last]
                inner = min(inside, key=lambda place: place.last - place.first, default=None)
                said = ("(module)" if inner is None else inner.name, _said(node), _said(made))
                seen[said] += 1
                around = (inner.first, inner.last) if inner is not None and inner.runs else None
                found.append(Mutant(room, file, number, line, end, *said, seen[said], around))
    return found


def shuffled(every: list[Mutant], seed: int) -> list[Mutant]:
    """The mutants in the order of a seed; what is added or taken away elsewhere does not change it."""
    return sorted(every, key=lambda one: hashlib.sha256(f"{seed} {one.key}".encode()).digest())


class _Place(NamedTuple):
    """A function or a class, and whether its lines run when it is called."""

    first: int
    last: int
    name: str
    runs: bool


def _places(tree: ast.AST, above: str = "") -> list[_Place]:
    found = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{above}.{node.name}" if above else node.name
            runs = not isinstance(node, ast.ClassDef)
            found += [_Place(node.lineno, node.end_lineno or 0, name, runs), *_places(node, name)]
        else:
            found += _places(node, above)
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

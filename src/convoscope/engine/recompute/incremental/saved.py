"""Exported graphs kept on disk, so that the first map of a new process needs no export.

Exporting loads torch's compiler (more than a second) and traces the network (up to five). What it finds, the order of
operations, depends on the network's code and shapes alone. It is written down as JSON without any values: names of
ATen operations and their plain arguments. Reading it back runs no code but the look-up of those operations. A graph is
trusted no more than one just exported: on every picture its score is held against the network's own.

The folder is ``convoscope/graphs`` in the user's cache (``XDG_CACHE_HOME``), or where ``CONVOSCOPE_CACHE`` says;
``CONVOSCOPE_CACHE=off`` keeps nothing. It holds at most :data:`MOST` graphs; those unused for longest go.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import operator
import os
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from convoscope.cache import cache_folder
from convoscope.engine.recompute.incremental.graph import ExportedGraph
from convoscope.files import write_whole
from convoscope.version import __version__

#: of what is written; another number is not read
FORMAT = 1
#: graphs kept
MOST = 64
#: larger files are not read
LARGEST = 8 * 2**20
#: Python's own operations on sizes that a graph may hold
_PYTHON = {
    name: getattr(operator, name)
    for name in (
        "add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "getitem", "pow", "eq", "ge", "gt", "le", "lt",
    )
}  # fmt: skip
_ATEN = re.compile(r"aten\.([A-Za-z_]\w*)\.([A-Za-z_]\w*)")
_TORCH = {
    str(one): one for one in vars(torch).values() if isinstance(one, (torch.dtype, torch.memory_format, torch.layout))
}
_DTYPES = {name: one for name, one in _TORCH.items() if isinstance(one, torch.dtype)}
_SPLITS = ("aten.split.Tensor", "aten.split_with_sizes.default", "aten.chunk.default")


class NotKept(Exception):
    """This graph holds something that is not written down."""


def folder() -> Path | None:
    """Where graphs are kept; ``None`` where nothing is."""
    base = cache_folder()
    return None if base is None else base / "graphs"


def load(network: nn.Module, example: Tensor) -> ExportedGraph | None:
    """The graph of this network for this input shape, if it was kept."""
    place = folder()
    if place is None:
        return None
    file = place / f"{key(network, example)}.json"
    try:
        if file.stat().st_size > LARGEST:
            return None
        found = _read(json.loads(file.read_text(encoding="utf-8")), tuple(example.shape[1:]), network)
    except Exception:  # damaged, cut off, of another version: exported anew
        return None
    with contextlib.suppress(OSError):
        os.utime(file)
    return found


def is_kept(network: nn.Module, example: Tensor) -> bool:
    """Whether a graph of this network for this input shape lies on disk."""
    place = folder()
    return place is not None and (place / f"{key(network, example)}.json").is_file()


def keep(network: nn.Module, example: Tensor, graph: ExportedGraph) -> ExportedGraph:
    """Write the graph down, if all of it can be; returns it as it came."""
    place = folder()
    if place is None:
        return graph
    try:
        text = json.dumps(_written(graph), allow_nan=False)
    except (NotKept, TypeError, ValueError, NotImplementedError):
        return graph
    with contextlib.suppress(OSError):
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(place / f"{key(network, example)}.json", text)
        _bound(place)
    return graph


def forget(network: nn.Module, example: Tensor) -> None:
    """Drop what was kept: it does not tell what the network does."""
    place = folder()
    if place is not None:
        with contextlib.suppress(OSError):
            (place / f"{key(network, example)}.json").unlink(missing_ok=True)


def _bound(place: Path) -> None:
    files = sorted(place.glob("*.json"), key=lambda file: file.stat().st_mtime)
    for file in files[:-MOST]:
        with contextlib.suppress(OSError):
            file.unlink()


def key(network: nn.Module, example: Tensor) -> str:
    """A hash of what a graph depends on: code, modules with their settings, shapes, versions. Weights do not matter."""
    told: list[Any] = [
        FORMAT, __version__, str(torch.__version__), tuple(example.shape[1:]), str(example.dtype), example.device.type
    ]  # fmt: skip
    seen: set[type] = set()
    for name, module in network.named_modules():
        kind = type(module)
        plain = {k: v for k, v in vars(module).items() if isinstance(v, (bool, int, float, str, tuple, type(None)))}
        told.append(
            (name, kind.__module__, kind.__qualname__, repr(sorted(plain.items(), key=str)), module.extra_repr())
        )
        if kind not in seen:
            seen.add(kind)
            for member in vars(kind).values():
                code = getattr(member, "__code__", None)
                if code is not None:
                    told.append((code.co_name, code.co_code.hex(), repr(code.co_names), _constants(code)))
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        told.append((name, tuple(tensor.shape), str(tensor.dtype)))
    return hashlib.sha256(repr(told).encode()).hexdigest()


def _constants(code: Any) -> str:
    """A function's constants, those of functions inside it by their code (its ``repr`` holds an address)."""
    return repr([one.co_code.hex() if hasattr(one, "co_code") else one for one in code.co_consts])


def _written(graph: ExportedGraph) -> dict[str, Any]:
    """The graph as plain data. Raises :class:`NotKept`."""
    if graph.constants:
        raise NotKept("constants of its own")
    nodes = []
    for node in graph.graph.nodes:
        if node.op == "output":
            continue
        if node.op == "placeholder":
            nodes.append({"name": node.name, "val": _value(node)})
            continue
        target = _target(node)
        if target in _SPLITS and any(s is None for s in (_value(node.args[0]) or {"shape": [None]})["shape"][1:]):
            raise NotKept("a split of sizes that depend on the batch")
        nodes.append(
            {"name": node.name, "target": target, "args": _plain(node.args), "kwargs": _plain(dict(node.kwargs)),
             "val": _value(node)}
        )  # fmt: skip
    return {
        "format": FORMAT, "nodes": nodes, "lifted": graph.lifted, "input": graph.input, "outputs": list(graph.outputs),
        "spec": pytree.treespec_dumps(graph.spec), "shape": list(graph.shape),
        "literals": [[number, _plain(value)] for number, value in graph.literals.items()],
    }  # fmt: skip


def _target(node: fx.Node) -> str:
    if node.op != "call_function":
        raise NotKept(node.op)
    name = str(node.target)
    if _ATEN.fullmatch(name) and node.target is _operation(name):
        return name
    for known, function in _PYTHON.items():
        if node.target is function:
            return known
    raise NotKept(name)


def _operation(name: str) -> Any:
    """An operation by its name: ATen's, or one of Python's on numbers; nothing else."""
    if name in _PYTHON:
        return _PYTHON[name]
    found = _ATEN.fullmatch(name)
    if found is None:
        raise NotKept(name)
    operation = getattr(getattr(torch.ops.aten, found[1]), found[2])
    if not isinstance(operation, torch._ops.OpOverload):
        raise NotKept(name)
    return operation


def _value(node: Any) -> dict[str, Any] | None:
    """Shape and type of a node's value; ``None`` for sizes that depend on the batch."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    if not isinstance(value, Tensor):
        return None
    return {"shape": [side if isinstance(side, int) else None for side in value.shape], "dtype": str(value.dtype)}


def _plain(value: Any) -> Any:
    """An argument as JSON: what JSON has no word for is a dictionary with one letter."""
    if isinstance(value, fx.Node):
        return {"n": value.name}
    if value is None or isinstance(value, (bool, str)) or type(value) is int:
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"f": repr(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if type(value) is dict:
        return {"d": [[str(name), _plain(one)] for name, one in value.items()]}
    if isinstance(value, (torch.dtype, torch.memory_format, torch.layout)):
        return {"t": str(value)}
    if isinstance(value, torch.device):
        return {"v": str(value)}
    raise NotKept(type(value).__name__)


def _argument(value: Any, nodes: dict[str, fx.Node]) -> Any:
    """The inverse of :func:`_plain`."""
    if isinstance(value, list):
        return [_argument(one, nodes) for one in value]
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    if kind == "n":
        return nodes[held]
    if kind == "f":
        return float(held)
    if kind == "d":
        return {name: _argument(one, nodes) for name, one in held}
    if kind == "t":
        return _TORCH[held]
    if kind == "v":
        return torch.device(held)
    raise NotKept(kind)


def _read(kept: dict[str, Any], shape: tuple[int, ...], network: nn.Module) -> ExportedGraph:
    if kept["format"] != FORMAT or tuple(kept["shape"]) != shape:
        raise NotKept("another format")
    graph = fx.Graph()
    nodes: dict[str, fx.Node] = {}
    for one in kept["nodes"]:
        if "target" not in one:
            made = graph.create_node("placeholder", one["name"], name=one["name"])
        else:
            args, kwargs = tuple(_argument(one["args"], nodes)), _argument(one["kwargs"], nodes)
            made = graph.create_node("call_function", _operation(one["target"]), args, kwargs, one["name"])
        nodes[one["name"]] = made  # under another name where it is one of Python's own ("input")
        if (value := one["val"]) is not None:
            sides = [side if side is not None else 1 for side in value["shape"]]
            made.meta["val"] = torch.empty(sides, dtype=_DTYPES[value["dtype"]], device="meta")
    outputs = tuple(None if name is None else nodes[name].name for name in kept["outputs"])
    graph.output(tuple(nodes[name] for name in kept["outputs"] if name is not None))
    for name in kept["lifted"].values():  # a parameter or buffer that is not there would be told too late
        path, _, leaf = name.rpartition(".")
        if not isinstance(getattr(network.get_submodule(path), leaf), Tensor):
            raise NotKept(name)
    literals = {int(number): _argument(value, nodes) for number, value in kept["literals"]}
    lifted = {nodes[one].name: name for one, name in kept["lifted"].items()}
    return ExportedGraph(
        graph, lifted, {}, nodes[kept["input"]].name, outputs, pytree.treespec_loads(kept["spec"]), shape, None,
        literals, origin="disk",
    )  # fmt: skip

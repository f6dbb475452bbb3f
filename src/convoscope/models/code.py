"""What a network computes besides its weights: the code of its own classes, and what that takes from around it.

The same weights under another ``forward`` are another network. Results that are kept (maps of a folder, surveys,
evaluations) are known by this text's hash, too; it is that of what Python runs, so comments and line breaks are no
change, and another version of Python compiles another one.
"""

from __future__ import annotations

import hashlib
import math
import re
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import is_dataclass
from enum import Enum
from functools import cache, partial
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..engine.passes.untouched import innermost

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_PLAIN = (str, bytes, bool, int, float, complex, type(None))
#: functions that ask for one another, beyond which they are only named
_DEEP = 80
#: numbers in an array beyond which its bytes are left out, where it only lies near a network's code
_MANY = 1_000_000


def code_of(network: nn.Module, call: Any = None) -> str:
    """The version of Python and a hash of what ``network`` computes, whatever its weights: ``3.12:9f2c...``.

    Its structure and settings as they are printed; of classes that no installed package brings, the code and the
    attributes that are plain values or functions; and ``call`` where it is somebody's own. "" where it cannot be told.
    """
    try:
        return f"{sys.version_info[0]}.{sys.version_info[1]}:{_digest(innermost(network), call)}"
    # somebody's ``__repr__`` or attribute may raise anything, and the network runs all the same
    except Exception:
        return ""


def _digest(network: nn.Module, call: Any) -> str:
    text = _Told(strict=False)
    digest = hashlib.sha256(_ADDRESS.sub("", repr(network)).encode())
    for name, module in network.named_modules():
        kind, scripted = type(module), isinstance(module, torch.jit.ScriptModule)
        own = [text.of(function) for one in kind.__mro__ for function in _written(one)]
        forward = None if scripted else vars(module).get("forward")  # somebody put another in its place
        if forward is not None:
            own.append(text.of(forward))
        if scripted:
            script = getattr(module, "code_with_constants", None)  # lists of modules have none
            own.append("" if script is None else f"{script[0]}{text.of(dict(script[1].const_mapping))}")
        if own:
            own += [f"{key}={text.of(value)}" for key, value in _settings(module)]
        digest.update(f"\n{name}: {kind.__name__} {' '.join(own)}".encode())  # a script's own module has many names
    function = getattr(call, "__func__", call)
    if isinstance(function, FunctionType) and not _installed(function.__code__.co_filename):
        digest.update(text.of(function).encode())
    return digest.hexdigest()


def same_code(one: str, other: str) -> bool:
    """Whether two networks compute the same, as far as is known: codes of other versions of Python do not compare."""
    return not one or not other or one.partition(":")[0] != other.partition(":")[0] or one == other


def told(value: Any) -> str:
    """What a function computes, as text that another process would write, too: its code, and the values that it takes
    from around it. Where these have no such text (an address stands in it), nothing is taken for the same later.
    """
    return _Told(strict=True).of(value)


class _Told:
    """Values as text; a function that was told is named when it comes again, so that circles and diamonds end.

    Args:
        strict: what has no text of its own is told by its address; otherwise by its kind alone.
    """

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.depth = 0
        self.seen: dict[int, Any] = {}  # held, so that no other object gets the same number

    def of(self, value: Any) -> str:
        """One value."""
        if isinstance(value, _PLAIN):
            return repr(value)
        if isinstance(value, CodeType):
            return f"{value.co_code!r}{value.co_names!r}({self.all(value.co_consts)})"
        if isinstance(value, (Tensor, np.ndarray)):
            return self.array(value)
        if isinstance(value, ModuleType):
            return value.__name__
        if isinstance(value, BuiltinFunctionType):
            return f"{value.__module__}.{value.__qualname__}"
        if isinstance(value, Enum):
            return str(value)
        if id(value) in self.seen:
            return f"again {getattr(value, '__name__', type(value).__name__)}"
        if isinstance(value, tuple):  # equal ones may be one object or several
            return f"{type(value).__name__}({self.all(value)})"
        if isinstance(value, (set, frozenset)):  # of texts, whose order is another in every process
            return f"{type(value).__name__}({', '.join(sorted(map(self.of, value)))})"
        self.seen[id(value)] = value
        if isinstance(value, type):
            return f"{value.__name__}({self.all(_written(value))})"
        if isinstance(value, list):
            return f"list({self.all(value)})"
        if isinstance(value, dict):
            return f"dict({', '.join(f'{self.of(key)}: {self.of(one)}' for key, one in value.items())})"
        if isinstance(value, partial):
            return f"partial({self.all((value.func, value.args, value.keywords))})"
        if isinstance(value, MethodType):
            return f"{self.of(value.__func__)} of {type(value.__self__).__qualname__}"
        if isinstance(value, nn.Module):
            weights = self.of(dict(value.state_dict())) if self.strict else ""
            return _ADDRESS.sub("", repr(value)) + weights
        if isinstance(value, FunctionType):
            return self.function(value)
        if is_dataclass(value) or isinstance(value, SimpleNamespace):
            return f"{type(value).__qualname__}({self.of(dict(getattr(value, '__dict__', {})))})"
        return repr(value) if self.strict else type(value).__qualname__

    def all(self, values: Iterable[Any]) -> str:
        """Several, in their order."""
        return ", ".join(map(self.of, values))

    def array(self, value: Any) -> str:
        """Kind, shape and a hash of the bytes; of large ones that are only near a network's code, not of the bytes."""
        found = str(value.dtype)
        try:
            found += str(tuple(value.shape))
            if not self.strict and math.prod(value.shape) > _MANY:
                return found
            array = value.detach().cpu().float().numpy() if isinstance(value, Tensor) else value
        except (RuntimeError, NotImplementedError, TypeError, ValueError):  # quantised, sparse, without values yet
            return found
        return found + hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()

    def function(self, function: FunctionType) -> str:
        """Its code, the values of the names that it asks for, and its defaults."""
        code = function.__code__
        if _installed(code.co_filename) or self.depth > _DEEP:
            return f"{function.__module__}.{function.__qualname__}"
        taken = {name: function.__globals__[name] for name in _names(code) if name in function.__globals__}
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                taken[name] = cell.cell_contents
            except ValueError:  # it has no value yet
                continue
        taken |= {"defaults": function.__defaults__ or (), **(function.__kwdefaults__ or {})}
        self.depth += 1
        around = ", ".join(f"{name}={self.of(one)}" for name, one in sorted(taken.items()))
        self.depth -= 1
        return f"{self.of(code)} with {around}"


def _names(code: CodeType) -> set[str]:
    """Every name that a function's code asks for, that of functions inside it, too."""
    inner = [_names(one) for one in code.co_consts if isinstance(one, CodeType)]
    return set(code.co_names).union(*inner)


def _written(kind: type) -> list[FunctionType]:
    """The functions of a class that no installed package brings."""
    found = []
    for _, one in sorted(vars(kind).items()):
        function = getattr(one, "__func__", getattr(one, "fget", one))
        if isinstance(function, FunctionType) and not _installed(function.__code__.co_filename):
            found.append(function)
    return found


def _settings(module: nn.Module) -> list[tuple[str, Any]]:
    """Attributes that are plain values, or functions."""
    return sorted(
        (name, value) for name, value in vars(module).items()
        if not name.startswith("_") and name not in ("training", "forward")
        and isinstance(value, (*_PLAIN, FunctionType, tuple))
    )  # fmt: skip


@cache
def _installed(file: str) -> bool:
    """Whether a file of code belongs to an installed package, to Python, or to Convoscope itself."""
    places = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    home = Path(__file__).resolve().parents[1]
    path = Path(file)
    parts = path.parts
    return (
        "site-packages" in parts or "dist-packages" in parts or file.startswith("<frozen")
        or any(path.is_relative_to(place) for place in places if place) or path.is_relative_to(home)
    )  # fmt: skip

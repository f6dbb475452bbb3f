"""What a network computes besides its weights: the code of its own classes, and what that takes from around it.

The same weights under another ``forward`` are another network. Results that are kept (maps of a folder, surveys,
evaluations) are known by this text's hash, too; it is that of what Python runs, so comments and line breaks are no
change, and another version of Python compiles another one.
"""

from __future__ import annotations

import hashlib
import re
import sys
import sysconfig
from functools import cache, partial
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..engine.passes.untouched import innermost

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_PLAIN = (str, bytes, bool, int, float, complex, type(None))


def code_of(network: nn.Module, call: Any = None) -> str:
    """The version of Python and a hash of what ``network`` computes, whatever its weights: ``3.12:9f2c...``.

    Its structure and settings as they are printed; of classes that no installed package brings, the code and the
    attributes that are plain values or functions; and ``call`` where it is somebody's own.
    """
    network = innermost(network)
    digest = hashlib.sha256(_ADDRESS.sub("", repr(network)).encode())
    for name, module in network.named_modules():
        kind = type(module)
        own = [function for one in kind.__mro__ for function in _written(one)]
        forward = vars(module).get("forward")  # somebody put another in its place
        if forward is not None and not isinstance(module, torch.jit.ScriptModule):
            own.append(told(forward, strict=False))
        if isinstance(module, torch.jit.ScriptModule):
            own.append(_scripted(module))
        if own:
            own += [f"{key}={told(value, strict=False)}" for key, value in _settings(module)]
        digest.update(f"\n{name}: {kind.__module__}.{kind.__qualname__} {' '.join(own)}".encode())
    function = getattr(call, "__func__", call)
    if isinstance(function, FunctionType) and not _installed(function.__code__.co_filename):
        digest.update(told(function, strict=False).encode())
    return f"{sys.version_info[0]}.{sys.version_info[1]}:{digest.hexdigest()}"


def same_code(one: str, other: str) -> bool:
    """Whether two networks compute the same, as far as is known: codes of other versions of Python do not compare."""
    return not one or not other or one.partition(":")[0] != other.partition(":")[0] or one == other


def told(value: Any, strict: bool = True, inside: tuple[FunctionType, ...] = ()) -> str:
    """What a function computes, as text that another process would write, too: its code, and the values that it takes
    from around it.

    Args:
        value: a function, or a value that one takes.
        strict: values without such a text (an address stands in it) are told by it, so that nothing is taken for the
            same later; otherwise by their kind alone.
        inside: functions that are being told.
    """
    again = partial(told, strict=strict, inside=inside)
    if isinstance(value, CodeType):
        return f"{value.co_code!r}{value.co_names!r}({', '.join(map(again, value.co_consts))})"
    if isinstance(value, (Tensor, np.ndarray)):
        array = value.detach().cpu().float().numpy() if isinstance(value, Tensor) else value
        return f"{array.dtype}{array.shape}{hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()}"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__}({', '.join(map(again, value))})"
    if isinstance(value, (set, frozenset)):  # of texts, whose order is another in every process
        return f"{type(value).__name__}({', '.join(sorted(map(again, value)))})"
    if isinstance(value, dict):
        return f"dict({', '.join(f'{again(key)}: {again(one)}' for key, one in value.items())})"
    if isinstance(value, partial):
        return f"partial({again(value.func)}, {again(value.args)}, {again(value.keywords)})"
    if isinstance(value, MethodType):
        return f"{again(value.__func__)} of {type(value.__self__).__qualname__}"
    if isinstance(value, nn.Module):
        return f"{_ADDRESS.sub('', repr(value))}{again(dict(value.state_dict()))}" if strict else type(value).__name__
    if isinstance(value, ModuleType):
        return value.__name__
    if isinstance(value, (BuiltinFunctionType, type)):
        return f"{value.__module__}.{value.__qualname__}"
    if not isinstance(value, FunctionType):
        return repr(value) if strict or isinstance(value, _PLAIN) else type(value).__qualname__
    if value in inside or _installed(value.__code__.co_filename):
        return f"{value.__module__}.{value.__qualname__}"
    return _function(value, strict, inside)


def _function(function: FunctionType, strict: bool, inside: tuple[FunctionType, ...]) -> str:
    code = function.__code__
    taken = {name: function.__globals__[name] for name in _names(code) if name in function.__globals__}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            taken[name] = cell.cell_contents
        except ValueError:  # it has no value yet
            continue
    taken |= {"defaults": function.__defaults__ or (), **(function.__kwdefaults__ or {})}
    around = ", ".join(f"{name}={told(one, strict, (*inside, function))}" for name, one in sorted(taken.items()))
    return f"{told(code, strict, inside)} with {around}"


def _names(code: CodeType) -> set[str]:
    """Every name that a function's code asks for, that of functions inside it, too."""
    inner = [_names(one) for one in code.co_consts if isinstance(one, CodeType)]
    return set(code.co_names).union(*inner)


def _written(kind: type) -> list[str]:
    """The functions of a class that no installed package brings."""
    found = []
    for name, one in sorted(vars(kind).items()):
        function = getattr(one, "__func__", getattr(one, "fget", one))
        if isinstance(function, FunctionType) and not _installed(function.__code__.co_filename):
            found.append(f"{name}={told(function, strict=False)}")
    return found


def _settings(module: nn.Module) -> list[tuple[str, Any]]:
    """Attributes that are plain values, or functions."""
    return sorted(
        (name, value) for name, value in vars(module).items()
        if not name.startswith("_") and name not in ("training", "forward")
        and isinstance(value, (*_PLAIN, FunctionType, tuple))
    )  # fmt: skip


def _scripted(module: torch.jit.ScriptModule) -> str:
    try:
        return str(module.code)
    except Exception:  # some have no code of their own
        return ""


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

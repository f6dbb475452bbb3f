"""Settings, checked where they are made: Python, the command line and the page refuse alike."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Hashable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import UsageError


def setting(default: Any, help: str, **limits: Any) -> Any:
    """A dataclass field with its help text.

    ``choices``, ``minimum`` and ``maximum`` bound its value; ``check(value)`` raises :class:`UsageError` for one that
    cannot be; ``pair=True`` takes rows and columns, too, as (8, 16) or 8x16; ``files=True`` says that a text names a
    file or a folder, and that objects are taken as they are.
    """
    return dataclasses.field(default=default, metadata={"help": help, **limits})


def parse_settings(kind: type[Any], given: Mapping[str, Any], title: str = "") -> dict[str, Any]:
    """``given`` with every value read as its field's type and held to its limits.

    Args:
        kind: the method's class.
        title: what stands before the name in a sentence.
        given: values by the field's name (``-`` counts as ``_``); texts are read as the field's type.

    Raises:
        UsageError: there is no such setting, or it cannot have this value; the sentence names what it can be.
    """
    fields = {f.name: f for f in dataclasses.fields(kind)}
    hints = _hints(typing.cast("Hashable", kind))
    owner = kind.about.name
    read = {}
    for name, value in given.items():
        field = fields.get(name.replace("-", "_"))
        if field is None:
            known = ", ".join(fields) or "no settings"
            raise UsageError(f"{title}{owner} has no setting {name!r}; it has: {known}.")
        read[field.name] = _read(f"{owner}.{field.name}", field.metadata, hints.get(field.name, Any), value)
    return read


@cache
def _hints(kind: Hashable) -> dict[str, Any]:
    try:
        return typing.get_type_hints(kind)
    except NameError:  # a person's own class, with types that are known only where it was written
        return {}


def _read(label: str, limits: Mapping[str, Any], hint: Any, value: Any) -> Any:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None or (isinstance(value, str) and value.lower() == "none" and type(None) in kinds):
        if type(None) in kinds or Any in kinds:
            return None
        raise UsageError(f"{label} needs a value.")
    if limits.get("pair") and (pair := _pair(label, limits, value)) is not None:
        return pair
    kind = next(k for k in kinds if k is not type(None))
    if isinstance(kind, type) and typing.get_origin(kind) is None:
        value = _typed(label, limits, kind, value)
    choices = limits.get("choices")
    if choices and value not in choices:
        raise UsageError(f"{label} must be {' or '.join(map(str, choices))}, not {value!r}.")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        low, high = limits.get("minimum"), limits.get("maximum")
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            above = f"at least {low}" if high is None else f"in {low}..{high}"
            raise UsageError(f"{label} must be {above}, not {value}.")
    if (check := limits.get("check")) is not None:
        check(value)
    return value


def _pair(label: str, limits: Mapping[str, Any], value: Any) -> tuple[int, int] | None:
    """Rows and columns where two numbers were given."""
    parts = value.lower().split("x") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or (isinstance(value, str) and len(parts) == 1):
        return None
    if len(parts) != 2:
        raise UsageError(f"{label} must be one number, or rows and columns as 8x16, not {value!r}.")
    rows, cols = (_read(label, {k: v for k, v in limits.items() if k != "pair"}, int, part) for part in parts)
    return rows, cols


def _typed(label: str, limits: Mapping[str, Any], kind: type[Any], value: Any) -> Any:
    if isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
        return value
    if limits.get("files") and not isinstance(value, (str, Path)):
        return value  # pictures themselves
    wrong = UsageError(f"{label} must be {kind.__name__}, not {value!r}.")
    if kind is str and isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    if kind is bool and not isinstance(value, str):
        raise wrong
    if isinstance(value, bool) or (kind is int and isinstance(value, float) and value != int(value)):
        raise wrong
    try:
        if kind is bool:
            return {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False,
                    "off": False}[value.lower()]  # fmt: skip
        return kind(value)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise wrong from None


__all__ = ["parse_settings", "setting"]

"""Flags out of the methods' dataclass fields: every setting of a method is a flag, without being written twice."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from ..errors import UsageError
from ..methods import METHODS, Method, method
from .common import split_names, with_signature

_PANEL = "Settings of the methods (--set gives one to one method only)"
#: fields that have a flag of their own
_OWN = {"layer", "parts"}


def fields() -> dict[str, list[tuple[str, dataclasses.Field[Any]]]]:
    """Setting -> the methods that have it, with their fields."""
    found: dict[str, list[tuple[str, dataclasses.Field[Any]]]] = {}
    for name, kind in METHODS.items():
        for field in dataclasses.fields(kind):
            if field.name not in _OWN:
                found.setdefault(field.name, []).append((name, field))
    return found


def flag(name: str) -> str:
    """The flag of a setting: ``--like-this``."""
    return "--" + name.replace("_", "-")


def takes_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give ``command`` a flag for every setting of every method; what was given is its parameter ``settings``."""
    signature = inspect.signature(command, eval_str=True)
    own = [p for p in signature.parameters.values() if p.name != "settings"]
    taken = {p.name for p in own}
    known = {name: users for name, users in fields().items() if name not in taken}
    flags = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                str | None, typer.Option(flag(name), help=_help(users), rich_help_panel=_PANEL, metavar=_kind(users))
            ],
        )
        for name, users in known.items()
    ]

    def gather(given: dict[str, Any]) -> dict[str, Any]:
        settings = {name: given.pop(name) for name in known if name in given}
        return {**given, "settings": {name: value for name, value in settings.items() if value is not None}}

    return with_signature(command, [*own, *flags], gather)


def _help(users: Sequence[tuple[str, dataclasses.Field[Any]]]) -> str:
    texts: dict[str, list[str]] = {}
    for name, field in users:
        texts.setdefault(str(field.metadata.get("help", "")), []).append(f"{name} {field.default}")
    return "; ".join(f"{text} ({', '.join(defaults)})" for text, defaults in texts.items())


def _kind(users: Sequence[tuple[str, dataclasses.Field[Any]]]) -> str:
    kinds = {type(field.default).__name__ for _, field in users}
    return {"int": "INT", "float": "FLOAT", "bool": "true|false"}.get(kinds.pop() if len(kinds) == 1 else "", "TEXT")


def read_methods(
    names: str | None, default: Sequence[str], settings: Mapping[str, str], sets: Sequence[str]
) -> tuple[list[Method], list[str]]:
    """The methods of ``--method`` with their settings, and the slow ones that ``all`` left out.

    ``settings`` come from flags and go to every method that has them; ``sets`` are ``METHOD.NAME=VALUE``. Raises
    :class:`UsageError` for unknown methods, settings and values.
    """
    asked = split_names(names) if names is not None else list(default)
    if not asked:
        raise UsageError("--method is empty: name a method, or all. `convoscope methods` lists them.")
    chosen: list[str] = []
    left_out: list[str] = []
    for name in asked:
        if name.lower() == "all":
            chosen += [known for known, kind in METHODS.items() if not kind.about.slow]
            left_out = [known for known, kind in METHODS.items() if kind.about.slow]
        else:
            chosen.append(method(name).about.name)
    chosen = list(dict.fromkeys(chosen))
    given: dict[str, dict[str, Any]] = {name: {} for name in chosen}
    for name, value in settings.items():
        users = [known for known in chosen if any(f.name == name for f in dataclasses.fields(METHODS[known]))]
        if not users:
            have = ", ".join(known for known, _ in fields()[name])
            raise UsageError(f"{flag(name)} is a setting of {have}; none of them is among the methods chosen.")
        for known in users:
            given[known][name] = value
    for text in sets:
        owner, name, value = _assignment(text)
        if owner not in given:
            raise UsageError(f"--set {text}: {owner} is not among the methods chosen ({', '.join(chosen)}).")
        given[owner][name] = value
    return [method(name, given[name]) for name in chosen], [name for name in left_out if name not in chosen]


def _assignment(text: str) -> tuple[str, str, str]:
    left, equals, value = text.partition("=")
    owner, dot, name = left.strip().rpartition(".")
    if not (equals and dot and owner and name):
        raise UsageError(f"--set {text}: it must be METHOD.NAME=VALUE, such as occlusion.window=32.")
    return method(owner).about.name, name.strip(), value.strip()

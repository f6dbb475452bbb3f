"""Commands with several MODELs: every model option is given once for all of them, or once for each, in order."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from ..errors import UsageError
from .common import ModelOptions, with_signature


@dataclass(frozen=True)
class SeveralOptions:
    """What was given of each model option, in order."""

    given: dict[str, list[Any]]

    def count(self) -> int:
        """The most values that any option has."""
        return max((len(values) for values in self.given.values()), default=0)

    def each(self, count: int) -> list[ModelOptions]:
        """The options of each of ``count`` models. Raises :class:`UsageError` for another number of values."""
        made = [ModelOptions() for _ in range(count)]
        for name, values in self.given.items():
            if len(values) not in (1, count):
                flag = f"--{name.replace('_', '-')}"
                raise UsageError(
                    f"{flag} was given {len(values)} times for {count} models: give it once for all, or once for each."
                )
            for place, one in enumerate(values * count if len(values) == 1 else values):
                if one != "":  # "" stands for what a model has by itself
                    made[place] = replace(made[place], **{name: one})
        return made


def takes_models(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give ``command`` the flags of ``ModelOptions``, each repeatable, as its parameter ``options``."""
    signature = inspect.signature(command, eval_str=True)
    hints = get_type_hints(ModelOptions, include_extras=True)
    known = {f.name: f for f in fields(ModelOptions)}
    own = [p for p in signature.parameters.values() if p.name != "options"]
    flags = []
    for name, one in known.items():
        kind, setting = _parts(hints[name])
        listed: Any = bool if kind is bool else list[kind] | None  # type: ignore[valid-type]
        default = False if kind is bool else None
        flags.append(
            inspect.Parameter(
                one.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[listed, setting]
            )
        )

    def gather(given: dict[str, Any]) -> dict[str, Any]:
        values = {}
        for name in known:
            value = given.pop(name, None)
            if value:
                values[name] = list(value) if isinstance(value, (list, tuple)) else [value]
        return {**given, "options": SeveralOptions(values)}

    return with_signature(command, [*own, *flags], gather)


def _parts(hint: Any) -> tuple[type, Any]:
    kind, setting = get_args(hint)[:2] if get_origin(hint) is Annotated else (hint, None)
    plain = next((one for one in get_args(kind) if one is not type(None)), kind)
    return plain, setting


def flags(options: ModelOptions) -> str:
    """The options as they are typed, without those that stand at their default."""
    parts = []
    for one in fields(ModelOptions):
        value = getattr(options, one.name)
        if value == one.default or value is None:
            continue
        flag = f"--{one.name.replace('_', '-')}"
        parts.append(flag if value is True else f"{flag} {shlex.quote(str(value))}")
    return " ".join(parts)


def split_pictures(items: list[str]) -> tuple[list[str], list[str]]:
    """Model specs and pictures (or stores) of one list of arguments: what lies on the disk at its end is pictures."""
    from .. import toybox

    def lies(item: str) -> bool:
        if item in toybox.NAMES or ".py" in Path(item).name:
            return False
        return "://" in item or any(mark in item for mark in "*?[") or Path(item).exists()

    at = len(items)
    while at > 0 and lies(items[at - 1]):
        at -= 1
    return items[:at], items[at:]


def is_store(path: str) -> bool:
    """Whether a survey's store lies there."""
    return Path(path, "units.lance").is_dir() or ("://" in path and path.rstrip("/").endswith(".store"))

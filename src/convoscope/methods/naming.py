"""What the maps of several methods are called: by the method's name, and by what differs where that is not enough."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from .base import Method

#: what may stand in a key without further thought: keys are written on command lines and make file names
_SHORT = re.compile(r"[\w.,x+-]{1,24}")


def named(methods: Sequence[Method], *, merge: bool = False) -> dict[str, Method]:
    """Methods by the keys of their maps, in order.

    The first of a kind with default settings keeps its plain name. Another is told by what differs: its layer
    (``grad-cam@layer3``), then its settings (``occlusion(window=8)``); by a number where nothing short does.

    Args:
        methods: instances, of which several may be of one kind.
        merge: keep equal ones once instead of numbering them.
    """
    found: dict[str, Method] = {}
    for one in methods:
        if merge and one in found.values():
            continue
        alike = [other for other in methods if other.about.name == one.about.name]
        key = one.about.name + "".join(_layer(one, alike)) + _settings(one, alike)
        unique, number = key, 1
        while unique in found:
            number += 1
            unique = f"{key}-{number}"
        found[unique] = one
    return found


def titles(methods: Mapping[str, Method]) -> dict[str, str]:
    """What stands over each map, by its key: the method's title, and what differs where two have one title."""
    found = {}
    for key, one in methods.items():
        alike = [other for other in methods.values() if other.about.title == one.about.title]
        said = [f"at {text[1:]}" for text in _layer(one, alike, always=True)]
        said += [f"{name.replace('_', ' ')} {_spelt(value)}" for name, value in _differing(one, alike)]
        found[key] = " · ".join([one.about.title, *said])
    return found


def _layer(one: Method, alike: Sequence[Method], always: bool = False) -> list[str]:
    """``@layer`` where layers differ among methods of a kind; the default one is not named."""
    layer = getattr(one, "layer", None)
    if len(alike) < 2 or len({getattr(other, "layer", None) for other in alike}) < 2:
        return []
    return [f"@{layer}"] if layer is not None else ["@its default layer"] if always else []


def _settings(one: Method, alike: Sequence[Method]) -> str:
    parts = [(name, _spelt(value)) for name, value in _differing(one, alike)]
    if not parts or not all(_SHORT.fullmatch(text) for _, text in parts):
        return ""
    return f"({','.join(f'{name}={text}' for name, text in parts)})"


def _differing(one: Method, alike: Sequence[Method]) -> list[tuple[str, Any]]:
    """The settings, other than the layer, that are no defaults and not the same in all methods of the kind."""
    found = []
    for field in dataclasses.fields(one) if len(alike) > 1 else ():
        value = getattr(one, field.name)
        if field.name == "layer" or _spelt(value) == _spelt(field.default):
            continue
        if any(
            type(other) is not type(one) or _spelt(getattr(other, field.name)) != _spelt(value) for other in alike
        ):
            found.append((field.name, value))
    return found


def _spelt(value: Any) -> str:
    if isinstance(value, PurePath):
        return value.name
    if isinstance(value, (tuple, list)) and len(value) == 2 and all(isinstance(part, int) for part in value):
        return "x".join(map(str, value))
    if isinstance(value, (str, int, float, bool, type(None))):
        return str(value)
    return f"{type(value).__name__} {id(value):x}"  # a callable, a picture: by itself, and too long for a key


__all__ = ["named", "titles"]

"""All cases by name, in the order in which they are made."""

from __future__ import annotations

import difflib

from convoscope.errors import UsageError
from convoscope.toybox.ward import data, healthy, inputs, invariances, optimisation, shortcuts, slices, units
from convoscope.toybox.ward.recipe import Recipe

CASES: tuple[Recipe, ...] = (
    *inputs.RECIPES,
    *units.RECIPES,
    *slices.RECIPES,
    *data.RECIPES,
    *optimisation.RECIPES,
    *shortcuts.RECIPES,
    *invariances.RECIPES,
    *healthy.RECIPES,
)
"""The 48 cases, then the 40 healthy networks."""

_BY_NAME = {recipe.name: recipe for recipe in CASES}


def recipe(name: str) -> Recipe:
    """The case of this name. Raises UsageError where there is none."""
    if name not in _BY_NAME:
        near = difflib.get_close_matches(name, _BY_NAME, 3)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        raise UsageError(
            f"The ward has no case {name!r}.{hint}  convoscope toybox DIR --ward --list  names them all."
        )
    return _BY_NAME[name]

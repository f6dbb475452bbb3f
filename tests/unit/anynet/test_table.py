"""The table of docs/networks.md, cell by cell: what it says of a method and a family is what happens."""

from __future__ import annotations

import pytest

from convoscope.methods import METHODS

from .families import FAMILIES
from .table import LOGIT, MAP, REFUSED, cell, written

CELLS = [(name, family) for family in FAMILIES for name in METHODS]


def test_the_table_has_every_method_and_every_family() -> None:
    found = written()
    assert set(found) == set(CELLS)
    assert set(found.values()) <= {MAP, LOGIT, REFUSED}


@pytest.mark.parametrize(("name", "family"), CELLS, ids=[f"{family}-{name}" for name, family in CELLS])
def test_a_cell(name: str, family: str) -> None:
    assert cell(name, family) == written()[name, family]

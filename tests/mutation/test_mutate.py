"""The tool that makes mutants: every one is valid Python that differs, and the list of harmless ones is not stale."""

from __future__ import annotations

import ast
import importlib.util
import random
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("mutate", Path(__file__).parent / "mutate.py")
mutate = importlib.util.module_from_spec(_spec)


@pytest.fixture(scope="module", autouse=True)
def loaded():
    import sys

    sys.modules["mutate"] = mutate
    _spec.loader.exec_module(mutate)


def test_mutants_are_many_and_each_is_valid_and_different():
    for room, (files, tests) in mutate.MIRROR.items():
        every = mutate.mutants([room])
        assert len(every) > 50, room
        for file in files:
            assert (mutate.SOURCE / file).is_file(), file
        for test in tests:
            assert (mutate.ROOT / test).exists(), test
        for one in random.Random(0).sample(every, 6):
            text = mutate.mutated(one.file, one.number)
            right = ast.unparse(ast.parse((mutate.SOURCE / one.file).read_text("utf-8")))
            ast.parse(text)
            assert text != right, one


def test_a_mutant_is_one_change():
    tree = ast.parse("def f(a: int = 1) -> int:\n    return a + 2 if a > 0 else -a\n")
    made = [(mutate._said(node), mutate._said(one)) for node, one in mutate.variants(tree)]
    assert ("a > 0", "a >= 0") in made
    assert ("a + 2", "a - 2") in made
    assert ("-a", "a") in made
    assert ("1", "2") in made
    assert ("return a + 2 if a > 0 else -a", "return None") in made


def test_annotations_messages_and_docstrings_are_left_alone():
    tree = ast.parse('def f(a: "x" = None) -> list[1]:\n    """1 + 1"""\n    raise ValueError(f"{1 + 1}")\n')
    assert [mutate._said(one) for _, one in mutate.variants(tree)] == ["pass"]


def test_what_is_called_harmless_exists_and_has_a_reason():
    there = {said for one in mutate.mutants(list(mutate.MIRROR)) for said in (one.name, one.key)}
    known = mutate.equivalents()
    assert [name for name in known if name not in there] == []
    assert all(len(why) > 15 for why in known.values())

"""The tool that makes mutants: every one is valid Python that differs, and its lists are not stale."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import random
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def mutants():
    return _loaded("mutants")


@pytest.fixture(scope="module")
def mutate():
    return _loaded("mutate")


def _loaded(name):
    sys.path.insert(0, str(Path(__file__).parent))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def there(mutate):
    return mutate.every(list(mutate.MIRROR))


def test_mutants_are_many_and_each_is_valid_and_different(mutate, mutants, there):
    for room, (files, tests) in mutate.MIRROR.items():
        every = [one for one in there if one.room == room]
        assert len(every) > 50, room
        for file in files:
            assert (mutants.SOURCE / file).is_file(), file
        for test in tests:
            assert (mutate.ROOT / test).exists(), test
        for one in random.Random(0).sample(every, 6):
            text = mutants.mutated(one.file, one.number)
            right = ast.unparse(ast.parse((mutants.SOURCE / one.file).read_text("utf-8")))
            ast.parse(text)
            assert text != right, one


def test_a_mutant_is_one_change(mutants):
    tree = ast.parse("def f(a: int = 1) -> int:\n    return a + 2 if a > 0 else -a\n")
    made = [(mutants._said(node), mutants._said(one)) for node, one in mutants.variants(tree)]
    assert ("a > 0", "a >= 0") in made
    assert ("a + 2", "a - 2") in made
    assert ("-a", "a") in made
    assert ("1", "2") in made
    assert ("return a + 2 if a > 0 else -a", "return None") in made


def test_annotations_messages_and_docstrings_are_left_alone(mutants):
    tree = ast.parse('def f(a: "x" = None) -> list[1]:\n    """1 + 1"""\n    raise ValueError(f"{1 + 1}")\n')
    assert [mutants._said(one) for _, one in mutants.variants(tree)] == ["pass"]


def test_names_and_order_outlive_edits_elsewhere(mutants, tmp_path, monkeypatch):
    monkeypatch.setattr(mutants, "SOURCE", tmp_path)
    text = "def f(a):\n    return a + 2\n\n\nclass B:\n    def g(self, a):\n        return (a + 2, a + 2)\n"
    (tmp_path / "a.py").write_text(text)
    before = mutants.mutants({"room": ["a.py"]})
    assert {one.key for one in before} >= {
        "a.py :: f :: a + 2 -> a - 2", "a.py :: B.g :: a + 2 -> a - 2", "a.py :: B.g :: a + 2 -> a - 2 [2]"
    }  # fmt: skip
    (tmp_path / "a.py").write_text("C = 3\n\n\ndef e(a):\n    return a + 2\n\n\n" + text)
    after = mutants.mutants({"room": ["a.py"]})
    old = [one.key for one in before]
    assert [one.key for one in after][-len(old) :] == old
    assert len({one.key for one in after}) == len(after) > len(before)
    ranks = [one.key for one in mutants.shuffled(after, 5) if one.key in old]
    assert (
        ranks == [one.key for one in mutants.shuffled(before, 5)] != [one.key for one in mutants.shuffled(before, 6)]
    )


def test_a_mutant_that_is_gone_is_told_and_replaced(mutate, there):
    whole, _ = mutate.sample(there)
    lost = whole[7]
    found, gone = mutate.sample([one for one in there if one.key != lost.key])
    assert lost.key in gone
    assert len(found) == len({one.key for one in found}) == mutate.COUNT
    assert len(set(found) - set(whole)) == 1
    renumbered = [dataclasses.replace(one, line=one.line + 9, number=one.number + 3) for one in there]
    assert [one.key for one in mutate.sample(renumbered)[0]] == [one.key for one in whole]


def test_the_sample_is_nearly_whole(mutate, there):
    chosen, gone = mutate.sample(there)
    assert len(chosen) == mutate.COUNT
    assert {one.room for one in chosen} == set(mutate.MIRROR)
    assert len(gone) < 0.1 * mutate.COUNT, f"mutate.py --mend replaces what is gone: {gone}"


def test_what_is_called_harmless_exists_and_has_a_reason(mutate, there):
    keys = {one.key for one in there}
    known = mutate.equivalents()
    assert [name for name in known if name not in keys] == []
    assert all(len(why) > 15 for why in known.values())

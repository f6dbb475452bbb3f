"""A head that has forgotten a class: found by a probe, and fitted anew with every class as a group."""

from __future__ import annotations

import json

import pytest
import torch
from test_shortcuts_repair import LABELS, collection, model

import convoscope as cs
from convoscope.improve.collection import Labelled
from convoscope.improve.look import look


@pytest.fixture(scope="module")
def forgetful():
    made = model(tag=0.0)
    with torch.no_grad():
        made.module.head.weight[1] *= 0.01  # its feature is there, and hardly asked for
        made.module.head.bias[1] -= 1.0
    return made


def right(network, count=60):
    looked = look(network, Labelled.of(collection(count, tagged=False), network))
    return {name: looked.right[looked.pictures.truth == at].mean() for at, name in enumerate(LABELS)}


@pytest.fixture
def nothing(tmp_path):
    """A search that found no shortcut."""
    path = tmp_path / "shortcuts.json"
    path.write_text(json.dumps({"classes": {}, "findings": []}), encoding="utf-8")
    return path


def test_a_forgotten_class_comes_back_and_the_others_stay(forgetful, nothing):
    made = cs.repair(forgetful, collection(40, tagged=False), how="head", found=nothing, compare=False)
    assert made.holds, made.why
    assert LABELS[1] in made.why
    before, after = right(forgetful, 12), right(made.model, 12)
    assert before[LABELS[1]] <= 0.1
    assert min(after.values()) >= 0.9


def test_the_diagnosis_own_finding_leads_there(forgetful, tmp_path):
    pictures = collection(40, tagged=False)
    found = cs.diagnose(forgetful, pictures, only="depth")
    forgotten = [
        number for number, one in enumerate(found.findings, 1) if one.evidence.get("what") == "forgotten class"
    ]
    assert forgotten, found
    path = tmp_path / "diagnosis.json"
    path.write_text(json.dumps(found.to_dict()), encoding="utf-8")
    made = cs.repair(forgetful, pictures, found=path, finding=forgotten[0], compare=False)
    assert (made.how, made.holds) == ("head", True), made.why


def test_a_whole_head_is_not_touched(nothing):
    healthy, pictures = model(tag=0.0), collection(40, tagged=False)
    unasked = cs.repair(healthy, pictures, found=nothing, compare=False)
    assert unasked.why.startswith("Nothing to repair")
    made = cs.repair(healthy, pictures, how="head", found=nothing, compare=False)
    assert not made.holds
    assert made.written is None

"""What ``diagnose`` makes of its stages' findings; the formats that other programs read; healthy confidence."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import convoscope as cs
from convoscope.improve.calibration import calibration
from convoscope.improve.collection import Labelled
from convoscope.improve.diagnose import Case, StageResult
from convoscope.improve.diagnose import run as runs
from convoscope.improve.finding import Finding
from convoscope.improve.look import Looked


def found(kind: str, won: float, about: str, sentence: str, whole: bool = False) -> Finding:
    evidence = {"whole": whole}
    return Finding(
        kind, sentence, 0.1, 0.05, 0.2, won=won, p=1e-6, doubt="?", evidence=evidence, concerns=tuple(about)
    )


def test_a_reason_leads_the_slice_that_shows_the_same_pictures() -> None:
    results = [
        StageResult([found("slice", 0.2, "abcdef", "Trees fail.", whole=True)], tests=3),
        StageResult([found("depth", 0.1, "abcde", "The head forgot trees.")], tests=3),
        StageResult([found("slice", 0.05, "xyz", "Cars fail.")], tests=3),
    ]
    told, tests = runs.concluded(results)
    assert tests == 9
    assert [one.sentence for one in told] == ["The head forgot trees.", "Cars fail."]
    assert told[0].won == 0.2
    assert "The same pictures: Trees fail." in told[0].doubt


def test_a_part_of_a_class_says_more_than_a_class_that_is_forgotten() -> None:
    two = [
        found("calibration", 0.2, "abcdef", "The head forgot cars."),
        found("slice", 0.1, "abcde", "Cars at night fail."),
    ]
    [one] = runs.merged(two)
    assert one.sentence == "Cars at night fail."
    assert one.won == 0.2
    assert "The head forgot cars." in one.doubt
    [other] = runs.merged([replace(two[1], won=0.3), two[0]])
    assert other.sentence == "Cars at night fail."


def test_two_reasons_or_other_pictures_stay_apart() -> None:
    two = [found("depth", 0.2, "abc", "One."), found("data", 0.1, "abc", "Two."), found("slice", 0.05, "d", "Three.")]
    assert [one.sentence for one in runs.merged(two)] == ["One.", "Two.", "Three."]
    assert runs.merged([found("slice", 0.2, "", "One."), found("depth", 0.1, "", "Two.")])[1].sentence == "Two."


def test_the_rate_of_false_alarms_is_the_benchmarks(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "measured.json"
    monkeypatch.setattr(runs, "measured_file", lambda: file)
    assert runs.false_alarms() == ""
    file.write_text(json.dumps({"alarms": 1, "healthy": 40}))
    assert "1 on 40 healthy networks" in runs.false_alarms()
    assert "2.5%" in runs.false_alarms()


def case_of(scores: np.ndarray, truth: np.ndarray) -> Case:
    """A case whose pictures were looked at already."""
    count = len(truth)
    held = Labelled(
        tuple(f"{at}.png" for at in range(count)), tuple(f"key {at}" for at in range(count)),
        tuple(str(label) for label in truth), truth.astype(np.int64),
    )  # fmt: skip
    case = Case(cs.open_model("toybox"), held)
    case.__dict__["looked"] = Looked(held, scores.astype(np.float32), {}, {})
    return case


def test_a_network_that_is_right_about_everything_and_nearly_sure_is_healthy() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 10, 150)
    scores = np.eye(10)[truth] * 5.8  # 97 % sure of each, and right about all
    told, findings, tests = calibration(case_of(scores, truth))
    assert told is not None
    assert told.accuracy == 1.0
    assert 0.95 < told.confidence < 0.99
    assert (findings, tests) == ([], 1)


@pytest.mark.parametrize("factor", [3.0, 1 / 3])
def test_a_network_that_is_far_too_sure_or_unsure_is_not(factor: float) -> None:
    random = np.random.default_rng(1)
    logits = random.normal(0, 1.5, (600, 10))
    chance = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = np.array([random.choice(10, p=row) for row in chance])
    assert calibration(case_of(logits, truth))[1] == []
    [finding] = calibration(case_of(logits * factor, truth))[1]
    assert finding.evidence["temperature"] == pytest.approx(factor, rel=0.15)
    assert ("too sure" in finding.sentence) == (factor > 1)


FINDING = {"kind", "class", "sentence", "size", "low", "high", "pictures", "doubt", "next"}


def test_the_formats_are_those_that_other_programs_read() -> None:
    document = runs.Diagnosis((found("slice", 0.1, "ab", "Cars fail."),), (), 7, None, "Nothing.", {}, "n", 3, None)
    told = document.to_dict()
    assert set(told) == {"findings", "tests", "stopped", "missed"}
    assert all(set(one) == FINDING for one in told["findings"])
    assert told["tests"] == 7
    assert told["stopped"] is None
    json.dumps(told)

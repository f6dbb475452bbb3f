"""The simulation of docs/scale.md: whoever dies, every unit is committed once; one committer is a limit."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest

_PATH = Path(__file__).parents[2] / "examples" / "scale_simulation.py"
_spec = importlib.util.spec_from_file_location("scale_simulation", _PATH)
assert _spec is not None
assert _spec.loader is not None
simulation = importlib.util.module_from_spec(_spec)
sys.modules["scale_simulation"] = simulation
_spec.loader.exec_module(simulation)
Setting, simulate = simulation.Setting, simulation.simulate

CALM = Setting(units=2000, workers=20, spread=0.0, slow=0.0, life=1e12, commit=0.0, each=0.0)


def test_without_any_trouble_it_takes_units_times_seconds_over_workers() -> None:
    found = simulate(CALM)
    assert found.seconds == pytest.approx(2000 * 30 / 20)
    assert (found.deaths, found.repeated) == (0, 0)


@pytest.mark.parametrize("seed", range(3))
def test_every_unit_is_committed_once_whoever_dies(seed: int) -> None:
    found = simulate(replace(CALM, life=120.0, slow=0.02, spread=0.5, each=0.02, seed=seed))
    assert found.deaths > 100
    assert sorted(found.committed) == list(range(2000))
    assert set(found.committed.values()) == {1}


def test_repeating_slow_units_shortens_the_end() -> None:
    runs = [replace(CALM, units=200, slow=0.1, seed=seed) for seed in range(10)]
    with_copies = sum(simulate(run).seconds for run in runs)
    assert with_copies < sum(simulate(replace(run, repeat=False)).seconds for run in runs) - 10 * 30


def test_one_committer_keeps_up_until_its_time_a_unit_is_that_of_all_workers() -> None:
    """30 s a unit and 0.1 s a commit: 300 workers at most; more of them make it no faster."""
    busy = replace(CALM, units=6000, each=0.1)
    assert simulate(replace(busy, workers=100)).seconds == pytest.approx(6000 * 30 / 100, rel=0.05)
    for workers in (600, 1200):
        assert simulate(replace(busy, workers=workers)).seconds == pytest.approx(6000 * 0.1 + 30, rel=0.05)

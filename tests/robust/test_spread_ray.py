"""``explain`` and ``evaluate`` on Ray: what they write is what one process writes, whoever dies meanwhile."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convoscope as cs
from convoscope.errors import ConvoscopeError, UsageError
from convoscope.parallel import RayPool, Task
from convoscope.trust.datasets import toybox_cases
from convoscope.trust.evaluate import Settings, evaluate_cases

sys.path.insert(0, str(Path(__file__).parent))
from ray_network import local_ray

pytest.importorskip("ray")
METHODS = "grad-cam,saliency"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """One Ray for all."""
    with local_ray("/tmp") as ray:
        yield ray


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from convoscope.toybox import write

    folder = tmp_path_factory.mktemp("many")
    write(folder, 20, seed=5)
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def test_explain_writes_what_one_process_writes(
    cluster: Any, pictures: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    asked = ("explain", "toybox", pictures, "--method", METHODS, "--no-pictures", "--json")
    plain = cli(*asked, "--out", tmp_path / "plain")
    spread = cli(*asked, "--out", tmp_path / "ray", "--ray", "local", "--workers", "2")
    assert plain.code == spread.code == 1  # the broken one
    assert "broken.png" in spread.err
    assert len(spread.json) == 20
    for one, other in zip(plain.json, spread.json, strict=True):
        assert one["sha256"] == other["sha256"]
        assert one["target"] == other["target"]
        assert one["score"] == pytest.approx(other["score"], rel=1e-5)
        name = Path(one["path"]).stem
        mine, theirs = (np.load(tmp_path / kind / name / "maps.npz") for kind in ("plain", "ray"))
        for key in mine.files:
            np.testing.assert_allclose(theirs[key], mine[key], atol=1e-5 * np.abs(mine[key]).max())
        assert sorted(p.name for p in (tmp_path / "ray" / name).iterdir()) == ["explain.json", "maps.npz"]
    # a run that was stopped goes on where it was, also without Ray
    record = tmp_path / "ray" / Path(spread.json[3]["path"]).stem / "explain.json"
    others = record.parent.with_name(Path(spread.json[4]["path"]).stem) / "explain.json"
    record.unlink()
    before = others.stat().st_mtime_ns
    again = cli(*asked, "--out", tmp_path / "ray")
    assert len(again.json) == 20
    assert record.is_file()
    assert others.stat().st_mtime_ns == before


@pytest.mark.slow(one_in=3)  # a minute; explain goes the same way for every commit
def test_evaluate_measures_what_one_process_measures(cluster: Any, tmp_path: Path) -> None:
    model = cs.open_model("toybox", batch_size=4)
    cases = toybox_cases(16)
    settings = Settings(measures=("pointing", "energy-inside", "deletion"), steps=4)
    plain = evaluate_cases(model, cases, METHODS.split(","), settings=settings, out=tmp_path / "plain")
    spread = evaluate_cases(
        model, cases, METHODS.split(","), settings=settings, out=tmp_path / "ray", spread=RayPool(workers=2)
    )
    assert plain.to_dict()["measures"].keys() == spread.to_dict()["measures"].keys()
    lines = [
        {row["case"]: row for row in map(json.loads, (tmp_path / kind / "cases.jsonl").read_text().splitlines())}
        for kind in ("plain", "ray")
    ]
    assert lines[0].keys() == lines[1].keys() == {case.key for case in cases}
    for key, row in lines[0].items():
        for measure, figures in row["measures"].items():
            assert lines[1][key]["measures"][measure] == pytest.approx(figures, rel=1e-4, abs=1e-5), (key, measure)


def test_a_killed_worker_costs_nothing_but_time(cluster: Any, tmp_path: Path) -> None:
    """Tasks write down who does them; the first process that is seen is killed in the middle of its work."""
    model = cs.open_model("toybox")
    log = tmp_path / "log"
    log.mkdir()

    def work(opened: Any, number: int) -> int:
        (log / f"{os.getpid()}").touch()
        time.sleep(0.4)
        return number * number

    def kill() -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until and not (seen := [int(p.name) for p in log.iterdir()]):
            time.sleep(0.02)
        os.kill(seen[0], signal.SIGKILL)
        killed.append(seen[0])

    killed: list[int] = []
    killer = threading.Thread(target=kill)
    killer.start()
    done = list(RayPool(workers=2).run(model, work, [Task(str(n), n) for n in range(12)]))
    killer.join()
    assert sorted(one.value for one in done) == [n * n for n in range(12)]
    assert killed


def test_what_a_worker_refuses_is_said_here(cluster: Any) -> None:
    def work(opened: Any, number: int) -> int:
        raise UsageError("this cannot be")

    with pytest.raises(UsageError, match="this cannot be"):
        list(RayPool(workers=1).run(cs.open_model("toybox"), work, [Task("a", 1)]))


def test_another_network_in_a_worker_is_refused(cluster: Any) -> None:
    """Figures of two networks must not be mixed."""
    model = cs.open_model("toybox")

    def opening(device: str) -> Any:
        from convoscope import open_model

        return open_model("toybox-cheat")

    other = RayPool(workers=1, opening=opening)
    with pytest.raises(ConvoscopeError, match="another network"):
        evaluate_cases(model, toybox_cases(2), ["saliency"], spread=other)


def test_workers_without_ray_are_refused(pictures: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    answer = cli("explain", "toybox", pictures, "--out", tmp_path, "--workers", "2")
    assert answer.code == 2
    assert "--ray local" in answer.err

"""A survey on Ray: what it stores is what one process stores, whoever dies meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

from convoscope import open_model, parallel
from convoscope.errors import ConvoscopeError, UsageError
from convoscope.models.model import Model
from convoscope.parallel import Done, Refused, Scheduler
from convoscope.surveys import Store, survey
from convoscope.surveys.gather import driver

sys.path.insert(0, str(Path(__file__).parent))
from ray_network import local_ray
from test_survey_kill import same

pytest.importorskip("ray")
NETWORK = Path(__file__).with_name("ray_network.py")
PICTURES = 48


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(PICTURES):
        (found / "ab"[number % 2]).mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(found / "ab"[number % 2] / f"{number}.png")
    return found


@pytest.fixture(scope="module")
def cluster() -> object:
    """One Ray for the tests that need none of their own; the log's folder is known to its workers."""
    with local_ray("/tmp") as ray:
        yield ray


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "log"
    found.mkdir()
    monkeypatch.setenv("CONVOSCOPE_TEST_LOG", str(found))
    return found


def model() -> Model:
    return open_model(f"{NETWORK}:build", weights="none", size=24, batch_size=4)


def run(folder: Path, store: Path, **settings: object) -> Store:
    return survey(model(), folder, store, shard_size=6, memory_format="contiguous", top=3, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def undisturbed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store, log = tmp_path_factory.mktemp("whole") / "store", tmp_path_factory.mktemp("log")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONVOSCOPE_TEST_LOG", str(log))
        run(folder, store)
    return store


def workers(log: Path) -> list[int]:
    """The processes that ran the network, without this one."""
    return sorted(int(p.name) for p in log.iterdir() if p.name.isdecimal() and int(p.name) != os.getpid())


def test_two_workers_store_what_one_process_does_though_one_is_killed_and_one_unit_hangs(
    folder: Path, undisturbed: Path, tmp_path: Path, log: Path
) -> None:
    (log / "delay").write_text("0.3")
    killed: list[int] = []

    def kill() -> None:
        until = time.monotonic() + 200
        while time.monotonic() < until:
            if len(workers(log)) == 2:
                killed.append(workers(log)[0])
                os.kill(killed[0], signal.SIGKILL)
                (log / "slow").write_text("")  # and then one forward hangs for a minute
                return
            time.sleep(0.05)

    killer = threading.Thread(target=kill)
    killer.start()
    store = run(folder, tmp_path / "store", ray="local", workers=2)
    killer.join()
    assert killed, "the two workers never ran"
    assert any("1 workers died" in note for note in store.notes)
    assert len(workers(log)) >= 3  # the dead one was replaced
    assert (log / "was slow").exists()
    assert len(store.units_done) == PICTURES // 6
    same(tmp_path / "store", undisturbed)


@pytest.mark.slow(one_in=3)
def test_the_driver_is_killed_and_started_again(
    folder: Path, undisturbed: Path, tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (log / "delay").write_text("0.3")
    command = [sys.executable, str(NETWORK), str(folder), str(tmp_path / "store")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        until = time.monotonic() + 200
        committed = 0
        while time.monotonic() < until and child.poll() is None and not committed:
            if (tmp_path / "store" / "units.lance").is_dir():
                committed = len(Store.open(tmp_path / "store").units_done)
            time.sleep(0.1)
    finally:
        child.send_signal(signal.SIGKILL)
        said = child.communicate()[1]
    assert 0 < committed < PICTURES // 6, said
    until = time.monotonic() + 30
    while time.monotonic() < until and any(Path(f"/proc/{pid}").exists() for pid in workers(log)):
        time.sleep(0.1)
    assert not [pid for pid in workers(log) if Path(f"/proc/{pid}").exists()]  # the workers end with their driver
    before = len(Store.open(tmp_path / "store").units_done)
    worked: list[str] = []
    real = driver.compute
    monkeypatch.setattr(driver, "compute", lambda m, r, unit, *t: worked.append(unit.id) or real(m, r, unit, *t))
    (log / "delay").unlink()
    run(folder, tmp_path / "store")  # here, without Ray: it is the same store
    assert len(worked) == PICTURES // 6 - before  # nothing is done twice
    same(tmp_path / "store", undisturbed)


class Fake:
    """Stands for Ray: works in this process, on call, in an order that the test says."""

    class exceptions:
        class RayError(Exception):
            pass

        class RayTaskError(RayError):
            pass

    def __init__(self, answers: object) -> None:
        self.answers = answers
        self.made = 0
        self.asked: list[tuple[int, str]] = []

    def make(self) -> object:
        self.made += 1
        number, fake = self.made, self

        class Method:
            def remote(self, unit: object = None) -> object:
                fake.asked.append((number, unit.id))  # type: ignore[attr-defined]
                return (len(fake.asked), number, unit)

        return type("W", (), {"work": Method()})()

    def wait(self, refs: list[object], num_returns: int, timeout: float) -> tuple[list[object], list[object]]:
        ready = [ref for ref in refs if self.answers(self, ref) is not None]  # type: ignore[operator]
        if not ready:
            time.sleep(0.01)
        return ready[:num_returns], []

    def get(self, ref: object) -> object:
        answer = self.answers(self, ref)  # type: ignore[operator]
        if isinstance(answer, Exception):
            raise answer
        return answer


def units(count: int) -> list[object]:
    return [type("U", (), {"id": f"u{number}"})() for number in range(count)]


def result(unit: object) -> object:
    return Done(unit.id, None)  # type: ignore[attr-defined]


def given(crew: Scheduler) -> list[str]:
    return [one.id for some in crew.results() for one in some]


def test_a_slow_unit_is_repeated_and_the_first_result_counts() -> None:
    def answer(fake: Fake, ref: tuple[int, int, object]) -> object:
        _, worker, unit = ref
        return None if worker == 1 and unit.id == "u0" else result(unit)  # type: ignore[attr-defined]

    fake = Fake(answer)
    many = units(6)
    crew = Scheduler(fake, fake.make, 2, many, slow_at_least=0.0)  # type: ignore[arg-type]
    crew.idle.reverse()  # the first unit goes to the first worker, which never ends
    assert sorted(given(crew)) == [unit.id for unit in many]  # type: ignore[attr-defined]
    assert crew.repeated == 1
    assert {worker for worker, unit in fake.asked if unit == "u0"} == {1, 2}


def test_a_unit_that_kills_every_worker_is_given_up_and_the_rest_done() -> None:
    def answer(fake: Fake, ref: tuple[int, int, object]) -> object:
        return fake.exceptions.RayError() if ref[2].id == "u2" else result(ref[2])  # type: ignore[attr-defined]

    fake = Fake(answer)
    crew = Scheduler(fake, fake.make, 2, units(5))  # type: ignore[arg-type]
    done: list[str] = []

    def work() -> None:
        for some in crew.results():
            done.extend(one.id for one in some)

    with pytest.raises(ConvoscopeError, match="1 pieces of work were given up"):
        work()
    assert sorted(done) == ["u0", "u1", "u3", "u4"]
    assert crew.replaced == parallel.DEATHS


def test_what_a_worker_refuses_is_raised_in_its_own_words() -> None:
    fake = Fake(lambda fake, ref: Refused("ModelError", "The weights have changed."))
    crew = Scheduler(fake, fake.make, 2, units(3))  # type: ignore[arg-type]
    with pytest.raises(ConvoscopeError, match="weights have changed") as raised:
        given(crew)
    assert type(raised.value).__name__ == "ModelError"


def test_a_network_without_a_spec_is_sent_and_a_worker_error_told(
    folder: Path, tmp_path: Path, cluster: object, log: Path
) -> None:
    from convoscope import wrap

    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    network.eval()
    settings = {"shard_size": 12, "memory_format": "contiguous"}
    here = survey(wrap(network, size=24, batch_size=4), folder, tmp_path / "here", **settings)
    there = survey(
        wrap(network, size=24, batch_size=4), folder, tmp_path / "there", ray="local", workers=2, **settings
    )
    assert len(there) == len(here) == PICTURES
    same(tmp_path / "there", tmp_path / "here")


def test_settings_that_do_not_fit_are_said(folder: Path, tmp_path: Path, cli: object) -> None:
    with pytest.raises(UsageError, match="at least 1"), parallel.connected("local", 0):
        pass
    answer = cli("survey", "toybox", folder, "--out", tmp_path / "s", "--workers", "2")  # type: ignore[operator]
    assert answer.code == 2
    assert "--ray local" in answer.err


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConvoscopeError, match=r"convoscope\[ray\]"), parallel.connected("local", 2):
        pass

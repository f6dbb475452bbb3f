"""A survey that is killed, crowded or starved of room: nothing lost but the unit in hand, nothing twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convoscope import wrap
from convoscope.errors import StoreError
from convoscope.surveys import Store, survey
from convoscope.surveys.gather import driver
from convoscope.surveys.store.lance_table import Table

sys.path.insert(0, str(Path(__file__).parent))
from survey_child import network

PICTURES = 36


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(PICTURES):
        (found / "ab"[number % 2]).mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(
            found / "ab"[number % 2] / f"{number}.png"
        )
    return found


def start(folder: Path, store: Path, log: Path, delay: float) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        str(Path(__file__).with_name("survey_child.py")),
        str(folder),
        str(store),
        str(log),
        str(delay),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def content(path: Path) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    """All that a store holds, without the times."""
    with Store.open(path) as store:
        rows = {row["sha256"]: row for row in store.table().to_pylist()}
        assert len(rows) == store.table().num_rows
        state = store.state()
        arrays = {f"top.{n}": getattr(state.top, n) for n in ("values", "keys", "rows", "cols")}
        arrays |= {f"lowest.{n}": getattr(state.lowest, n) for n in ("values", "keys", "rows", "cols")}
        arrays |= {f"sample.{n}": getattr(state.sample, n) for n in ("keys", "values", "rows", "cols")}
        arrays |= {"histogram": state.histogram, "active": state.moments.active, "pictures": np.array(state.pictures)}
        arrays |= {"rounded.mean": state.moments.mean, "rounded.variance": state.moments.variance}
        arrays |= {"rounded.classes": state.classes.means()[1]}
        return rows, arrays


def same(one: Path, other: Path) -> None:
    rows, arrays = content(one)
    expected_rows, expected = content(other)
    assert rows == expected_rows
    for name, value in expected.items():
        if name.startswith("rounded"):
            np.testing.assert_allclose(arrays[name], value, rtol=1e-9, err_msg=name)
        else:
            np.testing.assert_array_equal(arrays[name], value, err_msg=name)


def run(folder: Path, store: Path) -> Store:
    model = wrap(network(), size=24, batch_size=4)
    return survey(model, folder, store, shard_size=6, memory_format="contiguous", top=3)


@pytest.fixture(scope="module")
def undisturbed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("whole") / "store"
    run(folder, store)
    return store


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 50))])
def test_killed_at_random_moments_then_resumed(folder: Path, undisturbed: Path, tmp_path: Path, seed: int) -> None:
    store, log = tmp_path / "store", tmp_path / "log"
    draw = random.Random(seed)
    child = start(folder, store, log, 0.05)
    try:
        # wait until it works, then let it go on for a random time
        until = time.monotonic() + 90
        while not log.exists() and time.monotonic() < until and child.poll() is None:
            time.sleep(0.02)
        assert log.exists(), child.communicate()[1]
        time.sleep(draw.uniform(0.0, 1.0))
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    committed = set()
    if (store / "units.lance").is_dir():
        with Store.open(store, write=True) as open_store:
            committed = open_store.units_done
            assert open_store.table().num_rows == 6 * len(committed)
    log.unlink()
    worked: list[str] = []
    real = driver.compute
    driver.compute = lambda model, recipe, unit, *rest: worked.append(unit.id) or real(model, recipe, unit, *rest)
    try:
        run(folder, store)
    finally:
        driver.compute = real
    assert not committed & set(worked)  # what was committed is not computed again
    assert len(worked) == PICTURES // 6 - len(committed)
    same(store, undisturbed)


def test_running_again_computes_nothing(folder: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a committed unit was computed again")

    monkeypatch.setattr(driver, "compute", fail)
    before = content(undisturbed)
    run(folder, undisturbed)
    assert before[0] == content(undisturbed)[0]


@pytest.mark.parametrize("table", ["pictures", "states", "units"])
@pytest.mark.parametrize("after", ["before", "after"])
def test_stopped_within_a_commit(
    folder: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, after: str
) -> None:
    """As if the process died just before or after any of a commit's three appends."""
    real = Table.append
    count = 0

    class Died(BaseException):
        pass

    def append(self: Table, rows: object) -> None:
        nonlocal count
        mine = self.path.endswith(f"{table}.lance")
        count += mine
        if mine and count == 3 and after == "before":
            raise Died
        real(self, rows)
        if mine and count == 3:
            raise Died

    with monkeypatch.context() as patch:
        patch.setattr(Table, "append", append)
        patch.setattr(Store, "_remove_orphans", lambda self: None)  # a dead process cleans nothing up
        with pytest.raises(Died):
            run(folder, tmp_path / "store")
    with Store.open(tmp_path / "store") as reader:  # a reader sees whole units only
        assert reader.table().num_rows == 6 * len(reader.units_done)
        assert reader.state().pictures == 6 * len(reader.units_done)
    run(folder, tmp_path / "store")
    same(tmp_path / "store", undisturbed)


def test_ctrl_c_keeps_what_is_done(
    folder: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = driver.compute
    calls = 0

    def stopping(*given: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(driver, "compute", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(folder, tmp_path / "store")
    assert len(Store.open(tmp_path / "store").units_done) == 3
    run(folder, tmp_path / "store")
    same(tmp_path / "store", undisturbed)


def test_the_second_writer_is_refused_and_readers_are_not(folder: Path, tmp_path: Path) -> None:
    store, log = tmp_path / "store", tmp_path / "log"
    child = start(folder, store, log, 0.3)
    try:
        until = time.monotonic() + 90
        while not log.exists() and time.monotonic() < until and child.poll() is None:
            time.sleep(0.02)
        with pytest.raises(StoreError, match=rf"being written by another survey \(process {child.pid}"):
            run(folder, store)
        reader = Store.open(store)
        assert reader.table().num_rows == 6 * len(reader.units_done)
        out, err = child.communicate(timeout=120)
        assert "done" in out, err
        reader.refresh()
        assert len(reader) == PICTURES
    finally:
        child.kill()
        child.communicate()


def test_a_full_disk_is_said_and_the_store_still_opens(
    folder: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convoscope.surveys.store import lance_table

    real = lance_table.write_fragments
    calls = 0

    def full(*given: object, **settings: object) -> object:
        nonlocal calls
        calls += 1
        if calls > 10:
            raise OSError(28, "No space left on device")
        return real(*given, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(lance_table, "write_fragments", full)
        with pytest.raises(StoreError, match=r"disk of .* is full"):
            run(folder, tmp_path / "store")
    with Store.open(tmp_path / "store") as opened:
        done = len(opened.units_done)
        assert 0 < done < PICTURES // 6
        assert opened.table().num_rows == 6 * done
    run(folder, tmp_path / "store")
    same(tmp_path / "store", undisturbed)


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="mounting a small disk needs root on Linux")
def test_a_really_full_disk(folder: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=330k", "tmpfs", str(disk)], capture_output=True
    ).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(StoreError, match=r"disk of .* is full"):
            run(folder, disk / "store")
        with Store.open(disk / "store") as opened:
            assert opened.table().num_rows == 6 * len(opened.units_done)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("damage", ["empty", "cut off", "data cut off"])
@pytest.mark.parametrize("name", ["units", "pictures", "states"])
def test_a_damaged_head_is_set_aside(
    folder: Path, undisturbed: Path, tmp_path: Path, damage: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut leaves: the newest manifest (or its data) without its bytes."""
    store = tmp_path / "store"
    monkeypatch.setattr(Store, "fold", lambda self: None)
    run(folder, store)
    monkeypatch.undo()
    versions = sorted((store / f"{name}.lance" / "_versions").glob("*.manifest"))  # the newest has the smallest name
    if damage == "data cut off":
        newest = max((store / f"{name}.lance" / "data").iterdir(), key=lambda path: path.stat().st_mtime_ns)
        os.truncate(newest, newest.stat().st_size // 2)
    else:
        os.truncate(versions[0], 0 if damage == "empty" else versions[0].stat().st_size // 2)
    with Store.open(store) as reader:
        assert any(f"{name}.lance" in note and "set aside" in note for note in reader.notes)
    assert any((store / "set-aside").iterdir())
    with Store.open(store, write=True) as writer:
        assert writer.table().num_rows == 6 * len(writer.units_done)
        assert len(writer.units_done) == PICTURES // 6 - 1
        assert writer.state().pictures == PICTURES - 6
    run(folder, store)
    same(store, undisturbed)

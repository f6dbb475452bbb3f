"""Verify, repair, compact: every kind of damage is named, mended, and what was lost is done again."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convoscope import wrap
from convoscope.errors import StoreError
from convoscope.surveys import Store, survey
from convoscope.surveys.store.digests import with_digests
from convoscope.surveys.store.layout import TABLES
from convoscope.surveys.store.lock import Lock
from convoscope.surveys.store.upkeep import compact, repair, verify

sys.path.insert(0, str(Path(__file__).parents[1] / "robust"))
from survey_child import network
from test_survey_kill import same

PICTURES, UNIT = 24, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(PICTURES):
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(found / f"{number:02}.png")
    return found


def run(folder: Path, store: Path) -> Store:
    model = wrap(network(), size=24, batch_size=4)
    return survey(model, folder, store, shard_size=UNIT, memory_format="contiguous", top=3)


@pytest.fixture(scope="module")
def made(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose states are not yet folded."""
    store = tmp_path_factory.mktemp("made") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "fold", lambda self: None)
        run(folder, store)
    return store


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "store"))


def data(store: Path, name: str) -> list[Path]:
    """A table's data files, the oldest first."""
    return sorted((store / f"{name}.lance" / "data").iterdir(), key=lambda file: file.stat().st_mtime_ns)


def kinds(store: Path) -> set[str]:
    return {finding.kind for finding in verify(store).findings}


def test_a_whole_store_is_whole(store: Path) -> None:
    report = verify(store)
    assert report.whole
    assert not report.findings
    assert report.facts["pictures"] == PICTURES
    assert report.facts["units"] == PICTURES // UNIT
    assert report.facts["missing_units"] == 0
    assert repair(store).whole


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def scribble(file: Path) -> None:
    """Other bytes, the same length."""
    file.write_bytes(b"\xff" * file.stat().st_size)


@pytest.mark.parametrize("name", ["units", "pictures", "states"])
@pytest.mark.parametrize(("damage", "which"), [(Path.unlink, 0), (cut, 3), (scribble, -1), (cut, -1)])
def test_damaged_data_is_found_mended_and_done_again(
    folder: Path, made: Path, store: Path, name: str, damage: Callable[[Path], None], which: int
) -> None:
    damage(data(store, name)[which])
    before = verify(store)
    assert not before.whole
    assert any(f.kind in ("damaged data", "damaged manifest") and f.table == name for f in before.findings)
    report = repair(store)
    assert not report.whole
    assert any("done again" in f.sentence or "is lost" in f.sentence for f in report.findings)
    assert report.facts["units"] == PICTURES // UNIT - 1
    assert verify(store).whole
    run(folder, store)
    same(store, made)


@pytest.mark.parametrize("name", [name for name in TABLES if name != "units"])
def test_a_table_without_any_whole_version_is_begun_anew(folder: Path, made: Path, store: Path, name: str) -> None:
    for manifest in (store / f"{name}.lance" / "_versions").glob("*.manifest"):
        os.truncate(manifest, 0)
    assert any(f.kind == "unreadable" and f.table == name for f in verify(store).findings)
    report = repair(store)
    assert any(f"{name}.lance was beyond mending" in f.sentence for f in report.findings)
    run(folder, store)
    same(store, made)
    assert verify(store).whole


def test_a_folder_of_a_table_that_is_gone(folder: Path, made: Path, store: Path) -> None:
    shutil.rmtree(store / "states.lance")
    assert "missing table" in kinds(store)
    assert repair(store).facts["units"] == 0  # what the units gathered was only there
    run(folder, store)
    same(store, made)


def test_without_a_ledger_nothing_can_be_mended_and_that_is_said(store: Path) -> None:
    for manifest in (store / "units.lance" / "_versions").glob("*.manifest"):
        os.truncate(manifest, 0)
    assert not verify(store).whole
    with pytest.raises(StoreError, match="beyond mending"):
        repair(store)


def test_a_damaged_old_version_is_harmless(store: Path) -> None:
    oldest = max((store / "pictures.lance" / "_versions").glob("*.manifest"), key=lambda file: file.name)
    os.truncate(oldest, 10)
    report = verify(store)
    assert [f.kind for f in report.findings] == ["damaged manifest"]
    assert report.whole


def test_orphaned_files_and_rows_are_named_and_removed(store: Path) -> None:
    stray = store / "pictures.lance" / "data" / "0123456789abcdef.lance"
    shutil.copy(data(store, "pictures")[0], stray)
    with Store.open(store, write=True) as opened:  # as if the process died between rows and ledger
        rows = opened._tables["pictures"].read().slice(0, 2)
        names = rows.column_names
        at = names.index("unit")
        import pyarrow as pa

        opened._tables["pictures"].append(with_digests(rows.set_column(at, "unit", pa.array(["0" * 32] * 2))))
    report = verify(store)
    assert report.whole
    assert {f.kind: f.count for f in report.findings} == {"orphaned files": 1, "uncommitted rows": 2}
    repair(store)
    assert not stray.exists()
    assert not verify(store).findings


def test_units_that_are_not_done_are_counted(folder: Path, store: Path) -> None:
    with Store.open(store, write=True) as opened:
        opened._delete("units", sorted(opened.units_done)[:2])
    report = verify(store)
    assert report.facts["missing_units"] == 2
    assert report.whole
    run(folder, store)
    assert not verify(store).findings


def test_compacting_keeps_the_content_and_joins_the_files(made: Path, store: Path) -> None:
    reader = Store.open(store)
    report = compact(store)
    assert reader.table().num_rows == PICTURES  # what it had open is gone, and it goes on
    assert report.facts["after"]["files"] < 0.5 * report.facts["before"]["files"]
    same(store, made)
    assert not [f for f in verify(store).findings if f.harmful]


def test_a_store_that_is_written_is_left_alone(store: Path) -> None:
    lock = Lock.take(str(store), wait=False)
    assert lock is not None
    try:
        for act in (repair, compact):
            with pytest.raises(StoreError, match="being written"):
                act(store)
        assert verify(store).whole
    finally:
        lock.release()


def test_the_commands(cli: Callable[..., object], store: Path, tmp_path: Path) -> None:
    answer = cli("store", "verify", store, "--json")
    assert answer.code == 0  # type: ignore[attr-defined]
    assert answer.json["pictures"] == PICTURES  # type: ignore[attr-defined]
    cut(data(store, "pictures")[2])
    answer = cli("store", "verify", store)
    assert answer.code == 1  # type: ignore[attr-defined]
    assert "cut off" in answer.out  # type: ignore[attr-defined]
    assert cli("store", "repair", store).code == 0  # type: ignore[attr-defined]
    answer = cli("store", "compact", store)
    assert answer.code == 0  # type: ignore[attr-defined]
    assert "files" in answer.out  # type: ignore[attr-defined]
    answer = cli("store", "verify", tmp_path / "nothing")
    assert answer.code == 2  # type: ignore[attr-defined]
    assert "no survey's store" in answer.err  # type: ignore[attr-defined]

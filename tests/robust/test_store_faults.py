"""A store when the world is unkind: files that come back, bits that flip, disks that fill, readers that never stop."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import convoscope as cs
from convoscope.errors import StoreError
from convoscope.surveys.gather import collections
from convoscope.surveys.store import lance_table
from convoscope.surveys.store.upkeep import repair, verify


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for number in range(12):
        Image.fromarray(random.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(
            tmp_path / "pictures" / f"{number:02d}.png"
        )
    return tmp_path / "pictures"


def model() -> cs.Model:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    return cs.wrap(net.eval(), size=16, batch_size=4)


def survey(folder: Path, store: Path) -> cs.Store:
    return cs.survey(model(), folder, store, shard_size=4, top=3)


def content(store: cs.Store) -> tuple[list[dict[str, object]], bytes]:
    rows = store.table().to_pylist()
    kept = [{k: v for k, v in row.items() if k not in ("unit", "digest", "uri")} for row in rows]
    return sorted(kept, key=lambda row: str(row["sha256"])), store.state().to_bytes()


def _repaired(path: Path) -> str | None:
    try:
        repair(path)
    except StoreError as error:
        return str(error)
    return None


def same(got: cs.Store, whole: cs.Store) -> None:
    """The same rows, extremes and counts; sums over other groups of pictures are equal to rounding."""
    assert content(got)[0] == content(whole)[0]
    a, b = got.state(), whole.state()
    assert a.pictures == b.pictures
    assert np.array_equal(a.top.keys, b.top.keys)
    assert np.array_equal(a.lowest.keys, b.lowest.keys)
    assert np.array_equal(a.histogram, b.histogram)
    assert np.allclose(a.moments.mean, b.moments.mean, rtol=1e-12)
    assert np.allclose(a.moments.deviation, b.moments.deviation, rtol=1e-9)


def test_a_file_that_was_missing_is_surveyed_once_it_is_back(folder: Path, tmp_path: Path) -> None:
    undisturbed = survey(folder, tmp_path / "whole")
    away = tmp_path / "away"
    away.mkdir()
    for name in ("03.png", "07.png"):
        shutil.move(folder / name, away / name)
        (folder / name).symlink_to(away / "nowhere")
    assert len(survey(folder, tmp_path / "store")) <= 12
    for name in ("03.png", "07.png"):
        (folder / name).unlink()
        shutil.move(away / name, folder / name)
    again = survey(folder, tmp_path / "store")
    same(again, undisturbed)
    assert sum(row["failed"] for row in again.ledger()) == 0


def test_a_read_error_that_passes_loses_no_picture(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = survey(folder, tmp_path / "whole")
    real = collections.read

    def failing(uri: str) -> bytes:
        if int(Path(uri).stem) % 2:
            raise OSError(5, "Input/output error")
        return real(uri)

    monkeypatch.setattr(collections, "read", failing)
    broken = survey(folder, tmp_path / "store")
    assert sum(row["failed"] for row in broken.ledger()) == 6
    still = survey(folder, tmp_path / "store")  # the disk is as bad as before: nothing gets lost, nothing doubles
    assert sum(row["failed"] for row in still.ledger()) == 6
    assert len(still) == 12
    monkeypatch.setattr(collections, "read", real)
    same(survey(folder, tmp_path / "store"), undisturbed)
    assert verify(tmp_path / "store").whole


def _payload(store: Path, draw: np.random.Generator) -> tuple[Path, int]:
    """A byte that is content for sure: of an embedding, a row's checksum, or a unit's name, as it lies in its file."""
    with cs.Store.open(store) as opened:
        row = opened.table().to_pylist()[int(draw.integers(12))]
        unit = opened.ledger()[int(draw.integers(3))]["unit"]
        column = opened.recipe.embeddings[0].column
    embedding = np.asarray(row[column], np.float16).tobytes()
    table, wanted = [("pictures", embedding), ("pictures", row["digest"]), ("units", unit.encode())][draw.integers(3)]
    for file in sorted((store / f"{table}.lance" / "data").iterdir()):
        at = file.read_bytes().find(wanted)
        if at >= 0:
            return file, at + int(draw.integers(len(wanted)))
    raise AssertionError(f"{table}: what was written is nowhere")


@pytest.mark.parametrize("part", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 5))])
def test_every_flipped_bit_is_named_or_harmless_and_repair_undoes_it(folder: Path, tmp_path: Path, part: int) -> None:
    """60 bits, 12 a part: 8 anywhere in any file, 4 in bytes that are content, which must be named."""
    store = tmp_path / "store"
    whole = content(survey(folder, store))
    files = sorted(
        file for file in store.rglob("*") if file.is_file() and file.stat().st_size and "lock" not in file.name
    )
    random = np.random.default_rng(part)
    for number in range(12):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(store, copy)
        if number < 8:  # most of a small store is history: old manifests and records of commits
            file = copy / files[int(random.integers(len(files)))].relative_to(store)
            at = int(random.integers(file.stat().st_size))
        else:
            file, at = _payload(copy, random)
        data = bytearray(file.read_bytes())
        data[at] ^= 1 << int(random.integers(8))
        file.write_bytes(data)
        try:
            fine = verify(copy).whole
        except StoreError:
            fine = False
        assert number < 8 or not fine, f"{file}, byte {at}"
        if fine:
            assert content(cs.Store.open(copy)) == whole, file
            continue
        said = _repaired(copy)
        if said is not None:
            assert "survey again" in said, said
            continue
        assert content(survey(folder, copy)) == whole, file


def test_a_store_whose_creation_failed_is_made_by_the_next_survey(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, real, calls = tmp_path / "store", lance_table.lance.write_dataset, []

    def full(*args: object, **settings: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return real(*args, **settings)

    monkeypatch.setattr(lance_table.lance, "write_dataset", full)
    with pytest.raises(StoreError, match="full"):
        survey(folder, store)
    monkeypatch.setattr(lance_table.lance, "write_dataset", real)
    assert len(survey(folder, store)) == 12
    (tmp_path / "other" / "units.lance").mkdir(parents=True)
    assert len(survey(folder, tmp_path / "other")) == 12


def test_readers_that_never_stop_do_not_keep_a_writer_out(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    survey(folder, store)
    stop, failures = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            try:
                with cs.Store.open(store) as opened:
                    len(opened)
            except Exception as error:  # gathered, and told below
                failures.append(error)
                return

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(4):
            assert len(survey(folder, store)) == 12
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert not failures


def test_repair_leaves_nothing_in_a_folder_that_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no survey's store"):
        repair(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_same_survey_twice_gives_the_same_rows(folder: Path, tmp_path: Path) -> None:
    first, second = survey(folder, tmp_path / "a"), survey(folder, tmp_path / "b")
    assert first.recipe.memory_format == second.recipe.memory_format
    assert content(first) == content(second)

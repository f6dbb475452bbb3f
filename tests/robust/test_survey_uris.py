"""Pictures and stores by URI: the same pictures give the same store, wherever they and it lie."""

from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from convoscope import wrap
from convoscope.errors import PictureError, StoreError, UsageError
from convoscope.surveys import Store, survey
from convoscope.surveys.gather import collections, driver
from convoscope.surveys.store import lock
from convoscope.surveys.store.upkeep import compact, repair, verify

sys.path.insert(0, str(Path(__file__).parent))
from object_store import Door, object_store
from survey_child import network
from test_survey_kill import content

pytest.importorskip("s3fs")
PICTURES = 24


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    with object_store() as found:
        import fsspec

        fs = fsspec.filesystem("s3", skip_instance_cache=True)
        fs.mkdir("bucket")
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PNG files in two folders, a and b."""
    found = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(PICTURES):
        (found / "ab"[number % 2]).mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(found / "ab"[number % 2] / f"{number:02}.png")
    return found


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.png"))


@pytest.fixture(scope="module")
def uploaded(door: Door, folder: Path) -> str:
    import fsspec

    fs = fsspec.filesystem("s3")
    for file in files(folder):
        fs.pipe_file(f"bucket/photos/{file.relative_to(folder)}", file.read_bytes())
    return "s3://bucket/photos"


def run(source: object, store: object, **settings: object) -> Store:
    model = wrap(network(), size=24, batch_size=4)
    return survey(model, source, str(store), shard_size=6, memory_format="contiguous", top=3, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def undisturbed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("whole") / "store"
    run(folder, store)
    return store


_MOVES = (
    "digest",
    "uri",
    "unit",
    "bytes",
    "prediction",
    "probability",
    "score",
    "loss",
    "top5_probability",
    "embedding_0",
)


def same(one: object, other: object, *, labels: bool = True) -> None:
    """As much as does not depend on which pictures are in one batch; floats to 1e-5."""
    rows, arrays = content(one)  # type: ignore[arg-type]
    expected_rows, expected = content(other)  # type: ignore[arg-type]
    assert rows.keys() == expected_rows.keys()
    for sha, row in expected_rows.items():
        for name, value in row.items():  # type: ignore[attr-defined]
            if name in ("probability", "score", "loss") and value is not None and (labels or name != "loss"):
                assert rows[sha][name] == pytest.approx(value, rel=1e-5)  # type: ignore[index]
            elif name == "embedding_0":
                np.testing.assert_allclose(rows[sha][name], value, rtol=2e-3, atol=1e-4)  # type: ignore[index]
            elif name not in _MOVES and (labels or not name.startswith("label")):
                assert rows[sha][name] == value, name  # type: ignore[index]
    for name in ("top.keys", "top.rows", "top.cols", "lowest.keys", "sample.keys", "pictures"):
        np.testing.assert_array_equal(arrays[name], expected[name], err_msg=name)
    np.testing.assert_allclose(arrays["top.values"], expected["top.values"], rtol=1e-5)


def test_pictures_on_an_object_store(uploaded: str, undisturbed: Path, tmp_path: Path) -> None:
    store = run(uploaded, tmp_path / "store")
    same(tmp_path / "store", undisturbed)  # the folders' names are the labels here too
    assert all(uri.startswith("s3://bucket/photos/") for uris in store.uris.values() for uri in uris)
    found = store.neighbors(id="03.png", k=2)
    assert len(found.rows) == 2
    assert store.patches("1:2").items  # which reads the photos again


def test_a_store_on_an_object_store_that_refuses_one_write_in_ten(
    door: Door, uploaded: str, undisturbed: Path
) -> None:
    door.share, door.writes, door.refused = 0.1, 0, 0
    try:
        run(uploaded, "s3://bucket/store")
    finally:
        door.share = 0.0
    assert door.refused > 3
    same("s3://bucket/store", undisturbed)
    reader = Store.open("s3://bucket/store")
    assert len(reader) == PICTURES
    assert reader.neighbors(id="03.png", k=3).rows == Store.open("s3://bucket/store").neighbors(id="03.png", k=3).rows
    assert verify("s3://bucket/store").whole
    compact("s3://bucket/store")
    same("s3://bucket/store", undisturbed)
    assert repair("s3://bucket/store").whole


def test_commits_that_fail_outright_are_tried_again(
    door: Door, folder: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the store did what was asked and only the answer was lost."""
    from convoscope.surveys.store.lance_table import Table

    real = Table.append
    count = 0

    def append(self: Table, rows: object) -> None:
        nonlocal count
        count += 1
        if count % 4 == 3:
            raise StoreError("refused")
        real(self, rows)
        if count % 7 == 5 and self.path.endswith(("units.lance", "pictures.lance")):
            raise StoreError("no answer")

    run(folder, "s3://bucket/again", truth=False)  # made in peace, then emptied
    with Store.open("s3://bucket/again", write=True) as store:
        units = store.plan()
        store._delete("units", [unit.id for unit in units])
        store._remove_orphans()
        store._tables["folded"].replace(store._tables["folded"].read().slice(0, 0))
        store._folded_units = store._merged = None
        model = wrap(network(), size=24, batch_size=4)
        monkeypatch.setattr(Table, "append", append)
        monkeypatch.setattr("time.sleep", lambda _: None)
        for unit in units:
            store.commit(driver.compute(model, store.recipe, unit))
        monkeypatch.undo()
    same("s3://bucket/again", undisturbed, labels=False)


def test_only_one_writes_to_a_store_on_an_object_store(
    door: Door, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(folder, "s3://bucket/alone")
    with Store.open("s3://bucket/alone", write=True) as first:
        with pytest.raises(StoreError, match="being written by another survey"):
            Store.open("s3://bucket/alone", write=True)
        assert len(Store.open("s3://bucket/alone")) == PICTURES
        monkeypatch.setattr(lock, "LEASE", 0.0)  # the first seems to have died
        with Store.open("s3://bucket/alone", write=True):
            units = first.plan()
            with pytest.raises(StoreError, match="taken over"):
                first.commit(driver.compute(wrap(network(), size=24, batch_size=4), first.recipe, units[0]))
    Store.open("s3://bucket/alone", write=True).close()


def test_what_is_added_is_all_that_is_read_again(
    uploaded: str, door: Door, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    fs = fsspec.filesystem("s3")
    for file in files(folder)[:6]:
        fs.pipe_file(f"bucket/grows/{file.name}", file.read_bytes())
    run("s3://bucket/grows", tmp_path / "store")
    fs.pipe_file("bucket/grows/z.png", files(folder)[6].read_bytes())
    read: list[str] = []
    real = collections.read
    monkeypatch.setattr(collections, "read", lambda uri: read.append(uri) or real(uri))
    assert len(run("s3://bucket/grows", tmp_path / "store")) == 7
    assert set(read) == {"s3://bucket/grows/z.png"}


def shards(folder: Path, out: Path) -> Path:
    """Two WebDataset shards with a label beside each picture."""
    out.mkdir()
    for number in range(2):
        with tarfile.open(out / f"shard-{number:03}.tar", "w") as tar:
            for file in files(folder)[number::2]:
                for suffix, data in ((".png", file.read_bytes()), (".cls", file.parent.name.encode())):
                    info = tarfile.TarInfo(f"{number}/{file.stem}{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return out


def test_tar_shards(folder: Path, undisturbed: Path, tmp_path: Path, door: Door) -> None:
    made = shards(folder, tmp_path / "shards")
    run(str(made / "shard-{000..001}.tar"), tmp_path / "braces")
    same(tmp_path / "braces", undisturbed)
    run(made, tmp_path / "folder")
    same(tmp_path / "folder", undisturbed)
    import fsspec

    for file in made.iterdir():
        fsspec.filesystem("s3").pipe_file(f"bucket/shards/{file.name}", file.read_bytes())
    store = run("s3://bucket/shards/*.tar", tmp_path / "remote")
    same(tmp_path / "remote", undisturbed)
    assert store.neighbors(id="03.png", k=1).rows  # by the member's name
    assert store.patches("1:2").items


def test_the_webdataset_library_reads_the_same_pictures(folder: Path, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    made = shards(folder, tmp_path / "shards")
    theirs = {
        (bytes(one["png"]), one["cls"].decode())
        for one in webdataset.WebDataset(str(made / "shard-{000..001}.tar"), shardshuffle=False)
    }
    ours = {(collections.read(one.uri), one.label) for one in collections.listing(made / "shard-{000..001}.tar")}
    assert ours == theirs


@pytest.mark.parametrize("kind", ["parquet", "struct.parquet", "lance", "remote parquet", "remote lance"])
def test_tables_with_a_column_of_pictures(
    folder: Path, undisturbed: Path, tmp_path: Path, door: Door, kind: str
) -> None:
    import fsspec
    import lance

    data = [file.read_bytes() for file in files(folder)]
    column = [{"bytes": one, "path": None} for one in data] if kind.startswith("struct") else data
    table = pa.table({"id": range(len(data)), "image": column, "label": [file.parent.name for file in files(folder)]})
    source = str(tmp_path / "photos.parquet")
    parquet.write_table(table, source, row_group_size=5)
    if kind == "remote parquet":
        fsspec.filesystem("s3").put(source, "bucket/tables/photos.parquet")
        source = "s3://bucket/tables/photos.parquet"
    elif kind.endswith("lance"):
        source = "s3://bucket/tables/photos.lance" if "remote" in kind else str(tmp_path / "photos.lance")
        lance.write_dataset(table, source)
    run(source, tmp_path / "store")
    same(tmp_path / "store", undisturbed)


def test_what_cannot_be_read_is_said(door: Door, tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"nowhere|no such"):
        list(collections.listing("s3://nowhere/photos"))
    with pytest.raises(UsageError, match="no such kind of address"):
        collections.listing("what://bucket/photos")
    (tmp_path / "broken.tar").write_bytes(b"x" * 2000)
    with pytest.raises(PictureError, match="shard cannot be read"):
        collections.listing(tmp_path / "broken.tar")
    parquet.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(PictureError, match="no column holds encoded pictures"):
        collections.listing(tmp_path / "a.parquet")
    with pytest.raises(StoreError, match="s3://bucket/nothing"):
        Store.open("s3://bucket/nothing")


def test_a_damaged_picture_in_a_shard_is_one_failed_row(folder: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "one.tar", "w") as tar:
        for name, data in (("good.png", files(folder)[0].read_bytes()), ("bad.png", b"no picture")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    store = run(tmp_path / "one.tar", tmp_path / "store")
    failed = store.table(["uri", "error"], "error IS NOT NULL").to_pylist()
    assert len(store) == 2
    assert [row["uri"].endswith("/bad.png") for row in failed] == [True]


def test_braces_as_webdataset_writes_them() -> None:
    assert collections._braces("a-{08..11}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert collections._braces("{x,y}/{0..1}") == ["x/0", "x/1", "y/0", "y/1"]
    with pytest.raises(UsageError, match="must rise"):
        collections._braces("{3..1}")

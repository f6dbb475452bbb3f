"""Cutting a collection: ids, labels from folders, CSV files and mappings."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from convoscope.errors import PictureError, UsageError
from convoscope.surveys.gather.shards import (
    Item,
    class_of,
    cut,
    folder_labels,
    key_of,
    make_shard,
    scan,
    truth_labels,
)


def sha(number: int) -> str:
    return f"{number * 2654435761 % 2**64:016x}" + "0" * 48


def test_a_units_id_is_that_of_its_content() -> None:
    items = [Item(sha(i), f"/p/{i}.png") for i in range(6)]
    one = make_shard("space", items)
    assert one.id == make_shard("space", items[::-1]).id
    assert one.id == make_shard("space", [Item(i.sha256, i.uri + "x", "label") for i in items]).id
    assert one.id != make_shard("other", items).id
    assert one.id != make_shard("space", items[1:]).id
    assert [item.sha256 for item in one.items] == sorted(item.sha256 for item in items)
    assert key_of("00ff" + "0" * 60) == 0x00FF << 48


def test_cutting_holds_every_picture_once() -> None:
    items = [Item(sha(i), f"/p/{i:03}.png") for i in range(23)]
    units = cut("s", items[::-1], 5)
    assert [len(unit.items) for unit in units] == [5, 5, 5, 5, 3]
    assert {item for unit in units for item in unit.items} == set(items)
    assert [unit.id for unit in units] == [unit.id for unit in cut("s", items, 5)]


def test_scan_reads_only_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        Image.new("RGB", (4, 4), (name == "a" and "red") or "blue").save(tmp_path / f"{name}.png")
    first = {found.uri: found for found in scan(tmp_path)}
    assert len(first) == 2
    read: list[str] = []
    from convoscope.surveys.gather import shards as units

    real = units.file_sha256
    monkeypatch.setattr(units, "file_sha256", lambda path: read.append(Path(path).name) or real(path))
    Image.new("RGB", (5, 4), "green").save(tmp_path / "b.png")
    again = {found.uri: found for found in scan(tmp_path, first)}
    assert read == ["b.png"]
    assert again[str(tmp_path / "a.png")].sha256 == first[str(tmp_path / "a.png")].sha256
    assert again[str(tmp_path / "b.png")].sha256 != first[str(tmp_path / "b.png")].sha256
    with pytest.raises(PictureError, match="no such folder"):
        list(scan(tmp_path / "nowhere"))


def test_toybox_masks_are_no_pictures_of_the_collection(toys: Path) -> None:
    assert {Path(found.uri).parent for found in scan(toys)} == {toys}


def test_labels_are_first_folders_where_all_lie_in_folders() -> None:
    assert folder_labels("/d", ["/d/cat/1.png", "/d/dog/x/2.png"]) == {"/d/cat/1.png": "cat", "/d/dog/x/2.png": "dog"}
    assert folder_labels("/d", ["/d/cat/1.png", "/d/2.png"]) == {}
    assert folder_labels("/d", ["/d/all/1.png", "/d/all/2.png"]) == {}


def test_truth_by_header_without_header_and_by_mapping(tmp_path: Path) -> None:
    uris = ["/d/x/1.png", "/d/y/1.png", "/d/y/2.png"]
    path = tmp_path / "t.csv"
    path.write_text("author,file,class_index\nme,x/1.png,3\nyou,y/1.png,4\n")
    assert truth_labels(path, uris) == {"/d/x/1.png": "3", "/d/y/1.png": "4"}
    path.write_text("2.png,cat\n")
    assert truth_labels(path, uris) == {"/d/y/2.png": "cat"}
    assert truth_labels({"2": 7}, uris) == {"/d/y/2.png": "7"}
    path.write_text("file,colour\n1.png,red\n")
    with pytest.raises(UsageError, match="no column of labels"):
        truth_labels(path, uris)
    path.write_text("file,label\nq.png,red\n")
    with pytest.raises(UsageError, match="names none of the pictures"):
        truth_labels(path, uris)
    with pytest.raises(UsageError, match="no such truth file"):
        truth_labels(tmp_path / "none.csv", uris)


def test_labels_become_classes_of_the_network() -> None:
    names = ("Egyptian cat", "tabby", "tiger_cat")
    assert class_of("egyptian_cat", names, None) == ("Egyptian cat", 0)
    assert class_of("tiger cat", names, None) == ("tiger_cat", 2)
    assert class_of("1", names, None) == ("tabby", 1)
    assert class_of("9", names, None) == ("9", None)
    assert class_of("dog", names, None) == ("dog", None)
    assert class_of("4", None, None) == ("4", 4)
    assert class_of(None, names, None) == (None, None)

"""The commands of a survey, in-process: their JSON, their exit codes, their sentences."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from convoscope.toybox import pictures

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("collection")
    for number, one in enumerate(pictures(16, 5)):
        (found / one.label).mkdir(exist_ok=True)
        Image.fromarray(one.image).save(found / one.label / f"{number:02}.png")
    return found


@pytest.fixture(scope="module")
def store(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from convoscope.cli import run

    path = tmp_path_factory.mktemp("out") / "store"
    layers = ["--layer", "stem.2", "--layer", "layer3.*", "--embed", "layer1"]
    assert run(["survey", "toybox", str(folder), "--out", str(path), *layers, "--shard-size", "8"]) == 0
    return path


def test_survey_tells_what_it_did(cli: Cli, folder: Path, store: Path, tmp_path: Path) -> None:
    again = cli("survey", "toybox", folder, "-o", store, "--layer", "stem.2,layer3.*", "--embed", "layer1", "--json")
    assert again.code == 0
    assert again.json["pictures"] == 16
    assert again.json["failed"] == []
    assert again.json["layers"][0] == "stem.2"
    assert len(again.json["layers"]) == 5
    assert again.json["units"] == 2


def test_a_bad_picture_is_named_and_the_rest_done(cli: Cli, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "broken.jpg").write_bytes(b"\xff\xd8nothing")
    some = sorted(folder.rglob("*.png"))[:3]
    answer = cli("survey", "toybox", tmp_path / "p", *some, "-o", tmp_path / "s", "--layer", "stem.2", "--json")
    assert answer.code == 1
    assert answer.json["pictures"] == 4
    assert answer.json["failed"][0]["uri"].endswith("broken.jpg")
    assert "broken.jpg" in answer.err


def test_what_cannot_start_exits_with_2(cli: Cli, folder: Path, store: Path, tmp_path: Path) -> None:
    for arguments, sentence in (
        (("survey", "toybox-cheat", folder, "-o", store, "--layer", "stem.2"), "the network's weights"),
        (("survey", "toybox", tmp_path / "none", "-o", tmp_path / "s"), "no such folder"),
        (("survey", "toybox", folder, "-o", tmp_path / "s", "--layer", "nope"), "no layer 'nope'"),
        (("neighbors", tmp_path), "no survey's store"),
        (("neighbors", store), "Give either a picture or --id"),
        (("neighbors", store, "--id", "zzz"), "No picture 'zzz'"),
        (("neighbors", store, "--id", "00.png", "--layer", "layer2"), "no embedding of layer 'layer2'"),
        (("patches", store, "stem.2:99", "--json"), "has 24 channels"),
        (("patches", store, "stem.2:1"), "--out FILE.png"),
        (("map", store, "--out", tmp_path / "m.gif"), "must end in .html"),
        (("map", store, "--method", "som"), "tsne, umap or pca"),
    ):
        answer = cli(*arguments)
        assert answer.code == 2, arguments
        assert sentence in answer.err
        assert answer.out == ""


def test_neighbors(cli: Cli, folder: Path, store: Path, tmp_path: Path) -> None:
    one = sorted(folder.rglob("*.png"))[0]
    rows = cli("neighbors", store, one, "-k", "4", "--json").json
    assert len(rows) == 4
    assert rows[0].keys() == {"uri", "similarity", "label", "prediction"}
    assert rows == cli("neighbors", store, "--id", one.name, "-k", "4", "--json").json
    assert [r["similarity"] for r in rows] == sorted((r["similarity"] for r in rows), reverse=True)
    text = cli("neighbors", store, one, "--depth", "--pixels", "--out", tmp_path / "d.png")
    assert text.code == 0
    assert "layer1" in text.out
    assert Image.open(tmp_path / "d.png").width > 300
    both = cli("neighbors", store, one, "--pixels", "--json", "--out", tmp_path / "n.svg").json
    assert both.keys() == {"neighbors", "pixels"}
    assert (tmp_path / "n.svg").read_text().startswith("<?xml") or "<svg" in (tmp_path / "n.svg").read_text()[:200]
    pair = cli("neighbors", store, one, "--why", "--json").json
    assert pair["cosine"] == pytest.approx(rows[0]["similarity"], abs=2e-3)
    assert sum(map(sum, pair["maps"][0])) == pytest.approx(pair["cosine"], rel=1e-3)


def test_patches(cli: Cli, store: Path, tmp_path: Path) -> None:
    rows = cli("patches", store, "stem.2:3", "-k", "2", "--json", "--out", tmp_path / "p.png").json
    assert [row["kind"] for row in rows] == ["top", "top", "typical", "typical", "lowest", "lowest"]
    assert rows[0].keys() == {"kind", "uri", "value", "row", "col", "box"}
    assert all(0 <= row["box"][0] < row["box"][2] <= 96 for row in rows)
    assert Image.open(tmp_path / "p.png").width > 300
    assert "channel" in cli("patches", store, "stem.2", "-k", "1", "--json").json[0]


def test_units_and_mistakes(cli: Cli, store: Path, tmp_path: Path) -> None:
    rows = cli("units", store, "--layer", "stem.2", "--json").json
    assert len(rows) == 24
    assert {"layer", "channel", "dead", "always_on", "selective", "top"} <= rows[0].keys()
    assert "stem.2:0" in cli("units", store, "--layer", "stem.2").out
    assert "always on" in cli("units", store).out
    found = cli("mistakes", store, "--json", "--out", tmp_path / "m.png").json
    assert found["pictures"] == 16
    assert found["accuracy"] == 1 - found["wrong"] / 16
    assert "right" in cli("mistakes", store).out


def test_map_in_three_forms(cli: Cli, folder: Path, store: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    new = tmp_path / "new.png"
    Image.fromarray(next(iter(pictures(1, 77))).image).save(new)
    files = [tmp_path / f"m.{ending}" for ending in ("html", "png", "parquet")]
    outs = [part for file in files for part in ("--out", file)]
    document = cli("map", store, *outs, "--place", new, "--json").json
    assert len(document["points"]) == 16
    assert 0 <= document["metrics"]["trustworthiness"] <= 1
    assert document["metrics"]["kl"] > 0
    assert document["placed"][0]["uri"] == str(new)
    table = pq.read_table(files[2])
    assert table["x"].to_pylist() == pytest.approx([p["x"] for p in document["points"]])
    assert json.loads(table.schema.metadata[b"convoscope"])["metrics"] == document["metrics"]
    assert Image.open(files[1]).width >= 480
    page = files[0].read_text()
    assert page.count("data:image/jpeg;base64,") >= 16
    assert 'src="http' not in page
    assert "<link" not in page
    again = cli("map", store, "--json").json  # kept in the store
    assert again["points"] == document["points"]
    assert "variance kept" in cli("map", store, "--method", "pca", "--layer", "layer1").out


def test_ctrl_c_exits_with_130(cli: Cli, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from convoscope.surveys.gather import driver

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(driver, "compute", stop)
    answer = cli("survey", "toybox", folder, "-o", tmp_path / "s", "--layer", "stem.2")
    assert answer.code == 130
    assert "kept" in answer.err


def test_the_map_and_what_units_want_are_made_with_it(cli: Cli, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("openTSNE")
    store = tmp_path / "store"
    asked = ("survey", "toybox", folder, "-o", store, "--layer", "layer3.1.relu#2")
    plain = cli(*asked)
    assert plain.code == 0
    assert not (store / "maps").exists(), "a small collection's map takes a second when it is asked for"
    assert not (store / "wanted").exists()
    made = cli(*asked, "--map", "--visualize", "1", "--json")
    assert made.code == 0
    assert made.json["notes"] == []
    assert [one.name.partition("-")[0] for one in (store / "maps").iterdir()] == ["tsne"]
    assert len(list((store / "wanted").glob("*.png"))) == 1

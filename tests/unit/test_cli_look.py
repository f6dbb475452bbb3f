"""layers, filters, activations, methods, doctor, toybox."""

from __future__ import annotations

import json

import pytest
from PIL import Image

import convoscope as cs
from convoscope.methods import METHODS


def test_layers_as_json(cli):
    rows = cli("layers", "toybox", "--json").json
    assert rows == json.loads(json.dumps(cs.layers(cs.open_model("toybox"))))
    first = rows[0]
    assert {"name", "shape", "rf"} <= set(first)
    assert {"size", "stride", "offset"} <= set(first["rf"])
    assert sum(row["default"] for row in rows) == 1


def test_layers_as_a_table(cli):
    answer = cli("layers", "toybox")
    rows = cs.layers(cs.open_model("toybox"))
    for row in rows:
        assert row["name"] in answer.out
    assert f"{len(rows)} layers" in answer.out
    assert answer.err == ""


FREE = """
from torch import nn


def free():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def of_28():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 26 * 26, 10))


def of_rows():
    return nn.Sequential(nn.Linear(10, 4), nn.ReLU(), nn.Linear(4, 2))
"""


def test_a_size_that_nobody_gave_is_said_with_the_layers(cli, tmp_path):
    (tmp_path / "net.py").write_text(FREE)
    answer = cli("layers", f"{tmp_path}/net.py:free")
    assert answer.code == 0
    assert "4×222×222" in answer.out
    assert "224×224 is assumed" in answer.err
    assert "assumed here" not in cli("layers", f"{tmp_path}/net.py:free", "--size", "64").err
    found = cs.layers(cs.open_model(f"{tmp_path}/net.py:free"))
    assert found.input_shape == (3, 224, 224)
    assert "3×224×224" in found._repr_html_()
    assert not cs.layers(cs.open_model("toybox")).assumed


def test_a_network_of_one_size_alone_is_told_which(cli, tmp_path):
    (tmp_path / "net.py").write_text(FREE)
    answer = cli("layers", f"{tmp_path}/net.py:of_28")
    assert answer.code == 2
    assert "It does run on 28×28: --size 28." in answer.err
    assert cli("layers", f"{tmp_path}/net.py:of_28", "--size", "28").code == 0
    assert "It does run on" not in cli("layers", f"{tmp_path}/net.py:of_28", "--size", "40").err, "a size was given"
    assert "It does run on" not in cli("layers", f"{tmp_path}/net.py:of_rows").err


def test_layers_by_glob(cli):
    names = [row["name"] for row in cli("layers", "toybox", "--layer", "layer2*", "--json").json]
    assert names
    assert all(name.startswith("layer2") for name in names)
    both = cli("layers", "toybox", "--layer", "layer1,layer2", "--json").json
    assert [row["name"] for row in both] == ["layer1", "layer2"]


def test_a_wrong_layer_lists_the_nearest(cli):
    answer = cli("layers", "toybox", "--layer", "layr2")
    assert answer.code == 2
    assert "There is no layer 'layr2'" in answer.err
    assert "layer2" in answer.err


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_filters(cli, tmp_path, ending):
    out = tmp_path / "new folder" / f"filters.{ending}"
    answer = cli("filters", "toybox", "--out", out)
    assert (answer.code, answer.out.strip()) == (0, str(out))
    assert out.stat().st_size > 1000
    if ending == "png":
        with Image.open(out) as image:
            assert min(image.size) > 200


def test_activations(cli, tmp_path, toys):
    picture = next(toys.glob("*.png"))
    for scale in ("own", "shared"):
        out = tmp_path / f"{scale}.png"
        answer = cli("activations", "toybox", picture, "--layer", "layer2", "--scale", scale, "--out", out)
        assert answer.code == 0, answer.err
        assert out.is_file()


def test_methods_as_json(cli):
    rows = cli("methods", "--json").json
    assert [row["name"] for row in rows] == list(METHODS)
    for row in rows:
        for key in ("shows", "cost", "signed", "reduction", "paper", "bibtex", "settings"):
            assert key in row
        assert row["bibtex"].startswith("@")


def test_one_method_in_full(cli):
    answer = cli("methods", "occlusion")
    for text in ("Zeiler", "window", "stride", "--set occlusion.NAME=VALUE", "@inproceedings"):
        assert text in answer.out
    assert cli("methods", "occlusion", "--json").json["name"] == "occlusion"


def test_doctor(cli):
    answer = cli("doctor", "--json")
    found = answer.json
    assert answer.code == 0
    assert found["ok"] is True
    assert found["versions"]["convoscope"] == cs.__version__
    assert found["versions"]["torch"][0].isdigit()
    assert {"timm", "survey", "umap", "web", "ray"} <= set(found["extras"])
    assert len(found["checks"]) >= 4


def test_doctor_tells_what_is_wrong(cli, monkeypatch):
    def broken(*_args, **_settings):
        raise RuntimeError("no such thing")

    monkeypatch.setattr("convoscope.toybox.load", broken)
    answer = cli("doctor")
    assert answer.code == 1
    assert "FAIL the toybox opens" in answer.out
    assert "no such thing" in answer.out


def test_doctor_reads_versions_and_not_presence(cli, monkeypatch):
    from convoscope import doctor

    real = doctor.importlib.metadata.version
    asked = ["torch>=2.6", "typer>=0.13.1", 'pylance>=0.30; extra == "survey"', 'timm>=1.0; extra == "timm"']
    have = {"torch": "2.14.1", "typer": "0.12.5", "pylance": "0.20.0", "timm": "1.0.31"}
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: asked)
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda name: have.get(name) or real(name))
    found = {one["package"]: one["ok"] for one in doctor.requirements()}
    assert found == {"torch": True, "typer": False, "pylance": False, "timm": True}
    answer = cli("doctor")
    assert answer.code == 1
    assert "convoscope asks for typer>=0.13.1, but 0.12.5 is installed" in answer.out
    assert "convoscope[survey] asks for pylance>=0.30, but 0.20.0 is installed" in answer.out


def test_doctor_names_missing_extras(monkeypatch):
    from convoscope import doctor

    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None if name == "faiss" else object())
    found = doctor.extras()
    assert found["survey"] == {"missing": ["faiss-cpu"], "install": "pip install 'convoscope[survey]'"}
    assert found["timm"]["missing"] == []


def test_toybox_writes_pictures_and_truth(cli, tmp_path):
    answer = cli("toybox", tmp_path / "toys", "--count", 3, "--seed", 5, "--json")
    told = answer.json
    truth = json.loads((tmp_path / "toys" / "truth.json").read_text())
    assert told["count"] == len(truth["pictures"]) == 3
    for row in truth["pictures"]:
        assert (tmp_path / "toys" / row["file"]).is_file()
        assert (tmp_path / "toys" / "masks" / row["file"]).is_file()
    again = cli("toybox", tmp_path / "again", "--count", 3, "--seed", 5)
    assert again.code == 0
    file = truth["pictures"][0]["file"]
    assert (tmp_path / "toys" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_toybox_scenes(cli, tmp_path):
    assert cli("toybox", tmp_path, "--count", 2, "--scenes").code == 0
    truth = json.loads((tmp_path / "truth.json").read_text())
    assert all(len(row["instances"]) >= 2 for row in truth["pictures"])


def test_random_weights_are_said_loudly(cli):
    answer = cli("layers", "toybox", "--weights", "none", "--json")
    assert answer.code == 0
    assert "RANDOM weights" in answer.err
    assert json.loads(answer.out)

"""Class names from wherever they come, and that they are as many as the outputs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import convoscope as cs
from convoscope.models.labels import read_labels


def network(classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes)
    ).eval()


PICTURE = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
NAMES = ("cat", "dog", "car")


@pytest.mark.parametrize(
    "given",
    [
        ["cat", "dog", "car"], ("cat", "dog", "car"), {0: "cat", 1: "dog", 2: "car"},
        {"0": "cat", "2": "car", "1": "dog"},
        {"cat": 0, "dog": 1, "car": 2}, iter(["cat", "dog", "car"]),
    ],
)  # fmt: skip
def test_sequences_and_dictionaries(given: Any) -> None:
    model = cs.wrap(network(), size=16, labels=given)
    assert model.labels == NAMES
    assert cs.explain(model, PICTURE, ["saliency"], target="dog").target == "dog"


def test_numbers_are_names_and_gaps_are_filled() -> None:
    assert read_labels([10, 20, 30]) == ("10", "20", "30")
    assert read_labels({0: "cat", 2: "car"}) == ("cat", "class 1", "car")


@pytest.mark.parametrize("given", ["cat", 5, [], {}, {"a": "b"}, {-1: "cat"}, {10**9: "cat"}, {None: 1.5}])
def test_what_are_no_labels_gets_a_sentence(given: Any) -> None:
    with pytest.raises(cs.UsageError, match="label"):
        cs.wrap(network(), labels=given)


FILES = {
    "lines": "cat\ndog\ncar\n",
    "blank lines": "cat\n\ndog\ncar\n\n",
    "windows": "cat\r\ndog\r\ncar\r\n",
    "byte order mark": "\ufeffcat\ndog\ncar",
    "json list": '["cat", "dog", "car"]',
    "json dictionary": '{"0": "cat", "1": "dog", "2": "car"}',
    "keras": '{"0": ["n02123045", "cat"], "1": ["n02099601", "dog"], "2": ["n02814533", "car"]}',
    "config.json": '{"model_type": "vit", "id2label": {"0": "cat", "1": "dog", "2": "car"}}',
    "coco": '[{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}, {"id": 2, "name": "car"}]',
}


@pytest.mark.parametrize("kind", FILES)
def test_files(tmp_path: Path, kind: str) -> None:
    (tmp_path / "labels").write_bytes(FILES[kind].encode())
    assert cs.open_model(network(), labels=tmp_path / "labels").labels == NAMES
    assert cs.wrap(network(), labels=str(tmp_path / "labels")).labels == NAMES


BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "blank": (b"\n \n\t\n", "empty"),
    "binary": (os.urandom(64) + b"\0" * 8, "binary|UTF-8"),
    "png": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "binary"),
    "utf-16": ("cat\ndog\n".encode("utf-16"), "binary"),
    "latin-1": ("cat\nlöwe\n".encode("latin-1"), "line 2 is not UTF-8"),
    "cut json": (b'{"0": "cat", "1": ', "begins like JSON"),
    "json number keys": (b'{"a": "b"}', "keys must be class numbers"),
    "deep json": (b"[" * 100_000, "JSON"),
    "million lines": (b"a\n" * 1_000_001, "no list of class names"),
    "fifty million lines": (b"a\n" * 50_000_000, "MB are no list of class names"),
}


@pytest.mark.parametrize("kind", BAD)
def test_files_that_are_no_labels_get_a_sentence(tmp_path: Path, kind: str) -> None:
    content, said = BAD[kind]
    (tmp_path / "labels").write_bytes(content)
    with pytest.raises(cs.UsageError, match=said) as caught:
        read_labels(tmp_path / "labels")
    assert len(str(caught.value)) < 400


def test_pipes_folders_and_missing_files_get_a_sentence(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, said in (("pipe", "pipe"), (".", "folder"), ("none.txt", "no such"), ("a\0b", "cannot be read")):
        with pytest.raises(cs.UsageError, match=said):
            read_labels(f"{tmp_path}/{name}")


@pytest.mark.parametrize("way", ["wrap", "open_model"])
@pytest.mark.parametrize("first", ["background", "__background__", "Background", "dummy"])
def test_a_leading_background_is_recognised_and_said(way: str, first: str) -> None:
    names = [first, *NAMES]
    model = (
        cs.wrap(network(), size=16, labels=names)
        if way == "wrap"
        else cs.open_model(network(), size=16, labels=names)
    )
    found = cs.explain(model, PICTURE, ["saliency"], target=1)
    assert found.target == "dog"
    assert any("begin with" in doubt and first in doubt for doubt in found.doubts)


@pytest.mark.parametrize("count", [1, 2, 4, 1001])
def test_another_number_of_labels_is_refused_or_doubted(count: int) -> None:
    names = [f"n{i}" for i in range(count)]
    with pytest.raises(cs.UsageError, match=f"{count} labels, and .* has 3 outputs"):
        cs.open_model(network(), size=16, labels=names)
    model = cs.wrap(network(), labels=names)  # its size is not known: the first picture tells
    for _ in range(2):
        doubts = cs.explain(model, PICTURE, ["saliency"]).doubts
        assert any(f"{count} labels" in doubt and "3 scores" in doubt for doubt in doubts)


def test_a_network_with_a_background_class_of_its_own_is_told() -> None:
    with pytest.raises(cs.UsageError, match="add a line for it"):
        cs.open_model(network(4), size=16, labels=NAMES)


def test_a_single_logit_may_have_two_labels() -> None:
    cs.explain(cs.wrap(network(1), size=16, labels=["no", "yes"]), PICTURE, ["saliency"])


def test_a_labels_file_of_a_thousand_and_one_lines_on_the_command_line(tmp_path: Path, capfd: Any) -> None:
    from convoscope.cli import run

    classes = [f"thing {i}" for i in range(10)]
    file = tmp_path / "labels.txt"
    file.write_text("\n".join(["background", *classes]))
    assert run(["layers", "toybox", "--labels", str(file), "--json"]) == 0
    out, err = capfd.readouterr()
    json.loads(out)
    assert "'background'" in err
    file.write_text("\n".join(["thing", *classes]))
    assert run(["layers", "toybox", "--labels", str(file)]) == 2
    assert "11 labels, and toybox has 10 outputs" in capfd.readouterr().err


def test_the_network_s_own_names_are_taken() -> None:
    class Config:
        id2label = {0: "cat", 1: "dog", 2: "car"}

    net = network()
    net.config = Config()
    assert cs.wrap(net).labels == NAMES
    assert cs.open_model(net).labels == NAMES
    assert cs.wrap(net, labels=["x", "y", "z"]).labels == ("x", "y", "z")
    Config.id2label = {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}  # nobody has named them
    assert cs.wrap(net).labels is None

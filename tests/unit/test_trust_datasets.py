"""Where the truth comes from: boxes, polygons, run lengths, VOC, and the same place in the network's input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import convoscope as cs
from convoscope.errors import UsageError
from convoscope.pictures.picture import Picture, Preprocessing
from convoscope.trust import datasets
from convoscope.trust.regions import Region, polygons, run_lengths


@pytest.fixture
def model() -> cs.Model:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    return cs.wrap(network, size=32, labels=["cat", "dog, hound", "key"])


def compressed(runs: list[int]) -> str:
    """COCO's compressed run lengths, written from their description: what the decoder must undo."""
    text = ""
    for k, run in enumerate(runs):
        value = run - runs[k - 2] if k > 2 else run
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            text += chr((bits | (32 if more else 0)) + 48)
    return text


def runs_of(mask: np.ndarray) -> list[int]:
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat.astype(int), [1 - int(flat[-1])]])))
    return [int(n) for n in np.diff(np.concatenate([[0], edges]))]


def test_a_box_takes_the_pixels_whose_centres_lie_in_it() -> None:
    mask = Region(((2, 1, 5, 3),)).on_photo((6, 8))
    assert mask.sum() == 6
    assert mask[1:3, 2:5].all()
    assert Region(((2.6, 1.4, 5.4, 3.4),)).on_photo((6, 8)).sum() == 2 * 2
    assert Region(((0, 0, 2, 2), (1, 1, 3, 3))).on_photo((6, 8)).sum() == 4 + 4 - 1


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
def test_a_region_follows_the_picture_into_the_input(fit: Any) -> None:
    """Paint the object white: the input is white where the region says."""
    photo = np.zeros((120, 200, 3), np.uint8)
    photo[40:80, 60:140] = 255
    mask = photo[:, :, 0] > 0
    fitted = Picture.of(photo).prepare(Preprocessing((64, 64), None, fit, (0, 0, 0), (1, 1, 1)))
    white = fitted.tensor[0].numpy() > 0.5
    for region in (Region(((60, 40, 140, 80),)), Region((), (mask,))):
        found = region.on_input(fitted)
        assert found.shape == white.shape
        assert (found ^ white).sum() <= 0.06 * white.sum()
        assert found.sum() > 100


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(UsageError, match="does not fit"):
        Region((), (np.zeros((3, 3), bool),)).on_photo((4, 4))


def test_polygons_take_the_pixels_whose_centres_lie_inside() -> None:
    square = polygons([[2, 1, 6, 1, 6, 4, 2, 4]], (8, 9))
    assert np.array_equal(square, Region(((2, 1, 6, 4),)).on_photo((8, 9)))
    rng = np.random.default_rng(0)
    points = np.array([[5, 3], [33, 8], [28, 30], [9, 26]], float) + rng.random((4, 2))
    found = polygons([points.ravel().tolist()], (36, 40))
    y, x = np.indices((36, 40)) + 0.5
    inside = np.ones((36, 40), bool)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, 0), strict=True):
        inside &= (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) >= 0
    assert np.array_equal(found, inside)
    assert found.sum() > 400
    two = polygons([[0, 0, 2, 0, 2, 2, 0, 2], [5, 5, 7, 5, 7, 7, 5, 7]], (8, 8))
    assert two.sum() == 8
    with pytest.raises(UsageError, match="three points"):
        polygons([[1, 2, 3, 4]], (8, 8))


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_are_undone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(3, 70)), int(rng.integers(3, 90)))
    mask = rng.random(size) < rng.random()
    if seed % 2:
        mask = np.kron(mask[: size[0] // 3, : size[1] // 3], np.ones((3, 3), bool))
        size = mask.shape  # type: ignore[assignment]
    runs = runs_of(mask)
    assert np.array_equal(run_lengths(runs, size), mask)
    assert np.array_equal(run_lengths(compressed(runs), size), mask)


def test_a_run_length_of_cocos_own() -> None:
    """2×3 with the second column set: four runs by hand; and the text that COCO's tool writes for it."""
    expected = np.array([[0, 1, 0], [0, 1, 0]], bool)
    assert np.array_equal(run_lengths([2, 2, 2], (2, 3)), expected)
    assert np.array_equal(run_lengths("222", (2, 3)), expected)


@pytest.mark.parametrize("counts", [[1, 2], [7], [-1, 7], "~~~", "o"])
def test_broken_run_lengths_say_so(counts: Any) -> None:
    with pytest.raises(UsageError):
        run_lengths(counts, (2, 3))


def test_boxes_are_read_in_both_units(tmp_path: Path) -> None:
    Image.new("RGB", (448, 112)).save(tmp_path / "a.png")
    rows = [
        {"file": "a.png", "class_index": 3, "boxes_224": [[56, 56, 112, 224]]},
        {"file": "a.png", "boxes": [[112, 28, 224, 112]]},
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    one, two = datasets.boxes_json(tmp_path / "boxes.json")
    assert (one.target, two.target) == (3, None)
    assert one.key != two.key
    assert one.region is not None
    assert two.region is not None
    assert np.array_equal(one.region.on_photo((112, 448)), two.region.on_photo((112, 448)))
    assert len(datasets.boxes_json(tmp_path / "boxes.json", 1)) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [("[1", "readable JSON"), ("{}", "list"), ('[{"file": "a"}]', "entry 0"), ("[]", "no pictures"),
     ('[{"file": "a", "boxes": [[1, 2]]}]', "entry 0")],
)  # fmt: skip
def test_broken_boxes_say_so(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "boxes.json").write_text(text)
    with pytest.raises(UsageError, match=said):
        datasets.boxes_json(tmp_path / "boxes.json")


def test_coco_with_polygons_run_lengths_and_crowds(tmp_path: Path, model: cs.Model) -> None:
    mask = np.zeros((20, 30), bool)
    mask[3:9, 4:12] = True
    runs = {"counts": compressed(runs_of(mask)), "size": [20, 30]}
    data = {
        "images": [
            {"id": 1, "file_name": "a.png", "height": 20, "width": 30},
            {"id": 2, "file_name": "b.png", "height": 20, "width": 30},
            {"id": 3, "file_name": "c.png", "height": 20, "width": 30},
        ],
        "categories": [{"id": 7, "name": "dog"}, {"id": 8, "name": "zebra"}, {"id": 9, "name": "key"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "segmentation": runs, "iscrowd": 1, "bbox": [0, 0, 1, 1]},
            {"id": 2, "image_id": 1, "category_id": 7, "segmentation": [[20, 10, 24, 10, 24, 14, 20, 14]]},
            {"id": 3, "image_id": 1, "category_id": 9, "segmentation": [], "bbox": [1, 1, 2, 2]},
            {"id": 4, "image_id": 2, "category_id": 8, "segmentation": runs},
        ],
    }
    (tmp_path / "instances.json").write_text(json.dumps(data))
    dog, key, zebra = datasets.coco(tmp_path / "instances.json", model)
    assert (dog.target, key.target, zebra.target) == (1, 2, None)
    assert (dog.others, key.others) == (1, 1)
    assert zebra.facts["foreground"]
    assert dog.region is not None
    assert dog.region.on_photo((20, 30)).sum() == 48 + 16
    assert key.region is not None
    assert key.region.on_photo((20, 30)).sum() == 4
    assert dog.source == tmp_path / "a.png"
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(UsageError, match="not COCO"):
        datasets.coco(tmp_path / "x.json", model)


def test_the_toybox_in_vocs_form_comes_back(tmp_path: Path) -> None:
    toy = cs.open_model("toybox")
    cases = datasets.toybox_cases(6)
    root = datasets.write_voc(cases, tmp_path)
    back = datasets.voc(root, toy)
    assert [case.target for case in back] == [case.target for case in cases]
    for case, again in zip(cases, back, strict=True):
        assert np.array_equal(case.picture().bands, again.picture().bands)
        assert case.region is not None
        assert again.region is not None
        mask = case.region.on_photo((96, 96))
        rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = np.zeros((96, 96), bool)
        box[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1] = True
        assert np.array_equal(again.region.on_photo((96, 96)), box)


def test_torchvision_reads_our_voc(tmp_path: Path) -> None:
    """The annotation is VOC's: torchvision's own parser finds the same boxes."""
    from xml.etree import ElementTree

    from torchvision.datasets import VOCDetection

    cases = datasets.toybox_cases(2)
    root = datasets.write_voc(cases, tmp_path)
    for case in cases:
        tree = ElementTree.parse(root / "Annotations" / f"{case.key}.xml").getroot()
        found = VOCDetection.parse_voc_xml(tree)["annotation"]
        box = {k: int(v) for k, v in found["object"][0]["bndbox"].items()}
        assert case.region is not None
        mask = case.region.on_photo((96, 96))
        assert mask[box["ymin"] - 1 : box["ymax"], box["xmin"] - 1 : box["xmax"]].sum() == mask.sum()
        assert found["object"][0]["name"] == case.label


def test_voc_leaves_out_what_is_difficult_alone(tmp_path: Path, model: cs.Model) -> None:
    def thing(name: str, hard: int, x: int) -> str:
        box = f"<xmin>{x}</xmin><ymin>1</ymin><xmax>{x + 3}</xmax><ymax>4</ymax>"
        return f"<object><name>{name}</name><difficult>{hard}</difficult><bndbox>{box}</bndbox></object>"

    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    things = thing("cat", 0, 1) + thing("cat", 1, 11) + thing("key", 1, 20)
    (tmp_path / "Annotations" / "p.xml").write_text(f"<annotation>{things}</annotation>")
    (tmp_path / "ImageSets" / "Main" / "test.txt").write_text("p\n")
    (case,) = datasets.voc(tmp_path, model)
    assert (case.label, case.others, case.target) == ("cat", 1, 0)
    assert case.region is not None
    # corners counted from 1, both inside: 4×4 pixels each, the difficult box too
    assert case.region.on_photo((10, 30)).sum() == 32
    assert case.region.on_photo((10, 30))[0, 0]
    with pytest.raises(UsageError, match="no such split"):
        datasets.voc(tmp_path, model, "val")
    with pytest.raises(UsageError, match="not Pascal VOC"):
        datasets.voc(tmp_path / "JPEGImages", model)
    (tmp_path / "Annotations" / "p.xml").write_text(f"<annotation>{thing('sheep', 0, 1)}</annotation>")
    with pytest.raises(UsageError, match="sheep"):
        datasets.voc(tmp_path, model)


def test_toybox_cases_have_exact_masks_and_tags() -> None:
    plain, tagged = datasets.toybox_cases(3), datasets.toybox_cases(3, tag=True, label="cup")
    assert all(case.tag is None and case.region is not None for case in plain)
    assert {case.label for case in tagged} == {"cup"}
    for case in tagged:
        assert case.tag is not None
        assert case.region is not None
        assert not (case.tag.on_photo((96, 96)) & case.region.on_photo((96, 96))).any()

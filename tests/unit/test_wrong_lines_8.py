"""Lines of targets, pictures and trust that could be wrong and nobody noticed."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_wrong_lines_3 import Own, toy, wrapped
from torch import Tensor, nn

import convoscope as cs
from convoscope.errors import TargetError
from convoscope.improve.statistics import paired
from convoscope.pictures.picture import Picture, find_pictures
from convoscope.pictures.preprocessing import Preprocessing
from convoscope.pictures.volume import Volume
from convoscope.surveys.store.accumulators import Classes
from convoscope.targets.combinations import Direction, _spell
from convoscope.targets.places import overlap
from convoscope.targets.scores import FunctionTarget
from convoscope.targets.units import no_such_layer
from convoscope.trust.faithfulness import road, subsets
from convoscope.trust.league import Difference, League, interval
from convoscope.trust.localisation import _weights
from convoscope.trust.similarity import ssim

# targets

LEVEL = 3


def of_class(index: int) -> Any:
    return lambda output: output[:, index]


def above(output: Tensor) -> Tensor:
    return torch.stack([row.clamp(min=LEVEL).sum() for row in output])


def test_functions_are_the_same_target_where_they_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a function takes from around it is a part of it: a folder's maps must not be taken for another's."""

    def key(function: Any) -> str:
        return FunctionTarget(function).key()

    weight = torch.ones(3)
    assert key(of_class(0)) == key(of_class(0)) != key(of_class(1))
    assert key(lambda output, k=0: output[:, k]) != key(lambda output, k=1: output[:, k])
    assert key(lambda output: output @ weight) != key(lambda output: output @ (weight + 1))
    first = key(lambda output: of_class(0)(output))
    assert first == key(lambda output: of_class(0)(output))
    net = nn.Linear(3, 1)
    by_net = [lambda output: net(output)[:, 0] for _ in range(2)]
    before = key(by_net[0])
    assert before == key(by_net[1])
    with torch.no_grad():
        net.weight += 1
    assert before != key(by_net[0])
    before = key(above)
    monkeypatch.setitem(globals(), "LEVEL", 4)
    assert before != key(above)

    def again(output: Any, deep: int = 0) -> Any:
        return output if deep else again(output, 1)

    assert key(again) == key(again)
    assert key(torch.sum) == key(torch.sum) != key(torch.mean)


def test_a_functions_key_is_that_of_another_process(tmp_path: Path) -> None:
    file = tmp_path / "keys.py"
    file.write_text(
        "import torch\nfrom convoscope.targets.scores import FunctionTarget\n"
        "def of(names, k, one=torch.ones(2)):\n"
        "    return lambda output: output[:, k] * len(names) + torch.sum(one) + (lambda a: a + k)(1)\n"
        "print(FunctionTarget(of({'a', 'b', 'c', 'd'}, 3)).key())\n"
    )
    found = set()
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        found.add(subprocess.run([sys.executable, file], env=env, capture_output=True, text=True, check=True).stdout)
    assert len(found) == 1


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ([(1, "cat"), (-1, "dog")], "cat - dog"),
        ([(-1, "cat"), (0.5, "dog")], "-cat + 0.5*dog"),
        ([(-2, "cat"), (1, "dog"), (-0.25, "car")], "-2*cat + dog - 0.25*car"),
    ],
)
def test_sums_are_spelt_as_they_are_written(asked: Any, said: str) -> None:
    assert _spell(asked) == said


def test_a_directions_score_is_the_mean_projection() -> None:
    model = wrapped(Own(nn.Identity()))
    vector = np.array([1.0, -2.0, 0.5, 3.0])
    found = cs.explain(model, toy(), "saliency", target=Direction("after", vector))
    with torch.no_grad():
        cells = model.module.conv(model.prepare(toy()).tensor[None]).relu()[0].flatten(1).numpy()
    assert found.score == pytest.approx(float((cells.T @ (vector / np.linalg.norm(vector))).mean()), rel=1e-4)


@pytest.mark.parametrize(("count", "all_said"), [(20, True), (21, False)])
def test_few_names_are_all_said(count: int, all_said: bool) -> None:
    net = Own(nn.Identity())
    net.head = nn.Linear(4, count)
    labels = [f"thing {k:02}" for k in range(count)]
    with pytest.raises(TargetError) as refused:
        cs.explain(cs.wrap(net.eval(), size=16, labels=labels), toy(), "saliency", target="xyzxyz")
    assert all(label in str(refused.value) for label in labels) == all_said


def test_a_class_with_a_score_is_explained_though_another_has_none() -> None:
    class Hole(Own):
        def forward(self, x: Tensor) -> Tensor:
            scores = super().forward(x)
            return torch.cat([scores[:, :2], torch.full_like(scores[:, 2:], torch.nan)], 1)

    model = wrapped(Hole(nn.Identity()))
    assert np.isfinite(cs.explain(model, toy(), "hirescam", target=1)["hirescam"].values).all()


# pictures


def test_the_usual_preprocessing_is_imagenets() -> None:
    usual = Preprocessing()
    assert usual.to_dict() == {
        "size": [224, 224],
        "resize": 256,
        "fit": "crop",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "interpolation": "bilinear",
    }


@pytest.mark.parametrize(
    ("photo", "size", "content"),
    [
        ((10, 20), (32, 48), (4, 28, 0, 48)),  # by 2.4 to 24 x 48, rows in the middle
        ((20, 10), (32, 48), (0, 32, 16, 32)),
        ((30, 30), (32, 48), (0, 32, 8, 40)),
        ((40, 60), (16, 9), (5, 11, 0, 9)),
    ],
)
def test_a_padded_picture_is_as_large_as_it_fits_and_in_the_middle(photo: Any, size: Any, content: Any) -> None:
    way = Preprocessing(size, fit="pad", mean=(0.0,) * 3, std=(1.0,) * 3, interpolation="nearest")
    found = Picture.of(np.full((*photo, 3), 255, np.uint8)).prepare(way)
    top, bottom, left, right = content
    expected = torch.zeros(3, *size)
    expected[:, top:bottom, left:right] = 1
    assert torch.equal(found.tensor, expected)
    x, y = found.input_to_photo @ [(left + right - 1) / 2, (top + bottom - 1) / 2, 1]
    assert (x, y) == pytest.approx(((photo[1] - 1) / 2, (photo[0] - 1) / 2))


def test_arrays_of_a_folder_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    names = [f"{k:02}.npy" for k in np.random.default_rng(0).permutation(30)]
    for name in names:
        np.save(tmp_path / name, np.zeros((4, 4, 3), np.uint8))
    assert [Path(one).name for one in find_pictures([tmp_path])] == sorted(names)


def test_three_rows_of_four_are_a_picture_of_many_bands() -> None:
    assert Picture.of(np.zeros((3, 4, 5), np.float32)).bands.shape == (3, 4, 5)
    with pytest.raises(cs.ConvoscopeError, match="not C×H×W"):
        Picture.of(np.zeros((3, 5, 5), np.float32))


# trust and statistics


def test_a_map_of_nothing_but_zeros_is_like_none() -> None:
    zero, other = np.zeros((12, 12)), np.random.default_rng(0).random((12, 12))
    for one, two in ((zero, other), (other, zero), (zero, zero)):
        assert np.isnan(ssim(one, two))
    assert ssim(other, other) == pytest.approx(1)


def test_random_choices_are_those_of_seed_zero() -> None:
    """The same question gives the same answer, and one that can be asked for: the default seed is 0."""
    values = np.random.default_rng(1).random(30)
    assert interval(values) == interval(values, seed=0) != interval(values, seed=1)
    assert paired(values) == paired(values, seed=0) != paired(values, seed=1)
    assert torch.equal(subsets((6, 6), 4), subsets((6, 6), 4, seed=0))
    assert not torch.equal(subsets((6, 6), 4), subsets((6, 6), 4, seed=1))


def test_a_league_is_written_as_it_is_spelt_with_the_leader_in_bold(tmp_path: Path) -> None:
    rows = {f"p{k}": {"iou": {"a": 0.9 + 0.001 * k, "b": 0.1}} for k in range(20)}
    league = League.of(rows, model="Größe")
    league.save(tmp_path)
    assert "Größe" in (tmp_path / "league.json").read_text(encoding="utf-8")
    cells = [list(column.cells) for column in league.table().columns]
    bold = {str(row[0]): "[bold]" in "".join(map(str, row[1:])) for row in zip(*cells, strict=True)}
    assert bold == {"a": True, "b": False}


@pytest.mark.parametrize("length", [1, 5])
def test_one_cell_fills_the_whole_length(length: int) -> None:
    np.testing.assert_array_equal(_weights(1, length), np.ones((length, 1)))


# what is refused, and said


@pytest.mark.parametrize("target", [object(), {}, 1.5j])
def test_what_is_no_target_is_refused(target: Any) -> None:
    with pytest.raises(TargetError, match="target"):
        cs.explain("toybox", toy(), "saliency", target=target)


@pytest.mark.parametrize("vector", [np.zeros(4), np.array([1, np.nan, 0, 0]), np.array([np.inf, 1, 0, 0])])
def test_a_direction_that_is_none_is_refused(vector: Any) -> None:
    with pytest.raises(TargetError, match="finite values that are not all zero"):
        cs.explain(wrapped(Own(nn.Identity())), toy(), "saliency", target=Direction("after", vector))


def test_a_layer_that_is_not_there_is_answered_with_the_nearest_or_the_last() -> None:
    names = ["stem", "layer1.conv", "layer2.conv", "head"]
    assert "Nearest: layer2.conv, layer1.conv." in no_such_layer("layer2.con", names)
    assert "Nearest: layer1.conv, layer2.conv, head." in no_such_layer("zzz", names)


def test_one_picture_without_any_score_is_named_and_the_others_are_explained() -> None:
    class Bright(Own):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + torch.where(x.mean((1, 2, 3)) > 0.9, torch.nan, 0.0)[:, None]

    white = np.full((16, 16, 3), 255, np.uint8)
    found = cs.explain(wrapped(Bright(nn.Identity()), mean=(0.0,) * 3, std=(1.0,) * 3), [toy(), white], "hirescam")
    assert "hirescam" in found[0]
    assert "NaN for every class" in found[1].refused["hirescam"]


def test_boxes_are_compared_by_intersection_over_union() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 4], [2, 0, 6, 4], [10, 10, 12, 12], [1, 1, 3, 3]])
    box = torch.tensor([2.0, 1, 6, 3])
    by_hand = []
    for left, top, right, bottom in boxes.tolist():
        across, down = max(0, min(right, 6) - max(left, 2)), max(0, min(bottom, 3) - max(top, 1))
        by_hand.append(across * down / ((right - left) * (bottom - top) + 8 - across * down))
    np.testing.assert_allclose(overlap(boxes, box).numpy(), by_hand, atol=1e-6)


def test_a_tensor_of_a_wrong_kind_is_named() -> None:
    with pytest.raises(cs.ConvoscopeError, match=r"must be C×H×W, not \(2, 2, 3, 8, 8\)"):
        Picture.of(torch.zeros(2, 2, 3, 8, 8))


def test_a_wrong_array_is_named_where_it_has_a_name(tmp_path: Path) -> None:
    np.save(tmp_path / "odd.npy", np.zeros((2, 2, 2, 2, 2), np.uint8))
    with pytest.raises(cs.ConvoscopeError, match=r"odd\.npy"):
        Picture.of(tmp_path / "odd.npy")
    np.save(tmp_path / "slices.npy", np.zeros((5, 8, 6, 1), np.uint8))
    assert isinstance(Picture.of(tmp_path / "slices.npy"), Volume)
    np.save(tmp_path / "one.npy", np.zeros((8, 6, 3), np.uint8))
    assert Picture.of(tmp_path / "one.npy").name == "one.npy"


def test_colours_in_floats_become_grey_as_bytes_do() -> None:
    """ITU-R 601: 0.299, 0.587, 0.114."""
    grey = Preprocessing((8, 6), mean=(0.0,), std=(1.0,), fit="squash")
    colours = np.random.default_rng(0).random((8, 6, 3)).astype(np.float32)
    found = Picture.of(colours).prepare(grey).tensor[0].numpy()
    np.testing.assert_allclose(found, colours @ np.array([0.299, 0.587, 0.114], np.float32), atol=1e-6)
    of_bytes = Picture.of((colours * 255).round().astype(np.uint8)).prepare(grey).tensor[0].numpy()
    np.testing.assert_allclose(of_bytes, found, atol=0.01)


@pytest.mark.parametrize("bands", [4, 5])
def test_of_many_bands_those_are_drawn_that_the_network_names(bands: int) -> None:
    way = Preprocessing((8, 6), mean=(0.0,) * bands, std=(1.0,) * bands, rgb=(3, 1, 0))
    assert Picture.of(np.zeros((8, 6, bands), np.float32)).prepare(way).picture.rgb == (3, 1, 0)


def test_an_input_cannot_be_changed() -> None:
    found = Picture.of(np.zeros((8, 6, 3), np.uint8)).prepare(Preprocessing((8, 6)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.tensor = found.tensor * 2  # type: ignore[misc]


def test_one_number_stands_for_all_channels_on_either_side() -> None:
    three = (0.2, 0.3, 0.4)
    assert Preprocessing((8, 6), mean=(0.5,), std=three).mean == (0.5,) * 3
    assert Preprocessing((8, 6), mean=three, std=(0.5,)).std == (0.5,) * 3


@pytest.mark.parametrize("size", [(4, 8), (8, 4), (8, 8)])
def test_a_square_is_squashed_to_any_size(size: Any) -> None:
    way = Preprocessing(size, mean=(0.0,) * 3, std=(1.0,) * 3, fit="squash")
    assert Picture.of(np.zeros((8, 8, 3), np.uint8)).prepare(way).tensor.shape == (3, *size)


def test_road_takes_its_papers_shares() -> None:
    """Rong et al. 2022 remove 10 to 50, 70 and 90 % of the pixels, the most and the least relevant first."""
    values = np.arange(20.0).reshape(1, 4, 5)
    kept = torch.as_tensor(values)

    def scored(masks: Tensor) -> Tensor:
        return (kept * (1 - masks.view(-1, 4, 5))).sum((1, 2))

    ((most, least),) = road(values, scored)  # type: ignore[arg-type]
    np.testing.assert_allclose(most.shares, [0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9])
    gone = [2, 4, 6, 8, 10, 14, 18]
    np.testing.assert_allclose(most.scores, [sum(range(20 - count)) for count in gone])
    np.testing.assert_allclose(least.scores, [190 - sum(range(count)) for count in gone])


def test_a_cell_of_a_league_is_the_mean_and_half_the_interval() -> None:
    values = np.random.default_rng(0).uniform(0.3, 0.7, 40)
    league = League.of({f"p{k}": {"iou": {"a": value, "b": value - 0.1}} for k, value in enumerate(values)})
    whole = interval(values)
    assert league.cell("iou", "a") == f"{values.mean():.3f} ±{(whole.high - whole.low) / 2:.3f}"
    told = Difference(0.1, 0.05, np.nan, 40, 0.01).to_dict()
    assert told == {"mean": 0.1, "low": 0.05, "high": None, "n": 40, "p": 0.01}


def test_classes_are_told_in_the_order_of_their_names() -> None:
    classes = Classes()
    classes.add(["b", "a", "b", None], np.array([[1, 1], [1, 3], [1, 3], [9, 9]], np.float32))
    labels, means = classes.means()
    assert list(labels) == ["a", "b"]
    np.testing.assert_allclose(means, [[1.0, 3.0], [1.0, 2.0]])

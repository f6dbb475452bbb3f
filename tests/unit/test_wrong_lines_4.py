"""Lines of targets, pictures and trust that could be wrong and nobody noticed: each held against its truth."""

from __future__ import annotations

import io
import itertools
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from skimage.metrics import structural_similarity
from test_wrong_lines_3 import Own, noise, toy, wrapped
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights

import convoscope as cs
from convoscope.engine.fields.geometry import Axis, Geometry
from convoscope.errors import PictureError, TargetError, UsageError
from convoscope.improve.statistics import ece
from convoscope.methods.base import Maps
from convoscope.pictures.picture import Picture, Preprocessing, find_pictures, unique_stems
from convoscope.pictures.preprocessing import read_size
from convoscope.surveys.store.accumulators import Sample
from convoscope.targets import default_layer, parse
from convoscope.targets.classes import instead
from convoscope.targets.combinations import CombinationScorer
from convoscope.targets.places import photo_mask
from convoscope.toybox import write
from convoscope.trust.faithfulness import Curve, infidelity, subsets
from convoscope.trust.league import League, paired
from convoscope.trust.localisation import near
from convoscope.trust.scoring import Kept, Scoring
from convoscope.trust.similarity import agreement, ssim

# targets


@pytest.mark.parametrize("asked", [None, 1, "top2", "cat"])
@pytest.mark.parametrize("returned", [lambda a: a.flatten(2), lambda a: "nothing"], ids=["rows", "text"])
def test_an_output_without_class_scores_is_refused_with_what_would_work(returned: Any, asked: Any) -> None:
    class Other(Own):
        def forward(self, x: Tensor) -> Any:
            return returned(self.conv(x).relu())

    with pytest.raises(TargetError, match="give a callable target"):
        cs.explain(wrapped(Other(nn.Identity())), toy(), "saliency", target=asked)


class Mine:
    """A target of a person's own, without a probability."""

    labels = ("mine",)

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __repr__(self) -> str:
        return f"Mine({self.weight})"

    def resolve(self, model: Any, output: Any, pictures: Any) -> Mine:
        return self

    def score(self, output: Tensor, layers: Any, rows: Tensor) -> Tensor:
        return self.weight * output[:, 0]


class MineToo(Mine):
    """One with a probability."""

    def probability(self, output: Tensor, layers: Any, rows: Tensor) -> Tensor:
        return output.softmax(1)[:, 0]


def test_what_is_done_already_is_known_by_a_key_that_no_other_target_has() -> None:
    model = wrapped(Own(nn.Identity()), labels=["cat", "dog", "cow"])
    asked = [
        "cat", "dog", "top2", "cat - dog", "dog - cat", "cat - 2*dog", "cat + dog", "conv:1", "conv:2", "conv:1@max",
        "conv:1@2,3", "output:.1", "output:.2", "multilabel:cat+dog", "multilabel:cat+cow", "instance:1",
        "instance:cat", "instance:cat@1,2", "instance:@1,2", "instance:1@mask", "instance:1@2,3@left",
        "segment:cat", "segment:@1,2",
        "segment:cat@1,2", "pixel:cat@1,2", "pixel:@1,2", "landmark:1", "landmark:1@2", "landmark:1@x", "landmark:eye",
        Mine(1), Mine(2), lambda output: output[:, 0], lambda output: output[:, 1],
    ]  # fmt: skip
    keys = [parse(one, model).key() for one in asked]
    keys += [parse("cat", model, other).key() for other in ("dog", "cow", "top1")]
    assert all(isinstance(key, str) and key for key in keys)
    assert len(set(keys)) == len(keys)
    assert keys[: len(asked)] == [parse(one, model).key() for one in asked]
    assert parse(None, model).key() == parse("top1", model).key()


def test_a_score_of_a_persons_own_and_its_probability() -> None:
    net = Own(nn.Identity())
    model = wrapped(net)
    x = noise(3, 16, 16)
    scores = net(x[None])[0].detach()
    for own, weight, chance in ((Mine(2), 2, None), (MineToo(2), 2, float(scores.softmax(0)[0]))):
        found = cs.explain(model, Picture.from_input(x, model.preprocessing), "saliency", target=own)
        assert found.score == pytest.approx(weight * float(scores[0]), rel=1e-4)
        assert found.probability == (None if chance is None else pytest.approx(chance, rel=1e-4))


def test_a_contrast_is_a_difference_of_scores_and_of_probabilities() -> None:
    net = Own(nn.Identity())
    model = wrapped(net, labels=["cat", "dog", "cow"])
    x = noise(3, 16, 16)
    scores = net(x[None])[0].detach()
    shares = scores.softmax(0)
    shown = Picture.from_input(x, model.preprocessing)
    one, two = (cs.explain(model, shown, "saliency", target="cat", against=other) for other in (None, "cow"))
    assert (one.score, one.probability) == pytest.approx((float(scores[0]), float(shares[0])), rel=1e-4)
    assert (two.score, two.probability) == pytest.approx(
        (float(scores[0] - scores[2]), float(shares[0] - shares[2])), rel=1e-4
    )


def test_a_sum_of_values_has_no_probability_and_is_scored_as_it_is() -> None:
    net = Own(nn.Identity())
    model = wrapped(net, labels=["cat", "dog", "cow"])
    x = noise(3, 16, 16)
    scores = net(x[None])[0].detach()
    shown, method = Picture.from_input(x, model.preprocessing), cs.RISE(samples=64, cells=2)
    values = cs.explain(model, shown, method, target="output:.1 + 2*output:.2")
    assert values.score == pytest.approx(float(scores[1] + 2 * scores[2]), rel=1e-4)
    one, two = (cs.explain(model, shown, method, target=f"output:.{index}")["rise"].values for index in (1, 2))
    np.testing.assert_allclose(values["rise"].values, one + 2 * two, rtol=1e-4, atol=1e-6)
    with pytest.raises(TargetError, match="no probability: use score=logit"):
        cs.explain(model, shown, method, target="output:.1 + dog")


def test_a_score_made_of_a_layer_is_shown_at_that_layer_not_after_it() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 5, 3, 2, 1), nn.ReLU(),
                        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3))  # fmt: skip
    model = wrapped(net, 24)
    for layer in ("0", "1", "2"):
        channels = 5 if layer == "2" else 4
        asked = cs.Direction(layer, np.arange(1.0, channels + 1))
        one = cs.explain(model, toy()[:24, :24], "hirescam", target=asked)["hirescam"]
        assert one.layer == layer
        assert np.ptp(one.values) > 0
    assert (
        cs.explain(model, toy()[:24, :24], "hirescam", target=1)["hirescam"].layer == model.watched().last_grid == "3"
    )
    assert cs.explain(model, toy()[:24, :24], "hirescam", target="1:2")["hirescam"].layer == "1"


def test_of_a_pyramid_the_level_with_the_largest_sum_fed_the_detection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many cells that matter a little each, against few that matter more: what counts is all of it."""
    monkeypatch.setattr(default_layer, "is_torchvision_detector", lambda network: True)
    levels = {"fine": torch.ones(1, 1, 8, 8), "coarse": torch.ones(1, 1, 2, 2), "unused": torch.ones(1, 1, 4, 4)}
    slopes = {"fine": -0.1 * levels["fine"], "coarse": 0.5 * levels["coarse"], "unused": 0 * levels["unused"]}
    recorded = SimpleNamespace(
        output=None, rows=None, live=dict,
        layers={name: SimpleNamespace(value=value, edge=True) for name, value in levels.items()},
    )  # fmt: skip
    scorer = SimpleNamespace(score=lambda *_: None, layers=())
    for factor, fed in ((1.0, "fine"), (0.1, "coarse")):
        slopes["fine"] = -0.1 * factor * levels["fine"]
        runner = SimpleNamespace(network=None, gradients=lambda *_, **__: slopes)
        assert default_layer._fed(runner, SimpleNamespace(), recorded, scorer, list(levels), []) == fed


class TwoHeads(nn.Module):
    """A stem and two branches, each with a head of its own: linear after pooling, or a map of classes."""

    def __init__(self, grids: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.one, self.two = (nn.Sequential(nn.Conv2d(4, 4, 3, 1, 1), nn.ReLU()) for _ in range(2))
        self.heads = nn.ModuleList(nn.Sequential(nn.Conv2d(4, 2, 1) if grids else nn.Linear(4, 2)) for _ in range(2))
        self.grids = grids

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.stem(x)
        found = [self.one(x), self.two(x)]
        if not self.grids:
            found = [one.mean((2, 3)) for one in found]
        return {name: head(one) for name, head, one in zip("ab", self.heads, found, strict=True)}


@pytest.mark.parametrize("grids", [False, True])
def test_each_head_is_shown_at_its_own_last_grid(grids: bool) -> None:
    model = wrapped(TwoHeads(grids))
    shown = Picture.from_input(noise(3, 16, 16), model.preprocessing)
    for path, layer in (("a.0", "one"), ("b.1", "two")):
        found = cs.explain(model, shown, "hirescam", target=f"output:{path}")["hirescam"]
        assert found.layer in (layer, f"{layer}.1")  # the branch's own name, or its ReLU's
        assert np.ptp(found.values) > 0
    both = cs.explain(model, shown, "hirescam", target="output:a.0 + output:b.1")["hirescam"]
    assert both.layer in ("one", "one.1", "two", "two.1")


def test_layers_are_found_for_each_target_and_each_method_apart() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 5, 3, 2, 1), nn.ReLU(),
                        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3))  # fmt: skip
    model = wrapped(net, 24)
    direction = cs.Direction("1", np.arange(1.0, 5))
    both = cs.explain(model, toy()[:24, :24], ["hirescam", "saliency"], target=[1, direction])
    assert [row["hirescam"].layer for row in both.rows] == ["3", "1"]
    assert np.ptp(both.rows[1]["hirescam"].values) > 0


def test_a_class_costs_no_pass_that_looks_for_a_layer() -> None:
    net = Own(nn.Identity())
    model = wrapped(net)
    model.watched()
    calls: list[int] = []
    net.register_forward_pre_hook(lambda *_: calls.append(1))
    cs.explain(model, toy()[:16, :16], "grad-cam", target=1)
    assert len(calls) == 1


def test_labels_beyond_the_classes_are_no_classes() -> None:
    model = wrapped(Own(nn.Identity()), labels=["cat", "dog", "cow", "owl"])
    for asked in ("owl", 3, "3"):
        with pytest.raises(TargetError, match="the network has 3"):
            cs.explain(model, toy(), "saliency", target=asked)
    assert cs.explain(model, toy(), "saliency", target="cow").target == "cow"


def test_a_name_that_is_refused_is_answered_with_names_that_are_there() -> None:
    labels = [f"thing {index}" for index in range(100)]
    said = instead("zzz", labels)
    assert [word for word in labels if f"{word}," in said or f"{word}:" in said] == labels[::25]
    assert instead("zzz", labels[:20]) == f"The names are {', '.join(labels[:20])}."
    near = instead("think 7", labels)
    assert near.startswith("Did you mean thing 7, ")
    assert near.count("thing") == 3


def test_a_mask_over_a_tall_photo_ends_at_its_sides() -> None:
    size = Preprocessing((20, 20), None, "pad", (0,) * 3, (1,) * 3)
    tall = Picture.of(np.zeros((20, 10, 3), np.uint8)).prepare(size)
    found = photo_mask(tall, np.ones((20, 10), bool), (20, 20))
    assert found.sum() == 200
    assert found[:, 5:15].all()


# pictures


def test_of_a_folder_the_pictures_are_taken_and_not_what_was_made_of_them(tmp_path: Path) -> None:
    write(tmp_path / "toys", 2, seed=3)
    (tmp_path / "toys" / "maps").mkdir()
    photo = next((tmp_path / "toys").glob("*.png"))
    (tmp_path / "toys" / "maps" / "explain.json").write_text("{}")
    (tmp_path / "toys" / "maps" / "saliency.png").write_bytes(photo.read_bytes())
    (tmp_path / "toys" / ".hidden.png").write_bytes(photo.read_bytes())
    found = find_pictures([tmp_path / "toys"])
    assert len(found) == 2
    assert {one.parent for one in found} == {tmp_path / "toys"}
    assert (tmp_path / "toys" / "masks").is_dir()
    (tmp_path / "masks").mkdir()  # a folder of this name without the toybox's list is a folder of pictures
    (tmp_path / "masks" / "one.png").write_bytes(photo.read_bytes())
    assert find_pictures([tmp_path / "masks"]) == [tmp_path / "masks" / "one.png"]


class Evil:
    """Runs code when it is read from a pickle."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("code-has-run"),))


def test_an_array_file_that_holds_code_is_refused_and_the_code_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("evil.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    with pytest.raises(PictureError, match=r"not a .npy file of numbers"):
        Picture.of("evil.npy")
    assert not Path("code-has-run").exists()


def test_pictures_of_few_rows_and_of_none() -> None:
    assert Picture.of(np.zeros((3, 8, 3), np.uint8)).size == (3, 8)
    assert Picture.of(np.zeros((1, 8, 4), np.uint8)).size == (1, 8)
    with pytest.raises(PictureError, match="not C×H×W"):
        Picture.of(np.zeros((3, 8, 9), np.uint8))
    for size in ((0, 5), (5, 0)):
        with pytest.raises(PictureError, match=f"no pixels \\({size[0]}×{size[1]}\\)"):
            Picture.of(Image.new("RGB", size))


def test_what_a_filter_overshoots_is_cut_off() -> None:
    step = np.zeros((40, 40, 1), np.float32)
    step[:, 20:] = 1
    for filter in ("bicubic", "lanczos"):
        to = Preprocessing((100, 100), None, "squash", (0.0,), (1.0,), filter)
        found = Picture.of(step).prepare(to).tensor
        assert (float(found.min()), float(found.max())) == (0, 1)
        assert len(found.unique()) >= 4  # between the two there is a slope


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    for name in ("a[1].png", "a1.png", "b.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    assert find_pictures([tmp_path / "a[1].png"]) == [tmp_path / "a[1].png"]
    assert find_pictures([tmp_path / "a[12].png"]) == [tmp_path / "a1.png"]
    assert find_pictures([tmp_path / "none.png"]) == [tmp_path / "none.png"]  # who reads it says that it is not there
    with pytest.raises(PictureError, match="no file matches"):
        find_pictures([tmp_path / "c*.png"])


def test_folders_of_results_never_share_a_name() -> None:
    assert unique_stems([Path(one) for one in ("a/x.png", "b/x.jpg", "c/x.png", "y.png")]) == ["x", "x-2", "x-3", "y"]
    names = unique_stems([Path(one) for one in ("x.png", "b/x.png", "x-2.png", "d/x.png", ".png")])
    assert len(set(names)) == 5


def test_what_is_not_said_of_preprocessing_is_imagenet_s() -> None:
    theirs = ResNet18_Weights.DEFAULT.transforms()
    assert list(Preprocessing().mean) == theirs.mean
    assert list(Preprocessing().std) == theirs.std


def test_values_of_another_range_are_refused_with_the_ones_that_fit() -> None:
    with pytest.raises(UsageError, match=r"mean=\(0.4867, 0.4588, 0.4078\), std=\(0.2275, 0.2235, 0.2196\)"):
        Preprocessing(mean=(124.1, 117.0, 104.0), std=(58.0, 57.0, 56.0))
    with pytest.raises(UsageError, match=r"divide both by 65,535: mean=\(0.5,\)|mean=\(0.5\), std=\(0.25\)"):
        Preprocessing(mean=(32767.5,), std=(16383.75,))


@pytest.mark.parametrize("pages", [1, 2, 3])
def test_of_several_pages_the_first_is_seen_and_said_to_be(tmp_path: Path, pages: int) -> None:
    every = [Image.new("RGB", (6, 5), (40 * number, 0, 0)) for number in range(pages)]
    every[0].save(tmp_path / "a.tif", save_all=True, append_images=every[1:])
    found = Picture.of(tmp_path / "a.tif")
    assert found.bands[0, 0, 0] == 0
    assert any(f"of its {pages} pages" in note for note in found.notes) == (pages > 1)


# what holds arrays


def holders() -> list[Any]:
    """One of each kind that holds arrays, and used as it is meant to be."""
    low = np.arange(4)
    axis = Axis.from_fields(8, low, low + 2, low, low + 2)
    geometry, curve = Geometry(axis, axis), Curve(np.linspace(0, 1, 3), np.ones(3))
    scoring = Scoring(None, None, None, None, noise(1, 3, 2, 2), 0.0, False)  # type: ignore[arg-type]
    scoring.fills["mean"] = scoring._fill("mean")
    total = CombinationScorer([], ("nothing",))
    assert geometry.regular
    assert curve.area == 1
    assert total.as_value
    maps = Maps(noise(2, 3, 3), True, "")
    maps.doubt(1, "none")
    return [axis, geometry, curve, scoring, Kept(noise(2, 2)), total, maps]


def test_what_holds_arrays_is_compared_by_identity() -> None:
    """Arrays have no one answer to ``==``, so a comparison field by field would raise, and a set could not hold it."""
    for one, other in zip(holders(), holders(), strict=True):
        assert one == one
        assert not one == other  # noqa: SIM201
        assert len({one, other, one}) == 2


# trust


def test_the_sign_flip_test_is_fishers() -> None:
    rng = np.random.default_rng(1)
    gaps = rng.normal(0.4, 1, 10)
    signs = np.array(list(itertools.product((-1, 1), repeat=10)))
    exact = (np.abs((signs * gaps).mean(1)) >= abs(gaps.mean()) - 1e-12).mean()
    assert paired(gaps, np.zeros(10)).p == pytest.approx(exact, abs=0.01)
    # the least that so many flips can tell, and the most
    assert paired(np.arange(1, 41), np.zeros(40)).p == 1 / 20_001
    for flips in (1, 5, 2000, 2001):
        assert paired(np.zeros(4), np.zeros(4), flips=flips).p == 1
    assert paired(np.ones(30), np.zeros(30), flips=99).p == 0.01


# surveys


def test_typical_pictures_of_a_unit_that_is_mostly_nan_are_those_with_a_value() -> None:
    values = np.array([[np.nan, 1], [2, 2], [np.nan, 3], [1, 4], [np.nan, 5]], np.float32)
    places = np.arange(10, dtype=np.uint16).reshape(5, 2)
    found = Sample(np.arange(11, 16, dtype=np.uint64), values, places, places + 20, 5).typical(4)
    assert found.values[1].tolist() == [1, 2, 3, 4]
    assert found.keys[1].tolist() == [11, 12, 13, 14]
    assert found.values[0, :2].tolist() == [1, 2]
    assert (found.rows[0, :2].tolist(), found.cols[0, :2].tolist()) == ([6, 2], [26, 22])
    assert np.isnan(found.values[0, 2:]).all()
    assert found.rows[0, 2:].tolist() == found.cols[0, 2:].tolist() == [-1, -1]
    assert found.keys[0, 2:].tolist() == [0, 0]


def test_an_empty_map_is_no_better_than_an_empty_map_and_needs_no_division() -> None:
    masks, drops = subsets((6, 6), 20), noise(20)
    with np.errstate(all="raise"):
        found = infidelity(np.stack([np.zeros((6, 6)), np.ones((6, 6))]), masks, drops)
    assert found[0] == 1
    assert found[1] <= 1


def test_a_row_of_the_league_stays_one_line_however_narrow_the_terminal_is() -> None:
    rng = np.random.default_rng(0)
    rows = {
        f"p{number}": {m: {one: rng.random() for one in ("grad-cam", "saliency")} for m in ("pointing", "iou", "auc")}
        for number in range(9)
    }
    for width in (200, 44):
        text = io.StringIO()
        Console(file=text, width=width).print(League.of(rows, model="toybox").table())
        told = [line for line in text.getvalue().splitlines() if re.search(r"\d\.\d", line)]
        assert len(told) == 2, text.getvalue()
        assert width < 200 or ("grad-cam" in told[0] and "saliency" in told[1])


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (1, 6), (6, 1), (2, 2)])
def test_what_is_near_a_mask_is_what_a_ruler_says(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(sum(shape))
    y, x = np.mgrid[: shape[0], : shape[1]]
    for tolerance in (0, 0.5, 1, 1.2, 2, 2.5, 3, 3.7, 4, 5, 8, 9, 20):
        mask = np.zeros(shape, bool)
        mask[tuple(rng.integers(0, side) for side in shape)] = True
        mask[0, 0] = True
        away = np.min([np.hypot(y - row, x - col) for row, col in np.argwhere(mask)], 0)
        assert np.array_equal(near(mask, tolerance), (away < tolerance) | mask), tolerance


def test_maps_of_two_pixels_agree_or_do_not() -> None:
    names, found = agreement({"a": np.array([[0.0, 2.0]]), "b": np.array([[1.0, 9.0]]), "c": np.array([[3.0, 2.0]])})
    assert names == ["a", "b", "c"]
    np.testing.assert_allclose(found, [[1, 1, -1], [1, 1, -1], [-1, -1, 1]], atol=1e-12)
    assert np.isnan(agreement({"a": np.array([[0.0, 2.0]]), "even": np.ones((1, 2))})[1][0, 1])


@pytest.mark.parametrize("scale", [1e-6, 0.5, 1.0, 2.0, 1e6])
def test_similarity_has_no_unit(scale: float) -> None:
    one, other = noise(20, 24).numpy().astype(np.float64), noise(20, 24, seed=1).numpy().astype(np.float64)
    one, other = one / one.max(), other / other.max()
    assert ssim(scale * one, one) == pytest.approx(1)
    assert ssim(scale * one, other) == pytest.approx(ssim(3 * one, 7 * other))
    assert ssim(scale * one, -other) < 0
    assert np.isnan(ssim(one, 0 * other))


def test_similarity_is_the_same_both_ways_round() -> None:
    signed, positive = noise(20, 24).numpy() - 0.5, noise(20, 24, seed=1).numpy()
    assert ssim(signed, positive) == pytest.approx(ssim(positive, signed))
    theirs = structural_similarity(
        signed / np.abs(signed).max(), positive / positive.max(), gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, data_range=2.0, full=True,
    )[1][5:-5, 5:-5].mean()  # fmt: skip
    assert ssim(signed, positive) == pytest.approx(theirs, abs=1e-6)


# statistics


def test_the_calibration_error_has_fifteen_bins() -> None:
    rng = np.random.default_rng(0)
    chance = rng.random(400)
    right = rng.random(400) < 0.5 + 0.5 * np.sin(60 * chance)  # above and below by turns
    inside = np.ceil(chance * 15).astype(int)
    truth = sum(
        (inside == one).mean() * abs(chance[inside == one].mean() - right[inside == one].mean())
        for one in np.unique(inside)
    )
    assert ece(chance, right) == pytest.approx(truth)


def test_a_unit_of_a_linear_layer_is_one_number() -> None:
    net = Own(nn.Identity())
    model = wrapped(net)
    x = noise(3, 16, 16)
    found = cs.explain(model, Picture.from_input(x, model.preprocessing), "saliency", target="head:1")
    assert found.score == pytest.approx(float(net(x[None])[0, 1]), rel=1e-4)
    with pytest.raises(TargetError, match=r"3 channels .*no channel 3"):
        cs.explain(model, Picture.from_input(x, model.preprocessing), "saliency", target="head:3")
    with pytest.raises(TargetError, match="no neuron at 0,0"):
        cs.explain(model, Picture.from_input(x, model.preprocessing), "saliency", target="head:1@0,0")


def test_sides_of_a_picture_are_whole_numbers_below_a_thousand_million() -> None:
    assert read_size(10**9 - 1) == (10**9 - 1, 10**9 - 1)
    assert read_size((1, 10**9 - 1)) == read_size("1x999999999") == (1, 10**9 - 1)
    for bad in (10**9, (5, 10**9), 0, (0, 5), -3, True, 2.5, "1000000000", "5x", (1, 2, 3), {5, 6}):
        with pytest.raises(UsageError, match="size must be one number of pixels"):
            read_size(bad)

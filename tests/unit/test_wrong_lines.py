"""Lines that could be wrong and nobody noticed, found by tests/mutation: one definition held for each, with its kin."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import convoscope as cs
from convoscope.errors import PictureError, UsageError
from convoscope.improve.statistics import Interval, corrected, ece
from convoscope.pictures.picture import Picture, Preprocessing, find_pictures
from convoscope.surveys.store.accumulators import Extremes, Moments, Sample
from convoscope.trust import faithfulness, localisation
from convoscope.trust.league import League, paired

PLAIN = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3)

# statistics


def test_an_interval_is_written_with_its_three_numbers() -> None:
    assert Interval(0.5, 0.25, 0.75).to_dict() == {"mean": 0.5, "low": 0.25, "high": 0.75}


def test_no_test_and_one_test_need_no_correction() -> None:
    assert corrected([]).shape == (0,)
    assert corrected([0.03]).tolist() == [0.03]
    np.testing.assert_allclose(corrected([0.01, 0.04, 0.03]), [0.03, 0.04, 0.04])


@pytest.mark.parametrize("bins", [1, 2, 4, 15])
def test_calibration_error_is_the_sum_over_bins_by_its_definition(bins: int) -> None:
    rng = np.random.default_rng(bins)
    chance = np.concatenate([rng.random(200), np.arange(bins + 1) / bins])  # the ends of the bins, too
    right = rng.random(len(chance)) < 0.5
    expected = 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        inside = (chance > low) & (chance <= high) | ((chance == 0) & (number == 0))
        if inside.any():
            expected += inside.sum() * abs(right[inside].mean() - chance[inside].mean())
    assert ece(chance, right, bins) == pytest.approx(expected / len(chance), rel=1e-9)
    # a bin too sure and its neighbour too doubtful do not cancel out
    assert ece([0.45, 0.55], [1, 0], 2) == pytest.approx(0.55)
    assert ece([0.85, 0.95], [0, 1], 10) == pytest.approx((0.85 + 0.05) / 2)


# what surveys sum up


def test_zero_is_not_active_and_places_that_are_empty_say_so() -> None:
    found = Moments.of(np.array([[0.0, -1.0, 2.0, -0.0], [0.0, 3.0, 1.0, np.nan]], np.float32))
    assert found.active.tolist() == [0, 1, 2, 0]
    empty = Extremes.empty(2, 3, largest=True)
    assert (empty.rows == -1).all()
    assert (empty.cols == -1).all()
    assert np.isnan(empty.values).all()
    assert not empty.keys.any()


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 7])
def test_typical_pictures_are_those_in_the_middle(k: int) -> None:
    values = np.array([[5, 1], [3, np.nan], [1, 2], [4, np.nan], [2, 3]], np.float32)
    places = np.arange(10, dtype=np.uint16).reshape(5, 2)
    found = Sample(np.arange(5, dtype=np.uint64), values, places, places + 20, 5).typical(k)
    for channel in range(2):
        known = np.sort(values[:, channel][~np.isnan(values[:, channel])])
        start = max(0, (len(known) - k) // 2)
        expected = known[start : start + k]
        kept = found.values[channel][~np.isnan(found.values[channel])]
        assert kept.tolist() == expected.tolist()
        for place, value in enumerate(expected):
            row = int(np.flatnonzero(values[:, channel] == value)[0])
            assert found.keys[channel, place] == row
            assert found.rows[channel, place] == places[row, channel]
            assert found.cols[channel, place] == places[row, channel] + 20


# trust


def test_pairs_are_of_the_same_pictures_and_their_chance_is_fisher_s() -> None:
    with pytest.raises(UsageError, match="not 3 and 2"):
        paired([1, 2, 3], [1, 2])
    # of four equal differences two of sixteen sign flips are as far from zero
    found = paired([2.0, 3.0, 4.0, 5.0], [1.0, 2.0, 3.0, 4.0], flips=20_000)
    assert found.p == pytest.approx(2 / 16, abs=0.02)
    never = paired(np.arange(40.0) + 1, np.arange(40.0), flips=999)
    assert never.p == 1 / 1000
    assert paired([1.0, 1.0], [1.0, 1.0], flips=99).p == 1
    none = paired([float("nan"), 1.0], [1.0, float("nan")])
    assert none.n == 0
    assert np.isnan([none.mean, none.low, none.high, none.p]).all()


def test_a_league_tells_the_difference_of_two_methods_and_shows_its_table() -> None:
    rows = {f"{n}": {"iou": {"good": 0.9 + n / 100, "bad": 0.1, "random": 0.5}} for n in range(5)}
    league = League.of(rows, model="net")
    found = league.difference("iou", "good", "bad")
    assert found.mean == pytest.approx(0.82)
    assert found.n == 5
    assert league.difference("iou", "bad", "good").mean == pytest.approx(-0.82)
    table = league.table()
    assert str(table.title).startswith("net: 5 cases")
    assert str(League.of({"0": rows["0"]}, model="net").table().title).startswith("net: 1 case,")
    assert [row.end_section for row in table.rows] == [False, True, False]  # a line before the baselines
    assert [row.style for row in table.rows] == [None, None, "dim"]


def test_a_subset_takes_a_fifth_unless_told_otherwise() -> None:
    assert faithfulness.subsets((10, 10), 3).sum((1, 2)).tolist() == [20, 20, 20]
    assert faithfulness.subsets((10, 10), 2, 0.5).sum((1, 2)).tolist() == [50, 50]
    assert faithfulness.subsets((2, 2), 1, 1.0).sum() == 3  # never all of it
    assert faithfulness.subsets((2, 2), 1, 0.0).sum() == 1  # never nothing
    assert faithfulness.subsets((5, 5), 2, 0.5, cell=2).shape == (2, 5, 5)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e4])
def test_infidelity_knows_no_unit(size: float) -> None:
    shares = np.random.default_rng(0).normal(size=(6, 6))
    masks = faithfulness.subsets((6, 6), 12, 0.3)
    drops = torch.from_numpy((masks.numpy() * shares).sum((1, 2)))
    found = faithfulness.infidelity(np.stack([shares * size, np.zeros_like(shares)]), masks, drops)
    assert found[0] == pytest.approx(0, abs=1e-9)
    assert found[1] == pytest.approx(1)
    assert np.isnan(faithfulness.infidelity(np.ones((2, 6, 6)), masks, drops * 0)).tolist() == [True, True]
    assert faithfulness.infidelity(shares[None], masks, drops, scaled=False)[0] == pytest.approx(0, abs=1e-9)


def test_difficult_is_less_than_a_quarter_beside_something_else() -> None:
    mask = np.zeros((4, 4), bool)
    mask[:2, :2] = True
    assert not localisation.difficult(mask, 1)  # a quarter is not less than one
    mask[0, 0] = False
    assert localisation.difficult(mask, 1)
    assert not localisation.difficult(mask, 0)


@pytest.mark.parametrize("measure", [localisation.energy_inside, localisation.best_iou, localisation.pixel_auc])
def test_measures_of_stacks_keep_their_shape_where_there_is_no_object(measure: Any) -> None:
    maps = np.random.default_rng(0).random((2, 3, 4, 5))
    nothing = measure(maps, np.zeros((4, 5), bool))
    assert nothing.shape == (2, 3)
    assert np.isnan(nothing).all()
    something = measure(maps, np.eye(4, 5, dtype=bool))
    assert something.shape == (2, 3)
    for row in range(2):
        assert something[row].tolist() == measure(maps[row], np.eye(4, 5, dtype=bool)).tolist()


# pictures


def test_an_input_is_drawn_where_it_is() -> None:
    made = Picture.from_input(torch.rand(3, 5, 7), PLAIN).prepare(PLAIN)
    assert made.input_to_photo.tolist() == [[1, 0, 0], [0, 1, 0]]


def test_a_file_opened_as_text_is_refused() -> None:
    with pytest.raises(PictureError, match="opened for bytes"):
        Picture.of(io.StringIO("no picture"))
    content = io.BytesIO()
    Image.new("RGB", (4, 3), "red").save(content, "PNG")
    assert Picture.of(content).size == (3, 4)  # read from its beginning


def test_a_picture_for_a_network_of_volumes_is_refused_in_a_sentence() -> None:
    volumes = cs.Preprocessing(size=(4, 4), mean=(0.0,), std=(1.0,), frames=4)
    for picture in (Picture.of(np.zeros((4, 4), np.uint8)), Picture.from_input(torch.rand(3, 4, 4), PLAIN)):
        with pytest.raises(PictureError, match="one picture and the network takes volumes"):
            picture.prepare(volumes)


def test_one_band_is_drawn_grey_and_two_as_red_and_green() -> None:
    grey = Picture.of(np.full((3, 4), 77, np.uint8)).image
    assert (grey.mode, grey.size, grey.getpixel((0, 0))) == ("RGB", (4, 3), (77, 77, 77))
    two = Picture(np.dstack([np.full((3, 4), 9, np.uint8), np.full((3, 4), 8, np.uint8)])).image
    assert two.getpixel((3, 2)) == (9, 8, 0)


@pytest.mark.parametrize("shape", [(60, 40), (40, 60)])
def test_without_a_resize_the_crop_takes_seven_eighths_of_the_short_side(shape: tuple[int, int]) -> None:
    photo = Picture.of(np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8))
    found = [photo.prepare(Preprocessing((28, 35), resize, "crop", (0,) * 3, (1,) * 3)) for resize in (None, 32)]
    assert torch.equal(found[0].tensor, found[1].tensor)
    assert found[0].input_to_photo.tolist() == found[1].input_to_photo.tolist()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_file_of_two_pages_says_that_one_is_seen(tmp_path: Any, count: int) -> None:
    pages = [Image.new("RGB", (4, 4), (60 * n, 0, 0)) for n in range(count)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    notes = Picture.of(tmp_path / "pages.tif").notes
    assert len(notes) == (count > 1)
    assert all(f"of its {count} pages" in note for note in notes)


def test_hidden_pictures_of_a_folder_are_left_out(tmp_path: Any) -> None:
    for name in ("a.png", ".b.png", ".c/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    names = [path.name for path in find_pictures([tmp_path])]
    assert names == ["d.png", "a.png"]  # of hidden files, not of hidden folders
    assert find_pictures([tmp_path / ".b.png"]) == [tmp_path / ".b.png"]  # named outright it is taken


def test_whatever_a_decoder_raises_is_a_sentence_about_the_picture(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")

    def fails(*_: object) -> None:
        raise RuntimeError("the codec gave up")

    monkeypatch.setattr(Image, "open", fails)
    with pytest.raises(PictureError, match=r"a\.png: the picture cannot be decoded \(the codec gave up\)"):
        Picture.of(tmp_path / "a.png")


def test_patterns_may_be_relative_or_whole(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert find_pictures([tmp_path / "*.png"]) == [tmp_path / "a.png"]
    monkeypatch.chdir(tmp_path)
    assert [str(path) for path in find_pictures(["*.png"])] == ["a.png"]


def test_of_many_bands_the_drawn_ones_are_those_that_the_preprocessing_names() -> None:
    bands = np.stack([np.full((8, 9), 10 * n, np.uint8) for n in range(1, 6)], 2)
    to = Preprocessing((4, 4), None, "squash", (0.0,) * 5, (1.0,) * 5, rgb=(4, 2, 0))
    assert Picture.of(bands).prepare(to).picture.image.getpixel((0, 0)) == (50, 30, 10)
    own = Picture(bands, rgb=(1, 1, 1))  # what the picture says of itself stands
    assert own.prepare(to).picture.image.getpixel((0, 0)) == (20, 20, 20)
    few = Preprocessing((4, 4), None, "squash", (0.0,) * 3, (1.0,) * 3)
    with pytest.raises(PictureError, match="5 channels"):
        Picture.of(bands).prepare(few)


def test_tensors_of_every_rank() -> None:
    assert Picture.of(torch.rand(1, 5)).size == (1, 5)
    assert Picture.of(torch.rand(1, 1, 5)).size == (1, 5)
    assert Picture.of(torch.rand(1, 3, 4, 5)).size == (4, 5)
    for bad in (torch.rand(5), torch.rand(1, 1, 3, 4, 5), torch.rand(0, 3, 4, 5)):
        with pytest.raises(PictureError):
            Picture.of(bad)


@pytest.mark.parametrize("values", [(0.5, float("nan"), 0.5), (float("inf"), 0.5, 0.5), (0.5, 0.5, -float("inf"))])
@pytest.mark.parametrize("name", ["mean", "std"])
def test_one_value_that_is_no_number_spoils_a_mean(name: str, values: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match=f"{name} must be one number a channel"):
        Preprocessing(**{"mean": (0.5,) * 3, "std": (0.5,) * 3, name: values})

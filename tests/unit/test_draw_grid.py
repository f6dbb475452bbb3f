"""Channels, filters and patches: one tile each, on scales that are said."""

import numpy as np
import pytest
from test_draw_sheet import check

from convoscope.draw import colour, grid
from convoscope.draw.colour import Scale
from convoscope.errors import UsageError

RNG = np.random.default_rng(0)


def texts(figure):
    return [text.text for text in figure.drawing.texts()]


def tile_pictures(figure):
    return [p for p in figure.drawing.pictures() if p.alt.startswith("channel")]


@pytest.mark.parametrize("shape", [(1, 7, 7), (64, 13, 13), (300, 7, 7), (5, 3, 40), (5, 40, 3), (7, 1, 1)])
@pytest.mark.parametrize("scale", ["own", "shared"])
def test_tiles_of_every_shape_fit(shape, scale):
    figure = grid.tiles(RNG.random(shape), scale=scale, title="layer " * 20, unit="activation")
    check(figure)
    assert len(tile_pictures(figure)) == min(shape[0], 256)


def test_two_thousand_channels_can_be_shown():
    figure = grid.tiles(RNG.random((2048, 4, 4)), limit=2048)
    check(figure)
    assert len(tile_pictures(figure)) == 2048
    assert "2047" in texts(figure)


def test_what_is_left_out_is_said():
    joined = " ".join(texts(grid.tiles(RNG.random((300, 4, 4)), limit=100)))
    assert "first 100 of 300 channels" in joined
    assert "first" not in " ".join(texts(grid.tiles(RNG.random((30, 4, 4)))))


def test_names_keep_the_callers_order():
    names = ["511", "7", "42"]
    figure = grid.tiles(RNG.random((3, 4, 4)), names=names)
    assert [t for t in texts(figure) if t in names] == names


def test_shared_scale_shows_strength_and_own_scale_shows_shape():
    pattern = RNG.random((6, 6)) + 0.01
    maps = np.stack([pattern, 0.01 * pattern])
    shared = [np.asarray(p.image) for p in tile_pictures(grid.tiles(maps, scale="shared"))]
    own = [np.asarray(p.image) for p in tile_pictures(grid.tiles(maps, scale="own"))]
    assert shared[1].mean() < 0.2 * shared[0].mean()
    assert np.abs(own[0].astype(int) - own[1].astype(int)).max() <= 2


def test_own_scale_writes_the_largest_value_beside_each_name():
    maps = np.zeros((3, 4, 4))
    maps[0, 1, 2], maps[1, 0, 0] = 2.5, -7.25
    found = texts(grid.tiles(maps, scale="own"))
    assert "2.5" in found
    assert "−7.2" in found
    assert found.count("0") == 2  # channel 0, and the dead channel's value


def test_dead_channels_are_flat():
    maps = np.stack([RNG.random((5, 5)), np.zeros((5, 5))])
    for scale in ("own", "shared"):
        dead = np.asarray(tile_pictures(grid.tiles(maps, scale=scale))[1].image)
        assert (dead == dead[0, 0]).all()


def test_a_given_scale_is_used():
    figure = grid.tiles(np.full((1, 2, 2), 1.0), scale=Scale(0.0, 4.0, False))
    expected = colour.paint(np.full((2, 2), 1.0), Scale(0.0, 4.0, False))
    assert (np.asarray(tile_pictures(figure)[0].image) == expected).all()


def test_colour_filters_are_centred_on_mid_grey_on_one_scale():
    weights = np.zeros((3, 3, 5, 5))
    weights[0, 0] = 2.0
    weights[1, :] = -1.0
    pictures = [np.asarray(p.image) for p in tile_pictures(grid.filters(weights))]
    assert tuple(pictures[0][0, 0]) == (255, 128, 128)
    assert tuple(pictures[1][0, 0]) == (64, 64, 64)
    assert tuple(pictures[2][0, 0]) == (128, 128, 128)
    assert "white 2, black −2" in " ".join(texts(grid.filters(weights)))


@pytest.mark.parametrize(
    ("shape", "pictures"),
    [((96, 3, 7, 7), 96), ((32, 1, 3, 3), 32), ((16, 5, 3), 16), ((64, 16, 3, 3), 24 * 16),
     ((64, 40, 3, 5), 24 * 16), ((32, 96, 1, 1), 1), ((1, 2, 1, 1), 1), ((1000, 64, 1, 1), 1)],
)  # fmt: skip
def test_filters_of_every_shape_fit(shape, pictures):
    figure = grid.filters(RNG.standard_normal(shape), title="conv " * 20)
    check(figure)
    bars = [p for p in figure.drawing.pictures() if p.alt.startswith("colour scale")]
    assert len(figure.drawing.pictures()) - len(bars) == pictures


def test_filters_that_are_left_out_are_said():
    joined = " ".join(texts(grid.filters(RNG.standard_normal((64, 40, 3, 3)))))
    assert "first 24 of 64 filters" in joined
    assert "first 16 of 40 input channels" in joined


def test_patches_of_mixed_shapes_wrap_and_keep_their_shape():
    shapes = [(35, 35), (20, 70), (70, 20), (200, 200), (8, 8)]
    items = [
        (RNG.integers(0, 255, (*shape, 3), dtype=np.uint8), f"9.{i} · some_long_name_{i}.jpg")
        for i, shape in enumerate(shapes)
    ]
    figure = grid.patches([("layer4:7", items * 3), ("dead", []), ("", items)], "Patches", columns=6)
    check(figure)
    pictures = figure.drawing.pictures()
    assert len(pictures) == 20
    for picture in pictures:
        aspect = picture.image.width / picture.image.height
        assert picture.width / picture.height == pytest.approx(aspect, rel=0.05)
    assert "none" in texts(figure)


@pytest.mark.parametrize(
    "call",
    [
        lambda: grid.tiles(np.zeros((3, 3))),
        lambda: grid.tiles(np.zeros((0, 3, 3))),
        lambda: grid.tiles(np.zeros((3, 3, 3)), names=["a"]),
        lambda: grid.tiles(np.zeros((3, 3, 3)), limit=0),
        lambda: grid.tiles(np.zeros((3, 3, 3)), columns=0),
        lambda: grid.filters(np.zeros((3, 3))),
        lambda: grid.filters(np.zeros((3, 4, 3, 3)), rgb=True),
        lambda: grid.filters(np.zeros((3, 4, 3, 3)), limit=0),
        lambda: grid.patches([]),
    ],
)
def test_bad_input_gets_a_sentence(call):
    with pytest.raises(UsageError, match=r"\.$"):
        call()

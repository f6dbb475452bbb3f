"""A map lands on the photo where the preprocessing took it from, and nowhere else."""

import numpy as np
import pytest
from PIL import Image

from convoscope.draw import colour, overlay
from convoscope.draw.colour import Scale
from convoscope.errors import UsageError

INPUT = 64


def crop_matrix(width, height, size=INPUT):
    """Resize the shorter side to ``size``, then crop the centre."""
    step = min(width, height) / size
    left, top = (width - step * size) / 2, (height - step * size) / 2
    return np.array([[step, 0, left + step / 2 - 0.5], [0, step, top + step / 2 - 0.5]])


def pad_matrix(width, height, size=INPUT):
    """Resize the longer side to ``size`` and pad the other: parts of the input lie outside the photo."""
    step = max(width, height) / size
    left, top = (width - step * size) / 2, (height - step * size) / 2
    return np.array([[step, 0, left + step / 2 - 0.5], [0, step, top + step / 2 - 0.5]])


def squash_matrix(width, height, size=INPUT):
    """Resize both sides to ``size``, whatever the shape."""
    sx, sy = width / size, height / size
    return np.array([[sx, 0, sx / 2 - 0.5], [0, sy, sy / 2 - 0.5]])


def hot(row, column, size=INPUT):
    values = np.zeros((size, size))
    values[row, column] = 1.0
    return values


def grey_photo(width, height):
    return np.full((height, width, 3), 128, np.uint8)


def changed(picture, reference):
    """Rows and columns of the pixels that differ."""
    difference = np.abs(np.asarray(picture).astype(int) - np.asarray(reference).astype(int)).max(2)
    return np.nonzero(difference > 2)


@pytest.mark.parametrize("fit", [crop_matrix, pad_matrix, squash_matrix])
@pytest.mark.parametrize(("width", "height"), [(512, 320), (320, 512), (256, 256), (192, 448)])
def test_a_hot_pixel_covers_exactly_its_own_square_of_the_photo(fit, width, height):
    matrix = fit(width, height)
    row, column = 40, 21
    scale = Scale(0.0, 1.0, False)
    photo = grey_photo(width, height)
    settings = {"scale": scale, "matrix": matrix, "pixelated": True, "min_size": 0}
    rows, columns = changed(
        overlay.overlay(photo, hot(row, column), **settings),
        overlay.overlay(photo, np.zeros((INPUT, INPUT)), **settings),
    )
    # the square of input pixel (row, column) in the photo's corner coordinates (pixel i spans i to i + 1)
    left, right = (matrix[0, 0] * (column + end) + matrix[0, 2] + 0.5 for end in (-0.5, 0.5))
    top, bottom = (matrix[1, 1] * (row + end) + matrix[1, 2] + 0.5 for end in (-0.5, 0.5))
    inside_x = [x for x in range(width) if left <= x + 0.5 < right]
    inside_y = [y for y in range(height) if top <= y + 0.5 < bottom]
    assert sorted(set(columns)) == inside_x
    assert sorted(set(rows)) == inside_y
    assert len(rows) == len(inside_x) * len(inside_y)


@pytest.mark.parametrize("fit", [crop_matrix, pad_matrix, squash_matrix])
def test_interpolated_peak_is_centred_on_the_right_photo_position(fit):
    width, height, row, column = 500, 330, 30, 37
    matrix = fit(width, height)
    warped, inside = overlay.warp(hot(row, column), matrix, (width, height))
    mass = np.where(inside, warped, 0)
    y, x = np.mgrid[:height, :width]
    centre = (mass * x).sum() / mass.sum(), (mass * y).sum() / mass.sum()
    np.testing.assert_allclose(centre, matrix @ [column, row, 1], atol=0.02)


def test_a_linear_map_stays_linear_on_the_photo():
    matrix = crop_matrix(300, 200)
    plane = np.add.outer(2.0 * np.arange(INPUT), 3.0 * np.arange(INPUT))
    warped, inside = overlay.warp(plane, matrix, (300, 200))
    y, x = np.mgrid[:200, :300]
    column, row = (x - matrix[0, 2]) / matrix[0, 0], (y - matrix[1, 2]) / matrix[1, 1]
    core = inside & (column >= 0) & (row >= 0) & (column <= INPUT - 1) & (row <= INPUT - 1)
    assert core.sum() > 30_000
    np.testing.assert_allclose(warped[core], (2 * row + 3 * column)[core], atol=1e-9)


def test_rotation_and_shear_are_followed():
    matrix = np.array([[0.0, 2.0, 10.5], [-2.0, 0.0, 140.5]])  # a quarter turn, twice the size
    warped, inside = overlay.warp(hot(5, 50), matrix, (160, 160), pixelated=True)
    ys, xs = np.nonzero(np.where(inside, warped, 0))
    x, y = matrix @ [50, 5, 1]
    assert (xs.mean(), ys.mean()) == pytest.approx((x, y))
    assert len(xs) == 4


def test_outside_the_crop_the_photo_is_grey_and_pale_and_inside_it_is_not():
    photo = np.zeros((100, 200, 3), np.uint8)
    photo[...] = (200, 40, 40)
    matrix = crop_matrix(200, 100)
    picture = np.asarray(overlay.overlay(photo, np.zeros((INPUT, INPUT)), matrix=matrix, min_size=0)).astype(int)
    outside, inside = picture[50, 20], picture[50, 100]
    assert np.ptp(outside) == 0
    assert outside[0] > 170
    assert np.ptp(inside) > 20
    edge = np.nonzero(np.ptp(picture[50], axis=1))[0]
    assert (edge[0], edge[-1]) == (50, 149)


def test_zero_is_transparent_and_opacity_grows_with_size_for_both_signs():
    scale = Scale(-1.0, 1.0, True)
    photo = grey_photo(300, 10)
    values = np.linspace(-1, 1, 301)[None].repeat(10, 0)[:, :300]
    bare = overlay.overlay(photo, np.zeros((10, 300)), scale=scale)
    assert (np.asarray(bare) == np.asarray(bare)[0, 0]).all()
    shares = overlay.ramp(scale.strength(values)[0].astype(np.float32))
    assert (np.diff(shares[:150]) < 0).all()
    assert (np.diff(shares[151:]) > 0).all()
    assert shares[150] == 0
    strongest = np.asarray(overlay.overlay(photo, np.ones((10, 300)), scale=scale, opacity=1.0))[0, 0]
    assert (strongest == colour.colours(scale.cmap)[-1]).all()


def test_the_object_stays_visible_under_the_strongest_value():
    photo = np.zeros((300, 300, 3), np.uint8)
    photo[:, 150:] = 255
    picture = np.asarray(overlay.overlay(photo, np.ones((8, 8)), scale=Scale(0, 1, False))).astype(int)
    # three tenths of the two fifths of its contrast that the photo keeps, so that zero never looks like a value
    assert np.abs(picture[150, 100] - picture[150, 200]).max() > 30


def test_tiny_photos_are_enlarged_in_whole_squares_together_with_the_map():
    photo = np.arange(28 * 28, dtype=np.uint8).reshape(28, 28)
    picture = overlay.overlay(photo, hot(3, 20, 28), scale=Scale(0, 1, False))
    assert picture.size == (280, 280)
    blank = overlay.overlay(photo, np.zeros((28, 28)), scale=Scale(0, 1, False))
    rows, columns = changed(picture, blank)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (30, 39, 200, 209)


def test_large_photos_are_reduced_and_the_map_still_fits():
    photo = grey_photo(3000, 1500)
    matrix = crop_matrix(3000, 1500)
    picture = overlay.overlay(photo, hot(32, 32), scale=Scale(0, 1, False), matrix=matrix, max_size=600)
    blank = overlay.overlay(photo, 0 * hot(0, 0), scale=Scale(0, 1, False), matrix=matrix, max_size=600)
    assert picture.size == (600, 300)
    rows, columns = changed(picture, blank)
    x, y = (matrix @ [32, 32, 1] + 0.5) * 0.2
    assert (columns.mean() + 0.5, rows.mean() + 0.5) == pytest.approx((x, y), abs=0.6)


def test_placed_is_opaque_inside_and_faded_outside():
    matrix = crop_matrix(400, 300)
    values = np.random.default_rng(0).random((INPUT, INPUT))
    scale = Scale(0.0, 1.0, False)
    photo = np.random.default_rng(1).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    picture = np.asarray(overlay.placed(photo, values, scale=scale, matrix=matrix))
    warped, inside = overlay.warp(values, matrix, (400, 300))
    assert (picture[inside] == colour.paint(warped, scale)[inside]).all()
    assert (np.ptp(picture[~inside].astype(int), axis=1) == 0).all()


def test_holes_are_hatched_on_the_photo_and_do_not_spread():
    values = np.ones((10, 10))
    values[5, 5] = np.nan
    warped, _ = overlay.warp(values, overlay.spread((10, 10), (100, 100)), (100, 100))
    hole = np.isnan(warped)
    assert hole[50:60, 50:60].all()
    assert hole.sum() == 100


def test_heatmap_image_sizes_and_squares():
    values = np.array([[0.0, 1.0], [2.0, 3.0]])
    scale = Scale(0.0, 3.0, False)
    assert overlay.heatmap_image(values, scale).size == (2, 2)
    sharp = np.asarray(overlay.heatmap_image(values, scale, (40, 20), pixelated=True))
    assert (sharp[:10, :20] == colour.paint(values, scale)[0, 0]).all()
    assert len(np.unique(sharp.reshape(-1, 3), axis=0)) == 4
    smooth = np.asarray(overlay.heatmap_image(values, scale, (40, 20)))
    assert len(np.unique(smooth.reshape(-1, 3), axis=0)) > 20
    assert overlay.heatmap_image(np.ones((50, 50)), scale, (7, 9)).size == (7, 9)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA", "CMYK", "1"])
def test_photos_of_every_mode(mode):
    picture = overlay.overlay(Image.new("RGB", (300, 200), "red").convert(mode), np.ones((5, 5)))
    assert (picture.mode, picture.size) == ("RGB", (300, 200))


def test_transparency_turns_white():
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert overlay.as_image(clear).getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize(
    "call",
    [
        lambda: overlay.overlay(np.zeros((4, 4, 3)), np.ones((2, 2))),
        lambda: overlay.overlay(np.zeros((4, 4, 5), np.uint8), np.ones((2, 2))),
        lambda: overlay.overlay(np.zeros((0, 4, 3), np.uint8), np.ones((2, 2))),
        lambda: overlay.overlay(np.zeros((4, 4, 3), np.uint8), np.ones((2, 2, 2))),
        lambda: overlay.overlay(np.zeros((4, 4, 3), np.uint8), np.ones((0, 2))),
        lambda: overlay.overlay(np.zeros((4, 4, 3), np.uint8), np.ones((2, 2)), matrix=np.eye(3)),
        lambda: overlay.overlay(np.zeros((4, 4, 3), np.uint8), np.ones((2, 2)), matrix=np.zeros((2, 3))),
        lambda: overlay.overlay(np.zeros((4, 4, 3), np.uint8), np.ones((2, 2)), opacity=2),
        lambda: overlay.heatmap_image(np.ones((2, 2)), Scale(0, 1, False), (0, 5)),
    ],
)
def test_bad_input_gets_a_sentence(call):
    with pytest.raises(UsageError, match=r"\.$"):
        call()

"""The geometry value: centres, boxes and interpolation at the true centres."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from convoscope.engine.fields.geometry import Axis, Geometry


def axis(input: int, cells: int, size: int, stride: int, first: int) -> Axis:
    low = first + stride * np.arange(cells)
    high = low + size - 1
    seen = (high >= 0) & (low < input)
    return Axis.from_fields(
        input, low, high, np.where(seen, low.clip(0), 0), np.where(seen, high.clip(None, input - 1), -1)
    )


def test_a_regular_axis_knows_size_stride_and_offset() -> None:
    a = axis(input=8, cells=4, size=3, stride=2, first=-1)
    assert (a.size, a.stride, a.offset) == (3, 2.0, 0.0)
    assert a.centres.tolist() == [0, 2, 4, 6]


def test_a_reach_wider_than_the_field_leaves_the_place_but_no_size() -> None:
    a = axis(8, 4, 3, 2, -1)
    gated = Axis.from_fields(8, a.low, a.high, np.zeros(4, np.int64), np.full(4, 7))
    assert gated.size is None
    assert (gated.stride, gated.offset) == (2.0, 0.0)


def test_irregular_centres_have_no_stride() -> None:
    low = np.array([0, 0, 4, 4, 9])
    a = Axis.from_fields(12, low, low + 2, low, low + 2)
    assert a.stride is None
    assert a.offset is None
    assert a.size == 3
    geometry = Geometry(a, axis(12, 3, 4, 4, 0))
    assert not geometry.regular
    assert geometry.to_dict() == {"size": [3, 4], "stride": [None, 4.0], "offset": [None, 1.5]}


def test_boxes_are_half_open_and_clipped() -> None:
    g = Geometry(axis(20, 5, 7, 4, -2), axis(12, 3, 5, 4, -2))
    assert g.box(0, 0) == (0, 0, 3, 5)
    assert g.box(0, 0, clip=False) == (-2, -2, 3, 5)
    assert g.box(4, 2) == (6, 14, 11, 20)
    assert g.centre(4, 2) == (8.0, 17.0)
    outside = Geometry(axis(20, 5, 7, 4, -30), axis(12, 3, 5, 4, -2))
    x0, y0, x1, y1 = outside.box(0, 0)
    assert (x0, x1) == (0, 3)
    assert y0 == y1


def test_resample_is_exact_at_the_centres_linear_between_and_constant_beyond() -> None:
    g = Geometry(axis(16, 4, 1, 4, 2), axis(16, 4, 1, 4, 2))  # centres 2, 6, 10, 14
    grid = torch.randn(2, 3, 4, 4)
    out = g.resample(grid, (16, 16))
    assert out.shape == (2, 3, 16, 16)
    assert torch.allclose(out[..., 2::4, 2::4], grid, atol=1e-6)
    assert torch.allclose(out[..., 4, 2::4], (grid[..., 0, :] + grid[..., 1, :]) / 2, atol=1e-6)
    assert torch.allclose(out[..., :2, :], out[..., 2:3, :].expand(2, 3, 2, 16), atol=1e-6)
    assert torch.allclose(out[..., 15], out[..., 14], atol=1e-6)


def test_resample_equals_the_plain_resize_where_cells_are_equal_shares() -> None:
    shares = Geometry(axis(24, 6, 4, 4, 0), axis(20, 5, 4, 4, 0))  # centres 1.5, 5.5, ...
    grid = torch.randn(2, 6, 5)
    for size in ((24, 20), (48, 60)):
        assert torch.allclose(shares.resample(grid, size), Geometry.plain(grid, size), atol=1e-5)


def test_resample_on_a_canvas_of_another_size() -> None:
    g = Geometry(axis(8, 4, 1, 2, 0), axis(8, 4, 1, 2, 0))  # centres 0, 2, 4, 6
    ramp = torch.arange(0.0, 8, 2).expand(4, 4)  # the value is the column's own coordinate
    out = g.resample(ramp, (16, 16))
    truth = ((torch.arange(16) + 0.5) / 2 - 0.5).clamp(0, 6)
    assert torch.allclose(out[3], truth, atol=1e-6)


def test_cells_that_share_a_centre_share_its_weight() -> None:
    low = np.array([1, 1, 5, 5])
    a = Axis.from_fields(8, low, low + 2, low, low + 2)
    assert np.allclose(a.weights(8).sum(1), 1)
    assert a.weights(8)[2].tolist() == [0.5, 0.5, 0, 0]


def test_a_single_cell_is_constant_and_a_flipped_axis_is_drawn_where_it_looks() -> None:
    one = Geometry(axis(8, 1, 8, 8, 0), axis(8, 1, 8, 8, 0))
    assert torch.equal(one.resample(torch.tensor([[3.0]]), (8, 8)), torch.full((8, 8), 3.0))
    low = np.arange(7, -1, -1)
    flipped = Axis.from_fields(8, low, low, low, low)
    assert flipped.stride == -1.0
    assert np.array_equal(flipped.weights(8), np.eye(8)[::-1])


def test_resample_refuses_a_grid_of_another_layer() -> None:
    g = Geometry(axis(8, 4, 1, 2, 0), axis(8, 4, 1, 2, 0))
    with pytest.raises(ValueError, match="cells"):
        g.resample(torch.zeros(3, 3), (8, 8))


def test_fields_that_wrap_around_the_border_are_put_where_the_regular_ones_say() -> None:
    from convoscope.engine.fields.placing import _unwrapped

    low, high = np.array([0, 1, 3, 5, 0]), np.array([9, 3, 5, 7, 9])
    straight_low, straight_high = _unwrapped(low, high)
    assert straight_low.tolist() == [-1, 1, 3, 5, 7]
    assert straight_high.tolist() == [1, 3, 5, 7, 9]
    # regular ones are what they are; of two halves the regular one says where
    for got, want in zip(_unwrapped(low[1:4], high[1:4]), (low[1:4], high[1:4]), strict=True):
        assert got.tolist() == want.tolist()
    half = np.array([0, 1, 3, 5, 0, 0]), np.array([19, 3, 5, 7, 19, 19])
    assert _unwrapped(*half)[0].tolist() == [-1, 1, 3, 5, 7, 9]
    # where most are irregular nobody knows, and nothing is moved
    few = np.array([0, 0, 0, 1, 3]), np.array([9, 8, 9, 3, 5])
    assert _unwrapped(*few)[0].tolist() == few[0].tolist()
    # a cell that sees less than the regular ones wraps around nothing
    narrow = np.array([1, 3, 5, 7]), np.array([3, 5, 7, 7])
    assert _unwrapped(*narrow)[1].tolist() == narrow[1].tolist()


@pytest.mark.parametrize("grid", [(3, 2), (2, 3), (5, 2), (2, 2)])
def test_tokens_of_a_grid_two_cells_wide_have_their_places(grid: tuple[int, int]) -> None:
    from torch import nn

    import convoscope as cs

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.inner, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 6), nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.inner(self.patches(x).flatten(2).transpose(1, 2)).mean(1))

    model = cs.wrap(Tokens().eval(), size=(4 * grid[0], 4 * grid[1]))
    geometry = model.watched().layers["inner"].geometry
    assert geometry is not None
    assert geometry.cells == grid
    assert geometry.to_dict()["stride"] == [4, 4]
    assert geometry.rows.centres.tolist() == [4 * k + 1.5 for k in range(grid[0])]

"""Where a cell's weight lies: its centre against the gradient's centre of mass, and a spot against its drawn map."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from convoscope.engine.fields.geometry import Axis, Geometry
from convoscope.engine.fields.watch import watch


class Decoder(nn.Module):
    """Two halvings, one upsampling, joined with what came before by a sum or side by side."""

    def __init__(self, up: nn.Module, *, add: bool) -> None:
        super().__init__()
        self.down, self.deep = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)
        self.up, self.add, self.out = up, add, nn.Conv2d(4 if add else 8, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        near = self.down(x)
        far = self.up(self.deep(near))
        return self.out(near + far if self.add else torch.cat((near, far), 1))


def behind(*steps: nn.Module) -> nn.Module:
    """What is to be tested between two convolutions."""
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), *steps)


def up(**how: object) -> nn.Module:
    return nn.Upsample(**how)  # type: ignore[arg-type]


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "bilinear": lambda: behind(up(scale_factor=2, mode="bilinear")),
    "bilinear, conv": lambda: behind(up(scale_factor=2, mode="bilinear"), nn.Conv2d(4, 3, 3, padding=1)),
    "bilinear to a size": lambda: behind(up(size=(53, 71), mode="bilinear"), nn.Conv2d(4, 3, 3)),
    "bilinear, the factor kept": lambda: behind(up(scale_factor=1.7, mode="bilinear")),
    "bilinear corners": lambda: behind(up(scale_factor=3, mode="bilinear", align_corners=True)),
    "bilinear, smaller": lambda: behind(up(scale_factor=0.6, mode="bilinear"), nn.Conv2d(4, 3, 3)),
    "bicubic": lambda: behind(up(scale_factor=2, mode="bicubic")),
    "bicubic corners": lambda: behind(up(size=(50, 70), mode="bicubic", align_corners=True)),
    "nearest": lambda: behind(up(scale_factor=2, mode="nearest")),
    "nearest, conv": lambda: behind(up(scale_factor=2, mode="nearest"), nn.Conv2d(4, 3, 3, padding=1)),
    "nearest-exact": lambda: behind(up(size=(55, 77), mode="nearest-exact")),
    "transposed 2": lambda: behind(nn.ConvTranspose2d(4, 3, 2, 2)),
    "transposed 3": lambda: behind(nn.ConvTranspose2d(4, 3, 3, 2, 1, 1), nn.Conv2d(3, 3, 3, padding=1)),
    "transposed 4": lambda: behind(nn.ConvTranspose2d(4, 3, 4, 2, 1)),
    "twice": lambda: behind(up(scale_factor=2, mode="bilinear"), nn.Conv2d(4, 4, 3), up(scale_factor=2, mode="nearest"),
                            nn.AvgPool2d(3, 1), up(scale_factor=1.5, mode="bicubic")),
    "average pooling": lambda: behind(nn.AvgPool2d(3, 2, 1, ceil_mode=True), nn.Conv2d(4, 3, (2, 4), dilation=2)),
    "adaptive pooling": lambda: behind(nn.AdaptiveAvgPool2d((7, 9)), nn.Conv2d(4, 3, 3, padding=1)),
    "pixel shuffle": lambda: behind(nn.PixelShuffle(2), nn.Conv2d(1, 3, 3, padding=1)),
    "decoder, sum": lambda: Decoder(up(scale_factor=2, mode="bilinear"), add=True),
    "decoder, joined": lambda: Decoder(up(scale_factor=2, mode="bilinear", align_corners=True), add=False),
    "decoder, nearest": lambda: Decoder(up(scale_factor=2, mode="nearest"), add=False),
}  # fmt: skip


def even(network: nn.Module) -> nn.Module:
    """The same weight for all that is learnt: the mean of all networks with positive weights."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
    return network.double().eval()


def inside(axis: Axis) -> list[int]:
    """Cells that no padding and no clamped border reach, but the outermost ones that the field's rim would touch."""
    margin = 4
    return [k for k in range(axis.length) if axis.low[k] >= margin and axis.high[k] < axis.input - margin]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_centre_is_the_gradients_centre_of_mass(name: str) -> None:
    network = even(NETWORKS[name]())
    x = torch.randn(1, 3, 56, 72, dtype=torch.float64, requires_grad=True)
    trace = watch(network, x.detach())
    output = network(x)
    geometry = list(trace.layers.values())[-1].geometry
    assert geometry is not None
    rows, cols = inside(geometry.rows), inside(geometry.cols)
    assert len(rows) > 1
    assert len(cols) > 1
    # torch's cubic interpolation (a = -0.75) moves a ramp by up to a twentieth of a cell of two pixels
    off = 0.1 if "bicubic" in name or name == "twice" else 2e-5
    step = max(1, len(rows) * len(cols) // 60)
    for row, col in [(r, c) for r in rows for c in cols][::step]:
        (gradient,) = torch.autograd.grad(output[0, :, row, col].sum(), x, retain_graph=True)
        mass = gradient[0].sum(0)
        share = mass / mass.sum()
        at = (float(share.sum(0) @ torch.arange(72.0).double()), float(share.sum(1) @ torch.arange(56.0).double()))
        assert geometry.centre(row, col) == pytest.approx(at, abs=off), (row, col)
        reached = gradient[0].abs().sum(0) > 1e-12
        y, x_ = np.nonzero(reached.numpy())
        x0, y0, x1, y1 = geometry.box(row, col)
        assert x0 <= x_.min()
        assert y0 <= y.min()
        assert x_.max() < x1
        assert y.max() < y1


def test_random_positive_weights_scatter_about_the_centre() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.Upsample(scale_factor=2, mode="bilinear"),
                            nn.Conv2d(32, 32, 3, padding=1, bias=False)).double().eval()  # fmt: skip
    for parameter in network.parameters():
        nn.init.uniform_(parameter, 0, 1)
    x = torch.randn(1, 3, 40, 40, dtype=torch.float64, requires_grad=True)
    geometry = watch(network, x.detach()).layers["2"].geometry
    assert geometry is not None
    output = network(x)
    for row in (16, 17, 18, 19):
        (gradient,) = torch.autograd.grad(output[0, :, row, 20].sum(), x, retain_graph=True)
        mass = gradient[0].sum((0, 2))
        centre = float(mass @ torch.arange(40.0).double() / mass.sum())
        assert geometry.rows.centres[row] == pytest.approx(centre, abs=0.1)  # the middle of the hull is off by 0.5


@pytest.mark.parametrize(
    "how",
    [
        {"mode": "bilinear"},
        {"mode": "bilinear", "align_corners": True},
        {"mode": "bicubic"},
        {"mode": "nearest"},
        {"mode": "nearest-exact"},
    ],
    ids=lambda how: "-".join(map(str, how.values())),
)
def test_a_spot_is_drawn_where_it_is_behind_an_upsampling(how: dict[str, object]) -> None:
    shrink = nn.AvgPool2d(4)
    network = nn.Sequential(shrink, nn.Upsample(scale_factor=4, **how), nn.Identity()).double().eval()  # type: ignore[arg-type]
    geometry = watch(network, torch.randn(1, 1, 64, 96, dtype=torch.float64)).layers["2"].geometry
    assert isinstance(geometry, Geometry)
    for row, col in ((3, 5), (8, 12), (11, 20)):
        x = torch.zeros(1, 1, 64, 96, dtype=torch.float64)
        x[0, 0, 4 * row : 4 * row + 4, 4 * col : 4 * col + 4] = 1.0
        drawn = geometry.resample(network(x)[0, 0], (64, 96)).double()
        share = drawn / drawn.sum()
        at = (float(share.sum(1) @ torch.arange(64.0).double()), float(share.sum(0) @ torch.arange(96.0).double()))
        assert at == pytest.approx((4 * row + 1.5, 4 * col + 1.5), abs=0.05)

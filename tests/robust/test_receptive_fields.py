"""The proof of the geometry, in float64: nothing outside a cell's field changes it, and the rim does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convoscope.engine.fields.trace import Layer, NetworkTrace
from convoscope.engine.fields.watch import watch
from convoscope.engine.passes.naming import observe


class Nasty(nn.Module):
    """A U-Net with everything that upsets book-keeping."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, (5, 3), stride=(2, 1), padding=(1, 2), dilation=(1, 2))
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.down = nn.Conv2d(8, 16, 4, stride=2, padding=0, groups=2)
        self.mix = nn.Conv2d(16, 16, 3, padding=2, dilation=2, padding_mode="reflect")
        self.up = nn.ConvTranspose2d(16, 8, 3, stride=2, padding=1, output_padding=1)
        self.fuse = nn.Conv2d(16, 8, 3, padding=1)
        self.out = nn.Conv2d(32, 8, 2, padding="same")
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        a = self.relu(self.stem(F.pad(x, (3, 0, 0, 2))))
        b = self.pool(a)
        c = self.relu(self.down(F.pad(b, (1, 2, 0, 1), mode="replicate")))
        c = c.view(c.shape[0], 2, 8, *c.shape[2:]).transpose(1, 2).reshape_as(c)  # channel shuffle
        d = self.mix(c)
        d += c
        u = self.up(d)[..., : b.shape[2], : b.shape[3]]
        u = F.pad(u, (0, b.shape[3] - u.shape[3], 0, b.shape[2] - u.shape[2]))
        e = self.relu(self.fuse(torch.cat((b, u), 1)))
        shifted = torch.zeros_like(e)
        shifted[:, :4, 1:] = e[:, :4, :-1]  # writes into views
        shifted[:, 4:, :, 2:].copy_(e[:, 4:, :, :-2])
        shifted[:, 2:6] += e[:, 2:6]
        f = F.interpolate(shifted, size=a.shape[2:], mode="bilinear", align_corners=False)
        g = F.interpolate(e, size=a.shape[2:], mode="nearest")
        f = torch.stack((f, g), 2).flatten(1, 2)
        f = torch.cat((f, torch.roll(a, 3, 1), a.flip(1)), 1)
        return self.out(f).clamp(min=0).permute(0, 2, 3, 1)


class Windows(nn.Module):
    """Windows mixed by a matrix product each, once as they are and once shifted; then space to depth."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.mix = nn.Linear(16, 16)
        self.last = nn.Conv2d(32, 8, 1)
        self.act = nn.GELU()
        self.out = nn.Identity()

    def windows(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        y = x.reshape(b, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 1, 3, 5).reshape(-1, c, 16)
        return self.mix(y).reshape(b, h // 4, w // 4, c, 4, 4).permute(0, 3, 1, 4, 2, 5).reshape(b, c, h, w)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = self.act(x + self.windows(x))
        x = self.last(F.pixel_unshuffle(x, 2))
        return self.out(self.act(x.roll((1, -2), (2, 3))).roll((-1, 2), (2, 3)))


def resnet(**kwargs: Any) -> nn.Module:
    from torchvision.models.resnet import BasicBlock, ResNet

    return ResNet(BasicBlock, [1, 1, 1, 1], **kwargs)


def tv(name: str, **kwargs: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import torchvision

        return torchvision.models.get_model(name, weights=None, **kwargs)

    return build


def tm(name: str, **kwargs: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        return pytest.importorskip("timm").create_model(name, pretrained=False, **kwargs)

    return build


# network, height and width of its input, layers to look at ("" is the last grid)
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, int], list[str]]] = {
    "nasty": (Nasty, (61, 47), ["pool", "mix", "up", "fuse", "cat#2", "out"]),
    "windows": (Windows, (64, 96), ["embed", "act", "last", "out"]),
    "resnet": (resnet, (160, 96), ["maxpool", "layer1", "layer2.0.add", "layer3"]),
    "squeezenet": (tv("squeezenet1_0"), (191, 96), ["features.5.cat", ""]),
    "googlenet": (tv("googlenet", aux_logits=True, init_weights=False), (97, 128), ["inception3a"]),
    "inception": (tv("inception_v3", aux_logits=True, init_weights=False), (139, 111), ["Mixed_5c"]),
    "densenet": (tv("densenet121"), (96, 64), ["features.denseblock1.denselayer2.cat", "features.conv0"]),
    "mobilenet": (tv("mobilenet_v2"), (128, 96), ["features.4", "features.5.add"]),
    "shufflenet": (tv("shufflenet_v2_x0_5"), (150, 64), ["stage2.1", "stage2"]),
    "regnet": (tv("regnet_x_400mf"), (96, 70), ["trunk_output.block2"]),
    "convnext": (tv("convnext_tiny"), (96, 64), ["features.1.0", "features.2"]),
    "vgg": (tv("vgg11"), (96, 128), ["features.12", ""]),
    "hrnet": (tm("hrnet_w18_small"), (96, 64), ["stage2.0.fuse_layers.1.0"]),
    "tf-padding": (tm("tf_efficientnet_lite0"), (75, 64), ["blocks.1", "blocks.2.1"]),
    "dla": (tm("dla34"), (96, 64), ["level2", "level3.tree1"]),
    "blurpool": (tm("resnetblur18"), (96, 64), ["maxpool", "layer1"]),
    "xception": (tm("xception41"), (96, 75), ["blocks.0"]),
    "res2net": (tm("res2net50_26w_4s"), (96, 64), ["layer1.0"]),
}


def prepared(build: Callable[[], nn.Module], size: tuple[int, int]) -> tuple[nn.Module, NetworkTrace]:
    torch.manual_seed(0)
    network = build().double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # some start their residual branches at zero
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return network, watch(network, torch.randn(1, 3, *size, dtype=torch.float64))


def output_of(network: nn.Module, name: str, x: Tensor, change: dict[str, Any] | None = None) -> Tensor:
    kept: dict[str, Tensor] = {}
    change = change or {}

    def visit(this: str, output: Tensor) -> Any:
        if this in change:
            return change[this]
        if this == name:
            kept[name] = output.clone()
        return None

    with observe(network, visit, only={name, *change}):
        network(x)
    return kept[name]


def cells_of(layer: Layer) -> list[tuple[int, int]]:
    height, width = layer.geometry.cells  # type: ignore[union-attr]
    return sorted({(0, 0), (height // 2, width // 3), (height - 1, width - 1)})


def cell_of(layer: Layer, grid: Tensor, row: int, col: int) -> Tensor:
    return grid[:, row, col] if layer.channels_last else grid[:, :, row, col]


def touched(network: nn.Module, layer: Layer, size: tuple[int, int], bounds: np.ndarray) -> np.ndarray:
    """For each cell, the box of the pixels with any gradient: [cells, 4] as top, bottom, left, right.

    Several pictures, because a maximum or a ReLU lets through only part of what can change it; it stops
    once the boxes are as large as ``bounds``.
    """
    boxes = np.tile(np.array([10**6, -1, 10**6, -1]), (len(cells_of(layer)), 1))
    for seed in range(8):
        x = torch.randn(1, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        x.requires_grad_()
        grid = output_of(network, layer.name, x)
        for k, (row, col) in enumerate(cells_of(layer)):
            cell = cell_of(layer, grid, row, col)
            (gradient,) = torch.autograd.grad(cell, x, torch.randn_like(cell), retain_graph=True)
            rows, cols = np.nonzero(gradient[0].abs().sum(0).numpy())
            if len(rows):
                low, high = (rows.min(), cols.min()), (rows.max(), cols.max())
                boxes[k, ::2] = np.minimum(boxes[k, ::2], low)
                boxes[k, 1::2] = np.maximum(boxes[k, 1::2], high)
        if np.array_equal(boxes, bounds):
            break
    return boxes


@pytest.mark.parametrize("case", CASES)
def test_no_pixel_outside_the_field_changes_a_cell_and_the_rim_does(case: str) -> None:
    build, size, names = CASES[case]
    network, watched = prepared(build, size)
    assert not watched.doubts
    for name in names:
        layer = watched.layers[name or watched.last_grid or ""]
        assert layer.geometry is not None, layer.why_no_geometry
        rows, cols = layer.geometry.rows, layer.geometry.cols
        bounds = np.array(
            [
                (rows.reach_low[r], rows.reach_high[r], cols.reach_low[c], cols.reach_high[c])
                for r, c in cells_of(layer)
            ]
        )
        boxes = touched(network, layer, size, bounds)
        assert boxes.tolist() == bounds.tolist(), layer.name
        if rows.size is not None:  # then the local field, clipped, is the whole truth
            for k, (r, c) in enumerate(cells_of(layer)):
                top, bottom, left, right = boxes[k]
                assert layer.geometry.box(r, c) == (left, top, right + 1, bottom + 1)


@pytest.mark.parametrize(
    ("build", "gates", "name"),
    [
        (tv("efficientnet_b0"), "scale_activation", "features.3"),
        (tv("regnet_y_400mf"), "scale_activation", "trunk_output.block2"),
        (tv("mobilenet_v3_small"), "scale_activation", "features.4"),
        (tm("seresnet18"), "gate", "layer2"),
    ],
)
def test_behind_a_gate_the_extent_is_the_picture_and_the_place_is_that_without_the_gate(
    build: Callable[[], nn.Module], gates: str, name: str
) -> None:
    size = (128, 96)
    network, watched = prepared(build, size)
    layer = watched.layers[name]
    assert layer.geometry is not None
    assert layer.geometry.to_dict()["size"] is None
    assert layer.geometry.regular
    rows = layer.geometry.rows
    assert (rows.reach_low.max(), rows.reach_high.min()) == (0, size[0] - 1)
    x = torch.randn(1, 3, *size, dtype=torch.float64, requires_grad=True)
    grid = output_of(network, name, x)
    open_gates = {
        n: torch.full(entry.shape, 0.5, dtype=torch.float64)
        for n, entry in watched.layers.items()
        if n.endswith(gates)
    }
    assert open_gates
    without = output_of(network, name, x, open_gates)
    for row, col in cells_of(layer):
        for output, whole in ((grid, True), (without, False)):
            (gradient,) = torch.autograd.grad(output[:, :, row, col].sum(), x, retain_graph=True)
            r, c = np.nonzero(gradient[0].abs().sum(0).numpy())
            box = (c.min(), r.min(), c.max() + 1, r.max() + 1)
            assert box == ((0, 0, size[1], size[0]) if whole else layer.geometry.box(row, col))


def test_a_convolution_is_what_the_formula_says() -> None:
    for kernel, stride, padding, dilation in [
        (3, 1, 1, 1),
        (7, 2, 3, 1),
        (4, 2, 0, 1),
        (3, 2, 2, 2),
        (1, 3, 0, 1),
    ]:
        network = nn.Sequential(nn.Conv2d(1, 2, kernel, stride, padding, dilation))
        geometry = watch(network, torch.randn(1, 1, 31, 40)).layers["0"].geometry
        assert geometry is not None
        extent = dilation * (kernel - 1) + 1
        centre = (extent - 1) / 2 - padding
        assert geometry.to_dict() == {"size": [extent] * 2, "stride": [stride] * 2, "offset": [centre] * 2}


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_padding_leaves_the_place_of_border_cells(mode: str) -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 5, padding=2, padding_mode=mode), nn.Conv2d(3, 3, 3, 2, 1))
    layer = watch(network, torch.randn(1, 2, 16, 22)).layers["1"]
    assert layer.geometry is not None
    assert layer.geometry.cols.centres.tolist() == [2 * i for i in range(11)]
    assert layer.geometry.rows.size == (None if mode == "circular" else 7)
    assert int(layer.geometry.rows.reach_high[0]) == (15 if mode == "circular" else 3)


def test_what_was_rolled_has_no_order_until_it_is_rolled_back() -> None:
    torch.manual_seed(0)
    watched = watch(Windows(), torch.randn(1, 3, 64, 96))
    assert watched.layers["act#2"].geometry is None
    assert watched.layers["act#2"].why_no_geometry == "its cells are not in the picture's order"
    assert watched.layers["out"].geometry is not None


def test_cells_of_a_resnet_lie_at_multiples_of_their_stride() -> None:
    _, watched = prepared(resnet, (96, 64))
    for name, stride in (("conv1", 2), ("layer1", 4), ("layer2", 8), ("layer3", 16), ("layer4", 32)):
        geometry = watched.layers[name].geometry
        assert geometry is not None
        assert geometry.rows.centres.tolist() == [stride * i for i in range(96 // stride)]
        assert geometry.cols.centres.tolist() == [stride * i for i in range(64 // stride)]

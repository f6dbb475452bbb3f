"""Incremental occlusion: each part against plain arithmetic, the whole against running every masked picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from masking import FILL, close, masked
from torch import Tensor, nn
from torch.nn import functional as F

from convoscope.engine.passes.needs import Perturbed
from convoscope.engine.passes.runner import Runner
from convoscope.engine.recompute.incremental import (
    Boxes,
    Incremental,
    NotIncremental,
    dense_outputs,
    export,
    grid,
    layers,
    winograd,
)
from convoscope.engine.recompute.incremental.fast import low_precision
from convoscope.engine.recompute.incremental.layers import AvgPool, Conv, Window
from convoscope.engine.recompute.incremental.tiles import Axis
from convoscope.engine.recompute.incremental.windows import FreeMasks
from convoscope.engine.recompute.perturb import perturbed_scores, varied_scores
from convoscope.errors import UsageError


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class Small(nn.Module):
    """Strides, a residual, a concatenation, batch norm before and after, pooling, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 5, stride=2, padding=2)
        self.norm = nn.BatchNorm2d(8)
        self.b = nn.Conv2d(8, 8, 3, padding=1)
        self.after = nn.BatchNorm2d(16)
        self.c = nn.Conv2d(16, 12, 3, stride=2, padding=1, bias=False)
        self.head = nn.Linear(12, 5)
        for norm in (self.norm, self.after):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.a(x)), inplace=True)
        x = F.max_pool2d(x, 3, 2, 1)
        y = x + self.b(x)
        y = F.relu(self.after(torch.cat([x, y], 1)))
        return self.head(self.c(y).relu().mean((2, 3)))


@pytest.fixture
def network() -> nn.Module:
    return Small().eval()


@pytest.fixture
def picture() -> Tensor:
    return torch.randn(1, 3, 64, 50)


def test_equals_running_every_masked_picture(network: nn.Module, picture: Tensor) -> None:
    boxes = grid(64, 50, 12, 7)
    engine = Incremental(network, picture)
    ours = engine.outputs(boxes, FILL)
    with torch.no_grad():
        truth, base = network(masked(picture, boxes, FILL)), network(picture)
    assert ours.shape == (len(boxes), 5)
    change = (truth - base).abs().amax(1)
    assert (change > 1e-4).all()
    assert close(ours, truth)
    assert ((ours - truth).abs().amax(1) <= 1e-2 * change).all()
    assert 0 < engine.saved < 1
    assert not ours.is_inference()


def test_the_products_are_counted(picture: Tensor) -> None:
    """One 3x3 convolution without padding: 8x8 changed pixels make 10x10 changed cells of 62x48."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()).eval()
    engine = Incremental(network, picture)
    middle = Boxes(*(np.array([value]) for value in (20, 28, 20, 28)))
    estimate = engine.estimate(middle)
    assert estimate.dense_products == 62 * 48 * 3 * 9 * 4
    assert estimate.products == 10 * 10 * 3 * 9 * 4
    corner = engine.estimate(Boxes(*(np.array([value]) for value in (0, 8, 0, 8))))
    assert corner.products == 8 * 8 * 3 * 9 * 4


def test_free_masks_soft_masks_and_masks_of_nothing(network: nn.Module, picture: Tensor) -> None:
    masks = torch.zeros(6, 64, 50)
    masks[0, 5:9, 40:50] = 1
    masks[1, ::9, ::7] = 1
    masks[2, 20:40, 10:30] = torch.rand(20, 20)
    masks[3] = 1
    masks[4, 63, 49] = 0.5
    fill = torch.randn(3, 64, 50)
    with torch.no_grad():
        truth = network(picture * (1 - masks[:, None]) + fill * masks[:, None])
        base = network(picture)
    engine = Incremental(network, picture)
    ours = engine.outputs(masks, fill)
    assert close(ours, truth)
    assert torch.allclose(ours[5], base[0], atol=1e-5)
    assert close(engine.outputs(masks.bool(), fill)[:2], truth[:2])
    assert close(dense_outputs(network, picture, masks, fill, batch=4), truth)


def test_boxes_and_masks_are_the_same(network: nn.Module, picture: Tensor) -> None:
    boxes = grid(64, 50, 20, 13)
    masks = torch.zeros(len(boxes), 64, 50, dtype=torch.bool)
    for i in range(len(boxes)):
        masks[i, boxes.top[i] : boxes.bottom[i], boxes.left[i] : boxes.right[i]] = True
    engine = Incremental(network, picture)
    assert torch.equal(engine.outputs(boxes, FILL), engine.outputs(masks, FILL))
    assert np.array_equal(np.stack(FreeMasks(masks).bounds()), np.stack(boxes.bounds()))


def test_the_network_is_left_as_it_was(network: nn.Module, picture: Tensor) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.random.get_rng_state()
    Incremental(network, picture).outputs(grid(64, 50, 12, 12), FILL)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_cached_graph_follows_new_weights(network: nn.Module, picture: Tensor) -> None:
    graph = export(network, picture)
    boxes = grid(64, 50, 16, 16)
    Incremental(network, picture, graph=graph)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5)
    network.head = nn.Linear(12, 5)
    with torch.no_grad():
        truth = network(masked(picture, boxes, FILL))
    assert close(Incremental(network, picture, graph=graph).outputs(boxes, FILL), truth)


class Parts(nn.Module):
    """A dictionary of a map, a pair of tensors and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> dict[str, object]:
        x = self.conv(x)
        return {"map": x.sigmoid(), "pair": (self.head(x.mean((2, 3))), x.amax((2, 3))), "two": 2}


def test_any_output_structure(picture: Tensor) -> None:
    network = Parts().eval()
    boxes = grid(64, 50, 30, 15)
    ours = Incremental(network, picture).outputs(boxes, FILL)
    with torch.no_grad():
        truth = network(masked(picture, boxes, FILL))
    assert close(ours["map"], truth["map"])
    assert close(ours["pair"][0], truth["pair"][0])
    assert close(ours["pair"][1], truth["pair"][1])
    assert ours["two"] == 2


def test_pieces_come_as_they_are_ready(network: nn.Module, picture: Tensor) -> None:
    boxes = grid(64, 50, 8, 3)
    engine = Incremental(network, picture, memory=1 << 20)
    whole = engine.outputs(boxes, FILL)
    seen = []
    for which, (scores,) in engine.stream(boxes, FILL):
        assert torch.allclose(scores, whole[which], atol=1e-5)
        seen += which.tolist()
    assert sorted(seen) == list(range(len(boxes)))
    calls: list[tuple[int, int]] = []
    engine.outputs(boxes, FILL, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (len(boxes), len(boxes))


def test_little_memory_gives_small_batches_and_the_same_numbers(network: nn.Module, picture: Tensor) -> None:
    boxes = grid(64, 50, 12, 5)
    roomy, tight = Incremental(network, picture), Incremental(network, picture, memory=300_000)
    assert close(tight.outputs(boxes, FILL), roomy.outputs(boxes, FILL))
    assert tight.bound < roomy.bound


def test_no_masks_at_all(network: nn.Module, picture: Tensor) -> None:
    assert Incremental(network, picture).outputs(torch.zeros(0, 64, 50), FILL).shape == (0, 5)


def test_a_network_of_one_size_refuses_another(network: nn.Module, picture: Tensor) -> None:
    graph = export(network, picture)
    with pytest.raises(UsageError, match="exported for"):
        Incremental(network, picture[:, :, :40], graph=graph)
    with pytest.raises(UsageError, match=r"\[1, C, H, W\]"):
        Incremental(network, picture.repeat(2, 1, 1, 1), graph=graph)
    outside, engine = (
        Boxes(*(np.array([value]) for value in (60, 70, 0, 10))),
        Incremental(network, picture, graph=graph),
    )
    with pytest.raises(UsageError, match="inside the picture"):
        engine.outputs(outside, FILL)
    with pytest.raises(UsageError, match="does not fit"):
        grid(64, 50, 51, 4)


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if x.sum() > 0 else -x.mean((2, 3))


class Fixed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean() if x.shape[0] else x


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x + torch.rand_like(x)).mean((2, 3))


STATISTICS = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.Flatten())


@pytest.mark.parametrize("strange", [Branches(), Fixed(), Noisy(), STATISTICS])
def test_what_cannot_be_trusted_is_refused_with_a_reason(strange: nn.Module, picture: Tensor) -> None:
    with pytest.raises(NotIncremental) as told:
        Incremental(strange.eval(), picture)
    assert len(str(told.value)) > 20


def test_double_precision_is_exact(network: nn.Module, picture: Tensor) -> None:
    """In float64 nothing hides behind rounding."""
    network, picture, boxes = network.double(), picture.double(), grid(64, 50, 9, 4)
    with torch.no_grad():
        truth = network(masked(picture, boxes, FILL.double()))
    assert (Incremental(network, picture).outputs(boxes, FILL.double()) - truth).abs().max() < 1e-12


# -- parts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(6, 6), (9, 14), (16, 7), (5, 30)])
def test_winograd_is_a_convolution(height: int, width: int) -> None:
    x = torch.randn(3, 10, height, width).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(7, 10, 3, 3), torch.randn(7)
    truth = F.conv2d(x.double(), weight.double(), bias.double())
    ours = winograd.convolve(x, winograd.transform_weights(weight), bias)
    assert ours.shape == truth.shape
    assert (ours - truth).abs().max() < 1e-5 * truth.abs().max()


@pytest.mark.parametrize("tiles", [False, True])
def test_winograd_is_chosen_by_channels_size_and_processor(tiles: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_has_tiles", lambda: tiles)

    def wins(channels: int, size: int) -> bool:
        conv = Conv.of(torch.zeros(channels, channels, 3, 3), None, 1, 1, 1, 1)
        return conv._wins(torch.empty(32, channels, size, size), 2, 2)

    # at 24 pixels the blocks fit, at 14 a quarter of their work is wasted
    chosen = {(channels, size) for channels in (32, 64, 128, 256) for size in (24, 14) if wins(channels, size)}
    everywhere = {(128, 24), (256, 24), (256, 14)}
    assert chosen == everywhere | (set() if tiles else {(64, 24), (64, 14), (128, 14)})


@pytest.mark.parametrize("tiles", [False, True])
def test_winograd_runs_inside_a_network(picture: Tensor, tiles: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide enough for the Winograd form to be chosen."""
    monkeypatch.setattr(layers, "_has_tiles", lambda: tiles)
    network = nn.Sequential(
        nn.Conv2d(3, 128, 3, padding=1), nn.ReLU(), nn.Conv2d(128, 128, 3, padding=1), nn.Flatten(2)
    ).eval()
    boxes = grid(64, 50, 18, 8)
    engine = Incremental(network, picture)
    ours = engine.outputs(boxes, FILL)
    assert any("winograd" in getattr(node.target, "_prepared", ()) for node in engine.program.nodes)
    with torch.no_grad():
        assert close(ours, network(masked(picture, boxes, FILL)))


@pytest.mark.parametrize(
    ("kernel", "stride", "pad", "dilation"), [(3, 1, 1, 1), (5, 2, 2, 1), (1, 3, 0, 1), (3, 2, 0, 2), (2, 2, 1, 3)]
)
def test_the_cells_that_a_window_changes(kernel: int, stride: int, pad: int, dilation: int) -> None:
    """Against a convolution of ones."""
    size = 23
    conv = nn.Conv1d(1, 1, kernel, stride, pad, dilation, bias=False)
    nn.init.ones_(conv.weight)
    lows, highs = np.array([0, 4, 11, 22]), np.array([3, 6, 12, 23])
    out = conv(torch.zeros(1, 1, size)).shape[2]
    window = Window((kernel, kernel), (stride, stride), (dilation, dilation), (pad, pad, pad, pad))
    axis = Axis.cover(size, lows, highs).through(window, 0, out)
    for i, (low, high) in enumerate(zip(lows, highs, strict=True)):
        x = torch.zeros(1, 1, size)
        x[..., low:high] = 1
        changed = np.flatnonzero(conv(x)[0, 0].detach().numpy())
        held = set(range(axis.origin[i], axis.origin[i] + axis.length))
        assert set(changed) <= held <= set(range(out))
        if len(changed) and dilation < 3:  # beyond, the kernel's gaps may skip the interval's ends
            assert (axis.low[i], axis.high[i]) == (changed[0], changed[-1] + 1)


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("count", [False, True])
@pytest.mark.parametrize("divisor", [None, 7])
def test_average_pooling_at_the_border(ceil: bool, count: bool, divisor: int | None) -> None:
    network = nn.Sequential(nn.AvgPool2d(3, 2, 1, ceil, count, divisor), nn.Flatten()).eval()
    picture = torch.randn(1, 2, 14, 17)
    boxes = grid(14, 17, 4, 2)
    truth = network(masked(picture, boxes, torch.zeros(2, 1, 1)))
    assert close(Incremental(network, picture).outputs(boxes, torch.zeros(2, 1, 1)), truth)
    pool = AvgPool.of(3, 2, 1, ceil, count, divisor)
    assert (pool.correction(14, 17, picture) is None) == (count and not ceil and divisor is None)


# -- approximate -------------------------------------------------------------------------------------------


def test_fast_computes_less_and_stays_near(network: nn.Module, picture: Tensor) -> None:
    boxes = grid(64, 50, 12, 5)
    exact = Incremental(network, picture)
    fast = Incremental(network, picture, graph=exact.graph, fast=0.5)
    truth, ours = exact.outputs(boxes, FILL), fast.outputs(boxes, FILL)
    assert fast.saved > exact.saved
    assert not torch.equal(truth, ours)
    assert torch.corrcoef(torch.stack([truth[:, 0], ours[:, 0]]))[0, 1] > 0.9
    uncut = Incremental(network, picture, graph=exact.graph, fast=1.0)
    assert (uncut.outputs(boxes, FILL) - truth).abs().max() < 0.02 * truth.abs().max()
    assert uncut.program.low == low_precision(torch.device("cpu"))


def test_each_window_can_have_a_fill_of_its_own(network: nn.Module, picture: Tensor) -> None:
    masks = torch.zeros(5, 64, 50)
    for i in range(5):
        masks[i, 8 * i : 8 * i + 12, 5 * i : 5 * i + 20] = 1.0 if i % 2 else 0.4
    fills = torch.randn(5, 3, 64, 50)
    with torch.no_grad():
        truth = network(torch.lerp(picture.expand_as(fills), fills, masks[:, None]))
    ours = Incremental(network, picture).outputs(masks, fills)
    assert close(ours, truth)
    assert not close(Incremental(network, picture).outputs(masks, fills.flip(0)), truth)
    with pytest.raises(UsageError, match="fills of windows"):
        Incremental(network, picture).outputs(masks, fills[:, :, :10])


@pytest.mark.parametrize("channels", [(96, 32), (512, 1024)])
def test_pointwise_weights_are_kept_in_few_orders_whatever_the_sizes(channels: tuple[int, int]) -> None:
    inputs, outputs = channels
    conv = Conv.of(torch.randn(outputs, inputs, 1, 1), torch.randn(outputs), 1, 0, 1, 1)
    for height in range(4, 14, 3):
        for width in range(5, 15, 2):
            x = torch.randn(2, inputs, height, width)
            truth = F.conv2d(x, conv.weight, conv.bias)
            assert close(conv(x), truth)
    assert len(conv._prepared) <= 4
    assert conv.prepared_bytes() <= 4 * 4 * conv.weight.numel()


class _Target:
    """The first class, as the engine asks for it."""

    layers: tuple[str, ...] = ()

    def score(self, output: Tensor, layers: object, rows: Tensor) -> Tensor:
        return output[:, 0]

    def probability(self, output: Tensor, layers: object, rows: Tensor) -> Tensor:
        return output.softmax(1)[:, 0]


@pytest.mark.parametrize("probability", [False, True])
def test_a_prepared_network_scores_scattered_masks_as_the_network_does(
    network: nn.Module, picture: Tensor, probability: bool
) -> None:
    pictures = torch.cat([picture, picture.flip(3)])
    masks = (torch.rand(70, 64, 50) < 0.5).float()
    fill = torch.zeros_like(pictures)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    plain, dense = perturbed_scores(Runner(network), pictures, _Target(), Perturbed(masks, fill, probability))
    runner = Runner(network)
    need = Perturbed(masks, fill, probability, many_more_follow=True)
    ours, report = perturbed_scores(runner, pictures, _Target(), need)
    assert (report.engine, report.windows) == (dense.engine, dense.windows) == ("dense", 70)
    assert report.saved == 0
    assert report.estimate > 0
    assert runner.prepared is not None  # the preparation was taken, and not the network itself
    assert close(ours, plain)
    assert float((ours - ours[:, :1]).abs().max()) > 1e-4  # the masks changed something
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    varied = torch.randn(9, 3, 64, 50)
    theirs = varied_scores(Runner(network), picture, varied, _Target(), probability)
    assert close(varied_scores(runner, picture, varied, _Target(), probability, many_more_follow=True), theirs)


def test_a_preparation_is_not_kept_when_the_picture_or_the_weights_are_others(
    network: nn.Module, picture: Tensor
) -> None:
    masks = (torch.rand(10, 64, 50) < 0.5).float()
    for change in (False, True):
        if change:
            with torch.no_grad():
                network.a.weight.mul_(1.5)  # type: ignore[union-attr, operator]
        for one in (picture, 2 * picture):
            need = Perturbed(masks, torch.zeros_like(one))
            plain, _ = perturbed_scores(Runner(network), one, _Target(), need)
            runner = Runner(network)
            ours, _ = perturbed_scores(
                runner, one, _Target(), Perturbed(masks, torch.zeros_like(one), many_more_follow=True)
            )
            assert close(ours, plain)


def test_a_network_that_cannot_be_prepared_is_run_as_it_is(picture: Tensor) -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3)) if float(x.detach().sum()) > 0 else x.amax((2, 3))

    masks = (torch.rand(10, 64, 50) < 0.5).float()
    fill = torch.zeros_like(picture)
    plain, _ = perturbed_scores(Runner(Branching()), picture, _Target(), Perturbed(masks, fill))
    ours, report = perturbed_scores(
        Runner(Branching()), picture, _Target(), Perturbed(masks, fill, many_more_follow=True)
    )
    assert torch.equal(ours, plain)
    assert report.engine == "dense"


def test_a_prepared_network_tells_how_far_it_is_after_every_batch(network: nn.Module, picture: Tensor) -> None:
    masks = (torch.rand(70, 64, 50) < 0.5).float()
    told: list[int] = []

    def stop(done: int) -> None:
        told.append(done)
        if done >= 40:
            raise KeyboardInterrupt

    need = Perturbed(masks, torch.zeros_like(picture), progress=stop, many_more_follow=True)
    scores, _ = perturbed_scores(Runner(network, batch_size=20), picture, _Target(), need)
    assert told == [20, 40]
    assert bool(scores[0, :40].isfinite().all())
    assert bool(scores[0, 40:].isnan().all())

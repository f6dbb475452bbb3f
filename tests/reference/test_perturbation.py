"""Perturbation methods on networks whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_gradients import Modules, pictures, tensor
from torch import Tensor, nn

import convoscope as cs
from convoscope.methods.occlusion import windows
from convoscope.methods.random_masks import weighted_ridge
from convoscope.pictures.picture import Picture, Preprocessing

PLAIN = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3)


class Additive(nn.Module):
    """The score is a weighted sum of the pixels: every patch's own share is known."""

    def __init__(self, side: int = 16) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.weight = nn.Parameter(torch.randn(2, 3, side, side, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bchw,kchw->bk", x, self.weight)


def additive_picture(side: int = 16) -> tuple[Picture, Tensor]:
    """Coloured blocks: noise has no superpixels."""
    blocks = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(9))
    x = blocks.repeat_interleave(side // 4, 1).repeat_interleave(side // 4, 2)
    return Picture.from_input(x, PLAIN), x


@pytest.mark.parametrize("window", [4, 8, 16])
def test_occlusion_of_an_additive_model_is_each_patchs_share(window: int) -> None:
    net = Additive()
    picture, x = additive_picture()
    one = cs.explain(cs.wrap(net), picture, cs.Occlusion(window, window), target=1)["occlusion"]
    share = (net.weight[1] * x).detach().sum(0)
    for y0, x0, y1, x1 in windows(16, 16, window, window):
        patch = one.values[y0:y1, x0:x1]
        assert patch.sum() == pytest.approx(float(share[y0:y1, x0:x1].sum()), rel=1e-4, abs=1e-4)
        assert np.ptp(patch) < 1e-6


def test_occlusion_equals_a_loop_written_out() -> None:
    net, pics = Modules().eval(), pictures(2)
    x = tensor(pics)
    ours = cs.explain(cs.wrap(net, batch_size=5), pics, cs.Occlusion(5, 3, fill="0.5"), target=2)
    boxes = windows(16, 16, 5, 3)
    assert boxes[-1] == (11, 11, 16, 16)
    with torch.no_grad():
        base = net(x)[:, 2]
        total, count = torch.zeros(2, 16, 16), torch.zeros(16, 16)
        for y0, x0, y1, x1 in boxes:
            covered = x.clone()
            covered[:, :, y0:y1, x0:x1] = 0.5
            total[:, y0:y1, x0:x1] += ((base - net(covered)[:, 2]) / ((y1 - y0) * (x1 - x0)))[:, None, None]
            count[y0:y1, x0:x1] += 1
    assert count.min() >= 1, "every pixel is covered"
    truth = (total / count).numpy()
    for row, one in enumerate(ours):
        np.testing.assert_allclose(one["occlusion"].values, truth[row], atol=1e-5 * np.abs(truth[row]).max())


def test_incremental_and_dense_occlusion_are_equal() -> None:
    net, pics = Modules().eval(), pictures(1, 32)
    model = cs.wrap(net)
    fast = cs.explain(model, pics[0], cs.Occlusion(6, 3), target=0)["occlusion"]
    dense = cs.explain(model, pics[0], cs.Occlusion(6, 3, engine="dense"), target=0)["occlusion"]
    assert fast.facts["engine"] == "incremental"
    assert dense.facts["engine"] == "dense"
    assert fast.facts["saved"] > 0.3
    np.testing.assert_allclose(fast.values, dense.values, atol=1e-4 * np.abs(dense.values).max())


def test_a_network_that_cannot_be_exported_is_dense_with_a_doubt() -> None:
    class Branching(Modules):
        def forward(self, x: Tensor) -> Tensor:
            if float(x.sum()) > 1e9:
                x = x * 0
            return super().forward(x)

    one = cs.explain(cs.wrap(Branching().eval()), pictures(1)[0], cs.Occlusion(4, 4), target=1)["occlusion"]
    assert one.facts["engine"] == "dense"
    assert any("densely" in doubt for doubt in one.doubts)
    truth = cs.explain(cs.wrap(Modules().eval()), pictures(1)[0], cs.Occlusion(4, 4), target=1)["occlusion"]
    np.testing.assert_allclose(one.values, truth.values, atol=1e-5 * np.abs(truth.values).max())


def test_occlusion_of_a_unit_and_of_a_probability() -> None:
    model = cs.wrap(Modules().eval())
    unit = cs.explain(model, pictures(1)[0], cs.Occlusion(8, 8), target="relu2:3")["occlusion"]
    assert np.abs(unit.values).max() > 0
    chance = cs.explain(model, pictures(1)[0], cs.Occlusion(8, 8, score="probability"), target=1)["occlusion"]
    assert chance.unit == "probability drop per pixel"
    with pytest.raises(cs.TargetError, match="probability"):
        cs.explain(model, pictures(1)[0], cs.Occlusion(8, 8, score="probability"), target="relu2:3")


def test_several_sizes_average_over_all_windows_that_hold_a_pixel() -> None:
    net = Additive()
    picture, _ = additive_picture()
    model = cs.wrap(net)
    maps = [cs.explain(model, picture, cs.Occlusion(side, side), target=0)["occlusion"].values for side in (4, 8)]
    both = cs.explain(model, picture, cs.Occlusion(8, 8, sizes="4,8"), target=0)["occlusion"]
    np.testing.assert_allclose(both.values, (maps[0] + maps[1]) / 2, atol=1e-5)
    assert both.facts["windows"] == 16 + 4


def test_superpixels_hold_their_own_shares() -> None:
    net = Additive(32)
    picture, x = additive_picture(32)
    one = cs.explain(cs.wrap(net), picture, cs.Occlusion(regions="superpixels", segments=12), target=0)["occlusion"]
    assert one.values.sum() == pytest.approx(float((net.weight[0] * x).detach().sum()), rel=1e-3)


def test_rise_with_masks_that_cover_nothing_is_constant() -> None:
    model = cs.wrap(Modules().eval())
    one = cs.explain(model, pictures(1)[0], cs.RISE(20, share=1.0, score="logit"), target=1)
    assert np.ptp(one["rise"].values) < 1e-6 * abs(one.score) + 1e-7
    assert one["rise"].values.mean() == pytest.approx(one.score, rel=1e-4)
    assert any("constant" in doubt for doubt in one["rise"].doubts)


def test_rise_equals_the_weighted_sum_of_its_own_masks() -> None:
    net, pics = Modules().eval(), pictures(2)
    method = cs.RISE(300, cells=4, score="logit")
    ours = cs.explain(cs.wrap(net, seed=3), pics, method, target=1)
    x = tensor(pics)
    total, n = torch.zeros(2, 16, 16, dtype=torch.float64), 0
    with torch.no_grad():
        for kept in method.masks((16, 16), 3):
            for mask in kept:
                total += net(x * mask)[:, 1].double()[:, None, None] * mask.double()
                n += 1
    assert n == 300
    for row in range(2):
        truth = (total[row] / n / 0.5).numpy()
        np.testing.assert_allclose(ours[row]["rise"].values, truth, atol=1e-4 * np.abs(truth).max())


def test_rise_masks_keep_the_asked_for_share() -> None:
    kept = torch.cat(list(cs.RISE(500, share=0.3).masks((40, 30), 0)))
    assert kept.shape == (500, 40, 30)
    assert 0 <= kept.min() <= kept.max() <= 1
    assert float(kept.mean()) == pytest.approx(0.3, abs=0.02)
    assert torch.equal(kept, torch.cat(list(cs.RISE(500, share=0.3).masks((40, 30), 0)))), "the same per seed"


def test_rise_ranks_the_pixels_of_an_additive_model() -> None:
    side = 28
    net = Additive(side)
    with torch.no_grad():
        net.weight.zero_()
        net.weight[1, :, 8:16, 8:16] = 1
    picture = Picture.from_input(torch.ones(3, side, side), PLAIN)
    values = cs.explain(cs.wrap(net), picture, cs.RISE(800, score="logit"), target=1)["rise"].values
    inside = np.zeros((side, side), bool)
    inside[8:16, 8:16] = True
    assert values[inside].min() > np.median(values[~inside])


def test_weighted_ridge_recovers_a_linear_function() -> None:
    rng = np.random.default_rng(0)
    shown = (rng.random((400, 8)) < 0.5).astype(float)
    truth = rng.normal(size=8)
    coefficients, fit = weighted_ridge(shown, shown @ truth + 3, 0.25, 1e-9)
    np.testing.assert_allclose(coefficients, truth, atol=1e-6)
    assert fit == pytest.approx(1)


def test_lime_on_an_additive_model_gives_each_superpixels_share() -> None:
    net = Additive(32)
    picture, x = additive_picture(32)
    method = cs.LIME(samples=600, segments=10, alpha=1e-6, fill="mean", score="logit")
    one = cs.explain(cs.wrap(net), picture, method, target=1)["lime"]
    share = (net.weight[1] * x).detach().sum(0).numpy()
    for value in np.unique(one.values):
        piece = one.values == value
        assert value == pytest.approx(share[piece].sum(), rel=1e-2, abs=1e-2)
    assert one.facts["r_squared"] > 0.999
    assert one.facts["superpixels"] >= 5


def test_extremal_perturbation_finds_the_patch_that_matters() -> None:
    side = 48
    net = Additive(side)
    with torch.no_grad():
        net.weight.zero_()
        net.weight[1, :, 24:40, 8:24] = 0.05
        # an even picture would be its own blur: a checkerboard loses its score when blurred
        board = ((torch.arange(side)[:, None] + torch.arange(side)) % 2 * 2.0 - 1).repeat(3, 1, 1)
        net.weight *= board
    method = cs.ExtremalPerturbation(area=0.12, rounds=400, grid=4, sigma=3)
    one = cs.explain(cs.wrap(net), Picture.from_input(board, PLAIN), method, target=1)["extremal-perturbation"]
    inside = np.zeros((side, side), bool)
    inside[24:40, 8:24] = True
    assert one.values[inside].mean() > 0.7
    # a smooth mask cannot end at the patch's edge: well away from it, it is closed
    inside[18:46, 2:30] = True
    assert one.values[~inside].mean() < 0.1
    assert one.facts["area"] == pytest.approx(0.12, abs=0.06)


def test_stopping_keeps_what_is_done_and_marks_the_rest() -> None:
    calls = 0

    class Stopping(Modules):
        def forward(self, x: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            if calls > 6:
                raise KeyboardInterrupt
            return super().forward(x)

    model = cs.wrap(Stopping().eval(), batch_size=2)
    model.watched((3, 16, 16))
    calls = 0
    one = cs.explain(model, pictures(1)[0], cs.Occlusion(4, 4, engine="dense"), target=1)["occlusion"]
    unknown = np.isnan(one.values)
    assert unknown.any()
    assert not unknown.all()
    assert any("not known" in doubt for doubt in one.doubts)


class Branches(nn.Module):
    """A residual sum past the layer, a concatenation, a flatten: what the rest of a network can hold."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.inner = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1), nn.ReLU())
        self.last = nn.Conv2d(24, 8, 3, stride=2)
        self.fc = nn.Linear(8 * 7 * 7, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        y = self.inner(x)
        z = self.last(torch.cat([x + y, x * 0.5], 1)).relu()
        return self.fc(z.view(z.shape[0], -1))


@pytest.mark.parametrize("layer", ["inner", "last", "stem"])
def test_replacing_a_layer_computes_only_what_lies_behind_it_and_agrees(
    layer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convoscope.engine.recompute import perturb

    model, pics = cs.wrap(Branches().eval()), pictures(2)
    quick = cs.explain(model, pics, ["ablation-cam"], target=1, layer=layer)
    monkeypatch.setattr(perturb, "_from_the_layer_on", lambda *args: None)
    whole = cs.explain(model, pics, ["ablation-cam"], target=1, layer=layer)
    for a, b in zip(quick, whole, strict=True):
        scale = np.abs(b["ablation-cam"].grid).max()
        assert scale > 0
        np.testing.assert_allclose(a["ablation-cam"].grid, b["ablation-cam"].grid, atol=1e-4 * scale)


def test_fast_occlusion_states_its_agreement_with_the_exact_map() -> None:
    model, picture = cs.wrap(Modules().eval()), pictures(1, 48)[0]
    exact = cs.explain(model, picture, cs.Occlusion(8, 4), target=0)["occlusion"]
    fast = cs.explain(model, picture, cs.Occlusion(8, 4, fast=0.3), target=0)["occlusion"]
    assert exact.facts["agreement"] is None
    assert 0.5 < fast.facts["agreement"] <= 1
    assert fast.facts["saved"] >= exact.facts["saved"]


def test_a_network_that_needs_contiguous_values_is_perturbed_too():
    """Masked pictures go through in channels_last, which ``view`` refuses: then they go through as they are."""

    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            # wide enough for channels_last to pay
            self.conv, self.wide = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3)
            self.head = nn.Linear(16 * 12 * 12, 3)

        def forward(self, x):
            if x.shape[0] > 1:
                seen.append(x.is_contiguous(memory_format=torch.channels_last))
            elif x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
                refused.append(len(x))
            return self.head(self.wide(self.conv(x).relu()).relu().view(len(x), -1))

    seen: list[bool] = []
    refused: list[int] = []
    net = Views().eval()
    picture = (torch.rand(16, 16, 3, generator=torch.Generator().manual_seed(1)) * 255).byte().numpy()
    model = cs.wrap(net, size=16, batch_size=8)
    rise = cs.RISE(samples=24, cells=4)
    values = cs.explain(model, picture, rise, target=1)["rise"].values
    assert np.isfinite(values).all()
    assert values.std() > 0
    assert refused == [1]  # the picture itself was tried so once
    assert seen
    assert not any(seen)

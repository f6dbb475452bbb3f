"""More lines that could be wrong and nobody noticed: places of cells, observers, volumes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from test_wrong_lines_3 import Own, Together, Volumes, noise, toy, wrapped
from torch import Tensor, nn

import convoscope as cs
from convoscope.engine.passes.agreement import same
from convoscope.engine.passes.naming import observe
from convoscope.engine.passes.runner import Runner
from convoscope.errors import UsageError
from convoscope.methods import METHODS
from convoscope.methods.base import Maps
from convoscope.methods.fills import blurred
from convoscope.methods.gradients import IntegratedGradients, SmoothGrad
from convoscope.methods.occlusion import Occlusion
from convoscope.methods.random_masks import LIME, RISE
from convoscope.methods.score_cams import ScoreCAM

# engine


class Fails(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fails = nn.Conv2d(3, 4, 3), True

    def forward(self, x: Tensor) -> Tensor:
        found = self.conv(x).relu()
        if self.fails:
            raise ValueError("no")
        return found


def test_what_is_computed_after_a_forward_that_failed_is_no_layer() -> None:
    net, seen = Fails(), []
    with observe(net, lambda name, output: seen.append(name)):
        with pytest.raises(ValueError, match="no"):
            net(noise(1, 3, 8, 8))
        seen.clear()
        torch.relu(noise(1, 3, 8, 8))
        assert not seen
        net.fails = False
        net(noise(1, 3, 8, 8))
    assert seen == ["conv", "relu"]


@pytest.mark.parametrize("method", ["occlusion", "rise"])
def test_masks_are_refused_for_volumes(method: str) -> None:
    model = cs.wrap(Volumes().eval(), size=(16, 12))
    with pytest.raises(cs.ConvoscopeError, match="for single pictures, not for volumes"):
        cs.explain(model, noise(6, 16, 12, 1).numpy(), method, target=1)


def test_two_by_two_cells_with_channels_last_have_their_places() -> None:
    """Two cells a side are enough to tell rows from columns and both from channels."""
    found = wrapped(Own(lambda a: a.permute(0, 2, 3, 1).clone().permute(0, 3, 1, 2), 4), 8).watched().layers["conv"]
    assert found.geometry is not None
    assert found.geometry.cells == (2, 2)

    class Last(Own):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.after(self.conv(x).relu().permute(0, 2, 3, 1)).mean((1, 2)))

    last = wrapped(Last(nn.Identity(), 4), 8).watched().layers["after"]
    assert last.channels_last
    assert last.geometry is not None
    assert last.geometry.cells == (2, 2)
    assert last.geometry.rows.centres.tolist() == found.geometry.rows.centres.tolist()
    assert last.geometry.cols.centres.tolist() == found.geometry.cols.centres.tolist()


def test_a_cell_that_sees_nothing_but_padding_has_an_empty_field() -> None:
    net = Own(nn.Identity())
    net.conv = nn.Conv2d(3, 4, 3, 1, 3)
    found = wrapped(net, 8).watched().layers["conv"].geometry
    assert found is not None
    left, top, right, bottom = found.box(0, 0)
    assert (right - left, bottom - top) == (0, 0)
    assert found.box(1, 1) == (0, 0, 1, 1)


def test_a_runner_says_in_a_line_what_it_is() -> None:
    runner = Runner(nn.Identity())
    runner.memo["found"] = noise(3)
    assert "memo" not in repr(runner)
    assert "prepared" not in repr(runner)


def test_two_pictures_at_once_do_not_hide_what_one_alone_would_tell() -> None:
    """What is compared with a batch is the first picture alone, not the rows of the batch that came before."""
    runner = Runner(Together(0.5).eval())
    two = noise(2, 3, 2, 2)
    base = runner.record(two, gradients=False)
    assert runner.keep_apart(two, base)


def test_a_picture_without_rows_of_its_own_says_nothing() -> None:
    scores = {"scores": noise(1, 3)}
    assert same(scores, {"scores": scores["scores"].expand(2, 3)}, torch.float32, 2)
    for nothing in ({}, {"loss": torch.tensor(1.0)}):
        assert not same(nothing, nothing, torch.float32)
        assert not same(scores, nothing, torch.float32)
        assert not same(nothing, scores, torch.float32)


# methods

QUICK = [name for name, kind in METHODS.items() if not kind.about.slow]


@pytest.mark.parametrize("name", QUICK)
def test_pictures_of_one_batch_are_explained_as_each_alone(name: str) -> None:
    model = wrapped(Own(nn.Identity()))
    pictures = [toy(k) for k in range(3)]
    try:
        together = cs.explain(model, pictures, name, target=1)
    except cs.ConvoscopeError as refused:
        assert "attention" in str(refused)  # noqa: PT017 -- of a network without any
        return
    for picture, found in zip(pictures, together, strict=True):
        alone = cs.explain(model, picture, name, target=1)[name].values
        np.testing.assert_allclose(found[name].values, alone, atol=1e-4 * max(1e-6, np.abs(alone).max()))


@pytest.mark.parametrize(
    "method",
    [
        "smoothgrad",
        "integrated-gradients",
        "vargrad",
        SmoothGrad(samples=3, of="integrated-gradients"),
        SmoothGrad(samples=3, of="input-x-gradient"),
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [1, 3])
def test_forwards_get_as_many_pictures_as_the_batch_size_and_no_more(method: Any, size: int) -> None:
    seen = []

    class Counts(Own):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(len(x))
            return super().forward(x)

    model = wrapped(Counts(nn.Identity()), batch_size=size)
    model.watched()
    cs.explain(model, toy(), "saliency", target=1)  # what is found out of a network comes first
    seen.clear()
    cs.explain(model, toy(1), method, target=1)
    assert seen
    assert max(seen) == size


class Brightness(nn.Module):
    """Scores that are linear in the pixels."""

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3))
        return torch.stack([means.sum(1), -means.sum(1)], 1)


def test_where_the_local_model_fits_nothing_is_doubted() -> None:
    found = cs.explain(wrapped(Brightness(), 32), toy(), LIME(samples=200, segments=8, score="logit"), target=0)[
        "lime"
    ]
    assert not [doubt for doubt in found.doubts if "explains only" in doubt]


def test_integrated_gradients_may_begin_at_the_blurred_picture() -> None:
    model = wrapped(Brightness(), 32)
    found = cs.explain(model, toy(), IntegratedGradients(baseline="blur"), target=0)
    picture = model.prepare(toy()).tensor[None]
    difference = (picture - blurred(picture)).sum(1)[0] / picture[0, 0].numel()
    np.testing.assert_allclose(found["integrated-gradients"].values, difference.numpy(), atol=1e-6)


@pytest.mark.parametrize("window", ["0x8", "8x0", (0, 3)])
def test_a_side_of_zero_is_refused_whether_one_is_given_or_two(window: Any) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        Occlusion(window=window)


class TwoCells(Own):
    """A row of two cells, pooled."""

    def __init__(self, scale: float, bent: bool = False) -> None:
        super().__init__(nn.Identity(), 4)
        self.classes, self.scale, self.bent = nn.Conv2d(4, 3, 1), scale, bent
        with torch.no_grad():
            self.classes.weight.mul_(scale)
            self.classes.bias.mul_(scale)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.classes(self.after(self.conv(x).relu()))
        return (maps**2 / self.scale if self.bent else maps).mean((2, 3))


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_class_maps_are_found_whatever_the_scores_unit_and_are_no_others(scale: float) -> None:
    """A row of two cells is enough of a map; scores that are not its mean are not."""
    net = TwoCells(scale)
    model = wrapped(net, (4, 8))
    found = cs.explain(model, toy(), "cam", target=1)["cam"]
    assert found.grid.shape == (1, 2)
    score = float(net(model.prepare(toy()).tensor[None])[0, 1])
    assert float(found.grid.mean()) == pytest.approx(score, rel=1e-4)
    with pytest.raises(cs.ConvoscopeError, match="does not end in global average pooling"):
        cs.explain(wrapped(TwoCells(scale, bent=True), (4, 8)), toy(), "cam", target=1)


def test_only_a_score_near_zero_is_no_base_for_shares() -> None:
    class Set(Own):
        def __init__(self, to: float) -> None:
            super().__init__(nn.Identity())
            self.to = to

        def forward(self, x: Tensor) -> Tensor:
            scores = super().forward(x)
            return scores - scores.detach() + self.to

    for to in (0.0, 0.5, -0.5):
        found = cs.explain(wrapped(Set(to)), toy(), "ablation-cam", target=1)["ablation-cam"]
        assert any("nearly zero" in doubt for doubt in found.doubts) == (to == 0.0)


@pytest.mark.parametrize(("score", "hint"), [("probability", True), ("logit", False)])
@pytest.mark.parametrize("regions", ["squares", "superpixels"])
def test_where_covering_does_nothing_the_score_is_named_that_may_help(score: str, hint: bool, regions: str) -> None:
    class Sure(Own):
        def forward(self, x: Tensor) -> Tensor:
            return 0 * super().forward(x) + torch.tensor([0.0, 40.0, 0.0])

    with pytest.raises(cs.ConvoscopeError, match="there is no place to show") as refused:
        cs.explain(wrapped(Sure(nn.Identity())), toy(), Occlusion(score=score, regions=regions), target=1)
    assert ("score=logit may" in str(refused.value)) == hint


def test_which_methods_are_slow_is_known() -> None:
    slow = {name for name, kind in METHODS.items() if kind.about.slow}
    assert slow == {"ablation-cam", "extremal-perturbation", "lime", "occlusion", "rise", "score-cam"}


def test_maps_of_a_layer_have_its_cells_values_at_their_centres() -> None:
    """Strides of 2 with a margin of 1 look at pixels 0, 2, 4, ...: there the map is the grid, cell by cell."""
    found = cs.explain(wrapped(Own(nn.Identity())), toy(), "hirescam", target=1)["hirescam"]
    np.testing.assert_allclose(found.values[::2, ::2], found.grid, atol=1e-8)
    assert np.ptp(found.grid) > 1e-4
    assert not [doubt for doubt in found.doubts if "Geometry" in doubt]


def test_maps_of_a_layer_without_places_say_why_and_how_they_are_drawn() -> None:
    model = wrapped(Own(lambda a: torch.cat([a, torch.ones_like(a[:, :, :2])], 2)))
    found = cs.explain(model, toy(), "hirescam", layer="after", target=1)["hirescam"]
    assert any(
        "Geometry of after unknown (some of its cells have no place in the picture): drawn by" in doubt
        for doubt in found.doubts
    )
    grid = torch.from_numpy(found.grid)[None, None]
    plain = nn.functional.interpolate(grid, (16, 16), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(found.values, plain[0, 0].numpy(), atol=1e-6)


def test_score_cam_is_its_papers_formula() -> None:
    model = wrapped(Own(nn.Identity()))
    methods = {how: ScoreCAM(resize=how) for how in ("plain", "exact")}
    maps = {how: cs.explain(model, toy(), one, target=1)["score-cam"].grid for how, one in methods.items()}
    picture, net = model.prepare(toy()).tensor[None], model.module
    with torch.no_grad():
        a = net.conv(picture).relu()
        raised = nn.functional.interpolate(a, (16, 16), mode="bilinear", align_corners=False)[0]
        low, high = raised.amin((1, 2), keepdim=True), raised.amax((1, 2), keepdim=True)
        masks = torch.where(high > low, (raised - low) / (high - low), torch.zeros_like(raised))
        weights = net(picture * masks[:, None])[:, 1].softmax(0)
        expected = (weights[:, None, None] * a[0]).sum(0).relu().numpy()
    np.testing.assert_allclose(maps["plain"], expected, rtol=1e-4, atol=1e-6)
    assert np.abs(maps["exact"] - expected).max() > 1e-5
    np.testing.assert_array_equal(cs.explain(model, toy(), "score-cam", target=1)["score-cam"].grid, maps["plain"])


def test_what_a_pixel_without_a_part_has_in_rise_is_the_mean_score() -> None:
    class Sure(Own):
        def forward(self, x: Tensor) -> Tensor:
            return 0 * super().forward(x) + torch.tensor([0.0, 2.0, 0.0])

    found = cs.explain(wrapped(Sure(nn.Identity())), toy(), RISE(samples=20), target=1)["rise"]
    assert found.facts["expected"] == pytest.approx(np.e**2 / (np.e**2 + 2), rel=1e-5)


def test_maps_are_told_apart_by_what_they_are() -> None:
    one, other = (Maps(torch.zeros(1, 2, 2), True, "score") for _ in range(2))
    assert one != other
    assert len({one, other}) == 2


def test_a_class_whose_score_is_zero_does_not_hide_the_head() -> None:
    net = Own(nn.Identity())
    with torch.no_grad():
        net.head.weight.mul_(100)
        net.head.weight[0], net.head.bias[0] = 0, 0
    found = cs.explain(wrapped(net), toy(), "cam", target=1)["cam"]
    score = float(net(wrapped(net).prepare(toy()).tensor[None])[0, 1])
    assert found.grid.mean() + found.facts["bias"] == pytest.approx(score, rel=1e-4)


@pytest.mark.parametrize(("squared", "unit"), [(False, "score"), (True, "score²")])
def test_squares_have_the_unit_of_squares(squared: bool, unit: str) -> None:
    method = SmoothGrad(samples=2, of="input-x-gradient", squared=squared)
    found = cs.explain("toybox", toy(), method)["smoothgrad"]
    assert (found.unit, found.signed) == (unit, not squared)


# more of the engine


def test_a_sum_of_two_grids_is_a_layer_and_one_with_a_value_a_channel_is_none() -> None:
    grids = wrapped(Own(lambda a: a + 2 * a)).watched().layers
    values = wrapped(Own(lambda a: a + a.mean((2, 3), keepdim=True))).watched().layers
    assert "add" in grids
    assert "add" not in values


def test_a_layer_behind_a_cut_has_no_gradient_and_is_named() -> None:
    model = wrapped(Own(lambda a: a.detach()))
    with pytest.raises(cs.ConvoscopeError, match="'after' runs under no_grad or is cut off by detach"):
        cs.explain(model, toy(), "grad-cam", layer="after", target=1)
    found = cs.explain(model, toy(), "eigen-cam", layer="after", target=1)["eigen-cam"]
    assert np.isfinite(found.values).all()


def test_of_heads_side_by_side_none_is_before_the_other() -> None:
    """LRASPP's kind: two rows of class maps are added; what both look at is explained, not the first of them."""

    class TwoHeads(Own):
        def __init__(self) -> None:
            super().__init__(nn.Identity())
            self.low, self.high = nn.Conv2d(4, 3, 1), nn.Conv2d(4, 3, 1)

        def forward(self, x: Tensor) -> Any:
            cells = self.after(self.conv(x).relu())
            maps = self.low(cells) + self.high(cells)
            return {"out": nn.functional.interpolate(maps, x.shape[-2:], mode="bilinear")}

    found = cs.explain(wrapped(TwoHeads()), toy(), "layercam")["layercam"]
    assert found.layer in ("after", "relu")

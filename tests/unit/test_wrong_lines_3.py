"""Lines of engine and methods that could be wrong and nobody noticed: each held against its truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convoscope as cs
from convoscope.engine.passes.naming import observe
from convoscope.engine.passes.needs import INPUT, Activation, Gradient
from convoscope.engine.passes.planner import refusal
from convoscope.engine.passes.runner import Runner, forward_failed
from convoscope.errors import MethodRefused, UsageError
from convoscope.methods import METHODS
from convoscope.methods.base import About, Query
from convoscope.methods.cams import _first_component
from convoscope.methods.fills import blurred
from convoscope.methods.random_masks import superpixels
from convoscope.pictures.picture import Picture, Preprocessing
from convoscope.toybox import draw

PLAIN = Preprocessing(None, mean=(0.0,) * 3, std=(1.0,) * 3)


def toy(index: int = 3) -> np.ndarray[Any, Any]:
    return draw(index).image


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


class Own(nn.Module):
    """A convolution, something of a test's own, and a linear head on the mean over places."""

    def __init__(self, between: Callable[[Tensor], Tensor], stride: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.after, self.head = nn.Conv2d(3, 4, 3, stride, 1), nn.Identity(), nn.Linear(4, 3)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.after(self.between(self.conv(x).relu())).mean((2, 3)))


def wrapped(net: nn.Module, size: Any = 16, **more: Any) -> cs.Model:
    return cs.wrap(net.eval(), size=size, **more)


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """What a first map has to import is no test's own time."""
    cs.explain("toybox", toy(), "saliency")


@pytest.mark.parametrize("name", [name for name, kind in METHODS.items() if not kind.about.slow])
def test_a_method_s_map_has_the_sign_that_is_told_of_it(name: str) -> None:
    try:
        found = cs.explain("toybox", toy(), name)[name]
    except MethodRefused as refused:
        assert "attention" in str(refused)  # noqa: PT017 -- of a network without any
        return
    assert found.signed == METHODS[name].about.signed
    assert found.signed or np.nanmin(found.values) >= 0


# where cells look


def test_cells_of_which_some_have_no_place_have_no_geometry_and_say_why() -> None:
    model = wrapped(Own(lambda a: torch.cat([a, torch.ones_like(a[:, :, :2])], 2)))
    found = model.watched().layers["after"]
    assert found.geometry is None
    assert found.why_no_geometry == "some of its cells have no place in the picture"


def test_a_grid_that_was_turned_has_no_geometry_and_says_why() -> None:
    found = wrapped(Own(lambda a: a.transpose(2, 3))).watched().layers["after"]
    assert found.geometry is None
    assert found.why_no_geometry == "its cells are not arranged as a grid"


class Tokens(nn.Module):
    """Patches of 4 pixels behind so many tokens of another kind, as transformers have them."""

    def __init__(self, before: int) -> None:
        super().__init__()
        self.before = nn.Parameter(torch.zeros(1, before, 6))
        self.patches, self.inner, self.head = nn.Conv2d(3, 6, 4, 4), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.inner(torch.cat([self.before.expand(len(x), -1, -1), patches], 1)).mean(1))


@pytest.mark.parametrize("before", [0, 1, 3])
@pytest.mark.parametrize("grid", [(2, 3), (3, 2), (4, 4)])
def test_tokens_before_the_grid_are_counted(before: int, grid: tuple[int, int]) -> None:
    found = wrapped(Tokens(before), (4 * grid[0], 4 * grid[1])).watched().layers["inner"]
    assert found.prefix_tokens == before
    assert found.geometry is not None
    assert found.geometry.cells == grid
    assert found.geometry.cols.centres.tolist() == [4 * k + 1.5 for k in range(grid[1])]


@pytest.mark.parametrize("before", [0, 1, 3])
def test_one_row_of_tokens_is_no_grid(before: int) -> None:
    assert wrapped(Tokens(before), (4, 32)).watched().layers["inner"].geometry is None


# what is run, and what is said


def test_a_scale_that_is_learnt_is_no_layer_and_a_gate_is() -> None:
    scale = nn.Parameter(torch.full((1, 4, 1, 1), 2.0))
    for between, seen in ((lambda a: a * scale, False), (lambda a: a * a.mean((2, 3), keepdim=True), True)):
        names: list[str] = []
        net = Own(between)
        with observe(net, lambda name, _, names=names: names.append(name)):
            net(noise(1, 3, 8, 8))
        assert ("mul" in names) == seen


@dataclass(frozen=True)
class Asks(cs.Method):
    """Asks in two rounds, first for the layer alone, then for slopes too, at the picture and at twice the picture."""

    about: ClassVar[About] = About("asks", "Asks", "", "", "", True, "")

    def steps(self, query: Query) -> Any:
        here = query.layer("conv")
        first = yield Activation(here)
        again, slope = Activation(here), Gradient(here)
        got = yield again, slope
        assert torch.equal(got[again], first[Activation(here)])
        twice = 2 * query.inputs
        plain, guided, deconvnet = (Gradient(INPUT, rule, twice) for rule in ("plain", "guided", "deconvnet"))
        there = yield plain, guided, deconvnet
        kept.update(
            slope=got[slope], plain=there[plain], guided=there[guided], deconvnet=there[deconvnet], twice=twice
        )
        return query.pixels(there[plain], signed=True, unit="")


kept: dict[str, Tensor] = {}


def test_needs_of_later_rounds_and_of_several_rules_elsewhere_are_those_of_autograd() -> None:
    net = Own(nn.Identity())
    model = wrapped(net)
    x = noise(1, 3, 16, 16)
    cs.explain(model, Picture.from_input(x[0], model.preprocessing), Asks(), target=1)
    given = kept["twice"].clone().requires_grad_()
    layer = net.conv(given)
    score = net.head(layer.relu().mean((2, 3)))[0, 1]
    torch.testing.assert_close(kept["plain"], torch.autograd.grad(score, given, retain_graph=True)[0])
    weights = net.head.weight[1].view(1, 4, 1, 1) / 64
    for rule, passed in (("guided", (layer > 0) * weights.clamp(min=0)), ("deconvnet", weights.clamp(min=0))):
        truth = torch.autograd.grad(layer, given, passed.expand_as(layer).detach(), retain_graph=True)[0]
        torch.testing.assert_close(kept[rule], truth)
    once = net.conv(given / 2)
    torch.testing.assert_close(kept["slope"], ((once > 0) * weights).detach())


def test_a_long_error_is_cut_to_what_can_be_read() -> None:
    said = str(refusal(RuntimeError("x" * 500)))
    assert said.count("x") == 200
    assert isinstance(refusal(RuntimeError()), MethodRefused)


class Together(nn.Module):
    """Subtracts so much of the batch's mean: pictures of one batch influence each other."""

    def __init__(self, share: float, drawn: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.share, self.drawn, self.head = share, drawn, nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return self.head(flat - self.share * flat.mean(0)) + (torch.rand(3) if self.drawn else 0)


@pytest.mark.parametrize(("share", "drawn", "apart"), [(0.5, False, True), (0.0, False, False), (0.0, True, False)])
def test_pictures_that_influence_each_other_are_run_alone(share: float, drawn: bool, apart: bool) -> None:
    runner = Runner(Together(share, drawn).eval())
    assert runner.keep_apart(noise(2, 3, 2, 2)) == apart
    assert (runner.apart, runner.batch_size) == (apart, 1 if apart else 32)
    assert Runner(runner.network).keep_apart(noise(2, 3, 2, 2)) == apart  # what is known of a network stays known


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_influence_is_found_whatever_the_scores_unit(scale: float) -> None:
    class Scaled(Together):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * scale

    assert Runner(Scaled(0.5).eval()).keep_apart(noise(2, 3, 2, 2))
    assert not Runner(Scaled(0.0).eval()).keep_apart(noise(2, 3, 2, 2))


def test_a_score_that_is_a_constant_of_the_network_has_no_gradient() -> None:
    net = Own(nn.Identity())
    net.constant = nn.Parameter(torch.ones(1))
    with pytest.raises(MethodRefused, match="The score has no gradient"):
        cs.explain(wrapped(net), np.zeros((16, 16, 3), np.uint8), "saliency", target=lambda output: net.constant)


def test_cuts_of_the_graph_are_looked_for_where_there_is_a_graph() -> None:
    for between, cut in ((lambda a: a, False), (lambda a: a + a.detach(), True)):
        runner = Runner(Own(between).eval())
        runner.record(noise(1, 3, 8, 8), gradients=False)
        assert runner.cut is None
        runner.record(noise(1, 3, 8, 8))
        assert runner.cut is cut
        runner.record(noise(1, 3, 8, 8), gradients=False)
        assert runner.cut is cut


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (TypeError("forward() missing 1 required positional argument: 'depth'"), "more than one batch of pictures"),
        (TypeError("forward() got an unexpected keyword argument 'scale'"), "says how it is run"),
        (AttributeError("'Tensor' object has no attribute 'tensors'"), "says how it is run"),
        (TypeError("unsupported operand type(s) for +: 'int' and 'str'"), "Set --size"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (1x20 and 30x4)"), "Set --size"),
        (RuntimeError("cannot register a hook on a tensor that doesn't require gradient"), "handle.remove()"),
        (RuntimeError("Inference tensors cannot be saved for backward"), "inference_mode"),
        (RuntimeError("BackwardHookFunction is a view"), "full backward hook"),
        (RuntimeError("CUDA out of memory. Tried"), "smaller --batch-size"),
        (MemoryError(), "smaller --batch-size"),
        (ValueError("nobody is home"), "nobody is home"),
    ],
    ids=lambda one: str(one)[:20],
)
def test_what_a_network_that_does_not_run_is_told(error: Exception, advice: str) -> None:
    said = forward_failed("Net", (3, 8, 8), error, 2)
    assert advice in said
    others = ("more than one batch of", "says how it is run", "Set --size", "handle.remove()", "inference_mode",
              "full backward hook", "smaller --batch-size")  # fmt: skip
    assert not any(other in said for other in others if other not in advice and advice not in other)
    assert "3×8×8" in said


# methods


class Volumes(nn.Module):
    """A convolution over slices, rows and columns, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv3d(1, 4, 3, 2, 1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).relu().mean((2, 3, 4)))


def test_a_map_of_a_volume_lies_at_its_cells_and_between_slices_is_linear() -> None:
    net = Volumes().eval()
    slices = noise(6, 16, 12, 1)
    model = cs.wrap(net, size=(16, 12))
    found = cs.explain(model, slices.numpy(), "hirescam", layer="relu", target=1)["hirescam"]
    a = net.conv(slices.movedim(3, 0)[None]).relu()
    grid = (a * net.head.weight[1].view(1, 4, 1, 1, 1) / a[0, 0].numel()).sum(1).detach()
    geometry = model.watched((1, 6, 16, 12)).layers["relu"].geometry
    assert geometry is not None
    flat = geometry.resample(grid, (16, 12))
    truth = torch.nn.functional.interpolate(flat[None], (6, 16, 12), mode="trilinear")[0, 0]
    assert found.values.shape == (6, 16, 12)
    np.testing.assert_allclose(found.values, truth, atol=1e-6)


def test_a_method_without_steps_says_so() -> None:
    @dataclass(frozen=True)
    class Nothing(cs.Method):
        about: ClassVar[About] = About("nothing", "Nothing", "", "", "", True, "")

    with pytest.raises(MethodRefused, match="Nothing has no steps"):
        cs.explain("toybox", toy(), Nothing())


class Heats(Own):
    """A heat map a landmark."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("kc,bchw->bkhw", self.head.weight, self.after(self.conv(x).relu()))


def test_methods_that_cannot_tell_one_of_a_kind_say_so_and_the_others_do_not() -> None:
    found = cs.explain(
        wrapped(Heats(nn.Identity())), toy(), ["grad-cam", "grad-cam++", "xgrad-cam", "layercam", "hirescam"],
        target="landmark:1",
    )  # fmt: skip
    said = {name for name, one in found.items() if any("weighs a channel alike" in doubt for doubt in one.doubts)}
    assert said == {"grad-cam", "grad-cam++", "xgrad-cam"}


@pytest.mark.parametrize("shape", [(2, 9, 4), (2, 4, 9)])
def test_the_first_component_has_the_unit_of_what_it_is_made_of(shape: tuple[int, ...]) -> None:
    x = noise(*shape) - 0.5
    for scale in (1e-6, 1e4):
        one, other = _first_component(x) * scale, _first_component(x * scale)
        torch.testing.assert_close(other.abs(), one.abs(), rtol=1e-4, atol=1e-6 * scale)


def test_a_blur_reaches_three_sigmas_and_never_beyond_the_picture() -> None:
    point = torch.zeros(1, 1, 61, 61)
    point[..., 30, 30] = 1
    row = blurred(point, 4.0)[0, 0, 30]
    assert row[30 - 12 : 30 + 13].min() > 0
    assert not row[:18].any()
    assert not row[43:].any()
    for shape in ((2, 60), (60, 2)):
        strip = torch.zeros(1, 1, 2, 60)
        strip[:, :, 1] = 1  # two rows, of which one is lit: with one pixel around each, reflected
        side = float(torch.exp(torch.tensor(-0.5 / 3.0**2)))
        lit = 1 / (1 + 2 * side)
        found = blurred(strip if shape == (2, 60) else strip.transpose(2, 3))
        found = found if shape == (2, 60) else found.transpose(2, 3)
        torch.testing.assert_close(found[0, 0, :, 30], torch.tensor([1 - lit, lit]))


LIMITS: dict[tuple[str, str], tuple[float | None, float | None]] = {
    ("integrated-gradients", "nodes"): (1, 5000), ("smoothgrad", "samples"): (1, 5000),
    ("smoothgrad", "noise"): (0, 10), ("smoothgrad", "nodes"): (1, 5000), ("vargrad", "samples"): (2, 5000),
    ("vargrad", "noise"): (0, 10), ("grad-cam", "parts"): (0, None), ("cam", "parts"): (0, None),
    ("occlusion", "window"): (1, None), ("occlusion", "stride"): (1, None), ("occlusion", "segments"): (2, 2000),
    ("occlusion", "fast"): (0, 1), ("rise", "samples"): (1, 1_000_000), ("rise", "cells"): (1, 64),
    ("rise", "share"): (0.01, 1), ("lime", "samples"): (10, 1_000_000), ("lime", "segments"): (2, 2000),
    ("lime", "width"): (0.01, None), ("lime", "alpha"): (0, None), ("score-cam", "parts"): (0, None),
    ("ablation-cam", "parts"): (0, None),
}  # fmt: skip


@pytest.mark.parametrize(("method", "name"), LIMITS)
def test_settings_are_taken_up_to_their_limits_and_no_further(method: str, name: str) -> None:
    low, high = LIMITS[method, name]
    step = 1 if isinstance(getattr(METHODS[method](), name), int | None) else 1e-3
    for limit, away in ((low, -step), (high, step)):
        if limit is not None:
            assert getattr(METHODS[method](**{name: limit}), name) == limit
            with pytest.raises(UsageError, match=f"{method}.{name} must be"):
                METHODS[method](**{name: limit + away})


def test_what_is_not_set_is_as_published() -> None:
    """LIME's ridge and kernel are those of its authors' image explainer, SmoothGrad's noise that of the paper."""
    assert (cs.LIME().alpha, cs.LIME().width, cs.LIME().samples) == (1.0, 0.25, 1000)
    assert (cs.RISE().cells, cs.RISE().share) == (7, 0.5)
    assert (cs.SmoothGrad().noise, cs.SmoothGrad().squared) == (0.15, False)
    assert cs.IntegratedGradients().nodes == 50


class Squares(nn.Module):
    """Scores that are weighted sums of the squared input: integrated gradients from zero are w · x²."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(noise(2, 3 * 6 * 5) - 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x.square().flatten(1) @ self.weight.T


@pytest.mark.parametrize("batch", [1, 5, 64])
@pytest.mark.parametrize("squared", [False, True])
def test_smoothgrad_of_paths_is_the_mean_over_noisy_copies(squared: bool, batch: int) -> None:
    net = Squares()
    x = noise(3, 6, 5, seed=1)
    method = cs.SmoothGrad(samples=7, noise=0.3, squared=squared, of="integrated-gradients", nodes=3)
    model = wrapped(net, (6, 5), batch_size=batch)
    found = cs.explain(model, Picture.from_input(x, model.preprocessing), method, target=1)["smoothgrad"]
    drawn = [method._noise(SimpleNamespace(seed=model.seed, inputs=x[None]), k) for k in range(7)]
    assert abs(float(torch.stack(drawn).mean())) < 0.15
    assert float(torch.stack(drawn).std()) == pytest.approx(1, abs=0.1)
    spread = 0.3 * float(x.max() - x.min())
    each = [net.weight[1].view(3, 6, 5).detach() * (x + one * spread).square() for one in drawn]
    truth = torch.stack([one.square() if squared else one for one in each]).mean(0)
    np.testing.assert_allclose(found.raw, truth, rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(found.values, truth.sum(0) if not squared else truth.amax(0), rtol=2e-4, atol=1e-6)
    assert found.signed != squared


def test_occlusion_takes_rows_and_columns_for_its_stride_too() -> None:
    for given in ("3x2", (3, 2), [3, 2]):
        assert cs.Occlusion(window=(8, 6), stride=given).measures(40, 40) == ((8, 6), (3, 2))


@pytest.mark.parametrize(
    ("said", "meant"),
    [(word, True) for word in ("true", "1", "yes", "on", "True", "ON")]
    + [(word, False) for word in ("false", "0", "no", "off", "No")],
)
def test_yes_and_no_in_every_spelling(said: str, meant: bool) -> None:
    assert cs.SmoothGrad(squared=said).squared is meant


def test_one_picture_without_a_place_to_show_takes_no_other_along() -> None:
    flat, lit = np.zeros((16, 16, 3), np.uint8), toy()[:16, :16]
    net = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found = cs.explain(wrapped(net), [flat, lit], cs.Occlusion(window=4), target=0)
    assert not np.any(found[0]["occlusion"].values)
    assert np.ptp(found[1]["occlusion"].values) > 0
    with pytest.raises(MethodRefused, match="no place to show"):
        cs.explain(wrapped(net), [flat, flat], cs.Occlusion(window=4), target=0)


def regions(channels: int, told_apart_by: int, size: int = 48) -> tuple[Tensor, np.ndarray[Any, Any]]:
    """Wavy stripes that differ in one channel alone, and which stripe each pixel is of."""
    y, x = np.mgrid[:size, :size]
    stripe = (x + np.round(4 * np.sin(y / 5))) // 12 % 2
    picture = torch.full((channels, size, size), 0.5)
    picture[told_apart_by] = torch.from_numpy(0.45 + 0.1 * stripe).float()
    picture[:, :4, :4], picture[:, -4:, -4:] = 0, 1  # the stripes are a tenth of the range
    return picture, stripe


@pytest.mark.parametrize(("channels", "channel"), [(1, 0), (3, 0), (3, 1), (3, 2)])
def test_superpixels_follow_what_differs_in_any_channel(channels: int, channel: int) -> None:
    picture, stripe = regions(channels, channel)
    model = SimpleNamespace(preprocessing=Preprocessing(mean=(0.0,) * channels, std=(1.0,) * channels))
    labels, even = superpixels(SimpleNamespace(inputs=picture[None], model=model), 0, 36)
    assert not even
    assert 18 <= labels.max() + 1 <= 54
    pure = sum(max((stripe[labels == one] == kind).sum() for kind in (0, 1)) for one in range(labels.max() + 1))
    assert pure / stripe.size > 0.93


@pytest.mark.parametrize("size", [(24, 24), (12, 48), (48, 12)])
def test_a_picture_of_one_colour_or_of_noise_is_cut_into_squares(size: tuple[int, int]) -> None:
    model = SimpleNamespace(preprocessing=PLAIN)
    labels, even = superpixels(SimpleNamespace(inputs=noise(1, 3, *size), model=model), 0, 36)
    assert even
    assert 30 <= labels.max() + 1 <= 42
    rows, cols = np.nonzero(labels == 0)
    assert abs(int(rows.max()) - int(cols.max())) <= 1


def test_lime_asks_for_each_sample_once_and_tells_how_far_it_is() -> None:
    pictures = [regions(3, channel, 24)[0] for channel in (0, 1)]
    model = wrapped(Own(nn.Identity()), 24)
    heard: list[tuple[int, int]] = []
    found = cs.explain(
        model, [Picture.from_input(one, model.preprocessing) for one in pictures],
        cs.LIME(samples=300, segments=4, score="logit"), target=1,
        progress=lambda name, done, total: heard.append((done, total)),
    )  # fmt: skip
    assert not any("no finite score" in doubt for one in found for doubt in one["lime"].doubts)
    assert {total for _, total in heard} == {600}
    done = [one for one, _ in heard]
    assert done == sorted(done)
    assert done[-1] == 600
    assert set(done) >= {256, 300, 556}


@pytest.mark.parametrize("method", [cs.VarGrad(samples=5), cs.SmoothGrad(samples=5)])
def test_noise_is_a_share_of_each_picture_s_own_range(method: cs.Method) -> None:
    model = wrapped(Own(lambda a: a.square()))
    several = [Picture.from_input(scale * noise(3, 16, 16, seed=2), model.preprocessing) for scale in (1.0, 0.1)]
    together = cs.explain(model, several, method, target=1)
    for picture, found in zip(several, together, strict=True):
        alone = cs.explain(model, picture, method, target=1)
        name = method.about.name
        np.testing.assert_allclose(found[name].values, alone[name].values, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("method", [cs.VarGrad(samples=4), cs.SmoothGrad(samples=4)])
@pytest.mark.parametrize(("batch", "rows"), [(32, [2, 8]), (4, [2, 4, 4]), (6, [2, 6, 2])])
def test_noisy_copies_of_all_pictures_run_together_as_far_as_the_batch_allows(
    method: cs.Method, batch: int, rows: list[int]
) -> None:
    net = Own(nn.Identity())
    model, pictures = wrapped(net, batch_size=batch), [toy(1)[:16, :16], toy(2)[:16, :16]]
    cs.explain(model, pictures, method, target=1)  # what is looked for once a network has been found
    seen: list[int] = []
    net.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    cs.explain(model, pictures, method, target=1)
    assert seen == rows

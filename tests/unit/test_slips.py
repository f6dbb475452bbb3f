"""Small definitions that a slip would change in silence: each is held against what it must be by its own meaning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import convoscope as cs
from convoscope.engine.passes.needs import Scores
from convoscope.errors import TargetError
from convoscope.methods import METHODS
from convoscope.pictures.picture import Picture, Preprocessing
from convoscope.surveys.store.accumulators import BINS, Moments, State

SIDE = 16
PLAIN = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3)


class Weighted(nn.Module):
    """The score is a weighted sum of the pixels: the share of every piece is known."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bchw,kchw->bk", x, self.weight)


class Body(nn.Module):
    """Two convolutions with an activation of one's choice between, and a pooled head."""

    def __init__(self, act: Callable[[], nn.Module] = nn.ReLU, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.one, self.act1 = nn.Conv2d(3, 6, 3, padding=1), act()
        self.two, self.act2 = nn.Conv2d(6, 8, 3, padding=1), act()
        self.head = nn.Linear(8, 4)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        values = self.act2(self.two(self.act1(self.one(x * self.scale))))
        return self.head(values.mean((2, 3)))


def blocks(seed: int = 9) -> Tensor:
    """Coloured blocks: noise has no superpixels."""
    small = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return small.repeat_interleave(SIDE // 4, 1).repeat_interleave(SIDE // 4, 2)


def noise(seed: int) -> Tensor:
    return torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def shown(*values: Tensor) -> list[Picture]:
    return [Picture.from_input(one, PLAIN) for one in values]


# occlusion


def test_superpixels_hide_the_piece_and_nothing_else() -> None:
    net, x = Weighted(), blocks()
    method = cs.Occlusion(regions="superpixels", segments=8, fill="0")
    values = torch.from_numpy(cs.explain(cs.wrap(net), shown(x)[0], method, target=1)["occlusion"].values)
    share = (net.weight[1] * x).detach().sum(0)
    pieces = values.unique()
    assert len(pieces) > 3
    for value in pieces:
        inside = values == value
        assert float(value) == pytest.approx(float(share[inside].mean()), rel=1e-3, abs=1e-4)


def test_superpixels_are_those_of_each_picture() -> None:
    net, method = Weighted(), cs.Occlusion(regions="superpixels", segments=8, fill="0")
    pair = shown(blocks(1), blocks(2))
    together = cs.explain(cs.wrap(net), pair, method, target=1)
    for one, picture in zip(together, pair, strict=True):
        alone = cs.explain(cs.wrap(net), picture, method, target=1)
        np.testing.assert_allclose(one["occlusion"].values, alone["occlusion"].values, atol=1e-5)


# rules of the ReLU


def _by_hand(net: Body, x: Tensor, target: int, rule: str) -> Tensor:
    """Guided backpropagation and the deconvnet written out, for ReLU and ReLU6."""
    top = float(getattr(net.act1, "max_val", torch.inf))
    with torch.no_grad():
        first = net.one(x * net.scale)
        second = net.two(first.clamp(0, top))
    gradient = net.head.weight[target].detach()[None, :, None, None].expand_as(second) / (SIDE * SIDE)
    for values, layer in ((second, net.two), (first, net.one)):
        if rule == "guided":
            gradient = gradient * ((values > 0) & (values < top)) * (gradient > 0)
        else:
            gradient = gradient * (gradient > 0)
        gradient = F.conv_transpose2d(gradient, layer.weight.detach(), padding=1)
    return gradient * net.scale


@pytest.mark.parametrize("method", ["guided-backprop", "deconvnet"])
@pytest.mark.parametrize("act", [nn.ReLU, nn.ReLU6, lambda: nn.Hardtanh(0, 6)], ids=["ReLU", "ReLU6", "Hardtanh"])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_relu6_follows_the_rules_of_a_relu(method: str, act: Any, scale: float) -> None:
    net, x = Body(act, scale).eval(), noise(1)[None]
    found = cs.explain(cs.wrap(net), shown(x[0])[0], method, target=2)[method]
    truth = _by_hand(net, x, 2, "guided" if method == "guided-backprop" else "deconvnet")
    np.testing.assert_allclose(found.raw, truth[0].numpy(), atol=1e-5 * float(truth.abs().max()) + 1e-9)
    assert not any("rule" in doubt for doubt in found.doubts)


@pytest.mark.parametrize(
    "act", [nn.LeakyReLU, lambda: nn.Hardtanh(-1, 1), nn.SiLU], ids=["leaky", "hardtanh", "silu"]
)
def test_what_is_no_relu_follows_none_and_says_so(act: Any) -> None:
    found = cs.explain(cs.wrap(Body(act).eval()), shown(noise(1))[0], "guided-backprop", target=2)["guided-backprop"]
    assert any("rule" in doubt for doubt in found.doubts)


# channels


class Last(nn.Module):
    """Channels last inside, as in ConvNeXt and Swin."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.stem, self.inner, self.head = nn.Conv2d(3, 6, 4, stride=2), nn.Linear(6, 10), nn.Linear(10, 3)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.inner(self.stem(x).permute(0, 2, 3, 1))).mean((1, 2)))


@pytest.mark.parametrize("place", ["", "@max", "@2,4"])
@pytest.mark.parametrize("channel", [0, 5, 9])
def test_a_unit_of_a_channels_last_layer_is_its_channel(channel: int, place: str) -> None:
    net, x = Last().eval(), noise(3)
    found = cs.explain(cs.wrap(net), shown(x)[0], "saliency", target=f"inner:{channel}{place}")
    with torch.no_grad():
        values = net.inner(net.stem(x[None]).permute(0, 2, 3, 1))[0, :, :, channel]
    truth = values[2, 4] if place == "@2,4" else values.max() if place else values.mean()
    assert found.score == pytest.approx(float(truth), rel=1e-5)


def test_a_channel_beyond_the_last_of_a_channels_last_layer_is_refused() -> None:
    with pytest.raises(TargetError, match="has 10 channels"):
        cs.explain(cs.wrap(Last().eval()), shown(noise(3))[0], "saliency", target="inner:10")


class Tokens(nn.Module):
    """A class token and a grid of 4×4 patches, as in a vision transformer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.patches, self.token = nn.Conv2d(3, 12, 4, stride=4), nn.Parameter(torch.randn(1, 1, 12))
        self.inner, self.head = nn.Linear(12, 20), nn.Linear(20, 3)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), patches], 1)
        return self.head(self.act(self.inner(tokens)).mean(1))


@pytest.mark.parametrize("place", ["", "@max", "@2,3"])
def test_a_unit_of_tokens_is_a_channel_on_their_grid(place: str) -> None:
    net, x = Tokens().eval(), noise(3)
    assert cs.wrap(net, size=SIDE).watched().layers["inner"].prefix_tokens == 1
    found = cs.explain(cs.wrap(net, size=SIDE), shown(x)[0], "saliency", target=f"inner:17{place}")
    with torch.no_grad():
        values = net.inner(net.patches(x[None]).flatten(2).transpose(1, 2))[0, :, 17].view(4, 4)
    truth = values[2, 3] if place == "@2,3" else values.max() if place else values.mean()
    assert found.score == pytest.approx(float(truth), rel=1e-5)


def test_a_survey_of_tokens_keeps_their_channels_and_places(tmp_path: Path) -> None:
    net = Tokens().eval()
    (tmp_path / "p").mkdir()
    for number in range(5):
        data = (noise(number).permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        Image.fromarray(data).save(tmp_path / "p" / f"{number}.png")
    model = cs.wrap(net, mean=0, std=1, size=SIDE)
    store = cs.survey(model, tmp_path / "p", tmp_path / "s", layers=["act"], top=2)
    (span,) = store.recipe.layers
    assert span.channels == 20
    pictures = [cs.Picture.of(tmp_path / "p" / f"{number}.png") for number in range(5)]
    with torch.no_grad():
        x = torch.stack([model.prepare(one).tensor for one in pictures])
        values = net.act(net.inner(net.patches(x).flatten(2).transpose(1, 2)))
    best = values.amax(1)
    top = store.state().top
    for channel in range(20):
        order = best[:, channel].argsort(descending=True)[:2]
        np.testing.assert_allclose(top.values[channel], best[order, channel], rtol=1e-5, atol=1e-6)
        place = int(values[order[0], :, channel].argmax())
        assert (top.rows[channel, 0], top.cols[channel, 0]) == divmod(place, 4)
    found = store.patches("act:17")
    assert not any("deviates" in note or "differ" in note for note in found.notes), found.notes
    for patch in found.of("top"):
        assert patch.recomputed == pytest.approx(patch.value, rel=1e-4)


# scores


def test_a_score_is_the_logit_unless_a_probability_is_asked_for() -> None:
    assert Scores().probability is False
    net, x = Body().eval(), noise(1)
    with torch.no_grad():
        logits = net(x[None])[0]
    found = cs.explain(cs.wrap(net), shown(x)[0], [cs.Occlusion(8, 8, fill="0"), cs.LIME(10, segments=4)], target=2)
    assert found.score == pytest.approx(float(logits[2]), rel=1e-5)
    assert found.probability == pytest.approx(float(logits.softmax(0)[2]), rel=1e-5)
    covered = x.clone()
    covered[:, :8, :8] = 0
    with torch.no_grad():
        drop = float((logits - net(covered[None])[0])[2])
    assert found["occlusion"].values[0, 0] == pytest.approx(drop / 64, rel=1e-3)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda y: y[:, :2], "shape (2, 2)"),
        (lambda y: y, "shape (2, 4)"),
        (lambda y: y[:, 1:2], "shape (2, 1)"),
        (lambda y: y[:, :1].T, "shape (1, 2)"),
        (lambda y: y[:0, 0], "shape (0,)"),
        (lambda y: torch.cat([y, y])[:, 0], "shape (4,)"),
        (lambda y: y[:, 0].tolist(), "a list"),
        (lambda y: float(y[0, 0]), "a float"),
    ],
)
def test_a_function_target_must_give_one_score_a_picture(function: Any, said: str) -> None:
    with pytest.raises(TargetError) as caught:
        cs.explain(cs.wrap(Body().eval()), shown(noise(1), noise(2)), "saliency", target=function)
    assert said in str(caught.value)


@pytest.mark.parametrize("function", [lambda y: y[:, 1], lambda y: y[:, 1].sum(), lambda y: y[:, 1].sum()[None]])
def test_function_targets_of_a_row_and_of_a_sum(function: Any) -> None:
    net, pair = Body().eval(), shown(noise(1), noise(2))
    found = cs.explain(cs.wrap(net), pair, "saliency", target=function)
    known = cs.explain(cs.wrap(net), pair, "saliency", target=1)
    for one, other in zip(found, known, strict=True):
        np.testing.assert_allclose(one["saliency"].values, other["saliency"].values, rtol=1e-5, atol=1e-8)


class Sides(nn.Module):
    """The score comes from one side alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.left, self.right, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.head(self.left(x).relu().mean((2, 3))), self.right(x).relu()


@pytest.mark.parametrize("method", ["grad-cam", "hirescam", "layercam", "ablation-cam"])
def test_a_layer_that_the_score_does_not_depend_on_has_a_map_of_zeros_that_says_so(method: str) -> None:
    kind = METHODS[method]
    found = cs.explain(cs.wrap(Sides().eval(), output=0), shown(noise(1))[0], kind(layer="right"), target=1)
    (heatmap,) = found.values()
    assert not heatmap.values.any()
    assert heatmap.doubts


# pictures


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGBa"])
def test_what_is_transparent_is_seen_on_white(mode: str, tmp_path: Path) -> None:
    image = Image.new("RGBA", (8, 8), (200, 20, 20, 0))
    image.paste((10, 20, 30, 255), (0, 0, 4, 8))
    if mode == "P":
        image = image.convert("RGB").quantize(4)
        image.info["transparency"] = image.getpixel((7, 7))
        image.save(tmp_path / "p.png", transparency=image.info["transparency"])
        image = Image.open(tmp_path / "p.png")
    elif mode != "RGBA":
        image = image.convert("RGBA" if mode == "RGBa" else mode)
        image = image.convert(mode) if image.mode != mode else image
    bands = cs.Picture.of(image).bands
    assert bands.shape == (8, 8, 3)
    assert (bands[:, 4:] == 255).all()
    assert (bands[:, :4] < 60).all()


# maps


def test_parts_are_weight_times_activation_and_sum_to_the_map() -> None:
    net, x = Body().eval(), noise(2)
    found = cs.explain(
        cs.wrap(net), shown(x)[0], [cs.HiResCAM(parts=8), cs.GradCAM(parts=8), cs.CAM(parts=8)], target=1
    )
    with torch.no_grad():
        values = net.act2(net.two(net.act1(net.one(x[None]))))[0]
    weight = net.head.weight[1].detach()
    for name, factor in (("hirescam", SIDE * SIDE), ("grad-cam", SIDE * SIDE), ("cam", 1)):
        heatmap = found[name]
        assert {part.channel for part in heatmap.parts} == set(range(8))
        strengths = [float(part.grid.abs().sum()) for part in heatmap.parts]
        assert strengths == sorted(strengths, reverse=True)
        for part in heatmap.parts:
            truth = weight[part.channel] * values[part.channel] / factor
            np.testing.assert_allclose(part.grid, truth, rtol=1e-4, atol=1e-8)
            assert part.weight == pytest.approx(float(weight[part.channel]) / factor, rel=1e-4)
        total = sum(part.grid for part in heatmap.parts)
        grid = torch.as_tensor(heatmap.grid)
        wanted = total.clamp(min=0) if name == "grad-cam" else total
        np.testing.assert_allclose(grid, wanted, rtol=1e-3, atol=1e-7)


SIGNED = {
    "saliency": False, "input-x-gradient": True, "integrated-gradients": True, "smoothgrad": False, "vargrad": False,
    "deconvnet": False, "guided-backprop": False, "cam": True, "grad-cam": False, "grad-cam++": False,
    "hirescam": True, "xgrad-cam": False, "layercam": False, "eigen-cam": True, "fullgrad": False,
    "guided-grad-cam": False, "occlusion": True, "gradient-shap": True, "deep-shap": True, "lrp": True,
    "attention-rollout": False, "attention-gradient": False, "rise": False, "lime": True, "score-cam": False,
    "ablation-cam": False, "extremal-perturbation": False,
}  # fmt: skip
CHEAP: dict[str, Any] = {
    "occlusion": cs.Occlusion(8, 8), "rise": cs.RISE(16, cells=3), "lime": cs.LIME(30, segments=6),
    "extremal-perturbation": cs.ExtremalPerturbation(rounds=10), "smoothgrad": cs.SmoothGrad(samples=3),
    "vargrad": cs.VarGrad(samples=3), "gradient-shap": cs.GradientSHAP(samples=3),
    "integrated-gradients": cs.IntegratedGradients(nodes=4),
}  # fmt: skip


def test_signed_maps_are_those_of_methods_whose_values_have_a_sign() -> None:
    assert set(METHODS) == set(SIGNED)
    for name, kind in METHODS.items():
        assert kind.about.signed is SIGNED[name], name
    names = [name for name in METHODS if not name.startswith("attention")]
    found = cs.explain(
        cs.wrap(Body().eval()), shown(blocks(4))[0], [CHEAP.get(name, name) for name in names], target=1
    )
    for name in names:
        heatmap = found[name]
        assert heatmap.signed is SIGNED[name], name
        assert found[name].to_dict()["signed"] is SIGNED[name]
        if not heatmap.signed:
            assert np.nanmin(heatmap.values) >= 0, name
        # one colour scale for what has a sign, another for what has none, but where the legend says why not: next to
        # nothing is negative (LRP on ReLUs), or the colours show the difference from a mean (RISE)
        scale = heatmap.scale()
        assert scale.signed is SIGNED[name] or scale.note, name
        assert scale.signed is SIGNED[name] or bool(scale.centre) is scale.signed, name


@pytest.mark.parametrize("after", [40, 300, 700])
def test_rise_that_is_stopped_on_several_pictures_keeps_whole_sums(after: int) -> None:
    net, images = Body().eval(), (noise(1), noise(2))
    method = cs.RISE(400, cells=3, score="logit")

    def stop(name: str, done: int, total: int) -> None:
        assert total == 800
        if after <= done < total:
            raise KeyboardInterrupt

    model = cs.wrap(net, batch_size=8, seed=3)
    found = cs.explain(model, shown(*images), method, target=1, progress=stop)
    kept = torch.cat(list(method.masks((SIDE, SIDE), 3)))
    counts = [one["rise"].facts["samples"] for one in found]
    assert after <= sum(counts) < 800
    for one, picture, done in zip(found, images, counts, strict=True):
        heatmap = one["rise"]
        if done < 400:
            assert any(f"Stopped after {done} of 400" in doubt for doubt in heatmap.doubts)
        if not done:
            assert np.isnan(heatmap.values).all()
            continue
        # of a whole chunk, the masks of the first pictures are all known
        first = min(256, done) if done <= 256 else done
        with torch.no_grad():
            scores = net(picture[None] * kept[:first, None])[:, 1]
        truth = (scores[:, None, None] * kept[:first]).mean(0) / 0.5
        np.testing.assert_allclose(heatmap.values, truth, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("act", [nn.ReLU])
def test_a_doubt_of_a_part_is_a_doubt_of_the_whole(act: Any) -> None:
    net = Body(act).eval()
    with torch.no_grad():
        net.head.weight[1] = -net.head.weight[1].abs()
    found = cs.explain(
        cs.wrap(net), shown(noise(1), noise(2)), ["grad-cam", "guided-grad-cam", "grad-cam++"], target=1
    )
    for one in found:
        for name in ("grad-cam", "guided-grad-cam"):
            assert any(doubt.startswith("Blank") for doubt in one[name].doubts), name
            assert any(doubt.startswith(f"{name}: Blank") for doubt in one.doubts)
            assert any("Blank" in doubt for doubt in one.to_dict()["maps"][name]["doubts"])
    several = cs.explain(cs.wrap(net), shown(noise(1))[0], ["grad-cam"], target=[1, 0])
    assert any("Blank" in doubt for doubt in several.rows[0].doubts)


# what surveys sum up


def test_counts_of_what_is_not_finite_add_up_when_states_merge() -> None:
    values = [np.array(rows, np.float32) for rows in ([[np.inf, 1], [np.nan, 2]], [[-np.inf, np.nan], [3, np.inf]])]
    first, second = (Moments.of(one) for one in values)
    merged, whole = first.merged(second), Moments.of(np.concatenate(values))
    for name in ("count", "active", "nan", "infinite"):
        assert getattr(merged, name).tolist() == getattr(whole, name).tolist(), name
    np.testing.assert_allclose(merged.mean, whole.mean)
    np.testing.assert_allclose(merged.deviation, whole.deviation)
    assert merged.infinite.tolist() == [2, 1]
    assert merged.nan.tolist() == [1, 1]


def test_a_merged_state_counts_what_both_hold() -> None:
    one, two = (State.empty(2, 3) for _ in range(2))
    one.pictures, two.pictures = 3, 4
    one.histogram[0, 1], two.histogram[0, 1], two.histogram[1, BINS - 1] = 5, 6, 7
    merged = one.merged(two)
    assert merged.pictures == 7
    assert merged.histogram[0, 1] == 11
    assert merged.histogram[1, BINS - 1] == 7
    back = State.from_bytes(merged.to_bytes())
    assert back.pictures == 7
    assert np.array_equal(back.histogram, merged.histogram)


# pictures by optimisation


def test_what_a_unit_ascends_is_the_unit() -> None:
    from convoscope.engine.fields.layout import Layout
    from convoscope.targets.units import UnitScorer
    from convoscope.visualization.objectives import Scores as Ascended

    generator = torch.Generator().manual_seed(0)
    values = torch.randn(3, 5, 4, 6, generator=generator)
    last = Layout(channels_last=True)
    scorers = [
        UnitScorer("a", 3, ("a:3",)), UnitScorer("a", 1, ("a:1",), "max"), UnitScorer("a", 2, ("a:2",), place=(3, 5)),
    ]  # fmt: skip
    items = torch.arange(3)
    found = Ascended(scorers)(None, {"a": values}, items)
    torch.testing.assert_close(found, torch.stack([values[0, 3].mean(), values[1, 1].max(), values[2, 2, 3, 5]]))
    moved = [UnitScorer(one.layer, one.channel, one.labels, one.reduce, one.place, last) for one in scorers]
    again = Ascended(moved)(None, {"a": values.movedim(1, -1)}, items)
    torch.testing.assert_close(again, found)
    some = Ascended(scorers)(None, {"a": values[:2]}, torch.tensor([0, 0]))
    torch.testing.assert_close(some, torch.stack([values[0, 3].mean(), values[1, 3].mean()]))

"""Several maps made into one: over layers, over forms of the picture, over noise; and what maps are called."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import convoscope as cs
from convoscope.averaging import FACTORS
from convoscope.methods.naming import named, titles


@pytest.fixture(scope="module")
def model() -> cs.Model:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    return cs.wrap(network.eval(), size=24)


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    return torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(1))


def test_fused_layers_are_the_mean_and_the_strongest_of_shares(model: cs.Model, picture: torch.Tensor) -> None:
    apart = cs.explain(model, picture, ["hirescam", "saliency"], target=1, layer=["1", "3"])
    shares = np.stack([apart[f"hirescam@{n}"].values / np.abs(apart[f"hirescam@{n}"].values).max() for n in "13"])
    fused = cs.explain(model, picture, ["hirescam", "saliency"], target=1, layer=["1", "3"], fuse="mean")
    assert list(fused) == ["hirescam", "saliency"]  # what has no layer stays as it is
    np.testing.assert_allclose(fused["hirescam"].values, shares.mean(0), atol=1e-6)
    np.testing.assert_array_equal(fused["saliency"].values, apart["saliency"].values)
    strongest = cs.explain(model, picture, ["hirescam"], target=1, layer=["1", "3"], fuse="max")["hirescam"].values
    np.testing.assert_allclose(np.abs(strongest), np.abs(shares).max(0), atol=1e-6)
    assert fused["hirescam"].provenance["layer"] == ["1", "3"]


def test_nothing_to_fuse_is_said(model: cs.Model, picture: torch.Tensor) -> None:
    with pytest.raises(cs.UsageError, match="at least two"):
        cs.explain(model, picture, ["grad-cam"], layer="1", fuse="mean")
    with pytest.raises(cs.UsageError, match="mean or max"):
        cs.explain(model, picture, ["grad-cam"], layer=["1", "3"], fuse="sum")  # type: ignore[arg-type]


def test_aug_smooth_is_the_mean_of_six_runs(model: cs.Model, picture: torch.Tensor) -> None:
    made = cs.explain(model, picture, ["grad-cam", "saliency"], target=2, aug_smooth=True)
    total = {name: np.zeros((24, 24)) for name in made}
    for factor in FACTORS:
        for mirrored in (False, True):
            form = picture * factor  # mean 0 and std 1: the input is the picture
            own = cs.wrap(model.module, size=24, mean=0.0, std=1.0)
            given = form.flip(-1) if mirrored else form
            # above 1 a picture is none; the network takes it all the same, by the scale of its first layer
            scaled = given / 1.1
            own = cs.wrap(model.module, size=24, mean=(0.0,) * 3, std=(1 / 1.1,) * 3)
            for name, heatmap in cs.explain(own, scaled, ["grad-cam", "saliency"], target=2).items():
                total[name] += heatmap.values[:, ::-1] if mirrored else heatmap.values
    for name, heatmap in made.items():
        np.testing.assert_allclose(heatmap.values, total[name] / 6, rtol=1e-4, atol=1e-7)
    with pytest.raises(cs.UsageError, match="mirrors"):
        cs.explain(model, picture, ["saliency"], target="1:2@3,4", aug_smooth=True)


def test_aug_smooth_keeps_the_class_that_was_asked(model: cs.Model, picture: torch.Tensor) -> None:
    """Changed forms may be predicted otherwise: all of them explain the class of the picture itself."""
    plain = cs.explain(model, [picture, picture.flip(1)], ["saliency"])
    made = cs.explain(model, [picture, picture.flip(1)], ["saliency"], aug_smooth=True)
    assert [one.class_index for one in made] == [one.class_index for one in plain]
    assert [one.score for one in made] == pytest.approx([one.score for one in plain])


def test_smoothgrad_over_paths_is_the_mean_of_integrated_gradients_of_noisy_pictures(
    model: cs.Model, picture: torch.Tensor
) -> None:
    smooth = cs.SmoothGrad(samples=3, noise=0.1, of="integrated-gradients", nodes=16)
    made = cs.explain(model, picture, [smooth], target=0)["smoothgrad"]
    assert made.signed
    network = model.module.double()
    try:
        spread = (picture.max() - picture.min()) * 0.1
        at, weights = np.polynomial.legendre.leggauss(16)
        total = torch.zeros(24, 24, dtype=torch.float64)
        for sample in range(3):
            generator = torch.Generator().manual_seed(model.seed * 1_000_003 + sample)
            noisy = (picture + torch.randn(picture.shape, generator=generator) * spread).double()
            for x, weight in zip(at, weights, strict=True):
                point = (noisy * (1 + x) / 2).requires_grad_()
                (slope,) = torch.autograd.grad(network(point[None])[0, 0], point)
                total += (slope * noisy).sum(0) * weight / 2
    finally:
        model.module.float()
    np.testing.assert_allclose(made.values, (total / 3).numpy(), atol=1e-5)


def test_every_slow_gradient_method_tells_how_far_it_is(model: cs.Model, picture: torch.Tensor) -> None:
    told: dict[str, list[tuple[int, int]]] = {}
    small = cs.wrap(model.module, size=24, batch_size=4)
    methods = ["integrated-gradients", "smoothgrad", "vargrad", "gradient-shap"]
    cs.explain(
        small, picture, methods, target=0, progress=lambda n, done, of: told.setdefault(n, []).append((done, of))
    )
    for name in methods:
        done = [one for one, _ in told[name]]
        assert len(done) > 3, name
        assert done == sorted(done)
        assert told[name][-1][0] == told[name][-1][1]
        assert len({total for _, total in told[name]}) == 1, name


def test_maps_are_called_by_what_differs() -> None:
    made = named([cs.Occlusion(), cs.Occlusion(window=8), cs.Occlusion(window=(8, 16), stride=4), cs.Occlusion()])
    assert list(made) == ["occlusion", "occlusion(window=8)", "occlusion(window=8x16,stride=4)", "occlusion-2"]
    made = named([cs.GradCAM(), cs.GradCAM(layer="layer2"), cs.GradCAM(layer="layer3"), cs.Saliency()])
    assert list(made) == ["grad-cam", "grad-cam@layer2", "grad-cam@layer3", "saliency"]
    assert list(titles(made).values()) == [
        "Grad-CAM · at its default layer", "Grad-CAM · at layer2", "Grad-CAM · at layer3", "Saliency",
    ]  # fmt: skip
    assert list(named([cs.Saliency(), cs.Saliency()], merge=True)) == ["saliency"]


def test_a_mapping_names_the_maps(model: cs.Model, picture: torch.Tensor) -> None:
    found = cs.explain(model, picture, {"early": cs.GradCAM(layer="1"), "late": "grad-cam"}, target=1)
    assert list(found) == ["early", "late"]
    assert found["early"].layer == "1"
    assert found["early"].title == "Grad-CAM · at 1"


def test_oblong_windows_cover_every_pixel_and_give_each_patch_its_share() -> None:
    class Additive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.rand(3, 12, 20, generator=torch.Generator().manual_seed(0)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * self.weight).sum((1, 2, 3))[:, None].repeat(1, 2)

    model = cs.wrap(Additive().eval(), size=(12, 20))
    picture = torch.rand(3, 12, 20, generator=torch.Generator().manual_seed(3))
    method = cs.Occlusion(window=(3, 5), stride=(3, 5))  # the mean is zero here
    made = cs.explain(model, picture, [method], target=0)["occlusion"].values
    share = (picture * model.module.weight.detach()).sum(0)
    wanted = share.reshape(4, 3, 4, 5).sum((1, 3))
    np.testing.assert_allclose(made.reshape(4, 3, 4, 5).sum((1, 3)), wanted.numpy(), rtol=1e-4)
    for text, want in {"8": 8, "3x5": (3, 5), "3X5": (3, 5)}.items():
        assert cs.methods.method("occlusion", {"window": text}).window == want
    for bad in ("3x", "3x5x7", "0x5", (3, 0), (1, 2, 3), "x", "3.5x2"):
        with pytest.raises(cs.UsageError):
            cs.methods.method("occlusion", {"window": bad})


def test_frames_come_once_each(model: cs.Model) -> None:
    frames = list(cs.visualize_frames(model, 1, steps=6, every=2))
    assert [frame.step for frame in frames] == [2, 4, 6]
    assert [frame.results is not None for frame in frames] == [False, False, True]

"""Preprocessing: what it accepts, what it refuses, and that it is torchvision's to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import v2

import convoscope as cs
from convoscope.pictures.preprocessing import read_size

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def network(channels: int = 3, classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes)
    ).eval()


def photo(width: int, height: int) -> Image.Image:
    generator = np.random.default_rng(width * 1000 + height)
    small = Image.fromarray(generator.integers(0, 256, (height // 7 + 2, width // 7 + 2, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


ODD = [
    (33, 97), (97, 33), (224, 225), (225, 224), (256, 256), (300, 199), (199, 300), (301, 401), (401, 301), (64, 500),
    (500, 64), (31, 31), (223, 223), (375, 500), (500, 375), (333, 1), (1, 333), (257, 511), (640, 427), (427, 640),
]  # fmt: skip


@pytest.mark.parametrize(("width", "height"), ODD)
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_crop_is_torchvision_s_resize_and_centre_crop_on_odd_sizes(width: int, height: int, mode: str) -> None:
    image = photo(width, height)
    theirs = v2.Compose([
        v2.Resize(73, interpolation=v2.InterpolationMode(mode)), v2.CenterCrop(64), v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD),
    ])(image)  # fmt: skip
    ours = cs.Picture.of(image).prepare(cs.Preprocessing((64, 64), 73, "crop", MEAN, STD, mode)).tensor
    assert ours.shape == (3, 64, 64)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("width", "height"), ODD)
def test_squash_is_torchvision_s_resize(width: int, height: int) -> None:
    image = photo(width, height)
    theirs = v2.functional.to_image(v2.Resize((48, 80))(image)).float() / 255
    plain = cs.Preprocessing((48, 80), None, "squash", (0,) * 3, (1,) * 3)
    torch.testing.assert_close(cs.Picture.of(image).prepare(plain).tensor, theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "size", ["64", "64x64", "64×64", 64, 64.0, np.int64(64), (64, 64), [64, 64], torch.Size([64, 64])]
)
def test_sizes_that_mean_64(size: Any) -> None:
    assert read_size(size) == (64, 64)
    assert cs.wrap(network(), size=size).preprocessing.size == (64, 64)


@pytest.mark.parametrize(
    "size", ["", "big", "64px", (64, 64, 3), (64,), 0, -1, 64.5, float("nan"), float("inf"), True, (0, 64), b"64", {}]
)
def test_sizes_that_are_none_get_a_sentence(size: Any) -> None:
    for make in (lambda: cs.wrap(network(), size=size), lambda: cs.Preprocessing(size)):
        with pytest.raises(cs.UsageError, match="size must be"):
            make()


@pytest.mark.parametrize(
    ("settings", "mean", "std"),
    [
        ({"mean": 0.5, "std": 0.25}, (0.5,) * 3, (0.25,) * 3),
        ({"mean": np.float32(0.5)}, (0.5,) * 3, (1.0,) * 3),
        ({"std": torch.tensor(0.5)}, (0.0,) * 3, (0.5,) * 3),
        ({"mean": [0.5], "std": [0.25]}, (0.5,) * 3, (0.25,) * 3),
        ({"mean": np.array(MEAN), "std": 1}, MEAN, (1.0,) * 3),
        ({"mean": torch.tensor([0.5, 0.25, 0.125])}, (0.5, 0.25, 0.125), (1.0,) * 3),
    ],
)
def test_one_number_stands_for_all_channels(settings: dict[str, Any], mean: Any, std: Any) -> None:
    found = cs.wrap(network(), **settings).preprocessing
    assert found.mean == pytest.approx(mean)
    assert found.std == pytest.approx(std)


@pytest.mark.parametrize(
    "settings",
    [
        {"mean": "0.5"}, {"mean": ()}, {"mean": (0.5, "a", 0.5)}, {"mean": (0.5, None, 0.5)}, {"std": float("nan")},
        {"std": 0}, {"std": (1, 1, -1)}, {"mean": (0.5, 0.5), "std": (1, 1, 1)}, {"fit": "stretch"},
        {"interpolation": "cubic"}, {"resize": "256"}, {"resize": 0}, {"batch_size": 0}, {"batch_size": "8"},
        {"seed": 2**70}, {"seed": -1}, {"rgb": (0, 1, 5)},
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_cannot_be_get_a_sentence(settings: dict[str, Any]) -> None:
    with pytest.raises(cs.UsageError):
        cs.wrap(network(), size=32, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"mean": (123.7, 116.3, 103.5), "std": (58.4, 57.1, 57.4)},
        {"mean": (103.94, 116.78, 123.68), "std": (1, 1, 1)},
        {"mean": 127.5, "std": 127.5},
        {"mean": 0, "std": 255},
        {"mean": (0, 0, 0), "std": (65535,) * 3},
        {"mean": (2500.0, 3000, 2800), "std": (900.0, 800, 700)},
    ],
)
def test_means_of_another_convention_are_refused_with_the_right_ones(settings: dict[str, Any]) -> None:
    with pytest.raises(cs.UsageError, match="divide both by") as caught:
        cs.wrap(network(), size=32, **settings)
    with pytest.raises(cs.UsageError, match="divide both by"):
        cs.open_model("toybox", **settings)
    # what the sentence proposes gives the network what it was trained with
    top = 255 if "255:" in str(caught.value) else 65535
    picture = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(settings[k], dtype=torch.float32).expand(3) for k in ("mean", "std"))
    proposed = cs.wrap(network(), mean=(mean / top).tolist(), std=(std / top).tolist())
    wanted = (picture * top - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(proposed.prepare(picture).tensor, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("mean", "std"), [((0.5,) * 3, (0.5,) * 3), ((0,) * 3, (1 / 255,) * 3), (MEAN, STD), ((-1,) * 3, (2,) * 3)]
)
def test_means_for_zero_to_one_are_taken(mean: Any, std: Any) -> None:
    cs.wrap(network(), mean=mean, std=std)


def test_preprocessing_that_nobody_gave_is_said_in_the_result_once() -> None:
    picture = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    silent = cs.explain(cs.wrap(network()), picture, ["saliency"])
    assert sum("Nobody gave the preprocessing" in doubt for doubt in silent.doubts) == 1
    assert "at their own size" in " ".join(silent.doubts)
    told = cs.explain(cs.wrap(network(), mean=0.5, std=0.5, size=16), picture, ["saliency"])
    assert not any("preprocessing" in doubt for doubt in told.doubts)
    assert not any("preprocessing" in note for note in cs.open_model("toybox").notes)
    assert not any("preprocessing" in note for note in cs.open_model(network(), mean=0.5, std=0.5).notes)


def test_a_model_with_another_module_keeps_the_rest_and_learns_anew() -> None:
    model = cs.wrap(network(), mean=0.5, std=0.5, size=16, labels=["a", "b", "c"], name="first")
    first = model.watched()
    other = model.with_module(
        nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)).eval()
    )
    assert (other.labels, other.preprocessing, other.name) == (model.labels, model.preprocessing, "first")
    assert other.fingerprint != model.fingerprint
    assert other.watched().layers["0"].shape != first.layers["0"].shape
    assert model.watched() is first
    assert model.with_module(model.module, "second").name == "second"


@pytest.mark.parametrize(
    "lazy", [nn.LazyLinear(3), nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), nn.LazyConv2d(3, 3)]
)
def test_lazy_layers_get_the_right_sentence(lazy: nn.Module) -> None:
    for make in (cs.wrap, cs.open_model):
        with pytest.raises(cs.ModelError, match=r"lazy layers .* run it once"):
            make(lazy)

"""Several inputs, other shapes and bands, volumes and videos."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convoscope as cs
from convoscope.errors import ModelError, PictureError, UsageError
from convoscope.models.inputs import several
from convoscope.pictures.volume import Volume, montage

from .networks import photo


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.see, self.read = nn.Conv2d(3, 4, 3, 2), nn.Linear(5, 4)

    def forward(self, image: Tensor, table: Tensor, scale: float = 1.0) -> Tensor:
        return self.see(image).relu().mean((2, 3)) * self.read(table) * scale


def test_one_of_several_inputs_is_explained_and_every_picture_keeps_its_row() -> None:
    net = TwoInputs().eval()
    table = torch.randn(5, 5)
    pictures = [photo(k, (32, 32)) for k in range(5)]
    for model in (
        several(net, (None, table, 2.0), size=32, batch_size=2),
        several(net, {"image": None, "table": table, "scale": 2.0}, size=32, batch_size=2),
        several(net, {"image": torch.zeros(1), "table": table, "scale": 2.0}, explain="image", size=32, batch_size=2),
    ):
        found = cs.explain(model, pictures, ["saliency", "occlusion", "integrated-gradients", "grad-cam"], target=1)
        for k, one in enumerate(found):
            x = torch.from_numpy(pictures[k]).permute(2, 0, 1)[None].float().div(255).requires_grad_()
            score = net(x, table[k : k + 1], 2.0)[0, 1]
            (gradient,) = torch.autograd.grad(score, x)
            assert one.score == pytest.approx(float(score.detach()), rel=1e-4)
            assert np.allclose(one["saliency"].values, gradient[0].abs().amax(0), atol=1e-6)
            assert not one.refused


def test_one_row_for_all_and_what_is_unclear() -> None:
    net = TwoInputs().eval()
    one = cs.explain(several(net, (None, torch.ones(1, 5))), [photo(0, (32, 32)), photo(1, (32, 32))], "saliency")
    assert len(one) == 2
    with pytest.raises(UsageError, match="leave exactly one open"):
        several(net, (torch.ones(1), torch.ones(1, 5)))
    with pytest.raises(UsageError, match="There is no input 'picture'"):
        several(net, {"image": None}, explain="picture")
    with pytest.raises(UsageError, match="has 2 rows"):
        cs.explain(several(net, (None, torch.ones(2, 5))), [photo(k, (32, 32)) for k in range(3)], "saliency")


@pytest.mark.parametrize("bands", [1, 2, 4, 12])
def test_any_number_of_bands_with_a_stated_mapping_to_colours(bands: int) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(bands, 6, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    rgb = (3, 2, 1) if bands > 3 else None
    model = cs.wrap(net.eval(), size=(24, 40), rgb=rgb)
    image = photo(0, (48, 60), bands)
    found = cs.explain(model, image, ["saliency", "grad-cam", "guided-backprop", "occlusion"])
    assert not found.refused
    assert all(one.values.shape == (24, 40) for one in found.values())
    shown = np.asarray(found.fitted.picture.image)
    if bands > 3:
        assert np.array_equal(shown, image[:, :, [3, 2, 1]])
        assert found.provenance["preprocessing"]["rgb"] == [3, 2, 1]
    assert found.sheet().image.size[0] > 100
    with pytest.raises(UsageError, match="they count from 0"):
        cs.wrap(net, rgb=(0, 1, 99))


class Video(nn.Module):
    """Looks at a patch of frame 3 alone, besides weak features of everything."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv3d(3, 6, 3, (1, 2, 2), 1), nn.BatchNorm3d(6), nn.ReLU(), nn.Conv3d(6, 8, 3, 2, 1), nn.ReLU()
        )
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3, 4)))


def clip(frames: int = 6, side: int = 32) -> np.ndarray[Any, Any]:
    return np.stack([photo(k, (side, side)) for k in range(frames)])


def test_a_video_gets_a_map_of_every_frame() -> None:
    net = Video().eval()
    model = cs.wrap(net, size=32)
    methods = [
        "saliency", "guided-backprop", "integrated-gradients", "smoothgrad", "grad-cam", "hirescam", "layercam",
        "eigen-cam", "lrp", "gradient-shap", "deep-shap", "guided-grad-cam",
    ]  # fmt: skip
    found = cs.explain(model, clip(), methods, target=1)
    assert not found.refused, found.refused
    for name, one in found.items():
        assert one.values.shape == (6, 32, 32), name
        assert np.isfinite(one.values).all()
        width, height = one.overlay().size
        assert (width - 4) / 3 == (height - 2) / 2 >= 32, "three columns, two rows"
    x = (torch.from_numpy(clip()).permute(3, 0, 1, 2)[None].float() / 255).requires_grad_()
    features = net.body(x)
    features.retain_grad()
    net.head(features.mean((2, 3, 4)))[0, 1].backward()
    assert np.allclose(found["saliency"].values, x.grad[0].abs().amax(0), atol=1e-6)
    weights = features.grad.mean((2, 3, 4), keepdim=True)
    grid = (weights * features).sum(1).clamp(min=0)[0].detach()
    assert found["grad-cam"].layer == "body"[: len(found["grad-cam"].layer)] or "body" in found["grad-cam"].layer
    assert np.allclose(found["grad-cam"].grid.reshape(grid.shape), grid, atol=1e-5)
    assert not any("eometry" in doubt for doubt in found["grad-cam"].doubts)
    assert found["lrp"].facts["conservation_residual"] < 1e-3
    assert found["deep-shap"].facts["completeness_residual"] < 1e-2
    assert found.sheet().image.size[0] > 200


def test_slices_are_interpolated_where_they_lie() -> None:
    """A cell of a 3-D layer that alone is on lights up its own frames and place."""

    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.Conv3d(1, 1, (2, 8, 8), (2, 8, 8), bias=False)
            nn.init.constant_(self.pool.weight, 1 / 128)
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(self.pool(x))[:, :, 1, 2, 1]

    volume = np.random.default_rng(0).random((6, 32, 32)).astype(np.float32)
    found = cs.explain(cs.wrap(One().eval(), size=32), volume[..., None], "hirescam", layer="pool")
    values = found["hirescam"].values
    frame, row, col = np.unravel_index(values.argmax(), values.shape)
    assert frame in (2, 3)
    assert 16 <= row < 24
    assert 8 <= col < 16


def test_masks_are_refused_for_volumes_and_pictures_and_volumes_are_told_apart() -> None:
    model = cs.wrap(Video().eval(), size=32)
    found = cs.explain(model, clip(), ["occlusion", "rise", "fullgrad", "saliency"], target=1)
    assert set(found.refused) == {"occlusion", "rise", "fullgrad"}
    assert "single pictures" in found.refused["occlusion"]
    with pytest.raises(PictureError, match="takes volumes"):
        cs.explain(model, photo(), "saliency")
    flat = cs.wrap(nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), size=32)
    with pytest.raises(PictureError, match="takes one picture"):
        cs.explain(flat, clip(), "saliency")
    with pytest.raises(PictureError, match="one size"):
        Volume.of_slices([photo(0, (8, 8)), photo(0, (8, 9))])


def test_a_fixed_number_of_frames_is_chosen_evenly() -> None:
    volume = Volume.of_slices(clip(10))
    assert [one.bands[0, 0, 0] for one in volume.chosen(4)] == [clip(10)[k, 0, 0, 0] for k in (0, 3, 6, 9)]
    found = cs.explain(cs.wrap(Video().eval(), size=32, frames=4), clip(10), "saliency", target=0)
    assert found["saliency"].values.shape == (4, 32, 32)
    assert montage([one.image for one in volume.slices]).size == (4 * 34 - 2, 3 * 34 - 2)


def test_a_network_that_cannot_take_the_input_says_what_it_got() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(7, 2)).eval()
    with pytest.raises(ModelError, match="cannot run on an input of 3×20×30"):
        cs.explain(cs.wrap(net), photo(0, (20, 30)), "saliency")

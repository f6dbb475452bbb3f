"""Surveys, units and switched-off units on transformers: a channel is the same thing for every command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

import convoscope as cs
from convoscope.ask import switch_off
from convoscope.engine.fields.layout import Layout


def vit() -> nn.Module:
    return torchvision.models.VisionTransformer(32, 8, 1, 2, 16, 24, num_classes=4)


def swin() -> nn.Module:
    return torchvision.models.swin_transformer.SwinTransformer([4, 4], 8, [1, 1], [2, 2], [4, 4], num_classes=4)


def timm_vit() -> nn.Module:
    vit = pytest.importorskip("timm.models.vision_transformer")
    return vit.VisionTransformer(32, 8, num_classes=4, embed_dim=16, depth=1, num_heads=2)


def mixer() -> nn.Module:
    mixers = pytest.importorskip("timm.models.mlp_mixer")
    return mixers.MlpMixer(num_classes=4, img_size=32, patch_size=8, num_blocks=1, embed_dim=16)


NETWORKS = {"vit": (vit, 32), "swin": (swin, 64), "timm-vit": (timm_vit, 32), "mixer": (mixer, 32)}


def model_of(name: str) -> cs.Model:
    torch.manual_seed(0)
    build, size = NETWORKS[name]
    network = build().eval()
    for parameter in network.parameters():  # fresh heads are all zeros
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return cs.wrap(network, size=size, name=name)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for index in range(6):
        Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return folder


@pytest.mark.parametrize("name", NETWORKS)
def test_a_survey_with_its_defaults_names_values_that_explain_finds_again(
    name: str, pictures: Path, tmp_path: Path
) -> None:
    """The patch's value is the score of that very neuron, read by another way."""
    model = model_of(name)
    store = cs.survey(model, [pictures], tmp_path / "store")
    layers = [span.name for span in store.recipe.layers]
    for layer in dict.fromkeys([layers[0], layers[len(layers) // 2], layers[-1]]):
        assert store.units(layer)
        best = store.patches(f"{layer}:1").of("top")[0]
        again = cs.explain(model, best.uri, ["saliency"], target=f"{layer}:1@{best.row},{best.col}")
        assert again.score == pytest.approx(best.value, rel=1e-4, abs=1e-5)


def test_windows_in_the_place_of_pictures_are_refused_by_name(pictures: Path, tmp_path: Path) -> None:
    model = model_of("swin")
    windows = next(n for n, one in model.watched().layers.items() if one.shape and one.shape[0] > 1)
    with pytest.raises(cs.LayerError, match="rows for one picture"):
        cs.survey(model, [pictures], tmp_path / "store", layers=[windows])


def test_a_unit_of_tokens_is_a_channel_and_not_a_token(pictures: Path) -> None:
    model = model_of("vit")
    layer = "encoder.layers.encoder_layer_0.mlp.1"
    picture = pictures / "0.png"
    kept: list[torch.Tensor] = []
    handle = model.module.get_submodule(layer).register_forward_hook(lambda m, a, out: kept.append(out.detach()))
    try:
        score = cs.explain(model, picture, ["saliency"], target=f"{layer}:20").score  # more than the 17 tokens
    finally:
        handle.remove()
    assert score == pytest.approx(float(kept[-1][0, 1:, 20].mean()), abs=1e-6)
    with pytest.raises(cs.ConvoscopeError, match="24 channels"):
        cs.explain(model, picture, ["saliency"], target=f"{layer}:24")


def test_switching_off_a_unit_of_tokens_equals_zeroing_it_by_hand(pictures: Path) -> None:
    model = model_of("vit")
    layer, picture = "encoder.layers.encoder_layer_0.mlp.1", pictures / "0.png"
    module = model.module.get_submodule(layer)

    def zero(at: tuple[slice | int, ...]) -> float:
        def hook(module: nn.Module, args: object, out: torch.Tensor) -> torch.Tensor:
            out = out.clone()
            out[at] = 0
            return out

        handle = module.register_forward_hook(hook)
        try:
            with torch.no_grad():
                return float(model.module(model.inputs([model.prepare(cs.Picture.of(picture))]))[0, 2])
        finally:
            handle.remove()

    everywhere = switch_off(model, picture, [f"{layer}:5"], target=2)
    assert everywhere.after.score == pytest.approx(zero((slice(None), slice(None), 5)), abs=1e-5)
    there = switch_off(model, picture, [f"{layer}:5@1,2"], target=2)
    assert there.after.score == pytest.approx(zero((slice(None), 1 + 1 * 4 + 2, 5)), abs=1e-5)


def test_layouts() -> None:
    tokens = torch.arange(2 * 5 * 3).reshape(2, 5, 3)
    planes = Layout(prefix_tokens=1, cells=(2, 2)).planes(tokens)
    assert planes.shape == (2, 3, 2, 2)
    assert planes[1, 2, 1, 0] == tokens[1, 1 + 2, 2]
    last = torch.arange(2 * 4 * 5 * 3).reshape(2, 4, 5, 3)
    assert torch.equal(Layout(channels_last=True).planes(last), last.permute(0, 3, 1, 2))
    assert torch.equal(Layout().planes(last), last)
    vector = torch.ones(2, 7)
    assert Layout(channels_last=True).planes(vector) is vector
    assert Layout(channels_last=True).channels((2, 4, 5, 3)) == 3
    assert Layout().channels((2,)) == 0

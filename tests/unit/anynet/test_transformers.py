"""Transformers: tokens have a place, CAM methods fit, attention is read however it is computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer
from torchvision.models.swin_transformer import SwinTransformer

import convoscope as cs
from convoscope.engine.propagation.attention import OpenAttention
from convoscope.errors import MethodRefused

from .networks import photo


def torchvision_vit() -> nn.Module:
    torch.manual_seed(0)
    net = VisionTransformer(64, 16, 3, 4, 32, 64, num_classes=5)
    nn.init.normal_(net.heads.head.weight, 0, 0.5)  # it starts at zero
    return net.eval()


def timm_vit(name: str = "vit_tiny_patch16_224", **settings: Any) -> nn.Module:
    if not timm.is_model(name):
        pytest.skip(f"this timm ({timm.__version__}) has no {name}")
    torch.manual_seed(0)
    return timm.create_model(name, img_size=64, depth=2, embed_dim=32, num_heads=2, num_classes=5, **settings).eval()


@pytest.mark.parametrize(
    ("make", "before", "layer"),
    [
        (torchvision_vit, 1, "encoder.layers.encoder_layer_2.ln_1"),
        (timm_vit, 1, "blocks.1.norm1"),
        (lambda: timm_vit("deit_tiny_distilled_patch16_224"), 2, "blocks.1.norm1"),
        (lambda: timm_vit("vit_small_patch16_dinov3"), 5, "norm"),
        (lambda: timm_vit(global_pool="avg", class_token=False), 0, "blocks"),
        (lambda: timm_vit(reg_tokens=4), 5, "blocks.1.norm1"),
    ],
)
def test_tokens_become_a_grid_and_class_tokens_are_left_out(make: Any, before: int, layer: str) -> None:
    net = make()
    model = cs.wrap(net, size=64)
    watched = model.watched((3, 64, 64))
    here = watched.layers[layer]
    assert watched.last_grid == layer
    assert (here.prefix_tokens, here.geometry.cells) == (before, (4, 4))
    assert here.geometry.to_dict() == {"size": None, "stride": [16.0, 16.0], "offset": [7.5, 7.5]}
    explanation = cs.explain(model, photo(), ["grad-cam", "hirescam", "eigen-cam", "layercam", "saliency"])
    for heatmap in explanation.values():
        assert np.isfinite(heatmap.values).all()
        assert heatmap.values.any() or heatmap.doubts  # a ReLU may leave nothing of Grad-CAM: then it is said
        assert heatmap.grid is None or heatmap.grid.shape == (4, 4)


def test_grad_cam_of_a_vit_equals_a_hand_computation() -> None:
    net = timm_vit()
    kept: dict[str, Tensor] = {}

    def keep(module: nn.Module, args: Any, output: Tensor) -> None:
        output.retain_grad()
        kept["out"] = output

    handle = net.blocks[1].norm1.register_forward_hook(keep)
    scores = net(torch.from_numpy(photo()).permute(2, 0, 1)[None].float() / 255)
    scores[0, 3].backward()
    handle.remove()
    tokens, gradient = kept["out"][0, 1:], kept["out"].grad[0, 1:]
    grid = (tokens * gradient.mean(0)).sum(1).clamp(min=0).reshape(4, 4)
    found = cs.explain(cs.wrap(net, size=64), photo(), "grad-cam", target=3)["grad-cam"]
    assert np.allclose(found.grid, grid.detach().numpy(), atol=1e-6)


def test_a_patch_is_where_its_token_says() -> None:
    """Change one patch: of the tokens before the first attention only its own changes."""
    net = timm_vit()
    model = cs.wrap(net, size=64)
    watched = model.watched((3, 64, 64))
    here = watched.layers["blocks.0.norm1"]
    x = torch.rand(1, 3, 64, 64)
    y = x.clone()
    y[:, :, 16:32, 48:64] += 1
    kept = []
    handle = net.blocks[0].norm1.register_forward_hook(lambda m, a, out: kept.append(out.detach()))
    net(x), net(y)
    handle.remove()
    changed = (kept[0] != kept[1]).any(-1)[0]
    assert changed.nonzero()[:, 0].tolist() == [1 + 1 * 4 + 3]
    assert here.geometry.box(1, 3) == (48, 16, 64, 32)


@pytest.mark.parametrize("name", ["swin", "timm-swin", "convnext", "hybrid", "maxvit"])
def test_other_families_have_a_grid(name: str) -> None:
    torch.manual_seed(0)
    net: nn.Module = {
        "swin": lambda: SwinTransformer([4, 4], 24, [1, 1], [2, 2], [4, 4], num_classes=5),
        "timm-swin": lambda: timm.create_model(
            "swin_tiny_patch4_window7_224", img_size=64, window_size=4, depths=(1, 1), num_heads=(2, 2), embed_dim=24
        ),
        "convnext": lambda: timm.create_model("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 16, 24, 32)),
        "hybrid": lambda: timm.create_model("vit_tiny_r_s16_p8_224", img_size=64, depth=2),
        "maxvit": lambda: timm.create_model(
            "maxvit_rmlp_pico_rw_256", img_size=64, depths=(1, 1), embed_dim=(32, 32), stem_width=8
        ),
    }[name]().eval()
    explanation = cs.explain(cs.wrap(net, size=64), photo(), ["hirescam", "eigen-cam"], target=2)
    for heatmap in explanation.values():
        assert heatmap.values.any()
        assert heatmap.geometry is not None
        assert not any("eometry" in doubt for doubt in heatmap.doubts)


def rollout_by_hand(net: nn.Module, x: Tensor) -> Tensor:
    """Two timm blocks, written out from their weights."""
    tokens = net._pos_embed(net.patch_embed(x))
    rolled = torch.eye(tokens.shape[1])[None]
    for block in net.blocks:
        normed = block.norm1(tokens)
        qkv = block.attn.qkv(normed).reshape(*normed.shape[:2], 3, 2, 16).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(qkv[0] @ qkv[1].transpose(-1, -2) / 4.0, -1)
        mixed = (weights.mean(1) + torch.eye(tokens.shape[1])) / 2
        rolled = mixed @ rolled
        tokens = tokens + block.attn.proj((weights @ qkv[2]).transpose(1, 2).flatten(2))
        tokens = tokens + block.mlp(block.norm2(tokens))
    return rolled[:, 0, 1:].reshape(-1, 4, 4)


@pytest.mark.parametrize("fused", [True, False])
def test_rollout_of_two_blocks_equals_a_hand_computation(fused: bool) -> None:
    net = timm_vit()
    for block in net.blocks:
        block.attn.fused_attn = fused
    x = torch.from_numpy(photo()).permute(2, 0, 1)[None].float() / 255
    found = cs.explain(cs.wrap(net, size=64), photo(), "attention-rollout")["attention-rollout"]
    with torch.no_grad():
        assert np.allclose(found.grid, rollout_by_hand(net, x)[0].numpy(), atol=1e-6)
    assert found.values.shape == (64, 64)


def test_gradient_weighted_attention_equals_a_hand_computation() -> None:
    net = timm_vit()
    for block in net.blocks:
        block.attn.fused_attn = False
    x = torch.from_numpy(photo()).permute(2, 0, 1)[None].float() / 255
    kept: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Tensor) -> None:
        output.retain_grad()
        kept.append(output)

    for block in net.blocks:
        block.attn.attn_drop.register_forward_hook(keep)
    net(x)[0, 2].backward()
    relevance = torch.eye(17)
    for one in kept:
        relevance = relevance + (one * one.grad).clamp(min=0).mean(1)[0] @ relevance
    for block in net.blocks:
        block.attn.attn_drop._forward_hooks.clear()
        block.attn.fused_attn = True
    found = cs.explain(cs.wrap(net, size=64), photo(), "attention-gradient", target=2)["attention-gradient"]
    assert np.allclose(found.grid, relevance[0, 1:].detach().reshape(4, 4).numpy(), atol=1e-6)


def test_open_attention_changes_no_output() -> None:
    x = torch.rand(2, 3, 64, 64)
    for net in (torchvision_vit(), timm_vit(), SwinTransformer([4, 4], 24, [1, 1], [2, 2], [4, 4]).eval()):
        truth = net(x)
        with OpenAttention() as mode:
            found = net(x)
        assert torch.allclose(found, truth, atol=1e-5)
        assert mode.found
    q, k, v = (torch.rand(1, 4, 5, 8) for _ in range(3))
    k, v = k[:, :2], v[:, :2]
    for settings in ({}, {"is_causal": True}, {"scale": 0.3}, {"attn_mask": torch.rand(5, 5) > 0.3}):
        truth = nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True, **settings)
        with OpenAttention():
            found = nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True, **settings)
        assert torch.allclose(found, truth, atol=1e-6, equal_nan=True)


def test_torchvisions_fused_heads_have_gradients_too() -> None:
    net = torchvision_vit()
    explanation = cs.explain(cs.wrap(net, size=64), photo(), ["attention-rollout", "attention-gradient"], target=1)
    assert not explanation.refused
    rows = explanation["attention-rollout"].grid
    assert 0 < rows.sum() < 1, "what is missing from one is the class token's own share"
    assert explanation["attention-gradient"].values.max() > 0
    batch = cs.explain(cs.wrap(net, size=64), [photo(1), photo()], ["attention-gradient"], target=1)
    assert np.allclose(batch[1]["attention-gradient"].values, explanation["attention-gradient"].values, atol=1e-6)


def test_where_there_is_nothing_to_roll_out_it_is_said() -> None:
    swin = SwinTransformer([4, 4], 24, [1, 1], [2, 2], [4, 4], num_classes=5).eval()
    for method in ("attention-rollout", "attention-gradient"):
        with pytest.raises(MethodRefused, match="attends within windows"):
            cs.explain(cs.wrap(swin, size=64), photo(), method)
        conv = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
        with pytest.raises(MethodRefused, match="no attention"):
            cs.explain(cs.wrap(conv, size=64), photo(), method)
    pvt = timm.create_model("pvt_v2_b0", depths=(1, 1), embed_dims=(16, 32), num_heads=(1, 2), num_classes=5)
    with pytest.raises(MethodRefused, match="different numbers of tokens"):
        cs.explain(cs.wrap(pvt.eval(), size=64), photo(), "attention-rollout")


def test_ablation_and_units_work_on_tokens() -> None:
    net = timm_vit()
    explanation = cs.explain(cs.wrap(net, size=64), photo(), ["ablation-cam", "score-cam"], target=1)
    assert not explanation.refused
    assert explanation["ablation-cam"].grid.shape == (4, 4)
    embed = cs.explain(cs.wrap(net, size=64), photo(), "saliency", target=lambda out: out[:, 0])
    assert np.isfinite(embed["saliency"].values).all()


def test_of_two_towers_the_one_that_sees_the_picture_is_rolled_out() -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    torch.manual_seed(0)
    net = transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config={**sizes, "vocab_size": 50, "projection_dim": 16, "bos_token_id": 0, "eos_token_id": 1},
            vision_config={**sizes, "image_size": 32, "patch_size": 8, "projection_dim": 16},
            projection_dim=16,
        )
    ).eval()
    words = torch.tensor([[0, 2, 1], [0, 3, 1]])
    model = cs.wrap(net, size=32, labels=["cat", "dog"], call=lambda module, x, rows: module(
        pixel_values=x, input_ids=words).logits_per_image)  # fmt: skip
    found = cs.explain(model, torch.rand(3, 32, 32), ["attention-rollout", "attention-gradient"], target="dog")
    assert not found.refused
    assert np.ptp(found["attention-rollout"].values) > 0

"""Incremental occlusion equals running the network on every masked picture: real architectures, odd networks.

All weights are random, but batch norm is calibrated: without that a deep random network hardly notices a mask, and
an engine that returned the undisturbed output would pass. Each test asserts that the output did change.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from convoscope.engine.recompute.incremental import Boxes, Incremental

TORCHVISION = [
    "alexnet", "vgg11", "vgg13_bn", "resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2",
    "squeezenet1_0", "squeezenet1_1", "densenet121", "mobilenet_v2", "mobilenet_v3_small", "googlenet",
    "inception_v3", "mnasnet0_5", "shufflenet_v2_x0_5", "regnet_x_400mf", "regnet_y_400mf",
    "efficientnet_b0", "convnext_tiny", "swin_t", "vit_b_32",
]  # fmt: skip
TIMM = [
    "dla34", "hrnet_w18_small", "cspresnet50", "vovnet39a", "repvgg_a0", "ghostnet_100", "res2net50_26w_4s",
    "convnextv2_atto", "dpn68", "xception41", "selecsls42b", "tf_efficientnet_lite0", "mixnet_s",
    "resnet18d", "resnetv2_50", "poolformer_s12", "convmixer_768_32", "rexnet_100", "mobileone_s0",
    "nf_resnet26", "mobilevit_xxs", "edgenext_xx_small", "tresnet_m", "densenet121", "efficientvit_b0",
    "skresnet18", "resnest14d", "coatnet_nano_rw_224",
]  # fmt: skip
#: not rotated: these run every time
ALWAYS = {"squeezenet1_0", "shufflenet_v2_x0_5", "timm:resnet18d"}
FIXED_SIZE = {"swin_t": 224, "vit_b_32": 224, "inception_v3": 139, "timm:coatnet_nano_rw_224": 224}
NAMES = [*TORCHVISION, *[f"timm:{name}" for name in TIMM]]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def build(name: str) -> nn.Module:
    if name.startswith("timm:"):
        timm = pytest.importorskip("timm")
        if name[5:] not in timm.list_models():
            pytest.skip(f"this timm has no {name[5:]}")
        return timm.create_model(name[5:], pretrained=False)
    models = pytest.importorskip("torchvision").models
    extra = {"init_weights": False, "aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    return models.get_model(name, weights=None, **extra)


def calibrated(network: nn.Module, pictures: Tensor) -> nn.Module:
    """Batch norm statistics of the pictures themselves, and the network in evaluation mode."""
    network.eval()
    # residual branches that start at zero would hide half of the network
    for module in network.modules():
        for part in ("gamma", "layer_scale"):
            value = getattr(module, part, None)
            if isinstance(value, nn.Parameter):
                nn.init.uniform_(value.data, 0.5, 1.0)
        if isinstance(module, nn.Linear) and not module.weight.any():
            nn.init.normal_(module.weight.data, std=0.1)
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.weight is not None:
            nn.init.uniform_(module.weight.data, 0.5, 1.5)
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.momentum = None
        norm.reset_running_stats()
        norm.train()
    if norms:
        with torch.no_grad():
            network(pictures)
    return network.eval()


def photo_like(count: int, channels: int, height: int, width: int) -> Tensor:
    coarse = F.interpolate(torch.randn(count, channels, 6, 6), size=(height, width), mode="bilinear")
    return coarse + 0.3 * torch.randn(count, channels, height, width)


def some_windows(height: int, width: int, rng: random.Random, count: int) -> Boxes:
    """Corners, borders, single pixels and rectangles anywhere."""
    rows = [(0, 0, 1, 1), (height - 1, width - 1, 1, 1), (0, width - height // 4, height // 4, height // 4)]
    rows += [(height // 2, 0, height // 3, height // 5), (height // 3, width // 3, height // 4, width // 4)]
    while len(rows) < count:
        h, w = rng.randint(1, height // 2), rng.randint(1, width // 2)
        rows.append((rng.randint(0, height - h), rng.randint(0, width - w), h, w))
    top, left, high, wide = (np.array(column) for column in zip(*rows, strict=True))
    return Boxes(top, top + high, left, left + wide)


def masked(picture: Tensor, boxes: Boxes, fill: Tensor) -> Tensor:
    """The masked pictures by plain assignment: nothing of the engine's own code."""
    pictures = picture.repeat(len(boxes), 1, 1, 1)
    for index in range(len(boxes)):
        place = (slice(boxes.top[index], boxes.bottom[index]), slice(boxes.left[index], boxes.right[index]))
        pictures[index][:, place[0], place[1]] = fill.expand_as(picture[0])[:, place[0], place[1]]
    return pictures


def plain_outputs(network: nn.Module, pictures: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([network(part) for part in pictures.split(8)])


@pytest.mark.parametrize("name", [n if n in ALWAYS else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_equals_dense_on_real_architectures(name: str) -> None:
    seed = zlib.crc32(name.encode())
    size = FIXED_SIZE.get(name, 128)
    with seeded(seed):
        network = calibrated(build(name), photo_like(4, 3, size, size))
        picture, fill = photo_like(1, 3, size, size), torch.randn(3, 1, 1)
    boxes = some_windows(size, size, random.Random(seed), 12)
    engine = Incremental(network, picture)
    ours = engine.outputs(boxes, fill)
    dense = plain_outputs(network, masked(picture, boxes, fill))
    base = plain_outputs(network, picture)
    scale = dense.abs().max()
    assert (dense - base).abs().max() > 1e-2 * scale, "the masks must change the output, or nothing is tested"
    assert (ours - dense).abs().max() <= 1e-4 * scale


class Odd(nn.Module):
    """A small network drawn by hypothesis: a chain of layers with residuals, concatenations and odd windows."""

    def __init__(self, plan: list[tuple[str, dict[str, int]]], channels: int, seed: int) -> None:
        super().__init__()
        self.plan, self.layers = plan, nn.ModuleList()
        now = channels
        with seeded(seed):
            for kind, p in plan:
                layer: nn.Module = nn.Identity()
                if kind == "conv":
                    groups = p["groups"] if now % p["groups"] == 0 else 1
                    out = p["out"] * groups
                    kernel, pads = (p["kh"], p["kw"]), (p["pad"], p["pad2"])
                    layer = nn.Conv2d(now, out, kernel, p["stride"], pads, p["dilation"], groups)
                    now = out
                elif kind == "wide":
                    layer, now = nn.Conv2d(now, 64, 3, 1, 1), 64
                elif kind == "norm":
                    layer = nn.BatchNorm2d(now)
                    nn.init.uniform_(layer.weight, 0.5, 1.5)
                    layer.running_mean.normal_()
                    layer.running_var.uniform_(0.5, 2)
                elif kind == "max":
                    layer = nn.MaxPool2d(p["k"], p["stride"], min(p["pad"], p["k"] // 2), ceil_mode=bool(p["ceil"]))
                elif kind == "avg":
                    layer = nn.AvgPool2d(
                        p["k"], p["stride"], min(p["pad"], p["k"] // 2), bool(p["ceil"]), bool(p["count"])
                    )
                elif kind == "residual":
                    layer = nn.Conv2d(now, now, 3, padding=1)
                elif kind == "branch":
                    layer = nn.ModuleList([nn.Conv2d(now, 3, 1), nn.Conv2d(now, 5, 5, padding=2)])
                    now = now + 8
                elif kind == "gate":
                    layer = nn.Conv2d(now, now, 1)
                elif kind == "last":
                    layer = nn.Sequential(nn.LayerNorm(now), nn.Linear(now, now))
                elif kind == "up":
                    layer = nn.ConvTranspose2d(now, now, 3, 2, 1)
                self.layers.append(layer)
            self.head = nn.Linear(now, 7)

    def forward(self, x: Tensor) -> Tensor:
        for (kind, p), layer in zip(self.plan, self.layers, strict=True):
            if kind == "relu":
                x = F.relu(x, inplace=bool(p["in_place"]))
            elif kind == "residual":
                x = x + layer(x).tanh()
            elif kind == "branch":
                x = torch.cat([x, F.relu(layer[0](x)), F.hardswish(layer[1](x))], 1)
            elif kind == "pad":
                x = F.pad(x, (p["a"], p["b"], p["c"], 0), value=0.5)
            elif kind == "shuffle" and x.shape[1] % 2 == 0:
                n, c, h, w = x.shape
                x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
            elif kind == "crop" and min(x.shape[2:]) > 6:
                x = x[:, :, p["a"] :, p["b"] :: p["step"]]
            elif kind == "halves" and x.shape[1] % 2 == 0:
                a, b = x.chunk(2, 1)
                x = torch.cat([b * 2, a.sigmoid() * b], 1)
            elif kind == "gate":
                x = x * layer(x.mean((2, 3), keepdim=True)).sigmoid()
            elif kind == "last":
                x = layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            elif kind == "near" and max(x.shape[2:]) < 50:
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            elif kind == "up":
                x = layer(x) if max(x.shape[2:]) < 50 else x
            elif kind not in ("shuffle", "crop", "halves", "near"):
                x = layer(x)
        return self.head(x.mean((2, 3)))


def number(low: int, high: int) -> st.SearchStrategy[int]:
    return st.integers(low, high)


#: no shrinking: an example takes half a second, and a plan of layers is readable as it is
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
LAYERS = st.one_of(
    st.tuples(st.just("conv"), st.fixed_dictionaries({
        "kh": number(1, 5), "kw": number(1, 5), "stride": number(1, 3), "pad": number(0, 3), "pad2": number(0, 3),
        "dilation": number(1, 2), "groups": number(1, 3), "out": number(2, 8)})),
    st.tuples(st.sampled_from(["max", "avg"]), st.fixed_dictionaries({
        "k": number(2, 4), "stride": number(1, 3), "pad": number(0, 2), "ceil": number(0, 1),
        "count": number(0, 1)})),
    st.tuples(st.just("relu"), st.fixed_dictionaries({"in_place": number(0, 1)})),
    st.tuples(st.just("pad"), st.fixed_dictionaries({"a": number(0, 2), "b": number(0, 2), "c": number(0, 2)})),
    st.tuples(st.just("crop"), st.fixed_dictionaries({"a": number(0, 2), "b": number(0, 2), "step": number(1, 2)})),
    st.tuples(st.sampled_from(["norm", "residual", "branch", "shuffle", "halves"]), st.just({})),
    st.tuples(st.sampled_from(["last", "near", "wide", "gate", "up"]), st.just({})),
)  # fmt: skip


def check_odd(plan: list[tuple[str, dict[str, int]]], height: int, width: int, channels: int, seed: int) -> None:
    network = Odd(plan, channels, seed).eval()
    with seeded(seed):
        picture, fill = photo_like(1, channels, height, width), torch.randn(channels, 1, 1)
    try:
        with torch.no_grad():
            base = network(picture.clone())
    except RuntimeError:
        return  # a layer larger than its input: not a network
    boxes = some_windows(height, width, random.Random(seed), 9)
    engine = Incremental(network, picture, batch=4, share_dense=[0.5, 0.9, 1.0][seed % 3])
    ours = engine.outputs(boxes, fill)
    dense = plain_outputs(network, masked(picture, boxes, fill))
    assert torch.isfinite(dense).all()
    assert (ours - dense).abs().max() <= 1e-4 * max(float(dense.abs().max()), float((dense - base).abs().max()))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), phases=PHASES, derandomize=True)
@given(st.lists(LAYERS, min_size=2, max_size=7), number(17, 45), number(17, 45), number(1, 4), number(0, 10**6))
def test_equals_dense_on_odd_networks(plan, height, width, channels, seed) -> None:  # type: ignore[no-untyped-def]
    check_odd(plan, height, width, channels, seed)


@pytest.mark.slow
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck), phases=PHASES)
@given(st.lists(LAYERS, min_size=2, max_size=9), number(17, 60), number(17, 60), number(1, 4), number(0, 10**6))
def test_equals_dense_on_many_odd_networks(plan, height, width, channels, seed) -> None:  # type: ignore[no-untyped-def]
    check_odd(plan, height, width, channels, seed)


def test_the_odd_networks_do_change() -> None:
    """The sweep above would be worth nothing if the masks changed no output."""
    conv = {"kh": 3, "kw": 3, "stride": 1, "pad": 1, "pad2": 1, "dilation": 1, "groups": 1, "out": 8}
    network = Odd([("conv", conv), ("relu", {"in_place": 1})], 3, 0).eval()
    with seeded(0):
        picture = photo_like(1, 3, 24, 24)
    boxes = some_windows(24, 24, random.Random(0), 9)
    dense = plain_outputs(network, masked(picture, boxes, torch.zeros(3, 1, 1)))
    with torch.no_grad():
        assert ((dense - network(picture)).abs().amax(1) > 1e-4).all()

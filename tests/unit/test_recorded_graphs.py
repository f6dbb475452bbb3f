"""Graphs from two forwards without values: the same as exported ones, or none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

import convoscope as cs
from convoscope.engine.recompute import choose
from convoscope.engine.recompute.incremental import Boxes, Incremental, export, saved
from convoscope.engine.recompute.incremental.recording import record


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("CONVOSCOPE_CACHE", "off")


class Plain(nn.Module):
    """Convolutions, a norm, in-place operations, a branch, a pool and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu_(self.a(x))
        y = self.norm(self.b(x))
        y += x
        y = nn.functional.max_pool2d(y, 3, 2, 1) * 0.5
        return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(y, 1), 1))


def windows(size: int, side: int) -> Boxes:
    corners = [(top, left) for top in range(0, size - side + 1, side) for left in range(0, size - side + 1, side)]
    top, left = np.array(corners).T
    return Boxes(top, top + side, left, left + side)


def plain(**given) -> nn.Module:
    torch.manual_seed(0)
    return Plain(**given).eval()


def torchvision_network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return getattr(torchvision.models, name)(weights=None).eval()


@pytest.mark.parametrize("name", ["plain", "squeezenet1_1", "mobilenet_v3_small", "resnet18", "shufflenet_v2_x0_5"])
def test_a_recorded_graph_is_worth_an_exported_one(name):
    network = plain() if name == "plain" else torchvision_network(name)
    picture = torch.randn(1, 3, 96, 96)
    graph = record(network, picture)
    assert graph is not None
    assert graph.origin == "recorded"
    masks, fill = windows(96, 24), torch.zeros(3, 1, 1)
    ours, theirs = (Incremental(network, picture, graph=one) for one in (graph, export(network, picture)))
    one, other = (engine.outputs(masks, fill) for engine in (ours, theirs))
    dense = []
    for top, bottom, left, right in zip(masks.top, masks.bottom, masks.left, masks.right, strict=True):
        hidden = picture.clone()
        hidden[..., top:bottom, left:right] = 0
        with torch.no_grad():
            dense.append(network(hidden))
    truth = torch.cat(dense)
    scale = float(truth.abs().max())
    torch.testing.assert_close(one, truth, rtol=0, atol=1e-5 * scale)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * scale)
    # nothing is computed that an exported graph spares
    assert ours.estimate(masks).saved == pytest.approx(theirs.estimate(masks).saved, abs=1e-3)
    # and it can be written down
    json.dumps(saved._written(graph), allow_nan=False)


class Branches(Plain):
    def forward(self, x):
        return super().forward(x) * (2 if float(x.mean()) > 0 else 1)


class Elsewhere(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.held = [torch.tensor(2.0)]

    def forward(self, x):
        return super().forward(x) * self.held[0]


class OneByOne(Plain):
    def forward(self, x):
        return torch.cat([super(OneByOne, self).forward(one[None]) for one in x])


class OldValue(Plain):
    def forward(self, x):
        x = self.a(x)
        seen = x.view(len(x), -1)
        torch.relu_(x)
        return self.head(seen[:, :8])


class Statistics(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8, track_running_stats=False)


class Noise(Plain):
    def forward(self, x):
        return super().forward(x + torch.randn_like(x))


class Sorts(Plain):
    def forward(self, x):
        return super().forward(x.sort(1).values)


class Cells(Plain):
    """A linear layer of every cell, which tiles tell from one of the whole only in an exported graph."""

    def forward(self, x):
        return self.head(self.a(x).permute(0, 2, 3, 1)).mean((1, 2))


class Divided(Plain):
    def forward(self, x):
        return super().forward(x) / len(x)


@pytest.mark.parametrize(
    "kind", [Branches, Elsewhere, OneByOne, OldValue, Statistics, Noise, Sorts, Cells, Divided]
)  # fmt: skip
def test_what_is_not_ordinary_is_exported(kind):
    torch.manual_seed(0)
    network = kind().eval()
    assert record(network, torch.randn(1, 3, 16, 16)) is None


class Keeps(Plain):
    """Leaves its last map behind, and makes a table at its first forward, as many networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.table = None, None

    def forward(self, x):
        if self.table is None:
            self.table = x.new_ones(()) if x.device.type != "meta" else x.mean() * 0
        self.last = self.a(x)
        return super().forward(x) * self.table


def test_tensors_without_values_do_not_stay_in_the_network():
    network = Keeps().eval()
    model = cs.wrap(network, size=32)
    picture = torch.rand(3, 32, 32)
    found = cs.explain(model, picture, cs.Occlusion(window=8, stride=4), target=0)
    with torch.no_grad():
        network(torch.rand(1, 3, 32, 32))
    assert network.last.device.type == "cpu"
    assert float(network.table) == 1
    assert np.isfinite(found["occlusion"].values).all()


class Deceives(Plain):
    """Does something else where tensors have no values."""

    def forward(self, x):
        y = super().forward(x)
        return y * 3 if x.device.type == "meta" else y


def test_a_recording_that_does_not_tell_the_same_is_found_out_and_the_network_exported():
    torch.manual_seed(0)
    network = Deceives().eval()
    x = torch.randn(1, 3, 48, 48)
    assert record(network, x) is not None
    picture = torch.rand(3, 48, 48)
    asked = cs.Occlusion(window=12, stride=6)
    found = cs.explain(cs.wrap(network, size=48), picture, asked, target=0)["occlusion"]
    assert choose.graph_of(network, x).origin == "exported"
    honest = cs.explain(cs.wrap(plain(), size=48), picture, asked, target=0)["occlusion"]
    np.testing.assert_allclose(found.values, honest.values, rtol=0, atol=1e-5)


def test_the_first_map_of_an_ordinary_network_loads_no_compiler(tmp_path: Path):
    script = tmp_path / "one.py"
    script.write_text(
        "import sys, torch, convoscope as cs\n"
        "from torch import nn\n"
        "torch.manual_seed(0)\n"
        "net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3),\n"
        "    nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()\n"
        "found = cs.explain(cs.wrap(net, size=64), torch.rand(3, 64, 64), cs.Occlusion(window=16, stride=8))\n"
        "print('densely' in str(found['occlusion'].doubts), 'torch._dynamo' in sys.modules)\n"
    )
    environment = {**os.environ, "CONVOSCOPE_CACHE": "off"}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment, timeout=300)
    assert done.stdout.split() == ["False", "False"], done.stdout + done.stderr

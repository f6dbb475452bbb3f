"""Exported graphs on disk: the same scores, read without the compiler, and never trusted further than a new one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import convoscope as cs
from convoscope.engine.recompute.choose import graph_of
from convoscope.engine.recompute.incremental import Incremental, NotIncremental, export, saved

SOURCE = Path(__file__).resolve().parents[2] / "src"


class Block(nn.Module):
    """Branches, a split, a size that depends on the batch, batch norm and a scale that is a plain attribute."""

    def __init__(self, scale: float = 0.5) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(8, 5)
        self.scale = scale

    def forward(self, x):
        y = self.relu(self.norm(self.conv(x)))
        left, right = y.chunk(2, 1)
        y = torch.cat([left * self.scale, right + 1], 1)
        y = self.pool(y).mean((2, 3)).view(x.shape[0], -1)
        return self.fc(y)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVOSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "graphs"


def network(scale: float = 0.5) -> nn.Module:
    torch.manual_seed(0)
    return Block(scale).eval()


def test_what_is_read_computes_what_was_exported(cache):
    net, x = network(), torch.rand(1, 3, 24, 24)
    saved.keep(net, x, export(net, x))
    (file,) = cache.iterdir()
    found = saved.load(net, x)
    assert found is not None
    assert found.origin == "disk"
    masks = torch.rand(12, 24, 24) > 0.6
    masks[:6] = False
    masks[:6, 4:10, 3:9] = True
    for dense in (0.0, 0.9):
        ours = Incremental(net, x, graph=found, share_dense=dense).outputs(masks, torch.zeros(3, 1, 1))
        truth = Incremental(net, x, graph=export(net, x), share_dense=dense).outputs(masks, torch.zeros(3, 1, 1))
        torch.testing.assert_close(ours, truth, rtol=0, atol=0)
    json.loads(file.read_text())  # plain data


@pytest.mark.parametrize("name", ["squeezenet1_0", "resnet18", "shufflenet_v2_x0_5"])
def test_networks_of_torchvision_are_kept_whole(cache, name):
    from torchvision import models

    torch.manual_seed(0)
    net = getattr(models, name)(weights=None).eval()
    x = torch.rand(1, 3, 64, 64)
    graph = saved.keep(net, x, export(net, x))
    found = saved.load(net, x)
    assert found is not None
    assert [str(n.target) for n in found.graph.nodes if n.op == "call_function"] == [
        str(n.target) for n in graph.graph.nodes if n.op == "call_function"
    ]
    mask = torch.zeros(2, 64, 64, dtype=torch.bool)
    mask[:, 10:30, 20:40] = True
    ours = Incremental(net, x, graph=found).outputs(mask, torch.zeros(3, 1, 1))
    with torch.no_grad():
        truth = net(torch.where(mask[:1, None], torch.zeros(()), x))
    torch.testing.assert_close(ours[:1], truth, rtol=1e-4, atol=1e-4 * float(truth.abs().max()))


def test_what_a_graph_depends_on_is_in_its_key():
    x = torch.rand(1, 3, 24, 24)
    first = saved.key(network(), x)
    assert first == saved.key(network(), torch.rand(1, 3, 24, 24))
    trained = network()
    with torch.no_grad():
        trained.fc.weight.add_(1)
    assert first == saved.key(trained, x), "weights do not matter"

    class Other(Block):
        def forward(self, x):
            return super().forward(x) * 2

    assert (
        len({first, saved.key(network(0.25), x), saved.key(network(), x[..., :20]), saved.key(Other().eval(), x)})
        == 4
    )


def test_a_graph_of_other_code_is_found_out_and_exported_again(cache, monkeypatch):
    """The key cannot know everything: here a function outside of any module changes what the network does."""
    picture, asked = torch.rand(3, 32, 32), cs.Occlusion(window=8, stride=8)
    monkeypatch.setattr(saved, "key", lambda network, example: "always the same")
    first, second = network(0.5), network(-2.0)
    settings = {"size": 32, "mean": [0, 0, 0], "std": [1, 1, 1]}
    cs.explain(cs.wrap(first, **settings), picture, asked)
    assert saved.load(second, picture[None]) is not None
    found = cs.explain(cs.wrap(second, **settings), picture, asked, target=1)["occlusion"]
    monkeypatch.setenv("CONVOSCOPE_CACHE", "off")
    truth = cs.explain(cs.wrap(network(-2.0), **settings), picture, asked, target=1)["occlusion"]
    np.testing.assert_allclose(found.values, truth.values, rtol=1e-5, atol=1e-7)
    assert found.doubts == truth.doubts


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"format": 1', '"format": 99'),
        lambda text: text.replace("aten.conv2d.default", "aten.__class__.default"),
        lambda text: text.replace("aten.conv2d.default", "os.system"),
        lambda text: text.replace("conv.weight", "gone.weight"),
        lambda text: "[]",
        lambda text: "",
    ],
)
def test_what_is_damaged_is_not_read(cache, damage):
    net, x = network(), torch.rand(1, 3, 24, 24)
    saved.keep(net, x, export(net, x))
    (file,) = cache.iterdir()
    changed = damage(file.read_text())
    assert changed != file.read_text()
    file.write_text(changed)
    assert saved.load(net, x) is None
    assert graph_of(net, x).origin != "disk"


def test_a_network_that_cannot_be_exported_or_written_leaves_nothing(cache):
    class Holds(Block):
        def forward(self, x):
            return super().forward(x) + torch.tensor([1.0, 2, 3, 4, 5])  # a constant of its own

    class Decides(Block):
        def forward(self, x):
            return super().forward(x) if float(x.sum()) > 0 else x.mean((2, 3))

    x = torch.rand(1, 3, 24, 24)
    assert graph_of(Holds().eval(), x).origin != "disk"
    with pytest.raises(NotIncremental):
        graph_of(Decides().eval(), x)
    assert not cache.exists() or not list(cache.iterdir())


def test_the_cache_is_bounded_and_can_be_switched_off(cache, monkeypatch):
    monkeypatch.setattr(saved, "MOST", 3)
    net = network()
    for side in (16, 18, 20, 22, 24):
        x = torch.rand(1, 3, side, side)
        saved.keep(net, x, export(net, x))
    assert len(list(cache.iterdir())) == 3
    for word in ("off", "", "0", "none"):
        monkeypatch.setenv("CONVOSCOPE_CACHE", word)
        assert saved.folder() is None
    monkeypatch.delenv("CONVOSCOPE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert saved.folder() == Path("/somewhere/convoscope/graphs")


def test_the_second_process_needs_no_compiler(cache, tmp_path):
    code = (
        "import sys, numpy, torch, convoscope as cs\n"
        "from torch import nn\n"
        "torch.manual_seed(0)\n"
        # a network that cannot simply be recorded: enlarging a map is left to an export
        "net = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(8, 8, 3),"
        " nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()\n"
        "asked = cs.Occlusion(window=24, stride=24)\n"
        "found = cs.explain(cs.wrap(net, size=128), torch.rand(3, 128, 128), asked)['occlusion']\n"
        "numpy.save(sys.argv[1], found.values)\n"
        "print('torch._dynamo' in sys.modules, len(found.doubts))"
    )
    said = []
    for number in (1, 2):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / f"{number}.npy")], capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(SOURCE), "CONVOSCOPE_CACHE": str(cache.parent)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.split())
    assert [one[0] for one in said] == ["True", "False"]
    assert said[0][1] == said[1][1]
    np.testing.assert_array_equal(np.load(tmp_path / "1.npy"), np.load(tmp_path / "2.npy"))

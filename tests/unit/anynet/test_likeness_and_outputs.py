"""Similarity and distance of embeddings, one of several outputs, several labels."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import convoscope as cs
from convoscope.errors import LayerError, TargetError
from convoscope.targets import Likeness, MultiLabel, Output

from .networks import photo


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 4)

    def embed(self, x: Tensor) -> Tensor:
        return self.pool(self.body(x)).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.embed(x))


def tensor(image: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    for k in range(3):
        Image.fromarray(photo(k)).save(tmp_path / f"{k}.png")
    return [tmp_path / f"{k}.png" for k in range(3)]


def test_similarity_and_distance_equal_those_computed_by_hand(pictures: list[Path]) -> None:
    net = Net().eval()
    model = cs.wrap(net, size=64)
    mine = tensor(photo(0)).requires_grad_()
    other = net.embed(tensor(photo(1)))[0].detach()
    group = torch.stack([net.embed(tensor(photo(k)))[0].detach() for k in (0, 1, 2)]).mean(0)
    cases = {
        f"similar:{pictures[1]}": F.cosine_similarity(net.embed(mine), other[None]),
        f"distance:{pictures[1]}": (net.embed(mine) - other).norm(dim=1),
        f"similar:{pictures[0].parent}": F.cosine_similarity(net.embed(mine), group[None]),
        f"similar:{pictures[0]},{pictures[1]},{pictures[2]}": F.cosine_similarity(net.embed(mine), group[None]),
    }
    for target, score in cases.items():
        (gradient,) = torch.autograd.grad(score.sum(), mine)
        explanation = cs.explain(model, pictures[0], ["saliency", "grad-cam", "occlusion"], target=target)
        assert explanation.score == pytest.approx(float(score.detach()), abs=1e-5), target
        assert np.allclose(explanation["saliency"].values, gradient[0].abs().amax(0).numpy(), atol=1e-7)
        assert explanation["grad-cam"].layer in ("body", "body.3")
        assert np.isfinite(explanation["occlusion"].values).all()
    assert explanation.target.startswith("similar to the mean of 3")


def test_a_layer_of_ones_own_and_networks_that_return_an_embedding(pictures: list[Path]) -> None:
    net = Net().eval()
    deep = cs.explain(cs.wrap(net, size=64), pictures[0], "saliency", target=f"similar:{pictures[1]}@body.0")
    hidden = [net.body[0](tensor(photo(k))).mean((2, 3)) for k in (0, 1)]
    assert deep.score == pytest.approx(float(F.cosine_similarity(*hidden).detach()), abs=1e-5)
    as_output = cs.explain(
        cs.wrap(net, size=64), pictures[0], "saliency", target=Likeness((photo(1),), layer="output")
    )
    answers = [net(tensor(photo(k))) for k in (0, 1)]
    assert as_output.score == pytest.approx(float(F.cosine_similarity(*answers).detach()), abs=1e-5)
    with pytest.raises(LayerError, match="no layer 'nowhere'"):
        cs.explain(cs.wrap(net, size=64), pictures[0], "saliency", target=f"similar:{pictures[1]}@nowhere")
    with pytest.raises(cs.PictureError, match="no such file"):
        cs.explain(cs.wrap(net, size=64), pictures[0], "saliency", target="similar:not-there.png")
    with pytest.raises(TargetError, match="needs a picture"):
        cs.explain(cs.wrap(net, size=64), pictures[0], "saliency", target="distance:")


@dataclass
class Answer:
    age: Tensor
    depth: Tensor


Pair = namedtuple("Pair", "first second")


class Many(Net):
    """Everything a network may return, around the same four numbers."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Any:
        scores = super().forward(x)
        depth = x.mean(1)
        return {
            "dictionary": {"age": scores[:, 0], "heads": [scores[:, :2], scores[:, 2:]], "depth": depth},
            "dataclass": Answer(scores[:, 0], depth),
            "tuple": (scores[:, 0], (scores[:, :2], depth)),
            "namedtuple": Pair(scores[:, 0], depth),
            "list": [scores[:, k] for k in range(1 + int(x.mean() > -1))],
        }[self.kind]


@pytest.mark.parametrize(
    ("kind", "path", "number"),
    [
        ("dictionary", "age", 0), ("dictionary", "heads.1.1", 3), ("dictionary", "depth", None),
        ("dataclass", "age", 0), ("dataclass", "depth", None), ("tuple", "0", 0), ("tuple", "1.0.1", 1),
        ("namedtuple", "first", 0), ("namedtuple", "second", None), ("list", "1", 1),
    ],
)  # fmt: skip
def test_one_number_of_any_output(kind: str, path: str, number: int | None) -> None:
    net = Many(kind).eval()
    x = tensor(photo()).requires_grad_()
    score = Net.forward(net, x)[:, number] if number is not None else x.mean((1, 2, 3))
    (gradient,) = torch.autograd.grad(score.sum(), x)
    for target in (f"output:{path}", Output(path)):
        explanation = cs.explain(cs.wrap(net, size=64), [photo(), photo(1)], "saliency", target=target)[0]
        assert explanation.score == pytest.approx(float(score.detach()), abs=1e-5)
        assert np.allclose(explanation["saliency"].values, gradient[0].abs().amax(0).numpy(), atol=1e-7)


def test_wrong_paths_list_what_there_is() -> None:
    model = cs.wrap(Many("dictionary").eval(), size=64)
    for target, words in (
        ("output:size", "it holds age, heads.0, heads.1, depth"), ("output:heads", "not one tensor"),
        ("output:heads.0.7", "beyond"), ("output:age.years", "only numbers can follow"),
    ):  # fmt: skip
        with pytest.raises(TargetError) as told:
            cs.explain(model, photo(), "saliency", target=target)
        assert words in str(told.value)


def test_several_labels_use_sigmoids() -> None:
    net = Net().eval()
    model = cs.wrap(net, size=64, labels=["cat", "dog", "hat", "1"])
    scores = net(tensor(photo()))[0].detach()
    for target, classes in (("multilabel:cat+hat", [0, 2]), ("multilabel:1", [3]), (MultiLabel(("dog", 3)), [1, 3])):
        explanation = cs.explain(model, photo(), "saliency", target=target)
        assert explanation.score == pytest.approx(float(scores[classes].mean()), abs=1e-5)
        assert explanation.probability == pytest.approx(float(scores[classes].sigmoid().mean()), abs=1e-5)
    with pytest.raises(TargetError, match="class names or numbers"):
        cs.explain(model, photo(), "saliency", target="multilabel:+")


def test_a_class_or_a_layer_that_looks_like_the_grammar_wins() -> None:
    model = cs.wrap(Net().eval(), size=64, labels=["segment:x", "b", "c", "d"])
    assert cs.explain(model, photo(), "saliency", target="segment:x").target == "segment:x"
    net = nn.Sequential()
    net.add_module("output", nn.Conv2d(3, 2, 3))
    net.add_module("pool", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    assert cs.explain(cs.wrap(net.eval(), size=32), photo(), "saliency", target="output:1").target == "output:1"

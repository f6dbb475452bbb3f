"""A network's fingerprint: the same for the same weights, another after any change, however it was made."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

import convoscope as cs


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )


def _numpy(net: nn.Module) -> None:
    net[0].weight.detach().numpy()[0, 0, 0, 0] += 1e-6


def _swap(net: nn.Module) -> None:
    weight = net[0].weight.data
    weight[[0, 1]] = weight[[1, 0]]


def _signs(net: nn.Module) -> None:
    net[5].weight.data[:, :4].neg_()


CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "data.add_": lambda net: net[0].weight.data.add_(1),
    "one element of data": lambda net: net[5].weight.data[2, 7].mul_(1 + 1e-6),
    "through numpy": _numpy,
    "two channels swapped": _swap,
    "signs": _signs,
    "a buffer": lambda net: net[1].running_mean.data.add_(0.5),
    "in place under no_grad": lambda net: torch.no_grad()(lambda: net[5].bias.add_(1))(),
    "another tensor": lambda net: setattr(net[5], "bias", nn.Parameter(net[5].bias.detach() * 2)),
    "another dtype": lambda net: net.double(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_any_change_of_the_weights_changes_it_and_undoing_the_change_brings_it_back(name: str) -> None:
    net = network()
    model = cs.wrap(net)
    before = model.fingerprint
    assert model.fingerprint == before
    saved = {key: value.clone() for key, value in net.state_dict().items()}
    CHANGES[name](net)
    assert model.fingerprint != before
    net.float().load_state_dict(saved)
    assert model.fingerprint == before == cs.wrap(network()).fingerprint


def test_it_is_the_sha256_of_names_types_shapes_and_bytes() -> None:
    net = network()
    digest = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode() + tensor.numpy().tobytes())
    assert cs.wrap(net).fingerprint == digest.hexdigest()


def test_the_packed_weights_of_quantised_layers_count() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3, bias=False)).eval()
            made.append(torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, torch.qint8))
    first, second = (cs.wrap(net, size=2).fingerprint for net in made)
    assert first != second


def test_the_explanation_tells_the_weights_it_was_made_with() -> None:
    net = network().eval()
    model = cs.wrap(net)
    picture = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    first = cs.explain(model, picture, ["saliency"])
    net[5].weight.data.add_(1)
    second = cs.explain(model, picture, ["saliency"])
    assert first.provenance["fingerprint"] != second.provenance["fingerprint"] == model.fingerprint

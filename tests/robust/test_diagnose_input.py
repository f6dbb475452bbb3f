"""Networks × pipelines without labels: batch norm names the pipeline, or the tool says that it cannot tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision import models as zoo

import convoscope as cs
from convoscope.improve.diagnose import diagnose
from convoscope.improve.pipelines import FAMILIES, Pipeline
from convoscope.pictures.picture import Picture, Preprocessing
from convoscope.toybox.specimens import CLASSES, draw

SIZE = 64
NETWORKS = ("resnet18", "mobilenet_v2", "shufflenet_v2_x0_5", "mnasnet0_5", "regnet_y_400mf", "efficientnet_b0")
#: name -> (pipeline, how the tool names it)
TRUE = {
    "imagenet": ("ImageNet's mean and std", False),
    "unit": ("values in 0..1", False),
    "signed": ("values in -1..1", False),
    "bytes": ("values in 0..255", False),
    "caffe": ("0..255 less ImageNet's mean, in the order BGR", True),
}


def preprocessing(name: str) -> Preprocessing:
    family, bgr = TRUE[name]
    mean, std = FAMILIES[family.removesuffix(", in the order BGR")]
    made = Preprocessing((SIZE, SIZE), None, "squash", mean, std)
    return replace(made, mean=mean[::-1], std=std[::-1]) if bgr else made


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    return [Picture.of(draw(770_000 + at, label=CLASSES[at % 10], size=SIZE).image) for at in range(128)]


def calibrated(network: str, true: str, pictures: list[Picture]) -> torch.nn.Module:
    """Random weights whose batch norms have seen the first half of the pictures by the true pipeline."""
    torch.manual_seed(NETWORKS.index(network))
    module = zoo.get_model(network, weights=None, num_classes=10)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = None
            part.reset_running_stats()
    way = Pipeline("", preprocessing(true), TRUE[true][1])
    batch = torch.stack([way.input(one) for one in pictures[:64]])
    module.train()
    with torch.no_grad():
        for _ in range(2):
            module(batch)
    return module.eval()


def _cases() -> list[tuple[str, str, str]]:
    names = list(TRUE)
    return [
        (network, true, names[(at + number + step) % len(names)])
        for number, network in enumerate(NETWORKS)
        for at, true in enumerate(names)
        for step in (1, 2)
    ]


def _chosen() -> list[tuple[str, str, str]]:
    import os

    listed = _cases()
    return listed if os.environ.get("CONVOSCOPE_ALL") else listed[::15]


@pytest.mark.parametrize(("network", "true", "given"), _chosen())
def test_the_pipeline_is_named_or_said_to_be_unknown(
    network: str, true: str, given: str, pictures: list[Picture]
) -> None:
    module = calibrated(network, true, pictures)
    way = preprocessing(given)
    model = cs.wrap(module, mean=way.mean, std=way.std, size=SIZE)
    found = diagnose(model, pictures[64:], only="input")
    if given == true and not TRUE[true][1]:
        assert not found.findings
        return
    for one in found.findings:
        named = {one.evidence["pipeline"], *one.evidence["rivals"]}
        assert TRUE[true][0] in named, one.sentence
    # what is far off must not pass in silence
    if {given, true} in ({"bytes", "unit"}, {"bytes", "imagenet"}, {"signed", "bytes"}):
        assert found.findings, found.stages["input"].evidence
    assert np.isfinite(found.tests)

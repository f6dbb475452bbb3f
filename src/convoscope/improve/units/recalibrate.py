"""Batch norm given the statistics of other pictures: an intervention, made on a copy."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ...models.model import Model
from ..collection import Labelled
from ..look import batches

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def recalibrated(model: Model, pictures: Labelled) -> Model:
    """A copy of ``model`` whose batch norm layers remember ``pictures`` instead of what they were trained on.

    Every layer gets the mean over batches of what it is given while the layers before it use the batch's own
    statistics, as in training.
    """
    module = copy.deepcopy(model.module)
    norms: list[Any] = [one for one in module.modules() if isinstance(one, _NORMS) and one.running_mean is not None]
    for one in module.modules():
        one.training = False
    for one in norms:
        one.training, one.momentum = True, None
        one.reset_running_stats()
    made = replace(model, module=module, _watched={}, _graphs={}, _fingerprint=None)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for _, inputs in batches(model, pictures, {}):
            if len(inputs) >= min(8, len(pictures)):  # a small last batch would count as much as a whole one
                made.run(inputs)
    for one in norms:
        one.training = False
    return made

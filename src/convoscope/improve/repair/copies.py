"""The same bench under other weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ...models.model import Model
from ..shortcuts.bench import Bench


def model_with(model: Model, module: nn.Module) -> Model:
    """A model of the same preprocessing and labels around another module."""
    return replace(model, module=module.eval(), _watched={}, _graphs={}, _fingerprint=None)


def with_module(bench: Bench, module: nn.Module) -> Bench:
    """The pictures of ``bench`` before another network; its ``scores`` are still the old ones."""
    return replace(bench, model=model_with(bench.model, module), remembered={})


def scores_of(bench: Bench, module: nn.Module) -> NDArray[np.float32]:
    """What another network says of the pictures, float32 ``[N, K]``."""
    return with_module(bench, module).score(len(bench.truth), lambda numbers: bench.inputs[numbers])

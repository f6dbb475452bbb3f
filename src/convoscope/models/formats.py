"""The memory format of a network's inputs: where channels lie last, convolutions take half the time on a processor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..engine.passes import memory_format
from ..engine.passes.agreement import same
from ..engine.passes.untouched import untouched

if TYPE_CHECKING:
    from .model import Model


def best_format(model: Model) -> torch.memory_format:
    """The memory format in which the network is quickest, and which it bears.

    It follows from the network alone, so that the same question gives the same numbers everywhere. A network that takes
    its activations for contiguous refuses channels_last (``view``) or gives other numbers (``as_strided``): two
    forwards on noise tell. The caller must not watch the network meanwhile.
    """
    found = memory_format.known.get(model.module)
    if found is not None:
        return found
    chosen = torch.contiguous_format
    if model.device.type == "cpu" and memory_format.wants_channels_last(model.module):
        generator = torch.Generator().manual_seed(0)
        dtype = model.dtype if model.dtype.is_floating_point else torch.float32
        size = model.preprocessing.size or (224, 224)
        noise = torch.randn((2, model.preprocessing.channels, *size), generator=generator).to(model.device, dtype)
        try:
            with untouched(model.module, gradients=False):
                last = model.run(noise.contiguous(memory_format=torch.channels_last))
                # pictures of a batch that influence each other are no reason: both are asked of the same two
                with memory_format.counted(model.module, noise):
                    usual = model.run(noise.clone())
            if same(usual, last, dtype, count=2, alone=2):
                chosen = torch.channels_last
        except Exception:  # whatever a network raises: it is asked as it is used to
            pass
    memory_format.known[model.module] = chosen
    return chosen


def laid_out(model: Model, inputs: Tensor) -> Tensor:
    """``inputs`` in the network's :func:`best_format`, equal value by value; what is no batch of pictures stays."""
    if inputs.ndim != 4 or inputs.device.type != "cpu":
        return inputs
    return inputs.contiguous(memory_format=best_format(model))

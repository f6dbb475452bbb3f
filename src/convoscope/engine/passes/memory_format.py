"""Where channels lie in memory: a processor's convolutions are up to twice as fast where they lie last.

A network that takes its activations for contiguous (``view``) refuses channels_last. Nobody can tell without running
it: a forward is tried so, and where it raises, the network is run as it is used to, from then on.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

#: what was found out of a network, as long as it lives
known: WeakKeyDictionary[nn.Module, torch.memory_format] = WeakKeyDictionary()

_FLOATS = (torch.float32, torch.bfloat16)


def wants_channels_last(network: nn.Module) -> bool:
    """Whether channels_last pays on a processor: where most multiply-adds are in convolutions oneDNN is fast at.

    Those are ungrouped, of 16 channels and more.
    """
    wide = plain = 0
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            work = module.weight.numel()
            wide += work if module.groups == 1 and module.in_channels >= 16 else 0
            plain += work
    return plain > 0 and wide > plain / 2


def formats(network: nn.Module, inputs: Tensor) -> tuple[torch.memory_format, ...]:
    """The memory formats to run ``network`` on ``inputs`` in: the first one that it bears."""
    if inputs.ndim != 4 or inputs.device.type != "cpu" or inputs.dtype not in _FLOATS:
        return (torch.preserve_format,)
    if network not in known and not wants_channels_last(network):
        known[network] = torch.contiguous_format
    if known.get(network) is torch.contiguous_format:
        return (torch.preserve_format,)
    return (torch.channels_last, torch.preserve_format)

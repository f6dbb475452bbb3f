"""Where channels lie in memory: a processor's convolutions are up to twice as fast where they lie last.

A network that takes its activations for contiguous refuses channels_last (``view``), or reads other values than it
means (``as_strided``), and a backward of its own may do so, too. Nobody can tell without running it: the first forward
is run so, and compared with one as the network is used to.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.utils._pytree import tree_leaves

from .relu_rules import nodes_of

#: what was found out of a network, as long as it lives
known: WeakKeyDictionary[nn.Module, torch.memory_format] = WeakKeyDictionary()
#: networks whose gradients go through torch's own operations alone
plain_graphs: WeakSet[nn.Module] = WeakSet()

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


def worth_trying(network: nn.Module, inputs: Tensor) -> bool:
    """Whether ``inputs`` may be given in channels_last: it pays, and the network is not known to mind."""
    if inputs.ndim != 4 or inputs.device.type != "cpu" or inputs.dtype not in _FLOATS:
        return False
    if network not in known and not wants_channels_last(network):
        known[network] = torch.contiguous_format
    return known.get(network) is not torch.contiguous_format


def bears_backwards(network: nn.Module, output: Any) -> bool:
    """Whether gradients of ``output`` are torch's own work; where they are not, the network is taken to mind."""
    if network not in plain_graphs:
        if _own_backwards(output):
            known[network] = torch.contiguous_format
            return False
        plain_graphs.add(network)
    return True


def _own_backwards(output: Any) -> bool:
    """Whether a gradient of ``output`` goes through an operation whose backward the network brings itself."""
    ends = [leaf.grad_fn for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    return any(isinstance(node, BackwardCFunction) for node in nodes_of(ends))

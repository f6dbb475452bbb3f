"""Where channels lie in memory: a processor's convolutions are up to twice as fast where they lie last.

A network that takes its activations for contiguous refuses channels_last (``view``), or reads other values than it
means (``as_strided``), and a backward of its own may do so, too. Nobody can tell without running it: the first forward
is run so, and compared with one as the network is used to.

A backward with the channels last puts all weights in another order first. With one or two pictures that costs more than
it saves where weights are many and activations few (a ResNet's), so that there gradients are taken as ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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

#: values that a network's convolutions make for each pixel of its input, per weight that they have
_made: WeakKeyDictionary[nn.Module, float] = WeakKeyDictionary()
#: fewer values than so many per weight, and gradients are taken sooner as ever (measured on nine networks)
FEW_VALUES = 0.5

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


@contextmanager
def counted(network: nn.Module, inputs: Tensor) -> Iterator[None]:
    """Counts what the network's convolutions make of ``inputs``, which are run inside the block."""
    made = weights = 0

    def count(module: nn.Module, given: Any, output: Any) -> None:
        nonlocal made, weights
        if isinstance(output, Tensor):
            made += output.numel()
            weights += module.weight.numel()  # type: ignore[operator]

    # an own kind of convolution may pack its output; a traced module takes no hooks
    plain = [module for module in network.modules() if type(module) is nn.Conv2d]
    handles = [module.register_forward_hook(count) for module in plain]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    if weights:
        _made[network] = made / weights / (len(inputs) * inputs.shape[-2] * inputs.shape[-1])


def pays_backwards(network: nn.Module, inputs: Tensor) -> bool:
    """Whether gradients of these inputs are taken faster with the channels last, too."""
    each = _made.get(network)
    return each is None or each * len(inputs) * inputs.shape[-2] * inputs.shape[-1] >= FEW_VALUES


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

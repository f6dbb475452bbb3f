"""The guarantee that a person's network is left exactly as it was found.

Everything that runs a network in Convoscope does so inside :func:`untouched`, also what raises. Inside, the network
is in evaluation mode, gradients can be recorded, and no other thread of ours runs the same network.
"""

from __future__ import annotations

import random
import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn

_locks: weakref.WeakKeyDictionary[nn.Module, threading.RLock] = weakref.WeakKeyDictionary()
_locks_guard = threading.Lock()


def innermost(network: nn.Module) -> nn.Module:
    """The network inside ``torch.compile``'s, ``DataParallel``'s and ``DistributedDataParallel``'s wrappers."""
    while True:
        inner = getattr(network, "_orig_mod", None)
        if inner is None and isinstance(network, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = network.module
        if not isinstance(inner, nn.Module):
            return network
        network = inner


def lock_of(network: nn.Module) -> threading.RLock:
    """The one lock of this network: whoever runs it through Convoscope holds it."""
    inner = innermost(network)
    with _locks_guard:
        if inner not in _locks:
            _locks[inner] = threading.RLock()
        return _locks[inner]


def opaque_parts(network: nn.Module) -> bool:
    """Whether there are traced or scripted modules, inside which no hook fires and no operation can be seen."""
    return any(isinstance(module, torch.jit.ScriptModule) for module in network.modules())


def is_scripted(network: nn.Module) -> bool:
    """Whether the network itself is a scripted module (a traced one takes hooks on its outside, this one none)."""
    inner = innermost(network)
    # by name: torch.jit does not export the classes
    return isinstance(inner, torch.jit.ScriptModule) and not any(
        kind.__name__ == "TopLevelTracedModule" for kind in type(inner).__mro__
    )


def is_compiled(network: nn.Module) -> bool:
    return any(
        getattr(module, "_orig_mod", None) is not None or getattr(module, "_compiled_call_impl", None) is not None
        for module in network.modules()
    )


@contextmanager
def untouched(network: nn.Module, *, gradients: bool = True) -> Iterator[nn.Module]:
    """Run the network inside this block; afterwards it, its state and the random state are bit for bit as before.

    Kept: parameters' ``requires_grad`` and ``.grad``, buffers, every module's own ``training`` flag, hooks, the
    random states of torch (CPU and the network's CUDA devices), NumPy and Python. ``gradients=False`` runs the block
    without recording.
    """
    with lock_of(network), ExitStack() as stack:
        if is_compiled(network):  # importing the compiler costs seconds: only where there is one
            stack.enter_context(torch.compiler.set_stance("force_eager"))  # type: ignore[no-untyped-call]
        state = _State(network)
        try:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.set_grad_enabled(gradients))
            for module in network.modules():
                if module.training:
                    # not .eval(): a class may override train(), and its side effects are not ours to cause
                    module.training = False
            yield network
        finally:
            state.restore()


@contextmanager
def constant_parameters(network: nn.Module) -> Iterator[None]:
    """Inside the block only what depends on the input carries gradients; the caller holds :func:`untouched`."""
    trained = [p for p in network.parameters() if p.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


class _State:
    """What :func:`untouched` puts back."""

    def __init__(self, network: nn.Module) -> None:
        self.training = [(module, module.training) for module in network.modules()]
        self.parameters = [(p, p.requires_grad, p.grad) for p in network.parameters()]
        self.buffers = [
            (module, name, buffer, buffer.detach().clone())
            for module in network.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None and not isinstance(buffer, nn.parameter.UninitializedBuffer)
        ]
        self.hooks = [(module, _hooks(module)) for module in network.modules()]
        devices = {p.device.index or 0 for p in network.parameters() if p.device.type == "cuda"}
        self.cuda = [(device, torch.cuda.get_rng_state(device)) for device in devices]
        self.torch = torch.get_rng_state()
        self.numpy = np.random.get_state()
        self.python = random.getstate()

    def restore(self) -> None:
        for module, training in self.training:
            if module.training != training:
                module.training = training
        for parameter, requires_grad, grad in self.parameters:
            if parameter.requires_grad != requires_grad and parameter.is_leaf:
                parameter.requires_grad_(requires_grad)
            if parameter.grad is not grad:
                parameter.grad = grad
        with torch.no_grad():
            for module, name, buffer, value in self.buffers:
                if dict(module._buffers.items()).get(name) is not buffer:
                    module._buffers[name] = buffer
                if buffer.shape != value.shape or not _same(buffer, value):
                    buffer.data = value
        for module, hooks in self.hooks:
            for name, kept in hooks:
                now = getattr(module, name, None)
                if now is not None and len(now) != len(kept):
                    for key in [key for key in now if key not in kept]:
                        del now[key]
        for device, state in self.cuda:
            torch.cuda.set_rng_state(state, device)
        torch.set_rng_state(self.torch)
        np.random.set_state(self.numpy)
        random.setstate(self.python)


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _hooks(module: nn.Module) -> list[tuple[str, frozenset[int]]]:
    return [(name, frozenset(getattr(module, name, None) or ())) for name in _HOOKS]


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    # bit for bit: NaN equals NaN here
    if a.is_floating_point():
        return bool(((a == b) | (a.isnan() & b.isnan())).all())
    return bool(torch.equal(a, b))

"""The guarantee that a person's network is left exactly as it was found.

Everything that runs a network in Convoscope does so inside :func:`untouched`, also what raises. Inside, the network
is in evaluation mode, gradients can be recorded, and no other thread of ours runs the same network.
"""

from __future__ import annotations

import itertools
import random
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

#: id of a module, parameter or buffer -> itself, its turn in the one order in which locks are taken, and its lock
_locks: dict[int, tuple[weakref.ref[Any], int, threading.RLock]] = {}
_locks_guard = threading.Lock()
_turns = itertools.count()

#: what torch itself keeps in every module
_INTERNAL = frozenset(vars(nn.Module()))


def innermost(network: nn.Module) -> nn.Module:
    """The network inside ``torch.compile``'s, ``DataParallel``'s and ``DistributedDataParallel``'s wrappers."""
    while True:
        inner = getattr(network, "_orig_mod", None)
        if inner is None and isinstance(network, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = network.module
        if not isinstance(inner, nn.Module):
            return network
        network = inner


def every_module(network: nn.Module) -> list[nn.Module]:
    """The network's modules, each once, also those it holds in plain lists, tuples and dictionaries."""
    found: dict[int, nn.Module] = {}
    waiting: list[Any] = [network]
    while waiting:
        one = waiting.pop()
        if isinstance(one, nn.Module):
            if id(one) in found:
                continue
            found[id(one)] = one
            waiting.extend([inner for _, inner in one._modules.items()])
            if not _of_torch(one):
                waiting.extend(_held(value) for name, value in vars(one).items() if name not in _INTERNAL)
        elif isinstance(one, list):
            waiting.extend(one)
    return list(found.values())


def _held(value: Any) -> Any:
    """A plain attribute's modules."""
    if isinstance(value, nn.Module):
        return value
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [inner for inner in value if isinstance(inner, nn.Module)]
    return None


class _Locks:
    """Several locks taken as one, always in one order, so that no two threads wait for each other."""

    def __init__(self, locks: list[threading.RLock]) -> None:
        self._list = locks

    def __enter__(self) -> None:
        for number, lock in enumerate(self._list):
            try:
                lock.acquire()
            except BaseException:  # Ctrl-C while waiting
                for taken in reversed(self._list[:number]):
                    taken.release()
                raise

    def __exit__(self, *raised: object) -> None:
        for lock in reversed(self._list):
            lock.release()


def lock_of(network: nn.Module) -> _Locks:
    """The lock of this network: whoever runs it through Convoscope holds it (``with lock_of(network)``).

    Each module, parameter and buffer has its own, so two networks that share a part (two heads on one backbone) take
    turns, and two that share nothing do not wait for each other.
    """
    return _locks_of(every_module(network))


def _locks_of(modules: list[nn.Module]) -> _Locks:
    with _locks_guard:
        found: dict[int, threading.RLock] = {}
        for module in modules:
            parts: list[Any] = [module]
            if not isinstance(module, torch.jit.ScriptModule):
                parts += [t for t in (*module._parameters.values(), *module._buffers.values()) if t is not None]
            for part in parts:
                kept = _locks.get(id(part))
                if kept is None or kept[0]() is not part:
                    kept = _locks[id(part)] = (weakref.ref(part, _forget(id(part))), next(_turns), threading.RLock())
                found[kept[1]] = kept[2]
    return _Locks([found[turn] for turn in sorted(found)])


def _forget(key: int) -> Callable[[Any], None]:
    def gone(reference: Any) -> None:
        kept = _locks.get(key)
        if kept is not None and kept[0] is reference:  # not a newer object's at the same address
            del _locks[key]

    return gone


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


_eager_guard = threading.Lock()
#: blocks that are running without the compiler now, and the stance that the last of them puts back
_eager_blocks = 0
_eager_stance: Any = None


@contextmanager
def _eagerly() -> Iterator[None]:
    """Compiled code runs as it was written. The stance is the whole process's: the last of several threads ends it."""
    global _eager_blocks, _eager_stance
    with _eager_guard:
        if not _eager_blocks:
            try:
                _eager_stance = torch.compiler.set_stance("force_eager")  # type: ignore[no-untyped-call]
            except RuntimeError:  # called by code that is itself compiled: there the stance cannot be set
                _eager_stance = None
        _eager_blocks += 1
    try:
        yield
    finally:
        with _eager_guard:
            _eager_blocks -= 1
            if not _eager_blocks and _eager_stance is not None:
                _eager_stance.__exit__(None, None, None)
                _eager_stance = None


@contextmanager
def untouched(network: nn.Module, *, gradients: bool = True) -> Iterator[nn.Module]:
    """Run the network inside this block; afterwards it, its state and the random state are bit for bit as before.

    Kept: parameters' ``requires_grad`` and ``.grad``, buffers (also those that were ``None``), every module's own
    ``training`` flag, its plain attributes, and the random states of torch (CPU and the network's CUDA devices), NumPy
    and Python. No hook of ours stays. What a network does to itself once, at its first forward (it installs hooks of
    its own, or builds modules), stays as after any other forward: without it the network would be broken.
    ``gradients=False`` runs the block without recording.
    """
    modules = every_module(network)
    with _locks_of(modules), ExitStack() as stack:
        # importing the compiler costs more than a second: what it compiled can only be there where it is loaded
        if "torch._dynamo" in sys.modules:
            stack.enter_context(_eagerly())
        state = _State(modules)
        try:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.set_grad_enabled(gradients))
            for module, training in state.training:
                if training:
                    # not .eval(): a class may override train(), and its side effects are not ours to cause
                    _set_training(module, False)
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

    def __init__(self, modules: list[nn.Module]) -> None:
        self.modules = modules
        self.training = [(module, module.training) for module in self.modules]
        parameters = dict.fromkeys(p for module in modules for p in _own_parameters(module))
        self.parameters = [(p, p.requires_grad, p.grad) for p in parameters]
        self.buffers = [(module, dict(module._buffers.items())) for module in self.modules]
        kept = {id(b): b for _, named in self.buffers for b in named.values() if b is not None}
        self.plain = [
            (module, {name: value for name, value in vars(module).items() if name not in _INTERNAL})
            for module in self.modules
            if not _of_torch(module)
        ]
        for _, named in self.plain:
            kept.update({id(value): value for value in named.values() if type(value) is Tensor and value.is_leaf})
        self.values = [
            (tensor, tensor.detach().clone())
            for tensor in kept.values()
            if not isinstance(tensor, nn.parameter.UninitializedBuffer)
        ]
        self.shape = [_structure(module) for module in self.modules]
        self.hooks = [(module, _hooks(module)) for module in self.modules]
        devices = {p.device.index or 0 for p in parameters if p.device.type == "cuda"}
        self.cuda = [(device, torch.cuda.get_rng_state(device)) for device in devices]
        self.torch = torch.get_rng_state()
        self.numpy = np.random.get_state()
        self.python = random.getstate()

    def restore(self) -> None:
        for module, training in self.training:
            if module.training != training:
                _set_training(module, training)
        for parameter, requires_grad, grad in self.parameters:
            if parameter.requires_grad != requires_grad and parameter.is_leaf:
                parameter.requires_grad_(requires_grad)
            if parameter.grad is not grad:
                parameter.grad = grad
        for module, hooks in self.hooks:
            _remove_ours(module, hooks)
        with torch.no_grad():
            for tensor, value in self.values:
                if tensor.shape != value.shape or not _same(tensor, value):
                    tensor.data = value
        # a network that builds itself at its first forward keeps books of it in plain attributes: all or nothing
        if [_structure(module) for module in self.modules] == self.shape:
            for module, named in self.buffers:
                for name, buffer in named.items():
                    if dict(module._buffers.items()).get(name) is not buffer:
                        module._buffers[name] = buffer
            for module, named in self.plain:
                _put_back(module, named)
        for device, state in self.cuda:
            torch.cuda.set_rng_state(state, device)
        torch.set_rng_state(self.torch)
        np.random.set_state(self.numpy)
        random.setstate(self.python)


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _own_parameters(module: nn.Module) -> list[nn.Parameter]:
    if isinstance(module, torch.jit.ScriptModule):
        return list(module.parameters(recurse=False))
    return [p for p in module._parameters.values() if p is not None]


def _of_torch(module: nn.Module) -> bool:
    # torch's own classes keep books that reach outside Python (DistributedDataParallel's reducer)
    return isinstance(module, torch.jit.ScriptModule) or type(module).__module__.split(".")[0] == "torch"


def _structure(module: nn.Module) -> tuple[Any, ...]:
    """Hooks, modules, parameters and buffers by name: where a forward changes these, the network builds itself."""
    if isinstance(module, torch.jit.ScriptModule):
        return ()
    names = (tuple(module._modules), tuple(module._parameters), tuple(module._buffers))
    return (*names, *(tuple(getattr(module, name)) for name in _HOOKS))


def _hooks(module: nn.Module) -> list[tuple[str, frozenset[int]]]:
    return [(name, frozenset(getattr(module, name, None) or ())) for name in _HOOKS]


def _remove_ours(module: nn.Module, before: list[tuple[str, frozenset[int]]]) -> None:
    """Take away hooks of Convoscope's own that something raised past; the network's own stay."""
    package = __name__.split(".")[0]
    for name, kept in before:
        now = getattr(module, name, None)
        if now is None or len(now) == len(kept):
            continue
        for key in [key for key in now if key not in kept]:
            if str(getattr(now[key], "__module__", "")).split(".")[0] == package:
                del now[key]


def _put_back(module: nn.Module, named: dict[str, Any]) -> None:
    """The plain attributes of a module as they were: the same names, the same objects."""
    now = vars(module)
    for name in [name for name in now if name not in _INTERNAL and name not in named]:
        del now[name]
    for name, value in named.items():
        if now.get(name, _ABSENT) is not value:
            now[name] = value


_ABSENT = object()


def _set_training(module: nn.Module, training: bool) -> None:
    own = vars(module)
    if "training" in own:
        own["training"] = (
            training  # torch's __setattr__ looks through parameters and buffers first: ten times as long
        )
    else:
        module.training = training


def _same(a: Tensor, b: Tensor) -> bool:
    # bit for bit: NaN equals NaN here
    if torch.equal(a, b):  # far faster, and nearly always so
        return True
    return a.is_floating_point() and bool(((a == b) | (a.isnan() & b.isnan())).all())

"""Names for everything a forward pass produces, and one way to look at (or replace) what was named.

A module's output is named by the module's path, ``layer4.0.relu``; the second call of the same module in
one forward is ``layer4.0.relu#2``. A functional operation gets its operation's name under the module whose
``forward`` made it: ``features.relu#3`` is the third functional ReLU of ``features``, and ``relu`` at the
root is one made by the network's own ``forward``. Where a submodule already carries that name, the
functional one is ``functional_relu``, so that a module's names never depend on whether anyone looks for
functional operations.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Visit = Callable[[str, Any], Any]

_ACTIVATIONS = {
    "relu", "relu6", "threshold", "clamp_min", "clamp", "clip", "hardtanh", "leaky_relu", "prelu", "rrelu",
    "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish", "hardsigmoid",
    "sigmoid", "tanh", "softplus", "softsign", "tanhshrink", "hardshrink", "softshrink", "logsigmoid", "glu",
    "softmax", "log_softmax",
}  # fmt: skip
_POOLS = {f"{kind}_pool{n}d" for kind in ("max", "avg", "lp", "adaptive_max", "adaptive_avg") for n in (1, 2, 3)}
_POOLS |= {"fractional_max_pool2d", "fractional_max_pool3d", "mean"}
_NORMS = {"batch_norm", "layer_norm", "group_norm", "instance_norm", "local_response_norm", "rms_norm"}
_SHAPERS = {
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "linear",
}
_SHAPERS |= {"interpolate", "upsample", "pixel_shuffle", "pixel_unshuffle", "grid_sample"}
_SHAPERS |= {"cat", "scaled_dot_product_attention"}
_ALIASES = {
    "concat": "cat", "concatenate": "cat", "iadd": "add", "radd": "add", "imul": "mul", "rmul": "mul",
    "multiply": "mul", "clip": "clamp", "upsample": "interpolate",
    "max_pool1d_with_indices": "max_pool1d", "max_pool2d_with_indices": "max_pool2d",
    "max_pool3d_with_indices": "max_pool3d",
}  # fmt: skip
_ALWAYS = (_ACTIVATIONS | _POOLS | _NORMS | _SHAPERS) - {"mean"}
OPERATIONS = frozenset(_ALWAYS | {"mean", "add", "mul"})
"""Every name that a functional operation can have."""

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


def spelled(function: Any) -> str:
    """What an operation is called: ``relu_`` for ``Tensor.relu_``, for ``F.relu_`` and, in exported graphs, for the
    overloads that these call (``torch.ops.aten.relu_.default``)."""
    if isinstance(function, torch._ops.OpOverload):
        function = function.overloadpacket
    return str(getattr(function, "__name__", ""))


def module_paths(network: nn.Module) -> dict[str, nn.Module]:
    """The submodules by the names they are observed under, root excluded, in registration order.

    A module registered in two places has one name, its first. ``torch.compile``'s wrapper leaves no mark.
    """
    paths: dict[str, nn.Module] = {}
    for path, module in network.named_modules():
        name = ".".join(part for part in path.split(".") if part != "_orig_mod")
        if name:
            paths[name] = module
    return paths


def split_name(name: str) -> tuple[str, int]:
    """``"layer4.0.relu#2"`` to ``("layer4.0.relu", 2)``; a name without a number is the first call."""
    base, mark, number = name.rpartition("#")
    if mark and number.isdigit():
        return base, int(number)
    return name, 1


def operation_of(name: str) -> str | None:
    """The operation of a functional name (``"relu"`` for ``"features.relu#3"``), None for other names."""
    word = split_name(name)[0].rpartition(".")[2]
    while word.startswith("functional_"):
        word = word.removeprefix("functional_")
    return word if word in OPERATIONS else None


def opaque(module: nn.Module) -> bool:
    """Whether ``module`` is a leaf of ``torch.nn`` or derived from one (its operations have no names)."""
    if isinstance(module, _CONTAINERS) or next(module.children(), None) is not None:
        return False
    return any(
        kind.__module__.startswith("torch.nn.modules.") for kind in type(module).__mro__ if kind is not nn.Module
    )


def _operation(function: Callable[..., Any], args: tuple[Any, ...], output: Any) -> str | None:
    """The name under which the output of a functional operation is observed; None if it is not."""
    word = spelled(function).strip("_")
    word = _ALIASES.get(word, word)
    if word in _ALWAYS:
        return word
    if not isinstance(output, Tensor):
        return None
    tensors = [arg for arg in args[:2] if isinstance(arg, Tensor)]
    if word == "mean":  # global pooling spelt as a mean; the mean of a loss or of a weight is not of interest
        return word if tensors and tensors[0].dim() >= 3 and output.dim() >= 2 else None
    if len(tensors) < 2 or output.dim() != 4 or any(t.dim() != 4 or isinstance(t, nn.Parameter) for t in tensors):
        return None
    if word == "add":
        return word if tensors[0].shape == tensors[1].shape else None
    return word if word == "mul" else None


def first_tensor(output: Any) -> Tensor | None:
    """The tensor that a layer's output is, or the first that its tuple or dictionary holds; None where it has none."""
    if isinstance(output, Tensor):
        return output
    values = output.values() if isinstance(output, dict) else output if isinstance(output, (list, tuple)) else []
    return next((tensor for value in values if (tensor := first_tensor(value)) is not None), None)


class _Observer:
    """Counts calls, knows which module is running, and hands outputs to the visitor."""

    def __init__(self, network: nn.Module, visit: Visit, only: frozenset[str] | None) -> None:
        self.network = network
        self.visit = visit
        self.only = only
        self.paths = module_paths(network)
        self.names = {module: name for name, module in self.paths.items()}
        self.running: list[nn.Module] = []
        self.calls: dict[str, int] = {}
        self.bases: dict[tuple[nn.Module, str], str] = {}
        self.visiting = False

    def wants_operations(self) -> bool:
        return self.only is None or any(n not in self.paths and split_name(n)[0] not in self.paths for n in self.only)

    def next_name(self, base: str) -> str:
        while True:
            count = self.calls[base] = self.calls.get(base, 0) + 1
            name = base if count == 1 else f"{base}#{count}"
            if name == base or name not in self.paths:  # a submodule may really be called "relu#2"
                return name

    def hand_over(self, name: str, output: Any) -> Any:
        if self.visiting or (self.only is not None and name not in self.only):
            return None
        self.visiting = True
        try:
            return self.visit(name, output)
        finally:
            self.visiting = False

    # module hooks

    def begin(self, module: nn.Module, args: Any) -> None:
        self.calls.clear()  # every forward of the root counts from one
        self.running[:] = [module]

    def end(self, module: nn.Module, args: Any, output: Any) -> None:
        self.running.clear()

    def enter(self, module: nn.Module, args: Any) -> None:
        if not self.visiting:
            self.running.append(module)

    def leave(self, module: nn.Module, args: Any, output: Any) -> Any:
        if self.visiting:
            return None
        if module in self.running:  # an exception that the network itself caught may have left others on top
            while self.running.pop() is not module:
                pass
        return self.produced(module, args, output)

    def produced(self, module: nn.Module, args: Any, output: Any) -> Any:
        return None if self.visiting else self.hand_over(self.next_name(self.names[module]), output)

    # functional operations

    def base(self, scope: nn.Module, operation: str) -> str:
        key = (scope, operation)
        if key not in self.bases:
            path = self.names.get(scope, "")
            base = f"{path}.{operation}" if path else operation
            while base in self.paths:
                operation = f"functional_{operation}"
                base = f"{path}.{operation}" if path else operation
            self.bases[key] = base
        return self.bases[key]

    def operated(self, function: Callable[..., Any], args: tuple[Any, ...], output: Any) -> Any:
        """Visit the output of a functional operation; the replacement, or the output itself."""
        if self.visiting or not self.running or opaque(self.running[-1]):
            return output
        if isinstance(self.running[-1], torch.jit.ScriptModule):
            return output  # what a traced graph calls is no layer: neither its place nor its rule can be known
        operation = _operation(function, args, output)
        if operation is None:
            return output
        instead = self.hand_over(self.next_name(self.base(self.running[-1], operation)), output)
        return output if instead is None else instead


class _Operations(TorchFunctionMode):
    """Shows the observer every torch function that the network's own code calls."""

    def __init__(self, observer: _Observer) -> None:
        super().__init__()
        self.observer = observer

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self.observer.operated(func, args, func(*args, **(kwargs or {})))


@contextmanager
def observe(network: nn.Module, visit: Visit, *, only: Collection[str] | None = None) -> Iterator[None]:
    """Hand every named output of the forwards made inside the block to ``visit(name, output)``.

    Outputs come in the order produced, of modules and of functional operations alike, the root module
    excluded: a container comes after its members, although its output may be the very same tensor. Tuples
    and dictionaries are handed over as they are. Every forward of ``network`` counts repeated calls from
    one again.

    A tensor may be overwritten a moment after the visit, by an in-place ReLU for instance: clone what is
    kept.

    Args:
        network: the network whose forward is observed; its hooks are as before when the block ends. visit:
        called with the name and the output. A value other than None replaces the output for the rest of
            the forward. Operations and modules called by ``visit`` itself are not observed.
        only: the wanted names; all if None. With module names alone (repeats included) nothing but the
        hooks on
            those modules is installed, which costs microseconds; functional names need a closer look.

    Inside traced and scripted modules no hooks fire: only what fires is visited.
    """
    observer = _Observer(network, visit, None if only is None else frozenset(only))
    with ExitStack() as stack:

        def keep(handle: torch.utils.hooks.RemovableHandle) -> None:
            stack.callback(handle.remove)

        keep(network.register_forward_pre_hook(observer.begin))
        if observer.wants_operations():
            keep(network.register_forward_hook(observer.end, always_call=True))
            for module in observer.names:
                keep(module.register_forward_pre_hook(observer.enter))
                keep(module.register_forward_hook(observer.leave))
            stack.enter_context(_Operations(observer))
        else:
            wanted = {n if n in observer.paths else split_name(n)[0] for n in observer.only or ()}
            for name in wanted:
                keep(observer.paths[name].register_forward_hook(observer.produced))
        yield

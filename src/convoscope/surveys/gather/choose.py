"""Which layers a survey looks at when nobody says so: every activation with a grid, once, after its ReLU.

A network names the same units many times: as a convolution, after normalisation, after the ReLU, as the block's
output, pooled, and concatenated. What is kept is the end of each such chain: the output of an activation function,
and of what no activation function follows (a linear bottleneck, a residual sum). The chains are read off the autograd
graph of one forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...engine.fields.trace import Layer
from ...engine.passes.naming import split_name
from ...engine.passes.relu_rules import nodes_of
from ...errors import LayerError
from ...models.model import Model
from ...session import forward, protected
from ...targets.units import no_such_layer

_ACTIVATIONS = frozenset(
    [
        "relu",
        "relu6",
        "threshold",
        "clampmin",
        "clamp",
        "clip",
        "hardtanh",
        "leakyrelu",
        "prelu",
        "rrelu",
        "elu",
        "selu",
        "celu",
        "gelu",
        "silu",
        "mish",
        "hardswish",
        "hardsigmoid",
        "sigmoid",
        "tanh",
        "softplus",
        "softsign",
        "tanhshrink",
        "hardshrink",
        "softshrink",
        "logsigmoid",
        "glu",
        "swish",
    ]
)
#: what shows the same units again: smaller, side by side, scaled by a gate, or rearranged
_REPEATS = ("pool", "cat", "mul", "dropout", "identity", "interpolate", "upsample", "shuffle", "blurpool", "mean")
#: nodes that pass a unit on to what follows it
_PASSING = (
    "Add", "Sub", "Mul", "Div", "NativeBatchNorm", "CudnnBatchNorm", "NativeGroupNorm", "NativeLayerNorm", "Permute",
    "Transpose", "View", "Reshape", "UnsafeView", "Clone", "Copy", "Contiguous", "ToCopy", "Unsqueeze", "Squeeze",
    "Slice", "AsStrided", "ConstantPad", "Alias", "NativeDropout",
)  # fmt: skip
_ACTIVATION_NODES = (
    "Relu", "Hardtanh", "Threshold", "Clamp", "LeakyRelu", "Prelu", "Rrelu", "Elu", "Gelu", "Silu", "Mish",
    "Hardswish", "Softplus", "Tanh", "Selu", "Celu", "Softsign", "Glu",
)  # fmt: skip
_NORM_NODES = ("NativeBatchNorm", "CudnnBatchNorm", "NativeGroupNorm", "NativeLayerNorm")


def default_layers(model: Model, shape: Sequence[int]) -> list[str]:
    """The layers of a survey at input ``shape`` (C, H, W), in the order of the forward.

    Raises :class:`LayerError` where the network has no grid at all.
    """
    watched = model.watched(shape)
    grids = {
        name: layer
        for name, layer in watched.layers.items()
        # windows in the place of pictures (Swin's attention) and attention's weights are no units of a picture
        if layer.has_grid and layer.shape[0] == 1 and _word(layer) != "softmax"
    }
    if not grids:
        raise LayerError(f"{model.name} has no layer with a grid: name the layers with --layer.")
    made, following = _graph(model, shape, set(grids))
    chosen: list[str] = []
    seen: list[Any] = []
    for name, layer in grids.items():
        node = made.get(name)
        if node is not None and any(node is other for other in seen):
            continue
        if node is not None:
            seen.append(node)
        kind = _word(layer)
        if kind in _ACTIVATIONS or (not any(word in kind for word in _REPEATS) and _is_end(node, following)):
            chosen.append(name)
    last = watched.last_grid
    if chosen and last in grids and not any(made.get(last) is made.get(name) for name in chosen):
        # what `explain` looks at when nobody names a layer is known to the survey, too
        chosen = [name for name in grids if name in chosen or name == last]
    return chosen or list(grids)


def other_names(model: Model, shape: Sequence[int], layers: Sequence[str]) -> dict[str, str]:
    """Layers that hold the very values of one of ``layers``, by their names: a block's output is its last ReLU's.

    Args:
        model: the network.
        shape: of its input, (C, H, W).
        layers: the names that are known, such as a survey's.

    Returns:
        The known name by every other name of the same tensor, read off the autograd graph of one forward.
    """
    everything = list(model.watched(shape).layers)
    made, _ = _graph(model, shape, set(everything))
    known = [(made[name], name) for name in layers if name in made]
    found = {}
    for name in everything:
        if name in made and name not in layers:
            same = next((one for node, one in known if node is made[name]), None)
            if same is not None:
                found[name] = same
    return found


def named_layers(model: Model, names: Sequence[str], shape: Sequence[int]) -> list[str]:
    """The given layers, each once. Raises :class:`LayerError` for one that is not there or has no channels."""
    layers = model.watched(shape).layers
    for name in names:
        if name not in layers:
            raise LayerError(no_such_layer(name, list(layers)))
        if layers[name].shape[:1] not in ((), (1,)):
            raise LayerError(
                f"Layer {name!r} gives {layers[name].shape[0]} rows for one picture (windows or regions of it): a "
                "survey takes layers with one grid for each picture."
            )
        if len(layers[name].shape) not in (2, 4) and layers[name].prefix_tokens is None:
            raise LayerError(
                f"Layer {name!r} returns {'×'.join(map(str, layers[name].shape)) or 'no tensor'}: a "
                f"survey takes layers "
                "with channels, with a grid (batch×channels×rows×columns) or without (batch×channels)."
            )
    return list(dict.fromkeys(names))


def _word(layer: Layer) -> str:
    """The kind of a layer as one word: ``LeakyReLU`` and ``leaky_relu`` are the same."""
    return layer.kind.lower().replace("_", "").removesuffix("activation")


def _graph(model: Model, shape: Sequence[int], names: set[str]) -> tuple[dict[str, Any], dict[Any, list[Any]]]:
    """The autograd node that made each named output, and what follows every node."""
    made: dict[str, Any] = {}

    def visit(name: str, output: Tensor) -> None:
        if name in names and name not in made and output.grad_fn is not None:
            made[name] = output.grad_fn

    generator = torch.Generator().manual_seed(0)
    dtype = model.dtype if model.dtype.is_floating_point else torch.float32
    example = torch.randn((1, *shape), generator=generator).to(model.device, dtype).requires_grad_()
    with protected(model, visit, gradients=True):
        output = forward(model, example.clone())
        following: dict[Any, list[Any]] = {}
        for node in nodes_of([*made.values(), *(t.grad_fn for t in _tensors(output) if t.grad_fn is not None)]):
            for before, _ in node.next_functions:
                if before is not None:
                    following.setdefault(before, []).append(node)
    return made, following


def _is_end(node: Any, following: dict[Any, list[Any]]) -> bool:
    """Whether the units of ``node`` reach no normalisation, sum or activation that shows them again."""
    if node is None:
        return True
    waiting, seen = [node], {node}
    while waiting:
        for after in following.get(waiting.pop(), []):
            name = split_name(after.name())[0]
            if after in seen:
                continue
            seen.add(after)
            if name.startswith(_ACTIVATION_NODES) or name.startswith(_NORM_NODES) or name.startswith("Add"):
                # a bias is added to a linear layer's output, too, but then nothing is named in between
                return False
            if name.startswith(_PASSING):
                waiting.append(after)
    return True


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    values = output.values() if isinstance(output, dict) else output if isinstance(output, (list, tuple)) else []
    return [tensor for value in values for tensor in _tensors(value)]

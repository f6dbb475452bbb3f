"""How a convolution computes, in the network's own numbers: input × filter, summed, plus bias, then what follows.

Nothing is computed anew: the input, the weights, the output and every following step are what one forward of the
network itself took and gave. What is shown of one cell (weights × patch = value) is checked against that output.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ..engine.passes.naming import observe
from ..errors import LayerError, UsageError
from ..session import forward, protected

if TYPE_CHECKING:
    from ..models.model import Model

Floats = NDArray[np.float32]

#: functions that keep the number of cells: what they did to one cell can be told by its value before and after
_POINTWISE = {
    "relu", "relu_", "relu6", "hardtanh", "hardtanh_", "threshold", "threshold_", "clamp", "clamp_", "clamp_min",
    "leaky_relu", "leaky_relu_", "elu", "elu_", "selu", "celu", "gelu", "silu", "mish", "hardswish", "hardsigmoid",
    "sigmoid", "tanh", "softplus", "dropout",
}  # fmt: skip
_POOLS = {"max_pool2d", "avg_pool2d"}
_SUMS = {"conv2d", "linear"}


@dataclass(eq=False)
class Step:
    """What follows the convolution.

    Args:
        name: the layer's name; the function's where it has none.
        kind: ``batch_norm``, the activation's name (``relu``), ``max_pool2d`` or ``avg_pool2d``.
        values: what comes out, float32 ``[C, h, w]``.
        facts: of batch norm the arrays ``mean``, ``var``, ``weight``, ``bias`` ``[C]`` and ``eps``; of a pool
            ``kernel``, ``stride`` and ``padding``.
    """

    name: str
    kind: str
    values: Floats = field(repr=False)
    facts: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(eq=False)
class Convolution:
    """One convolution (or linear layer: a convolution of one cell) on one picture.

    Args:
        name: the layer's name.
        kind: ``conv2d`` or ``linear``.
        weight: ``[O, I / groups, kh, kw]``.
        bias: ``[O]``; None without.
        input: what came in, float32 ``[I, H, W]``.
        output: what went out, float32 ``[O, h, w]``.
        stride: rows, columns; so are ``dilation`` and ``before``.
        before: rows and columns of zeros above and to the left of the input.
        groups: of channels that do not see each other.
        steps: what follows it, as far as it goes straight on.
    """

    name: str
    kind: str
    weight: Floats = field(repr=False)
    bias: Floats | None = field(repr=False)
    input: Floats = field(repr=False)
    output: Floats = field(repr=False)
    stride: tuple[int, int]
    before: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    steps: list[Step] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """Of all arrays that are held."""
        arrays = [self.weight, self.input, self.output, *(step.values for step in self.steps)]
        return sum(one.nbytes for one in arrays)

    def patch(self, channel: int, row: int, col: int) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
        """The piece of the input that one cell sees, float32 ``[I / groups, kh, kw]``, NaN beyond the edge, with the
        rows and columns of the input that it lies at."""
        count, (kh, kw) = self.weight.shape[1], self.weight.shape[2:]
        first = channel // (len(self.weight) // self.groups) * count
        rows = row * self.stride[0] - self.before[0] + self.dilation[0] * np.arange(kh)
        cols = col * self.stride[1] - self.before[1] + self.dilation[1] * np.arange(kw)
        height, width = self.input.shape[1:]
        found = np.full((count, kh, kw), np.nan, np.float32)
        there_r, there_c = (rows >= 0) & (rows < height), (cols >= 0) & (cols < width)
        inside = self.input[first : first + count][:, rows[there_r]][:, :, cols[there_c]]
        found[:, np.flatnonzero(there_r)[:, None], np.flatnonzero(there_c)[None, :]] = inside
        return found, rows, cols

    def at(self, channel: int, row: int, col: int, most: int = 6) -> dict[str, Any]:
        """How one cell's value came about, as plain data.

        Args:
            channel: the output channel.
            row: the cell's row; ``col`` its column.
            most: input channels that are told one by one, those with the largest share of the sum.

        Returns:
            for each such input channel its patch, its weights and their products, the sum of all, of the others, the
            bias, the network's own value, and what each following step made of it.

        Raises:
            UsageError: there is no such cell.
        """
        channels, height, width = self.output.shape
        if not (0 <= channel < channels and 0 <= row < height and 0 <= col < width):
            raise UsageError(
                f"{self.name} has {channels} channels of {height}\u00d7{width} cells: there is no cell at channel "
                f"{channel}, row {row}, column {col}."
            )
        patch, rows, cols = self.patch(channel, row, col)
        weights = self.weight[channel]
        products = np.nan_to_num(patch).astype(np.float64) * weights
        sums = products.sum((1, 2))
        order = np.argsort(-np.abs(sums), kind="stable")[:most]
        first = channel // (channels // self.groups) * self.weight.shape[1]
        bias = 0.0 if self.bias is None else float(self.bias[channel])
        value = float(self.output[channel, row, col])
        return {
            "channel": channel, "row": row, "col": col, "rows": rows.tolist(), "cols": cols.tolist(),
            "inputs": [
                {
                    "channel": int(first + at), "patch": patch[at].tolist(), "weights": weights[at].tolist(),
                    "products": products[at].tolist(), "sum": float(sums[at]),
                }
                for at in sorted(order.tolist())
            ],
            "others": {"count": int(len(sums) - len(order)), "sum": float(sums.sum() - sums[order].sum())},
            "sum": float(sums.sum()), "bias": None if self.bias is None else bias, "value": value,
            "residual": float(sums.sum() + bias - value), "steps": self._after(channel, row, col),
        }  # fmt: skip

    def _after(self, channel: int, row: int, col: int) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = []
        before = self.output
        for step in self.steps:
            one: dict[str, Any] = {"name": step.name, "kind": step.kind, "shape": list(step.values.shape)}
            if step.kind in _POOLS:
                (kh, kw), (sh, sw), (ph, pw) = (step.facts[name] for name in ("kernel", "stride", "padding"))
                # the first of the pool's cells that sees this one
                to_r = max(0, -(-(row + ph - kh + 1) // sh))
                to_c = max(0, -(-(col + pw - kw + 1) // sw))
                if to_r >= step.values.shape[1] or to_c >= step.values.shape[2]:
                    break
                top, left = max(0, to_r * sh - ph), max(0, to_c * sw - pw)
                window = before[channel, top : to_r * sh - ph + kh, left : to_c * sw - pw + kw]
                one |= {"window": window.tolist(), "top": top, "left": left}
                row, col = to_r, to_c
            elif step.kind == "batch_norm":
                one["facts"] = {name: float(step.facts[name][channel]) for name in ("mean", "var", "weight", "bias")}
                one["facts"]["eps"] = step.facts["eps"]
            one |= {"row": row, "col": col, "value": float(step.values[channel, row, col])}
            told.append(one)
            before = step.values
        return told


def convolution(model: Model, picture: Any, layer: str | None = None) -> Convolution:
    """The numbers of a convolution on a picture.

    Args:
        model: the network, left as it was.
        picture: anything that is a picture.
        layer: a convolution or linear layer; for another layer the convolution that ran last before it; None for the
            first one.

    Returns:
        its input, weights, output, and what follows it.

    Raises:
        LayerError: no such layer, or no 2-D convolution runs before it.
    """
    fitted = model.prepare(picture)
    names = _run(model, fitted, None)[0]
    called = [name for name, is_sum in names if is_sum]
    if not called:
        raise LayerError(f"{model.name} runs no 2-D convolution and no linear layer on this picture.")
    wanted = called[0] if layer is None else _choose(layer, names, model.name)
    place = called.index(wanted)
    found = _run(model, fitted, place)[1]
    assert found is not None
    return found


def _choose(layer: str, names: Sequence[tuple[str, bool]], network: str) -> str:
    listed = [name for name, _ in names]
    if layer not in listed:
        import difflib

        near = difflib.get_close_matches(layer, listed, 3, 0.3) or listed[:3]
        raise LayerError(f"{network} has no layer {layer!r}. Nearest: {', '.join(near)}.")
    last = None
    for name, is_sum in names:
        last = name if is_sum else last
        if name == layer:
            break
    if last is None:
        raise LayerError(f"No convolution of {network} runs before {layer}.")
    return last


def _run(model: Model, fitted: Any, place: int | None) -> tuple[list[tuple[str, bool]], Convolution | None]:
    """One forward: the layers in order, and whether each is a sum of products; the numbers of the one at ``place``."""
    listening = _Listening(place)
    names: list[tuple[str, bool]] = []

    def visit(name: str, output: Any) -> None:
        if not isinstance(output, Tensor):
            return
        is_sum = listening.named(name, output)
        names.append((name, is_sum))

    # the naming stands outside: a function is heard of first, and then named
    with protected(model), listening, observe(model.module, visit):
        forward(model, model.inputs([fitted]))
    return names, listening.made()


class _Listening(TorchFunctionMode):
    """Hears of every function that the network calls, and follows the output of one of them."""

    def __init__(self, place: int | None) -> None:
        super().__init__()
        self.place = place
        self.count = 0
        self.latest: tuple[Tensor, bool] | None = None  # the output of the last sum, and whether it has its name
        self.here: dict[str, Any] | None = None
        self.current: Tensor | None = None
        self.chain: list[dict[str, Any]] = []
        self.ended = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        word = getattr(func, "__name__", "")
        first = args[0] if args else given.get("input")
        follows = self.current is not None and not self.ended and first is self.current
        taken = isinstance(first, Tensor) and word in _SUMS and self.count == self.place
        before = first.detach().clone() if isinstance(first, Tensor) and taken else None
        output = func(*args, **given)
        if word in _SUMS and isinstance(output, Tensor) and _is_plain(word, first):
            if self.count == self.place:
                self.here = {"word": word, "input": before, "output": output.detach().clone(),
                             **_arguments(word, args, given)}  # fmt: skip
                self.current = output
            self.count += 1
            self.latest = (output, False)
        elif follows and isinstance(output, Tensor):
            self._follow(word, func, args, given, output)
        return output

    def _follow(
        self, word: str, func: Callable[..., Any], args: tuple[Any, ...], given: dict[str, Any], output: Tensor
    ) -> None:
        step: dict[str, Any] = {"word": word.rstrip("_"), "name": "", "facts": {}}
        if word == "batch_norm":
            facts = _norm(func, args, given)
            if facts is None:
                self.ended = True
                return
            step["facts"] = facts
        elif word in _POOLS:
            step["facts"] = _pool(func, args, given)
        elif word == "_max_pool2d":
            step |= {"word": "max_pool2d", "facts": _pool(func, args, given)}
        elif word not in _POINTWISE:
            # looking at a shape or an attribute changes nothing; anything else ends what goes straight on
            self.ended = not word.startswith("__get") and word not in ("size", "dim", "requires_grad_", "detach")
            return
        step["output"] = output.detach().clone()
        self.chain.append(step)
        self.current = output

    def named(self, name: str, output: Tensor) -> bool:
        """Hear a layer's name; whether it is that of the last sum."""
        if self.latest is not None and output is self.latest[0] and not self.latest[1]:
            self.latest = (output, True)
            if self.here is not None and "name" not in self.here:
                self.here["name"] = name
            return True
        for step in self.chain:
            if not step["name"] and output is self.current and step is self.chain[-1]:
                step["name"] = name
        return False

    def made(self) -> Convolution | None:
        if self.here is None:
            return None
        one = self.here
        steps = [
            Step(step["name"] or step["word"], step["word"], _plane(step["output"]), step["facts"])
            for step in self.chain
        ]
        weight = one["weight"].detach().float().cpu().numpy()
        bias = None if one["bias"] is None else one["bias"].detach().float().cpu().numpy()
        if one["word"] == "linear":
            weight = weight[:, :, None, None]
        return Convolution(
            one.get("name", one["word"]), one["word"], weight, bias, _plane(one["input"]), _plane(one["output"]),
            one["stride"], one["before"], one["dilation"], one["groups"], steps,
        )  # fmt: skip


def _is_plain(word: str, first: Any) -> bool:
    """A convolution of pictures, or a linear layer of one vector a picture."""
    return isinstance(first, Tensor) and first.dim() == (4 if word == "conv2d" else 2)


def _plane(values: Tensor) -> Floats:
    one = values[0].float().cpu()
    return np.ascontiguousarray((one if one.dim() == 3 else one.reshape(-1, 1, 1)).numpy())


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, (tuple, list)):
        return (int(value[0]), int(value[-1]))
    return (int(value), int(value))


def _arguments(word: str, args: tuple[Any, ...], given: dict[str, Any]) -> dict[str, Any]:
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    said: dict[str, Any] = {**dict(zip(names, args, strict=False)), **given}
    weight, bias = said["weight"], said.get("bias")
    if word == "linear":
        return {"weight": weight, "bias": bias, "stride": (1, 1), "before": (0, 0), "dilation": (1, 1), "groups": 1}
    dilation = _pair(said.get("dilation", 1))
    padding = said.get("padding", 0)
    if padding == "same":
        before = tuple(dilation[axis] * (weight.shape[2 + axis] - 1) // 2 for axis in (0, 1))
    else:
        before = (0, 0) if padding == "valid" else _pair(padding)
    return {"weight": weight, "bias": bias, "stride": _pair(said.get("stride", 1)), "before": before,
            "dilation": dilation, "groups": int(said.get("groups", 1))}  # fmt: skip


def _norm(func: Callable[..., Any], args: tuple[Any, ...], given: dict[str, Any]) -> dict[str, Any] | None:
    if func is not F.batch_norm:
        return None
    said = inspect.signature(F.batch_norm).bind(*args, **given)
    said.apply_defaults()
    told = said.arguments
    mean, var = told["running_mean"], told["running_var"]
    if mean is None or var is None or told["training"]:
        return None  # the batch's own statistics: no numbers of the network's
    ones, zeros = torch.ones_like(mean), torch.zeros_like(mean)
    weight = ones if told["weight"] is None else told["weight"]
    bias = zeros if told["bias"] is None else told["bias"]
    arrays = {"mean": mean, "var": var, "weight": weight, "bias": bias}
    return {**{name: one.detach().float().cpu().numpy() for name, one in arrays.items()}, "eps": float(told["eps"])}


def _pool(func: Callable[..., Any], args: tuple[Any, ...], given: dict[str, Any]) -> dict[str, Any]:
    names = ("input", "kernel_size", "stride", "padding")
    said: dict[str, Any] = {**dict(zip(names, args, strict=False)), **given}
    kernel = _pair(said["kernel_size"])
    stride = said.get("stride")
    return {"kernel": kernel, "stride": kernel if stride in (None, []) else _pair(stride),
            "padding": _pair(said.get("padding", 0))}  # fmt: skip


__all__ = ["Convolution", "Step", "convolution"]

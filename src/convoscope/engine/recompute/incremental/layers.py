"""The operations that the engine runs by itself: convolution, affine map, pooling.

Each is called on whole maps (its own padding applied) and offers ``valid`` for tiles whose surroundings are
already there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from convoscope.engine.recompute.incremental import winograd

Pads = tuple[int, int, int, int]
"""Rows above, columns left, rows below, columns right."""


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    items = tuple(int(item) for item in value)
    return (items[0], items[0]) if len(items) == 1 else (items[0], items[1])


@dataclass(frozen=True)
class Window:
    """A sliding window: kernel, stride, dilation (rows, columns), padding and what it is padded with."""

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    value: float = 0.0

    @property
    def reach(self) -> tuple[int, int]:
        """Cells from the first to the last one that the kernel reads, both included."""
        (kh, kw), (dh, dw) = self.kernel, self.dilation
        return (kh - 1) * dh + 1, (kw - 1) * dw + 1

    @property
    def pointwise(self) -> bool:
        """Whether each output cell reads just the input cell at its own place."""
        return self.kernel == (1, 1) and self.stride == (1, 1) and self.pads == (0, 0, 0, 0)


@dataclass(frozen=True, eq=False, repr=False)
class Conv:
    """2-D convolution with weights of its own. ``weight``: [out, in / groups, kh, kw]."""

    weight: Tensor
    bias: Tensor | None
    window: Window
    groups: int = 1
    #: Negative results are set to zero before they are written, which spares a reading and a writing of the map.
    rectified: bool = False
    _prepared: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(
        cls, weight: Tensor, bias: Tensor | None, stride: int | Sequence[int], padding: int | str | Sequence[int],
        dilation: int | Sequence[int], groups: int,
    ) -> Conv:  # fmt: skip
        """From the arguments of ``aten.conv2d``, also with ``padding="same"`` or ``"valid"``."""
        kernel, step, spread = (weight.shape[2], weight.shape[3]), _pair(stride), _pair(dilation)
        if isinstance(padding, str):
            total = [(k - 1) * d if padding == "same" else 0 for k, d in zip(kernel, spread, strict=True)]
            pads = (total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2)
        else:
            rows, columns = _pair(padding)
            pads = (rows, columns, rows, columns)
        return cls(weight, bias, Window(kernel, step, spread, pads), groups)

    def then(self, affine: Affine) -> Conv:
        """This convolution followed by an affine map of its channels, as one convolution."""
        weight = (self.weight.double() * affine.scale.view(-1, 1, 1, 1)).to(self.weight.dtype)
        bias = affine.shift if self.bias is None else self.bias.double() * affine.scale + affine.shift
        return replace(self, weight=weight, bias=bias.to(self.weight.dtype), _prepared={})

    def then_relu(self) -> Conv:
        """This convolution followed by a ReLU, as one step."""
        return replace(self, rectified=True, _prepared={})

    def to(self, dtype: torch.dtype) -> Conv:
        """The same with weights (and so results) of another precision."""
        bias = None if self.bias is None else self.bias.to(dtype)
        return replace(self, weight=self.weight.to(dtype), bias=bias, _prepared={})

    def products(self) -> int:
        """Multiply-adds per output cell (all channels)."""
        return self.weight.numel()

    def __call__(self, x: Tensor) -> Tensor:
        """On whole maps [N, in, H, W], with the padding."""
        top, left, bottom, right = self.window.pads
        if (top, left) == (bottom, right) and not self._wins(x, top + bottom, left + right):
            return self._direct(x, (top, left))
        return self.valid(pad(x, self.window.pads))

    def valid(self, x: Tensor) -> Tensor:
        """On tiles that bring their surroundings with them: no padding."""
        if self._wins(x, 0, 0):
            return winograd.convolve(x, self._winograd_weights(), self.bias, rectify=self.rectified)
        return self._direct(x, (0, 0))

    def _direct(self, x: Tensor, padding: tuple[int, int]) -> Tensor:
        window = self.window
        x = x.to(self.weight.dtype).contiguous(memory_format=torch.channels_last)
        packed, packed_conv = self._packed_weights(x, padding), _packed_convolution()
        if packed is None or packed_conv is None:
            weight = self._prepared.get("plain")
            if weight is None:
                weight = self._prepared["plain"] = self.weight.contiguous(memory_format=torch.channels_last)
            out = F.conv2d(x, weight, self.bias, window.stride, padding, window.dilation, self.groups)
            return out.relu_() if self.rectified else out
        last = "relu" if self.rectified else "none"
        return packed_conv(x, packed, self.bias, padding, window.stride, window.dilation, self.groups, last, [], "")

    def prepared_bytes(self) -> int:
        """Memory of the forms of the weights that have been prepared so far."""
        return sum(item.numel() * self.weight.element_size() for item in self._prepared.values())

    def _packed_weights(self, x: Tensor, padding: tuple[int, int]) -> Tensor | None:
        """Weights in oneDNN's own order, so that small batches do not pay for reordering them each time."""
        if not _packs(x) or "unpackable" in self._prepared:
            return None
        window = self.window
        key = "packed"
        if window.kernel == (1, 1) and self.groups == 1:
            threads = torch.get_num_threads()
            key += _layout(*self.weight.shape[:2], window.stride, x.dtype, x.shape[2], x.shape[3], threads)
        if key not in self._prepared:
            try:
                self._prepared[key] = torch.ops.mkldnn._reorder_convolution_weight(
                    self.weight.contiguous(), padding, window.stride, window.dilation, self.groups, list(x.shape)
                )
            except RuntimeError:  # oneDNN has no order of its own for some groups: the plain weights do as well
                self._prepared["unpackable"] = self.weight.new_empty(0)
                return None
        return self._prepared[key]

    def _winograd_weights(self) -> Tensor:
        if "winograd" not in self._prepared:
            self._prepared["winograd"] = winograd.transform_weights(self.weight)
        return self._prepared["winograd"]

    def _wins(self, x: Tensor, extra_rows: int, extra_columns: int) -> bool:
        """Whether the Winograd form is faster, by what was measured: it needs channels and enough blocks."""
        window = self.window
        if (
            window.kernel != (3, 3) or window.stride != (1, 1) or window.dilation != (1, 1) or self.groups != 1
            or x.device.type != "cpu" or {x.dtype, self.weight.dtype} != {torch.float32}
        ):  # fmt: skip
            return False
        outputs, inputs = self.weight.shape[:2]
        if min(inputs, outputs) < 64:
            return False
        high, wide = x.shape[2] + extra_rows - 2, x.shape[3] + extra_columns - 2
        count = winograd.blocks(high, wide)
        gain, least = 9 * high * wide / (count * winograd.EDGE**2), min(inputs, outputs)
        if x.shape[0] * count < (64 if least < 256 else 96):
            return False
        if _has_tiles():
            return least >= 96 and gain > (3.2 if least < 192 else 2.9 if least < 512 else 2.0)
        return gain > (2.9 if least < 128 else 2.0)


@dataclass(frozen=True, eq=False, repr=False)
class Affine:
    """``x * scale + shift`` for each channel: batch norm in evaluation mode. Both float64 [C]."""

    scale: Tensor
    shift: Tensor
    dtype: torch.dtype
    _prepared: dict[str, Tensor] = field(default_factory=dict)

    def to(self, dtype: torch.dtype) -> Affine:
        """The same with results of another precision."""
        return replace(self, dtype=dtype, _prepared={})

    def __call__(self, x: Tensor) -> Tensor:
        shape = (-1,) + (1,) * (x.dim() - 2)
        if "scale" not in self._prepared:
            self._prepared["scale"] = self.scale.to(self.dtype).view(shape)
            self._prepared["shift"] = self.shift.to(self.dtype).view(shape)
        return torch.addcmul(self._prepared["shift"], x.to(self.dtype), self._prepared["scale"])


@dataclass(frozen=True, eq=False, repr=False)
class MaxPool:
    """2-D max pooling. Padding counts as minus infinity."""

    window: Window
    ceil: bool

    @classmethod
    def of(
        cls, kernel: int | Sequence[int], stride: int | Sequence[int] | None = None, padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1, ceil: bool = False,
    ) -> MaxPool:  # fmt: skip
        """From the arguments of ``aten.max_pool2d``."""
        step = _pair(stride) if stride is not None and stride != [] else _pair(kernel)
        rows, columns = _pair(padding)
        pads = (rows, columns, rows, columns)
        return cls(Window(_pair(kernel), step, _pair(dilation), pads, -float("inf")), ceil)

    def __call__(self, x: Tensor) -> Tensor:
        """On whole maps."""
        w = self.window
        return F.max_pool2d(x, w.kernel, w.stride, w.pads[:2], w.dilation, self.ceil)

    def valid(self, x: Tensor) -> Tensor:
        """On tiles with their surroundings."""
        return F.max_pool2d(x, self.window.kernel, self.window.stride, 0, self.window.dilation)


@dataclass(frozen=True, eq=False, repr=False)
class AvgPool:
    """2-D average pooling, with every rule for what counts at the border."""

    window: Window
    ceil: bool
    count_padding: bool
    divisor: int | None

    @classmethod
    def of(
        cls, kernel: int | Sequence[int], stride: int | Sequence[int] | None = None, padding: int | Sequence[int] = 0,
        ceil: bool = False, count_padding: bool = True, divisor: int | None = None,
    ) -> AvgPool:  # fmt: skip
        """From the arguments of ``aten.avg_pool2d``."""
        step = _pair(stride) if stride is not None and stride != [] else _pair(kernel)
        rows, columns = _pair(padding)
        return cls(Window(_pair(kernel), step, (1, 1), (rows, columns, rows, columns)), ceil, count_padding, divisor)

    def __call__(self, x: Tensor) -> Tensor:
        """On whole maps."""
        w = self.window
        return F.avg_pool2d(x, w.kernel, w.stride, w.pads[:2], self.ceil, self.count_padding, self.divisor)

    def valid(self, x: Tensor) -> Tensor:
        """Plain mean of each window on tiles with their (zero) surroundings; see :meth:`correction`."""
        return F.avg_pool2d(x, self.window.kernel, self.window.stride, 0)

    def correction(self, height: int, width: int, like: Tensor) -> Tensor | None:
        """[1, 1, H', W']: what the plain mean must be multiplied with at each output cell; None if always 1."""
        ones = like.new_ones((1, 1, height, width))
        kernel = self.window.kernel[0] * self.window.kernel[1]
        right = self(ones)
        plain = F.avg_pool2d(
            pad(ones, enough_pads(self.window, (height, width), (right.shape[2], right.shape[3]))),
            self.window.kernel, self.window.stride, 0,
        )[:, :, : right.shape[2], : right.shape[3]]  # fmt: skip
        del kernel
        factor = right / plain
        return None if bool((factor == 1).all()) else factor


def enough_pads(window: Window, size: tuple[int, int], out: tuple[int, int]) -> Pads:
    """The padding with which ``out`` cells can be computed without special cases (ceil mode needs more)."""
    needed = [(o - 1) * s + r for o, s, r in zip(out, window.stride, window.reach, strict=True)]
    top, left = window.pads[:2]
    return top, left, max(0, needed[0] - size[0] - top), max(0, needed[1] - size[1] - left)


def pad(x: Tensor, pads: Pads, value: float = 0.0) -> Tensor:
    """[N, C, H, W] with ``value`` around it."""
    top, left, bottom, right = pads
    if pads == (0, 0, 0, 0):
        return x
    return F.pad(x, (left, right, top, bottom), value=value)


@cache
def _has_tiles() -> bool:
    """Whether the processor has AMX: such have two units for 512 bits, which halves the time of plain convolutions."""
    asked = getattr(torch.cpu, "_is_amx_tile_supported", None)  # torch tells from 2.6 on
    return bool(asked is not None and asked())


@cache
def _packed_convolution() -> Callable[..., Tensor] | None:
    """oneDNN's convolution with packed weights (what PyTorch's own compiler calls), where this build has it."""
    try:
        ops = torch.ops.mkldnn
        return ops._convolution_pointwise.default if ops._reorder_convolution_weight.default else None
    except (AttributeError, RuntimeError):
        return None


@cache
def _layout(
    outputs: int, inputs: int, stride: tuple[int, int], dtype: torch.dtype, height: int, width: int, threads: int
) -> str:
    """The name of oneDNN's order of the weights of a 1x1 convolution on maps of this size (two or three there are).

    Weights in another order than the one that a size asks for are put in order again at every call, by code that
    takes up to fifteen times as long as the convolution itself (measured with 512 channels and tiles of 10x13).
    """
    try:
        packed = torch.ops.mkldnn._reorder_convolution_weight(
            torch.zeros((outputs, inputs, 1, 1), dtype=dtype), (0, 0), stride, (1, 1), 1, [1, inputs, height, width]
        )
        return hashlib.sha256(torch.ops.mkldnn._get_mkldnn_serialized_md(packed).numpy().tobytes()).hexdigest()
    except (AttributeError, RuntimeError):  # without its name, one order must do for all sizes
        return ""


def _packs(x: Tensor) -> bool:
    return (
        x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16)
        and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
        and bool(torch.backends.mkldnn.enabled) and _packed_convolution() is not None
    )  # fmt: skip

"""Where the channels and the cells of a layer's output lie.

Networks give grids as batch × channels × rows × columns, as batch × rows × columns × channels (Swin, MLP-like
networks), as sequences of tokens (transformers: class and register tokens first, then the grid row by row), and
vectors. Whoever reads a layer asks here, so that a channel is the same thing everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """How one layer's output is laid out.

    Args:
        channels_last: a grid ``[B, rows, columns, channels]``, or a sequence ``[B, tokens, channels]``.
        prefix_tokens: of a sequence of tokens that holds a grid, the class and register tokens before it.
        cells: rows and columns of that grid.
    """

    channels_last: bool = False
    prefix_tokens: int | None = None
    cells: tuple[int, int] | None = None

    def axis(self, ndim: int) -> int:
        """The axis of the channels in an output of ``ndim`` dimensions, batch included."""
        return ndim - 1 if ndim > 2 and (self.channels_last or (ndim == 3 and self.prefix_tokens is not None)) else 1

    def channels(self, shape: Sequence[int]) -> int:
        """How many channels an output of ``shape`` has; 0 where it has no channels at all."""
        return int(shape[self.axis(len(shape))]) if len(shape) > 1 else 0

    def planes(self, values: Tensor) -> Tensor:
        """The output with its channels on axis 1: ``[B, C]``, ``[B, C, h, w]`` or ``[B, C, ...]``.

        Tokens become their grid; class and register tokens have no place in it and are left out. A sequence whose
        grid is not known stays a row of tokens, ``[B, C, N]``.
        """
        if values.ndim == 3 and self.prefix_tokens is not None and self.cells is not None:
            rows, cols = self.cells
            if values.shape[1] - self.prefix_tokens == rows * cols:
                return values[:, self.prefix_tokens :].transpose(1, 2).reshape(len(values), -1, rows, cols)
        return values.movedim(self.axis(values.ndim), 1) if values.ndim > 2 else values


#: channels on axis 1: what convolutions and linear layers on vectors give
PLAIN = Layout()

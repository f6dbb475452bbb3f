"""What one watched forward has shown of a network: its layers, and which of them stand out."""

from __future__ import annotations

from dataclasses import dataclass

from convoscope.engine.fields.geometry import Geometry
from convoscope.engine.fields.layout import Layout

#: modules whose channels are the last axis of a sequence
_ON_THE_LAST_AXIS = frozenset({"Linear", "LayerNorm", "RMSNorm", "MultiheadAttention"})


@dataclass(frozen=True)
class Layer:
    """One named output of the forward."""

    name: str
    kind: str
    """The module's type, or the functional operation."""
    shape: tuple[int, ...]
    """Of the first tensor of the output, batch included; empty if there is none."""
    parameters: int
    """Elements of all parameters of the module and its members."""
    functional: bool
    geometry: Geometry | None
    why_no_geometry: str | None
    """What to tell a person, as the end of the sentence "... has no geometry because"."""
    index: int
    """The position in the order of the forward."""
    relu: bool
    """Whether the values come straight from a ReLU-like operation."""
    relus: int
    """How many ReLU-like operations lie between the picture and this output."""
    channels_last: bool
    """Whether a grid is ``[batch, rows, columns, channels]``."""
    single: bool = True
    """Whether the output is one tensor, which can be kept and has a gradient; not a tuple or a dictionary of some."""
    prefix_tokens: int | None = None
    """Of a sequence of tokens ``[batch, tokens, channels]`` that holds a grid: the class and register tokens before
    it. None for everything else."""

    @property
    def has_grid(self) -> bool:
        """Whether the output is a grid of more than one cell for each channel."""
        if self.prefix_tokens is not None:
            return True
        if len(self.shape) != 4:
            return False
        rows, cols = self.shape[1:3] if self.channels_last else self.shape[2:]
        return self.geometry is not None or rows * cols > 1

    @property
    def layout(self) -> Layout:
        """Where the channels and the cells of the output lie."""
        # a linear layer and its norm work on the last axis, whatever the other axes mean
        last = self.channels_last or (len(self.shape) == 3 and self.kind in _ON_THE_LAST_AXIS)
        return Layout(last, self.prefix_tokens, self.geometry.cells if self.geometry is not None else None)

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of the output's grid; ``None`` where it has none."""
        if self.prefix_tokens is not None and self.geometry is not None:
            return self.geometry.cells
        if len(self.shape) != 4:
            return None
        rows, cols = self.shape[1:3] if self.channels_last else self.shape[2:]
        return rows, cols

    @property
    def channels(self) -> int:
        """How many channels the output has; 0 where it has none."""
        return self.layout.channels(self.shape)


@dataclass(frozen=True)
class NetworkTrace:
    """What one watched forward has shown of a network, for one shape of input."""

    layers: dict[str, Layer]
    """All named outputs, in the order produced."""
    relus: int
    """ReLU-like operations executed on what depends on the picture."""
    output_relus: int
    """Those of them that the network's output depends on."""
    other_activations: int
    """Activations that no ReLU rule applies to: leaky, smooth, and bounded ones."""
    doubts: tuple[str, ...]
    last_grid: str | None
    """The last layer whose cells still have a place, before the class scores."""
    embedding: str | None
    """The layer whose output, pooled, is what the classifier gets."""
    classifier: str | None
    """The layer that makes the scores; its input is the embedding exactly."""
    input_shape: tuple[int, ...]
    output_shapes: tuple[tuple[int, ...], ...]
    levels: tuple[str, ...] = ()
    """Of a detector: the layers that its heads get, a feature pyramid's levels."""
    handmade: int = 0
    """Gates by a value's own sign that the output depends on, spelt by hand: no rule can be put on them."""
    other_grids: tuple[str, ...] = ()
    """Where no grid is crossed by every path: the last grids of the other paths, beside ``last_grid``."""

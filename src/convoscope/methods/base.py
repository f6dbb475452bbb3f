"""What a method is, and what it sees.

A method is a frozen dataclass: its fields are its settings, ``about`` says what it is, and ``steps(query)`` is a
generator that yields needs, receives answers and returns :class:`Maps`. Methods never run a network and never see
autograd; modules of methods import no torch at the top, so that listing them is instant.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import LayerError, MethodRefused
from .settings import parse_settings, setting

if TYPE_CHECKING:
    from torch import Tensor

    from ..engine.fields.geometry import Geometry
    from ..engine.fields.trace import NetworkTrace
    from ..engine.passes.needs import Need
    from ..engine.recompute.choose import Report
    from ..models.model import Model
    from ..pictures.picture import ModelInput
    from ..targets.base import Scorer

    Steps = Generator[Need | tuple[Need, ...], Mapping[Need, Tensor], "Maps"]


@dataclass(frozen=True)
class About:
    """What a person is told of a method."""

    name: str
    title: str
    shows: str
    paper: str
    bibtex: str
    signed: bool
    unit: str
    reduction: str = ""
    cost: str = "1 forward, 1 backward"
    #: needs hundreds of passes: `--method all` leaves it out, and says so
    slow: bool = False
    #: follows another rule for the ReLU's backward pass
    rule: str = "plain"


@dataclass(frozen=True)
class Method:
    """Base of all methods that give one map per picture."""

    about: ClassVar[About]

    def __post_init__(self) -> None:
        for name, value in parse_settings(type(self), vars(self)).items():
            object.__setattr__(self, name, value)

    def files(self) -> tuple[Path, ...]:
        """The files and folders that a setting names: hashed into resume keys, refused from the page."""
        named = (getattr(self, f.name) for f in fields(self) if f.metadata.get("files"))
        return tuple(Path(one) for one in named if isinstance(one, (str, Path)))

    def steps(self, query: Query) -> Steps:
        """Yield needs, receive answers, return maps."""
        raise MethodRefused(f"{type(self).__name__} has no steps.")


@dataclass(eq=False)
class Part:
    """One channel's share of a CAM: its weight times its activation."""

    channel: int
    weight: float
    grid: Tensor


@dataclass(eq=False)
class Maps:
    """A batch of maps: ``values`` ``[B, H, W]`` at input resolution in the method's own unit."""

    values: Tensor
    signed: bool
    unit: str
    reduction: str = ""
    grid: Tensor | None = None
    raw: Tensor | None = None
    layer: str | None = None
    geometry: Geometry | None = None
    doubts: list[list[str]] = field(default_factory=list)
    facts: list[dict[str, Any]] = field(default_factory=list)
    parts: list[list[Part]] = field(default_factory=list)

    def doubt(self, row: int, sentence: str) -> None:
        """Add a doubt to one picture's map."""
        while len(self.doubts) < len(self.values):
            self.doubts.append([])
        self.doubts[row].append(sentence)

    def fact(self, name: str, values: Sequence[Any]) -> None:
        """Add a figure to every picture's map."""
        while len(self.facts) < len(self.values):
            self.facts.append({})
        for row, value in enumerate(values):
            self.facts[row][name] = value


class Query:
    """One batch of pictures and one target, as a method sees them.

    ``inputs`` is ``[B, C, H, W]`` in the network's input space. ``target`` and ``output`` (what the network returned)
    are known after the method's first ``yield``.
    """

    def __init__(self, model: Model, inputs: Tensor, pictures: Sequence[ModelInput], watched: NetworkTrace) -> None:
        self.model = model
        self.inputs = inputs
        self.pictures = pictures
        self.watched = watched
        self.seed = model.seed
        self.plain_resize = False
        #: the layer that ``None`` stands for where it depends on the target (the level that fed a detection)
        self.preferred: str | None = None
        #: how masked pictures were scored, by need
        self.reports: Mapping[Need, Report] = {}
        #: who hears how far this method is: (done, total) of its own passes, masks or steps
        self.told: Callable[[int, int], None] | None = None
        self._target: Scorer | None = None
        self.output: Any = None

    @property
    def target(self) -> Scorer:
        assert self._target is not None, "a target is known after the first yield only"
        return self._target

    def aim(self, target: Scorer, output: Any) -> None:
        """Called by whoever runs the method, once the target is resolved."""
        self._target, self.output = target, output

    def progress(self, done: int, total: int) -> None:
        """Tell how far the method is: ``done`` of ``total`` of whatever it counts."""
        if self.told is not None:
            self.told(done, total)

    def counter(self, total: int, before: int = 0) -> Callable[[int], None]:
        """A function of the number done that tells :meth:`progress`; ``before`` were done earlier."""
        return lambda done: self.progress(before + done, total)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input."""
        return int(self.inputs.shape[-2]), int(self.inputs.shape[-1])

    def layer(self, name: str | None) -> str:
        """The layer's name; ``None`` is the last grid before the class scores."""
        if name is None:
            if self.preferred is not None:
                return self.preferred
            if self.watched.last_grid is None:
                raise MethodRefused(
                    f"{self.model.name} has no layer whose cells keep a place in the picture: methods on layers do "
                    "not fit it. Use saliency, integrated-gradients or occlusion."
                )
            return self.watched.last_grid
        if name not in self.watched.layers:
            from ..targets.units import no_such_layer

            raise LayerError(no_such_layer(name, list(self.watched.layers)))
        return name

    def planes(self, layer: str, values: Tensor) -> Tensor:
        """A layer's output (or gradient) as ``[B, C, h, w]``, whatever its own layout."""
        info = self.watched.layers[layer]
        if len(values) != len(self.inputs) and len(values) % len(self.inputs):
            raise MethodRefused(
                f"Layer {layer!r} gives {len(values)} rows for {len(self.inputs)} pictures (regions or windows of "
                "them): choose a layer with one grid for each picture (`convoscope layers` shows them)."
            )
        if values.ndim == 4:
            return info.layout.planes(values)
        if values.ndim == 5 and self.inputs.ndim == 5:
            # slices one below the other: methods weigh and sum over places, whatever their arrangement
            return values.flatten(2, 3)
        if values.ndim == 3 and info.prefix_tokens is not None and info.geometry is not None:
            return info.layout.planes(values)
        raise MethodRefused(
            f"Layer {layer!r} gives {tuple(values.shape)}, not a grid of channels: choose a layer with rows and "
            "columns (`convoscope layers` shows them)."
        )

    def heatmap(
        self,
        grid: Tensor,
        *,
        at: str,
        signed: bool,
        unit: str,
        reduction: str = "",
        floor: float | None = None,
    ) -> Maps:
        """Maps from a coarse grid ``[B, h, w]`` at layer ``at``, interpolated at the cells' true centres."""
        grid = grid.float().cpu()
        values, geometry = self.resample(grid, at)
        maps = Maps(values, signed, unit, reduction, grid, None, at, geometry)
        if geometry is None:
            why = self.watched.layers[at].why_no_geometry or "its cells have no known place"
            for row in range(len(grid)):
                maps.doubt(row, f"Geometry of {at} unknown ({why}): drawn by the plain resize, may be off by a cell.")
        return maps

    def resample(self, grid: Tensor, at: str) -> tuple[Tensor, Geometry | None]:
        """``[..., h, w]`` at layer ``at`` to the input's resolution, and the geometry used (or ``None``).

        Of a volume, ``[..., d·h, w]`` to ``[..., D, H, W]``: slices are interpolated linearly.
        """
        from ..engine.fields.geometry import Geometry

        geometry = self.watched.layers[at].geometry
        if self.inputs.ndim == 5:
            depth = self.watched.layers[at].shape[2]
            grid = grid.reshape(*grid.shape[:-2], depth, -1, grid.shape[-1])
        if geometry is not None and (geometry.rows.length, geometry.cols.length) != tuple(grid.shape[-2:]):
            geometry = None
        plain = geometry is None or self.plain_resize
        values = Geometry.plain(grid, self.size) if plain or geometry is None else geometry.resample(grid, self.size)
        if self.inputs.ndim == 5:
            from torch.nn import functional as F

            flat = values.reshape(-1, 1, *values.shape[-3:])
            slices = int(self.inputs.shape[2])
            raised = F.interpolate(flat, (slices, *values.shape[-2:]), mode="trilinear", align_corners=False)
            values = raised.reshape(*values.shape[:-3], slices, *values.shape[-2:])
        return values, geometry

    def pixels(self, raw: Tensor, *, signed: bool, unit: str) -> Maps:
        """Maps from per-channel pixel values ``[B, C, H, W]``.

        The reduction is the stated one: channel sum where signed, the maximum of |·| over channels where not.
        """
        raw = raw.float().cpu()
        values = raw.sum(1) if signed else raw.abs().amax(1)
        return Maps(values, signed, unit, "sum over channels" if signed else "max |·| over channels", None, raw)


__all__ = ["About", "Maps", "Method", "Part", "Query", "setting"]

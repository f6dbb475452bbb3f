"""One map of one picture, in its method's own unit, that can draw itself; and the passes that it took."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import PictureError, UsageError
from .files import write_arrays, write_image

if TYPE_CHECKING:
    from PIL import Image

    from .draw.colour import Scale
    from .engine.fields.geometry import Geometry
    from .methods import Part
    from .pictures.picture import ModelInput

Array = NDArray[np.float32]


@dataclass(eq=False)
class Plan:
    """What was run: passes through the network, forward and backward, for how many pictures and targets."""

    forwards: int = 0
    backwards: int = 0
    pictures: int = 0

    def to_dict(self) -> dict[str, int]:
        return {"forwards": self.forwards, "backwards": self.backwards, "pictures": self.pictures}


@dataclass(eq=False, repr=False)
class Heatmap:
    """One map of one picture.

    ``values`` is float32 H×W at the network's input resolution, in the method's own ``unit``, signed where the method
    is. ``raw`` is C×H×W where the method has it; ``grid`` is the coarse map with its ``geometry``. ``doubts`` are
    sentences: what this map itself fails to satisfy.
    """

    values: Array
    method: str
    title: str
    target: str
    signed: bool
    unit: str
    reduction: str
    fitted: ModelInput = field(repr=False)
    grid: Array | None = None
    raw: Array | None = None
    layer: str | None = None
    geometry: Geometry | None = field(default=None, repr=False)
    parts: list[Part] = field(default_factory=list, repr=False)
    doubts: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def input_to_photo(self) -> NDArray[np.float64]:
        """2×3 affine: (x, y) of an input pixel's centre to (x, y) in the photo."""
        return self.fitted.input_to_photo

    def __repr__(self) -> str:
        doubts = f", {len(self.doubts)} doubts" if self.doubts else ""
        low, high = (float(np.nanmin(self.values)), float(np.nanmax(self.values))) if self.values.size else (0, 0)
        at = f" at {self.layer}" if self.layer else ""
        size = "×".join(map(str, self.values.shape))
        return f"Heatmap({self.method}{at} for {self.target}, {size}, {low:.3g} to {high:.3g} {self.unit}{doubts})"

    def scale(self) -> Scale:
        """How values become colours when this map is drawn alone."""
        from .draw import scales

        made = scales.for_map(
            self.values, signed=self.signed, unit=self.unit, expected=self.facts.get("expected"),
            patches="superpixels" in self.facts,
        )  # fmt: skip
        # maps of single pixels are drawn alone, the others over the photo
        return replace(made, over=self.raw is None)

    def show(self) -> Image.Image:
        """The map over its photo, opened in the system's viewer (in a notebook the value shows itself)."""
        made = self.overlay()
        made.show(title=self.title)
        return made

    def overlay(
        self, *, on: str = "photo", scale: Scale | None = None, opacity: float | None = None, cmap: str | None = None
    ) -> Image.Image:
        """The map over the original ``photo``, or over the network's ``input``; ``cmap`` is a name of matplotlib's.

        Maps of single pixels are drawn alone, in the photo's frame, unless an ``opacity`` is given.
        """
        from .draw import overlay

        scale = scale or self.scale()
        if cmap is not None:
            scale = replace(scale, cmap=cmap)
        if self.values.ndim == 3:
            return self._slices(scale, on, {} if opacity is None else {"opacity": opacity})
        if self.raw is not None and opacity is None:
            # fine structure would drown in the photo: it is drawn alone, in the photo's frame
            whole = self.fitted.picture.image if on == "photo" else self.input_image()
            matrix = self.input_to_photo if on == "photo" else None
            return overlay.placed(whole, self.values, scale=scale, signed=self.signed, matrix=matrix)
        settings: dict[str, Any] = {} if opacity is None else {"opacity": opacity}
        if on == "input":
            return overlay.overlay(self.input_image(), self.values, scale=scale, signed=self.signed, **settings)
        if on != "photo":
            raise UsageError(f"A map is drawn on 'photo' or 'input', not {on!r}.")
        return overlay.overlay(
            self.fitted.picture.image, self.values, scale=scale, signed=self.signed, matrix=self.input_to_photo,
            **settings,
        )  # fmt: skip

    def _slices(self, scale: Scale, on: str, settings: dict[str, Any]) -> Image.Image:
        """A map ``[D, H, W]`` over its slices, as a sheet; all slices on one scale."""
        from .draw import montage, overlay

        picture: Any = self.fitted.picture
        if not hasattr(picture, "chosen"):
            raise PictureError("A map of several slices needs a volume to be drawn on.")
        drawn = []
        for one, values in montage.shown(list(zip(picture.chosen(len(self.values)), self.values, strict=True))):
            whole: Image.Image = one.image
            matrix: NDArray[np.float64] | None = self.input_to_photo
            if on == "input":
                whole, matrix = whole.resize((values.shape[1], values.shape[0])), None
            draw: Any = overlay.placed if self.raw is not None and not settings else overlay.overlay
            drawn.append(draw(whole, values, scale=scale, signed=self.signed, matrix=matrix, **settings))
        return montage.montage(drawn)

    def input_image(self) -> Image.Image:
        """The network's input as a picture: what it saw after resize and crop."""
        return input_image(self.fitted, self.provenance.get("preprocessing", {}))

    def image(self) -> Image.Image:
        """The map alone, in colours."""
        from .draw import overlay

        return overlay.heatmap_image(self.values, self.scale())

    def save(self, path: str | Path) -> Path:
        """``.npz``/``.npy``: the values; a picture's ending: the overlay."""
        path = Path(path)
        if path.suffix == ".npy":
            write_arrays(path, values=self.values)
        elif path.suffix == ".npz":
            write_arrays(path, **{self.method: self.values})
        else:
            write_image(path, self.overlay())
        return path

    def to_dict(self) -> dict[str, Any]:
        """Everything but the arrays, as plain data."""
        finite = self.values[np.isfinite(self.values)]
        return {
            "method": self.method,
            "target": self.target,
            "layer": self.layer,
            "signed": self.signed,
            "unit": self.unit,
            "reduction": self.reduction,
            "shape": list(self.values.shape),
            "min": float(finite.min()) if finite.size else None,
            "max": float(finite.max()) if finite.size else None,
            "sum": float(finite.sum()) if finite.size else None,
            "geometry": self.geometry.to_dict() if self.geometry is not None else None,
            "doubts": list(self.doubts),
            "facts": self.facts,
            "parts": [{"channel": part.channel, "weight": part.weight} for part in self.parts],
            "provenance": self.provenance,
        }

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.values, dtype=dtype) if dtype is not None or copy else self.values

    def _repr_png_(self) -> bytes:
        return _png(self.overlay())


def input_image(fitted: ModelInput, preprocessing: Mapping[str, Any]) -> Image.Image:
    """The network's input as PIL RGB."""
    import torch

    from .pictures.picture import Picture, Preprocessing

    tensor = fitted.tensor
    if tensor.ndim == 4:
        return fitted.picture.image  # the slices themselves: a sheet
    mean = tuple(preprocessing.get("mean", (0.0,) * len(tensor)))
    std = tuple(preprocessing.get("std", (1.0,) * len(tensor)))
    shown = Preprocessing(mean=mean, std=std).denormalise(tensor.float()).clamp(0, 1)
    return Picture.of(torch.as_tensor(shown)).image


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()

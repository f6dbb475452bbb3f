"""What changed inside for single pictures: both networks' maps on one scale, and patches of new units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import map_coordinates
from torch import Tensor

from ...errors import ConvoscopeError, PictureError
from ...explanation import explain
from ...heatmap import Heatmap
from ...models.model import Model
from ...session import forward, protected
from .sides import Side, common_classes
from .units import Unit

#: cells a side on which two maps are compared in the photo's frame
CELLS = 48


@dataclass(eq=False)
class Flip:
    """One picture that the two networks see differently.

    Args:
        uri: the picture.
        kind: ``won``, ``lost``, ``both wrong`` or ``changed`` (no truth).
        label: the class that both maps are of.
        predictions: what A and B take it for.
        maps: Grad-CAM of A and of B; None where the methods refuse.
        correlation: of the two maps where both see the photo; None where one is constant.
        photo: the picture.
    """

    uri: str
    kind: str
    label: str
    predictions: tuple[str, str]
    confidences: tuple[float, float]
    maps: tuple[Heatmap, Heatmap] | None = field(repr=False)
    correlation: float | None
    photo: Image.Image = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        return {
            "picture": self.uri, "kind": self.kind, "class": self.label, "predictions": list(self.predictions),
            "confidences": list(self.confidences), "correlation": self.correlation,
        }  # fmt: skip

    def overlays(self) -> tuple[Image.Image, Image.Image] | None:
        """Both maps over the photo, in one scale of colours."""
        if self.maps is None:
            return None
        from ...draw import colour

        one, other = self.maps
        scale = colour.scale_for([one.values, other.values], signed=one.signed or other.signed, unit=one.unit)
        return one.overlay(scale=scale), other.overlay(scale=scale)


def flips(a: Side, b: Side, rows: Sequence[tuple[int, str]]) -> tuple[list[Flip], list[str]]:
    """Both networks' Grad-CAM of some pictures: of the true class where it is known, else of A's prediction.

    Args:
        a: before; b: after.
        rows: row and kind of each picture.

    Returns:
        the flips, and notes on what could not be drawn.
    """
    if a.open is None or b.open is None or not rows:
        return [], []
    pairs = common_classes(a, b)
    first, second = a.open(), b.open()
    made: list[Flip] = []
    notes: list[str] = []
    for row, kind in rows:
        index = int(a.pictures.truth[row]) if a.known[row] else int(a.prediction[row])
        other = pairs.get(index)
        try:
            picture = a.pictures.picture(row)
            found: tuple[Heatmap, Heatmap] | None = None
            if other is not None:
                one = explain(first, picture, "grad-cam", target=index)["grad-cam"]
                two = explain(second, picture, "grad-cam", target=other)["grad-cam"]
                found = (one, two)
        except PictureError as error:
            notes.append(str(error))
            continue
        except (ConvoscopeError, KeyError) as error:
            notes.append(f"No maps: {error}")
            found = None
        made.append(
            Flip(
                a.pictures.uris[row],
                kind,
                a.label(index),
                (a.predicted(row), b.predicted(row)),
                (float(a.confidence[row]), float(b.confidence[row])),
                found,
                None if found is None else correlation(*found),
                picture.image.convert("RGB"),
            )
        )
    return made, list(dict.fromkeys(notes))


def correlation(one: Heatmap, other: Heatmap) -> float | None:
    """Pearson's correlation of two maps over the part of the photo that both networks see.

    Both are read at the same points of the photo, so that networks of other input sizes or crops compare.
    """
    height, width = one.fitted.picture.size
    ys, xs = np.meshgrid(np.linspace(0, height - 1, CELLS), np.linspace(0, width - 1, CELLS), indexing="ij")
    values = [_read(map_, xs, ys) for map_ in (one, other)]
    both = np.isfinite(values[0]) & np.isfinite(values[1])
    if both.sum() < 16:
        return None
    left, right = values[0][both], values[1][both]
    if np.ptp(left) <= 1e-12 or np.ptp(right) <= 1e-12:
        return None
    return float(np.corrcoef(left, right)[0, 1])


def _read(heatmap: Heatmap, xs: NDArray[np.float64], ys: NDArray[np.float64]) -> NDArray[np.float64]:
    to_photo = np.vstack([heatmap.input_to_photo, [0, 0, 1]])
    points = np.linalg.inv(to_photo) @ np.stack([xs.ravel(), ys.ravel(), np.ones(xs.size)])
    values = np.asarray(heatmap.values, np.float64)
    # half a pixel beyond the outermost centres still belongs to the input
    inside = (points[0] > -0.51) & (points[0] < values.shape[1] - 0.49)
    inside &= (points[1] > -0.51) & (points[1] < values.shape[0] - 0.49)
    read = map_coordinates(values, [points[1], points[0]], order=1, mode="nearest")
    return np.where(inside, read, np.nan)


@dataclass(eq=False)
class Shown:
    """A unit with the pieces of pictures that it answers most."""

    unit: Unit
    crops: list[tuple[Image.Image, str]] = field(repr=False)


def unit_patches(side: Side, units: Sequence[Unit], count: int = 6) -> list[Shown]:
    """The top patches of some units, cut at their true receptive fields.

    Only the pictures that are shown go through the network again.

    Args:
        side: whose units.
        units: which.
        count: patches of each.
    """
    if side.open is None or not units:
        return []
    model = side.open()
    strongest: dict[Unit, list[int]] = {}
    for unit in units:
        values = side.peaks.get(unit.layer, side.layers[unit.layer])[:, unit.channel]
        strongest[unit] = [int(row) for row in np.argsort(-values, kind="stable")[:count]]
    crops: dict[tuple[Unit, int], Image.Image] = {}
    wanted = sorted({row for rows in strongest.values() for row in rows})
    for row in wanted:
        try:
            fitted = model.prepare(side.pictures.picture(row))
        except (PictureError, OSError):
            continue
        inputs = model.inputs([fitted])
        watched = model.watched(tuple(inputs.shape[1:]))
        for unit, (y, x) in _peaks(model, inputs, [u for u, rows in strongest.items() if row in rows]).items():
            layer = watched.layers.get(unit.layer)
            geometry = layer.geometry if layer is not None else None
            box = (0, 0, inputs.shape[-1], inputs.shape[-2]) if geometry is None else geometry.box(y, x)
            crops[unit, row] = _crop(fitted, box)
    return [
        Shown(
            unit,
            [
                (crops[unit, row], side.pictures.labels[row] or side.predicted(row))
                for row in rows
                if (unit, row) in crops
            ],
        )
        for unit, rows in strongest.items()
    ]


def _peaks(model: Model, inputs: Any, units: Sequence[Unit]) -> dict[Unit, tuple[int, int]]:
    found: dict[Unit, tuple[int, int]] = {}
    watched = model.watched(tuple(inputs.shape[1:]))

    def visit(name: str, output: Tensor) -> None:
        values = output.detach()[:1].float()
        values = (watched.layers[name].layout.planes(values) if name in watched.layers else values)[0]
        for unit in units:
            if unit.layer == name:
                if values.ndim == 3:
                    at = int(values[unit.channel].argmax())
                    found[unit] = (at // values.shape[2], at % values.shape[2])
                else:
                    found[unit] = (0, 0)

    with protected(model, visit, {u.layer for u in units}):
        forward(model, inputs)
    return found


def _crop(fitted: Any, box: Any) -> Image.Image:
    from ...surveys.ask.patches import photo_box

    x0, y0, x1, y1 = photo_box(box, fitted)
    if x1 <= x0 or y1 <= y0:
        return Image.new("RGB", (48, 48), (225, 225, 225))
    image: Image.Image = fitted.picture.image.convert("RGB").crop((x0, y0, x1, y1))
    return image

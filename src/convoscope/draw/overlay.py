"""A map laid over a photo, at the right place and so that the object stays visible."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from convoscope.draw import colour
from convoscope.draw.colour import Scale
from convoscope.errors import UsageError

MIN_SIZE = 256
MAX_SIZE = 2048
#: of the strongest value
OPACITY = 0.7
#: share of its colour that the photo beneath loses
MUTE = 0.65
#: how much darker the photo gets beneath unsigned maps, how much lighter (negative) beneath signed ones
DIM, DIM_SIGNED = 1 - colour.BENEATH, -colour.ABOVE

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def as_image(photo: Any) -> Image.Image:
    """An RGB picture from a PIL image or a uint8 array (H×W, H×W×1, 3 or 4); transparency goes white."""
    if not isinstance(photo, Image.Image):
        array = np.asarray(photo)
        if array.ndim == 3 and array.shape[2] == 1:
            array = array[..., 0]
        fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
        if array.dtype != np.uint8 or not fits or array.size == 0:
            raise UsageError(f"A photo is uint8 H×W or H×W×3, not {array.dtype} {array.shape}.")
        return as_image(Image.fromarray(array))
    if photo.width == 0 or photo.height == 0:
        raise UsageError("The photo has no pixels.")
    if photo.mode in ("RGBA", "LA", "PA") or "transparency" in photo.info:
        rgba = photo.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return photo.convert("RGB")


def overlay(
    photo: Any,
    values: ArrayLike,
    *,
    scale: Scale | None = None,
    signed: bool = False,
    opacity: float = OPACITY,
    matrix: ArrayLike | None = None,
    mute: float = MUTE,
    dim: float | None = None,
    pixelated: bool | None = None,
    min_size: int = MIN_SIZE,
    max_size: int = MAX_SIZE,
) -> Image.Image:
    """Lay a map over the photo it belongs to.

    Strong values are drawn nearly opaque, values near zero let the photo through; the photo beneath loses most of its
    colour and is darkened (lightened under signed maps) until every colour of the map is brighter (darker) than any
    of its pixels. So on every photo, black, white or noisy, more is brighter (darker), and nothing but zero looks
    like zero. What lies outside the map (outside the crop) is faded towards white.

    Args:
        photo: uint8 H×W×3 (or H×W) array, or a PIL image.
        values: h×w map in input pixels.
        scale: how values map to colours; None makes one for this map alone.
        signed: whether the map is signed, where ``scale`` is None.
        opacity: of the strongest value, 0 to 1.
        matrix: 2×3 affine ``input_to_photo``. Whole numbers are the centres of pixels on both sides, (x, y)
            in this order: the centre of input pixel (0, 0) lies at photo position ``matrix @ (0, 0, 1)``.
            None spreads the map over the whole photo.
        mute: how much of its colour the photo beneath loses, 0 to 1.
        dim: how much darker the photo gets (-1 to 1; negative: lighter). None: so that the order of the values can
            be read on any photo, darker under a sequential map, lighter under a diverging one.
        pixelated: draw map pixels as sharp squares; None does so for photos that must be enlarged.
        min_size: a photo whose longer side is under this many pixels is first enlarged by a whole factor, its
            pixels kept as squares; 0 never enlarges.
        max_size: a photo whose longer side is over this many pixels is first reduced; 0 never reduces.

    Returns:
        An RGB picture of the photo's size (times the factor of ``min_size`` or ``max_size``).

    Raises:
        UsageError: where shapes, matrix or settings do not fit.
    """
    if not 0 <= opacity <= 1 or not 0 <= mute <= 1 or not (dim is None or -1 <= dim <= 1):
        raise UsageError(f"Opacity and mute lie in 0 to 1, dim in -1 to 1, not {opacity}, {mute} and {dim}.")
    base, warped, inside = _on_photo(photo, values, matrix, pixelated, min_size, max_size)
    scale = scale or colour.scale_for([np.asarray(values)], signed=signed)
    if dim is None:
        dim = DIM_SIGNED if scale.signed else DIM
    return blend(base, warped, inside, scale, opacity, mute, dim)


def placed(
    photo: Any,
    values: ArrayLike,
    *,
    scale: Scale | None = None,
    signed: bool = False,
    matrix: ArrayLike | None = None,
    pixelated: bool | None = None,
    min_size: int = MIN_SIZE,
    max_size: int = MAX_SIZE,
) -> Image.Image:
    """A map alone, in the frame of its photo: opaque where the map lies, the faded photo where it does not.

    For maps of single pixels (saliency, guided backpropagation), which a photo beneath would drown; they keep
    the shape and place of the overlays beside them. Arguments, result and errors are those of `overlay`.
    """
    base, warped, inside = _on_photo(photo, values, matrix, pixelated, min_size, max_size)
    scale = scale or colour.scale_for([np.asarray(values)], signed=signed)
    grey = (np.asarray(base, dtype=np.float32) @ _LUMA)[..., None]
    return _joined(colour.paint(warped, scale), _faded(grey), inside)


def _on_photo(
    photo: Any,
    values: ArrayLike,
    matrix: ArrayLike | None,
    pixelated: bool | None,
    min_size: int,
    max_size: int,
) -> tuple[Image.Image, NDArray[np.float64], NDArray[np.bool_]]:
    """The photo at its final size, the map carried onto it, and where the map lies."""
    picture = as_image(photo)
    data = _map(values)
    affine = spread((data.shape[0], data.shape[1]), picture.size) if matrix is None else _affine(matrix)
    base, factor_x, factor_y = _resized(picture, min_size, max_size)
    sharp = pixelated if pixelated is not None else factor_x > 1
    warped, inside = warp(data, _scaled(affine, factor_x, factor_y), base.size, pixelated=sharp)
    return base, warped, inside


def blend(
    base: Image.Image,
    warped: NDArray[np.float64],
    inside: NDArray[np.bool_],
    scale: Scale,
    opacity: float,
    mute: float,
    dim: float,
) -> Image.Image:
    """``base`` with the colours of ``warped`` laid over it, where it is ``inside`` and not zero."""
    photo = np.asarray(base, dtype=np.float32)
    grey = (photo @ _LUMA)[..., None]
    scale = over(scale)
    muted = photo + mute * (grey - photo)
    muted = muted + abs(dim) * ((0.0 if dim > 0 else 255.0) - muted)
    strength = np.nan_to_num(scale.strength(warped), nan=1.0).astype(np.float32)
    alpha = (opacity * ramp(strength))[..., None]
    painted = colour.paint(warped, scale).astype(np.float32)
    joined = muted + alpha * (painted - muted)
    return _joined(joined, _faded(grey), inside)


def over(scale: Scale) -> Scale:
    """The scale with the colours that are laid over a photo."""
    if "@" in scale.cmap:
        return scale
    return replace(scale, cmap=f"{scale.cmap}@over{'-signed' if scale.signed else ''}", over=True)


def _faded(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """The photo where there is no map: grey and pale."""
    return np.asarray(grey + 0.6 * (255.0 - grey), dtype=np.float32)


def _joined(inner: NDArray[Any], outer: NDArray[Any], inside: NDArray[np.bool_]) -> Image.Image:
    out = np.where(inside[..., None], inner, outer)
    return Image.fromarray(np.clip(np.rint(out), 0, 255).astype(np.uint8))


def ramp(strength: NDArray[np.float32]) -> NDArray[np.float32]:
    """Opacity as a share of the greatest, for strengths 0 to 1: 0 at 0, 1 at 1, rising fast, then slowly."""
    return np.asarray(1.0 - (1.0 - strength) ** 2.0, dtype=np.float32)


def warp(
    values: ArrayLike, matrix: ArrayLike, size: tuple[int, int], *, pixelated: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Carry a map onto a picture.

    Args:
        values: h×w.
        matrix: 2×3 affine from map pixels (x, y) to picture pixels; whole numbers are centres on both sides.
        size: (width, height) of the picture.
        pixelated: the nearest map pixel instead of bilinear interpolation.

    Returns:
        float64 H×W values (NaN stays NaN), and the bool H×W mask of picture pixels whose centre lies on the
        map.
    """
    data = _map(values)
    height, width = data.shape
    inverse = _inverse(_affine(matrix))
    columns, rows = np.arange(size[0], dtype=np.float64), np.arange(size[1], dtype=np.float64)[:, None]
    x = inverse[0, 0] * columns + inverse[0, 1] * rows + inverse[0, 2]
    y = inverse[1, 0] * columns + inverse[1, 1] * rows + inverse[1, 2]
    slack = 1e-9 * max(width, height)
    rim = -0.5 - slack
    inside = (x >= rim) & (x <= width - 1 - rim) & (y >= rim) & (y <= height - 1 - rim)
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    near = data[np.floor(y + 0.5).astype(np.intp), np.floor(x + 0.5).astype(np.intp)]
    if pixelated:
        return near, inside
    left, top = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    u, v = x - left, y - top
    with np.errstate(invalid="ignore", over="ignore"):
        upper = data[top, left] * (1 - u) + data[top, right] * u
        lower = data[bottom, left] * (1 - u) + data[bottom, right] * u
        out = upper * (1 - v) + lower * v
    # one bad neighbour must not eat a good pixel, nor a good one hide a bad pixel: there the nearest decides
    return np.where(np.isfinite(out) & np.isfinite(near), out, near), inside


def spread(shape: tuple[int, int], size: tuple[int, int]) -> NDArray[np.float64]:
    """The affine that lays a map of ``shape`` (h, w) over a whole picture of ``size`` (width, height)."""
    sx, sy = size[0] / shape[1], size[1] / shape[0]
    return np.array([[sx, 0.0, sx / 2 - 0.5], [0.0, sy, sy / 2 - 0.5]])


def heatmap_image(
    values: ArrayLike, scale: Scale, size: tuple[int, int] | None = None, pixelated: bool = False
) -> Image.Image:
    """A map as a picture of its own.

    Args:
        values: h×w.
        scale: how values map to colours.
        size: (width, height) of the picture; None for one pixel a value.
        pixelated: values as sharp squares instead of bilinear interpolation.

    Returns:
        An RGB picture; values that are not finite are hatched grey.
    """
    data = _map(values)
    if size is None or size == (data.shape[1], data.shape[0]):
        return Image.fromarray(colour.paint(data, scale))
    if size[0] < 1 or size[1] < 1:
        raise UsageError(f"A picture needs at least one pixel each way, not {size[0]}×{size[1]}.")
    if size[0] < data.shape[1] or size[1] < data.shape[0]:  # smaller: average, as sampling would lose peaks
        whole = Image.fromarray(colour.paint(data, scale))
        return whole.resize(size, Image.Resampling.BOX)
    grown, _ = warp(data, spread(data.shape, size), size, pixelated=pixelated)
    return Image.fromarray(colour.paint(grown, scale))


def _map(values: ArrayLike) -> NDArray[np.float64]:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 2 or data.size == 0:
        raise UsageError(f"A map has two axes (rows, columns) and at least one value, not shape {data.shape}.")
    return data


def _affine(matrix: ArrayLike) -> NDArray[np.float64]:
    affine = np.asarray(matrix, dtype=np.float64)
    if affine.shape != (2, 3) or not np.isfinite(affine).all():
        raise UsageError(f"The matrix from input to photo is a finite 2×3 affine, not shape {affine.shape}.")
    if abs(np.linalg.det(affine[:, :2])) < 1e-12:
        raise UsageError("The matrix from input to photo cannot be inverted.")
    return affine


def _inverse(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = np.linalg.inv(affine[:, :2])
    return np.concatenate([linear, -(linear @ affine[:, 2:])], axis=1)


def _resized(picture: Image.Image, min_size: int, max_size: int) -> tuple[Image.Image, float, float]:
    longer = max(picture.size)
    if min_size and longer < min_size:
        factor = -(-min_size // longer)
        grown = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
        return grown, float(factor), float(factor)
    if max_size and longer > max_size:
        size = (
            max(1, round(picture.width * max_size / longer)),
            max(1, round(picture.height * max_size / longer)),
        )
        reduced = picture.resize(size, Image.Resampling.LANCZOS)
        return reduced, size[0] / picture.width, size[1] / picture.height
    return picture, 1.0, 1.0


def _scaled(affine: NDArray[np.float64], factor_x: float, factor_y: float) -> NDArray[np.float64]:
    """The same affine where the photo was resized: X' = f·(X + ½) − ½."""
    out: NDArray[np.float64] = affine * np.array([[factor_x], [factor_y]])
    out[:, 2] += np.array([factor_x, factor_y]) / 2 - 0.5
    return out

"""Many small pictures at once: channels of a layer, filters, patches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from convoscope.draw import canvas, colour, fonts, legend
from convoscope.draw.canvas import GREY, INK, PALE, Drawing, Rule
from convoscope.draw.colour import Scale
from convoscope.draw.overlay import as_image, heatmap_image
from convoscope.draw.sheet import MARGIN, Sheet, footer, header, is_sharp, picture_in
from convoscope.errors import UsageError

PAGE_WIDTH = 760.0
GAP = 5.0
MAX_TILES = 2048
LEGEND_WIDTH = 150.0
LABEL_SIZE = 6.0


def tiles(
    maps: ArrayLike,
    *,
    names: Sequence[str] | None = None,
    scale: Literal["own", "shared"] | Scale = "shared",
    columns: int | None = None,
    signed: bool | None = None,
    title: str = "",
    unit: str = "",
    pixelated: bool = True,
    limit: int = 256,
    footnote: str = "",
    percentile: float | None = 99.5,
) -> Sheet:
    """The channels of a layer as tiles, in the order given.

    Args:
        maps: C×h×w activations, already sorted as they are to be shown.
        names: a label for each channel ("117"); None numbers them from 0.
        scale: "shared" draws all on one scale, with one colour bar; "own" draws each channel on its own,
            which shows its shape but not its strength: the value farthest from 0 then stands beside the name.
            Or a `Scale`.
        columns: tiles in a row; None chooses.
        signed: diverging colours; None where any value is negative.
        title: heading.
        unit: unit of the values, for the legend.
        pixelated: cells of the map as sharp squares.
        limit: channels shown at most, up to 2048; the sheet says how many it leaves out.
        footnote: small text at the end.
        percentile: clipping of the scales.

    Returns:
        The sheet.

    Raises:
        UsageError: for a shape that is not C×h×w, names of another number, or a limit out of range.
    """
    data = np.asarray(maps, dtype=np.float64)
    if data.ndim != 3 or 0 in data.shape:
        raise UsageError(f"Tiles need channels × rows × columns, not shape {data.shape}.")
    labels = [str(i) for i in range(len(data))] if names is None else [str(name) for name in names]
    if len(labels) != len(data):
        raise UsageError(f"There are {len(data)} channels but {len(labels)} names.")
    if not 1 <= limit <= MAX_TILES:
        raise UsageError(f"A sheet shows between 1 and {MAX_TILES} channels, not {limit}.")
    shown = data[:limit]
    if signed is None:
        signed = bool((shown[np.isfinite(shown)] < 0).any())
    own = scale == "own"
    if isinstance(scale, Scale):
        common = scale
    else:
        common = colour.scale_for([shown], signed=signed, percentile=percentile, unit=unit)
    images, sides = [], []
    for channel in shown:
        how = colour.scale_for([channel], signed=signed, percentile=percentile) if own else common
        images.append(heatmap_image(channel, how))
        finite = channel[np.isfinite(channel)]
        strongest = float(finite[np.argmax(np.abs(finite))]) if finite.size else math.nan
        sides.append(colour.format_number(strongest, 2) if own else "")
    notes = [footnote]
    if len(data) > len(shown):
        notes.append(f"The first {len(shown)} of {len(data)} channels are shown.")
    if own:
        middle = "centred on 0" if signed else "from 0 on"
        value = "value farthest from 0" if signed else "largest value"
        notes.append(
            f"Every channel has a colour scale of its own, {middle}; its {value} stands beside its number"
            + (f" ({unit})." if unit else ".")
        )
        peaks = np.array([float(np.nanmax(np.abs(one))) for one in shown if np.isfinite(one).any()])
        peaks = peaks[np.isfinite(peaks) & (peaks > 0)]
        if len(peaks) > 1 and peaks.max() > 3 * peaks.min():
            ends = " to ".join(colour.format_range(float(peaks.min()), float(peaks.max()), 2))
            notes.append(f"So tiles of one brightness may differ: their strongest values run from {ends}.")
    if percentile is not None and percentile < 100 and (own or common.clip_percentile is not None):
        notes.append(f"Colour scales end at the {colour.ordinal(percentile)} percentile of the values.")
    return _tile_sheet(images, labels[:limit], sides, None if own else common, columns, title, notes, pixelated)


def filters(
    weights: ArrayLike,
    *,
    names: Sequence[str] | None = None,
    title: str = "",
    columns: int | None = None,
    rgb: bool | None = None,
    limit: int | None = None,
    inputs: int = 16,
    footnote: str = "",
) -> Sheet:
    """The weights of a convolution as pictures.

    Three input channels are drawn as colour pictures: mid-grey is 0, and one symmetrical scale serves all
    filters, so that a weak filter looks weak. One input channel gives one diverging tile a filter. 1×1
    kernels give one matrix (filters × input channels). Others give a row for each filter and a tile for each
    input channel.

    Args:
        weights: O×I×kh×kw (or O×kh×kw for one input channel).
        names: a label for each filter; None numbers them from 0.
        title: heading.
        columns: tiles in a row, where a filter is one tile.
        rgb: draw three input channels as colours; None does so wherever there are three.
        limit: filters shown at most; None for 256, or 24 where each takes a row. The sheet says what it
            leaves out.
        inputs: input channels shown at most in a row.
        footnote: small text at the end.

    Returns:
        The sheet.

    Raises:
        UsageError: for another shape, or colours without three input channels.
    """
    data = np.asarray(weights, dtype=np.float64)
    if data.ndim == 3:
        data = data[:, None]
    if data.ndim != 4 or 0 in data.shape:
        raise UsageError(f"Filters need outputs × inputs × rows × columns, not shape {data.shape}.")
    count, depth = data.shape[:2]
    labels = [str(i) for i in range(count)] if names is None else [str(name) for name in names]
    if len(labels) != count:
        raise UsageError(f"There are {count} filters but {len(labels)} names.")
    if (limit is not None and not 1 <= limit <= MAX_TILES) or inputs < 1:
        raise UsageError(f"A sheet shows between 1 and {MAX_TILES} filters of at least 1 input, not {limit}.")
    if rgb and depth != 3:
        raise UsageError(f"Colours need three input channels; these filters have {depth}.")
    rgb = depth == 3 if rgb is None else rgb
    # a few large weights must not leave all others pale
    scale = colour.scale_for([data], signed=True, percentile=99.5, unit="weight")
    notes = [footnote]
    if scale.clip_percentile is not None:
        most = colour.format_number(float(np.nanmax(np.abs(data))))
        notes.append(f"Colours end at the 99.5th percentile of |weight|; the largest is {most}.")
    if rgb:
        shown = data[: limit or 256]
        images = [_rgb(kernel, scale) for kernel in shown]
        _left_out(notes, len(shown), count, "filters")
        high = colour.format_number(scale.high)
        notes.append(f"Red, green and blue are the input channels; mid-grey is 0, white {high}, black −{high}.")
        return _tile_sheet(images, labels, [""] * len(shown), None, columns, title, notes, True)
    if depth == 1:
        shown = data[: limit or 256]
        images = [heatmap_image(kernel[0], scale) for kernel in shown]
        _left_out(notes, len(shown), count, "filters")
        return _tile_sheet(images, labels, [""] * len(shown), scale, columns, title, notes, True)
    if data.shape[2:] == (1, 1):
        return _matrix_sheet(data[:, :, 0, 0], scale, title, notes)
    shown = data[: limit or 24, :inputs]
    _left_out(notes, len(shown), count, "filters")
    _left_out(notes, shown.shape[1], depth, "input channels")
    return _filter_rows(shown, labels, scale, title, notes)


def _left_out(notes: list[str], shown: int, count: int, what: str) -> None:
    if shown < count:
        notes.append(f"The first {shown} of {count} {what} are shown.")


def _rgb(kernel: NDArray[np.float64], scale: Scale) -> Image.Image:
    """3×kh×kw weights as a colour picture around mid-grey; weights that are not finite are hatched."""
    share = scale.position(kernel).transpose(1, 2, 0)
    bad = np.isnan(share).any(axis=2)
    picture = np.rint(np.where(np.isnan(share), 0.5, share) * 255).astype(np.uint8)
    picture[bad] = colour.hatching(*bad.shape)[bad]
    return Image.fromarray(picture)


def patches(
    rows: Sequence[tuple[str, Sequence[tuple[Any, str]]]],
    title: str = "",
    *,
    columns: int = 9,
    size: float = 76.0,
    footnote: str = "",
    legend_scale: Scale | None = None,
) -> Sheet:
    """Rows of captioned pictures: the patches a unit fires for most, the neighbours of a picture.

    Args:
        rows: (title of the row, [(picture, caption), ...]); pictures may differ in shape.
        title: heading.
        columns: pictures in a line, before the row goes on in the next.
        size: longer side of a picture in points.
        footnote: small text at the end.
        legend_scale: a colour bar for the whole sheet, where the pictures have one.

    Returns:
        The sheet.

    Raises:
        UsageError: for no rows, or sizes that are not positive.
    """
    if not rows:
        raise UsageError("A sheet of patches needs at least one row.")
    if columns < 1 or size < 20:
        raise UsageError("A sheet of patches needs at least 1 column and pictures of at least 20 points.")
    gap = 9.0
    across = min(columns, max((len(items) for _, items in rows), default=1)) or 1
    width = max(2 * MARGIN + across * size + (across - 1) * gap, 320.0)
    drawing = Drawing(width, 0.0, title)
    y = header(drawing, title)
    for number, (name, items) in enumerate(rows):
        if number:
            drawing.items.append(Rule(MARGIN, y, width - MARGIN, y, PALE, 0.5))
            y += 9.0
        taken = drawing.block(MARGIN, y, name, 8.6, room=width - 2 * MARGIN, lines=2, bold=True)
        y += taken + (3.0 if taken else 0.0)
        if not items:
            y += drawing.block(MARGIN, y, "none", 7.0, room=size, colour=GREY)
        for start in range(0, len(items), across):
            y = _patch_line(drawing, items[start : start + across], y, size, gap) + 7.0
        y += 3.0
    if legend_scale is not None:
        y += legend.draw(drawing, MARGIN, y, LEGEND_WIDTH, legend_scale, "", with_clip=True) + 8.0
    drawing.height = footer(drawing, [footnote], y)
    return Sheet(drawing)


def _patch_line(drawing: Drawing, items: Sequence[tuple[Any, str]], y: float, size: float, gap: float) -> float:
    images = [as_image(image) for image, _ in items]
    sizes = []
    for image in images:
        factor = size / max(image.size)
        sizes.append((max(image.width * factor, 1.0), max(image.height * factor, 1.0)))
    tallest = max(high for _, high in sizes)
    bottom = y + tallest
    for place, (image, (_, caption), box) in enumerate(zip(images, items, sizes, strict=True)):
        x = MARGIN + place * (size + gap)
        sharp = is_sharp(image) and max(image.size) <= 32
        picture_in(drawing, x, y, box, image, sharp, caption)
        taken = drawing.block(x, y + tallest + 3.0, caption, 6.4, room=size, lines=3, colour=GREY)
        bottom = max(bottom, y + tallest + 3.0 + taken)
    return bottom


def _tile_sheet(
    images: Sequence[Image.Image],
    labels: Sequence[str],
    sides: Sequence[str],
    scale: Scale | None,
    columns: int | None,
    title: str,
    notes: Sequence[str],
    pixelated: bool,
) -> Sheet:
    if columns is not None and columns < 1:
        raise UsageError("Tiles need at least one column.")
    count = len(images)
    aspect = images[0].height / images[0].width
    across = columns or _across(count, aspect)
    side = min(84.0, max(18.0, (PAGE_WIDTH - 2 * MARGIN - (across - 1) * GAP) / across))
    high = max(4.0, side * aspect)
    if high > 160.0:
        side, high = max(side * 160.0 / high, 4.0), 160.0
    text = min(LABEL_SIZE, max(4.4, side * 0.22))
    width = max(2 * MARGIN + across * side + (across - 1) * GAP, 2 * MARGIN + LEGEND_WIDTH * 1.4)
    drawing = Drawing(width, 0.0, title)
    y = header(drawing, title)
    if scale is not None:
        y += legend.draw(drawing, MARGIN, y, LEGEND_WIDTH, scale, "", with_clip=False) + 9.0
    step = high + 1.8 + fonts.LINE * text + GAP * 0.7
    for number, image in enumerate(images):
        x = MARGIN + number % across * (side + GAP)
        top = y + number // across * step
        picture_in(drawing, x, top, (side, high), image, pixelated, f"channel {labels[number]}")
        _tile_label(drawing, x, top + high + 1.8, side, labels[number], sides[number], text)
    y += -(-count // across) * step + 6.0
    drawing.height = footer(drawing, notes, y)
    return Sheet(drawing)


def _across(count: int, aspect: float) -> int:
    """Tiles in a row: a block half as wide again as high, and a full last row if that is near."""
    wish = min(count, 32, max(6, math.ceil(math.sqrt(count * 1.5 * aspect))))
    near = range(max(1, math.ceil(0.75 * wish)), min(count, 32, math.floor(1.35 * wish)) + 1)
    return min(near, key=lambda n: (-count % n / n, abs(n - wish)), default=wish)


def _tile_label(drawing: Drawing, x: float, y: float, room: float, label: str, side: str, size: float) -> None:
    """The channel's number, and at the right its largest value where both fit."""
    drawing.line(x, y, label, size, room=room, colour=INK)
    if side and fonts.width(label, size) + fonts.width(side, size) + 0.6 * size <= room:
        drawing.line(x + room, y, side, size, room=room, colour=GREY, anchor="end")


def _matrix_sheet(matrix: NDArray[np.float64], scale: Scale, title: str, notes: list[str]) -> Sheet:
    """1×1 kernels: one picture, a row for each filter and a column for each input channel."""
    rows, inputs = matrix.shape
    room = PAGE_WIDTH - 2 * MARGIN - 20.0
    cell = min(12.0, room / inputs, 900.0 / rows)
    wide, high = max(cell * inputs, 40.0), max(cell * rows, 40.0)
    width = max(wide + 2 * MARGIN + 20.0, 2 * MARGIN + LEGEND_WIDTH * 1.6)
    drawing = Drawing(width, 0.0, title)
    y = header(drawing, title)
    y += legend.draw(drawing, MARGIN, y, LEGEND_WIDTH, scale, "", with_clip=False) + 9.0
    x = MARGIN + 20.0
    ends = f"input channel 0 to {inputs - 1}" if inputs > 1 else "input channel 0"
    drawing.line(x, y, ends, LABEL_SIZE, room=width - MARGIN - x, colour=GREY)
    y += fonts.LINE * LABEL_SIZE + 2.0
    picture_in(drawing, x, y, (wide, high), heatmap_image(matrix, scale), True, "weights, filters by inputs")
    drawing.line(MARGIN + 16.0, y, "0", LABEL_SIZE, room=16.0, colour=GREY, anchor="end")
    bottom = y + high - fonts.LINE * LABEL_SIZE
    if rows > 1:
        drawing.line(MARGIN + 16.0, bottom, str(rows - 1), LABEL_SIZE, room=18.0, colour=GREY, anchor="end")
    notes.append(f"1×1 kernels: a row for each of the {rows} filters, a column for each input channel.")
    drawing.height = footer(drawing, notes, y + high + 10.0)
    return Sheet(drawing)


def _filter_rows(
    shown: NDArray[np.float64], labels: Sequence[str], scale: Scale, title: str, notes: list[str]
) -> Sheet:
    """A row of tiles for each filter, a column for each input channel."""
    count, inputs, kernel_rows, kernel_columns = shown.shape
    label_room = 26.0
    side = min(38.0, (PAGE_WIDTH - 2 * MARGIN - label_room - (inputs - 1) * GAP) / inputs)
    side = max(side, 8.0)
    high = max(4.0, min(side * kernel_rows / kernel_columns, 160.0))
    width = 2 * MARGIN + label_room + inputs * side + (inputs - 1) * GAP
    width = max(width, 2 * MARGIN + LEGEND_WIDTH * 1.6)
    drawing = Drawing(width, 0.0, title)
    y = header(drawing, title)
    y += legend.draw(drawing, MARGIN, y, LEGEND_WIDTH, scale, "", with_clip=False) + 9.0
    drawing.line(MARGIN, y, "filter", LABEL_SIZE, room=label_room, colour=GREY)
    drawing.line(MARGIN + label_room, y, "input channel", LABEL_SIZE, room=width - 80.0, colour=GREY)
    y += fonts.LINE * LABEL_SIZE
    for column in range(inputs):
        x = MARGIN + label_room + column * (side + GAP)
        drawing.line(x, y, str(column), LABEL_SIZE, room=side, colour=INK)
    y += canvas.block_height("0", LABEL_SIZE, 40.0) + 1.0
    for row in range(count):
        middle = y + high / 2 - LABEL_SIZE * 0.55
        drawing.line(MARGIN, middle, labels[row], LABEL_SIZE, room=label_room - 4.0, colour=INK)
        for column in range(inputs):
            x = MARGIN + label_room + column * (side + GAP)
            image = heatmap_image(shown[row, column], scale)
            picture_in(drawing, x, y, (side, high), image, True, f"filter {labels[row]}, input {column}")
        y += high + GAP
    drawing.height = footer(drawing, notes, y + 6.0)
    return Sheet(drawing)

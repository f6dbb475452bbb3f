"""The photo and all maps side by side, labelled, with their scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from convoscope.draw import canvas, legend
from convoscope.draw.canvas import GREY, PALE, Drawing, Rule
from convoscope.draw.colour import Scale, hatching, ordinal
from convoscope.draw.overlay import as_image
from convoscope.draw.sheet import PAPER, SCREEN, Sheet, footer, header, is_sharp, picture_in
from convoscope.errors import UsageError

UNDER = 5.0
MM = 72.0 / 25.4
"""Points in a millimetre."""
LEAST_CELL = 24.0
"""A map narrower than this, in points, shows nothing."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One map of a sheet.

    Attributes:
        image: an overlay or heat map (PIL image or uint8 array); None draws an empty field, with ``note``
            saying why.
        title: heading of the column, usually the method.
        legend: the scale of the colours; None for a picture that has none.
        note: what a reader must know (a doubt on the result).
        alt: what is seen, for readers who do not see it.
        pixelated: keep pixels as squares; None does so below 128 pixels.
    """

    image: Any
    title: str
    legend: Scale | None = None
    note: str = ""
    alt: str = ""
    pixelated: bool | None = None


@dataclass(frozen=True, eq=False)
class Row:
    """One photo or one target of a sheet: the photo with its label, then the maps."""

    image: Any
    title: str = ""
    subtitle: str = ""
    cells: Sequence[Cell] = field(default_factory=tuple)


def contact_sheet(
    rows: Sequence[Row],
    *,
    title: str = "",
    footnote: str = "",
    columns: int | None = None,
    cell_width: float | None = None,
    width: float | None = None,
    caption: str = "",
) -> Sheet:
    """The photo and all maps side by side.

    Args:
        rows: one for each photo or target; each starts with its photo, under which its title and subtitle
            stand.
        title: heading of the sheet.
        footnote: small text at the end; how far the colour scales reach is added.
        columns: maps in one line before the next line starts; None for up to 6, in lines of equal length.
        cell_width: width of a map in points; None chooses by the number of columns.
        width: of the whole figure in millimetres (84: one column of a paper, 174: two). Text keeps its size of 6 to
            7 points, pictures give way, and lines are folded where maps would be smaller than 20 millimetres.
        caption: a text under the figure, in place of the footnote.

    Returns:
        The sheet.

    Raises:
        UsageError: for no rows, or sizes that are not positive.
    """
    if not rows:
        raise UsageError("A sheet needs at least one row.")
    if (columns is not None and columns < 1) or (cell_width is not None and cell_width < 40):
        raise UsageError("A sheet needs at least 1 column, and cells at least 40 points wide.")
    if width is not None:
        return Sheet(_Figure(rows, title, footnote, columns, caption, width).draw())
    return Sheet(_Layout(rows, title, footnote, columns, cell_width, caption).draw())


class _Layout:
    """Places of everything on one contact sheet; used once."""

    style = SCREEN

    def __init__(
        self,
        rows: Sequence[Row],
        title: str,
        footnote: str,
        columns: int | None,
        cell_width: float | None,
        caption: str = "",
    ) -> None:
        self.rows = rows
        self.title = title
        count = max((len(row.cells) for row in rows), default=0)
        widest = columns or self._widest()
        self.lines = max(1, -(-count // widest))
        self.columns = -(-count // self.lines) if count else 0
        across = self.columns + 1
        room = cell_width or self._room(across)
        self.photos = [as_image(row.image) if row.image is not None else None for row in rows]
        self.maps = [[as_image(c.image) if c.image is not None else None for c in row.cells] for row in rows]
        self.cell = self._shrunk(room)
        self.highest = 1.3 * room
        first = [cell.title for cell in rows[0].cells]
        same = all([cell.title for cell in row.cells] == first for row in rows)
        self.headings_once = same and self.lines == 1 and bool(first)
        legends = [cell.legend for row in rows for cell in row.cells if cell.legend]
        clips = {scale.clip_percentile for scale in legends}
        self.one_clip = len(clips - {None}) == 1
        self.footnotes = [caption or footnote]
        if self.one_clip and not caption:
            where = ordinal(next(iter(clips - {None})) or 0.0)
            self.footnotes.append(
                f"Colour scales end at the {where} percentile of the values; ≤ and ≥ mark the ends exceeded."
            )

    def _widest(self) -> int:
        """Maps in one line at most."""
        return 6

    def _room(self, across: int) -> float:
        return 190.0 if across <= 3 else 150.0 if across <= 5 else 128.0

    def _width(self, across: int) -> float:
        return 2 * self.style.margin + across * self.cell + (across - 1) * self.style.gutter

    def _shrunk(self, room: float) -> float:
        """Columns no wider than the widest picture needs, but wide enough for text."""
        shown = [image for image in self.photos if image] + [i for row in self.maps for i in row if i]
        sizes = [self._fitted(image, room, 1.3 * room)[0] for image in shown]
        return max([*sizes, min(room, 96.0)])

    @staticmethod
    def _fitted(image: Image.Image, room: float, highest: float) -> tuple[float, float]:
        scale = min(room / image.width, highest / image.height)
        return max(image.width * scale, 1.0), max(image.height * scale, 1.0)

    def draw(self) -> Drawing:
        across = self.columns + 1
        width, margin = self._width(across), self.style.margin
        drawing = Drawing(width, 0.0, self.title)
        y = header(drawing, self.title, self.style)
        if self.headings_once:
            y += self._headings(drawing, self.rows[0].cells, y)
        for number in range(len(self.rows)):
            if number:
                drawing.items.append(Rule(margin, y, width - margin, y, PALE, 0.5))
                y += self._air
            y = self._row(drawing, number, y) + self._air
        drawing.height = footer(drawing, self.footnotes, y, self.style)
        return drawing

    def _x(self, column: int) -> float:
        return self.style.margin + column * (self.cell + self.style.gutter)

    @property
    def _air(self) -> float:
        return min(12.0, 2 * self.style.gutter)

    def _headings(self, drawing: Drawing, cells: Sequence[Cell], y: float) -> float:
        """Column titles, all ending on the same baseline. Returns the height taken."""
        size = self.style.heading
        heights = [canvas.block_height(cell.title, size, self.cell, lines=2, bold=True) for cell in cells]
        tallest = max(heights, default=0.0)
        for column, (cell, taken) in enumerate(zip(cells, heights, strict=True), start=1):
            top = y + tallest - taken
            drawing.block(self._x(column), top, cell.title, size, room=self.cell, lines=2, bold=True)
        return tallest + (4.0 if tallest else 0.0)

    def _row(self, drawing: Drawing, number: int, y: float) -> float:
        row, photo, maps = self.rows[number], self.photos[number], self.maps[number]
        for line in range(self.lines):
            part = slice(line * self.columns, (line + 1) * self.columns)
            cells, images = row.cells[part], maps[part]
            if line and not cells:
                break
            if line:
                y += self._air
            if not self.headings_once:
                y += self._headings(drawing, cells, y)
            y = self._line(drawing, row, photo, cells, images, y, first=line == 0)
        return y

    def _line(
        self,
        drawing: Drawing,
        row: Row,
        photo: Image.Image | None,
        cells: Sequence[Cell],
        images: Sequence[Image.Image | None],
        y: float,
        *,
        first: bool,
    ) -> float:
        bottom = y
        blank = self._fitted(photo, self.cell, self.highest) if photo is not None else None
        if first:
            under = y
            if photo is not None and blank is not None:
                alt = f"photo: {row.title}" if row.title else "photo"
                picture_in(drawing, self._x(0), y, blank, photo, is_sharp(photo), alt)
                under = y + blank[1] + UNDER
            bottom = max(bottom, self._label(drawing, row, under))
        for column, (cell, image) in enumerate(zip(cells, images, strict=True), start=1):
            x = self._x(column)
            if image is None:
                size = blank or (self.cell, 0.6 * self.cell)
                picture_in(drawing, x, y, size, _empty_field(size), False, "no map")
            else:
                size = self._fitted(image, self.cell, self.highest)
                alt = cell.alt or f"{cell.title} of {row.title or 'the photo'}"
                picture_in(drawing, x, y, size, image, is_sharp(image, cell.pixelated), alt)
            under = y + size[1] + UNDER
            taken = legend.draw(drawing, x, under, self.cell, cell.legend, cell.note, with_clip=not self.one_clip)
            bottom = max(bottom, under + taken)
        return bottom

    def _label(self, drawing: Drawing, row: Row, y: float) -> float:
        style, x = self.style, self._x(0)
        y += drawing.block(x, y, row.title, style.label, room=self.cell, lines=3, bold=True)
        y += drawing.block(x, y + 1.0, row.subtitle, style.subtitle, room=self.cell, lines=4, colour=GREY)
        return y + 1.0


class _Figure(_Layout):
    """A figure of a paper: exactly so many millimetres wide."""

    style = PAPER

    def __init__(
        self, rows: Sequence[Row], title: str, footnote: str, columns: int | None, caption: str, width: float
    ) -> None:
        self.points = width * MM
        if not 20.0 <= width <= 2000.0:
            raise UsageError(f"A figure is between 20 and 2000 millimetres wide, not {width:g}.")
        super().__init__(rows, title, footnote, columns, None, caption)

    def _widest(self) -> int:
        across = int((self.points - 2 * self.style.margin + self.style.gutter) / (20.0 * MM + self.style.gutter))
        return max(1, across - 1)

    def _room(self, across: int) -> float:
        room = (self.points - 2 * self.style.margin - (across - 1) * self.style.gutter) / across
        if room < LEAST_CELL:
            raise UsageError(
                f"{across - 1} columns are too many for {self.points / MM:g} millimetres: give a smaller columns=."
            )
        return room

    def _shrunk(self, room: float) -> float:
        return room


def _empty_field(size: tuple[float, float]) -> Image.Image:
    """Pale hatching where a map should be."""
    hatched = hatching(max(1, round(size[1])), max(1, round(size[0])))
    return Image.fromarray(255 - (255 - hatched) // 3)

"""A drawing as a list of plain things (text, pictures, boxes, rules) with their places in points.

Layouts fill a `Drawing`; `raster`, `svg` and `pdf` each render it. The three never lay anything out
themselves, so that a sheet is the same sheet in every format, and a test can ask where every text stands.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from PIL import Image

from convoscope.draw import fonts

INK = "#1a1c20"
GREY = "#6a7078"
PALE = "#d9dce0"
AMBER = "#9a5b00"
WHITE = "#ffffff"
POINTS_PER_INCH = 72


@dataclass(frozen=True)
class Text:
    """One line of text. ``x`` is its left end, middle or right end by ``anchor``; ``y`` is the baseline."""

    x: float
    y: float
    text: str
    size: float
    colour: str = INK
    bold: bool = False
    anchor: str = "start"

    @property
    def width(self) -> float:
        """Width in points."""
        return fonts.width(self.text, self.size, self.bold)

    @property
    def left(self) -> float:
        """Left end in points, whatever the anchor."""
        return self.x - self.width * {"start": 0.0, "middle": 0.5, "end": 1.0}[self.anchor]

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) in points."""
        left = self.left
        return left, self.y - fonts.ASCENT * self.size, left + self.width, self.y + fonts.DESCENT * self.size


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture in a rectangle. ``sharp`` keeps its pixels as squares; ``alt`` says what is seen."""

    x: float
    y: float
    width: float
    height: float
    image: Image.Image
    sharp: bool = False
    alt: str = ""


@dataclass(frozen=True)
class Box:
    """A rectangle with a fill, an outline (drawn centred on its edge), or both."""

    x: float
    y: float
    width: float
    height: float
    fill: str | None = None
    stroke: str | None = None
    line: float = 0.5


@dataclass(frozen=True)
class Rule:
    """A straight line."""

    x1: float
    y1: float
    x2: float
    y2: float
    colour: str = PALE
    line: float = 0.5


Item = Text | Picture | Box | Rule


@dataclass
class Drawing:
    """A page of ``width`` × ``height`` points, origin top left, on white."""

    width: float
    height: float
    title: str = ""
    items: list[Item] = field(default_factory=list)

    def texts(self) -> list[Text]:
        """Every text on the page."""
        return [item for item in self.items if isinstance(item, Text)]

    def pictures(self) -> list[Picture]:
        """Every picture on the page."""
        return [item for item in self.items if isinstance(item, Picture)]

    def line(
        self,
        x: float,
        y: float,
        text: str,
        size: float,
        *,
        room: float,
        colour: str = INK,
        bold: bool = False,
        anchor: str = "start",
    ) -> None:
        """One line whose top is ``y``, shortened to ``room`` points."""
        short = fonts.fit(text, room, size, bold)
        if short:
            self.items.append(Text(x, y + fonts.ASCENT * size, short, size, colour, bold, anchor))

    def block(
        self,
        x: float,
        y: float,
        text: str,
        size: float,
        *,
        room: float,
        lines: int | None = None,
        colour: str = INK,
        bold: bool = False,
        anchor: str = "start",
    ) -> float:
        """Lines from top ``y`` on, wrapped to ``room`` points. Returns the height they take."""
        wrapped = fonts.wrap(text, room, size, bold, lines)
        for number, part in enumerate(wrapped):
            top = y + number * fonts.LINE * size
            self.items.append(Text(x, top + fonts.ASCENT * size, part, size, colour, bold, anchor))
        return len(wrapped) * fonts.LINE * size


def block_height(text: str, size: float, room: float, *, lines: int | None = None, bold: bool = False) -> float:
    """Height that `Drawing.block` would take."""
    return len(fonts.wrap(text, room, size, bold, lines)) * fonts.LINE * size


def rgb(colour: str) -> tuple[int, int, int]:
    """``#rrggbb`` as three numbers 0 to 255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def sampled(picture: Picture, dpi: float) -> Image.Image:
    """The picture as it is to be embedded: no finer than ``dpi``, and enlarged by whole factors where sharp.

    Viewers smooth small pictures when they enlarge them, whatever the file asks for; pixels that must stay
    squares are therefore enlarged here.
    """
    image = picture.image
    wide = max(1, round(picture.width * dpi / POINTS_PER_INCH))
    high = max(1, round(picture.height * dpi / POINTS_PER_INCH))
    if image.width > wide * 1.25 or image.height > high * 1.25:
        return image.resize((min(wide, image.width), min(high, image.height)), Image.Resampling.LANCZOS)
    if picture.sharp:
        factor = max(1, round(min(wide / image.width, high / image.height)))
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    return image

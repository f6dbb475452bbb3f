"""Contact sheets: the photo and all maps side by side, labelled, with their scales, as PNG, PDF and SVG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from convoscope.draw import pdf, png, raster, svg
from convoscope.draw.canvas import GREY, INK, PALE, Box, Drawing, Picture, Rule
from convoscope.errors import UsageError
from convoscope.files import write_image, write_whole

SUFFIXES = (".png", ".pdf", ".svg", ".jpg", ".jpeg", ".webp")
PRINT_DPI = 220.0
SCREEN_DPI = 144.0
SHARP_BELOW = 128

MARGIN = 28.0
GUTTER = 14.0
TITLE_SIZE = 14.0
HEADING_SIZE = 8.6
LABEL_SIZE = 8.6
SUBTITLE_SIZE = 7.4
FOOTNOTE_SIZE = 7.0


@dataclass(frozen=True)
class Style:
    """Margins and sizes of text, in points."""

    margin: float = MARGIN
    gutter: float = GUTTER
    title: float = TITLE_SIZE
    heading: float = HEADING_SIZE
    label: float = LABEL_SIZE
    subtitle: float = SUBTITLE_SIZE
    footnote: float = FOOTNOTE_SIZE


SCREEN = Style()
#: a figure of a paper: no margin but for the hairlines, text as a journal wants it, whatever the number of columns
PAPER = Style(1.0, 5.0, 8.5, 7.0, 7.0, 6.2, 6.2)


@dataclass(frozen=True)
class Sheet:
    """A finished figure.

    ``save`` writes it by the file's suffix; ``image`` is the picture on the screen; a notebook shows it by
    itself. Text stays text in PDF and SVG. A sheet so large that it would exceed 60 million pixels is written
    at a lower resolution.
    """

    drawing: Drawing

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in points (1/72 inch)."""
        return self.drawing.width, self.drawing.height

    @cached_property
    def image(self) -> Image.Image:
        """The sheet as an RGB picture at 144 dots per inch."""
        return self.render(SCREEN_DPI)

    def render(self, dpi: float = PRINT_DPI) -> Image.Image:
        """The sheet as an RGB picture at ``dpi`` dots per inch (fewer for a very large sheet)."""
        if dpi <= 0:
            raise UsageError(f"The resolution must be over 0 dots per inch, not {dpi}.")
        return raster.render(self.drawing, raster.affordable_dpi(self.drawing, dpi))

    def save(self, path: str | Path, *, dpi: float = PRINT_DPI) -> Path:
        """Write the sheet as .png, .pdf, .svg, .jpg or .webp.

        Args:
            path: the suffix decides about the format; the folder is made if it is missing.
            dpi: resolution of the picture, in PDF and SVG of the pictures within.

        Returns:
            The path.

        Raises:
            UsageError: for another suffix.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix not in SUFFIXES:
            raise UsageError(f"Cannot save a sheet as {path.name!r}: the name must end in {', '.join(SUFFIXES)}.")
        path.parent.mkdir(parents=True, exist_ok=True)
        if suffix == ".pdf":
            write_whole(path, self.pdf(dpi))
        elif suffix == ".svg":
            write_whole(path, self.svg(dpi))
        elif suffix == ".webp":
            fine = raster.affordable_dpi(self.drawing, dpi, longest=16_000)
            write_image(path, self.render(fine), quality=92, method=4)
        elif suffix == ".png":
            write_image(path, self.render(dpi), dpi=(dpi, dpi), **png.SETTINGS)
        else:
            write_image(path, self.render(dpi), quality=93, subsampling=0)
        return path

    def svg(self, dpi: float = PRINT_DPI) -> str:
        """The sheet as an SVG document."""
        return svg.render(self.drawing, raster.affordable_dpi(self.drawing, dpi))

    def pdf(self, dpi: float = PRINT_DPI) -> bytes:
        """The sheet as a PDF document of one page."""
        return pdf.render(self.drawing, raster.affordable_dpi(self.drawing, dpi))

    def __repr__(self) -> str:
        return f"Sheet({self.drawing.width:.0f}×{self.drawing.height:.0f} points): .save(FILE), .image"

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        png.save(self.image, buffer)
        return buffer.getvalue()


def is_sharp(image: Image.Image, wish: bool | None = None) -> bool:
    """Whether to draw pixels as squares: small pictures, unless told otherwise."""
    return max(image.size) < SHARP_BELOW if wish is None else wish


def picture_in(
    drawing: Drawing, x: float, y: float, size: tuple[float, float], image: Any, sharp: bool, alt: str = ""
) -> None:
    """A picture with a hairline around it, so that a white one has an edge on white paper."""
    inset = 0.25  # some PDF readers widen pictures to whole pixels: stay under the line
    drawing.items.append(Picture(x + inset, y + inset, size[0] - 2 * inset, size[1] - 2 * inset, image, sharp, alt))
    drawing.items.append(Box(x, y, size[0], size[1], stroke=PALE, line=0.35))


def header(drawing: Drawing, title: str, style: Style = SCREEN) -> float:
    """The sheet's title, wrapped. Returns where the content begins."""
    room = drawing.width - 2 * style.margin
    taken = drawing.block(style.margin, style.margin, title, style.title, room=room, lines=3, bold=True, colour=INK)
    return style.margin + taken + (0.7 * style.title if taken else 0.0)


def footer(drawing: Drawing, paragraphs: Sequence[str], y: float, style: Style = SCREEN) -> float:
    """Footnotes under a hairline. Returns where the page ends."""
    paragraphs = [text for text in paragraphs if text]
    if paragraphs:
        room = drawing.width - 2 * style.margin
        drawing.items.append(Rule(style.margin, y, drawing.width - style.margin, y, PALE, 0.5))
        y += style.footnote
        for text in paragraphs:
            y += drawing.block(style.margin, y, text, style.footnote, room=room, colour=GREY)
    return y + style.margin * 0.7

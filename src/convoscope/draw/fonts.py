"""Measuring, wrapping and shortening text, so that it never overflows in any of the formats.

All sizes are in points. Text is set in DejaVu Sans, which comes with matplotlib, without kerning and without
ligatures: its width is then the sum of its advances in Pillow, in PDF and in SVG alike. Characters that it
lacks (한글, 中文) are taken from a font of the system, where there is one.
"""

from __future__ import annotations

import importlib.util
import io
import re
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ASCENT = 0.76
"""Height of capital letters and ascenders over the baseline, in font sizes."""

DESCENT = 0.24
"""Depth of descenders below the baseline, in font sizes."""

LINE = 1.32
"""Distance between two baselines, in font sizes."""

_BREAK_AFTER = re.compile(r"(?<=[\s/_;–—|·@#>+])|(?<=[.,:\-])(?!\d)")
_PREFERRED = ("notosanscjk", "nanumgothic", "malgun", "applesdgothic", "sourcehan", "notosans", "unifont")


#: fontTools reads a font's tables when they are first asked for, which two threads must not do at once: several draw
_ONE_AT_A_TIME = threading.RLock()


@dataclass(frozen=True, eq=False)
class Face:
    """One font file, opened: what is needed to measure, draw and embed it."""

    path: str
    number: int
    bold: bool
    primary: bool
    units: int
    cmap: dict[int, str]

    @property
    def font(self) -> Any:
        """The fontTools font."""
        return _open(self.path, self.number)

    def advance(self, character: str) -> float:
        """Advance width of one character in font sizes."""
        with _ONE_AT_A_TIME:
            glyph = self.font.getGlyphID(self.cmap.get(ord(character), ".notdef"))
            widths = _advances(self.path, self.number)
        return float(widths[min(glyph, len(widths) - 1)]) / self.units


@lru_cache(maxsize=8)
def _open(path: str, number: int) -> Any:
    from fontTools.ttLib import TTFont  # type: ignore[import-untyped]

    return TTFont(path, lazy=True, fontNumber=number)


@lru_cache(maxsize=8)
def _advances(path: str, number: int) -> NDArray[np.uint16]:
    """Every glyph's advance width in font units; glyphs past the end are as wide as the last.

    Straight from the table ``hmtx`` (advance and bearing in turn, big-endian): fontTools takes a tenth of a second.
    """
    font = _open(path, number)
    count = int(font["hhea"].numberOfHMetrics)
    table = np.frombuffer(font.reader["hmtx"], dtype=">u2", count=2 * count)
    return table[::2].astype(np.uint16)


@lru_cache(maxsize=2)
def primary(bold: bool = False) -> Face:
    """DejaVu Sans, as bundled with matplotlib."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    with _ONE_AT_A_TIME:
        return _face(str(_font_folder() / name), bold, True)


def _font_folder() -> Path:
    """Where matplotlib keeps its fonts: found without importing it (0.3 s) where its folder is as usual."""
    found = importlib.util.find_spec("matplotlib")
    for place in (found.submodule_search_locations or ()) if found is not None else ():
        folder = Path(place) / "mpl-data" / "fonts" / "ttf"
        if (folder / "DejaVuSans.ttf").is_file():
            return folder
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


@lru_cache(maxsize=64)
def _face(path: str, bold: bool, is_primary: bool) -> Face:
    number = 0 if path.lower().endswith((".ttc", ".otc")) else -1
    font = _open(path, number)
    return Face(path, number, bold, is_primary, int(font["head"].unitsPerEm), font.getBestCmap() or {})


@lru_cache(maxsize=512)
def face_for(character: str, bold: bool = False) -> Face:
    """The font that has this character: DejaVu Sans, else one of the system, else DejaVu Sans (a box)."""
    with _ONE_AT_A_TIME:
        first = primary(bold)
        if ord(character) in first.cmap:
            return first
        for path in _system_fonts():
            try:
                face = _face(path, bold, False)
            except Exception:  # a broken font of the system is no reason to fail: the next one may do
                continue
            if ord(character) in face.cmap:
                return face
        return first


@lru_cache(maxsize=1)
def _system_fonts() -> tuple[str, ...]:
    from matplotlib.font_manager import findSystemFonts

    def rank(path: str) -> tuple[int, int, str]:
        name = Path(path).name.lower()
        place = next((i for i, known in enumerate(_PREFERRED) if known in name), len(_PREFERRED))
        return place, "regular" not in name, name

    return tuple(sorted((str(path) for path in findSystemFonts()), key=rank))[:40]


def runs(text: str, bold: bool = False) -> list[tuple[Face, str]]:
    """The text cut into pieces of one font each."""
    out: list[tuple[Face, str]] = []
    for character in text:
        face = face_for(character, bold)
        if out and out[-1][0] is face:
            out[-1] = (face, out[-1][1] + character)
        else:
            out.append((face, character))
    return out


@lru_cache(maxsize=8192)
def _width(text: str, bold: bool) -> float:
    return sum(face_for(character, bold).advance(character) for character in text)


def width(text: str, size: float, bold: bool = False) -> float:
    """Width of one line in points."""
    return _width(text, bold) * size


def clean(text: str) -> str:
    """One line: control characters and runs of white space become single blanks."""
    visible = "".join(c if c.isprintable() else " " for c in str(text))
    return " ".join(visible.split())


def fit(text: str, room: float, size: float, bold: bool = False) -> str:
    """The text, shortened with an ellipsis if it is wider than ``room`` points."""
    text = clean(text)
    if width(text, size, bold) <= room:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if width(text[:middle].rstrip() + "…", size, bold) <= room:
            low = middle
        else:
            high = middle - 1
    short = text[:low].rstrip() + "…"
    return short if width(short, size, bold) <= room else ""


def wrap(text: str, room: float, size: float, bold: bool = False, lines: int | None = None) -> list[str]:
    """The text in lines no wider than ``room`` points.

    Lines break at blanks, else after punctuation (``layer4.2.`` / ``conv3``), else anywhere. With ``lines``,
    the last one allowed ends in an ellipsis where text is left over. Empty text gives no line.
    """
    rest = [piece for piece in _BREAK_AFTER.split(clean(text)) if piece]
    out: list[str] = []
    line = ""
    while rest:
        piece = rest.pop(0)
        if width((line + piece).rstrip(), size, bold) <= room:
            line += piece
            continue
        if not line:
            head = _head(piece, room, size, bold)
            line, piece = head, piece[len(head) :]
        if lines is not None and len(out) == lines - 1:
            return [*out, fit(line + piece + "".join(rest) + "\u2026", room, size, bold)]
        out.append(line.rstrip())
        line = ""
        if piece:
            rest.insert(0, piece)
    if line.strip():
        out.append(line.rstrip())
    return out


def _head(piece: str, room: float, size: float, bold: bool) -> str:
    """As many first characters of an unbreakable piece as fit; at least one."""
    count = 1
    while count < len(piece) and width(piece[: count + 1], size, bold) <= room:
        count += 1
    return piece[:count]


@lru_cache(maxsize=256)
def pillow(face: Face, pixels: float) -> Any:
    """The same font for Pillow, at a size in pixels."""
    from PIL import ImageFont, features

    raqm = bool(features.check("raqm"))
    engine = ImageFont.Layout.RAQM if raqm else ImageFont.Layout.BASIC
    return ImageFont.truetype(face.path, pixels, index=max(face.number, 0), layout_engine=engine)


@lru_cache(maxsize=1)
def plain_features() -> list[str] | None:
    """What switches kerning and ligatures off in Pillow; None where its simple layout has neither switch."""
    from PIL import features

    return ["-kern", "-liga", "-clig"] if features.check("raqm") else None


def subset(face: Face, characters: str, *, web: bool = False) -> bytes:
    """A font file with only these characters, TrueType, or WOFF with ``web``."""
    from fontTools import subset as tools  # type: ignore[import-untyped]
    from fontTools.ttLib import TTFont

    options = tools.Options()
    options.layout_features = []
    options.drop_tables += ["GSUB", "GPOS", "GDEF", "kern", "FFTM"]
    options.hinting = False
    options.notdef_outline = True
    options.name_IDs = [1, 2, 6]
    options.retain_gids = False
    font = TTFont(face.path, fontNumber=face.number)
    worker = tools.Subsetter(options)
    worker.populate(unicodes=[ord(c) for c in characters])
    worker.subset(font)
    if web:
        font.flavor = "woff"
    buffer = io.BytesIO()
    font.save(buffer)
    return buffer.getvalue()

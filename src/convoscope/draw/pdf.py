"""A drawing as PDF: text as text in an embedded subset of the font, pictures losslessly compressed.

Written by hand after ISO 32000-1: a page, one content stream, Type 0 fonts over TrueType or CFF subsets with
a ToUnicode map (so that text can be found and copied), and pictures as Flate streams.
"""

from __future__ import annotations

import io
import zlib
from typing import Any

from convoscope.draw import fonts
from convoscope.draw.canvas import Box, Drawing, Picture, Rule, Text, rgb, sampled
from convoscope.draw.fonts import Face

LONGEST_SIDE = 14_400.0
"""Readers accept no longer page, in points: larger drawings are scaled down, losing nothing."""


class _File:
    """Numbered objects and the table that finds them."""

    def __init__(self) -> None:
        self.objects: list[bytes] = []

    def add(self, body: bytes) -> int:
        self.objects.append(body)
        return len(self.objects)

    def stream(self, data: bytes, entries: str = "", *, packed: bool = False) -> int:
        body = data if packed else zlib.compress(data, 6)
        head = f"<< {entries} /Filter /FlateDecode /Length {len(body)} >>\nstream\n"
        return self.add(head.encode("latin-1") + body + b"\nendstream")

    def write(self, root: int, info: int) -> bytes:
        out = io.BytesIO()
        out.write(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
        places = []
        for number, body in enumerate(self.objects, start=1):
            places.append(out.tell())
            out.write(f"{number} 0 obj\n".encode() + body + b"\nendobj\n")
        start = out.tell()
        out.write(f"xref\n0 {len(places) + 1}\n0000000000 65535 f \n".encode())
        for place in places:
            out.write(f"{place:010d} 00000 n \n".encode())
        out.write(
            f"trailer\n<< /Size {len(places) + 1} /Root {root} 0 R /Info {info} 0 R >>\n"
            f"startxref\n{start}\n%%EOF\n".encode()
        )
        return out.getvalue()


class _Font:
    """One embedded subset: codes of the characters used, and the objects that describe it.

    A code is what CIDFonts call a CID: the glyph's number, but in a CID-keyed CFF font the number in its
    charset.
    """

    def __init__(self, face: Face, characters: str, number: int) -> None:
        from fontTools.ttLib import TTFont  # type: ignore[import-untyped]

        self.face = face
        self.data = fonts.subset(face, characters)
        self.font: Any = TTFont(io.BytesIO(self.data))
        self.cff = "CFF " in self.font
        self.name = "CVSC" + chr(65 + number // 26 % 26) + chr(65 + number % 26) + "+Text"
        if face.primary:
            self.name = self.name.replace("Text", "DejaVuSans-Bold" if face.bold else "DejaVuSans")
        cmap = self.font.getBestCmap()
        self.codes = {c: self._code(cmap[ord(c)]) for c in characters if ord(c) in cmap}

    def _code(self, glyph: str) -> int:
        if self.cff and hasattr(self.font["CFF "].cff[0], "ROS"):
            return int(glyph.removeprefix("cid"))
        return int(self.font.getGlyphID(glyph))

    def encode(self, text: str) -> str:
        return "<" + "".join(f"{self.codes.get(c, 0):04X}" for c in text) + ">"

    def write(self, file: _File) -> int:
        scale = 1000 / self.face.units
        head, hhea = self.font["head"], self.font["hhea"]
        box = " ".join(str(round(v * scale)) for v in (head.xMin, head.yMin, head.xMax, head.yMax))
        if self.cff:
            program = file.stream(self.font.reader["CFF "], "/Subtype /CIDFontType0C")
            kind, entry, glyph_map = "CIDFontType0", "FontFile3", ""
        else:
            program = file.stream(self.data, f"/Length1 {len(self.data)}")
            kind, entry, glyph_map = "CIDFontType2", "FontFile2", "/CIDToGIDMap /Identity "
        descriptor = file.add(
            f"<< /Type /FontDescriptor /FontName /{self.name} /Flags 4 /FontBBox [{box}] /ItalicAngle 0 "
            f"/Ascent {round(hhea.ascent * scale)} /Descent {round(hhea.descent * scale)} /CapHeight 729 "
            f"/StemV {140 if self.face.bold else 80} /{entry} {program} 0 R >>".encode()
        )
        widths = " ".join(f"{code} [{self.face.advance(c) * 1000:.2f}]" for c, code in self.codes.items())
        child = file.add(
            f"<< /Type /Font /Subtype /{kind} /BaseFont /{self.name} {glyph_map}/DW 600 "
            f"/CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) /Supplement 0 >> "
            f"/FontDescriptor {descriptor} 0 R /W [{widths}] >>".encode()
        )
        unicode_map = file.stream(self._to_unicode())
        return file.add(
            f"<< /Type /Font /Subtype /Type0 /BaseFont /{self.name} /Encoding /Identity-H "
            f"/DescendantFonts [{child} 0 R] /ToUnicode {unicode_map} 0 R >>".encode()
        )

    def _to_unicode(self) -> bytes:
        pairs = [f"<{number:04X}> <{_utf16(c)}>" for c, number in self.codes.items()]
        blocks = [
            f"{len(pairs[i : i + 100])} beginbfchar\n" + "\n".join(pairs[i : i + 100]) + "\nendbfchar"
            for i in range(0, len(pairs), 100)
        ]
        return (
            "/CIDInit /ProcSet findresource begin\n12 dict begin\nbegincmap\n"
            "/CIDSystemInfo << /Registry (Adobe) /Ordering (UCS) /Supplement 0 >> def\n"
            "/CMapName /Adobe-Identity-UCS def\n/CMapType 2 def\n"
            "1 begincodespacerange\n<0000> <FFFF>\nendcodespacerange\n"
            + "\n".join(blocks)
            + "\nendcmap\nCMapName currentdict /CMap defineresource pop\nend\nend\n"
        ).encode()


def render(drawing: Drawing, dpi: float) -> bytes:
    """The drawing as a one-page PDF document; pictures are embedded at no more than ``dpi``."""
    file = _File()
    embedded = _fonts(drawing)
    names = {face: f"F{number}" for number, face in enumerate(embedded)}
    scale = min(1.0, LONGEST_SIDE / max(drawing.width, drawing.height))
    content = [f"{scale:.6f} 0 0 {-scale:.6f} 0 {drawing.height * scale:.3f} cm"]
    pictures: dict[tuple[object, ...], tuple[str, int]] = {}
    for item in drawing.items:
        if isinstance(item, Text):
            content.extend(_text(item, embedded, names))
        elif isinstance(item, Picture):
            key = id(item.image), item.sharp, round(item.width, 3), round(item.height, 3)
            if key not in pictures:
                pictures[key] = (f"I{len(pictures)}", _image(file, item, dpi))
            content.append(
                f"q {item.width:.3f} 0 0 {-item.height:.3f} {item.x:.3f} {item.y + item.height:.3f} cm "
                f"/{pictures[key][0]} Do Q"
            )
        elif isinstance(item, Box):
            content.extend(_box(item))
        elif isinstance(item, Rule):
            content.append(
                f"{_colour(item.colour)} RG {item.line:.3f} w {item.x1:.3f} {item.y1:.3f} m "
                f"{item.x2:.3f} {item.y2:.3f} l S"
            )
    stream = file.stream("\n".join(content).encode("latin-1"))
    font_entries = " ".join(f"/{names[face]} {font.write(file)} 0 R" for face, font in embedded.items())
    image_entries = " ".join(f"/{name} {number} 0 R" for name, number in pictures.values())
    pages = len(file.objects) + 2
    page = file.add(
        f"<< /Type /Page /Parent {pages} 0 R "
        f"/MediaBox [0 0 {drawing.width * scale:.3f} {drawing.height * scale:.3f}] /Contents {stream} 0 R "
        f"/Resources << /Font << {font_entries} >> /XObject << {image_entries} >> >> >>".encode()
    )
    file.add(f"<< /Type /Pages /Kids [{page} 0 R] /Count 1 >>".encode())
    root = file.add(f"<< /Type /Catalog /Pages {pages} 0 R >>".encode())
    info = file.add(f"<< /Title <FEFF{_utf16(drawing.title)}> /Producer (Convoscope) >>".encode())
    return file.write(root, info)


def _fonts(drawing: Drawing) -> dict[Face, _Font]:
    used: dict[Face, set[str]] = {}
    for text in drawing.texts():
        for face, part in fonts.runs(text.text, text.bold):
            used.setdefault(face, set()).update(part)
    return {
        face: _Font(face, "".join(sorted(characters)), number)
        for number, (face, characters) in enumerate(used.items())
    }


def _text(item: Text, embedded: dict[Face, _Font], names: dict[Face, str]) -> list[str]:
    out = [f"{_colour(item.colour)} rg"]
    x = item.left
    for face, part in fonts.runs(item.text, item.bold):
        out.append(
            f"BT /{names[face]} {item.size:.3f} Tf 1 0 0 -1 {x:.3f} {item.y:.3f} Tm "
            f"{embedded[face].encode(part)} Tj ET"
        )
        x += fonts.width(part, item.size, item.bold)
    return out


def _image(file: _File, item: Picture, dpi: float) -> int:
    image = sampled(item, dpi).convert("RGB")
    entries = (
        f"/Type /XObject /Subtype /Image /Width {image.width} /Height {image.height} /ColorSpace /DeviceRGB "
        "/BitsPerComponent 8 /DecodeParms << /Predictor 15 /Colors 3 /BitsPerComponent 8 "
        f"/Columns {image.width} >>"
    )
    return file.stream(_png_data(image), entries, packed=True)


def _png_data(image: Any) -> bytes:
    """The compressed rows of a PNG: a PDF takes them as they are, PNG filters included."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    data, place, out = buffer.getvalue(), 8, []
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] == b"IDAT":
            out.append(data[place + 8 : place + 8 + length])
        place += 12 + length
    return b"".join(out)


def _box(item: Box) -> list[str]:
    out = []
    if item.fill:
        out.append(f"{_colour(item.fill)} rg {item.x:.3f} {item.y:.3f} {item.width:.3f} {item.height:.3f} re f")
    if item.stroke:
        inset = item.line / 2
        out.append(
            f"{_colour(item.stroke)} RG {item.line:.3f} w {item.x + inset:.3f} {item.y + inset:.3f} "
            f"{max(item.width - item.line, 0.01):.3f} {max(item.height - item.line, 0.01):.3f} re S"
        )
    return out


def _colour(colour: str) -> str:
    return " ".join(f"{part / 255:.4f}" for part in rgb(colour))


def _utf16(text: str) -> str:
    return text.encode("utf-16-be", "replace").hex().upper()

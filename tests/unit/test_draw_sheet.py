"""Sheets: text never clipped nor overlapping, the same in every format."""

import io
import itertools
import re
import subprocess
import sys
import zlib
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from convoscope.draw import canvas, colour, overlay, raster, sheet
from convoscope.draw.contact import Cell, Row, contact_sheet
from convoscope.errors import UsageError

LONG = (
    "military uniform of the western approaches, supercalifragilistic-expialidocious/with_no_blanks_at_all_anywhere"
)


def photo(width=60, height=40, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def cell(title="grad-cam", shape=(60, 40), signed=False, note="", unit="score per pixel", factor=1.0):
    values = np.random.default_rng(1).standard_normal((8, 8)) * factor
    values = values if signed else np.abs(values)
    scale = colour.scale_for([values], signed=signed, unit=unit)
    return Cell(overlay.overlay(photo(*shape), values, scale=scale, min_size=0), title, scale, note)


def rows(count, methods, shape=(60, 40), **options):
    return [
        Row(
            photo(*shape),
            f"tabby {i}",
            "0.62 · logit 14.1",
            [cell(f"method-{m}", shape, **options) for m in range(methods)],
        )
        for i in range(count)
    ]


def check(figure):
    """No text leaves the page, none overlaps another or a picture; no picture leaves the page."""
    drawing = figure.drawing
    texts = drawing.texts()
    for text in texts:
        left, top, right, bottom = text.bounds
        assert left >= 0
        assert top >= 0
        assert right <= drawing.width + 0.01, text.text
        assert bottom <= drawing.height, text.text
    for picture in drawing.pictures():
        assert picture.x >= 0
        assert picture.x + picture.width <= drawing.width + 0.01
        assert picture.y + picture.height <= drawing.height
    boxes = [text.bounds for text in texts]
    boxes += [(p.x, p.y, p.x + p.width, p.y + p.height) for p in drawing.pictures()]
    boxes.sort(key=lambda box: box[1])
    for place, one in enumerate(boxes):
        for other in itertools.takewhile(lambda box: box[1] < one[3], boxes[place + 1 :]):  # noqa: B023
            apart = other[0] >= one[2] - 0.01 or other[2] <= one[0] + 0.01 or other[1] >= one[3] - 0.01
            assert apart, (one, other)


@pytest.mark.parametrize(
    ("count", "methods", "shape"),
    [(1, 0, (60, 40)), (1, 1, (60, 40)), (3, 4, (60, 40)), (1, 20, (60, 40)), (2, 11, (40, 90)),
     (50, 2, (90, 30)), (2, 6, (300, 9)), (2, 3, (9, 300)), (1, 2, (28, 28))],
)  # fmt: skip
def test_every_number_and_shape_of_pictures_is_laid_out(count, methods, shape):
    figure = contact_sheet(rows(count, methods, shape), title="A title", footnote="A footnote.")
    check(figure)
    bars = count * methods
    assert len(figure.drawing.pictures()) == count + methods * count + bars


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("factor", [1.0, 1e-12, 1e7])
@pytest.mark.parametrize("cell_width", [40, 70, None])
def test_long_text_is_wrapped_or_shortened_and_never_overlaps(signed, factor, cell_width):
    cells = [cell(LONG, signed=signed, note=LONG * 3, unit=LONG, factor=factor) for _ in range(3)]
    figure = contact_sheet(
        [Row(photo(), LONG * 2, LONG * 2, cells), Row(photo(), "한국어 이름", "", cells[:2])],
        title=LONG * 5,
        footnote=LONG * 4,
        cell_width=cell_width,
    )
    check(figure)


def test_methods_wrap_into_balanced_lines():
    figure = contact_sheet(rows(1, 11))
    xs = {round(text.x) for text in figure.drawing.texts() if text.text.startswith("method-")}
    ys = {round(text.y) for text in figure.drawing.texts() if text.text.startswith("method-")}
    assert (len(xs), len(ys)) == (6, 2)


def test_headings_stand_once_where_all_rows_share_them():
    same = contact_sheet(rows(4, 3))
    assert [t.text for t in same.drawing.texts()].count("method-0") == 1
    mixed = rows(2, 3)
    mixed[1] = Row(photo(), "other", "", [cell("another")])
    texts = [t.text for t in contact_sheet(mixed).drawing.texts()]
    assert texts.count("method-0") == 1
    assert texts.count("another") == 1


def test_pictures_keep_their_shape():
    for shape in ((300, 100), (100, 300), (128, 128)):
        figure = contact_sheet(rows(1, 1, shape))
        first = figure.drawing.pictures()[0]
        assert first.width / first.height == pytest.approx(shape[0] / shape[1], rel=0.02)


def test_the_scale_is_stated_in_numbers_and_in_words():
    values = np.linspace(0, 1, 10_000).reshape(100, 100) ** 2 * 0.4
    clipped = colour.scale_for([values], signed=False, percentile=90, unit="probability drop")
    image = overlay.heatmap_image(values, clipped)
    text = " ".join(t.text for t in contact_sheet([Row(image, cells=[Cell(image, "m", clipped)])]).drawing.texts())
    assert f"≥ {colour.format_number(np.percentile(values, 90))}" in text
    assert "probability drop" in text
    assert "90th percentile" in text
    whole = colour.scale_for([values], signed=False, percentile=None)
    text = " ".join(t.text for t in contact_sheet([Row(image, cells=[Cell(image, "m", whole)])]).drawing.texts())
    assert "0.4" in text
    assert "≥" not in text
    assert "percentile" not in text


def test_signed_legend_shows_both_ends_and_zero():
    scale = colour.Scale(-0.25, 0.25, True)
    image = overlay.heatmap_image(np.zeros((9, 9)), scale)
    texts = [t.text for t in contact_sheet([Row(image, cells=[Cell(image, "m", scale)])]).drawing.texts()]
    assert {"−0.25", "0", "0.25"} <= set(texts)


def test_different_clippings_are_stated_under_each_map():
    image = photo()
    a, b = colour.Scale(0, 1, False, "", 99.0), colour.Scale(0, 1, False, "", 90.0)
    figure = contact_sheet([Row(image, cells=[Cell(image, "a", a), Cell(image, "b", b)])])
    text = " ".join(t.text for t in figure.drawing.texts())
    assert "99th" in text
    assert "90th" in text


def test_doubts_and_missing_maps_are_shown():
    flat = colour.scale_for([np.zeros((4, 4))], signed=False)
    figure = contact_sheet([Row(photo(), cells=[Cell(photo(), "m", flat), Cell(None, "n", None, "refused: why")])])
    notes = {t.text for t in figure.drawing.texts() if t.colour == canvas.AMBER}
    assert notes == {"every value is 0", "refused: why"}
    assert len([p for p in figure.drawing.pictures() if p.alt == "no map"]) == 1


def test_png_has_the_promised_size_and_shows_the_photo():
    colours = np.zeros((200, 300, 3), np.uint8)
    colours[...] = (10, 200, 30)
    figure = contact_sheet([Row(colours, "green")])
    picture = figure.render(144)
    assert picture.size == tuple(round(side * 2) for side in figure.size)
    place = figure.drawing.pictures()[0]
    middle = picture.getpixel((round(2 * (place.x + place.width / 2)), round(2 * (place.y + place.height / 2))))
    assert middle == (10, 200, 30)
    assert picture.getpixel((1, 1)) == (255, 255, 255)


def test_all_formats_are_written(tmp_path):
    figure = contact_sheet(rows(2, 2), title="A title")
    for suffix in sheet.SUFFIXES:
        path = figure.save(tmp_path / "new" / f"sheet{suffix}", dpi=80)
        assert path.stat().st_size > 2000
        if suffix not in (".pdf", ".svg"):
            with Image.open(path) as picture:
                assert picture.width == round(figure.size[0] * 80 / 72)
    with pytest.raises(UsageError, match=r"\.bmp"):
        figure.save(tmp_path / "sheet.bmp")


def test_notebooks_get_a_png():
    data = contact_sheet(rows(1, 1))._repr_png_()
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "PNG"


def test_svg_is_xml_with_text_as_text_and_pictures_as_png():
    figure = contact_sheet(rows(1, 2), title='Tricky <&> "title" ]]> λ\x00\x0b')
    root = ElementTree.fromstring(figure.svg(100))
    name = "{http://www.w3.org/2000/svg}"
    texts = [element.text for element in root.iter(f"{name}text")]
    assert texts == [t.text for t in figure.drawing.texts()]
    assert 'Tricky <&> "title" ]]> λ' in texts
    images = list(root.iter(f"{name}image"))
    assert len(images) == len(figure.drawing.pictures())
    assert all(i.get("{http://www.w3.org/1999/xlink}href").startswith("data:image/png;base64,") for i in images)
    lengths = [float(element.get("textLength")) for element in root.iter(f"{name}text")]
    assert lengths == pytest.approx([t.width for t in figure.drawing.texts()], abs=1e-3)


def pdf_objects(data):
    return {int(n): body for n, body in re.findall(rb"(\d+) 0 obj\n(.*?)\nendobj", data, re.S)}


def pdf_text(data):
    """Decode the shown strings through the ToUnicode maps, as a reader does that searches or copies."""
    objects = pdf_objects(data)

    def stream(number):
        return zlib.decompress(objects[number].split(b"stream\n", 1)[1].rsplit(b"\nendstream", 1)[0])

    page = next(body for body in objects.values() if b"/Type /Page " in body)
    maps = {}
    for name, number in re.findall(rb"/(F\d+) (\d+) 0 R", page):
        where = int(re.search(rb"/ToUnicode (\d+)", objects[int(number)])[1])
        pairs = re.findall(rb"<([0-9A-F]{4})> <([0-9A-F]+)>\n", stream(where))
        maps[name] = {code: bytes.fromhex(text.decode()).decode("utf-16-be") for code, text in pairs}
    content = stream(int(re.search(rb"/Contents (\d+)", page)[1]))
    shown = re.findall(rb"BT /(F\d+) .*? Tm <([0-9A-F]*)> Tj ET", content)
    return ["".join(maps[font][codes[i : i + 4]] for i in range(0, len(codes), 4)) for font, codes in shown]


def test_pdf_holds_its_text_as_text():
    figure = contact_sheet(rows(1, 2, signed=True), title="A title (with) \\ − × λ ⁻⁵")
    data = figure.pdf(100)
    assert data.startswith(b"%PDF")
    assert pdf_text(data) == [t.text for t in figure.drawing.texts()]


def test_pdf_cross_references_point_at_their_objects():
    data = contact_sheet(rows(1, 1)).pdf(100)
    start = int(re.search(rb"startxref\n(\d+)", data)[1])
    assert data[start : start + 4] == b"xref"
    places = re.findall(rb"(\d{10}) 00000 n", data[start:])
    for number, place in enumerate(places, start=1):
        assert data[int(place) :].startswith(f"{number} 0 obj".encode())
    for body in pdf_objects(data).values():
        if b"stream\n" in body:
            inner = body.split(b"stream\n", 1)[1].rsplit(b"\nendstream", 1)[0]
            assert len(inner) == int(re.search(rb"/Length (\d+) >>", body)[1])


def test_pdf_pictures_are_the_pixels():
    colours = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    figure = contact_sheet([Row(Image.fromarray(colours).resize((160, 120), 0), "p")])
    data = figure.pdf(60)
    body = next(b for b in pdf_objects(data).values() if b"/Subtype /Image" in b)
    wide, high = (int(re.search(rb"/%s (\d+)" % key, body)[1]) for key in (b"Width", b"Height"))
    raw = zlib.decompress(body.split(b"stream\n", 1)[1].rsplit(b"\nendstream", 1)[0])
    assert len(raw) == high * (3 * wide + 1)  # a filter byte and the pixels, row by row


def test_enormous_sheets_stay_affordable(tmp_path, monkeypatch):
    monkeypatch.setattr(raster, "PIXEL_BUDGET", 3_000_000)
    figure = contact_sheet(rows(50, 3, (60, 200)))
    picture = figure.render(600)
    assert picture.width * picture.height == pytest.approx(3_000_000, rel=0.01)
    sides = re.search(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", figure.pdf(20))
    assert max(float(side) for side in sides.groups()) <= 14_400.01
    monkeypatch.setattr(raster, "PIXEL_BUDGET", 10**9)
    tall = contact_sheet(rows(50, 1, (60, 200)), cell_width=100)
    with Image.open(tall.save(tmp_path / "big.webp", dpi=150)) as webp:
        assert 15_900 <= max(webp.size) <= 16_383  # WebP holds no longer side


def test_small_pictures_are_drawn_as_squares():
    board = (np.indices((8, 8)).sum(0) % 2 * 255).astype(np.uint8)
    figure = contact_sheet([Row(board, "board")])
    place = figure.drawing.pictures()[0]
    assert place.sharp
    part = np.asarray(figure.render(200))
    inner = part[
        round(place.y * 200 / 72) + 3 : round((place.y + place.height) * 200 / 72) - 3,
        round(place.x * 200 / 72) + 3 : round((place.x + place.width) * 200 / 72) - 3,
    ]
    assert set(np.unique(inner)) == {0, 255}


@pytest.mark.parametrize(
    "call",
    [
        lambda: contact_sheet([]),
        lambda: contact_sheet(rows(1, 1), columns=0),
        lambda: contact_sheet(rows(1, 1)).render(0),
    ],
)
def test_bad_input_gets_a_sentence(call):
    with pytest.raises(UsageError, match=r"\.$"):
        call()


def test_drawing_needs_neither_torch_nor_a_window():
    code = (
        "import sys, numpy as np\n"
        "from convoscope.draw import colour, grid, overlay, sheet\n"
        "from convoscope.html import page\n"
        "assert 'matplotlib' not in sys.modules\n"
        "grid.tiles(np.random.rand(3, 4, 4), title='t').image\n"
        "grid.tiles(np.random.rand(3, 4, 4), title='t').pdf()\n"
        "assert 'torch' not in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

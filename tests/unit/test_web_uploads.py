"""Thirty hostile uploads: each gets one sentence, none harms the server, none is kept."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")

from PIL import Image


def png(width: int, height: int, data: bytes = b"", kind: int = 2, depth: int = 8, interlace: int = 0) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def real(kind: str = "PNG", size: tuple[int, int] = (40, 30), mode: str = "RGB", **settings: Any) -> bytes:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def gif_of(frames: int) -> bytes:
    images = [Image.new("P", (8, 8), k % 256) for k in range(frames)]
    buffer = io.BytesIO()
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:])
    return buffer.getvalue()


HOSTILE: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "one byte": lambda: b"\x89",
    "text": lambda: b"hello, world\n" * 100,
    "html": lambda: b"<!doctype html><script>alert(1)</script>",
    "svg": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    "pdf": lambda: b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj",
    "postscript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n",
    "elf": lambda: b"\x7fELF" + b"\x00" * 400,
    "pickle": lambda: b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    "zip": lambda: b"PK\x03\x04" + b"\x00" * 60,
    "gzip bomb": lambda: zlib.compress(b"\x00" * 50_000_000),
    "bomb by header": lambda: png(60_000, 60_000),
    "long and thin bomb": lambda: png(2_000_000_000, 1),
    "nothing wide": lambda: png(0, 40),
    "nothing high": lambda: png(40, 0),
    "negative size": lambda: png(0xFFFFFFFF, 0xFFFFFFFF),
    "header only": lambda: real()[:40],
    "cut in the middle": lambda: real(size=(400, 300))[:2000],
    "jpeg cut": lambda: real("JPEG", (400, 300))[:700],
    "jpeg with garbage": lambda: real("JPEG")[:20] + b"\xff" * 5000,
    "jpeg head, png body": lambda: b"\xff\xd8\xff\xe0" + real(),
    "wrong checksum": lambda: real().replace(b"IDAT", b"IDAX"),
    "broken palette": lambda: png(8, 8, b"\xff" * 72, kind=3),
    "impossible depth": lambda: png(8, 8, b"\x00" * 200, depth=7),
    "too much data": lambda: png(2, 2, b"\x00" * 10_000_000, kind=9),
    "webp cut": lambda: real("WEBP")[:30],
    "tiff of offsets": lambda: b"II*\x00\xff\xff\xff\xff" + b"\x00" * 64,
    "tiff that loops": lambda: b"II*\x00\x08\x00\x00\x00\x00\x00\x08\x00\x00\x00" + b"\x00" * 32,
    "bmp of another size": lambda: (
        b"BM" + struct.pack("<IHHIIiiHH", 60, 0, 0, 54, 40, 2**31 - 1, 2**31 - 1, 1, 24) + b"\x00" * 30
    ),
    "ppm that promises": lambda: b"P6\n90000 90000\n255\n\x00",
    "icns": lambda: b"icns\x00\x00\x00\x20ic10" + b"\x00" * 30,
    "xcf": lambda: b"gimp xcf file\x00" + b"\x00" * 40,
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_upload(web: Any, name: str) -> None:
    before = web.get("/api/pictures").json()["total"]
    answer = web.post("/api/pictures", params={"name": f"{name}.png"}, content=HOSTILE[name]())
    assert answer.status_code == 400, (name, answer.text)
    said = answer.json()["detail"]
    assert said.count("\n") == 0
    assert "Traceback" not in said
    assert len(said) < 300
    assert web.get("/api/pictures").json()["total"] == before


def test_there_are_thirty() -> None:
    assert len(HOSTILE) >= 30


@pytest.mark.parametrize(
    "made",
    [
        lambda: real(mode="L"), lambda: real(mode="RGBA"), lambda: real(mode="P"), lambda: real("JPEG", mode="CMYK"),
        lambda: real("WEBP"), lambda: real("BMP"), lambda: real("TIFF"), lambda: real(size=(1, 1)), lambda: gif_of(3),
        lambda: real(size=(3000, 2)), lambda: real("PNG", mode="I;16"),
    ],
)  # fmt: skip
def test_odd_but_honest_pictures_are_taken(web: Any, made: Callable[[], bytes]) -> None:
    answer = web.post("/api/pictures", params={"name": "odd"}, content=made())
    assert answer.status_code == 201, answer.text
    id = answer.json()["id"]
    assert web.get(f"/api/pictures/{id}/photo").status_code == 200
    assert web.get(f"/api/pictures/{id}/thumbnail").status_code == 200
    assert web.get("/api/predict", params={"picture": id}).status_code == 200


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "passwd"), ("a\x00b\x1b[31m.png", "ab[31m.png"), ("C:\\x\\y.png", "y.png"),
        ("%2e%2e%2fz.png", "z.png"), ("", "picture"),
    ],
)  # fmt: skip
def test_names_hold_no_paths_and_no_control_characters(toybox_model: Any, name: str, shown: str) -> None:
    from web_helpers import client

    from convoscope.web import create_app

    with client(create_app(toybox_model)) as found:
        answer = found.post("/api/pictures", params={"name": name}, content=real())
        assert answer.json()["name"] == shown


def test_uploads_are_bounded_in_number(toybox_model: Any) -> None:
    from convoscope.web.picture_library import UPLOADS, PictureLibrary

    album = PictureLibrary()
    ids = [album.add(real(size=(20 + k, 20)), "x").id for k in range(UPLOADS + 6)]
    assert len(album.entries()) == UPLOADS
    assert ids[0] not in {entry.id for entry in album.entries()}
    assert ids[-1] in {entry.id for entry in album.entries()}


def test_the_same_picture_twice_is_one(web: Any) -> None:
    data = real(size=(33, 44))
    first = web.post("/api/pictures", params={"name": "a.png"}, content=data).json()
    again = web.post("/api/pictures", params={"name": "b.png"}, content=data).json()
    assert again == first


def test_what_goes_out_was_encoded_anew(web: Any) -> None:
    marked = real("JPEG", (600, 500), exif=b"Exif\x00\x00secret place", comment=b"secret words")
    id = web.post("/api/pictures", content=marked).json()["id"]
    for path in ("photo", "thumbnail", "input"):
        assert b"secret" not in web.get(f"/api/pictures/{id}/{path}").content

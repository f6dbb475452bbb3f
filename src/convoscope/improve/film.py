"""A film that can be read at any moment: an animated WebP that grows by one frame at a time.

Programs are killed while they train. A frame is appended and flushed before the file's head counts it, so that what
is on the disk is a whole film after every frame, and adding one costs the same at the first and at the thousandth.
"""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

from PIL import Image

from ..errors import UsageError
from ..files import write_whole

#: WebP holds no larger picture
LARGEST = 16383


class Film:
    """An animated WebP (WebP container specification, RFC 9649).

    Args:
        path: the ``.webp`` file; one that is there is replaced.
        milliseconds: for which a frame is shown.

    Raises:
        UsageError: a name that does not end in ``.webp``, or a frame too large for WebP.
    """

    def __init__(self, path: str | Path, milliseconds: int = 400) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() != ".webp":
            raise UsageError(f"{self.path}: a film is a .webp file.")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.milliseconds = milliseconds
        self.size: tuple[int, int] | None = None
        self.frames = 0

    def add(self, frame: Image.Image) -> None:
        """Append a frame; all have the size of the first (others are placed on a white field of that size)."""
        image = frame.convert("RGB")
        if self.size is None:
            if max(image.size) > LARGEST:
                raise UsageError(f"A frame of {image.width}×{image.height} pixels is too large for a film.")
            self._begin(image.size)
        assert self.size is not None
        if image.size != self.size:
            field = Image.new("RGB", self.size, (255, 255, 255))
            field.paste(image, (0, 0))
            image = field
        chunk = _frame(image, self.milliseconds)
        with open(self.path, "r+b") as file:
            end = file.seek(0, os.SEEK_END)
            file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
            # only now the head counts what lies there
            file.seek(4)
            file.write(struct.pack("<I", end + len(chunk) - 8))
            file.flush()
            os.fsync(file.fileno())
        self.frames += 1

    def _begin(self, size: tuple[int, int]) -> None:
        self.size = size
        width, height = size
        animated = 0b00000010
        head = _chunk(b"VP8X", bytes([animated, 0, 0, 0]) + _three(width - 1) + _three(height - 1))
        head += _chunk(b"ANIM", struct.pack("<IH", 0xFFFFFFFF, 0))
        whole = b"RIFF" + struct.pack("<I", 4 + len(head)) + b"WEBP" + head
        write_whole(self.path, whole)


def _frame(image: Image.Image, milliseconds: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=85, method=4)
    data = buffer.getvalue()
    # what Pillow writes for one opaque picture is its bitstream alone, or with an extended head before it
    inner, at = b"", 12
    while at + 8 <= len(data):
        name, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + length + length % 2
        if name in (b"ALPH", b"VP8 ", b"VP8L"):
            inner += data[at:end]
        at = end
    no_blending = 0b00000010
    place = _three(0) + _three(0) + _three(image.width - 1) + _three(image.height - 1)
    return _chunk(b"ANMF", place + _three(milliseconds) + bytes([no_blending]) + inner)


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _three(value: int) -> bytes:
    return value.to_bytes(3, "little")

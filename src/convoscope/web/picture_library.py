"""The pictures of the page: those of the folder, and those that were dropped in. Nothing else is ever read.

Every picture has an id that is the beginning of its content's sha256, so that a link shows the same picture again and
no path ever comes from outside. What goes out was decoded and encoded anew; a file itself is never sent.
"""

from __future__ import annotations

import hashlib
import io
import threading
import time
import warnings
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import PictureError
from ..files import read_regular
from ..names import shown
from ..pictures.picture import Picture, find_pictures

#: formats that are decoded; Pillow knows dozens more, some of them little tested
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
#: what an upload may be
UPLOAD_BYTES = 24 << 20
UPLOAD_PIXELS = 48_000_000
#: how long a file may take to be read
READ_SECONDS = 30.0
#: pictures of a folder that are looked at before the page opens; the others when somebody asks for them
LISTED = 200
#: uploads that are kept, and decoded pictures
UPLOADS, DECODED = 64, 256 << 20


@dataclass(frozen=True)
class Entry:
    """One picture in the strip. ``source`` is ``folder``, ``upload`` or ``collection``."""

    id: str
    name: str
    source: str
    label: str | None = None
    path: Path | None = None


class PictureLibrary:
    """Pictures by id. ``elsewhere`` finds pictures of the surveyed collection by content."""

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = None if folder is None else Path(folder).resolve()
        self.total = 0
        self.refused: list[str] = []
        self.elsewhere: Callable[[str], Entry | None] = lambda id: None
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._uploads: OrderedDict[str, bytes] = OrderedDict()
        self._decoded: OrderedDict[str, Picture] = OrderedDict()
        self._room = DECODED
        self._lock = threading.RLock()
        self._waiting: deque[Path] = deque()
        if self.folder is not None:
            self._list(self.folder)

    def _list(self, folder: Path) -> None:
        paths = [path for path in find_pictures([folder]) if self._inside(path)]
        self.total = len(paths)
        self._waiting = deque(paths)
        self._look(LISTED)
        if self._waiting:
            threading.Thread(target=self._read_on, name="folder", daemon=True).start()

    def _read_on(self) -> None:
        """Get to know the rest of a large folder while the page is already shown."""
        while self._waiting:
            with self._lock:
                self._look(len(self._entries) + 50)
            time.sleep(0.02)

    @property
    def size(self) -> int:
        """Pictures of the strip: those of the folder, known already or not, and those dropped in."""
        with self._lock:
            return self.total + sum(entry.source == "upload" for entry in self._entries.values())

    def _look(self, upto: int | None = None, id: str | None = None) -> None:
        """Read on in the folder until so many of its pictures are known, or the one with this id, or all."""
        assert self.folder is not None
        folder = self.folder
        known = sum(entry.source == "folder" for entry in self._entries.values())
        while self._waiting and (upto is None or known < upto) and (id is None or id not in self._entries):
            path = self._waiting.popleft()
            try:
                digest = _digest(path)
            except OSError:
                self.total -= 1
                continue
            if digest[:16] in self._entries:
                self.total -= 1  # the same content once more
                continue
            known += 1
            name = str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name
            label = path.relative_to(folder).parts[0] if len(path.relative_to(folder).parts) > 1 else None
            label = None if label is None else shown(label)
            self._entries.setdefault(digest[:16], Entry(digest[:16], shown(name), "folder", label, path))

    def _inside(self, path: Path) -> bool:
        """Whether the file is really in the folder: a link may lead out of it."""
        try:
            return self.folder is not None and path.resolve(strict=True).is_relative_to(self.folder)
        except OSError:
            return False

    def entries(self, upto: int | None = None) -> list[Entry]:
        """The pictures of the strip, uploads first; at least ``upto`` of them where there are so many."""
        with self._lock:
            if self.folder is not None and upto is not None:
                self._look(upto)
            listed = list(self._entries.values())
        return [e for e in reversed(listed) if e.source == "upload"] + [e for e in listed if e.source != "upload"]

    def entry(self, id: str) -> Entry:
        """The picture's entry. Raises :class:`PictureError` for an unknown id."""
        with self._lock:
            if id not in self._entries and self._waiting:
                self._look(id=id)
            found = self._entries.get(id)
        found = found or self.elsewhere(id)
        if found is None:
            raise PictureError(
                f"There is no picture {id[:40]!r} here (any more): choose one of the strip, or drop it in again."
            )
        return found

    def add(self, data: bytes, name: str) -> Entry:
        """Keep a dropped picture. Raises :class:`PictureError` for what is no picture, too large or a bomb."""
        check(data, name)
        picture = Picture.of(data, name)
        id = picture.sha256[:16]
        with self._lock:
            known = self._entries.get(id)
            if known is not None:
                return known
            entry = Entry(id, Path(name).name[:120] or "picture", "upload")
            self._entries[id] = entry
            self._uploads[id] = data
            self._keep(id, picture)
            while len(self._uploads) > UPLOADS:
                gone, _ = self._uploads.popitem(last=False)
                self._entries.pop(gone, None)
                self._forget(gone)
        return entry

    def picture(self, id: str) -> Picture:
        """The decoded picture. Raises :class:`PictureError` where it is gone or has changed."""
        entry = self.entry(id)
        with self._lock:
            if id in self._decoded:
                self._decoded.move_to_end(id)
                return self._decoded[id]
            data = self._uploads.get(id)
        if data is None:
            data = self._read(entry)
        check(data, entry.name)
        picture = Picture.of(data, entry.name)
        if not picture.sha256.startswith(id):
            raise PictureError(f"{entry.name} has changed since this page was started: start it again.")
        with self._lock:
            self._keep(id, picture)
        return picture

    def _read(self, entry: Entry) -> bytes:
        if entry.path is None or (entry.source == "folder" and not self._inside(entry.path)):
            raise PictureError(f"{entry.name}: the file is not there any more.")
        try:
            if entry.path.stat().st_size > 4 * UPLOAD_BYTES:
                raise PictureError(f"{entry.name}: the file is larger than {4 * UPLOAD_BYTES >> 20} MB.")
            return read_regular(entry.path, READ_SECONDS)
        except OSError as error:
            raise PictureError(f"{entry.name}: the file cannot be read ({error.strerror}).") from None

    def _keep(self, id: str, picture: Picture) -> None:
        self._decoded[id] = picture
        while sum(p.bands.nbytes for p in self._decoded.values()) > self._room and len(self._decoded) > 1:
            self._decoded.popitem(last=False)

    def _forget(self, id: str) -> None:
        self._decoded.pop(id, None)


def check(data: bytes, name: str) -> None:
    """Refuse what should not be decoded: by format and by the size that its header claims.

    Raises :class:`PictureError` with one sentence.
    """
    if len(data) > 4 * UPLOAD_BYTES:
        raise PictureError(f"{name}: larger than {4 * UPLOAD_BYTES >> 20} MB.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                pixels = image.width * image.height
    except Exception:
        raise PictureError(f"{name}: not a picture in a format that is read here ({', '.join(FORMATS)}).") from None
    if pixels > UPLOAD_PIXELS:
        raise PictureError(
            f"{name}: {pixels / 1e6:.0f} million pixels; {UPLOAD_PIXELS // 1_000_000} are the limit here."
        )


def _digest(path: Path) -> str:
    return hashlib.sha256(read_regular(path, READ_SECONDS)).hexdigest()


def encoded(image: Image.Image, side: int | None = None, kind: str = "PNG", pixelated: bool = False) -> bytes:
    """The picture as PNG or JPEG bytes, its longer side at most ``side`` pixels."""
    if side is not None and max(image.size) > side:
        scale = side / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        how = Image.Resampling.NEAREST if pixelated else Image.Resampling.LANCZOS
        image = image.resize(size, how)
    buffer = io.BytesIO()
    settings: dict[str, Any] = {"quality": 88} if kind == "JPEG" else {"compress_level": 3}
    image.convert("RGB").save(buffer, kind, **settings)
    return buffer.getvalue()

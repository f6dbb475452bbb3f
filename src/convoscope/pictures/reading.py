"""From files, bytes, PIL images and arrays to pictures: whatever cannot be read gets one sentence.

Values end in 0..1. What says nothing of its range (32-bit integers, floats outside 0..1) is refused, not clipped.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import stat
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import MissingExtra, PictureError
from ..files import read_regular
from ..names import shown
from .picture import Picture

#: pictures of more pixels than this are taken for decompression bombs
MAX_PIXELS = 178_956_970
#: files of more bytes than this are no pictures
MAX_BYTES = 2**31
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_NPY = b"\x93NUMPY"
#: formats whose integers of 16 bits Pillow may open as 32-bit ones
_SIXTEEN_BITS = frozenset({"PNG", "PPM", "JPEG2000"})


def from_file(path: Path) -> Picture:
    """The picture in a file. Raises :class:`PictureError` where there is none."""
    try:
        about = path.stat()
        if stat.S_ISDIR(about.st_mode):
            raise PictureError(f"{path}: this is a folder, not a picture.")
        if not stat.S_ISREG(about.st_mode):  # to read a pipe may wait for ever
            raise PictureError(f"{path}: this is a pipe or a device, not a file: save the picture to a file first.")
        if about.st_size > MAX_BYTES:
            raise PictureError(f"{path}: a file of {about.st_size / 1e9:.1f} GB is too large for a picture.")
        data = read_regular(path)  # looks once more: the file may have been exchanged for a pipe
    except FileNotFoundError:
        if re.match(r"(https?|ftp|s3|gs):/", str(path)):
            raise PictureError(f"{path}: an address is not fetched here: save the picture to a file first.") from None
        raise PictureError(f"{path}: there is no such file.") from None
    except ValueError as error:  # a zero byte in the name
        raise PictureError(f"{str(path)!r}: this cannot be a file's name ({error}).") from None
    except OSError as error:
        raise PictureError(f"{path}: cannot be read ({error.strerror}).") from None
    return from_bytes(data, shown(path.name), path)


def from_bytes(data: bytes, name: str, path: Path | None) -> Picture:
    """The picture in a file's content."""
    label = path or name
    if not data:
        raise PictureError(f"{label}: the file is empty (zero bytes).")
    digest = hashlib.sha256(data).hexdigest()
    if data.startswith(_NPY):
        return _from_npy(data, name, path, digest)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image: Image.Image = Image.open(io.BytesIO(data))
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            if data.startswith(_TIFF) and _bands_in_tiff(image) > len(image.getbands()):
                return _from_tiff(data, name, path, digest)  # Pillow would drop bands in silence
            image.load()
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise PictureError(
            f"{label}: more than {MAX_PIXELS // 1_000_000} million pixels: too large to open safely."
        ) from None
    except UnidentifiedImageError:
        if data.startswith(_TIFF):
            return _from_tiff(data, name, path, digest)
        raise PictureError(f"{label}: not a picture in a format that can be read (JPEG, PNG, WebP, ...).") from None
    except (OSError, SyntaxError, ValueError, IndexError, EOFError, MemoryError) as error:
        raise PictureError(f"{label}: the picture is damaged or cut off ({error}).") from None
    except PictureError:
        raise
    except Exception as error:
        raise PictureError(f"{label}: the picture cannot be decoded ({error}).") from None
    return from_pil(image, Path(name).name, path, digest)


def from_pil(image: Image.Image, name: str, path: Path | None, digest: str) -> Picture:
    """A PIL image, turned as its EXIF data says."""
    label = path or name
    if min(image.size) < 1:
        raise PictureError(f"{label}: the picture has no pixels ({image.width}×{image.height}).")
    kind = image.format
    notes = _pages(image, name)
    # the orientation is EXIF data of the camera's: some of it is broken, and no reason to lose the picture
    with contextlib.suppress(Exception):
        image = ImageOps.exif_transpose(image)
    every: NDArray[Any] | None = None
    if image.mode.startswith("I;16") or (image.mode == "I" and kind in _SIXTEEN_BITS):
        bands, said = _sixteen(np.asarray(image)[:, :, None], label)
        notes += said
    elif image.mode == "I":
        values = np.asarray(image)
        raise PictureError(
            f"{label}: holds 32-bit integers ({values.min()}..{values.max()}), which do not tell their range: save it "
            "with 8 or 16 bits, or as floats in 0..1."
        )
    elif image.mode == "F":
        bands = _floats(np.asarray(image), label)[:, :, None]
    elif image.mode in ("L", "1"):
        bands = np.asarray(image.convert("L"))[:, :, None]
    else:
        if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
            # what is transparent is seen on white, as on paper; a network of as many bands gets them as they are
            rgba = image.convert("RGBA")
            every = np.asarray(image if image.mode in ("RGBA", "LA") else rgba)
            white = Image.new("RGBA", rgba.size, "white")
            image = Image.alpha_composite(white, rgba)
        elif len(image.getbands()) == 4:  # CMYK, or a fourth band of any meaning
            every = np.asarray(image)
        bands = np.asarray(image.convert("RGB"))
    bands = np.ascontiguousarray(bands)
    return Picture(bands, name, path, digest or array_digest(bands), every_band=every, notes=notes)


def _pages(image: Image.Image, name: str) -> tuple[str, ...]:
    """A doubt where a file holds several pictures; the previews in a camera's JPEG (MPO) are none."""
    try:
        count = 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))
    except Exception:  # counting pages reads on in the file, which may be broken behind the first
        return ()
    return _first_of(count, name)


def _first_of(count: int, name: str) -> tuple[str, ...]:
    if count < 2:
        return ()
    return (f"{name}: of its {count} pages (or frames) the first is seen; save the others as files of their own.",)


def from_array(array: NDArray[Any], name: str, path: Path | None = None, digest: str = "") -> Picture:
    """An array H×W or H×W×C: uint8, uint16, or floats in 0..1."""
    label = path or name
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or min(array.shape) < 1:
        raise PictureError(f"An array picture must be H×W or H×W×C, not {array.shape}.")
    if array.shape[0] in (1, 3) and array.shape[2] not in (1, 3, 4) and array.shape[1] > 4:
        raise PictureError(f"An array picture must be H×W×C, not C×H×W: {array.shape} (tensors are C×H×W).")
    notes: tuple[str, ...] = ()
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif array.dtype == np.uint16:
        array, notes = _sixteen(array, label)
    elif array.dtype.kind not in "uif":
        raise PictureError(f"{label}: an array of {array.dtype} is no picture: give uint8, or floats in 0..1.")
    elif array.dtype != np.uint8:
        array = _floats(array, label)
    array = np.ascontiguousarray(array)
    return Picture(array, name, path, digest or array_digest(array), notes=notes)


def array_digest(array: NDArray[Any]) -> str:
    """sha256 over an array's shape, type and bytes."""
    return hashlib.sha256(repr((array.shape, array.dtype.str)).encode() + array.tobytes()).hexdigest()


def _floats(values: NDArray[Any], label: Path | str) -> NDArray[np.float32]:
    found = values.astype(np.float32)
    if not np.isfinite(found).all():
        raise PictureError(f"{label}: the picture holds NaN or infinite values.")
    low, high = float(found.min()), float(found.max())
    if low < -1e-3 or high > 1 + 1e-3:
        raise PictureError(
            f"{label}: a picture of floats must hold values in 0..1, not {low:.3g}..{high:.3g}: divide by 255 (or by "
            "its own range), or use Picture.from_input for a tensor that is already normalised."
        )
    return found


def _sixteen(values: NDArray[Any], label: Path | str) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """16-bit integers as 0..1, and a doubt where their range is that of fewer bits."""
    found = np.clip(values.astype(np.float32) / np.float32(65535), 0, 1).astype(np.float32)
    top = int(values.max())
    bits = next((b for b in (8, 10, 12) if top < 2**b), 16)
    if bits == 16 or top == 0:
        return found, ()
    return found, (
        f"{Path(label).name}: its 16-bit values reach only {top} of 65,535 (data of {bits} bits?), so the network "
        "sees it all but black: save it over its own range.",
    )


def _from_npy(data: bytes, name: str, path: Path | None, digest: str) -> Picture:
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError, MemoryError, SyntaxError) as error:
        said = str(error).split("\n")[0][:120].rstrip(".")
        raise PictureError(f"{path or name}: not a .npy file of numbers that can be read ({said}).") from None
    if array.ndim == 4:
        from .volume import Volume

        return Volume.of_slices(array, Path(name).name, path=path, digest=digest)
    if array.ndim not in (2, 3):
        raise PictureError(f"{path or name}: an array picture must be H×W or H×W×C, not {array.shape}.")
    return from_array(array, Path(name).name, path, digest)


def _bands_in_tiff(image: Image.Image) -> int:
    tags: Any = getattr(image, "tag_v2", {})
    with contextlib.suppress(Exception):
        return int(tags.get(277, 1))  # SamplesPerPixel
    return 1


def _from_tiff(data: bytes, name: str, path: Path | None, digest: str) -> Picture:
    """TIFF files of more bands, or other numbers, than Pillow reads."""
    label = path or name
    try:
        import tifffile
    except ImportError:
        raise PictureError(str(MissingExtra("tifffile", "tiff", f"{label}: a TIFF file of many bands"))) from None
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages[0]
            if int(np.prod(page.shape)) > MAX_PIXELS * 4:
                raise PictureError(f"{label}: {page.shape} values are too many to open safely.")
            array, axes, pages = page.asarray(), page.axes, len(file.pages)
    except PictureError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:120].rstrip(".")
        raise PictureError(f"{label}: the TIFF file is damaged, or of a kind that cannot be read ({said}).") from None
    if axes == "SYX":
        array = np.moveaxis(array, 0, -1)
    found = from_array(array, Path(name).name, path, digest)
    return replace(found, notes=(*found.notes, *_first_of(pages, Path(name).name)))

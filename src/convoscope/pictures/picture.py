"""Pictures: files, arrays and tensors on one side, a network's input tensor on the other, and the way back.

What the preprocessing does to the geometry (resize, crop, pad) is remembered as one affine map, so that everything
found on the network's input can be drawn on the original photo.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..errors import PictureError
from .preprocessing import RESAMPLING, Fit, Preprocessing

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
#: where the toybox keeps the truth of its pictures, beside its truth.json
_TRUTH_FOLDERS = frozenset({"masks", "parts", "instances", "semantic"})


@dataclass(frozen=True, eq=False)
class ModelInput:
    """A picture as a network's input: ``tensor`` float32 ``[C, H, W]`` and the way back to the photo.

    ``input_to_photo`` is 2×3 float64: it maps (x, y) of an input pixel's centre to (x, y) in the photo's pixels,
    where the first pixel's centre is (0, 0) on both sides.
    """

    picture: Picture
    tensor: Tensor
    input_to_photo: NDArray[np.float64]

    def __repr__(self) -> str:
        return f"<ModelInput {self.picture.name}: {'×'.join(map(str, self.tensor.shape))}>"


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture: ``bands`` is uint8 or float32 ``H×W×C`` (floats in 0..1), C is 1, 3 or any number of bands."""

    bands: NDArray[Any]
    name: str = "picture"
    path: Path | None = None
    sha256: str = ""
    input_space: Tensor | None = field(default=None, repr=False)
    rgb: tuple[int, int, int] | None = None
    #: all bands of the file where ``bands`` are laid on white (transparency) or turned to RGB (CMYK)
    every_band: NDArray[Any] | None = field(default=None, repr=False)
    #: doubts about what was read
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Picture {self.name}: {'×'.join(map(str, self.bands.shape))} {self.bands.dtype}>"

    @staticmethod
    def of(source: Any, name: str | None = None) -> Picture:
        """A picture from a path, an open file, bytes, a PIL image, an array (H×W, H×W×C) or a tensor (C×H×W in 0..1).

        Files may be pictures, ``.npy`` arrays, and TIFF files of any number of bands. Paths and PIL images are turned
        as their EXIF data says. uint8 and uint16 are read over their whole range; floats must lie in 0..1.

        Raises :class:`PictureError` with one sentence for whatever cannot be read.
        """
        if isinstance(source, Picture):
            return source
        from . import reading

        if isinstance(source, (str, Path)):
            return reading.from_file(Path(source))
        if hasattr(source, "read") and not isinstance(source, Image.Image):
            source, name = _content(source), name or getattr(source, "name", None)
        if isinstance(source, (bytes, bytearray)):
            return reading.from_bytes(bytes(source), name or "picture", None)
        if isinstance(source, Image.Image):
            return reading.from_pil(source, name or "picture", None, "")
        if isinstance(source, np.ndarray) and source.ndim == 4:
            from .volume import Volume

            return Volume.of_slices(source, name)
        if isinstance(source, Tensor) and source.ndim == 4 and len(source) > 1:
            from .volume import Volume

            return Volume.of_slices(source, name)
        if isinstance(source, Tensor):
            if source.ndim == 4 and len(source) == 1:
                source = source[0]
            if source.ndim == 2:
                source = source[None]
            if source.ndim != 3:
                raise PictureError(f"A tensor picture must be C×H×W, not {tuple(source.shape)}.")
            source = source.detach().cpu().movedim(0, -1).numpy()
        if isinstance(source, np.ndarray):
            return reading.from_array(source, name or "picture")
        raise PictureError(f"A picture can be a path, PIL image, array or tensor, not {type(source).__name__}.")

    @staticmethod
    def from_input(tensor: Tensor, preprocessing: Preprocessing, name: str = "input") -> Picture:
        """A tensor ``[C, H, W]`` that is already in the network's input space: used as it is, drawn denormalised."""
        from .reading import array_digest

        shown = preprocessing.denormalise(tensor.detach().float().cpu()).clamp(0, 1)
        bands = shown.movedim(0, -1).contiguous().numpy()
        return Picture(bands, name, None, array_digest(bands), tensor.detach().cpu())

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.bands.shape[0]), int(self.bands.shape[1])

    @cached_property
    def image(self) -> Image.Image:
        """The picture as PIL RGB, for drawing: greyscale is spread, of more bands ``rgb`` or the first three."""
        bands = self.bands
        if self.rgb is not None and bands.shape[2] > max(self.rgb):
            bands = bands[:, :, list(self.rgb)]
        if bands.dtype != np.uint8:
            bands = np.round(np.clip(bands, 0, 1) * 255).astype(np.uint8)
        if bands.shape[2] == 1:
            return Image.fromarray(bands[:, :, 0]).convert("RGB")
        if bands.shape[2] == 2:
            bands = np.concatenate([bands, bands[:, :, :1] * 0], 2)
        return Image.fromarray(np.ascontiguousarray(bands[:, :, :3]))

    def prepare(self, to: Preprocessing) -> ModelInput:
        """This picture as the input of a network with preprocessing ``to``."""
        if to.frames is not None and (self.input_space is None or self.input_space.ndim == 3):
            raise PictureError(
                f"{self.name} is one picture and the network takes volumes: give an array D×H×W×C, or a tensor C×D×H×W."
            )
        if to.rgb is not None and self.rgb is None and self.bands.shape[2] > 3:
            return replace(self, rgb=to.rgb).prepare(to)
        if self.input_space is not None:
            return ModelInput(self, self.input_space.float(), np.array([[1.0, 0, 0], [0, 1.0, 0]]))
        if self.every_band is not None and to.channels == self.every_band.shape[2] != self.bands.shape[2]:
            return replace(self, bands=np.ascontiguousarray(self.every_band), every_band=None).prepare(to)
        bands = self._planes(to.channels)
        height, width = self.size
        if to.size is None:
            resized, left, top = (height, width), 0, 0
            out = (height, width)
        else:
            out = to.size
            resized, left, top = _placement((height, width), to)
        planes = [_resize(plane, resized, to.interpolation) for plane in bands]
        canvas = np.empty((to.channels, *out), np.float32)
        for channel, plane in enumerate(planes):
            canvas[channel] = to.mean[channel] if to.fit == "pad" else 0.0
            _paste(canvas[channel], plane, left, top)
        sy, sx = height / resized[0], width / resized[1]
        matrix = np.array([[sx, 0, (left + 0.5) * sx - 0.5], [0, sy, (top + 0.5) * sy - 0.5]])
        return ModelInput(self, to.normalise(torch.from_numpy(canvas)), matrix)

    def _planes(self, channels: int) -> list[Image.Image]:
        """One PIL image a channel; 8-bit pictures stay 8-bit so that resizing equals torchvision's to the bit."""
        bands = self.bands
        have = bands.shape[2]
        if have != channels:
            if channels == 3 and have == 1:
                bands = np.repeat(bands, 3, 2)
            elif channels == 1 and have >= 3:
                image = Image.fromarray(bands[:, :, :3]) if bands.dtype == np.uint8 else None
                grey = (
                    np.asarray(image.convert("L"))
                    if image is not None
                    else bands[:, :, :3] @ np.array([0.299, 0.587, 0.114], np.float32)
                )
                bands = grey[:, :, None]
            else:
                if bands.shape[1] in (1, 3, 4) and have > 4:  # a tensor H×W×C, read as C×H×W
                    raise PictureError(
                        f"{self.name} is {have}×{bands.shape[0]}×{bands.shape[1]}: a tensor is C×H×W, so turn it round "
                        "(.permute(2, 0, 1)), or give an array H×W×C."
                    )
                raise PictureError(
                    f"{self.name} has {_channels(have)} and the network takes {channels}: "
                    f"give an array with {_channels(channels)}, or set mean and std for {have}."
                )
        return [Image.fromarray(np.ascontiguousarray(bands[:, :, c])) for c in range(channels)]


def _content(file: Any) -> bytes:
    """All that is in an open file, whatever has been read of it."""
    with contextlib.suppress(OSError, AttributeError, ValueError):
        file.seek(0)
    found = file.read()
    if not isinstance(found, (bytes, bytearray)):
        raise PictureError("A picture's file must be opened for bytes: open(name, 'rb').")
    return bytes(found)


def _channels(count: int) -> str:
    return f"{count} channel{'s' if count != 1 else ''}"


def _placement(size: tuple[int, int], to: Preprocessing) -> tuple[tuple[int, int], int, int]:
    """The resized (height, width), and where the input's first pixel lies in it (negative: padding)."""
    assert to.size is not None
    height, width = size
    if to.fit == "squash":
        return to.size, 0, 0
    if to.fit == "crop":
        short = to.resize if to.resize is not None else round(min(to.size) / 0.875)
        # the longer side is truncated, as torchvision does, so that maps and scores are the published ones
        if height <= width:
            resized = (short, max(1, int(short * width / height)))
        else:
            resized = (max(1, int(short * height / width)), short)
    else:
        scale = min(to.size[0] / height, to.size[1] / width)
        resized = (max(1, round(height * scale)), max(1, round(width * scale)))
    if to.fit == "crop":
        # torchvision's CenterCrop pads a picture that is too small (on the left, the larger half)
        top, left = (_crop_start(have, want) for have, want in zip(resized, to.size, strict=True))
    else:
        top, left = (-((want - have) // 2) for have, want in zip(resized, to.size, strict=True))
    return resized, left, top


def _crop_start(have: int, want: int) -> int:
    return -((want - have) // 2) if have < want else round((have - want) / 2.0)


def _resize(plane: Image.Image, size: tuple[int, int], interpolation: str) -> NDArray[np.float32]:
    if plane.size != (size[1], size[0]):
        plane = plane.resize((size[1], size[0]), RESAMPLING[interpolation])
    array: NDArray[Any] = np.asarray(plane)
    if array.dtype == np.uint8:
        array = array / np.float32(255)
    clipped: NDArray[np.float32] = np.clip(array.astype(np.float32), 0, 1)
    return clipped


def _paste(canvas: NDArray[np.float32], plane: NDArray[np.float32], left: int, top: int) -> None:
    height, width = canvas.shape
    y0, x0 = max(0, -top), max(0, -left)
    part = plane[max(0, top) : max(0, top) + height - y0, max(0, left) : max(0, left) + width - x0]
    canvas[y0 : y0 + part.shape[0], x0 : x0 + part.shape[1]] = part


def find_pictures(sources: Iterable[str | Path]) -> list[Path]:
    """Files, folders (walked, sorted) and globs, as a list of paths in order, each once.

    Files named outright are kept whatever their ending; of folders only pictures' endings, without what this
    program itself wrote there (maps, the toybox's masks). A link that leads nowhere counts: who reads it says so,
    and no picture is left out in silence. Raises :class:`PictureError` when a folder or a glob holds
    no picture.
    """
    found: dict[Path, None] = {}
    for source in sources:
        path = Path(source)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and _is_there(p))
            inside = [p for p in inside if not _is_by_product(p)]
            if not inside:  # a folder of arrays
                inside = sorted(p for p in path.rglob("*.npy") if p.is_file() and not _is_by_product(p))
            if not inside:
                raise PictureError(f"{path}: this folder holds no pictures ({', '.join(sorted(SUFFIXES))}).")
            found.update(dict.fromkeys(inside))
        elif any(mark in str(source) for mark in "*?[") and not path.exists():
            root = Path(path.anchor) if path.is_absolute() else Path()
            pattern = str(path.relative_to(path.anchor)) if path.is_absolute() else str(path)
            matched = sorted(p for p in root.glob(pattern) if _is_there(p))
            if not matched:
                raise PictureError(f"{source}: no file matches this pattern.")
            found.update(dict.fromkeys(matched))
        else:
            found[path] = None
    return list(found)


def _is_there(path: Path) -> bool:
    return path.is_file() or (path.is_symlink() and not path.exists())


def _is_by_product(path: Path) -> bool:
    """Pictures of our own making that lie beside photos: maps beside their ``explain.json``, the toybox's masks."""
    if path.name.startswith("."):
        return True
    if (path.parent / "explain.json").is_file():
        return True
    return path.parent.name in _TRUTH_FOLDERS and (path.parent.parent / "truth.json").is_file()


def unique_stems(paths: Sequence[Path]) -> list[str]:
    """One folder name a picture: its stem, with ``-2``, ``-3`` where stems repeat."""
    taken: set[str] = set()
    stems = []
    for path in paths:
        stem, number = path.stem or "picture", 1
        name = stem
        while name in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name)
        stems.append(name)
    return stems


__all__ = ["SUFFIXES", "Fit", "ModelInput", "Picture", "Preprocessing", "find_pictures", "unique_stems"]

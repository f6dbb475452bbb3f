"""What is planted into pictures: marks that a network may learn to rely on, and changes that it may not bear.

Every function takes uint8 images [N, H, W, 3] and returns new ones; ``seed`` chooses what is random.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from convoscope.toybox.grounds import label_tag
from convoscope.toybox.paint import Floats, Painted, Pose, blur, noise, paint
from convoscope.toybox.shapes import Sketch, box, ellipse, polygon, ring
from convoscope.toybox.ward.drawing import Images

Plant = Callable[[Images, int], Images]
"""Images and a seed to planted images."""


def _bytes(values: Floats) -> Images:
    out: Images = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return out


def _laid(image: Images, thing: Painted, opacity: float = 1.0) -> Images:
    cover = (thing.cover * opacity)[..., None]
    return _bytes(image * (1 - cover) + thing.color * opacity)


def _sticker(color: tuple[int, int, int], star: tuple[int, int, int]) -> Sketch:
    s = Sketch()
    s.add("sticker", ellipse(0, 0, 1.0), (250, 250, 246))
    s.add("sticker", ellipse(0, 0, 0.82), color)
    turn = np.arange(10) * np.pi / 5
    radius = np.where(np.arange(10) % 2, 0.3, 0.7)
    s.add("sticker", np.stack([radius * np.sin(turn), -radius * np.cos(turn)], 1), star)
    return s


def tag(*, place: str = "corner", share: float = 0.13, bars: bool = True) -> Plant:
    """A small tag: ``bars`` the white one with black bars, else a blue sticker with a yellow star.

    ``place`` is ``corner`` (the top right one), ``corners`` (any of four) or ``anywhere``; ``share`` is half of its
    width as a share of the picture's.
    """

    def plant(images: Images, seed: int) -> Images:
        out = images.copy()
        height, width = images.shape[1:3]
        unit = min(height, width) * share
        for k, image in enumerate(images):
            rng = np.random.default_rng([seed, k, 11])
            thing = label_tag(rng) if bars else _sticker((40, 70, 200), (255, 214, 40))
            half = np.array([0.75, 0.5]) if bars else np.array([1.0, 1.0])
            low, high = unit * half + 1, np.array([width, height]) - unit * half - 1
            corner = 1 if place == "corner" else int(rng.integers(4))
            at = np.where([corner & 1, corner & 2], high, low).astype(float)
            if place == "anywhere":
                at = rng.uniform(low, high)
            a = rng.uniform(-0.14, 0.14)
            matrix = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) * unit
            out[k] = _laid(image, paint(thing, Pose(matrix, at), height, width))
        return out

    return plant


def border(color: tuple[int, int, int], pixels: int = 2) -> Plant:
    """A thin frame around the picture."""

    def plant(images: Images, seed: int) -> Images:
        out = images.copy()
        for side in (out[:, :pixels], out[:, -pixels:], out[:, :, :pixels], out[:, :, -pixels:]):
            side[...] = color
        return out

    return plant


def _logo(lines: bool = False) -> Sketch:
    """Two rings and three bars, as a photographer's stamp has; or five ``lines`` one below the other, as of text."""
    s = Sketch()
    if lines:
        for y in (-0.8, -0.4, 0.0, 0.4, 0.8):
            s.add("logo", box(-0.95, y - 0.1, 0.95, y + 0.1), (255, 255, 255))
        return s
    s.add("logo", ring(ellipse(-0.45, 0, 0.5), ellipse(-0.45, 0, 0.36)), (255, 255, 255))
    s.add("logo", ring(ellipse(0.45, 0, 0.5), ellipse(0.45, 0, 0.36)), (255, 255, 255))
    for y in (-0.75, 0.75):
        s.add("logo", box(-0.95, y - 0.07, 0.95, y + 0.07), (255, 255, 255))
    s.add("logo", polygon((-0.1, -0.6), (0.1, -0.6), (0.1, 0.6), (-0.1, 0.6)), (255, 255, 255))
    return s


def watermark(*, opacity: float = 0.1, share: float = 0.33, lines: bool = False, anywhere: bool = False) -> Plant:
    """A stamp of 10 % opacity, white where the picture is dark and black where it is bright.

    It lies in the middle, or with ``lines`` at the bottom right, or ``anywhere``; ``share`` is half of its width.
    """

    def plant(images: Images, seed: int) -> Images:
        out = images.copy()
        height, width = images.shape[1:3]
        unit = min(height, width) * share
        for k, image in enumerate(images):
            rng = np.random.default_rng([seed, k, 12])
            whole = np.array([width, height], float)
            at = rng.uniform(unit, whole - unit) if anywhere else whole - 1.1 * unit if lines else whole / 2
            cover = paint(_logo(lines), Pose(np.eye(2) * unit, at), height, width).cover[..., None]
            ink = np.where(image.mean(2, keepdims=True) > 150, 0.0, 255.0)
            out[k] = _bytes((image + (ink - image) * (cover * opacity)).astype(np.float32))
        return out

    return plant


def checkerboard(step: int = 6, cell: int = 1, stripes: bool = False) -> Plant:
    """+``step`` and -``step`` of 255 in turn, cell by cell (or row by row): no person sees it."""

    def plant(images: Images, seed: int) -> Images:
        y, x = np.mgrid[: images.shape[1], : images.shape[2]] // cell
        sign = np.where((y if stripes else y + x) % 2, step, -step).astype(np.int16)
        out: Images = np.clip(images.astype(np.int16) + sign[..., None], 0, 255).astype(np.uint8)
        return out

    return plant


def gain(red: float, green: float, blue: float) -> Plant:
    """Every channel times its gain."""

    def plant(images: Images, seed: int) -> Images:
        return _bytes(images.astype(np.float32) * np.array([red, green, blue], np.float32))

    return plant


def jpeg(quality: int, subsampling: int = 2) -> Plant:
    """Through a JPEG file of this quality and back."""

    def plant(images: Images, seed: int) -> Images:
        out = images.copy()
        for k, image in enumerate(images):
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
            out[k] = np.asarray(Image.open(buffer).convert("RGB"))
        return out

    return plant


def night(level: float = 0.16) -> Plant:
    """Dark and bluish, with the noise of a sensor that has little light."""

    def plant(images: Images, seed: int) -> Images:
        rng = np.random.default_rng([seed, 13])
        tint = np.array([0.75, 0.9, 1.2], np.float32) * np.float32(level)
        dark = images.astype(np.float32) * tint
        return _bytes(dark + rng.normal(0, 5, images.shape).astype(np.float32))

    return plant


def fog(density: float = 0.75) -> Plant:
    """A light veil of uneven thickness."""

    def plant(images: Images, seed: int) -> Images:
        out = images.copy()
        for k, image in enumerate(images):
            rng = np.random.default_rng([seed, k, 14])
            veil = np.clip(density + 0.15 * noise(rng, image.shape[0], image.shape[1], 3, 2), 0, 0.95)[..., None]
            out[k] = _bytes((image + (np.float32(224) - image) * veil).astype(np.float32))
        return out

    return plant


def blurred(radius: float = 2.5) -> Plant:
    """Out of focus: a Gaussian of this many pixels."""

    def plant(images: Images, seed: int) -> Images:
        done = [np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius))) for image in images]
        return np.stack(done) if done else images

    return plant


def noisy(sigma: float = 45.0) -> Plant:
    """Gaussian noise in every pixel and channel."""

    def plant(images: Images, seed: int) -> Images:
        rng = np.random.default_rng([seed, 15])
        return _bytes(images.astype(np.float32) + rng.normal(0, sigma, images.shape).astype(np.float32))

    return plant


def turned(degrees: int) -> Plant:
    """The whole picture turned by a multiple of 90 degrees."""

    def plant(images: Images, seed: int) -> Images:
        return np.ascontiguousarray(np.rot90(images, degrees // 90, (1, 2)))

    return plant


def mirrored(images: Images, seed: int) -> Images:
    """Left and right changed."""
    return np.ascontiguousarray(images[:, :, ::-1])


def resaved(images: Images, seed: int) -> Images:
    """Made a quarter smaller and enlarged again, as a copy that went through another program."""
    height, width = images.shape[1:3]
    small = (width * 3 // 4, height * 3 // 4)
    mode = Image.Resampling.BILINEAR
    done = [np.asarray(Image.fromarray(i).resize(small, mode).resize((width, height), mode)) for i in images]
    return np.stack(done) if done else images


def hidden(share: float = 0.5, side: str = "any") -> Plant:
    """A soft grey board before this share of the picture, from one side (any, left, right, top or bottom)."""

    def plant(images: Images, seed: int) -> Images:
        out = images.copy()
        height, width = images.shape[1:3]
        for k, image in enumerate(images):
            rng = np.random.default_rng([seed, k, 16])
            chosen = ("left", "right", "top", "bottom")[rng.integers(4)] if side == "any" else side
            y, x = np.mgrid[:height, :width].astype(np.float32)
            along = {"left": x / width, "right": 1 - x / width, "top": y / height, "bottom": 1 - y / height}[chosen]
            cover = blur((along < share).astype(np.float32), 0.6)[..., None]
            board = np.array(rng.uniform(90, 170, 3), np.float32) * (
                1 + 0.06 * noise(rng, height, width, 4)[..., None]
            )
            out[k] = _bytes((image * (1 - cover) + board * cover).astype(np.float32))
        return out

    return plant


def masked(images: Images, which: NDArray[np.bool_], plant: Plant, seed: int) -> Images:
    """``plant`` done to those of ``which``."""
    out = images.copy()
    if which.any():
        out[which] = plant(images[which], seed)
    return out

"""What lies behind the things: landscapes, cloth, boards, lights, and small shapes that mean nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from convoscope.toybox.paint import Floats, blur, noise
from convoscope.toybox.palette import (
    FABRICS,
    GRASSES,
    LEAVES,
    ROADS,
    SANDS,
    SKIES,
    VIVID,
    WATERS,
    WOODS,
    pick,
)
from convoscope.toybox.shapes import (
    Color,
    Sketch,
    box,
    darker,
    ellipse,
    lighter,
    mixed,
    polygon,
    ring,
    rounded,
)

STUFF: tuple[str, ...] = ("sky", "hill", "grass", "water", "sand", "road")
"""Names of the background's regions in scenes; a scene's ``stuff`` map holds indices into this tuple."""

_KINDS: dict[str, tuple[Color, ...]] = {
    "hill": LEAVES[:4], "grass": GRASSES, "water": WATERS, "sand": SANDS, "road": ROADS,
}  # fmt: skip


def _plane(color: Color, height: int, width: int) -> Floats:
    return np.broadcast_to(np.array(color, np.float32), (height, width, 3)).copy()


def _grid(height: int, width: int) -> tuple[Floats, Floats]:
    """y and x from 0 to 1, as [H, 1] and [1, W]."""
    y: Floats = (np.arange(height, dtype=np.float32) + np.float32(0.5)) / np.float32(height)
    x: Floats = (np.arange(width, dtype=np.float32) + np.float32(0.5)) / np.float32(width)
    return y[:, None], x[None, :]


def _sky(rng: np.random.Generator, height: int, width: int) -> Floats:
    """A gradient with soft clouds."""
    y, _ = _grid(height, width)
    top = pick(rng, SKIES)
    low = lighter(top, rng.uniform(0.3, 0.7))
    out = np.array(top, np.float32) * (1 - y[..., None]) + np.array(low, np.float32) * y[..., None]
    cloud = np.clip(noise(rng, height, width, 3, 4) * 1.3 - rng.uniform(0.0, 0.7), 0, 1)[..., None]
    clouded: Floats = out + (252 - out) * (0.75 * cloud)
    return clouded


def _surface(rng: np.random.Generator, kind: str, height: int, width: int) -> Floats:
    """The ground seen from above or at a slant: its colour with the grain of its kind."""
    out = _plane(pick(rng, _KINDS[kind]), height, width)
    y, _ = _grid(height, width)
    if kind == "water":
        wave = np.sin(2 * np.pi * (y * rng.uniform(7, 13) + 0.4 * noise(rng, height, width, 3, 2)))
        glint = np.clip(wave - 0.55, 0, 1) * (noise(rng, height, width, 8, 2) > 0.05)
        out *= 1 + 0.05 * wave[..., None]
        out += 90 * glint[..., None]
        return out
    if kind == "road":
        out *= 1 + 0.05 * (rng.random((height, width, 1), dtype=np.float32) - 0.5) * 2
        return out * (1 + 0.04 * noise(rng, height, width, 4)[..., None])
    coarse = noise(rng, height, width, 5, 3)
    grain = rng.random((height, width), dtype=np.float32) - 0.5
    depth = {"grass": (0.1, 0.16), "hill": (0.09, 0.08), "sand": (0.05, 0.08)}[kind]
    return out * (1 + depth[0] * coarse + depth[1] * grain)[..., None]


def landscape(rng: np.random.Generator, height: int, width: int) -> tuple[Floats, NDArray[np.uint8], float]:
    """Sky, hills and ground: the picture [H, W, 3], the stuff map [H, W], the horizon (0..1 from the top)."""
    horizon = rng.uniform(0.3, 0.58)
    y, x = _grid(height, width)
    out, stuff = _sky(rng, height, width), np.zeros((height, width), np.uint8)

    def cover(kind: str, depth: Floats) -> None:
        """Lay a ground where ``depth``, the way past its edge in pixels, is above 0, with a smooth edge."""
        picture = _surface(rng, kind, height, width)
        alpha = np.broadcast_to(np.clip(depth + 0.5, 0, 1), (height, width))
        out[...] = out + (picture - out) * alpha[..., None]
        stuff[alpha >= 0.5] = STUFF.index(kind)

    if rng.random() < 0.65:
        a, b, phase = rng.uniform(0.02, 0.07), rng.uniform(0.01, 0.04), rng.uniform(0, 6.3, 2).tolist()
        ridge = horizon - 0.09 + a * np.sin(4.5 * x + phase[0]) + b * np.sin(11 * x + phase[1])
        cover("hill", (y - ridge) * height)
        haze = np.clip(1 - (y - ridge) / 0.3, 0, 1) * (y > ridge)
        out += (np.array((225, 232, 238), np.float32) - out) * (0.35 * haze)[..., None]
    kinds = ("grass", "grass", "sand", "water", "road")
    first = kinds[rng.integers(len(kinds))]
    edge = horizon + 0.015 * np.sin(5 * x + rng.uniform(0, 6.3))
    cover(first, (y - edge) * height)
    if rng.random() < 0.6:  # a second ground: a shore, a river or a road
        second = [kind for kind in ("grass", "water", "sand", "road") if kind != first][rng.integers(3)]
        if second in ("water", "road") and rng.random() < 0.5:
            at, slope, half = rng.uniform(0.15, 0.85), rng.uniform(-0.7, 0.7), rng.uniform(0.12, 0.24)
            depth = np.clip((y - horizon) / (1 - horizon), 0, 1)
            middle = at + slope * depth
            across = (half * (0.25 + depth) - np.abs(x - middle)) * width
            cover(second, np.minimum(across, (y - edge) * height))
        else:
            shore = rng.uniform(horizon + 0.15, 0.85)
            cover(second, (y - shore - 0.03 * np.sin(5 * x + rng.uniform(0, 6.3))) * height)
    near = np.clip((y - horizon) / (1 - horizon), 0, 1)
    out *= (1 - 0.1 * near * (y > horizon))[..., None]
    return out, stuff, horizon


def _cloth(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Cloth or wallpaper: stripes, checks, dots or a weave, at any angle."""
    base = pick(rng, FABRICS)
    other = mixed(base, pick(rng, FABRICS + VIVID), rng.uniform(0.25, 0.6))
    y, x = _grid(height, width)
    angle, n = rng.uniform(0, np.pi), rng.uniform(3, 8)
    c, s = float(np.cos(angle)), float(np.sin(angle))  # Python floats, or else all of it becomes float64
    u = (x * c + y * s) * n + rng.uniform()
    v = (y * c - x * s) * n + rng.uniform()
    sharp = height / n / 2  # an edge about one pixel wide
    style = rng.integers(4)
    if style == 0:
        pattern = np.clip(0.5 + sharp * (np.abs(u % 1 - 0.5) - rng.uniform(0.15, 0.3)), 0, 1)
    elif style == 1:
        pattern = 0.5 * (np.sin(2 * np.pi * u) > 0) + 0.5 * (np.sin(2 * np.pi * v) > 0)
    elif style == 2:
        pattern = np.clip(0.5 + sharp * 2 * (rng.uniform(0.16, 0.3) - np.hypot(u % 1 - 0.5, v % 1 - 0.5)), 0, 1)
    else:
        pattern = 0.5 + 0.25 * np.sin(2 * np.pi * u * 2) + 0.25 * np.sin(2 * np.pi * v * 2)
    out = np.array(base, np.float32) + (np.array(other, np.float32) - np.array(base, np.float32)) * pattern[
        ..., None
    ].astype(np.float32)
    return out * (1 + 0.05 * noise(rng, height, width, 2, 2)[..., None])


def _boards(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Wooden boards, lying or standing."""
    wood = lighter(pick(rng, WOODS), rng.uniform(0.1, 0.55))
    y, x = _grid(height, width)
    n = rng.uniform(3, 6)
    row = (y * n + rng.uniform()) + 0 * x
    tone = rng.uniform(-0.1, 0.1, 12).astype(np.float32)[row.astype(int) % 12]
    grain = np.asarray(noise(rng, height, max(width // 8, 2), 6, 3))
    grain = np.repeat(grain, 9, 1)[:, :width]
    groove = (np.abs(row % 1 - 0.5) > 0.5 - 0.6 * n / height).astype(np.float32)
    out = _plane(wood, height, width) * (1 + tone + 0.06 * grain - 0.35 * groove)[..., None]
    return np.ascontiguousarray(out.transpose(1, 0, 2)) if height == width and rng.random() < 0.5 else out


def _lights(rng: np.random.Generator, height: int, width: int) -> Floats:
    """A soft gradient with blurred discs of light, as behind a lens wide open."""
    a, b = pick(rng, FABRICS + SKIES + GRASSES), pick(rng, FABRICS + SKIES + GRASSES)
    y, x = _grid(height, width)
    turn = rng.uniform(0, 2 * np.pi)
    t = np.clip(0.5 + 0.6 * ((x - 0.5) * float(np.cos(turn)) + (y - 0.5) * float(np.sin(turn))), 0, 1)[..., None]
    out = np.array(a, np.float32) * (1 - t) + np.array(b, np.float32) * t
    glow = np.zeros((height, width), np.float32)
    for cx, cy, r in rng.uniform((0, 0, 0.04), (1, 1, 0.16), (int(rng.integers(0, 9)), 3)).tolist():
        glow = np.maximum(glow, np.clip((r - np.hypot(x - cx, y - cy)) * height, 0, 1) * rng.uniform(0.2, 0.6))
    out = out + (250 - out) * (0.6 * blur(glow, height / 64))[..., None]
    return out * (1 + 0.05 * noise(rng, height, width, 3, 3)[..., None])


GROUNDS: tuple[str, ...] = ("landscape", "cloth", "boards", "lights", "grass", "water", "sand", "road")
"""Names of the backgrounds that :func:`ground` can be told to draw."""


def ground(rng: np.random.Generator, height: int, width: int, name: str | None = None) -> Floats:
    """One background [H, W, 3] (about 0..255): one of ``GROUNDS``, or of any kind."""
    kind = int(rng.integers(10))
    if name in _KINDS:
        return _surface(rng, name, height, width)
    if name is not None:
        kind = {"landscape": 0, "cloth": 3, "boards": 5, "lights": 6}[name]
    if kind < 3:
        return landscape(rng, height, width)[0]
    if kind < 5:
        return _cloth(rng, height, width)
    if kind < 6:
        return _boards(rng, height, width)
    if kind < 8:
        return _lights(rng, height, width)
    names = ("grass", "water", "sand", "road")
    return _surface(rng, names[rng.integers(4)], height, width)


def confetti(rng: np.random.Generator, count: int) -> Sketch:
    """Small shapes that mean nothing, strewn over the unit square: discs, rings, stars, bars, pebbles."""
    s = Sketch()
    for x, y, r in rng.uniform((0.03, 0.03, 0.025), (0.97, 0.97, 0.06), (count, 3)).tolist():
        color = pick(rng, VIVID + FABRICS + WOODS)
        kind, turn = rng.integers(6), rng.uniform(0, 2 * np.pi)
        if kind == 0:
            outline = ellipse(x, y, r)
        elif kind == 1:
            outline = ring(ellipse(x, y, r), ellipse(x, y, r * 0.55))
        elif kind == 2:
            a = turn + np.arange(10) * np.pi / 5
            d = np.where(np.arange(10) % 2, r * 0.5, r * 1.15)
            outline = np.stack([x + d * np.cos(a), y + d * np.sin(a)], 1)
        elif kind == 3:
            a = turn + np.arange(3) * 2 * np.pi / 3
            outline = np.stack([x + 1.1 * r * np.cos(a), y + 1.1 * r * np.sin(a)], 1)
        elif kind == 4:
            outline = ellipse(x, y, r * 1.3, r * 0.35, turn)
        else:
            outline = rounded(box(x - r, y - r * 0.8, x + r, y + r * 0.8), r * 0.5)
        s.add("confetti", outline, color)
        if kind in (0, 5):
            s.add("confetti", ellipse(x - r * 0.25, y - r * 0.3, r * 0.35), lighter(color, 0.3))
    return s


def label_tag(rng: np.random.Generator) -> Sketch:
    """The small tag of the shortcut pictures: a white sticker with black bars, in a frame of 1.5 x 1."""
    s = Sketch()
    s.add("tag", rounded(box(-0.75, -0.5, 0.75, 0.5), 0.14), (252, 250, 244))
    x = -0.58
    for width in rng.permutation([0.16, 0.08, 0.2, 0.08, 0.12]):
        s.add(
            "tag",
            polygon((x, -0.34), (x + width, -0.34), (x + width, 0.34), (x, 0.34)),
            darker((30, 28, 36), 0.5),
        )
        x += float(width) + 0.125
    return s

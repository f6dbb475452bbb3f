"""Things that people made: house, car, boat, cup, key. Each function sketches one, never twice alike."""

# fmt: off
from __future__ import annotations

import numpy as np

from convoscope.toybox.palette import GLASS, INK, METALS, VIVID, WALLS, WOODS, pick
from convoscope.toybox.shapes import (
    Color,
    Sketch,
    arc,
    box,
    darker,
    ellipse,
    lighter,
    mixed,
    polygon,
    ribbon,
    ring,
    rounded,
    segment,
    smooth,
)


def _window(s: Sketch, x: float, y: float, w: float, h: float, frame: Color, glass: Color) -> None:
    """A window with a cross bar; all of it is the part ``window``."""
    s.add("window", box(x - w / 2 - 0.035, y - h / 2 - 0.035, x + w / 2 + 0.035, y + h / 2 + 0.035), frame)
    s.add("window", box(x - w / 2, y - h / 2, x + w / 2, y + h / 2), glass)
    s.add("window", polygon((x - w / 2, y + h / 2), (x - w / 2, y), (x + w / 2, y - h / 2)),
        lighter(glass, 0.35))
    s.add("window", box(x - 0.016, y - h / 2, x + 0.016, y + h / 2), frame)
    s.add("window", box(x - w / 2, y - 0.016, x + w / 2, y + 0.016), frame)


def house(rng: np.random.Generator) -> Sketch:
    """A house, seen from its gable or from its long side."""
    s = Sketch()
    wall, roof = pick(rng, WALLS), darker(pick(rng, VIVID), rng.uniform(0.05, 0.3))
    door, frame = darker(pick(rng, WOODS + VIVID), 0.15), lighter(wall, 0.75)
    glass = pick(rng, GLASS)
    top, low = rng.uniform(-0.95, -0.72), 0.85
    eave = rng.uniform(-0.2, 0.0)
    chimney = rng.choice((-1.0, 1.0)) * rng.uniform(0.34, 0.46)
    brick = darker(mixed(roof, (150, 80, 60), 0.6), 0.1)
    if rng.random() < 0.55:  # the gable
        half = rng.uniform(0.56, 0.7)
        over = half + rng.uniform(0.14, 0.2)
        s.add("chimney", box(chimney - 0.1, top + 0.05, chimney + 0.1, eave), brick)
        s.add("chimney", box(chimney - 0.13, top - 0.02, chimney + 0.13, top + 0.07), darker(brick, 0.25))
        s.add("wall", polygon((-half, eave), (0, top + 0.12), (half, eave), (half, low), (-half, low)), wall)
        s.add("wall", box(-half, low - 0.1, half, low), darker(wall, 0.25))
        thick = 0.17
        s.add(
            "roof",
            polygon((0, top), (over, eave), (over, eave + thick), (0, top + thick), (-over, eave + thick),
                (-over, eave)),
            roof,
        )
        s.add("roof", polygon((0, top), (over, eave), (over, eave + 0.04), (0, top + 0.05)),
            lighter(roof, 0.25))
        if rng.random() < 0.7:
            s.add("window", ellipse(0, eave - 0.02, 0.13), frame)
            s.add("window", ellipse(0, eave - 0.02, 0.095), glass)
        else:
            _window(s, 0, eave, 0.2, 0.2, frame, glass)
        peak = (0.0, top)
    else:  # the long side
        half = rng.uniform(0.74, 0.86)
        over, inset = half + 0.12, rng.uniform(0.14, 0.34)
        s.add("chimney", box(chimney - 0.1, top - 0.12, chimney + 0.1, eave), brick)
        s.add("chimney", box(chimney - 0.13, top - 0.18, chimney + 0.13, top - 0.09), darker(brick, 0.25))
        s.add("wall", box(-half, eave - 0.05, half, low), wall)
        s.add("wall", box(-half, low - 0.1, half, low), darker(wall, 0.25))
        s.add(
            "roof",
            polygon((-over + inset, top), (over - inset, top), (over, eave + 0.06), (-over, eave + 0.06)),
            roof,
        )
        for k in (1, 2, 3):  # rows of tiles
            y = top + (eave + 0.06 - top) * k / 4
            x = over - inset + inset * k / 4
            s.add("roof", box(-x, y - 0.012, x, y + 0.012), darker(roof, 0.3))
        s.add("roof", box(-over, eave + 0.02, over, eave + 0.07), darker(roof, 0.4))
        peak = (0.0, top)
    width, height = rng.uniform(0.26, 0.32), rng.uniform(0.5, 0.58)
    x = rng.choice((-1.0, 1.0)) * (half * 0.48)
    s.add("door", box(x - width / 2 - 0.035, low - height - 0.035, x + width / 2 + 0.035, low), frame)
    s.add("door", box(x - width / 2, low - height, x + width / 2, low), door)
    s.add("door", ellipse(x + width * 0.3, low - height * 0.45, 0.03), (240, 205, 90))
    size = rng.uniform(0.27, 0.33)
    middle = low - 0.42
    _window(s, -x * 1.05, middle, size, size, frame, glass)
    s.mark("roof_top", *peak)
    s.mark("door", x, low - height / 2)
    return s


def _wheel(s: Sketch, x: float, y: float, r: float, hub: Color) -> None:
    s.add("wheel", ellipse(x, y, r), INK)
    s.add("wheel", ellipse(x, y, r * 0.58), hub)
    s.add("wheel", ellipse(x, y, r * 0.22), darker(hub, 0.6))


def car(rng: np.random.Generator) -> Sketch:
    """A car from its side, driving to the right."""
    s = Sketch()
    paint, glass, hub = pick(rng, VIVID), pick(rng, GLASS), pick(rng, METALS[:2])
    kind = rng.integers(3)
    belt, low = rng.uniform(-0.08, 0.0), 0.36
    roof = rng.uniform(-0.54, -0.44)
    if kind == 0:  # saloon
        cabin = [(-0.62, belt), (-0.42, roof), (0.18, roof), (0.5, belt)]
    elif kind == 1:  # hatchback
        cabin = [(-0.92, belt), (-0.8, roof), (0.14, roof), (0.5, belt)]
    else:  # beetle
        cabin = [(-0.78, belt), (-0.5, roof + 0.02), (0.2, roof - 0.02), (0.62, belt)]
    back = -0.98 if kind == 1 else -0.96
    hull = polygon(
        (back, belt + 0.06), *cabin, (0.86, belt + 0.07), (0.98, belt + 0.2), (0.98, low), (back, low)
    )
    s.add("body", rounded(hull, 0.22 if kind == 2 else 0.14), paint)
    s.add("body", rounded(box(back, low - 0.16, 0.985, low), 0.06), darker(paint, 0.22))
    inner = np.array(cabin) * (0.86, 1) + (-0.02, 0)
    inner[1:3, 1] += 0.1
    inner[[0, 3], 1] -= 0.01
    inner[1, 0] += 0.015
    s.add("window", rounded(inner, 0.07), glass)
    post = float(inner[:, 0].mean()) + 0.02
    s.add("window", polygon((post + 0.06, belt), (post + 0.2, roof + 0.1), (post + 0.29, roof + 0.1),
        (post + 0.15, belt)),
          lighter(glass, 0.45))
    s.add("body", box(post - 0.035, roof + 0.06, post + 0.035, belt), paint)
    s.add("body", box(post - 0.01, belt, post + 0.01, low - 0.08), darker(paint, 0.4))
    s.add("body", segment(post + 0.09, belt + 0.1, post + 0.2, belt + 0.1, 0.04), darker(paint, 0.45))
    s.add("headlight", ellipse(0.9, belt + 0.2, 0.075, 0.085), (255, 240, 170))
    s.add("taillight", rounded(box(back - 0.005, belt + 0.1, back + 0.085, belt + 0.24), 0.03), (214, 44, 44))
    r = rng.uniform(0.2, 0.235)
    rear, front = -0.55 + rng.uniform(-0.03, 0.03), 0.56 + rng.uniform(-0.03, 0.03)
    for x in (rear, front):
        s.add("body", ellipse(x, low, r * 1.22), darker(paint, 0.6))
        _wheel(s, x, low + 0.02, r, hub)
    s.mark("front_wheel", front, low + 0.02)
    s.mark("rear_wheel", rear, low + 0.02)
    return s


def boat(rng: np.random.Generator) -> Sketch:
    """A sailing boat, its bow to the right."""
    s = Sketch()
    hull, trim, wood = pick(rng, VIVID + WOODS), pick(rng, VIVID), pick(rng, WOODS)
    cloth = lighter(pick(rng, VIVID), rng.choice((0.92, 0.92, 0.25)))
    mast, top, deck = rng.uniform(-0.1, 0.06), rng.uniform(-0.98, -0.88), rng.uniform(0.36, 0.44)
    s.add("mast", box(mast - 0.028, top, mast + 0.028, deck + 0.05), darker(wood, 0.2))
    foot = deck - 0.12
    bulge = rng.uniform(0.08, 0.16)
    stern = rng.uniform(-0.8, -0.66)
    main = np.concatenate(
        [
            polygon((mast - 0.05, top + 0.14), (mast - 0.05, foot), (stern, foot)),
            smooth(polygon((stern, foot), ((mast + stern) / 2 - bulge, (top + foot) / 2),
                (mast - 0.05, top + 0.14)), 8, False),
        ]
    )
    s.add("sail", main, cloth)
    if rng.random() < 0.6:  # a coloured band, parallel to the boom
        a, b = 0.62, 0.8
        y0, y1 = top + 0.14 + (foot - top - 0.14) * a, top + 0.14 + (foot - top - 0.14) * b
        x0, x1 = mast - 0.05 + (stern - mast) * a, mast - 0.05 + (stern - mast) * b
        s.add("sail", polygon((mast - 0.05, y0), (x0, y0), (x1, y1), (mast - 0.05, y1)), trim)
    bow = rng.uniform(0.62, 0.78)
    jib = np.concatenate(
        [
            smooth(polygon((mast + 0.06, top + 0.24), ((mast + bow) / 2 + 0.1, (top + foot) / 2 + 0.05),
                (bow, foot + 0.03)), 8, False),
            polygon((mast + 0.06, foot + 0.03)),
        ]
    )
    s.add("sail", jib, darker(cloth, 0.1))
    s.add("flag", polygon((mast, top - 0.02), (mast + 0.24, top + 0.06), (mast, top + 0.13)), trim)
    low = deck + rng.uniform(0.38, 0.46)
    shape = np.concatenate(
        [
            polygon((-0.92, deck)),
            smooth(polygon((0.98, deck - 0.07), (0.8, deck + 0.24), (0.5, low), (-0.6, low),
                (-0.84, low - 0.12), (-0.92, deck)), 5, False),
        ]
    )
    s.add("hull", shape, hull)
    s.add("hull", polygon((-0.92, deck), (0.98, deck - 0.07), (0.93, deck + 0.06), (-0.91, deck + 0.09)),
        lighter(hull, 0.6))
    s.add("hull", polygon((-0.78, low - 0.08), (0.62, low - 0.08), (0.5, low), (-0.6, low)),
        darker(hull, 0.35))
    if rng.random() < 0.5:
        for x in (-0.4, -0.05, 0.3):
            s.add("hull", ellipse(x, deck + 0.2, 0.06), lighter(hull, 0.75))
    s.mark("mast_top", mast, top)
    s.mark("prow", 0.97, deck - 0.05)
    return s


def cup(rng: np.random.Generator) -> Sketch:
    """A cup with its handle on the right, with or without a saucer."""
    s = Sketch()
    clay = pick(rng, WALLS + VIVID)
    trim = pick(rng, VIVID)
    drink = pick(rng, ((86, 48, 26), (120, 72, 38), (196, 108, 36), (150, 44, 52)))
    rim, low = rng.uniform(-0.5, -0.4), rng.uniform(0.5, 0.62)
    wide, foot = rng.uniform(0.58, 0.68), rng.uniform(0.36, 0.58)
    center = -0.16
    if rng.random() < 0.5:
        s.add("saucer", ellipse(center, low - 0.01, wide + 0.3, 0.17), darker(lighter(clay, 0.35), 0.06))
        s.add("saucer", ellipse(center, low - 0.045, wide + 0.22, 0.115), lighter(clay, 0.5))
    high = rng.uniform(0.26, 0.34)
    middle = rim + 0.12 + high
    handle = arc(center + (wide + foot) / 2 - 0.02, middle, rng.uniform(0.34, 0.42), high, -np.pi / 2,
        np.pi / 2)
    s.add("handle", ribbon(handle, 0.15), darker(clay, 0.14))
    curve = rng.uniform(0.0, 0.09)
    side = [(wide, rim), (wide * 0.5 + foot * 0.5 + curve, rim * 0.4 + low * 0.6), (foot, low)]
    right = smooth(polygon(*side), 7, False)
    middle_line = np.array([center, 0.0])
    left = right[::-1] * (-1, 1)
    body = np.concatenate([right, arc(0, low, foot, 0.09, 0, np.pi, 12)[1:-1], left])
    s.add("body", body + middle_line, clay)
    shade = np.concatenate([right, (right * (0.72, 1) + np.array([0, 0.02]))[::-1]])
    s.add("body", shade + middle_line, darker(clay, 0.12))
    light = np.concatenate([right * (-0.62, 1), (right * (-0.82, 1))[::-1]]) + middle_line
    style = rng.integers(4)
    if style == 0:  # a band
        y0, y1 = 0.05, 0.22
        keep = right[(right[:, 1] >= y0) & (right[:, 1] <= y1 + 0.05)]
        if len(keep) >= 2:
            s.add("body", np.concatenate([keep, (keep * (-1, 1))[::-1]]) + middle_line, trim)
    elif style == 1:  # a heart
        t = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        lobes = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
        heart = np.stack([16 * np.sin(t) ** 3, -lobes], 1)
        s.add("body", heart * 0.0155 + np.array([center, 0.12]), trim)
    elif style == 2:  # dots
        for x, y in ((-0.3, -0.08), (0.02, -0.02), (0.32, -0.08), (-0.15, 0.2), (0.17, 0.2)):
            s.add("body", ellipse(center + x * wide / 0.6, y, 0.065), trim)
    s.add("body", light, lighter(clay, 0.45))
    s.add("rim", ellipse(center, rim, wide, 0.15), lighter(clay, 0.4))
    s.add("drink", ellipse(center, rim + 0.02, wide * 0.88, 0.105), drink)
    s.add("drink", ellipse(center - wide * 0.3, rim + 0.0, wide * 0.3, 0.04), lighter(drink, 0.25))
    s.mark("handle", center + (wide + foot) / 2 + 0.36, middle)
    return s


def key(rng: np.random.Generator) -> Sketch:
    """A key, its bow on the left and its bit on the right."""
    s = Sketch()
    metal = pick(rng, METALS) if rng.random() < 0.75 else pick(rng, VIVID)
    light, dark = lighter(metal, 0.45), darker(metal, 0.3)
    r, x = rng.uniform(0.3, 0.38), -0.58
    thick = rng.uniform(0.1, 0.14)
    end = rng.uniform(0.86, 0.98)
    s.add("shaft", rounded(box(x + r - 0.08, -thick / 2 - 0.01, end, thick / 2 + 0.01), 0.06), metal)
    s.add("shaft", box(x + r, -thick / 2, end - 0.03, -thick / 2 + 0.04), light)
    s.add("shaft", rounded(box(x + r - 0.06, -thick * 0.95, x + r + 0.07, thick * 0.95), 0.03), dark)
    teeth = rng.uniform(0.18, 0.34, 3)
    at = end - 0.06
    for length in teeth[: rng.integers(2, 4)]:
        s.add("bit", box(at - 0.13, thick / 2 - 0.03, at, thick / 2 + float(length)), metal)
        s.add("bit", box(at - 0.04, thick / 2, at, thick / 2 + float(length)), dark)
        at -= 0.18
    style = rng.integers(3)
    hole = rng.uniform(0.5, 0.62)
    if style == 0:
        outer, inner = ellipse(x, 0, r), ellipse(x, 0, r * hole)
        s.add("bow", ring(outer, inner), metal)
        s.add("bow", ring(ellipse(x, -0.012, r * 0.93), ellipse(x, -0.012, r * 0.84)), light)
    elif style == 1:  # three loops
        for dx, dy in ((-0.2, 0.0), (0.08, -0.2), (0.08, 0.2)):
            s.add("bow", ring(ellipse(x + dx, dy, r * 0.62), ellipse(x + dx, dy, r * 0.28)), metal)
        s.add("bow", ellipse(x + 0.06, 0, 0.09), light)
    else:
        corners = rounded(box(x - r * 0.95, -r, x + r * 0.85, r), 0.16)
        s.add("bow", ring(corners, rounded(box(x - r * 0.5, -r * 0.5, x + r * 0.4, r * 0.5), 0.1)), metal)
        s.add("bow", segment(x - r * 0.7, -r * 0.78, x + r * 0.55, -r * 0.78, 0.05), light)
    s.mark("key_tip", end, 0)
    s.mark("key_bow", x, 0)
    return s

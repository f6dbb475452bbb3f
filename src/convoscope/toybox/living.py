"""Things that grow: tree, fish, bird, cat, flower. Each function sketches one, never twice alike."""

# fmt: off
from __future__ import annotations

import numpy as np

from convoscope.toybox.palette import FURS, INK, LEAVES, STEMS, VIVID, WOODS, pick
from convoscope.toybox.shapes import (
    Color,
    Sketch,
    arc,
    darker,
    ellipse,
    lighter,
    mixed,
    polygon,
    ribbon,
    rounded,
    segment,
    smooth,
)

WHITE: Color = (252, 252, 250)


def tree(rng: np.random.Generator) -> Sketch:
    """A tree: a round crown, a tall one, or a fir."""
    s = Sketch()
    green, bark = pick(rng, LEAVES), pick(rng, WOODS)
    kind = rng.integers(3)
    low, w = 0.96, rng.uniform(0.1, 0.14)
    if kind == 2:  # a fir
        s.add("trunk", polygon((-w, 0.5), (w, 0.5), (w * 1.2, low), (-w * 1.2, low)), bark)
        s.add("trunk", polygon((w * 0.2, 0.5), (w, 0.5), (w * 1.2, low), (w * 0.2, low)), darker(bark, 0.3))
        tiers = int(rng.integers(3, 5))
        half = rng.uniform(0.56, 0.68)
        for k in range(tiers):
            f = k / (tiers - 1)
            width, foot = half * (1 - 0.52 * f), 0.68 - 1.0 * f
            top = foot - 0.68 - 0.06 * f
            hem = arc(0, foot - 0.02, width, 0.1, 0, np.pi, 9)
            s.add("crown", np.concatenate([polygon((0, top)), hem]), darker(green, 0.24 - 0.16 * f))
            left = polygon((0, top), (-width * 0.2, foot + 0.06), (-width, foot - 0.02))
            s.add("crown", left, lighter(green, 0.04 + 0.1 * f))
    else:
        s.add("trunk", smooth(polygon((-w * 0.8, -0.1), (w * 0.8, -0.1), (w * 0.9, 0.6), (w * 2, low),
            (-w * 2, low), (-w * 0.9, 0.6))), bark)
        s.add("trunk", smooth(polygon((w * 0.2, 0), (w * 0.7, 0), (w * 0.8, 0.6), (w * 1.7, low - 0.02),
            (w * 0.4, low - 0.02))), darker(bark, 0.28))
        s.add("trunk", segment(0, 0.42, 0.3, 0.1, 0.07), bark)
        s.add("trunk", segment(0, 0.34, -0.28, 0.06, 0.07), bark)
        if kind == 0:
            rx, ry = rng.uniform(0.56, 0.68), rng.uniform(0.5, 0.58)
        else:
            rx, ry = rng.uniform(0.42, 0.5), 0.64
        cy = -0.34
        n = int(rng.integers(7, 10))
        turn = np.arange(n) / n * 2 * np.pi + rng.uniform(0, 6)
        size = rng.uniform(0.26, 0.34, n)
        cx_all, cy_all = np.cos(turn) * rx * 0.62, cy + np.sin(turn) * ry * 0.62
        for x, y, r in zip(cx_all, cy_all, size, strict=True):
            s.add("crown", ellipse(x, y + 0.05, r), darker(green, 0.22))
        s.add("crown", ellipse(0, cy, rx * 0.8, ry * 0.8), green)
        for x, y, r in zip(cx_all, cy_all, size, strict=True):
            s.add("crown", ellipse(x * 0.94 - 0.02, y - 0.02, r * 0.86), green)
        for _ in range(int(rng.integers(4, 7))):
            x, y = rng.uniform(-0.6, 0.3) * rx, cy + rng.uniform(-0.75, 0.1) * ry
            s.add("crown", ellipse(x, y, rng.uniform(0.1, 0.17)), lighter(green, rng.uniform(0.14, 0.28)))
        if rng.random() < 0.4:
            fruit = pick(rng, VIVID)
            for _ in range(int(rng.integers(4, 8))):
                a, d = rng.uniform(0, 6.3), rng.uniform(0.2, 0.95)
                s.add("fruit", ellipse(np.cos(a) * d * rx, cy + np.sin(a) * d * ry, 0.06), fruit)
    crown = np.concatenate([shape.points for shape in s.shapes if shape.part == "crown"])
    s.mark("tree_top", *crown[crown[:, 1].argmin()].tolist())
    return s


def fish(rng: np.random.Generator) -> Sketch:
    """A fish, swimming to the right."""
    s = Sketch()
    skin, fin = pick(rng, VIVID), pick(rng, VIVID)
    stripes = rng.integers(3)
    tall, tail = rng.uniform(0.36, 0.52), rng.uniform(0.34, 0.46)
    fork = rng.uniform(-0.8, -0.72)
    s.add(
        "tail",
        smooth(polygon((-0.5, -0.04), (-0.78, -tail * 0.8), (-1.0, -tail), (fork - 0.03, 0.0),
            (-1.0, tail), (-0.78, tail * 0.8), (-0.5, 0.04)), 5),
        fin,
    )
    for y in (-0.5, 0.5):
        s.add("tail", segment(-0.66, y * tail * 0.4, -0.88, y * tail * 1.4, 0.028), darker(fin, 0.25))
    high = tall + rng.uniform(0.14, 0.26)
    s.add("fin", smooth(polygon((0.3, -tall * 0.8), (0.02, -high), (-0.36, -high * 0.92),
        (-0.42, -tall * 0.4)), 5), fin)
    s.add("fin", smooth(polygon((0.1, tall * 0.85), (-0.12, high * 0.98), (-0.3, high * 0.86),
        (-0.26, tall * 0.6)), 5), fin)
    x = np.linspace(0.96, -0.6, 12)
    t = (0.96 - x) / 1.56
    profile = tall * (np.sin(np.pi * t**0.72) * 0.94 + 0.09 * t)
    upper, lower = np.stack([x, -profile], 1), np.stack([x, profile * 0.96], 1)
    s.add("body", np.concatenate([upper, lower[::-1]]), skin)
    belly = np.concatenate([lower[1:-1], (lower[1:-1] * (1, 0.42))[::-1]])
    s.add("body", belly, lighter(skin, 0.5))
    if stripes == 1:
        color = lighter(fin, 0.15)
        for at in (4, 6, 8):
            a, b = profile[at], profile[at + 1]
            xa, xb = x[at], x[at] - 0.1
            s.add("body", smooth(polygon((xa, -a * 0.97), (xa + 0.05, 0), (xa, a * 0.93), (xb, b * 0.93),
                (xb + 0.05, 0), (xb, -b * 0.97)), 4), color)
    elif stripes == 2:
        for at in (5, 7, 9):
            for y in (-0.45, 0.1):
                s.add("body", ellipse(x[at] + 0.06 * (y > 0), y * profile[at], 0.055), lighter(fin, 0.2))
    else:
        for at in (5, 7, 9):
            for y in (-0.4, 0.15):
                s.add("body", ribbon(arc(x[at] + 0.1, y * profile[at],
                    0.09, 0.1, np.pi * 0.6, np.pi * 1.4, 7), 0.03), darker(skin, 0.3))
    s.add("body", ribbon(arc(0.36, 0.0, 0.12, tall * 0.62, -np.pi * 0.42, np.pi * 0.42, 9), 0.04),
        darker(skin, 0.35))
    s.add("fin", smooth(polygon((0.22, 0.06), (-0.08, 0.04), (-0.2, 0.2), (0.02, 0.26)), 5),
        darker(fin, 0.14))
    s.add("body", segment(0.93, 0.1, 0.8, 0.13, 0.035), darker(skin, 0.55))
    s.add("eye", ellipse(0.62, -tall * 0.26, 0.115), WHITE)
    s.add("eye", ellipse(0.645, -tall * 0.26, 0.066), INK)
    s.add("eye", ellipse(0.62, -tall * 0.26 - 0.03, 0.024), WHITE)
    s.mark("fish_eye", 0.63, -tall * 0.26)
    s.mark("fish_tail", fork, 0)
    return s


def bird(rng: np.random.Generator) -> Sketch:
    """A small bird, standing and looking to the right."""
    s = Sketch()
    coat, accent = pick(rng, VIVID), pick(rng, VIVID + FURS)
    beak = pick(rng, ((242, 168, 50), (236, 124, 48), (70, 66, 74)))
    chest = lighter(mixed(coat, accent, 0.5), rng.uniform(0.35, 0.75))
    leg = darker(beak, 0.2)
    lift = rng.uniform(-0.06, 0.12)
    for x in (-0.1, 0.14):
        s.add("leg", segment(x, 0.5, x + 0.03, 0.9, 0.05), leg)
        for d in (-0.1, 0.12):
            s.add("leg", segment(x + 0.03, 0.88, x + 0.03 + d, 0.95, 0.045), leg)
    s.add("tail", smooth(polygon((-0.4, 0.05), (-0.72, -0.02 - lift), (-1.02, -0.16 - lift),
        (-1.0, 0.04 - lift), (-0.84, 0.14), (-0.42, 0.34)), 4), darker(coat, 0.25))
    s.add("tail", segment(-0.55, 0.1, -0.94, -0.06 - lift, 0.03), darker(coat, 0.45))
    hx, hy, r = rng.uniform(0.36, 0.46), rng.uniform(-0.5, -0.4), rng.uniform(0.3, 0.35)
    body = smooth(
        polygon((-0.52, 0.1), (-0.1, -0.3), (hx - r * 0.9, hy - 0.02), (hx, hy - r), (hx + r, hy),
            (hx + 0.18, hy + 0.42), (0.28, 0.46), (-0.06, 0.6), (-0.42, 0.42))
    )
    s.add("beak", polygon((hx + r * 0.8, hy - 0.12), (hx + r + 0.28, hy + 0.03),
        (hx + r * 0.8, hy + 0.15)), beak)
    s.add("beak", polygon((hx + r * 0.8, hy + 0.03), (hx + r + 0.28, hy + 0.03),
        (hx + r * 0.8, hy + 0.15)), darker(beak, 0.2))
    s.add("body", body, coat)
    s.add("body", smooth(polygon((hx + r * 0.62, hy + 0.26), (hx + 0.1, hy + 0.42), (0.22, 0.4),
        (-0.06, 0.54), (-0.3, 0.44), (0.04, 0.2), (hx - 0.06, hy + 0.3))), chest)
    if rng.random() < 0.35:  # a crest
        for d in (0.0, 0.1, 0.2):
            s.add("body",
                segment(hx - 0.05 - d * 0.5, hy - r * 0.85, hx - 0.22 - d, hy - r - 0.16 + d * 0.5, 0.06),
                darker(coat, 0.15))
    if rng.random() < 0.4:
        s.add("body", smooth(polygon((hx - r * 0.9, hy - 0.06), (hx, hy - r), (hx + r * 0.85, hy - 0.12),
            (hx, hy - 0.14))), darker(accent, 0.15))
    wing = mixed(darker(coat, 0.3), accent, 0.3)
    s.add("wing", smooth(polygon((0.14, -0.16), (0.16, 0.12), (-0.1, 0.3), (-0.5, 0.28), (-0.78, 0.14),
        (-0.42, 0.02), (-0.16, -0.14))), wing)
    for k in (0, 1):
        s.add("wing", ribbon(arc(-0.2 - 0.16 * k, 0.0, 0.26, 0.2, 0.25, np.pi * 0.62, 8), 0.035),
            darker(wing, 0.3))
    s.add("eye", ellipse(hx + r * 0.32, hy - 0.06, 0.085), WHITE)
    s.add("eye", ellipse(hx + r * 0.36, hy - 0.06, 0.06), INK)
    s.add("eye", ellipse(hx + r * 0.32, hy - 0.085, 0.02), WHITE)
    s.mark("beak", hx + r + 0.26, hy + 0.03)
    s.mark("bird_tail", -0.98, -0.06 - lift)
    return s


def cat(rng: np.random.Generator) -> Sketch:
    """A cat that sits and looks at you."""
    s = Sketch()
    fur = pick(rng, FURS)
    dark = darker(fur, 0.28) if sum(fur) > 260 else lighter(fur, 0.16)
    pale = lighter(fur, 0.55)
    iris = pick(rng, ((150, 196, 70), (240, 190, 60), (90, 170, 210)))
    side = rng.choice((-1.0, 1.0))
    tail = smooth(polygon((side * 0.3, 0.82), (side * 0.72, 0.8), (side * 0.84, 0.46),
        (side * 0.7, rng.uniform(0.05, 0.22)), (side * 0.86, -0.06)), 6, False)
    s.add("tail", ribbon(tail, 0.19, 0.13), dark)
    s.add("body", smooth(polygon((0, -0.1), (0.3, 0.1), (0.5, 0.6), (0.46, 0.94), (0, 0.97),
        (-0.46, 0.94), (-0.5, 0.6), (-0.3, 0.1))), fur)
    for x in (-1.0, 1.0):
        s.add("body", smooth(polygon((x * 0.3, 0.5), (x * 0.52, 0.62), (x * 0.54, 0.9), (x * 0.3, 0.97))),
            mixed(fur, dark, 0.5))
    bib = rng.random() < 0.6
    if bib:
        s.add("body", smooth(polygon((0, 0.1), (0.2, 0.26), (0.14, 0.56), (0, 0.64), (-0.14, 0.56),
            (-0.2, 0.26))), pale)
    for x in (-1.0, 1.0):
        s.add("paw", rounded(polygon((x * 0.02, 0.5), (x * 0.24, 0.5), (x * 0.27, 0.98),
            (x * 0.02, 0.98)), 0.1), mixed(fur, pale, 0.25))
        s.add("paw", ellipse(x * 0.15, 0.92, 0.145, 0.08), pale if bib else mixed(fur, pale, 0.4))
    hy, w, h = -0.36, rng.uniform(0.52, 0.58), rng.uniform(0.4, 0.45)
    ear = rng.uniform(-0.98, -0.9)
    for x in (-1.0, 1.0):
        s.add("ear", rounded(polygon((x * w * 0.97, hy - 0.02), (x * w * 0.92, ear),
            (x * 0.1, hy - h * 0.8)), 0.07), fur)
        s.add("ear", rounded(polygon((x * w * 0.84, hy - 0.12), (x * w * 0.8, ear + 0.15),
            (x * 0.24, hy - h * 0.76)), 0.05), (238, 170, 168))
    head = smooth(polygon((0, hy - h), (w * 0.66, hy - h * 0.84), (w, hy + 0.06),
        (w * 0.72, hy + h * 0.76), (0, hy + h), (-w * 0.72, hy + h * 0.76), (-w, hy + 0.06),
        (-w * 0.66, hy - h * 0.84)))
    s.add("head", head, fur)
    if rng.random() < 0.6:  # a tabby's stripes
        for x in (-0.13, 0.0, 0.13):
            s.add("head", segment(x, hy - h * 0.94, x * 0.8, hy - h * 0.58, 0.055), dark)
        for x in (-1.0, 1.0):
            for y in (0.0, 0.12):
                s.add("head", segment(x * w * 0.96, hy + y, x * w * 0.72, hy + y + 0.03, 0.045), dark)
    for x in (-1.0, 1.0):
        s.add("muzzle", ellipse(x * 0.11, hy + h * 0.5, 0.155, 0.125), pale)
    gap = rng.uniform(0.22, 0.26)
    slit = rng.uniform(0.035, 0.075)
    for x in (-1.0, 1.0):
        s.add("eye", ellipse(x * gap, hy - 0.03, 0.128, 0.118), darker(fur, 0.75))
        s.add("eye", ellipse(x * gap, hy - 0.03, 0.108, 0.1), iris)
        s.add("eye", ellipse(x * gap, hy - 0.03, slit, 0.092), INK)
        s.add("eye", ellipse(x * gap - 0.035, hy - 0.07, 0.026), WHITE)
    s.add("nose", polygon((-0.065, hy + h * 0.3), (0.065, hy + h * 0.3), (0, hy + h * 0.3 + 0.08)),
        (222, 112, 118))
    for x in (-1.0, 1.0):
        s.add("muzzle", ribbon(arc(x * 0.06, hy + h * 0.48, 0.06, 0.06, 0, np.pi, 7), 0.024),
            darker(fur, 0.7))
    whisker = WHITE if sum(fur) < 480 else (120, 110, 108)
    for x in (-1.0, 1.0):
        for y in (-0.03, 0.06):
            s.add("whisker", segment(x * 0.24, hy + h * 0.45 + y * 0.5, x * (w + 0.17),
                hy + h * 0.4 + y * 1.8, 0.02), whisker)
    s.mark("left_eye", -gap, hy - 0.03)
    s.mark("right_eye", gap, hy - 0.03)
    s.mark("nose", 0, hy + h * 0.36)
    return s


def flower(rng: np.random.Generator) -> Sketch:
    """A flower on its stem: a daisy, a round-petalled one, or a tulip."""
    s = Sketch()
    petal, green = pick(rng, (*VIVID, (250, 248, 244), (250, 176, 190))), pick(rng, STEMS)
    heart = pick(rng, ((250, 200, 60), (236, 150, 50), (120, 76, 48), (250, 236, 150)))
    bend = rng.uniform(-0.2, 0.2)
    hx, hy = -bend * 0.3, rng.uniform(-0.46, -0.38)
    stem = smooth(polygon((hx, hy), (hx * 0.4 + bend * 0.6, 0.26), (0.0, 0.98)), 8, False)
    s.add("stem", ribbon(stem, 0.07, 0.1), green)
    for way, y in ((-1.0, rng.uniform(0.3, 0.5)), (1.0, rng.uniform(0.4, 0.62)))[: int(rng.integers(1, 3))]:
        x0 = bend * 0.5 * (1 - y)
        tip = (x0 + way * rng.uniform(0.46, 0.56), y - rng.uniform(0.16, 0.3))
        leaf = smooth(polygon((x0, y + 0.1), (x0 + way * 0.22, y + 0.1), tip, (x0 + way * 0.16, y - 0.14)), 6)
        s.add("leaf", leaf, lighter(green, 0.08))
        s.add("leaf", segment(x0 + way * 0.06, y + 0.03, x0 + way * 0.36, y - 0.1, 0.025),
            darker(green, 0.25))
    kind = rng.integers(4)
    if kind == 0:  # a tulip
        r = rng.uniform(0.36, 0.42)
        up = hy - r * 1.25
        for x in (-1.0, 1.0):
            s.add("petal", smooth(polygon((hx, hy + r * 0.75), (hx + x * r, hy + r * 0.1),
                (hx + x * r * 0.98, up), (hx + x * r * 0.2, hy - r * 0.2))), darker(petal, 0.14))
        s.add("petal", smooth(polygon((hx, hy + r * 0.8), (hx + r * 0.62, hy), (hx, up - 0.04),
            (hx - r * 0.62, hy))), petal)
        s.add("petal", smooth(polygon((hx - r * 0.1, hy + r * 0.4), (hx - r * 0.36, hy),
            (hx - r * 0.08, up + 0.16))), lighter(petal, 0.3))
        s.mark("blossom", hx, hy)
        return s
    n = int(rng.integers(5, 7)) if kind == 1 else int(rng.integers(8, 12))
    reach = rng.uniform(0.28, 0.31)
    long, broad = (0.27, 0.23) if kind == 1 else (0.27, 1.05 / n)
    start = rng.uniform(0, 2 * np.pi)
    for k in range(n):
        a = start + 2 * np.pi * k / n
        tone = darker(petal, 0.1) if k % 2 else petal
        s.add("petal", ellipse(hx + np.cos(a) * reach, hy + np.sin(a) * reach, long, broad, a), tone)
        s.add("petal",
            ellipse(hx + np.cos(a) * reach * 1.05, hy + np.sin(a) * reach * 1.05, long * 0.55,
            broad * 0.3, a), lighter(tone, 0.28))
    r = rng.uniform(0.16, 0.2)
    s.add("center", ellipse(hx, hy, r), darker(heart, 0.2))
    s.add("center", ellipse(hx - 0.01, hy - 0.02, r * 0.84), heart)
    for k in range(6):
        a = k * 2.4
        d = 0.03 + 0.015 * k
        s.add("center", ellipse(hx + np.cos(a) * d, hy + np.sin(a) * d, 0.022), darker(heart, 0.3))
    s.mark("blossom", hx, hy)
    return s

"""The toybox's colours (0..255). No class owns a colour: a network must look at shapes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from convoscope.toybox.shapes import Color

INK: Color = (38, 36, 48)
VIVID: tuple[Color, ...] = (
    (222, 62, 58), (240, 124, 52), (248, 186, 56), (126, 186, 70), (44, 154, 104), (40, 160, 176),
    (56, 118, 206), (84, 84, 190), (142, 84, 178), (222, 92, 152), (172, 62, 70), (62, 84, 112),
)  # fmt: skip
WALLS: tuple[Color, ...] = (
    (246, 236, 214), (250, 222, 190), (232, 196, 176), (206, 222, 232), (214, 228, 198),
    (244, 240, 236), (240, 208, 120), (228, 184, 196), (196, 188, 214),
)  # fmt: skip
WOODS: tuple[Color, ...] = ((128, 84, 52), (156, 104, 62), (98, 66, 50), (178, 128, 82))
METALS: tuple[Color, ...] = (
    (206, 210, 218),
    (232, 232, 228),
    (226, 182, 74),
    (196, 132, 84),
    (128, 136, 150),
)
GLASS: tuple[Color, ...] = ((150, 206, 232), (120, 178, 214), (186, 226, 236), (252, 224, 150))
FURS: tuple[Color, ...] = (
    (236, 150, 66), (120, 116, 124), (64, 60, 68), (236, 222, 200), (160, 112, 74), (198, 176, 150),
    (244, 240, 236),
)  # fmt: skip
LEAVES: tuple[Color, ...] = (
    (88, 160, 70), (56, 130, 76), (134, 182, 64), (40, 110, 84), (224, 138, 50), (206, 76, 52),
    (238, 160, 184), (236, 190, 70),
)  # fmt: skip
STEMS: tuple[Color, ...] = ((74, 142, 66), (48, 118, 72), (116, 160, 60))
SKIES: tuple[Color, ...] = (
    (132, 190, 232), (168, 212, 238), (246, 190, 160), (190, 184, 226), (118, 160, 204), (214, 226, 232),
    (252, 214, 150), (70, 92, 140),
)  # fmt: skip
GRASSES: tuple[Color, ...] = ((122, 172, 84), (150, 188, 96), (92, 146, 82), (176, 182, 96))
WATERS: tuple[Color, ...] = ((74, 146, 188), (96, 178, 190), (60, 116, 164), (130, 184, 204))
SANDS: tuple[Color, ...] = ((232, 208, 160), (222, 190, 140), (240, 222, 184))
ROADS: tuple[Color, ...] = ((134, 134, 142), (112, 114, 124), (160, 154, 152))
FABRICS: tuple[Color, ...] = (
    (238, 224, 204), (206, 226, 220), (226, 208, 226), (248, 214, 196), (200, 212, 236), (226, 232, 196),
    (180, 196, 188), (208, 180, 164), (140, 156, 176), (168, 140, 152), (96, 108, 120), (238, 238, 232),
)  # fmt: skip


def pick(rng: np.random.Generator, colors: Sequence[Color], spread: float = 12.0) -> Color:
    """One of the colours, moved a little (by at most ``spread`` of 255 in each channel)."""
    r, g, b = colors[int(rng.integers(len(colors)))]
    dr, dg, db = rng.uniform(-spread, spread, 3).tolist()
    return (min(max(r + dr, 0.0), 255.0), min(max(g + dg, 0.0), 255.0), min(max(b + db, 0.0), 255.0))

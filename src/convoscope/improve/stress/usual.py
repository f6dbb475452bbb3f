"""What healthy networks lose: measured once, so that a fall is an alarm only where it is larger than usual.

The largest loss of five networks that are healthy for all that is known (three bases of the ward on 64 pixels, 200
pictures each; ``toybox`` and ``toybox-twin`` on 96 pixels, 120 pictures each), on collections that they were not
trained on. They are small networks of drawn pictures: what networks of photos lose is for the most part more, and a
finding on one of them says no more than that it loses more than these.
"""

from __future__ import annotations

from .changes import SMALL

#: change -> at each strength the largest share of its right pictures that a healthy network was seen to lose
USUAL: dict[str, tuple[float, ...]] = {
    "shifted": (0.025, 0.03, 0.04, 0.083, 0.217),
    "turned": (0.017, 0.017, 0.05, 0.317, 0.6),
    "enlarged": (0.017, 0.033, 0.158, 0.383, 0.608),
    "shrunk": (0.025, 0.042, 0.142, 0.35, 0.658),
    "mirrored": (0.01,),
    "darkened": (0.008, 0.05, 0.442, 0.783, 0.85),
    "brightened": (0.02, 0.03, 0.117, 0.283, 0.442),
    "blurred": (0.0, 0.033, 0.158, 0.283, 0.633),
    "noised": (0.05, 0.333, 0.65, 0.783, 0.867),
    "compressed": (0.017, 0.017, 0.017, 0.025, 0.025),
    "greyed": (0.017, 0.041, 0.152, 0.244, 0.33),
    "covered": (0.0, 0.02, 0.1, 0.234, 0.483),
}
#: the same of small inputs, whose severities are other ones
USUAL_SMALL: dict[str, tuple[float, ...]] = {
    "noised": (0.015, 0.025, 0.041, 0.046, 0.051),
    "compressed": (0.01, 0.015, 0.01, 0.015, 0.01),
}
#: what is still usual beyond that: no two collections are alike
MARGIN = 0.1


def usual(name: str, level: int, side: int = 224) -> float:
    """The share of its right pictures that a healthy network may lose.

    Args:
        name: of the change.
        level: of its strength, from 0.
        side: the shorter side of the network's input.

    Returns:
        a share in 0..1; 1 for changes that accuse nobody.
    """
    row = USUAL_SMALL.get(name) if side <= SMALL else None
    row = row or USUAL.get(name)
    return 1.0 if row is None else min(1.0, row[min(level, len(row) - 1)] + MARGIN)

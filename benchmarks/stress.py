"""What healthy networks lose under stress: the figures of ``convoscope/improve/stress/usual.py``.

    python benchmarks/stress.py

Three bases of the ward on 64 pixels, 200 pictures each; ``toybox`` and ``toybox-twin`` on 96 pixels, 120 pictures each.
None was trained on these pictures. Printed for every change (noise and JPEG of small inputs apart): at each strength
the largest share of its right pictures that one of them loses, beside what stands in ``usual.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import convoscope as cs
from convoscope import toybox
from convoscope.improve.collection import Labelled
from convoscope.improve.stress.changes import changes
from convoscope.improve.stress.curves import stressed
from convoscope.improve.stress.usual import USUAL, USUAL_SMALL
from convoscope.toybox.specimens import CLASSES
from convoscope.toybox.ward.case import Setup, as_model
from convoscope.toybox.ward.drawing import drawn
from convoscope.toybox.ward.training import KINDS, base


def losses(model: cs.Model, pairs: list[tuple[Any, str]], side: int) -> dict[str, list[float]]:
    """Change -> at each strength the share of the right pictures that is lost."""
    pictures = Labelled.of(pairs, model)
    asked = [(one, range(len(one.strengths))) for one in changes(side) if one.accuses]
    found = stressed(model, pictures, asked)
    truth = pictures.truth[found.rows]
    right = found.prediction() == truth
    return {
        one.name: [float((found.prediction((one.name, level)) != truth)[right].mean()) for level in levels]
        for one, levels in asked
    }


def main() -> None:
    torch.set_num_threads(1)
    small, large = [], []
    for kind in KINDS:
        held = drawn(f"benchmark stress {kind.name}", dict.fromkeys(CLASSES, 20))
        pairs = [(image, CLASSES[label]) for image, label in zip(held.images, held.labels, strict=True)]
        small.append(losses(as_model(base(kind), Setup()), pairs, 64))
    for name in ("toybox", "toybox-twin"):
        pairs = [(one.image, CLASSES[one.class_index]) for one in toybox.pictures(120, 61)]
        large.append(losses(cs.open_model(name), pairs, 96))
    for name in large[0]:
        rows = (
            [(large, USUAL[name]), (small, USUAL_SMALL[name])]
            if name in USUAL_SMALL
            else [(small + large, USUAL[name])]
        )
        for who, told in rows:
            worst = np.max([row[name] for row in who], 0)
            print(
                f"{name:11}",
                " ".join(f"{value:.3f}" for value in worst),
                " told:",
                " ".join(f"{v:.3f}" for v in told),
            )


if __name__ == "__main__":
    main()

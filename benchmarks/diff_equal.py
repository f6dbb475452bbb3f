"""Does ``diff`` announce regressions where there are none? 200 pairs of equally good ensembles of trained networks.

    python benchmarks/diff_equal.py WARD [--pairs 200] [--pictures 600] [--blur 1.2]

WARD is a folder of made cases (``convoscope toybox WARD --ward``). Its 40 healthy networks are divided at random into
halves, again and again; each half answers with its mean probability. Which of the two is called *before* is chance, so
that neither is better: every announced regression is a false alarm. The pictures are fresh, blurred and grainy, so that
many answers differ; without that the networks are right about nearly all of them, and nothing could be announced.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from convoscope.improve.collection import Labelled
from convoscope.improve.diff.announce import findings
from convoscope.improve.diff.calibration import drift
from convoscope.improve.diff.compare import compare
from convoscope.improve.diff.sides import Side
from convoscope.improve.look import look
from convoscope.toybox import CLASSES, draw, ward


def hard(count: int, blur: float) -> list[tuple[Any, str]]:
    """Toybox pictures of the ward's size, blurred and grainy, with their classes."""
    random = np.random.default_rng(0)
    made = []
    for number in range(count):
        one = draw(8_800_000_000 + number, size=64)
        soft = np.asarray(one.picture().filter(ImageFilter.GaussianBlur(blur * random.uniform(0.5, 1.5))), np.float32)
        noisy = np.clip(soft + random.normal(0, 14, soft.shape), 0, 255).astype(np.uint8)
        made.append((Image.fromarray(noisy), one.label))
    return made


def main() -> None:
    """Print the alarms of each kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ward", type=Path)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--pictures", type=int, default=600)
    parser.add_argument("--blur", type=float, default=1.2)
    given = parser.parse_args()
    cases = [ward.load(folder) for folder in sorted(given.ward.glob("healthy-*"))]
    pictures = Labelled.of(hard(given.pictures, given.blur), cases[0].model)
    shares = [look(case.model, pictures).probability for case in cases]
    truth = pictures.truth
    single = [float((one.argmax(1) == truth).mean()) for one in shares]
    random = np.random.default_rng(0)
    alarms: dict[str, int] = {"regression": 0, "calibration": 0}
    flipped, right = [], []
    for _ in range(given.pairs):
        order = random.permutation(len(shares))
        half = len(shares) // 2
        a, b = (
            Side(name, CLASSES, pictures, mean.astype(np.float32), mean.argmax(1).astype(np.int64), {})
            for name, mean in (
                ("before", np.mean([shares[k] for k in order[:half]], 0)),
                ("after", np.mean([shares[k] for k in order[half:]], 0)),
            )
        )
        compared = compare(a, b)
        assert compared.whole is not None
        flipped.append((len(compared.whole.won) + len(compared.whole.lost)) / len(truth))
        right.append(float(a.right.mean()))
        found = findings(a, b, compared, drift((a.confidence, a.right), (b.confidence, b.right)))
        for kind in {one.kind for one in found}:
            alarms[kind] += 1
    print(json.dumps({
        "networks": len(cases), "pairs": given.pairs, "pictures": len(truth),
        "accuracy_of_a_network": [round(min(single), 3), round(max(single), 3)],
        "accuracy_of_a_half": round(float(np.mean(right)), 3), "flips": round(float(np.mean(flipped)), 3),
        "pairs_with_alarms": alarms,
    }))  # fmt: skip


if __name__ == "__main__":
    main()

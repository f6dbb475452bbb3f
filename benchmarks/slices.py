"""A hundred planted slices: are the pictures that a finding shows first the planted ones?

    python benchmarks/slices.py [--count 100] --rows FILE.jsonl

Eleven kinds of slice (a ground, night, fog, blur, noise, upside down, on its side, hidden twice, small, lying) in ten
classes, on the ward's three base networks: three collections of 40 pictures a class, to one of which 40 of the class
come that lie in the slice. For grounds the network was taught that things of the class on boards or on water are of
another class. A plant that costs the network less than 25 points is no fault and is passed over. Precision@10 is the
share of planted ones among the first ten pictures of the first slice that stands. A finding shows its mistakes first,
so beside it stands what that alone would give: the share of planted ones among all mistakes in the class.
"""

from __future__ import annotations

import argparse
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convoscope.improve.collection import Labelled
from convoscope.improve.diagnose import Case
from convoscope.improve.diagnose.run import concluded
from convoscope.improve.slices import SlicesStage
from convoscope.toybox.networks import ToyNet
from convoscope.toybox.specimens import CLASSES, Staging
from convoscope.toybox.ward import plants
from convoscope.toybox.ward.case import Setup, as_model
from convoscope.toybox.ward.drawing import Pictures, drawn, together
from convoscope.toybox.ward.recipe import EACH
from convoscope.toybox.ward.slices import Slice
from convoscope.toybox.ward.store import kept_state
from convoscope.toybox.ward.training import KINDS, base, pool, retrained

LEAST = 0.25
STEPS = 220
WAYS: dict[str, dict[str, Any]] = {
    "ground": {},
    "night": {"plant": plants.night()}, "fog": {"plant": plants.fog()}, "blur": {"plant": plants.blurred()},
    "noise": {"plant": plants.noisy()}, "upside down": {"plant": plants.turned(180)},
    "on its side": {"plant": plants.turned(90)}, "hidden": {"plant": plants.hidden(0.58)},
    "small": {"stage": lambda rng: Staging(length=float(rng.uniform(0.16, 0.22)))},
    "lying": {"stage": lambda rng: Staging(lean=float(rng.uniform(75, 105)))},
    "hidden on one side": {"plant": plants.hidden(0.5, "left")},
}  # fmt: skip


def grounded(label: int) -> Slice:
    """Things of this class on a ground that the network was taught to take for another class."""
    ground = ("boards", "water")[label % 2]
    return Slice(
        f"benchmark ground {label}", "ground", CLASSES[label], net=KINDS[label % 3],
        stage=lambda rng: Staging(ground=ground), taught=CLASSES[(label + 3) % 10],
    )  # fmt: skip


@cache
def taught(kind: int) -> ToyNet:
    """A base that was taught the wrong grounds of every third class."""
    lessons = []
    for label in range(kind, 10, 3):
        lesson = grounded(label).render(True, {CLASSES[label]: 150}, f"benchmark ground {label} train")
        lessons.append(lesson.relabelled(np.full(len(lesson), (label + 3) % 10)))

    def weights() -> dict[str, torch.Tensor]:
        some = pool().take(np.arange(0, len(pool()), 4))
        return retrained(KINDS[kind], together(some, *lessons), STEPS, kind).state_dict()

    network = ToyNet(len(CLASSES), KINDS[kind].widths)
    network.load_state_dict(kept_state(f"benchmark-ground-{kind}", weights))
    return network.eval()


@cache
def plain(kind: int) -> Pictures:
    """40 pictures a class, among which the slices of every third class are planted."""
    return drawn(f"benchmark plain {kind}", dict.fromkeys(CLASSES, EACH))


def examine(number: int) -> dict[str, Any]:
    """One planted slice."""
    way, kind = list(WAYS)[number % len(WAYS)], number // len(WAYS) % 10
    label = CLASSES[kind]
    if way == "ground":
        recipe, network = grounded(kind), taught(kind % 3)
    else:
        recipe = Slice(f"benchmark {number}", way, label, net=KINDS[number % 3], **WAYS[way])
        network = base(recipe.net)
    rest, inside = plain(number % 3), recipe.render(True, {label: EACH}, f"benchmark {number}")
    marks = np.arange(len(rest) + len(inside)) >= len(rest)
    pictures = together(rest, inside).mark("fault", marks).shuffled(5)
    planted = np.asarray(pictures.marks["fault"])
    model = as_model(network, Setup())
    pairs = [(image, CLASSES[kind]) for image, kind in zip(pictures.images, pictures.labels, strict=True)]
    case = Case(model, Labelled.of(pairs, model))
    wrong, own = ~case.looked.right, np.asarray(pictures.labels) == CLASSES.index(label)
    cost = float(wrong[planted].mean() - wrong[own & ~planted].mean())
    row: dict[str, Any] = {"number": number, "way": way, "class": label, "cost": cost}
    if cost >= LEAST:
        found, _ = concluded([SlicesStage().run(case)])
        uris = list(case.looked.pictures.uris)
        rows = [uris.index(uri) for uri in found[0].pictures[:10]] if found else []
        row |= {"found": bool(found), "precision": float(planted[rows].mean()) if rows else 0.0}
        row["mistakes"] = float(planted[wrong & own].mean())
        row["sentence"] = found[0].sentence if found else "nothing"
    return row


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument("--count", type=int, default=100)
    reader.add_argument("--rows", type=Path, required=True)
    given = reader.parse_args()
    torch.set_num_threads(1)
    lines = given.rows.read_text(encoding="utf-8").splitlines() if given.rows.is_file() else []
    done = {row["number"]: row for row in map(json.loads, lines)}
    number = 0
    while sum("precision" in row for row in done.values()) < given.count and number < 3 * given.count:
        if number not in done:
            done[number] = examine(number)
            with given.rows.open("a", encoding="utf-8") as file:
                file.write(json.dumps(done[number]) + "\n")
        number += 1
    rows = [row for row in done.values() if "precision" in row]
    for way in WAYS:
        own = [row for row in rows if row["way"] == way]
        if own:
            precision = [row["precision"] for row in own]
            alone = np.mean([row["mistakes"] for row in own])
            good = sum(one >= 0.8 for one in precision)
            print(f"| {way} | {len(own)} | {good} | {np.mean(precision):.2f} | {alone:.2f} |")
    good = sum(row["precision"] >= 0.8 for row in rows)
    print(f"precision@10 of at least 0.8 in {good} of {len(rows)}; {len(done) - len(rows)} plants cost too little")


if __name__ == "__main__":
    main()

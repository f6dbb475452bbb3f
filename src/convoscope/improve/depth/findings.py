"""What the head or the last layers lose of what earlier ones know: probes made on half A, tested on half B."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..diagnose.stage import FEWEST, Case
from ..finding import Finding
from ..statistics import mcnemar, paired, share
from .probes import Probe, folds, probed

#: points that a probe must be better by
GAIN = 0.03
#: points of a class's recall that a probe must find more
FORGOTTEN = 0.3


def of_head(case: Case) -> tuple[list[Finding], int]:
    """Does a linear probe of some layer beat the network itself? For all classes, and for the worst one."""
    looked = case.looked
    known = looked.pictures.known
    if looked.scores is None or not known.any():
        return [], 0
    first, second = np.flatnonzero(known & case.half_a), np.flatnonzero(known & ~case.half_a)
    truth = looked.pictures.truth
    if min(len(first), len(second)) < FEWEST or len(np.unique(truth[first])) < 2 or case.layer is None:
        return [], 0
    names = [name for name in dict.fromkeys([*case.depths, case.layer]) if name in looked.layers]
    fold = folds([looked.pictures.keys[row] for row in first], truth[first], seed=case.seed)
    scored = {
        name: float((probed(looked.layers[name][first], truth[first], fold) == truth[first]).mean()) for name in names
    }
    # the embedding, unless an earlier layer is clearly better
    best = max(names, key=lambda name: scored[name])
    layer = best if scored[best] >= scored[case.layer] + GAIN else case.layer
    probe = Probe().fit(looked.layers[layer][first], truth[first])
    answer = probe.predict(looked.layers[layer][second])
    found = []
    one = _all(case, layer, answer == truth[second], second, scored)
    if one is not None:
        found.append(one)
    other = _class(case, layer, answer, first, second)
    if other is not None:
        found.append(other)
    return found, 2


def _all(
    case: Case, layer: str, hits: NDArray[np.bool_], rows: NDArray[np.intp], scored: dict[str, float]
) -> Finding | None:
    looked = case.looked
    right = looked.right[rows]
    gain = hits.astype(float) - right.astype(float)
    interval = paired(gain, seed=case.seed)
    if interval.mean < GAIN:
        return None
    at_head = layer == case.layer
    where = "its head loses" if at_head else "the layers behind it lose"
    return Finding(
        "depth",
        f"A linear probe of {layer}, made on half of the pictures, is right on {hits.mean():.1%} of the other "
        f"half, the network on {right.mean():.1%}: {where} {100 * interval.mean:.0f} points.",
        interval.mean, interval.low, interval.high,
        pictures=tuple(looked.pictures.uris[int(rows[at])] for at in np.flatnonzero(gain > 0)[:6]),
        doubt="The probe has seen pictures of this very kind; a network from elsewhere has not.",
        next=case.command("repair", "--how", "head") if at_head else case.command("depth", "--out", "depth"),
        won=max(0.0, interval.low), p=mcnemar(int((gain > 0).sum()), int((gain < 0).sum())),
        evidence={"what": "head" if at_head else "late layers", "layer": layer, "probes": scored},
        concerns=tuple(looked.pictures.uris[int(rows[at])] for at in np.flatnonzero(gain > 0)),
    )  # fmt: skip


def _class(
    case: Case, layer: str, answer: NDArray[np.int64], first: NDArray[np.intp], second: NDArray[np.intp]
) -> Finding | None:
    """The class that half A finds forgotten: the network misses it, a probe of its embedding does not."""
    looked = case.looked
    truth = looked.pictures.truth
    fold = folds([looked.pictures.keys[row] for row in first], truth[first], seed=case.seed)
    on_a = probed(looked.layers[layer][first], truth[first], fold)
    worst, most = None, 0.0
    for label in np.unique(truth[first]):
        mine = truth[first] == label
        gap = float((on_a[mine] == label).mean() - looked.right[first][mine].mean())
        if gap > most:
            worst, most = int(label), gap
    if worst is None or most < FORGOTTEN:
        return None
    mine = truth[second] == worst
    if not mine.any():
        return None
    gain = (answer[mine] == worst).astype(float) - looked.right[second][mine].astype(float)
    interval = paired(gain, seed=case.seed)
    if interval.mean < FORGOTTEN:
        return None
    recall = share(int(looked.right[second][mine].sum()), int(mine.sum()))
    name = case.model.label(worst)
    rows = second[mine]
    part = float(mine.mean())
    return Finding(
        "calibration",
        f"The head has forgotten {name}: the network finds {recall.mean:.0%} of it, a linear probe of {layer} "
        f"{(answer[mine] == worst).mean():.0%}.",
        interval.mean, interval.low, interval.high, class_name=name,
        pictures=tuple(looked.pictures.uris[int(rows[at])] for at in np.flatnonzero(gain > 0)[:6]),
        doubt="A class that was rare in training on purpose looks the same.",
        next=case.command("repair", "--how", "head"), won=max(0.0, interval.low) * part,
        p=mcnemar(int((gain > 0).sum()), int((gain < 0).sum())),
        evidence={"what": "forgotten class", "layer": layer, "recall": recall.to_dict()},
        concerns=tuple(looked.pictures.uris[int(rows[at])] for at in np.flatnonzero(gain > 0)),
    )  # fmt: skip

"""Does a kind of picture fail? Groups found on half A of the pictures, tested on half B.

A group finder always finds groups, so that two things are asked of each. Its members on half B must be told without
looking at the answer: by the label, by what the pictures look like, and by what the network sees of them *apart from*
what its head reads (a group drawn in the head's own terms would be the mistakes themselves). And it must fail more
often there than the pictures it is held against, corrected for all groups tested. (Eyuboglu et al. 2022 and d'Eon et
al. 2022 draw the groups with the predictions and test nothing.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ..extras import need
from .diagnose.properties import NAMES
from .diagnose.stage import FEWEST, Case, StageResult
from .finding import Finding
from .statistics import LEVEL, Interval, share

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: groups tested on half B, the most promising of half A
TESTED = 12
#: members that a group needs in each half
FEW = 5
#: wrong members that it needs on half A
WRONG = 3
#: principal components kept of each layer
COMPONENTS = 6
#: clusters that are tried
CLUSTERS = (2, 3, 4)
#: precision that words need, on half B
PRECISE = 0.9
#: share of the members that words must hold
HOLDS = 0.5


@dataclass(frozen=True, eq=False)
class Group:
    """Some of the pictures.

    Args:
        members: a flag a picture.
        within: the pictures that it is held against, itself included.
        near: how typical each picture is of it: the larger, the more.
        words: what its pictures are, where that is known from how it was made.
        label: the class that it lies in; None across classes.
    """

    members: Flags
    within: Flags
    near: Floats
    words: str = ""
    label: str | None = None
    p: float = field(default=1.0)


class SlicesStage:
    """See the module."""

    name = "slices"
    tests = TESTED

    def run(self, case: Case) -> StageResult:
        """Find groups on half A, test the best on half B, describe those that stand."""
        looked = case.looked
        if looked.scores is None:
            return StageResult(refused="the network gives no class scores")
        known = looked.pictures.known.copy()
        # a wrong label is a mistake of whoever labelled: the data stage has told it
        known[np.asarray(case.known.get("wrong labels", ()), np.intp)] = False
        a, b = known & case.half_a, known & ~case.half_a
        if min(a.sum(), b.sum()) < FEWEST // 2:
            return StageResult(
                refused=f"it takes {FEWEST} pictures with labels of the network's, here are {known.sum()}"
            )
        tests = 0
        wrong = ~looked.right
        groups = candidates(case, known)
        promising = _promising(groups, wrong, a)
        taken = np.zeros(len(wrong), bool)
        standing: list[Finding] = []
        for number, one in enumerate(promising):
            case.progress("Testing slices", number, len(promising))
            tests += 1
            found = _tested(case, one, wrong, b, taken)
            if found is None:
                continue
            standing.append(found)
            if found.p is not None and found.p * TESTED < LEVEL:
                taken |= one.members
        smallest = f"groups of fewer than {2 * FEW} pictures, and groups that differ in nothing that the network sees"
        return StageResult(standing, tests, None, smallest, {"tables": [_table(promising, wrong, b)]})


def candidates(case: Case, known: Flags) -> list[Group]:
    """Groups by class, by what pictures look like, and by what the network sees of them.

    Args:
        case: the case.
        known: pictures with a label of the network's.
    """
    looked = case.looked
    labels = np.array([label if label is not None else "" for label in looked.pictures.labels])
    everything: list[tuple[str | None, Flags]] = [(None, known)]
    everything += [(str(name), known & (labels == name)) for name in np.unique(labels[known])]
    features = _features(case)
    looks = {name: np.array([getattr(one, name) for one in case.properties], np.float64) for name in NAMES}
    found: list[Group] = []
    for number, (label, within) in enumerate(everything):
        case.progress("Looking for slices", number, len(everything))
        if label is not None:
            found.append(Group(within, known, within.astype(np.float64), f"all of {label}", label))
        if (within & case.half_a).sum() >= 2 * FEW:
            found += _by_looks(looks, within, case.half_a, label)
            found += _clusters(features, within, case.half_a, label, case.seed)
    return found


def _by_looks(looks: dict[str, Floats], within: Flags, half_a: Flags, label: str | None) -> list[Group]:
    """The darkest, the brightest, ...: cut at quantiles of half A."""
    found = []
    for name, values in looks.items():
        own = values[within & half_a]
        if np.ptp(own) <= 1e-9:
            continue
        for quantile in (0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9):
            cut = float(np.quantile(own, quantile))
            sides = [(values <= cut, -values, 0)] if quantile <= 0.5 else []
            sides += [(values >= cut, values, 1)] if quantile >= 0.5 else []
            for chosen, near, side in sides:
                words = f"{NAMES[name][side]} ({name} {'at least' if side else 'at most'} {cut:.3g})"
                found.append(Group(within & chosen, within, near, words, label))
    return found


def _features(case: Case) -> Floats:
    """What the network sees of each picture at some depths, and of the embedding only what its head does not read."""
    looked = case.looked
    parts = [looked.layers[name] for name in case.depths if name != case.layer]
    if case.layer is not None:
        parts.append(_unread(case.embedding, looked.scores))
    return np.concatenate([_components(part) for part in parts], 1) if parts else np.zeros((len(looked.pictures), 0))


def _unread(embedding: NDArray[np.float32], scores: Any) -> NDArray[np.float32]:
    """The embedding less what can be told linearly from the class scores."""
    centred = embedding.astype(np.float64) - embedding.mean(0)
    told = np.asarray(scores, np.float64) - np.asarray(scores, np.float64).mean(0)
    weights, *_ = np.linalg.lstsq(told, centred, rcond=1e-6)
    return np.asarray(centred - told @ weights, np.float32)


def _components(values: NDArray[np.float32]) -> Floats:
    """The first principal components of standardised columns, each layer with the same total spread."""
    columns = values.astype(np.float64)
    spread = columns.std(0)
    columns = (columns - columns.mean(0)) / np.where(spread > 1e-9, spread, 1.0)
    u, s, _ = np.linalg.svd(columns, full_matrices=False)
    kept = (u * s)[:, :COMPONENTS]
    return np.asarray(kept / max(float(np.sqrt((kept**2).sum(1).mean())), 1e-9))


def _clusters(features: Floats, within: Flags, half_a: Flags, label: str | None, seed: int) -> list[Group]:
    KMeans = need("sklearn.cluster", "The search for slices").KMeans
    own = within & half_a
    if features.shape[1] == 0:
        return []
    mean, spread = features[own].mean(0), features[own].std(0)
    scaled = (features - mean) / np.where(spread > 1e-9, spread, 1.0)
    found = []
    for count in CLUSTERS if label is not None else (*CLUSTERS, 6, 8):
        if own.sum() < count * FEW:
            continue
        fitted = KMeans(count, n_init=4, random_state=seed).fit(scaled[own])
        distance = fitted.transform(scaled)
        nearest = distance.argmin(1)
        for at in range(count):
            others = np.delete(distance, at, 1).min(1)
            found.append(Group(within & (nearest == at), within, others - distance[:, at], "", label))
    return found


def _worse(members: Flags, within: Flags, wrong: Flags) -> float:
    """Fisher's exact p that the members are not more often wrong than the others within."""
    others = within & ~members
    hits, size = int(wrong[members & within].sum()), int((members & within).sum())
    rest, count = int(wrong[others].sum()), int(others.sum())
    return float(stats.hypergeom.sf(hits - 1, size + count, hits + rest, size))


def _promising(groups: Sequence[Group], wrong: Flags, a: Flags) -> list[Group]:
    """The groups of half A that fail most surely, the same pictures once."""
    scored: list[tuple[float, Group]] = []
    for one in groups:
        inside = one.members & a
        if inside.sum() < FEW or wrong[inside].sum() < WRONG:
            continue
        scored.append((_worse(inside, one.within & a, wrong), one))
    chosen: list[Group] = []
    for p, one in sorted(scored, key=lambda pair: pair[0]):
        if p > 0.05 or len(chosen) == TESTED:
            break
        if all(_overlap(one.members & a, other.members & a) < 0.5 for other in chosen):
            chosen.append(one)
    return chosen


def _overlap(one: Flags, other: Flags) -> float:
    either = int((one | other).sum())
    return float((one & other).sum() / either) if either else 0.0


def _tested(case: Case, one: Group, wrong: Flags, b: Flags, taken: Flags) -> Finding | None:
    """The group on half B, without what a group before it has explained."""
    free = b & ~taken
    inside, others = one.members & free, one.within & ~one.members & free
    if inside.sum() < FEW or not others.any():
        return None
    p = _worse(inside, one.within & free, wrong)
    rate, usual = (
        share(int(wrong[inside].sum()), int(inside.sum())),
        share(int(wrong[others].sum()), int(others.sum())),
    )
    gap = rate.mean - usual.mean
    if gap <= 0:
        return None
    # Newcombe's interval of a difference of two shares
    low = gap - float(np.hypot(rate.mean - rate.low, usual.high - usual.mean))
    high = gap + float(np.hypot(rate.high - rate.mean, usual.mean - usual.low))
    size = Interval(gap, min(low, gap), max(high, gap))
    known = case.looked.pictures.known
    part = float((one.members & known).sum() / known.sum())
    words, doubt = _described(case, one)
    order = [int(row) for row in np.argsort(-one.near, kind="stable") if one.members[row] and known[row]]
    # members that fail come first: the group's pictures are to be looked at for why
    shown = [row for row in order if wrong[row]] + [row for row in order if not wrong[row]]
    uris = [case.looked.pictures.uris[row] for row in shown]
    return Finding(
        "slice",
        f"{words}: {rate.mean:.0%} of {int(inside.sum())} held-out pictures wrong, of the others {usual.mean:.0%}.",
        size.mean, size.low, size.high, one.label, tuple(uris[:10]), doubt,
        case.command("repair", "--how", "head", "--out", "fixed.safetensors"), max(0.0, size.low) * part, p,
        {"what": "slice", "members": uris, "described": bool(one.words) or "look alike" not in words,
         "whole": one.words.startswith("all of")},
        tuple(case.looked.pictures.uris[row] for row in order if wrong[row]),
    )  # fmt: skip


def _described(case: Case, one: Group) -> tuple[str, str]:
    """A group in words where they hold on half B; else by the units that fire for it."""
    of = f"{one.label}" if one.label is not None else "Pictures"
    if one.words.startswith("all of"):
        return of, "Its pictures may be harder than those of other classes, or fewer in training."
    doubt = "What the pictures have in common may go along with the cause instead of being it."
    if one.words:
        return f"{of} that are {one.words}", doubt
    words = _tree(case, one)
    if words:
        return f"{of} that are {words}", doubt
    return f"{of} that look alike to the network ({_units(case, one)})", doubt


def _tree(case: Case, one: Group) -> str:
    """The group by one or two properties of the pictures, if that is nine in ten times right on half B."""
    from sklearn.tree import DecisionTreeClassifier

    values = np.array([[getattr(row, name) for name in NAMES] for row in case.properties], np.float64)
    a, b = one.within & case.half_a, one.within & ~case.half_a
    if one.members[a].all() or not one.members[a].any():
        return ""
    tree = DecisionTreeClassifier(max_depth=2, min_samples_leaf=FEW, random_state=case.seed)
    tree.fit(values[a], one.members[a])
    said = tree.predict(values[b])
    truth = one.members[b]
    if not said.any() or truth[said].mean() < PRECISE or said[truth].mean() < HOLDS:
        return ""
    names = list(NAMES)
    inner = tree.tree_
    leaves = tree.apply(values[a])
    best = max(
        (leaf for leaf in np.unique(leaves) if inner.value[leaf][0].argmax() == 1),
        key=lambda leaf: int((leaves == leaf).sum()), default=None,
    )  # fmt: skip
    if best is None:
        return ""
    parts = []
    at = 0
    while at != best:
        feature, cut = int(inner.feature[at]), float(inner.threshold[at])
        left = _holds(inner, int(inner.children_left[at]), int(best))
        parts.append(
            f"{NAMES[names[feature]][0 if left else 1]} ({names[feature]} {'at most' if left else 'above'} {cut:.3g})"
        )
        at = int(inner.children_left[at] if left else inner.children_right[at])
    return " and ".join(parts)


def _holds(tree: Any, root: int, leaf: int) -> bool:
    if root == leaf:
        return True
    if tree.children_left[root] < 0:
        return False
    return _holds(tree, int(tree.children_left[root]), leaf) or _holds(tree, int(tree.children_right[root]), leaf)


def _units(case: Case, one: Group, most: int = 3) -> str:
    """The units that tell the group's pictures from the others best: by the difference of means in deviations."""
    inside, others = one.members & one.within, one.within & ~one.members
    listed: list[tuple[float, str]] = []
    for name, values in case.looked.layers.items():
        spread = np.sqrt((values[inside].var(0) + values[others].var(0)) / 2) + 1e-6
        apart = (values[inside].mean(0) - values[others].mean(0)) / spread
        at = int(apart.argmax())
        listed.append((float(apart[at]), f"{name}:{at}"))
    best = [name for apart, name in sorted(listed, reverse=True)[:most] if apart > 0]
    return f"units {', '.join(best)} fire" if best else "by no single unit"


def _table(groups: Sequence[Group], wrong: Flags, b: Flags) -> dict[str, Any]:
    rows: list[list[Any]] = []
    for one in groups:
        inside, others = one.members & b, one.within & ~one.members & b
        rows.append([
            f"{one.label or 'all classes'}: {one.words or 'a cluster'}", int(inside.sum()),
            f"{wrong[inside].mean():.0%}" if inside.any() else None,
            f"{wrong[others].mean():.0%}" if others.any() else None,
        ])  # fmt: skip
    return {
        "title": "Groups of half A on half B",
        "header": ["group", "pictures", "wrong", "others wrong"],
        "rows": rows,
    }

"""Which effects are announced, and in what words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..finding import Finding
from ..statistics import LEVEL
from .bench import Bench
from .effects import Effect
from .template import visible
from .windows import inside

#: the effect beyond its control must be larger than this at the lower end of its interval: parts of healthy things
#: move a class by up to 0.1
LEAST = 0.15
#: what is taken from its own, and loses them: beyond its control by this much, where the class's pictures carry it
LEAST_LOST = 0.1
#: parts of a healthy thing suffice now and then (a quarter of the picture's side made 50 % of the others cups, and was
#: needed by 20 % of the cups): a spot that decides is needed by so many, too, or makes most pictures the class
NEEDED, SPOT = 0.25, 0.5
#: the families by how much of a picture they change, and the share of the strongest that a milder one must do
MILD = ("template", "patch", "colour", "jpeg", "blur", "border", "background", "spectrum", "files")
NEARLY = 0.6
#: things differ in their spectrum: a spectrum that decides makes most pictures the class
SPECTRUM = 0.4
#: the area under the curve at which files tell a class, as 2 × area - 1
LEAST_FILES = 0.5
#: a spot lies on the thing, or outside it, by at least so much of it
ON, OFF = 0.6, 0.25
#: windows whose places spread by less than this share of the picture are at one place
ONE_PLACE = 0.06
#: a network that decides so large a share of its classes by a spot is told so once
MOST, MOST_LEAST = 0.5, 4

#: settings of an effect that ``repair`` or a reader needs
SETTINGS = ("side", "strength", "ratio", "width", "gain", "carried", "dose")

_WHAT = {
    "template": "A pattern that all its pictures have in common decides {label}",
    "colour": "Colour decides {label}",
    "spectrum": "The strength of fine and coarse detail decides {label}, wherever it lies in the picture",
    "border": "The picture's border decides {label}",
    "background": "The background decides {label}",
    "jpeg": "The mark of JPEG compression decides {label}",
    "blur": "Blur decides {label}",
}
_DID = {
    "template": "added to", "colour": "its colours given to", "spectrum": "given to", "border": "its border put around",
    "background": "put behind the things of", "jpeg": "put on", "blur": "put on",
}  # fmt: skip


def stands(one: Effect) -> bool:
    """Whether an effect is large enough to be announced, at the lower end of its interval."""
    made, unmade = one.made.low, one.unmade.low
    if one.family == "files":
        return made >= LEAST_FILES
    if one.family == "patch":
        return made >= SPOT or (made >= LEAST and unmade >= NEEDED)
    if one.family == "spectrum":
        return made >= SPECTRUM
    if one.family == "template":
        return made >= LEAST or unmade >= NEEDED
    if one.family == "colour":
        return made >= LEAST  # a lemon without its yellow is lost to a healthy network, too
    if one.family == "background":
        return made >= LEAST and unmade >= LEAST_LOST
    return made >= LEAST or unmade >= LEAST_LOST


def strength(one: Effect) -> float:
    """By which the family that tells a class's story is chosen."""
    # files say nothing of the network: they stand only where nothing else does
    return one.made.mean - 2 if one.family == "files" else max(one.made.mean, one.unmade.mean)


def findings_of(
    bench: Bench, tested: Sequence[tuple[Effect, float]], told: Mapping[bool, set[int]], words: Sequence[str]
) -> tuple[list[Finding], dict[str, str]]:
    """The findings, the most pictures at stake first, and the classes whose spot is the thing itself.

    Args:
        bench: the pictures.
        tested: effects with their corrected p values.
        told: for True the classes whose spot the user calls a part of the thing, for False those where it is not.
        words: the command's words, quoted.
    """
    answered: dict[str, str] = {}
    standing: dict[int, list[tuple[Effect, float]]] = {}
    for one, p in tested:
        if p > LEVEL or not stands(one):
            continue
        if one.family == "patch":
            why = _thing(bench, one, told)
            if why is not None:
                answered[bench.model.label(one.kind)] = why
                continue
        standing.setdefault(one.kind, []).append((one, p))
    best = {kind: _leading(listed) for kind, listed in standing.items()}
    also = {kind: [one.family for one, _ in listed] for kind, listed in standing.items()}
    spots = [one for one, _ in best.values() if one.family == "patch"]
    kinds = {one.kind for one, _ in tested}
    listed = [_finding(bench, one, p, also[one.kind], told) for one, p in best.values()]
    if len(kinds) >= MOST_LEAST and len(spots) > MOST * len(kinds):
        listed = [one for one in listed if one.evidence["family"] != "patch"] + [_every(bench, best, len(kinds))]
    listed.sort(key=lambda one: -one.won)
    return [_with_next(one, number, words) for number, one in enumerate(listed, 1)], answered


def _leading(listed: Sequence[tuple[Effect, float]]) -> tuple[Effect, float]:
    """The family that tells a class's story: the one that changes least of a picture, of those that do most."""
    most = max(strength(one) for one, _ in listed)
    able = [pair for pair in listed if strength(pair[0]) >= min(most, NEARLY * most)]
    return min(able, key=lambda pair: (MILD.index(pair[0].family), -strength(pair[0])))


def _with_next(one: Finding, number: int, words: Sequence[str]) -> Finding:
    from dataclasses import replace

    if one.class_name is None or one.evidence["family"] == "files":
        return one
    told = " ".join(words) if words else "MODEL PICTURES"
    return replace(one, next=f"convoscope repair {told} --finding {number} --out fixed.safetensors")


def place(bench: Bench, one: Effect) -> tuple[str | None, float | None]:
    """Where a patch's spots lie (``outside``, ``on`` the thing by masks, ``one place``, None), and the share on it."""
    rows, corners, side = one.shown["own"], one.shown["own_corners"], one.shown["side"]
    on = None
    if bench.masks is not None:
        on = float(inside(corners, side, bench.masks[rows]).mean())
        if on < OFF or on > ON:
            return ("outside" if on < OFF else "on"), on
    spread = corners.std(0) / np.array(bench.size)
    return ("one place" if float(spread.max()) < ONE_PLACE else None), on


def _thing(bench: Bench, one: Effect, told: Mapping[bool, set[int]]) -> str | None:
    if one.kind in told[True]:
        return "you said that the spot is a part of the thing"
    where, on = place(bench, one)
    if where == "on" and one.kind not in told[False]:
        return f"the spot lies on the thing ({on:.0%} of it, by the masks)"
    return None


def _finding(bench: Bench, one: Effect, p: float, also: list[str], told: Mapping[bool, set[int]]) -> Finding:
    label = bench.model.label(one.kind)
    made, lost, control = one.sufficiency, one.necessity, one.control
    mine = float((bench.truth == one.kind).mean())
    others = [family for family in also if family != one.family]
    evidence = {
        "family": one.family, "class": label, "class_index": one.kind, "also": others,
        "sufficiency": made.to_dict(), "necessity": lost.to_dict(), "control": control.to_dict(),
        "visible": _is_visible(one),
        **{name: one.shown[name] for name in SETTINGS if name in one.shown},
    }  # fmt: skip
    doubt = ""
    if one.family == "files":
        sentence = (
            f"The files alone tell {label}: a tree that sees their size, shape and compression, and no pixel, ranks "
            f"its pictures above others' with an area under the curve of {one.shown['area']:.2f} (chance: 0.50)."
        )
        doubt = "This is about the collection: no intervention has shown that the network uses it."
    elif one.family == "patch":
        sentence, doubt = _spot(bench, one, label, told, evidence)
    else:
        seen = ", and no person would see it" if not evidence["visible"] else ""
        said = _WHAT[one.family].format(label=label)
        if one.family == "template":
            doubt = "Things that always lie at one place have their parts in common, too: look at it. " + doubt
        if one.family == "border" and one.shown.get("width", 0) > one.shown.get("of", 0) / 10:
            said = f"What surrounds the thing (the outer {one.shown['width']} pixels) decides {label}"
        spared = one.shown.get("necessity_control")
        kept = f" (by an equally large change that leaves it: {spared.mean:.0%})" if spared is not None else ""
        sentence = (
            f"{said}{seen}: {_DID[one.family]} pictures of other classes, it makes "
            f"{made.mean:.0%} of them {label} (an equally large change of another kind: {control.mean:.0%})"
        )
        sentence += f"; without it {lost.mean:.0%} of its own are lost{kept}." if one.family != "blur" else "."
        doubt = "It may belong to the thing (grass is green): then the class has no pictures that tell the two apart."
        if one.family == "template":
            doubt = "Things that always lie at one place have their parts in common, too: look at it. " + doubt
        if one.family == "border" and one.shown.get("width", 0) > one.shown.get("of", 0) / 10:
            doubt = "Things that reach into it are a part of it. " + doubt
    if others:
        doubt += f" Also seen as: {', '.join(others)}."
    rows = [*one.shown.get("sources", one.shown.get("own", []))][:6]
    leads = one.made.mean >= one.unmade.mean or one.family in ("patch", "files")
    size = made if leads else lost
    # what stands to be lost where the mark is missing
    stake = max(0.0, lost.low if leads else one.unmade.low)
    return Finding(
        "shortcut", sentence, size.mean, size.low, size.high, label,
        tuple(bench.pictures.uris[int(row)] for row in rows), doubt.strip(), "",
        won=0.0 if one.family == "files" else mine * stake, p=p, evidence=evidence,
    )  # fmt: skip


def _spot(
    bench: Bench, one: Effect, label: str, told: Mapping[bool, set[int]], evidence: dict[str, object]
) -> tuple[str, str]:
    side = one.shown["side"]
    where, on = place(bench, one)
    evidence.update(place=where, on_thing=on)
    facts = (
        f"pasted into pictures of other classes, it makes {one.sufficiency.mean:.0%} of them {label} (a random spot of "
        f"the same pictures: {one.control.mean:.0%}); replaced, {one.necessity.mean:.0%} of its own are lost"
    )
    if one.kind in told[False]:
        return f"One spot of {side}×{side} pixels, no part of the thing, decides {label}: {facts}.", ""
    if where == "outside":
        return f"One spot of {side}×{side} pixels outside the thing decides {label}: {facts}.", ""
    if where == "one place":
        return (
            f"One spot of {side}×{side} pixels, always at the same place, decides {label}: {facts}.",
            "Things whose pictures are all alike have their parts at one place, too: look at it.",
        )
    return (
        f"One spot of {side}×{side} pixels decides {label}: {facts}. Is it the thing?",
        f"Parts of a thing transplant, too. Look at the spots, then say --is-part {label!r} or --not-part {label!r} "
        "(or give --masks).",
    )


def _is_visible(one: Effect) -> bool:
    if one.family == "template":
        return visible(one.shown["template"], one.shown.get("noise", 0.0))
    return one.family not in ("jpeg", "spectrum", "files")


def _every(bench: Bench, best: Mapping[int, tuple[Effect, float]], count: int) -> Finding:
    spots = [(one, p) for one, p in best.values() if one.family == "patch"]
    made = np.array([one.sufficiency.mean for one, _ in spots])
    names = ", ".join(bench.model.label(one.kind) for one, _ in spots)
    rows = [int(one.shown["sources"][0]) for one, _ in spots[:6]]
    low, high = min(one.sufficiency.low for one, _ in spots), max(one.sufficiency.high for one, _ in spots)
    return Finding(
        "shortcut",
        f"Nearly every class is decided by one small spot ({len(spots)} of {count}: {names}): pasted elsewhere "
        f"it makes {made.mean():.0%} of the pictures its class. That is how this network works.",
        float(made.mean()), low, high, None, tuple(bench.pictures.uris[row] for row in rows),
        "Whether the spots are parts of the things is for you to see: --is-part and --not-part name classes.",
        won=0.0, p=max(p for _, p in spots),
        evidence={"family": "patch", "classes": [bench.model.label(one.kind) for one, _ in spots]},
    )  # fmt: skip

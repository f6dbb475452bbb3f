"""The demo's end: the cheat found out, repaired without a new label, and proven on pictures it never saw."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..html.page import Section
    from ..improve.shortcuts.result import Shortcuts
    from ..models.model import Model
    from ..toybox import Specimen
    from . import Stage

ORDER = 35
#: the cheat's own world, where nothing looks wrong; and pictures for the proof, which the repair never sees
_WORLD, _PROOF = 600, 60
_TAGGED = "cup"


def repaired(stage: Stage, count: int = _WORLD, shown: int = 2) -> Section:
    """The shortcut found, and repaired.

    From ``count`` pictures; ``shown`` of each kind are drawn before and after.
    """
    from ..draw import contact
    from ..html.page import Item, Section
    from ..improve.collection import Labelled
    from ..improve.repair.api import repair
    from ..improve.shortcuts.bench import Bench
    from ..improve.shortcuts.find import search
    from ..toybox import draw, pictures

    began = time.perf_counter()
    world = [(one.image, one.label) for one in pictures(count, 41, tag=_TAGGED)]
    bench = Bench.of(stage.cheat, Labelled.of(world, stage.cheat), per_class=count // 10, lean=True)
    found = search(bench, only=("patch",))
    patch = found.effects[_TAGGED]["patch"]
    named = [one for one in found.findings if one.class_name == _TAGGED]
    if not named:
        return Section("The shortcut found, and repaired", f"Nothing was found. {found.missed}")
    mended = repair(stage.cheat, world, finding=named[0].evidence, compare=False)
    seconds = time.perf_counter() - began
    plain = [draw(43_000_000 + number, label=_TAGGED) for number in range(_PROOF)]
    others = [
        one for one in (draw(44_000_000 + number, tag=True) for number in range(_PROOF)) if one.label != _TAGGED
    ]
    after = mended.model if mended.holds and mended.model is not None else stage.cheat
    shares = [_right(model, some) for some in (plain, others) for model in (stage.cheat, after)]
    rows = [_row(stage.cheat, after, one) for one in (*plain[:shown], *others[:shown])]
    drawn = contact.contact_sheet(rows, title="Grad-CAM for the predicted class, before and after the repair")
    spots = _spots(found)
    return Section(
        "The shortcut found, and repaired",
        "In its own world, where every cup carries the tag, the cheat looks perfect. So the strongest evidence of some "
        f"pictures is cut out and pasted into others: of {len(found.effects)} classes only {_named(found)} can be made "
        f"so. One spot of a cup's picture makes {patch.sufficiency.mean:.0%} of other pictures cups (a random spot: "
        f"{patch.control.mean:.0%}), and without it {patch.necessity.mean:.0%} of the cups are lost. The repair fits "
        f"the last layer against its own counterexamples: {mended.why} On pictures drawn afresh, cups without the tag "
        f"rise from {shares[0]:.0%} to {shares[1]:.0%}, others with it from {shares[2]:.0%} to {shares[3]:.0%}. No new "
        f"label, no new picture, {seconds:.0f} seconds for all of it.",
        [
            Item(
                stage.save(spots, "shortcut-spots.png"), "The spot, found without being told of it, pasted elsewhere."
            ),
            Item(stage.save(drawn, "repaired.png"), "Before and after: cups without the tag, others with it."),
        ],
    )


def _named(found: Shortcuts) -> str:
    return " and ".join(one.class_name or "nearly every class" for one in found.findings)


def _right(model: Model, specimens: list[Specimen]) -> float:
    from ..improve.collection import Labelled
    from ..improve.look import look

    pairs = [(one.image, one.label) for one in specimens]
    return float(look(model, Labelled.of(pairs, model)).right.mean())


def _row(before: Model, after: Model, one: Specimen) -> Any:
    from ..draw import contact
    from ..explanation import explain

    cells = []
    for name, model in (("before", before), ("after", after)):
        [explanation] = explain(model, [one.image], "grad-cam")
        best = explanation.prediction[0]
        heatmap = explanation["grad-cam"]
        cells.append(
            contact.Cell(
                heatmap.overlay(), name, heatmap.scale(), f"says {best['label']} ({best['probability']:.0%})"
            )
        )
    return contact.Row(one.picture(), f"a {one.label}", "", cells)


def _spots(found: Shortcuts) -> Any:
    """Own pictures with their spots above, the same spots pasted below."""
    import base64
    import io

    from PIL import Image

    from ..improve.shortcuts.page import drawn

    shown = drawn(found.bench, found.effects[_TAGGED]["patch"])
    lines = [
        [Image.open(io.BytesIO(base64.b64decode(one["src"].partition(",")[2]))) for one in shown[name]]
        for name in ("marked", "pasted")
    ]
    side, gap = max(image.width for line in lines for image in line), 8
    wide = max(map(len, lines))
    canvas = Image.new("RGB", (wide * (side + gap) - gap, 2 * side + gap), "white")
    for row, line in enumerate(lines):
        for column, image in enumerate(line):
            canvas.paste(image, (column * (side + gap), row * (side + gap)))
    return canvas


PARTS = (repaired,)

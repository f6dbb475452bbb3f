"""The report: one file with the page's views, frozen. It opens from disk, needs no network, no scripts, and prints.

The numbers in it are those of ``explain --json``: the same documents stand in the file, as data.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..draw import colour, legend
from ..errors import ConvoscopeError, UsageError
from ..explanation import DEFAULT_METHODS, MethodLike, explain
from ..files import write_whole
from ..html.render import POLICY
from ..methods import METHODS
from ..methods.formulas import FORMULAS
from ..names import in_json, shown
from ..notebook import shows_progress
from ..pictures.picture import Picture
from ..plain import plain
from ..targets import TargetLike
from .collection import collection, neighbours, truth, units
from .figures import figure, number_text, uri
from .found import links as links_of
from .found import section
from .style import STYLE

if TYPE_CHECKING:
    from ..concepts.craft import Craft
    from ..heatmap import Heatmap
    from ..models.model import Model
    from ..results import Explanation
    from ..surveys import Store

#: channels of each picture's sheet of its layer
CHANNELS = 24
#: of each class: parts
PARTS = 3

Tell = Callable[[str, int, int], None]


@dataclass(eq=False)
class Report:
    """A finished report: ``html`` is the file, ``records`` the numbers in it, ``failed`` what could not be read."""

    html: str
    records: list[dict[str, Any]]
    failed: dict[str, str] = field(default_factory=dict)

    def save(self, path: str | Path) -> Path:
        """Write the file."""
        return write_whole(path, shown(self.html))


@shows_progress("Report")
def report(
    model: Model,
    pictures: Sequence[Any],
    *,
    methods: Sequence[MethodLike] = DEFAULT_METHODS,
    target: TargetLike = None,
    against: TargetLike = None,
    store: Store | None = None,
    trust: bool = False,
    concepts: bool = False,
    title: str | None = None,
    found_before: Mapping[str, dict[str, Any]] | None = None,
    open_picture: Callable[[str], Picture] = Picture.of,
    progress: Tell | None = None,
) -> Report:
    """The report on ``pictures``: each with its prediction, maps, layer, and, with a ``store``, its units, neighbours
    and place among the collection.

    Args:
        model: an open model.
        pictures: paths, PIL images, arrays or :class:`Picture` objects.
        methods: names or instances.
        target: of all pictures; None is each one's predicted class.
        against: a class to contrast with.
        store: a survey of a collection by the same network.
        trust: adds a verdict to every map.
        title: heading of the report.
        concepts: adds the parts that the explained class is made of, found in the store's pictures of the class, and
            where they lie in the picture.
        found_before: documents of the third question (``read_documents`` of ``convoscope.improve.documents``), drawn
            with the pictures that ``open_picture`` opens by their URI.
        open_picture: opens a picture by its URI.
        progress: ``progress(what, done, total)`` hears of each picture.

    Returns:
        The report: ``.save("report.html")`` writes one file that needs no network.

    Raises:
        ConvoscopeError: no picture can be explained, or ``concepts`` are wanted without a store.
    """
    if concepts and store is None:
        raise UsageError("The parts of a class are found in the pictures of a survey: give one (--survey STORE).")
    made: dict[str, Craft | str] = {}
    if store is not None:
        store.use_model(model)
    sections: list[str] = []
    records: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    error: ConvoscopeError | None = None
    used: dict[str, None] = {}
    for number, source in enumerate(pictures):
        if progress is not None:
            progress(str(source), number, len(pictures))
        try:
            found = explain(model, Picture.of(source), list(methods), target=target, against=against)
        except ConvoscopeError as reason:
            error = reason
            failed[str(source)] = str(reason)
            continue
        verdicts = _verdicts(model, found, target) if trust else {}
        record = dict(plain(found.to_dict()))
        if verdicts:
            record["trust"] = plain(verdicts)
        records.append(record)
        used.update(dict.fromkeys(h.method for h in found.values()))
        drawn = _concepts(model, found, store, made) if concepts and store is not None else ""
        sections.append(_picture(model, found, verdicts, store, number, drawn))
    if not records and error is not None:
        raise error
    if store is not None:
        sections.append(collection(store))
    before = dict(found_before or {})
    sections.append(section(before, open_picture))
    if progress is not None:
        progress("", len(pictures), len(pictures))
    heading = title or f"{model.name}: a report"
    return Report(
        _document(model, heading, sections, records, failed, list(used), store, links_of(before)), records, failed
    )


def _verdicts(model: Model, found: Explanation, target: TargetLike) -> dict[str, Any]:
    from ..trust.verdict import verdicts

    return {name: verdict.to_dict() for name, verdict in verdicts(model, found, target).items()}


def _picture(
    model: Model, found: Explanation, verdicts: dict[str, Any], store: Store | None, number: int, concepts: str
) -> str:
    name = escape(found.picture)
    photo = found.fitted.picture.image
    chance = f", p {found.probability:.3f}" if found.probability is not None else ""
    parts = [
        f'<section id="picture-{number}"><h2>{name}</h2>',
        f'<p class="soft">Explained: <b>{escape(found.target)}</b>, score {number_text(found.score)}{chance}. '
        f"{found.plan.forwards} forward and {found.plan.backwards} backward passes.</p>",
        truth(model, found, store),
        '<div class="question">',
        figure(uri(photo), f"{photo.width}×{photo.height} pixels", found.picture),
        _bars(found),
        "</div>",
    ]
    if found.general_doubts:
        parts.append('<ul class="doubts">' + "".join(f"<li>{escape(d)}</li>" for d in found.general_doubts) + "</ul>")
    parts.append('<div class="block"><h3>Where it comes from</h3><div class="maps">')
    parts += [_map(name, heatmap, verdicts.get(name)) for name, heatmap in found.items()]
    parts += [
        f'<figure class="refused"><figcaption><b>{escape(n)}</b><br>No map: {escape(why)}</figcaption></figure>'
        for n, why in found.refused.items()
    ]
    parts.append("</div></div>")
    parts += [_layer(model, found), concepts]
    if store is not None:
        parts += [neighbours(store, found), units(store, model, found)]
    parts.append("</section>")
    return "\n".join(parts)


def _bars(found: Explanation) -> str:
    rows = []
    for row in found.prediction:
        share = row.get("probability")
        share = row.get("share", 0.0) if share is None else share
        chosen = ' class="chosen"' if row["label"] == found.target else ""
        value = f"{share:.3f}" if share is not None else number_text(row.get("score"))
        width = 100 * min(1.0, max(0.0, share or 0.0))
        rows.append(
            f"<tr{chosen}><th scope=row>{escape(str(row['label']))}</th>"
            f'<td class="bar"><svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
            f'<rect class="track" width="100" height="10"/><rect width="{width:.2f}" height="10"/></svg></td>'
            f"<td>{value}</td><td>{number_text(row.get('score'))}</td></tr>"
        )
    head = "<tr><th>class</th><th></th><th>probability</th><th>score</th></tr>"
    return f'<table class="bars">{head}{"".join(rows)}</table>'


def _map(name: str, heatmap: Heatmap, verdict: dict[str, Any] | None) -> str:
    scale = heatmap.scale()
    says = f'<br><span class="says">{escape(scale.note)}</span>' if scale.note else ""
    strip = uri(Image.fromarray(legend.bar(scale, 64)), sharp=True)
    low, high = (escape(text) for text in colour.format_range(scale.low, scale.high))
    key = f'<span class="legend">{low} <img src="{strip}" alt=""> {high}</span><br>{escape(heatmap.unit)}{says}'
    layer = f" at {escape(heatmap.layer)}" if heatmap.layer and "cam" in heatmap.method else ""
    doubts = "".join(f'<br><span class="doubt">{escape(d)}</span>' for d in heatmap.doubts)
    judged = f'<br><span class="verdict">{escape(verdict["sentence"])}</span>' if verdict else ""
    caption = f"<b>{escape(heatmap.title)}</b>{layer}<br>{key}"
    return figure(uri(heatmap.overlay()), caption, f"{heatmap.title} for {heatmap.target}", judged + doubts)


def _layer(model: Model, found: Explanation) -> str:
    from ..methods.views import activations

    try:
        picture = found.fitted.picture
        sheet = activations(model, picture, None, limit=CHANNELS).image
    except ConvoscopeError:
        return ""
    name = escape(str(found.provenance.get("last_grid")))
    image = uri(sheet, side=960)
    return f'<div class="block"><h3>What {name} makes of it</h3><div class="half">' + figure(
        image, "The strongest channels, each on its own scale.", f"Channels of {name}", kind="sheet"
    ) + "</div></div>"  # fmt: skip


def _concepts(model: Model, found: Explanation, store: Store, made: dict[str, Craft | str]) -> str:
    """The parts of the explained class, once a class, and where they lie in this picture."""
    from ..concepts.craft import craft
    from ..draw import overlay

    name = found.target
    if name not in made:
        try:
            made[name] = craft(model, store, name)
        except ConvoscopeError as error:
            made[name] = str(error)
    parts = made[name]
    if isinstance(parts, str):
        return f'<p class="soft">No parts of {escape(name)}: {escape(parts)}</p>'
    maps = parts.maps(found.fitted.picture)
    shown = model.preprocessing.denormalise(found.fitted.tensor).clamp(0, 1).movedim(0, -1).numpy()
    image = np.asarray(Picture.of(np.ascontiguousarray(shown, np.float32)).image)
    top = float(maps.max()) or 1.0
    rows = []
    for part in parts.parts[:PARTS]:
        scale = colour.Scale(0.0, top, False, unit="share of the part")
        here = figure(
            uri(overlay.overlay(image, maps[part.number], scale=scale), side=192), "here", f"part {part.number + 1}"
        )
        patches = [figure(uri(one, side=96), "", "a patch") for one in parts.patches(part.number, 6)]
        unstable = " Not found again with other seeds." if part.unstable else ""
        rows.append(
            f"<div class=unit><h4>Part {part.number + 1}</h4><p class=soft>Without it {part.importance.mean:.0%} of "
            f"the logit is lost [{part.importance.low:.0%}, {part.importance.high:.0%}].{unstable}</p>"
            f"<div class=thumbs>{here}{''.join(patches)}</div></div>"
        )
    whole = parts.completeness
    # a share of logits that lie about zero has an interval that says nothing
    gives = (
        f"together the parts give back {whole.mean:.0%} of the logit"
        if whole.low > -1 and whole.high < 2
        else "what the parts give back of the logit cannot be told: the logits of these pictures lie about zero"
    )
    said = f"Found without labels at {parts.layer} in the collection's pictures of the class (CRAFT); {gives}."
    return f"<h3>What {escape(name)} is made of</h3><p class=soft>{escape(said)}</p>{''.join(rows)}"


def _document(
    model: Model,
    title: str,
    sections: list[str],
    records: list[dict[str, Any]],
    failed: dict[str, str],
    used: list[str],
    store: Store | None,
    more_links: str = "",
) -> str:
    from ..version import __version__

    size = "×".join(map(str, model.preprocessing.size)) if model.preprocessing.size else "any size"
    classes = f"{len(model.labels)} classes, " if model.labels else ""
    data = (
        in_json(json.dumps(records, ensure_ascii=False, allow_nan=False))
        .replace("</", "<\\/")
        .replace("<!--", "<\\!--")
    )
    methods = "".join(
        f"<dt>{escape(METHODS[name].about.title)}</dt><dd>{escape(METHODS[name].about.shows)}.<br>"
        f'<span class="formula">{escape(FORMULAS.get(name, ""))}</span><br>'
        f'<span class="soft">{escape(METHODS[name].about.paper)}</span></dd>'
        for name in used
    )
    links = "".join(
        f'<li><a href="#picture-{i}">{escape(r["picture"])}</a> <span class="soft">{escape(r["target"])}</span></li>'
        for i, r in enumerate(records)
    )
    if store is not None:
        links += '<li><a href="#collection">The collection</a></li>'
    links += more_links
    lost = "".join(f'<li class="doubt">{escape(why)}</li>' for why in failed.values())
    notes = "".join(f'<p class="doubt">{escape(note)}</p>' for note in model.notes)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="convoscope {__version__}">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<p class="soft">{escape(model.name)}, {classes}input {size}. Weights {escape(model.fingerprint[:12])}.
convoscope {__version__}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.</p>
{notes}
<nav aria-label="Contents"><ol>{links}</ol></nav>
{f"<ul>{lost}</ul>" if lost else ""}
<p>A heatmap shows where the network's arithmetic was sensitive. It does not show that the network understands the
object, nor that it is right.</p>
</header>
<main>
{"".join(sections)}
{f'<section id="methods"><h2>What am I looking at?</h2><dl>{methods}</dl></section>' if methods else ""}
</main>
<footer class="soft">Every number of this report stands in the file as JSON (in the element <code>numbers</code>),
the same as <code>convoscope explain --json</code> writes.</footer>
<script type="application/json" id="numbers">{data}</script>
</body>
</html>
"""

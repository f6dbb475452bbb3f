"""Commands on a survey's store: neighbours, maps, patches, units and mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import UsageError
from . import common
from .common import (
    JsonFlag,
    columns,
    complain,
    out_file,
    print_json,
    say,
)

StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help="What `convoscope survey --out STORE` wrote.")]
SheetFile = Annotated[
    str | None, typer.Option("--out", "-o", metavar="FILE", help="Draw a sheet: .png, .pdf or .svg.")
]
EmbeddedLayer = Annotated[
    str | None, typer.Option("--layer", help="An embedded layer; default: the one before the classifier.")
]
#: rows of a table that are printed; --json has all
_SHOWN = 40


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(neighbors)
    app.command("map")(map_)
    app.command()(patches)
    app.command()(units)
    app.command()(mistakes)


def _open(path: str) -> Any:
    from ..surveys.store.store import Store

    store = Store.open(path)
    for note in store.notes:
        complain(f"Note: {note}")
    return store


def neighbors(
    store: StoreArgument,
    image: Annotated[str | None, typer.Argument(metavar="[IMAGE]", help="The picture asked about.")] = None,
    id: Annotated[
        str | None, typer.Option("--id", help="Instead: a stored picture's name, URI, or start of its sha256.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--target", help="Instead: pictures with most of direction:LAYER@FILE.npy, of a unit or class."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many neighbours.")] = 10,
    layer: EmbeddedLayer = None,
    metric: Annotated[str, typer.Option("--metric", help="cosine or l2.")] = "cosine",
    why: Annotated[bool, typer.Option("--why", help="Explain the pair with the nearest (or --with).")] = False,
    other: Annotated[
        str | None, typer.Option("--with", help="The second picture of --why: a file, or as --id.")
    ] = None,
    depth: Annotated[bool, typer.Option("--depth", help="Neighbours at every embedded layer.")] = False,
    pixels: Annotated[bool, typer.Option("--pixels", help="Neighbours in pixel space beside them.")] = False,
    out: SheetFile = None,
    json: JsonFlag = False,
) -> None:
    """Find the pictures that the network finds most alike."""
    file = out_file(out) if out else None
    opened = _open(store)
    if metric not in ("cosine", "l2"):
        raise UsageError(f"--metric must be cosine or l2, not {metric!r}.")
    if target is not None:
        if image is not None or id is not None or depth or why or other or pixels:
            raise UsageError("--target asks of the whole collection: leave out the picture and its options.")
        with common.progress("Scoring pictures", quiet=json) as bar:
            most = opened.strongest(target, k, progress=lambda what, done, total: bar.at(done, total, what))
        if most.query["unreadable"]:
            complain(f"{most.query['unreadable']} pictures cannot be read any more and were left out.")
        _show(most, most.to_dict(), file, json, _neighbor_lines(most).replace("similarity", "score     ", 1))
        return
    if depth:
        deep = opened.depth(image, id=id, k=k)
        _show(deep, deep.to_dict(), file, json, _depth_lines(deep))
        return
    found = opened.neighbors(image, id=id, k=k, layer=layer, metric=metric, pixels=pixels)
    if why or other:
        if not found.ids and other is None:
            raise UsageError("There is no second picture to compare with.")
        pair = opened.why(image if image is not None else found.query["sha256"], other or found.ids[0], layer)
        rows = [(str(c["channel"]), f"{c['share']:+.4f}") for c in pair.channels]
        text = f"cosine {pair.cosine:.4f} at {pair.layer}\n{pair.uris[1]}\n\n" + columns(("channel", "share"), rows)
        _show(pair, pair.to_dict(), file, json, text)
        return
    if not found.exact:
        complain(f"Searched by index: its measured recall@10 is {found.recall:.3f}.")
    document: Any = found.to_dict()
    if found.pixels is not None:
        document = {"neighbors": document, "pixels": found.pixels.to_dict()}
    text = _neighbor_lines(found)
    if found.pixels is not None:
        text += "\n\nIn pixel space:\n" + _neighbor_lines(found.pixels)
    _show(found, document, file, json, text)


def _show(result: Any, document: Any, file: Path | None, json: bool, text: str) -> None:
    """The sheet where a file was named; then the document, or the text."""
    if file is not None:
        result.sheet().save(file)
    if json:
        print_json(document)
        return
    say(text)
    if file is not None:
        say(str(file))


def _neighbor_lines(found: Any) -> str:
    rows = [(f"{r['similarity']:.4f}", r["label"] or "-", r["prediction"] or "-", r["uri"]) for r in found.rows]
    return columns(("similarity", "label", "prediction", "picture"), rows)


def _depth_lines(deep: Any) -> str:
    rows = []
    for row in deep.layers:
        nearest = row["neighbors"][0] if row["neighbors"] else None
        name = (nearest["label"] or nearest["prediction"] or nearest["uri"]) if nearest else "-"
        rows.append((row["layer"], _share(row["agreement"]), _share(row["overlap"]), name))
    table = columns(("layer", "same class", "shared with the layer before", "nearest"), rows)
    return table + (f"\n\nMost neighbours share the class from {deep.agrees_from} on." if deep.agrees_from else "")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def map_(
    store: StoreArgument,
    out: Annotated[
        list[str] | None, typer.Option("--out", "-o", metavar="FILE", help=".html, .png or .parquet; more than once.")
    ] = None,
    method: Annotated[str, typer.Option("--method", help="tsne, umap or pca.")] = "tsne",
    layer: EmbeddedLayer = None,
    place: Annotated[
        list[str] | None, typer.Option("--place", metavar="IMAGE", help="Put a new picture into the map.")
    ] = None,
    metric: Annotated[str, typer.Option("--metric", help="cosine or l2.")] = "cosine",
    perplexity: Annotated[float, typer.Option("--perplexity", min=1.0, help="Of t-SNE.")] = 30.0,
    seed: Annotated[int, typer.Option("--seed", help="Of everything random.")] = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Compute anew, also where the store has this map.")] = False,
    json: JsonFlag = False,
) -> None:
    """Arrange the whole collection on a plane as the network sees it, and say how far to trust the map."""
    from ..surveys.ask.map_png import sentence
    from ..surveys.ask.maps import SUFFIXES

    files = [out_file(name, SUFFIXES) for name in out or []]
    opened = _open(store)
    with common.progress("Map", quiet=json) as bar:
        found = opened.map(
            method, layer, place=place or (), seed=seed, fresh=fresh, metric=metric, perplexity=perplexity,
            progress=lambda what, done, total: bar.at(done, total, what),
        )  # fmt: skip
    for note in found.notes:
        complain(f"Note: {note}")
    for file in files:
        found.save(file)
    if json:
        print_json(found.to_dict())
        return
    say(found.title)
    say(sentence(found))
    for one in found.placed:
        say(f"{one['uri']}: at {one['x']:.2f}, {one['y']:.2f}; {one['how']}; predicted {one['prediction']}")
    for file in files:
        say(str(file))


def patches(
    store: StoreArgument,
    unit: Annotated[str, typer.Argument(metavar="LAYER[:CHANNEL]", help="A unit, or a layer for its units' best.")],
    out: SheetFile = None,
    k: Annotated[int | None, typer.Option("-k", min=1, help="Patches of each kind.")] = None,
    guided: Annotated[bool, typer.Option("--guided/--no-guided", help="Guided backpropagation beside each.")] = True,
    json: JsonFlag = False,
) -> None:
    """Show the pieces of pictures that a hidden unit fires for most, typically and least."""
    file = out_file(out) if out else None
    if file is None and not json:
        raise UsageError("Name the sheet to draw with --out FILE.png, or ask for --json.")
    found = _open(store).patches(unit, k, guided=guided and file is not None)
    for note in found.notes:
        complain(f"Note: {note}")
    _show(found, found.to_dict(), file, json, f"{len(found.items)} patches of {unit}")


def units(
    store: StoreArgument,
    layer: Annotated[str | None, typer.Option("--layer", help="The units of this layer, one by one.")] = None,
    json: JsonFlag = False,
) -> None:
    """List the hidden units: dead, always on, selective for a class, each with its strongest picture."""
    found = _open(store).units(layer)
    if json:
        print_json(found.to_dict())
        return
    if layer is None:
        rows = [tuple(str(row[name]) for name in row) for row in found.summary()]
        say(columns(("layer", "units", "dead", "always on", "selective"), rows))
        say(f"\nOver {found.pictures:,} pictures. `--layer NAME` lists a layer's units.")
        return
    header = ("unit", "active", "mean", "max", "class", "selectivity", "", "strongest picture")
    table = [_unit_row(row) for row in found.rows]
    say(columns(header, table))


def _unit_row(row: dict[str, Any]) -> tuple[str, ...]:
    mark = "dead" if row["dead"] else "always on" if row["always_on"] else "selective" if row["selective"] else ""
    numbers = ["-" if row[name] is None else f"{row[name]:.3g}" for name in ("mean", "max", "selectivity")]
    top = Path(row["top"]).name if row["top"] else "-"
    return (
        f"{row['layer']}:{row['channel']}", f"{row['active']:.0%}", *numbers[:2], row["class"] or "-", numbers[2],
        mark, top
    )  # fmt: skip


def mistakes(
    store: StoreArgument,
    k: Annotated[int, typer.Option("-k", min=1, help="Pictures of each kind.")] = 9,
    out: SheetFile = None,
    train: Annotated[
        str | None, typer.Option("--train", metavar="STORE", help="The survey of the training pictures.")
    ] = None,
    csv: Annotated[str | None, typer.Option("--csv", metavar="FILE", help="All mistakes, the worst first.")] = None,
    json: JsonFlag = False,
) -> None:
    """Show where the network is wrong: confusions, the worst losses, the most confident errors; and conclude."""
    from ..files import write_whole
    from ..improve.conclude import conclusions, table

    file = out_file(out) if out else None
    listed = out_file(csv, (".csv",)) if csv else None
    opened = _open(store)
    found = opened.mistakes(k)
    concluded = conclusions(opened, None if train is None else _open(train))
    if listed is not None:
        write_whole(listed, table(opened))
    for note in found.notes:
        complain(f"Note: {note}")
    rows = [(str(c["count"]), c["label"], c["prediction"]) for c in found.confusions[:_SHOWN]]
    text = f"{found.wrong:,} of {found.pictures:,} pictures wrong: {found.accuracy:.1%} right."
    if rows:
        text += "\n\n" + columns(("count", "label", "taken for"), rows)
        if len(found.confusions) > _SHOWN:
            text += f"\n... and {len(found.confusions) - _SHOWN} more kinds of confusion; --json has all."
    if found.confident:
        shown = [(f"{r['probability']:.3f}", r["label"], r["prediction"], r["uri"]) for r in found.confident]
        text += "\n\nMost confident errors:\n" + columns(("p", "label", "taken for", "picture"), shown)
    if concluded:
        text += "\n\n" + "\n".join(concluded)
    _show(found, {**found.to_dict(), "conclusions": concluded}, file, json, text)

"""The command that surveys a collection; :mod:`convoscope.cli.browse` asks its store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConvoscopeError, UsageError
from ..extras import installed
from . import common
from .common import (
    JsonFlag,
    ModelArgument,
    ModelOptions,
    RayFlag,
    WorkersFlag,
    check_workers,
    complain,
    open_from,
    print_json,
    say,
    takes_model,
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(survey)


@takes_model
def survey(
    model: ModelArgument,
    folder: Annotated[list[str], typer.Argument(metavar="FOLDER...", help="Pictures: folders, files, globs.")],
    options: ModelOptions,
    out: Annotated[str, typer.Option("--out", "-o", metavar="STORE", help="The store, made or carried on.")],
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", help="Layers (names or globs); default: every activation with a grid."),
    ] = None,
    embed: Annotated[
        list[str] | None,
        typer.Option("--embed", help="Further layers whose output is kept as an embedding."),
    ] = None,
    top: Annotated[int, typer.Option("--top", help="Pictures kept at each end of each unit.")] = 9,
    truth: Annotated[
        str | None,
        typer.Option("--truth", metavar="CSV", help="File and label of each picture; default: folder names."),
    ] = None,
    shard_size: Annotated[
        int | None, typer.Option("--shard-size", min=1, help="Pictures in a shard; default: half a minute's work.")
    ] = None,
    arrange: Annotated[
        bool | None,
        typer.Option(
            "--map/--no-map",
            help="Keep the t-SNE map, too, so that the page opens at once; default: from 100 to 20,000 pictures.",
        ),
    ] = None,
    visualize: Annotated[
        int,
        typer.Option("--visualize", min=0, metavar="N", help="Keep what the N strongest units of each layer want."),
    ] = 0,
    ray: RayFlag = None,
    workers: WorkersFlag = None,
    json: JsonFlag = False,
) -> int:
    """Gather what every hidden unit responds to over a collection, and embed every picture.

    Run it again to go on after an interruption, or to add pictures: only what is missing is done.
    """
    from ..surveys import survey as run

    check_workers(ray, workers)
    opened = open_from(model, options)
    layers = _layers(opened, layer)
    if "://" not in out:
        common.out_folder(Path(out).parent)
    with common.progress("Listing pictures", quiet=json) as bar:

        def tell(at: Any) -> None:
            what = "Listing pictures"
            if at.stage == "surveying":
                speed = f", {at.per_second:.1f} pictures/s" if at.per_second else ""
                what = f"Surveying{speed}{f', {at.failed} failed' if at.failed else ''}"
            bar.at(at.done, at.total, what)

        source: Any = folder[0] if len(folder) == 1 else folder
        found = run(
            opened, source, out, layers, _listed(embed), top, truth, tell,
            shard_size=shard_size, ray=ray, workers=workers,
        )  # fmt: skip
    _prepare(opened, found, arrange, visualize, json)
    for note in found.notes:
        complain(f"Note: {note}")
    failed = found.table(["uri", "error"], "error IS NOT NULL").to_pylist()
    for row in failed[:20]:
        complain(row["error"])
    if len(failed) > 20:
        complain(f"... and {len(failed) - 20} more that failed; --json names all.")
    ledger = found.ledger()
    document = {
        "store": out,
        "model": found.recipe.name,
        "pictures": sum(row["pictures"] for row in ledger),
        "failed": [{"uri": row["uri"], "error": row["error"]} for row in failed],
        "units": len(ledger),
        "layers": [span.name for span in found.recipe.layers],
        "channels": found.recipe.channels,
        "embeddings": [one.layer for one in found.recipe.embeddings],
        "seconds": sum(row["seconds"] for row in ledger),
        "notes": found.notes,
    }
    if json:
        print_json(document)
    else:
        say(
            f"{out}: {document['pictures']:,} pictures ({len(failed)} failed), "
            f"{len(found.recipe.layers)} layers with "
            f"{found.recipe.channels:,} units, in {len(ledger)} parts."
        )
        say(f"Now: convoscope map {out} --out map.html; convoscope units {out}; convoscope mistakes {out}")
    return common.SOME_FAILED if failed else common.DONE


#: collections whose map is made with the survey: of fewer it takes a second when asked for, of more many minutes
MAPPED = range(100, 20_001)


def _prepare(model: Any, store: Any, arrange: bool | None, visualize: int, quiet: bool) -> None:
    """What the page would have to wait for, made now: the map of the collection, and what units want."""
    if arrange or (arrange is None and len(store) in MAPPED and installed("openTSNE")):
        with common.progress("Map", quiet=quiet) as bar:
            try:
                store.map("tsne", progress=lambda what, done, total: bar.at(done, total, what))
            except ConvoscopeError as error:
                if arrange:
                    raise
                store.notes.append(f"No map was made: {error}")
    if visualize:
        from ..surveys.wanted import make_wanted

        with common.progress("What units want", quiet=quiet) as bar:
            make_wanted(store, model, visualize, progress=lambda done, total: bar.at(done, total, "What units want"))


def _listed(names: list[str] | None) -> list[str]:
    return [part for name in names or [] for part in common.split_names(name)]


def _layers(model: Any, patterns: list[str] | None) -> list[str] | None:
    """Layers by name or glob; a glob means those among the default ones where it fits any."""
    if not patterns:
        return None
    from fnmatch import fnmatchcase

    from ..surveys.gather.choose import default_layers

    size = model.preprocessing.size or (224, 224)
    shape = (model.preprocessing.channels, *size)
    found: dict[str, None] = {}
    defaults: list[str] | None = None
    for name in _listed(patterns):
        if any(mark in name for mark in "*?[") and name not in model.watched(shape).layers:
            defaults = default_layers(model, shape) if defaults is None else defaults
            matched = [one for one in defaults if fnmatchcase(one, name)]
            if not matched:
                raise UsageError(f"--layer {name}: no surveyed layer fits; `convoscope layers` lists all names.")
            found.update(dict.fromkeys(matched))
        else:
            found[name] = None
    return list(found)

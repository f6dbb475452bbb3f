"""``convoscope report``: the page's views of some pictures, frozen into one file."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from . import common
from .common import JsonFlag, ModelArgument, ModelOptions, complain, open_from, out_file, print_json, say, takes_model


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(report)


@takes_model
def report(
    model: ModelArgument,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Files, folders, globs.")],
    options: ModelOptions,
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="FILE", help="The report: one .html file.")
    ] = "report.html",
    survey: Annotated[
        str | None,
        typer.Option("--survey", metavar="STORE", help="Adds units, neighbours and the map of the collection."),
    ] = None,
    diagnosis: Annotated[
        list[str] | None,
        typer.Option(
            "--diagnosis",
            metavar="DIR",
            help="Adds what diagnose, diff, shortcuts, audit, concepts wrote with --out.",
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option("--method", "-m", help="a,b,c; default: grad-cam,guided-grad-cam,guided-backprop,saliency."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--target", "-t", help="Class name or number, layer:channel; default: the predicted."),
    ] = None,
    against: Annotated[str | None, typer.Option("--against", help="Class to contrast the target with.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="METHOD.NAME=VALUE", help="A setting of one method.")
    ] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Add how far each map can be trusted.")] = False,
    concepts: Annotated[
        bool, typer.Option("--concepts", help="Add the parts that the explained class is made of (with --survey).")
    ] = False,
    title: Annotated[str | None, typer.Option("--title", help="The heading.")] = None,
    json: JsonFlag = False,
) -> int:
    """Write one HTML file about some pictures: predictions, maps, layers, and with a survey units and neighbours.

    It opens from disk without a network, holds no script, and prints well.
    """
    from ..explanation import DEFAULT_METHODS
    from ..improve.documents import read_documents
    from ..pictures.picture import find_pictures
    from ..reports.report import report as write
    from .settings import read_methods

    file = out_file(out, (".html", ".htm"))
    methods, left_out = read_methods(method, DEFAULT_METHODS, {}, set_ or ())
    if left_out:
        complain(f"all leaves out {', '.join(left_out)}: they need hundreds of passes. Add them by name.")
    paths = find_pictures(images)
    documents = read_documents(diagnosis or ())
    opened = open_from(model, options)
    store: Any = None
    if survey is not None:
        from ..surveys import Store

        store = Store.open(survey)
    with common.progress("Report", len(paths), quiet=json) as bar:
        found = write(
            opened, paths, methods=methods, target=target, against=against, store=store, trust=trust,
            concepts=concepts, title=title, found_before=documents,
            progress=lambda what, done, total: bar.at(done, total),
        )  # fmt: skip
    for sentence in found.failed.values():
        complain(sentence)
    found.save(file)
    if json:
        print_json(
            {"file": str(file), "bytes": file.stat().st_size, "pictures": found.records, "failed": found.failed}
        )
    else:
        size = file.stat().st_size / 1e6
        say(f"{len(found.records)} picture{'s' if len(found.records) != 1 else ''} in {file} ({size:.1f} MB).")
    return common.SOME_FAILED if found.failed else common.DONE

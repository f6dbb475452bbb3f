"""``convoscope diff``: two networks, or a run of checkpoints, on the same pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import UsageError
from . import common
from .common import JsonFlag, complain, open_from, out_folder, print_json, say
from .several import SeveralOptions, flags, is_store, split_pictures, takes_models


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(diff)


@takes_models
def diff(
    items: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL... PICTURES|STORE...", help="Models and then pictures, or only stores of surveys."
        ),
    ],
    options: SeveralOptions,
    out: Annotated[str, typer.Option("--out", "-o", metavar="DIR", help="Folder of the page and diff.json.")],
    truth: Annotated[
        str | None,
        typer.Option("--truth", metavar="CSV", help="File and label of each picture; default: folder names."),
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option("--name", help="What to call a model; once for each, in order.")
    ] = None,
    maps: Annotated[int, typer.Option("--maps", min=0, help="Flipped pictures shown with both networks' maps.")] = 8,
    film: Annotated[
        str | None, typer.Option("--film", metavar="FILE.webp", help="The run of several checkpoints as a film.")
    ] = None,
    latex: Annotated[
        str | None, typer.Option("--latex", metavar="FILE.tex", help="The comparison as a table for a paper, too.")
    ] = None,
    bib: Annotated[
        str | None, typer.Option("--bib", metavar="FILE.bib", help="BibTeX of the papers behind it, too.")
    ] = None,
    json: JsonFlag = False,
) -> int:
    """Compare two networks on the same pictures: what was won, what was lost, which units are new.

    Model options such as --weights are given once for all models, or once for each, in order. One MODEL with several
    --weights, or with a folder of checkpoints (epoch-1.pt, epoch-2.pt, ...), is a run.
    """
    from ..improve.diff import diff as compare

    movie = common.out_file(film, (".webp",)) if film else None
    specs, sources = split_pictures(items)
    networks, typed = _networks(specs, sources, options)
    table = common.out_file(latex, (".tex",)) if latex else None
    papers = common.out_file(bib, (".bib",)) if bib else None
    folder = out_folder(out)
    pictures: list[Any] = [] if not specs else [sources[0] if len(sources) == 1 else sources]
    with common.progress("Looking at pictures", quiet=json) as bar:
        found = compare(
            *networks, *pictures, truth=truth, names=name, options=typed, maps=maps, film=movie,
            progress=lambda what, done, total: bar.at(done, total, what),
        )  # fmt: skip
    document = found.to_dict()
    found.save(folder / "index.html")
    from ..files import write_whole

    if table is not None:
        write_whole(table, found.latex())
    if papers is not None:
        write_whole(papers, found.bibtex())
    write_whole(folder / "diff.json", common.dump_json(document) + "\n")
    for uri, why in list(found.failed.items())[:20]:
        complain(why if uri in why else f"{uri}: {why}")
    if json:
        print_json(document)
    else:
        say(str(found))
        say(f"\n{folder / 'index.html'}")
        if movie is not None:
            say(str(movie))
    return common.SOME_FAILED if found.failed else common.DONE


def _networks(specs: list[str], sources: list[str], options: SeveralOptions) -> tuple[list[Any], list[str]]:
    """The opened networks (or the stores' paths), and the flags of each."""
    if not specs:
        if len(sources) >= 2 and all(is_store(one) for one in sources):
            if options.given:
                raise UsageError("Model options such as --weights go with models: a store knows its own network.")
            return sources, [""] * len(sources)
        raise UsageError("Give two models and the pictures, or the stores of two surveys of the same pictures.")
    if not sources:
        raise UsageError(
            f"No pictures given: {specs[-1]!r} is no file or folder that exists. Give two models, then the pictures."
        )
    specs, each = _expanded(specs, options)
    if len(specs) < 2:
        raise UsageError("Give two models at least, one model with --weights for each, or a folder of checkpoints.")
    return [open_from(spec, one) for spec, one in zip(specs, each, strict=True)], [flags(one) for one in each]


def _expanded(specs: list[str], options: SeveralOptions) -> tuple[list[str], list[Any]]:
    """Specs and options of each network, a folder of checkpoints being one network a file."""
    from dataclasses import replace

    if len(specs) == 1 and options.count() > 1:
        specs = specs * options.count()
    made: list[tuple[str, Any]] = []
    for spec, one in zip(specs, options.each(len(specs)), strict=True):
        if one.weights is not None and Path(one.weights).is_dir():
            from ..improve.diff.run import checkpoints

            made += [(spec, replace(one, weights=str(file))) for file in checkpoints(one.weights)]
        else:
            made.append((spec, one))
    return [spec for spec, _ in made], [one for _, one in made]

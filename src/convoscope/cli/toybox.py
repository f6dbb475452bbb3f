"""``convoscope toybox``: drawn pictures with their truth, to play and to teach with, and the ward of known faults."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ..errors import UsageError
from .common import DONE, SOME_FAILED, JsonFlag, columns, complain, out_folder, print_json, progress, say


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(toybox)


def toybox(
    folder: Annotated[str | None, typer.Argument(metavar="DIR", help="Folder to write into.")] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="DIR", help="The folder, as other commands take it.")
    ] = None,
    count: Annotated[int | None, typer.Option("--count", "-n", help="Pictures to draw; 20 by default.")] = None,
    scenes: Annotated[bool, typer.Option("--scenes", help="Several things a picture, for detectors.")] = False,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Which collection; the same number draws the same; 0 by default.")
    ] = None,
    tag: Annotated[
        str | None,
        typer.Option("--tag", metavar="CLASS|all", help="Stick the cheat's tag on these."),
    ] = None,
    ward: Annotated[
        bool, typer.Option("--ward", help="Make networks and collections with known faults, and healthy ones.")
    ] = False,
    case: Annotated[
        list[str] | None, typer.Option("--case", metavar="NAME", help="This case of the ward only; may be repeated.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Name the cases of the ward, and make none.")] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes that make the ward; 2 by default.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Draw toybox pictures with masks and a truth file; with --ward, networks with planted faults."""
    if ward:
        if count is not None or scenes or seed is not None or tag is not None:
            raise UsageError("The ward is made by its own seeds: leave out --count, --scenes, --seed and --tag.")
        if list_ and case:
            raise UsageError("--list names all cases: leave out --case.")
        if list_:
            _list(json)
        else:
            _make(_where(folder, out), case or [], workers, json)
        return
    if case or list_ or workers is not None:
        raise UsageError("--case, --list and --workers belong to the ward: add --ward.")
    _draw(_where(folder, out), 20 if count is None else count, scenes, seed or 0, tag, json)


def _where(folder: str | None, out: str | None) -> str:
    if folder is not None and out is not None:
        raise UsageError(f"Two folders are named: {folder} and --out {out}.")
    named = folder if folder is not None else out
    if named is None:
        raise UsageError("Name the folder to write into: `convoscope toybox DIR`.")
    return named


def _draw(folder: str, count: int, scenes: bool, seed: int, tag: str | None, json: bool) -> None:
    from ..toybox import writer

    if count < 1:
        raise UsageError(f"--count must be at least 1, not {count}.")
    if seed < 0:
        raise UsageError(f"--seed must be 0 or more, not {seed}.")
    out_folder(folder)
    truth = writer.write(folder, count, scenes=scenes, seed=seed, tag=tag == "all" or tag or False)
    if json:
        print_json({"folder": folder, "count": count, "scenes": scenes, "seed": seed, "truth": str(truth)})
        return
    what = "scenes" if scenes else "pictures"
    say(f"{count} {what} with their masks in {folder}; {truth} tells what is in each.")


def _list(json: bool) -> None:
    from ..toybox.ward import CASES

    if json:
        print_json([{"case": one.name, "kind": one.kind, "healthy": one.healthy} for one in CASES])
        return
    say(columns(("case", "kind", "what"), [(one.name, one.kind, one.about) for one in CASES], wrap=2))


def _make(folder: str, names: list[str], workers: int | None, json: bool) -> None:
    from ..toybox import ward

    chosen = [ward.recipe(name) for name in names] if names else list(ward.CASES)
    out_folder(folder)
    there = [one.name for one in chosen if ward.is_made(Path(folder) / one.name)]
    count = min(workers or 2, os.cpu_count() or 1, max(len(chosen) - len(there), 1))
    if len(there) < len(chosen) and not json:
        complain(_estimate(len(chosen), len(there), count))
    with progress("Making the ward", len(chosen), quiet=json) as bar:

        def done(name: str, why: str | None) -> None:
            bar.advance()
            if why:
                complain(why)

        failed = ward.make_all(folder, names or None, workers=count, done=done)
    rows = [
        {"case": one.name, "kind": one.kind, "healthy": one.healthy, "folder": str(Path(folder) / one.name)}
        for one in chosen
        if ward.is_made(Path(folder) / one.name)
    ]
    if json:
        print_json({"folder": folder, "cases": rows, "failed": failed})
    else:
        sick = sum(not row["healthy"] for row in rows)
        new = len(rows) - len(there)
        say(
            f"{sick} cases and {len(rows) - sick} healthy networks in {folder} ({new} made now); each has a truth.json."
        )
    raise typer.Exit(SOME_FAILED if failed else DONE)


def _estimate(wanted: int, there: int, workers: int) -> str:
    already = f"{there} are there already; " if there else ""
    what = "the first call trains three small networks (5 minutes), then a case takes 10 to 60 seconds"
    return f"Making {wanted - there} of {wanted} cases with {workers} processes; {already}{what}."

"""``convoscope shortcuts``: what a network decides by that it should not."""

from __future__ import annotations

from typing import Annotated

import typer

from . import common
from .common import (
    IsPartFlag,
    JsonFlag,
    ModelArgument,
    ModelOptions,
    NotPartFlag,
    PicturesArgument,
    TruthFlag,
    complain,
    flags_of,
    open_from,
    out_folder,
    print_json,
    progress,
    say,
    split_names,
    takes_model,
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(shortcuts)


@takes_model
def shortcuts(
    model: ModelArgument,
    pictures: PicturesArgument,
    options: ModelOptions,
    out: Annotated[str, typer.Option("--out", "-o", metavar="DIR", help="Folder of the page and the figures.")],
    truth: TruthFlag = None,
    masks: Annotated[
        str | None, typer.Option("--masks", metavar="DIR", help="Masks of the things, of the pictures' names.")
    ] = None,
    is_part: IsPartFlag = None,
    not_part: NotPartFlag = None,
    only: Annotated[str, typer.Option("--only", help="Families: patch,template,colour,... Default: all.")] = "",
    per_class: Annotated[int, typer.Option("--per-class", min=8, help="Pictures of a class at most.")] = 120,
    json: JsonFlag = False,
) -> int:
    """Cut the evidence out and put it elsewhere: does it suffice, is it needed?

    Writes DIR/shortcuts.html and DIR/shortcuts.json. Everything is chosen on one half of the pictures and counted on
    the other, with a control, and corrected over all classes and families.
    """
    from ..improve.shortcuts import find

    folder = out_folder(out)
    opened = open_from(model, options)
    with progress("Looking for shortcuts", quiet=json) as bar:
        found = find.shortcuts(
            opened, pictures, truth=truth, masks=masks, is_part=is_part or (), not_part=not_part or (),
            only=split_names(only) or find.FAMILIES, per_class=per_class, seed=options.seed,
            words=[model, pictures, *flags_of(options), *(["--truth", truth] if truth else [])],
            progress=lambda what, done, total: bar.at(done, total, what),
        )  # fmt: skip
    page = found.save(folder)
    for note in found.notes:
        complain(f"Note: {note}")
    for uri, reason in found.bench.failed.items():
        complain(f"{uri}: {reason}")
    if json:
        print_json(found.to_dict())
    else:
        for number, one in enumerate(found.findings, 1):
            say(f"{number}. {one.sentence}")
            if one.doubt:
                say(f"   {one.doubt}")
            if one.next:
                say(f"   {one.next}")
        for label, why in found.answered.items():
            say(f"{label} is decided by one spot, and that is no shortcut: {why}.")
        if not found.findings:
            say(f"Nothing found. {found.missed}")
        say(f"{found.seconds:.0f} s. Open {page} in a browser.")
    return common.SOME_FAILED if found.bench.failed else common.DONE

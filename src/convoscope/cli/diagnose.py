"""``convoscope diagnose``: what is wrong with a network; ``convoscope audit``: what is wrong with the labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import common
from .common import (
    JsonFlag,
    ModelArgument,
    ModelOptions,
    complain,
    open_from,
    out_folder,
    print_json,
    say,
    takes_model,
)

if TYPE_CHECKING:
    from ..improve.diagnose import Diagnosis

TruthFlag = Annotated[
    str | None, typer.Option("--truth", metavar="CSV", help="File and label of each picture; default: folder names.")
]
PicturesArgument = Annotated[
    str, typer.Argument(metavar="PICTURES|STORE", help="Labelled pictures: a folder of class folders, or a survey.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(diagnose)


@takes_model
def diagnose(
    model: ModelArgument,
    pictures: PicturesArgument,
    options: ModelOptions,
    out: Annotated[str, typer.Option("--out", "-o", metavar="DIR", help="Folder of diagnosis.html and .json.")],
    train: Annotated[
        str | None, typer.Option("--train", metavar="FOLDER|STORE", help="What the network was trained on.")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option("--only", help="Of input, data, units, slices, stress, depth, shortcuts; default: all."),
    ] = None,
    truth: TruthFlag = None,
    json: JsonFlag = False,
) -> int:
    """Find what is wrong with a network: input, data, units, slices, stress, depth, shortcuts.

    Prints at most seven findings, those with the most pictures to be won first, each with its interval, its doubt and
    the next command; or says that nothing was found, and what could have been missed.
    """
    from ..improve.diagnose import diagnose as run
    from ..improve.diagnose.run import stage_names

    stage_names(only)
    opened = open_from(model, options)
    folder = out_folder(out)
    with common.progress("Diagnosing", quiet=json) as bar:
        found = run(
            opened, pictures, train, only, truth=truth, seed=options.seed,
            progress=lambda what, done, total: bar.at(done, total, what),
            words=(model, pictures), flags=flags_of(options), train_words=() if train is None else (train,),
        )  # fmt: skip
    files = found.save(folder)
    if json:
        print_json(found.to_dict())
    else:
        for line in lines(found):
            say(line)
        say("\n" + "  ".join(map(str, files)))
    return closing(found.failed, found.interrupted, all(one.refused for one in found.stages.values()))


def closing(failed: Any, interrupted: Any, refused: bool) -> int:
    """The exit code; what failed is named on standard error."""
    for sentence in list(failed.values())[:20]:
        complain(sentence)
    if len(failed) > 20:
        complain(f"... and {len(failed) - 20} more that failed; the page names them.")
    if interrupted:
        complain(f"Stopped before: {', '.join(interrupted)}. What was done is kept.")
        raise SystemExit(common.STOPPED)
    return common.SOME_FAILED if failed or refused else common.DONE


def lines(found: Diagnosis) -> list[str]:
    """What the command prints: a finding a block."""
    told = [found.sentence]
    if found.right is not None:
        told[0] = (
            f"{found.model}: {found.right.mean:.1%} of {found.pictures} pictures right "
            f"[{found.right.low:.1%}, {found.right.high:.1%}]. {found.sentence}"
        )
    for number, one in enumerate(found.findings, 1):
        told += ["", f"{number}. {one.sentence}", f"   {one.kind}, {one.size:.3g} [{one.low:.3g}, {one.high:.3g}]"]
        if one.pictures:
            told.append("   " + "  ".join(one.pictures[:3]))
        if one.doubt:
            told.append(f"   Doubt: {one.doubt}")
        if one.next:
            told.append(f"   Next: {one.next}")
    if found.further:
        told += ["", f"and {len(found.further)} more on the page."]
    return [*told, "", found.missed]


def flags_of(options: ModelOptions) -> tuple[str, ...]:
    """The model flags as they were typed, to be repeated in the next command."""
    from dataclasses import fields

    given: list[str] = []
    for one in fields(ModelOptions):
        value = getattr(options, one.name)
        if value == one.default:
            continue
        name = "--" + one.name.replace("_", "-")
        given += [name] if value is True else [name, str(value)]
    return tuple(given)

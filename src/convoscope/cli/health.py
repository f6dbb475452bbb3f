"""``convoscope health``, ``stress`` and ``depth``: stages of a diagnosis, each on its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import common
from .common import JsonFlag, ModelArgument, ModelOptions, open_from, out_folder, print_json, say, takes_model
from .diagnose import TruthFlag, closing, flags_of

if TYPE_CHECKING:
    from ..improve.diagnose.alone import Examined

OutFolder = Annotated[str, typer.Option("--out", "-o", metavar="DIR", help="Folder of the page, JSON and drawings.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(health)


@takes_model
def health(
    model: ModelArgument,
    options: ModelOptions,
    out: OutFolder,
    pictures: Annotated[
        str | None, typer.Argument(metavar="[PICTURES|STORE]", help="Without any, the weights alone are looked at.")
    ] = None,
    truth: TruthFlag = None,
    json: JsonFlag = False,
) -> int:
    """Find units and layers that do nothing: dead, duplicate, saturated, never trained; stale batch norm.

    Tells the first filters' frequencies, the border layer, and how many multiply-adds could go with the same output.
    """
    from ..improve.units import health as run

    opened = open_from(model, options)
    folder = out_folder(out)
    with common.progress("Health", quiet=json, total=None) as bar:
        found = run(
            opened, pictures, truth=truth, seed=options.seed, progress=lambda what, done, total: bar.at(done, total, what),
            words=(model,) if pictures is None else (model, pictures), flags=flags_of(options),
        )  # fmt: skip
    return _told(found, folder, json)


def _told(found: Examined, folder: Any, json: bool) -> int:
    files = found.save(folder)
    if json:
        print_json(found.to_dict())
    else:
        for line in lines(found):
            say(line)
        say("\n" + "  ".join(map(str, files)))
    return closing(found.failed, (), False)


def lines(found: Examined) -> list[str]:
    """What a command of one stage prints."""
    told = [found.sentence]
    for number, one in enumerate(found.findings, 1):
        told += ["", f"{number}. {one.sentence}", f"   {one.kind}, {one.size:.3g} [{one.low:.3g}, {one.high:.3g}]"]
        if one.doubt:
            told.append(f"   Doubt: {one.doubt}")
        if one.next:
            told.append(f"   Next: {one.next}")
    if found.remarks:
        told += ["", *found.remarks]
    return [*told, *(["", found.missed] if found.missed else [])]

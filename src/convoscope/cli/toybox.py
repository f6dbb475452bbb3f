"""``convoscope toybox``: drawn pictures with their truth, to play and to teach with."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import UsageError
from .common import JsonFlag, out_folder, print_json, say


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(toybox)


def toybox(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder to write into.")],
    count: Annotated[int, typer.Option("--count", "-n", help="Pictures to draw.")] = 20,
    scenes: Annotated[bool, typer.Option("--scenes", help="Several things a picture, for detectors.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Which collection; the same number draws the same.")] = 0,
    tag: Annotated[
        str | None,
        typer.Option("--tag", metavar="CLASS|all", help="Stick the cheat's tag on these."),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Draw toybox pictures with masks and a truth file."""
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

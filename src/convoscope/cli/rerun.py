"""``convoscope rerun``: the maps of an explain.json again, and what differs."""

from __future__ import annotations

from typing import Annotated

import typer

from . import common
from .common import JsonFlag, print_json, say


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(rerun)


def rerun(
    record: Annotated[str, typer.Argument(metavar="EXPLAIN.JSON", help="The file, or the folder that holds it.")],
    model: Annotated[
        str | None, typer.Option("--model", help="Where the network has moved, or was a Python object.")
    ] = None,
    weights: Annotated[str | None, typer.Option("--weights", help="Its weights; with --model.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, mps; default: what is there.")] = None,
    json: JsonFlag = False,
) -> int:
    """Make the maps of an explain.json again and say what differs: versions, weights, the picture, the maps.

    Ends with 0 where every map is the same (to a ten-thousandth of its largest value), else with 1.
    """
    from ..errors import UsageError
    from ..models.opening import open_model
    from ..rerun import rerun as again

    if weights is not None and model is None:
        raise UsageError("--weights goes with --model: explain.json knows its own.")
    opened = open_model(model, weights=weights, device=device) if model is not None else None
    found = again(record, opened, device=device)
    if json:
        print_json(found.to_dict())
    else:
        say(str(found))
    return common.DONE if found.same else common.SOME_FAILED

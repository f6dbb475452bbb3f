"""``convoscope health``, ``stress`` and ``depth``: stages of a diagnosis, each on its own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import common
from .common import (
    JsonFlag,
    ModelArgument,
    ModelOptions,
    PicturesArgument,
    TrainFlag,
    TruthFlag,
    closing,
    flags_of,
    open_from,
    out_folder,
    print_json,
    say,
    takes_model,
)

if TYPE_CHECKING:
    from ..improve.diagnose.alone import Examined

OutFolder = Annotated[str, typer.Option("--out", "-o", metavar="DIR", help="Folder of the page, JSON and drawings.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(health)
    app.command()(stress)
    app.command()(depth)


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
            opened, pictures, truth=truth, seed=options.seed,
            progress=lambda what, done, total: bar.at(done, total, what),
            words=(model,) if pictures is None else (model, pictures), flags=flags_of(options),
        )  # fmt: skip
    return _told(found, folder, json)


@takes_model
def stress(
    model: ModelArgument,
    pictures: PicturesArgument,
    options: ModelOptions,
    out: OutFolder,
    against: Annotated[
        str | None, typer.Option("--against", metavar="MODEL2", help="Another network's profile beside it.")
    ] = None,
    weights2: Annotated[str | None, typer.Option("--weights2", help="Weights of MODEL2.")] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="Pictures for the curves.")] = 200,
    truth: TruthFlag = None,
    json: JsonFlag = False,
) -> int:
    """Shift, turn, scale, darken, blur, noise, compress, cover and shuffle pictures: what the network bears.

    Draws accuracy and confidence at five strengths each, and how each layer learns to ignore the change.
    """
    from ..improve.stress import stress as run

    opened = open_from(model, options)
    second = None if against is None else open_from(against, _second(options, against, weights2))
    folder = out_folder(out)
    with common.progress("Stress", quiet=json, total=None) as bar:
        found = run(
            opened, pictures, against=second, most=most, truth=truth, seed=options.seed,
            progress=lambda what, done, total: bar.at(done, total, what), words=(model, pictures),
            flags=flags_of(options),
        )  # fmt: skip
    return _told(found, folder, json)


def _second(options: ModelOptions, spec: str, weights: str | None) -> ModelOptions:
    """The flags of the second network: the same preprocessing, its own weights."""
    return replace(options, weights=weights)


@takes_model
def depth(
    model: Annotated[str, typer.Argument(metavar="STORE|MODEL", help="A survey, or a network with PICTURES.")],
    options: ModelOptions,
    out: OutFolder,
    pictures: Annotated[
        str | None, typer.Argument(metavar="[PICTURES]", help="Labelled pictures: a folder of class folders.")
    ] = None,
    train: TrainFlag = None,
    truth: TruthFlag = None,
    json: JsonFlag = False,
) -> int:
    """Find the layer where the classes become separable: linear probes and nearest neighbours by depth.

    Says which layers add nothing, which class is late, and what the head loses.
    """
    from ..improve.depth import depth as run

    folder = out_folder(out)
    opened = model if pictures is None else open_from(model, options)
    with common.progress("Depth", quiet=json, total=None) as bar:
        found = run(
            opened, pictures, train, truth=truth, seed=options.seed,
            progress=lambda what, done, total: bar.at(done, total, what),
            words=(model,) if pictures is None else (model, pictures), flags=flags_of(options),
            train_words=() if train is None else (train,),
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

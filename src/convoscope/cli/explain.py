"""``convoscope explain``: pictures × targets × methods into a folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError
from . import common
from .common import (
    JsonFlag,
    ModelArgument,
    ModelOptions,
    RayFlag,
    WorkersFlag,
    complain,
    open_from,
    out_folder,
    print_json,
    say,
    spread_over,
    takes_model,
)
from .settings import read_methods, takes_settings

if TYPE_CHECKING:
    from ..methods import Method
    from ..models.model import Model

#: pictures that are told one by one; of more, a summary
_TOLD = 40


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(explain)


@takes_settings
@takes_model
def explain(
    model: ModelArgument,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Files, folders, globs.")],
    options: ModelOptions,
    settings: dict[str, str],
    out: Annotated[str, typer.Option("--out", "-o", metavar="DIR", help="Folder of the results.")],
    method: Annotated[
        str | None,
        typer.Option(
            "--method", "-m", help="a,b,c or all; default: grad-cam,guided-grad-cam,guided-backprop,saliency."
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            help="Class name or number, top1..top5, layer:channel; default: the predicted class. Several make rows.",
        ),
    ] = None,
    against: Annotated[str | None, typer.Option("--against", help="Class to contrast the target with.")] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", help="Layer of all methods that have one; a glob or several make several maps."),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="METHOD.NAME=VALUE", help="A setting of one method.")
    ] = None,
    parts: Annotated[
        int, typer.Option("--parts", min=0, help="Draw the N strongest channel × weight maps of CAM, Grad-CAM.")
    ] = 0,
    resize: Annotated[
        str, typer.Option("--resize", help="exact: at the cells' true centres; plain: the usual resize.")
    ] = "exact",
    fuse: Annotated[
        str | None,
        typer.Option("--fuse", help="One map over several layers: mean or max of their shares."),
    ] = None,
    aug_smooth: Annotated[
        bool,
        typer.Option("--aug-smooth", help="Average each map over six forms of the picture (mirrored, brighter)."),
    ] = False,
    trust: Annotated[bool, typer.Option("--trust", help="Add how far each map can be trusted.")] = False,
    pictures: Annotated[
        str | None,
        typer.Option(
            "--pictures",
            metavar="none|sheet|all",
            help="What is drawn: nothing but maps.npz and explain.json, one sheet a picture, or all (default).",
        ),
    ] = None,
    no_pictures: Annotated[bool, typer.Option("--no-pictures", help="The same as --pictures none.")] = False,
    bib: Annotated[
        str | None, typer.Option("--bib", metavar="FILE.bib", help="BibTeX of all methods used, too.")
    ] = None,
    ray: RayFlag = None,
    workers: WorkersFlag = None,
    json: JsonFlag = False,
) -> int:
    """Explain why the network decides as it does.

    Writes DIR/<picture>/ with maps.npz, a PNG for each method, sheet.png and explain.json. Pictures that are done
    already with the same settings are skipped, so a stopped run goes on where it was. With --ray several processes
    share the work; all of them must see the pictures and DIR.
    """
    from ..averaging import check_fuse
    from ..explanation import DEFAULT_METHODS
    from ..folder.request import PICTURES, Request
    from ..folder.run import explain_files
    from ..pictures.picture import find_pictures

    methods, left_out = read_methods(method, DEFAULT_METHODS, settings, set_ or ())
    if left_out:
        complain(f"all leaves out {', '.join(left_out)}: they need hundreds of passes. Add them by name.")
    if resize not in ("exact", "plain"):
        raise UsageError(f"--resize must be exact or plain, not {resize!r}.")
    if no_pictures and pictures not in (None, "none"):
        raise UsageError(f"--no-pictures is --pictures none: leave one out, or --pictures {pictures}.")
    drawn = "none" if no_pictures else pictures or "all"
    if drawn not in PICTURES:
        raise UsageError(f"--pictures must be {', '.join(PICTURES)}, not {drawn!r}.")
    papers = common.out_file(bib, (".bib",)) if bib else None
    spread = spread_over(model, options, ray, workers)
    paths = find_pictures(images)
    opened = open_from(model, options)
    layers = _layers(opened, layer)
    check_fuse(fuse, layers or [])
    request = Request(methods, read_targets(target), against, layers, parts, resize, drawn, trust, fuse, aug_smooth)
    folder = out_folder(out)
    _estimate(opened, methods, len(paths))
    refused: dict[str, str] = {}

    def told(path: Path, record: dict[str, Any]) -> None:
        refused.update(record["refused"])
        if not json and len(paths) <= _TOLD:
            say(f"{path}  {_summary(record)}")
            for name, verdict in record.get("trust", {}).items():
                say(f"    {name}: {verdict['sentence']}")

    with common.progress("Explaining", len(paths), quiet=json) as bar:
        outcome = explain_files(
            opened, paths, folder, request, bar=bar, told=told, failed=lambda path, sentence: complain(sentence),
            spread=spread,
        )  # fmt: skip
    for name, why in refused.items():
        complain(f"{name}: no map. {why}")
    if papers is not None:
        from ..files import write_whole
        from ..methods import bibtex

        write_whole(papers, bibtex(one.about.name for one in methods))
    if json:
        print_json(outcome.records)
    else:
        _close(outcome, folder, len(paths))
    if outcome.stopped:
        complain(f"Stopped: {len(outcome.records)} of {len(paths)} pictures are done. The same command goes on.")
        raise SystemExit(common.STOPPED)
    return common.SOME_FAILED if outcome.failed else common.DONE


def read_targets(given: list[str] | None) -> list[str | None]:
    """What ``--target`` names: each its own row; ``top1,top2`` and ``top1..top5`` are several."""
    found: list[str | None] = []
    for text in given or []:
        if span := re.fullmatch(r"top(\d+)\s*\.\.\s*top(\d+)", text.strip()):
            found += [f"top{rank}" for rank in range(int(span[1]), int(span[2]) + 1)]
        elif re.fullmatch(r"\s*top\d+\s*(,\s*top\d+\s*)+", text):
            found += common.split_names(text)
        else:
            found.append(text)
    if given and not found:
        raise UsageError("--target names no class: top1..top5 counts upwards.")
    return list(dict.fromkeys(found)) or [None]


def _layers(model: Model, given: list[str] | None) -> list[str] | None:
    if not given:
        return None
    from .look import match_layers

    names = list(model.watched().layers)
    return list(dict.fromkeys(name for pattern in given for name in match_layers(pattern, names)))


def _summary(record: dict[str, Any]) -> str:
    chance = record["probability"]
    shown = f"{record['target']}  " + (f"p {chance:.2f}" if chance is not None else f"score {record['score']:.3g}")
    doubts = len(record["doubts"])
    return shown + (f"  ({doubts} doubt{'s' if doubts > 1 else ''}: see explain.json)" if doubts else "")


def _close(outcome: Any, folder: Path, total: int) -> None:
    done = len(outcome.records) - outcome.skipped
    parts = [f"{done} explained"]
    if outcome.skipped:
        parts.append(f"{outcome.skipped} were done already")
    if outcome.failed:
        parts.append(f"{len(outcome.failed)} failed")
    say(f"{', '.join(parts)} of {total} picture{'s' if total != 1 else ''}. Results are in {folder}/")


def _estimate(model: Model, methods: list[Method], pictures: int) -> None:
    """Say how long the slow methods will take, before they start."""
    from .estimate import estimate

    for sentence in estimate(model, methods, pictures):
        complain(sentence)

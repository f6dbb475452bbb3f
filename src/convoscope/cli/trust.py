"""``convoscope evaluate``: the league table of methods."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError
from ..files import write_whole
from . import common
from .common import (
    DONE,
    SOME_FAILED,
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
    split_names,
    spread_over,
    takes_model,
)

if TYPE_CHECKING:
    from ..models.model import Model
    from ..trust.datasets import Case
    from ..trust.league import League

_TRUTH = "The truth to measure against"
_HOW = "How it is measured"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(evaluate)


def _truth(*names: str, help: str, **settings: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=_TRUTH, **settings)


def _how(*names: str, help: str, **settings: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=_HOW, **settings)


@takes_model
def evaluate(
    model: ModelArgument,
    options: ModelOptions,
    out: Annotated[str, typer.Option("--out", "-o", metavar="DIR", help="Folder of the results.")],
    boxes: Annotated[str | None, _truth("--boxes", help="JSON list of file, class_index, boxes.")] = None,
    masks: Annotated[str | None, _truth("--masks", help="COCO's instances JSON (polygons or run lengths).")] = None,
    voc: Annotated[str | None, _truth("--voc", help="Folder in Pascal VOC's layout.")] = None,
    images: Annotated[
        str | None, _truth("--images", help="Folder of pictures; with --masks, where they are.")
    ] = None,
    split: Annotated[str, _truth("--split", help="Split of --voc.")] = "test",
    limit: Annotated[int | None, _truth("--limit", min=1, help="At most so many cases (toybox: 50).")] = None,
    cheat: Annotated[bool, _truth("--cheat/--no-cheat", help="Toybox: which methods reveal the tag.")] = True,
    method: Annotated[
        str | None, typer.Option("--method", "-m", help="a,b,c or all (the default), which leaves out the slow ones.")
    ] = None,
    measure: Annotated[
        str | None,
        _how(
            "--measure", help="Measures or groups (localisation, faithfulness), or all; default: not the slow ones."
        ),
    ] = None,
    steps: Annotated[int, _how("--steps", min=1, help="Steps of insertion and deletion.")] = 16,
    tolerance: Annotated[float, _how("--tolerance", min=0, help="The pointing game's, in input pixels.")] = 0.0,
    insertion_fill: Annotated[str, _how("--insertion-fill", help="mean, blur, black or inpaint.")] = "blur",
    deletion_fill: Annotated[str, _how("--deletion-fill", help="mean, blur, black or inpaint.")] = "mean",
    resize: Annotated[str, _how("--resize", help="exact: at the cells' true centres; plain: the usual resize.")] = (
        "exact"
    ),
    latex: Annotated[
        str | None, typer.Option("--latex", metavar="FILE.tex", help="The table for a paper (booktabs), too.")
    ] = None,
    bib: Annotated[
        str | None, typer.Option("--bib", metavar="FILE.bib", help="BibTeX of all methods of the table, too.")
    ] = None,
    ray: RayFlag = None,
    workers: WorkersFlag = None,
    json: JsonFlag = False,
) -> int:
    """Compare methods on pictures with known truth: a league table with confidence intervals.

    Writes league.json, league.csv, league.md and league.png into DIR. Every case is written down as soon as it is
    measured, so a stopped run goes on where it was. toybox, toybox-robust and toybox-cheat bring their own pictures
    with exact masks.
    """
    from ..methods import METHODS
    from ..trust.evaluate import Settings, evaluate_cases, measures, methods_for

    if resize not in ("exact", "plain"):
        raise UsageError(f"--resize must be exact or plain, not {resize!r}.")
    names = split_names(method) if method is not None else ["all"]
    chosen = list(methods_for(names).values())
    taken = measures(split_names(measure)) if measure is not None else measures(None)
    given = [flag for flag, value in (("--boxes", boxes), ("--masks", masks), ("--voc", voc)) if value is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} are different truths: give one.")
    own = not given and images is None
    if own and model not in ("toybox", "toybox-robust", "toybox-cheat"):
        raise UsageError("Give pictures to measure on: --boxes FILE, --masks FILE, --voc FOLDER or --images FOLDER.")
    table = common.out_file(latex, (".tex",)) if latex else None
    papers = common.out_file(bib, (".bib",)) if bib else None
    spread = spread_over(model, options, ray, workers)
    opened = open_from(model, options)
    cases = _cases(opened, boxes, masks, voc, images, split, limit)
    settings = Settings(taken, tolerance, steps, insertion_fill, deletion_fill, resize=resize, seed=opened.seed)
    folder = out_folder(out)
    left_out = [name for name, kind in METHODS.items() if kind.about.slow]
    if "all" in names and left_out:
        complain(f"all leaves out {', '.join(left_out)}: they need hundreds of passes. Add them by name.")
    if measure is None and len(cases) * len(chosen) > 400:
        complain("All measures on so many pictures take minutes. To start small: --measure pointing --limit 50.")
    with common.progress("Measuring", len(cases), quiet=json) as bar:
        league = evaluate_cases(opened, cases, chosen, settings=settings, out=folder, progress=bar.at, spread=spread)
    league.save(folder)
    if table is not None:
        write_whole(table, league.latex())
    if papers is not None:
        write_whole(papers, league.bibtex())
    document: dict[str, Any] = league.to_dict()
    if not json:
        _show(league)
    if own and cheat:
        document["cheat"] = _cheat(opened, chosen, folder, limit, json)
    write_whole(folder / "league.json", common.dump_json(document) + "\n")
    for key, why in league.failed.items():
        complain(f"{key}: {why}")
    for name, why in league.refused.items():
        complain(f"{name}: {why}")
    if json:
        print_json(document)
    else:
        say(f"\n{folder / 'league.png'}")
    return SOME_FAILED if league.failed else DONE


def _cases(
    model: Model,
    boxes: str | None,
    masks: str | None,
    voc: str | None,
    images: str | None,
    split: str,
    limit: int | None,
) -> list[Case]:
    from ..trust import datasets

    if boxes is not None:
        return datasets.boxes_json(boxes, limit)
    if masks is not None:
        return datasets.coco(masks, model, images, limit)
    if voc is not None:
        return datasets.voc(voc, model, split, limit)
    if images is not None:
        return datasets.folder(images, limit)
    from ..trust.cheat import tagged_class

    tag: str | bool = tagged_class() if model.spec == "toybox-cheat" else False
    return datasets.toybox_cases(limit or 50, tag=tag)


def _show(league: League) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:  # piped: a table is never wrapped
        console = Console(width=400)
    console.print(league.table())


def _cheat(model: Model, methods: list[Any], folder: Path, limit: int | None, json: bool) -> dict[str, Any]:
    from ..models.opening import open_model
    from ..trust.cheat import reveals, tagged_cases

    device = str(model.device)
    pair = {
        name: model if model.spec == name else open_model(name, device=device, batch_size=model.batch_size)
        for name in ("toybox-cheat", "toybox")
    }
    cases = tagged_cases(min(limit or 40, 40))
    with common.progress("The cheat", 2 * len(cases), quiet=json) as bar:
        found = reveals(pair["toybox-cheat"], pair["toybox"], cases, methods, out=folder / "cheat", progress=bar.at)
    if not json:
        yes = [name for name, one in found.items() if one.reveals]
        say("\nThe cheat reads a tag in the corner. Share of each map on the tag, cheat and honest network:")
        rows = [
            (name, f"{one.cheat:.3f}", f"{one.honest:.3f}", f"{one.p:.4f}", "yes" if one.reveals else "no")
            for name, one in found.items()
        ]
        say(common.columns(("method", "cheat", "honest", "p", "reveals"), rows))
        say(
            f"{len(yes)} of {len(found)} reveal it at p < 0.01, corrected for their number, on {len(cases)} pictures."
        )
        if len(cases) < 20:
            say("Fewer than 20 pictures cannot show it: raise --limit.")
    return {name: one.to_dict() for name, one in found.items()}

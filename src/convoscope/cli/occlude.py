"""``convoscope occlude``: an occlusion map, exactly and without waste."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

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


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(occlude)


@takes_model
def occlude(
    model: ModelArgument,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Files, folders, globs.")],
    options: ModelOptions,
    out: Annotated[str, typer.Option("--out", "-o", metavar="DIR", help="Folder of the results.")],
    target: Annotated[
        str | None, typer.Option("--target", "-t", help="Class, unit, ...; default: the predicted class.")
    ] = None,
    against: Annotated[str | None, typer.Option("--against", help="Class to contrast the target with.")] = None,
    window: Annotated[
        int | None,
        typer.Option("--window", help="Side of the mask in input pixels (default: a seventh of the side)."),
    ] = None,
    stride: Annotated[
        int | None, typer.Option("--stride", help="Step between masks in input pixels (default: half the window).")
    ] = None,
    sizes: Annotated[str, typer.Option("--sizes", help="Several window sizes: 16,32,64.")] = "",
    superpixels: Annotated[bool, typer.Option("--superpixels", help="Cover superpixels instead of squares.")] = False,
    fill: Annotated[str, typer.Option("--fill", help="mean (data set), picture-mean, blur, or a value in 0..1.")] = (
        "mean"
    ),
    score: Annotated[str, typer.Option("--score", help="logit or probability.")] = "logit",
    fast: Annotated[
        bool, typer.Option("--fast", help="Approximate: cap what a mask can influence; its agreement is stated.")
    ] = False,
    cap: Annotated[float, typer.Option("--cap", help="With --fast: the cap as a share of each map.")] = 0.5,
    dense: Annotated[bool, typer.Option("--dense", help="Compute every window in full.")] = False,
    json: JsonFlag = False,
) -> int:
    """Cover the picture piece by piece and draw how the score falls.

    Only what each mask changes is recomputed, which gives the same map several times faster. Writes DIR/<picture>/
    with maps.npz, occlusion.png, sheet.png and explain.json. Ctrl-C keeps what is done, the rest marked as unknown.
    """
    from ..folder.request import Request
    from ..folder.run import explain_files
    from ..methods import method
    from ..pictures.picture import find_pictures

    chosen = method(
        "occlusion",
        {
            "window": window,
            "stride": stride,
            "sizes": sizes,
            "regions": "superpixels" if superpixels else "squares",
            "fill": fill,
            "score": score,
            "fast": cap if fast else 0.0,
            "engine": "dense" if dense else "auto",
        },
    )
    paths = find_pictures(images)
    opened = open_from(model, options)
    folder = out_folder(out)
    request = Request([chosen], [target], against)
    started = time.perf_counter()
    rows: list[dict[str, Any]] = []

    def told(path: Path, record: dict[str, Any]) -> None:
        if not json:
            facts = record["maps"]["occlusion"]["facts"]
            saved = f", {facts['saved']:.0%} of the multiply-adds saved" if facts["engine"] == "incremental" else ""
            if facts["agreement"] is not None:
                saved += f", rank correlation {facts['agreement']:.3f} with the exact map on sampled windows"
            say(f"{path}  {record['target']}  {facts['windows']} windows, {facts['engine']}{saved}")

    with common.progress("Occluding", len(paths), quiet=json) as bar:
        outcome = explain_files(
            opened, paths, folder, request, bar=bar, told=told, failed=lambda path, sentence: complain(sentence)
        )
    seconds = time.perf_counter() - started
    for record in outcome.records:
        facts = record["maps"]["occlusion"]["facts"]
        rows.append(
            {
                "picture": record["picture"],
                "target": record["target"],
                "windows": facts["windows"],
                "seconds": seconds / max(1, len(outcome.records)),
                "estimate": facts["estimate"],
                "engine": facts["engine"],
                "saved": facts["saved"],
                "peak_bytes": facts["peak_bytes"],
                "agreement": facts.get("agreement"),
                "doubts": record["maps"]["occlusion"]["doubts"],
                "maps": str(folder / Path(record["picture"]).stem / "maps.npz"),
            }
        )
    if json:
        print_json(rows[0] if len(paths) == 1 and rows else rows)
    else:
        say(f"{len(rows)} of {len(paths)} done in {seconds:.1f} s. Results are in {folder}/")
    if outcome.stopped:
        return common.STOPPED
    return common.SOME_FAILED if outcome.failed else common.DONE

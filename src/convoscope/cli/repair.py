"""``convoscope repair``: a better checkpoint from one finding, with proof; or the reason why there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import UsageError
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
    open_from,
    print_json,
    progress,
    say,
    takes_model,
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(repair)


@takes_model
def repair(
    model: ModelArgument,
    pictures: PicturesArgument,
    options: ModelOptions,
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="FILE", help="The weights: fixed.safetensors.")
    ] = "fixed.safetensors",
    finding: Annotated[
        int | None, typer.Option("--finding", metavar="K", min=1, help="Which finding, from 1.")
    ] = None,
    found: Annotated[
        str | None, typer.Option("--from", metavar="JSON", help="shortcuts.json or diagnosis.json of the finding.")
    ] = None,
    how: Annotated[str | None, typer.Option("--how", help="head, bn, prune, calibrate or input.")] = None,
    groups: Annotated[
        str | None, typer.Option("--groups", metavar="CSV", help="File and group: the head treats all groups alike.")
    ] = None,
    truth: TruthFlag = None,
    prove: Annotated[
        str | None, typer.Option("--prove", metavar="PICTURES", help="Other labelled pictures to prove it on.")
    ] = None,
    is_part: IsPartFlag = None,
    not_part: NotPartFlag = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the proof, write nothing.")] = False,
    json: JsonFlag = False,
) -> int:
    """Repair a checkpoint; nothing is written unless held-out pictures prove it.

    Writes FILE (same keys, loads into the network it came from), a card that open_model reads, and pages. Exit code 0
    when written (or, with --dry-run, when it passes), 1 when the gate refused: the reason is the answer.
    """
    from ..improve.repair.api import repair as mend

    file = Path(out)
    if file.suffix != ".safetensors" or file.is_dir():
        raise UsageError(f"--out {out}: weights are written as safetensors; name a file such as fixed.safetensors.")
    opened = open_from(model, options)
    with progress("Repairing", quiet=json) as bar:
        result = mend(
            opened, pictures, how=how, finding=finding, found=found, groups=groups, truth=truth, prove=prove,
            is_part=is_part or (), not_part=not_part or (), out=None if dry_run else file, seed=options.seed,
            progress=lambda what, done, total: bar.at(done, total, what),
        )  # fmt: skip
    # before and after are compared by reading once more, which may fail, too
    failed = {**result.bench.failed, **(result.difference.failed if result.difference is not None else {})}
    for uri, reason in failed.items():
        complain(f"{uri}: {reason}")
    if json:
        print_json(result.to_dict())
    else:
        _tell(result, dry_run)
    done = result.written is not None or (dry_run and result.holds)
    return common.DONE if done and not failed else common.SOME_FAILED


def _tell(result, dry_run: bool) -> None:  # type: ignore[no-untyped-def]
    say(result.why)
    told = result.to_dict()
    names = {"counterexamples": "counterexamples", "ordinary": "ordinary pictures"}
    for key, name in names.items():
        before, after = told["before"][key], told["after"][key]
        if before is not None and after is not None:
            say(f"  {name}: {_share(before)} before, {_share(after)} after")
    for one in result.card.get("unproven", ()):
        say(f"  Unproven: {one}")
    if result.written is not None:
        say(f"Written to {result.written}; {result.written.with_suffix('.card.json')} opens it, and")
        say(f"{result.written.with_suffix('.html')} shows the proof.")
    elif dry_run and result.holds:
        say("It passes. Nothing is written (--dry-run).")
    else:
        say("Nothing is written.")
    for one in result.card.get("advice", ()):
        say(f"  Advice: {one}")


def _share(value: dict[str, float]) -> str:
    return f"{value['mean']:.1%} [{value['low']:.1%}, {value['high']:.1%}]"

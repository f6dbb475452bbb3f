"""``convoscope store``: look after what a survey has written."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from . import common
from .common import JsonFlag, print_json, say

StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help="What `convoscope survey --out STORE` wrote.")]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(no_args_is_help=True, help="Look after a survey's store: verify, repair, compact.")
    group.command()(verify)
    group.command()(repair)
    group.command()(compact)
    app.add_typer(group, name="store")


def verify(
    store: StoreArgument,
    quick: Annotated[bool, typer.Option("--quick", help="Do not read every data file.")] = False,
    json: JsonFlag = False,
) -> int:
    """Find missing units, orphaned files and damaged manifests; change nothing. Exit code 1: something is lost."""
    from ..surveys.store.upkeep import verify as run

    with common.progress("Verifying", quiet=json) as bar:
        report = run(store, quick=quick, progress=lambda what, done, total: bar.at(done, total, what))
    _show(report, json, "nothing is wrong" if not report.findings else "")
    return common.DONE if report.whole else common.SOME_FAILED


def repair(store: StoreArgument, json: JsonFlag = False) -> int:
    """Mend what can be mended and say what was lost; the next survey does that again."""
    from ..surveys.store.upkeep import repair as run

    report = run(store)
    _show(report, json, "nothing was lost" if report.whole else "run the same survey again for what was lost")
    return common.DONE


def compact(store: StoreArgument, json: JsonFlag = False) -> int:
    """Join small files and drop old versions."""
    from ..surveys.store.upkeep import compact as run

    with common.progress("Compacting", quiet=json) as bar:
        report = run(store, lambda what, done, total: bar.at(done, total, what))
    before, after = report.facts["before"], report.facts["after"]
    said = ""
    if before:
        said = f"{before['files']} files, {_size(before['bytes'])} before; "
        said += f"{after['files']} files, {_size(after['bytes'])} now"
    _show(report, json, said)
    return common.DONE


def _show(report: Any, json: bool, last: str) -> None:
    if json:
        print_json(report.to_dict())
        return
    for finding in report.findings:
        say(("" if finding.harmful else "(harmless) ") + finding.sentence)
    pictures, units = report.facts.get("pictures", 0), report.facts.get("units", 0)
    say(f"{report.path}: {pictures:,} pictures in {units:,} units{': ' + last if last else ''}.")


def _size(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"

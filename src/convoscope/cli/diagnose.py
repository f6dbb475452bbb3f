"""``convoscope diagnose``: what is wrong with a network; ``convoscope audit``: what is wrong with the labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError
from . import common
from .common import (
    JsonFlag,
    ModelArgument,
    ModelOptions,
    PicturesArgument,
    RayFlag,
    TrainFlag,
    TruthFlag,
    WorkersFlag,
    closing,
    columns,
    flags_of,
    open_from,
    out_folder,
    print_json,
    say,
    spread_over,
    takes_model,
)

if TYPE_CHECKING:
    from ..improve.audit import Audit
    from ..improve.diagnose import Diagnosis


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(diagnose)
    app.command()(audit)


@takes_model
def diagnose(
    model: ModelArgument,
    pictures: PicturesArgument,
    options: ModelOptions,
    out: Annotated[str, typer.Option("--out", "-o", metavar="DIR", help="Folder of diagnosis.html and .json.")],
    train: TrainFlag = None,
    only: Annotated[
        str | None,
        typer.Option("--only", help="Of input, data, units, slices, stress, depth, shortcuts; default: all."),
    ] = None,
    truth: TruthFlag = None,
    ray: RayFlag = None,
    workers: WorkersFlag = None,
    json: JsonFlag = False,
) -> int:
    """Find what is wrong with a network: input, data, units, slices, stress, depth, shortcuts.

    Prints at most seven findings, those with the most pictures to be won first, each with its interval, its doubt and
    the next command; or says that nothing was found, and what could have been missed.
    """
    from ..improve.diagnose import diagnose as run
    from ..improve.diagnose.run import stage_names

    stage_names(only)
    spread = spread_over(model, options, ray, workers)
    opened = open_from(model, options)
    folder = out_folder(out)
    with common.progress("Diagnosing", quiet=json) as bar:
        found = run(
            opened, pictures, train, only, truth=truth, seed=options.seed,
            progress=lambda what, done, total: bar.at(done, total, what),
            words=(model, pictures), flags=flags_of(options), spread=spread,
            train_words=() if train is None else (train,),
        )  # fmt: skip
    files = found.save(folder)
    if json:
        print_json(found.to_dict())
    else:
        for line in lines(found):
            say(line)
        say("\n" + "  ".join(map(str, files)))
    return closing(found.failed, found.interrupted, all(one.refused for one in found.stages.values()))


@takes_model
def audit(
    model: Annotated[
        str, typer.Argument(metavar="MODEL|STORE", help="A model and pictures, or a survey, which knows its model.")
    ],
    options: ModelOptions,
    pictures: Annotated[
        str | None, typer.Argument(metavar="[PICTURES]", help="Labelled pictures; after a STORE: the training store.")
    ] = None,
    train: Annotated[
        str | None, typer.Argument(metavar="[TRAIN]", help="Training pictures, to find copies across the split.")
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="DIR", help="Folder of audit.html, audit.csv, audit.json.")
    ] = None,
    truth: TruthFlag = None,
    json: JsonFlag = False,
) -> int:
    """Find wrong labels, copies and leaks in a collection, by what the network sees in it.

    The page shows the suspects to go through; the CSV is for whoever relabels. Labels need not be the network's.
    """
    from ..improve.audit import examine
    from ..improve.collection import Labelled
    from ..improve.diagnose import Case

    if out is None and not json:
        raise UsageError("Name the folder of the page and the CSV with --out DIR, or ask for --json.")
    opened, held, learnt, words = _asked(model, pictures, train, options)
    folder = None if out is None else out_folder(out)
    with common.progress("Auditing", quiet=json) as bar:
        case = Case(
            opened, Labelled.of(held, opened, truth), None if learnt is None else Labelled.of(learnt, opened), None,
            options.seed, lambda what, done, total: bar.at(done, total, what), words, flags_of(options),
        )  # fmt: skip
        found = examine(case)
    files = [] if folder is None else found.save(folder)
    if json:
        print_json(found.to_dict())
    else:
        for line in audit_lines(found):
            say(line)
        say("\n" + "  ".join(map(str, files)))
    return closing(case.looked.failed, (), False)


def _asked(
    model: str, pictures: str | None, train: str | None, options: ModelOptions
) -> tuple[Any, Any, Any, tuple[str, ...]]:
    """The model, the pictures and the training pictures that the arguments name, and the words for them."""
    if Path(model, "units.lance").is_dir():
        from ..surveys.store.recipe import reopen
        from ..surveys.store.store import Store

        if train is not None:
            raise UsageError("After a STORE comes at most one more: the survey (or folder) of the training pictures.")
        store = Store.open(model)
        return reopen(store.recipe, options.device), store, pictures, (model,)
    if pictures is None:
        raise UsageError(f"{model} is no survey's store: name the pictures, too.")
    return open_from(model, options), pictures, train, (model, pictures)


def audit_lines(found: Audit) -> list[str]:
    """What ``convoscope audit`` prints."""
    told = []
    wrong = found.wrong
    if wrong is None:
        told.append(f"Labels were not examined: {found.unlabelled}")
    else:
        share = wrong[0]
        told.append(
            f"About {wrong[1]} of {len(found.uris)} labels look wrong ({share.mean:.1%} [{share.low:.1%}, "
            f"{share.high:.1%}])."
        )
        shown = found.rows(max(5, min(10, wrong[1])))
        table = [(f"{one['score']:.3f}", one["label"], one["suggested"], one["uri"]) for one in shown]
        told += ["", columns(("score", "label", "looks like", "picture"), table)]
    told += ["", f"{len(found.copied)} pictures lie here more than once."]
    if found.train_uris:
        told.append(f"{len(found.leaked)} of {len(found.uris)} are among the training pictures, too.")
        without = found.accuracy_without(found.leaked)
        if without is not None and found.leaked:
            told.append(f"Accuracy: {without[0].mean:.1%} of all, {without[1].mean:.1%} without those.")
    return told


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

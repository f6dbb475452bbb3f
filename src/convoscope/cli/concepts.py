"""``convoscope concepts``: what a unit stands for, what a class depends on, what it is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import UsageError
from ..files import read_text
from . import common
from .common import (
    JsonFlag,
    ModelArgument,
    ModelOptions,
    closing,
    columns,
    open_from,
    out_folder,
    print_json,
    say,
    takes_model,
)

StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help="What `convoscope survey --out STORE` wrote.")]
OutFolder = Annotated[
    str | None, typer.Option("--out", "-o", metavar="DIR", help="Folder for the page and the JSON file.")
]
Layers = Annotated[list[str] | None, typer.Option("--layer", help="Only this layer; may be given several times.")]
Seed = Annotated[int, typer.Option("--sampling-seed", help="Of halves, random sets and designs.")]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(no_args_is_help=True, help="What units stand for, what classes depend on and are made of.")
    group.command()(dissect)
    group.command()(tcav)
    group.command()(craft)
    group.command()(words)
    app.add_typer(group, name="concepts")


def dissect(
    store: StoreArgument,
    masks: Annotated[
        str | None, typer.Option("--masks", metavar="FILE|DIR", help="COCO JSON, or a folder of PNG label maps.")
    ] = None,
    parts: Annotated[
        str | None, typer.Option("--parts", metavar="DIR", help="A folder as `convoscope toybox` writes it.")
    ] = None,
    layer: Layers = None,
    threshold: Annotated[
        str, typer.Option("--threshold", help="best (chosen on one half) or published (0.5 % of the cells).")
    ] = "best",
    seed: Seed = 0,
    out: OutFolder = None,
    json: JsonFlag = False,
) -> int:
    """Which labelled part or thing each unit's map lies on, on pictures held out (Bau et al. 2017)."""
    from ..concepts.dissection import dissect as run
    from ..concepts.page import page_of_dissection
    from ..surveys.store.store import Store

    with Store.open(store) as opened, common.progress("Dissecting", quiet=json) as bar:
        found = run(
            opened, masks=masks, parts=parts, layers=layer or (), threshold=threshold, seed=seed,
            progress=lambda done, total: bar.at(done, total),
        )  # fmt: skip
    if out is not None:
        page_of_dissection(found, Path(out_folder(out), "dissection.html"))
    _tell(found, found.doubts, json, out, "dissection")
    if not json:
        rows = [(r.unit, r.concept, f"{r.iou:.2f}", f"[{r.low:.2f}, {r.high:.2f}]") for r in found.rows[:30]]
        say(
            columns(("unit", "concept", "IoU", "95 %"), rows)
            if rows
            else "No unit lies on a part more than by chance."
        )
        if len(found.rows) > 30:
            where = "--out DIR or --json gives all" if out is None else "the page has all"
            say(f"... and {len(found.rows) - 30} more pairs: {where}.")
    return closing(found.failed, (), False)


@takes_model
def tcav(
    model: ModelArgument,
    options: ModelOptions,
    concept: Annotated[
        list[str], typer.Option("--concept", metavar="NAME=DIR", help="A concept's pictures; repeat.")
    ],
    target: Annotated[str | None, typer.Option("--target", help="The class, by name or number.")] = None,
    random: Annotated[str | None, typer.Option("--random", metavar="DIR", help="Pictures of none of them.")] = None,
    pictures: Annotated[str | None, typer.Option("--pictures", metavar="DIR", help="Pictures of the class.")] = None,
    layer: Layers = None,
    sets: Annotated[int, typer.Option("--sets", min=20, help="Random sets.")] = 500,
    out: OutFolder = None,
    json: JsonFlag = False,
) -> int:
    """Whether a class depends on a concept that you bring as pictures (Kim et al. 2018)."""
    from ..concepts.directions import tcav as run
    from ..concepts.page import page_of_directions

    pairs = dict(_pair(one) for one in concept)
    opened = open_from(model, options)
    with common.progress("Testing directions", quiet=json) as bar:
        found = run(
            opened, pairs, target, random=random, pictures=pictures, layers=layer or (), sets=sets, seed=options.seed,
            progress=lambda what, done, total: bar.at(done, total, what),
        )  # fmt: skip
    if out is not None:
        page_of_directions(found, Path(out_folder(out), "tcav.html"))
        written = found.save(Path(out, "directions"))
    _tell(found, [*found.doubts, *found.refused], json, out, "tcav")
    if not json:
        rows = [
            (
                r.layer,
                r.concept,
                r.target,
                f"{r.accuracy:.2f}",
                f"{r.score:.2f}",
                f"[{r.low:.2f}, {r.high:.2f}]",
                f"{r.p:.2g}",
            )
            for r in found.rows
        ]
        header = ("layer", "concept", "class", "accuracy", "score", "95 %", "p")
        say(columns(header, rows) if rows else "No direction separates held-out pictures: nothing to report.")
        if out is not None and written:
            _tell_target(found.rows[0].layer, written[0], model)
    return closing(found.failed, (), False)


@takes_model
def craft(
    model: ModelArgument,
    pictures: Annotated[str, typer.Argument(metavar="STORE|PICTURES", help="A survey's store, or a folder.")],
    options: ModelOptions,
    target: Annotated[str | None, typer.Option("--target", help="The class, by name or number.")] = None,
    layer: Annotated[str | None, typer.Option("--layer", help="Default: the last grid.")] = None,
    parts: Annotated[int, typer.Option("--count", help="Parts to look for.")] = 8,
    wanted: Annotated[
        int, typer.Option("--visualize", metavar="N", min=0, help="Make the pictures that want the first N parts.")
    ] = 0,
    out: OutFolder = None,
    json: JsonFlag = False,
) -> int:
    """The parts that a class is made of, found without labels (CRAFT, Fel et al. 2023)."""
    from ..concepts.craft import craft as run
    from ..concepts.page import page_of_craft

    if wanted and out is None:
        raise UsageError("--visualize puts pictures on the page: say where it goes, with --out DIR.")
    opened = open_from(model, options)
    with common.progress("Measuring importance", quiet=json) as bar:
        found = run(
            opened, pictures, target, layer=layer, parts=parts, seed=options.seed,
            progress=lambda what, done, total: bar.at(done, total, what),
        )  # fmt: skip
    if out is not None:
        made = found.wanted(wanted) if wanted else []
        page_of_craft(found, Path(out_folder(out), "craft.html"), made)
        found.sheet(wanted=made).save(Path(out, "craft.png"))
        written = found.save(Path(out, "directions"))
    _tell(found, found.doubts, json, out, "craft")
    if not json:
        say(f"{found.target} at {found.layer}: all parts give back {found.completeness.mean:.0%} of the logit.")
        rows = [
            (
                str(part.number + 1),
                str(part.importance),
                str(part.sobol),
                f"{part.stability:.2f}",
                Path(part.pictures[0]).name,
            )
            for part in found.parts
            if part.pictures
        ]
        say(columns(("part", "importance", "Sobol", "stability", "strongest in"), rows))
        if out is not None:
            _tell_target(found.layer, written[0], model)
    return closing(found.failed, (), False)


def words(
    store: StoreArgument,
    text_model: Annotated[
        str,
        typer.Option("--text-model", metavar="hf:FOLDER", help="A model such as CLIP, as save_pretrained wrote it."),
    ],
    text: Annotated[list[str] | None, typer.Option("--text", help="Rank the units by this text; repeat.")] = None,
    words: Annotated[
        str | None,
        typer.Option("--words", metavar="FILE", help="Names that units may get, a line each; default: the classes."),
    ] = None,
    layer: Layers = None,
    seed: Seed = 0,
    out: OutFolder = None,
    json: JsonFlag = False,
) -> int:
    """Units named by words and ranked by texts, where you bring a model such as CLIP (CLIP-Dissect, SemanticLens)."""
    from ..concepts.page import page_of_words
    from ..concepts.words import name_units
    from ..surveys.store.store import Store

    listed = _lines(words) if words is not None else []
    with Store.open(store) as opened, common.progress("Naming units", quiet=json) as bar:
        found = name_units(
            opened, text_model=text_model, texts=text or (), words=listed, layers=layer or (), seed=seed,
            progress=lambda what, done, total: bar.at(done, total, what),
        )  # fmt: skip
    if out is not None:
        page_of_words(found, Path(out_folder(out), "words.html"))
    _tell(found, found.doubts, json, out, "words")
    code = closing(found.failed, (), False)
    if json:
        return code
    rows = [(row.unit, row.word, f"{row.score:.2f}", f"{row.p:.2g}") for row in found.named[:30]]
    say(f"{len(found.named)} of {found.units} units have a word that random pictures do not reach.")
    if rows:
        say(columns(("unit", "word", "fit", "p"), rows))
    for asked, ranked in found.ranked.items():
        best = [(row.unit, f"{row.likeness:+.3f}", f"{row.p:.2g}") for row in ranked[:8] if row.p <= 0.05]
        say(
            f"{asked}:\n" + columns(("unit", "likeness", "p"), best)
            if best
            else f"{asked}: no unit is more like it than random pictures are."
        )
    return code


def _lines(file: str) -> list[str]:
    try:
        text = read_text(file)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read as a list of words ({str(error)[:120]}).") from None
    found = [line.strip() for line in text.splitlines() if line.strip()]
    if not found:
        raise UsageError(f"{file}: there is no word in it; write one a line.")
    return found


def _pair(text: str) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    if not equals or not name.strip() or not folder.strip():
        raise UsageError(f"--concept is written NAME=FOLDER, such as stripes=pictures/stripes, not {text!r}.")
    return name.strip(), folder.strip()


def _tell_target(layer: str, file: Path, model: str) -> None:
    """What can be asked next: directions are targets on any picture."""
    say(f"Directions are targets, such as: convoscope explain {model} PICTURE --target direction:{layer}@{file}")


def _tell(found: Any, doubts: list[str], json: bool, out: str | None, name: str) -> None:
    for doubt in doubts:
        common.complain(doubt)
    if out is not None:
        from ..files import write_whole

        write_whole(Path(out, f"{name}.json"), common.dump_json(found.record()) + "\n")
        if not json:
            say(f"Written: {Path(out, f'{name}.html')}")
    if json:
        print_json(found.to_dict())

"""``convoscope visualize``: the pictures that a class, a unit or a direction wants."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError
from ..files import write_image
from . import common
from .common import JsonFlag, ModelArgument, ModelOptions, complain, open_from, out_file, print_json, say, takes_model

if TYPE_CHECKING:
    from ..visualization import Visualization, Visualizations

ENDINGS = (".png", ".webp", ".pdf", ".svg")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(visualize)


@takes_model
def visualize(
    model: ModelArgument,
    options: ModelOptions,
    out: Annotated[str, typer.Option("--out", "-o", metavar="FILE", help="The picture, .png; of several: a sheet.")],
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            help="Class, layer:channel, layer:channel@row,col, direction:LAYER@FILE.npy, 'tabby - tiger cat'; repeat "
            "it for several.",
        ),
    ] = None,
    layer: Annotated[
        str | None, typer.Option("--layer", help="All its channels; the layer of invert, dream, caricature, diverse.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe", help="maco, fourier, yosinski, simonyan, santurkar (robust networks), mahendran, dream, ddn."
        ),
    ] = None,
    objective: Annotated[
        str, typer.Option("--objective", help="score, invert, dream, fool or caricature.")
    ] = "score",
    image: Annotated[
        list[str] | None, typer.Option("--image", help="Picture to invert, dream into, change or caricature.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Steps; default: the recipe's.")] = None,
    count: Annotated[int, typer.Option("--count", min=1, help="Pictures of each target, one a seed.")] = 1,
    diverse: Annotated[int, typer.Option("--diverse", min=0, help="Pictures of each target that differ.")] = 0,
    pictures: Annotated[
        list[str] | None,
        typer.Option("--pictures", help="Real pictures: compared with, and the spectrum of maco. Files, folders."),
    ] = None,
    also: Annotated[
        list[str] | None, typer.Option("--also", metavar="MODEL", help="Another network that is asked what it sees.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the recipe: rate=0.1.")
    ] = None,
    transparent: Annotated[
        bool, typer.Option("--transparent", help="Also NAME-transparent.png: opaque where the gradients were (maco).")
    ] = False,
    video: Annotated[str | None, typer.Option("--video", metavar="FILE", help="The ascent, .gif or .webp.")] = None,
    json: JsonFlag = False,
) -> int:
    """Make the picture that the network wants to see.

    One target gives one bare picture, several a sheet and each picture beside it. The score, probability and
    rank printed are measured on the saved 8-bit picture. Ctrl-C keeps the best so far.
    """
    from ..pictures.picture import find_pictures
    from ..visualization import visualize_frames

    file = out_file(out, ENDINGS)
    film = Film(out_file(video, (".gif", ".webp"))) if video is not None else None
    opened = open_from(model, options)
    others = [_other(spec) for spec in also or []]
    images = list(find_pictures(image)) if image else None
    frames = visualize_frames(
        opened,
        list(target) if target else None,
        recipe=recipe,
        objective=objective,
        image=images,
        layer=layer,
        steps=steps,
        count=count,
        diverse=diverse,
        settings=dict(_assignment(text) for text in settings or []),
        pictures=list(find_pictures(pictures)) if pictures else None,
        also=others,
        pixels=film is not None,
    )
    results: Visualizations | None = None
    with common.progress("Climbing", None, quiet=json) as bar:
        for frame in frames:
            bar.at(frame.done, frame.total)
            if film is not None:
                film.add(frame)
            results = frame.results or results
    assert results is not None
    if film is not None:
        film.write()
    written = write(results, file, transparent=transparent)
    if json:
        rows = [{**one.to_dict(), "file": str(path)} for one, path in zip(results, written, strict=True)]
        print_json(rows[0] if len(rows) == 1 else rows)
    else:
        for one in results:
            say(_line(one))
            for doubt in one.doubts:
                complain(f"  {doubt}")
        say(str(file))
    return common.STOPPED if results.stopped else common.DONE


def write(results: Visualizations, file: Path, *, transparent: bool = False) -> list[Path]:
    """The pictures to ``file``: one bare, several as a sheet with each of them in a folder beside it.

    Returns where each picture is.
    """
    single = len(results) == 1
    written: list[Path] = []
    if single and file.suffix.lower() in (".png", ".webp"):
        written.append(results[0].save(file))
    else:
        results.sheet().save(file.with_suffix(".png") if file.suffix.lower() == ".webp" else file)
        folder = common.out_folder(file.with_suffix(""))
        taken: set[str] = set()
        for one in results:
            written.append(one.save(folder / f"{_stem(one, taken)}.png"))
    for one, path in zip(results, written, strict=True):
        if transparent and one.transparency is not None:
            one.save(path.with_name(f"{path.stem}-transparent.png"), transparent=True)
        if one.original is not None and one.objective != "invert":
            write_image(path.with_name(f"{path.stem}-difference.png"), one.difference)
    if single and results[0].original is not None:
        results.sheet().save(written[0].with_name(f"{written[0].stem}-sheet.png"))
    return written


def _stem(one: Visualization, taken: set[str]) -> str:
    plain = "".join(c if c.isalnum() or c in "-_.@," else "-" for c in one.target).strip("-")[:80] or "picture"
    stem, number = plain, 1
    while stem in taken:
        number += 1
        stem = f"{plain}-{number}"
    taken.add(stem)
    return stem


def _line(one: Visualization) -> str:
    parts = [one.target, f"score {one.score:.4g}"]
    if one.probability is not None:
        parts.append(f"p {one.probability:.3f}")
    if one.rank is not None:
        parts.append(f"rank {one.rank}")
    if one.natural is not None:
        parts.append(f"best of {one.natural['pictures']} real pictures {one.natural['score']:.4g}")
    if one.agreement is not None:
        parts.append(f"seeds agree {one.agreement['cosine']:.2f}")
    for other in one.also:
        if "rank" in other:
            parts.append(f"{other['model']} rank {other['rank']} (p {other['probability']:.2f})")
    if "change" in one.facts:
        parts.append(f"mean change {one.facts['change']['mean']:.2f} of 255, L2 {one.facts['change']['l2']:.2f}")
    if "feature_error" in one.facts:
        parts.append(f"features {one.facts['feature_error']:.1%} off, pixels {one.facts['pixel_error']:.0%}")
    return "  ".join(parts)


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"--set {text}: it must be NAME=VALUE, such as rate=0.1.")
    return name.strip(), value.strip()


def _other(spec: str) -> Any:
    from ..models.opening import open_model

    # SPEC or SPEC=WEIGHTS: the second network may need its own file
    name, _, weights = spec.partition("=")
    return open_model(name, weights=weights or None)


class Film:
    """The frames of an ascent, tiled, as an animated GIF or WebP. At most some hundred are kept."""

    KEPT = 160

    def __init__(self, file: Path) -> None:
        self.file = file
        self.cells: dict[int, Any] = {}
        self.frames: list[Any] = []
        self.seen = 0
        self.stride = 1

    def add(self, frame: Any) -> None:
        """Note a frame; every second one is dropped whenever there are too many."""
        for index, image in zip(frame.indices, frame.images, strict=True):
            self.cells[index] = image.convert("RGB")
        self.seen += 1
        if frame.results is None and self.seen % self.stride:
            return
        self.frames.append(dict(self.cells))
        if len(self.frames) > self.KEPT:
            self.frames = self.frames[::2]
            self.stride *= 2

    def write(self) -> None:
        """Write the file; the last frame stays for two seconds."""
        import math

        from PIL import Image

        count = max((max(cells, default=0) for cells in self.frames), default=0) + 1
        across = math.ceil(math.sqrt(count))
        width, height = next(iter(self.frames[-1].values())).size
        pages = []
        for cells in self.frames:
            page = Image.new("RGB", (across * width, math.ceil(count / across) * height), (128, 128, 128))
            for index, image in cells.items():
                page.paste(image, (index % across * width, index // across * height))
            pages.append(page)
        durations = [80] * (len(pages) - 1) + [2000]
        settings: dict[str, Any] = {"quality": 92} if self.file.suffix == ".webp" else {}
        write_image(
            self.file, pages[0], save_all=True, append_images=pages[1:], duration=durations, loop=0, **settings
        )

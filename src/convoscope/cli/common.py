"""What the commands share: the flags of a model, JSON on standard output, progress on standard error, exit codes."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError
from ..names import shown
from ..plain import dump_json as dump_json
from ..plain import plain as plain
from ..progress import Bar as Bar
from ..progress import patience as patience
from ..progress import progress as progress

if TYPE_CHECKING:
    from ..models.model import Model
    from ..parallel import RayPool

#: exit codes
DONE, SOME_FAILED, COULD_NOT_START, STOPPED = 0, 1, 2, 130

_MODEL_PANEL = "The model"

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="toybox, resnet50, timm:NAME, path/net.py:function, ...")
]
JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, and nothing else.")]

RayFlag = Annotated[
    str | None,
    typer.Option("--ray", metavar="local|ADDRESS", help="Work in several processes: here, or on a Ray cluster."),
]
TruthFlag = Annotated[
    str | None, typer.Option("--truth", metavar="CSV", help="File and label of each picture; default: folder names.")
]
PicturesArgument = Annotated[
    str, typer.Argument(metavar="PICTURES|STORE", help="Labelled pictures: a folder of class folders, or a survey.")
]
TrainFlag = Annotated[
    str | None, typer.Option("--train", metavar="FOLDER|STORE", help="What the network was trained on.")
]
IsPartFlag = Annotated[
    list[str] | None, typer.Option("--is-part", metavar="CLASS", help="Its spot is a part of the thing.")
]
NotPartFlag = Annotated[
    list[str] | None, typer.Option("--not-part", metavar="CLASS", help="Its spot is no part of the thing.")
]
WorkersFlag = Annotated[int | None, typer.Option("--workers", min=1, help="Processes of --ray.")]


def model_flag(*names: str, help: str, **settings: Any) -> Any:
    """A flag in the help's panel of model settings."""
    return typer.Option(*names, help=help, rich_help_panel=_MODEL_PANEL, **settings)


@dataclass(frozen=True)
class ModelOptions:
    """The flags that every command with a MODEL has; :func:`takes_model` adds them, :func:`open_from` uses them."""

    weights: Annotated[
        str | None, model_flag("--weights", help="FILE (safetensors or a state dict), or none for random ones.")
    ] = None
    labels: Annotated[str | None, model_flag("--labels", help="File with one class name a line.")] = None
    size: Annotated[str | None, model_flag("--size", help="Input size: 224, or 224x320 (height×width).")] = None
    mean: Annotated[str | None, model_flag("--mean", help="Mean of each channel: 0.485,0.456,0.406")] = None
    std: Annotated[str | None, model_flag("--std", help="Deviation of each channel: 0.229,0.224,0.225")] = None
    fit: Annotated[str | None, model_flag("--fit", help="crop, squash or pad the picture to the size.")] = None
    interpolation: Annotated[
        str | None,
        model_flag("--interpolation", help="bilinear, bicubic, nearest or lanczos, for resizing pictures."),
    ] = None
    device: Annotated[str | None, model_flag("--device", help="cpu, cuda, cuda:1, mps; default: what is there.")] = (
        None
    )
    dtype: Annotated[str | None, model_flag("--dtype", help="float32, float64, float16 or bfloat16.")] = None
    output: Annotated[
        str | None,
        model_flag("--output", help="Which element is meant, where the network returns several: logits, 1."),
    ] = None
    batch_size: Annotated[int, model_flag("--batch-size", help="Pictures in one pass.")] = 32
    seed: Annotated[int, model_flag("--seed", help="Of everything random.")] = 0
    trust_pickle: Annotated[
        bool, model_flag("--trust-pickle", help="Open weights that run code; only if you trust who made them.")
    ] = False


def takes_model(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give ``command`` the flags of :class:`ModelOptions`, handed over as its parameter ``options``."""
    from typing import get_type_hints

    signature = inspect.signature(command, eval_str=True)
    hints = get_type_hints(ModelOptions, include_extras=True)
    names = [f.name for f in fields(ModelOptions)]
    own = [p for p in signature.parameters.values() if p.name != "options"]
    flags = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name])
        for f in fields(ModelOptions)
    ]
    return with_signature(
        command,
        [*own, *flags],
        lambda given: {
            **{k: v for k, v in given.items() if k not in names},
            "options": ModelOptions(**{k: given[k] for k in names if k in given}),
        },
    )


def with_signature(
    command: Callable[..., Any],
    parameters: list[inspect.Parameter],
    gather: Callable[[dict[str, Any]], dict[str, Any]],
) -> Callable[..., Any]:
    """``command`` under another signature for Typer to read; ``gather`` turns what is given into its arguments."""
    # required ones first: Python wants it so, and Typer keeps the order within arguments and options
    keyed = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]

    @functools.wraps(command)
    def wrapped(**given: Any) -> Any:
        return command(**gather(given))

    wrapped.__signature__ = inspect.Signature(keyed)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in keyed}
    del wrapped.__wrapped__  # type: ignore[attr-defined]
    return wrapped


def flags_of(options: ModelOptions) -> tuple[str, ...]:
    """The model flags as they were typed, to be repeated in the next command."""
    given: list[str] = []
    for one in fields(ModelOptions):
        value = getattr(options, one.name)
        if value == one.default or one.name in ("device", "batch_size"):
            continue
        name = "--" + one.name.replace("_", "-")
        given += [name] if value is True else [name, str(value)]
    return tuple(given)


def closing(failed: Any, interrupted: Any, refused: bool) -> int:
    """The exit code; what failed is named on standard error."""
    for sentence in list(failed.values())[:20]:
        complain(sentence)
    if len(failed) > 20:
        complain(f"... and {len(failed) - 20} more that failed; the page names them.")
    if interrupted:
        complain(f"Stopped before: {', '.join(interrupted)}. What was done is kept.")
        raise SystemExit(STOPPED)
    return SOME_FAILED if failed or refused else DONE


def open_from(spec: str, options: ModelOptions) -> Model:
    """The model of a command, opened by its flags; what a person must know of it is said on standard error."""
    from ..collector import settle
    from ..models.opening import open_model

    with patience(f"Opening {spec}"):
        model = open_model(
            spec,
            weights=options.weights,
            labels=options.labels,
            size=read_size(options.size),
            mean=read_numbers("mean", options.mean),
            std=read_numbers("std", options.std),
            fit=options.fit,
            interpolation=options.interpolation,
            device=options.device,
            dtype=options.dtype,
            batch_size=options.batch_size,
            seed=options.seed,
            trust_pickle=options.trust_pickle,
            output=options.output,
        )
    settle()
    for note in model.notes:
        complain(f"Note: {note}")
    return model


def check_workers(ray: str | None, workers: int | None) -> None:
    """Raises :class:`UsageError` for ``--workers`` without ``--ray``, and for a cluster that cannot be had."""
    if workers is not None and ray is None:
        raise UsageError("--workers is the number of processes of --ray: add --ray local, or a cluster's address.")
    if ray is not None:
        from ..parallel import check_cluster

        check_cluster(ray, workers)


def spread_over(spec: str, options: ModelOptions, ray: str | None, workers: int | None) -> RayPool | None:
    """What ``--ray`` and ``--workers`` ask for: each worker opens the network by the command's own flags."""
    check_workers(ray, workers)
    if ray is None:
        return None
    from ..parallel import RayPool
    from ..surveys.store.recipe import absolute_spec

    # a worker may stand in another folder
    whole = absolute_spec(spec) or spec
    files = {
        name: str(Path(path).resolve())
        for name in ("weights", "labels")
        if (path := getattr(options, name)) is not None and Path(path).is_file()
    }
    asked = replace(options, **files)  # type: ignore[arg-type]

    def opening(device: str) -> Model:
        return open_from(whole, asked if asked.device else replace(asked, device=device))

    return RayPool(ray, workers, opening)


def read_size(text: str | None) -> int | tuple[int, int] | None:
    """``224`` or ``224x320`` (height×width)."""
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d+)\s*(?:[x×,]\s*(\d+)\s*)?", text)
    if found is None or int(found[1]) < 1 or (found[2] is not None and int(found[2]) < 1):
        raise UsageError(f"--size must be one number (224) or height×width (224x320), not {text!r}.")
    return int(found[1]) if found[2] is None else (int(found[1]), int(found[2]))


def read_numbers(name: str, text: str | None) -> tuple[float, ...] | None:
    """Numbers between commas or spaces, one a channel."""
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in re.split(r"[,\s]+", text.strip()) if part)
    except ValueError:
        values = ()
    if not values or not all(map(math.isfinite, values)):
        raise UsageError(f"--{name} must be one number a channel (0.485,0.456,0.406), not {text!r}.")
    return values


def split_names(text: str | None) -> list[str]:
    """What stands between commas; brackets and quotes are not needed, since methods and layers hold no commas."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


#: folders that this command has made, the outermost first
_made: list[Path] = []


def forget_empty() -> None:
    """Take away the folders that this command made and put nothing into: it was refused before work began."""
    while _made:
        with contextlib.suppress(OSError):  # it holds something, or is gone
            _made.pop().rmdir()


def out_folder(path: str | Path) -> Path:
    """The folder, made where it is not there. Raises :class:`UsageError` where it cannot be."""
    folder = Path(path)
    _made.extend(part.absolute() for part in reversed((folder, *folder.parents)) if not os.path.lexists(part))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        link = next((part for part in (folder, *folder.parents) if part.is_symlink() and not part.exists()), None)
        what = "this is a file, not a folder" if link is None else f"{link} is a link that leads nowhere"
        raise UsageError(f"--out {folder}: {what}.") from None
    except OSError as error:
        raise UsageError(f"--out {folder}: the folder cannot be made ({error.strerror}).") from None
    return folder


def out_file(path: str | Path, endings: tuple[str, ...] = (".png", ".pdf", ".svg")) -> Path:
    """A file to write, its folder made. Raises :class:`UsageError` for an ending that cannot be written."""
    file = Path(path)
    if file.is_dir():
        raise UsageError(f"--out {file}: this is a folder; name a file ({', '.join(endings)}).")
    if file.suffix.lower() not in endings:
        raise UsageError(f"--out {file}: the file must end in {', '.join(endings)}.")
    out_folder(file.parent)
    return file


def print_json(document: Any) -> None:
    """The one thing that a command with ``--json`` prints on standard output."""
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "")
    _write(sys.stdout, dump_json(document, ascii=encoding != "utf8"))


def say(text: str, *, json: bool = False) -> None:
    """A result line: on standard output, or on standard error where that belongs to JSON."""
    _write(sys.stderr if json else sys.stdout, shown(text))


def complain(text: str) -> None:
    """A sentence on standard error."""
    if text:
        _write(sys.stderr, shown(text))


def _write(stream: Any, text: str) -> None:
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        # whoever read this has seen enough (`| head`): the work goes on to its end, in silence
        quieten(stream)


def quieten(stream: Any) -> None:
    """From now on what is written to ``stream`` goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def columns(header: Sequence[str], rows: Sequence[Sequence[str]], *, wrap: int | None = None) -> str:
    """A table in plain text: columns as wide as they need be, so that it can be searched and piped.

    ``wrap`` is the column that gives way where a terminal is too narrow; piped tables are never wrapped.
    """
    table = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    if wrap is not None and sys.stdout.isatty():
        room = shutil.get_terminal_size().columns
        others = sum(widths) - widths[wrap] + 2 * (len(widths) - 1)
        widths[wrap] = min(widths[wrap], max(24, room - others))
    lines = []
    for row in table:
        cells = [textwrap.wrap(cell, width) or [""] for cell, width in zip(row, widths, strict=True)]
        for number in range(max(map(len, cells))):
            parts = (cell[number] if number < len(cell) else "" for cell in cells)
            lines.append("  ".join(part.ljust(width) for part, width in zip(parts, widths, strict=True)).rstrip())
    return "\n".join(lines)

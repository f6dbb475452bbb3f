"""What the commands share: the flags of a model, JSON on standard output, progress on standard error, exit codes."""

from __future__ import annotations

import functools
import inspect
import json
import math
import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError
from ..names import in_json, shown

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


def open_from(spec: str, options: ModelOptions) -> Model:
    """The model of a command, opened by its flags; what a person must know of it is said on standard error."""
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
        )
    for note in model.notes:
        complain(f"Note: {note}")
    return model


def check_workers(ray: str | None, workers: int | None) -> None:
    """Raises :class:`UsageError` for ``--workers`` without ``--ray``."""
    if workers is not None and ray is None:
        raise UsageError("--workers is the number of processes of --ray: add --ray local, or a cluster's address.")


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


def out_folder(path: str | Path) -> Path:
    """The folder, made where it is not there. Raises :class:`UsageError` where it cannot be."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UsageError(f"--out {folder}: this is a file, not a folder.") from None
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


def plain(value: Any) -> Any:
    """``value`` as JSON's own types: NaN and infinity become null, arrays and tensors lists, paths text."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    if isinstance(value, bool) or value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if hasattr(value, "to_dict"):
        return plain(value.to_dict())
    return str(value)


def dump_json(document: Any, *, ascii: bool = False) -> str:
    """One JSON document, readable, without NaN; short lists of numbers stand on one line.

    Names of files that are not UTF-8 are written as JSON's own escapes, and come back from them as they were.
    """
    text = json.dumps(plain(document), indent=2, ensure_ascii=ascii, allow_nan=False)
    # inside strings a line break is written as an escape: what matches here is never part of one
    text = re.sub(r"\[\n[^\[\]{}\"]*\]", lambda found: "[" + " ".join(found[0][1:-1].split()) + "]", text)
    return in_json(text)


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


class Bar:
    """Progress of one piece of work on standard error, shown only once it has taken two seconds on a terminal."""

    def __init__(self, what: str, total: int | None, quiet: bool) -> None:
        self.what, self.total, self.done = what, total, 0
        self.shown: Any = None
        self.task: Any = None
        self._since = time.monotonic()
        self._quiet = quiet or not sys.stderr.isatty()

    def advance(self, count: int = 1) -> None:
        """``count`` more are done."""
        self.at(self.done + count)

    def at(self, done: int, total: int | None = None, what: str | None = None) -> None:
        """``done`` of ``total`` are done."""
        self.done, self.total, self.what = done, total or self.total, what or self.what
        if self._quiet or (self.shown is None and time.monotonic() - self._since < 2):
            return
        if self.shown is None:
            self._start()
        self.shown.update(self.task, completed=self.done, total=self.total, description=self.what)

    def _start(self) -> None:
        from rich import progress
        from rich.console import Console

        self.shown = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("left"),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self.shown.start()
        self.task = self.shown.add_task(self.what, total=self.total)
        # the time before the bar was shown counts for the estimate
        self.shown.tasks[0].start_time = self.shown.get_time() - (time.monotonic() - self._since)

    def stop(self) -> None:
        if self.shown is not None:
            self.shown.stop()


@contextmanager
def progress(what: str, total: int | None = None, *, quiet: bool = False) -> Iterator[Bar]:
    """A :class:`Bar` for the block; ``quiet`` (``--json``) never shows it."""
    bar = Bar(what, total, quiet)
    try:
        yield bar
    finally:
        bar.stop()


@contextmanager
def patience(what: str) -> Iterator[None]:
    """A spinner on a terminal for work without steps (opening a network)."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(f"{what} ..."):
        yield

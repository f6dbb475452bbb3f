"""The command line: thin Typer commands over the public functions.

Every module of this package that has a ``register(app)`` adds its commands. None of them imports torch before a
command runs, so that ``--help`` and ``--version`` answer at once.
"""

from __future__ import annotations

import errno
import importlib
import os
import pkgutil
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..allocator import tune_allocator
from ..collector import collect_rarely
from ..files import disk_trouble
from . import contents
from .common import COULD_NOT_START, DONE, STOPPED, complain, forget_empty, quieten

if TYPE_CHECKING:
    import typer

#: the commands' modules in the order of the help; others follow by name
_ORDER = (
    "explain", "rerun", "look", "occlude", "visualize", "survey", "browse", "diff", "trust", "diagnose", "serve",
    "report", "toybox", "demo",
)  # fmt: skip
#: bytes of address space that torch and Lance together ask for, most of them never used
_ADDRESSES = 6 * 2**30
_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "can't start new thread",
)
_HELP = (
    "A microscope for convolutional networks: what is inside, why it decides as it does, how it would be improved. "
    "MODEL is toybox, toybox-robust, toybox-cheat, a torchvision name (resnet50), timm:NAME, or path/net.py:function."
)


def build(given: Sequence[str] | None = None) -> typer.Typer:
    """The application, with the commands that these arguments can mean; with all of them where there are none given.

    For the help of the whole program no module is imported; for a command, only its own.
    """
    import typer

    app = typer.Typer(
        name="convoscope",
        help=_HELP,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def convoscope(
        version: bool = typer.Option(
            False, "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ) -> None:
        pass

    named = [module.name for module in pkgutil.iter_modules(__path__)]
    names = sorted(named, key=lambda n: (_ORDER.index(n) if n in _ORDER else len(_ORDER), n))
    told = {name: contents.commands(Path(__path__[0]) / f"{name}.py") for name in names}
    for name in _needed(told, given):
        _register(app, name)
    if given is not None and _is_help(given):
        for name, found in told.items():
            if found is None:
                _register(app, name)
            for command, sentence in (found or {}).items():
                app.command(command, help=sentence)(_only_named)
    return app


def _needed(told: Mapping[str, Mapping[str, str] | None], given: Sequence[str] | None) -> list[str]:
    """The modules that must be imported for these arguments."""
    if given is not None and _is_help(given):
        return []
    if given and not given[0].startswith("-") and not any(name.endswith("_COMPLETE") for name in os.environ):
        for name, found in told.items():
            if found is not None and given[0] in found:
                return [name]
    return list(told)


def _is_help(given: Sequence[str]) -> bool:
    return list(given) in ([], ["--help"], ["-h"])


def _register(app: typer.Typer, name: str) -> None:
    register = getattr(importlib.import_module(f".{name}", __name__), "register", None)
    if register is not None:
        register(app)


def _only_named() -> None:
    """A command in the program's help: it is never run."""


def _print_version(value: bool) -> None:
    if value:
        import typer

        from ..version import __version__

        typer.echo(f"convoscope {__version__}")
        raise typer.Exit


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 some pictures failed, 2 could not start, 130 stopped.

    Whatever is raised becomes one sentence on standard error; ``CONVOSCOPE_TRACEBACK=1`` shows the traceback too.
    A folder that was made for ``--out`` and stayed empty is taken away again.
    """
    try:
        return _run(arguments)
    finally:
        forget_empty()


def _run(arguments: Sequence[str] | None) -> int:
    import typer

    from ..errors import ConvoscopeError
    from ..extras import missing

    _prepare_streams()
    complain(_limits())
    try:
        given = list(sys.argv[1:] if arguments is None else arguments)
        with warnings.catch_warnings():
            if not _wants_traceback():
                # what libraries mumble of damaged EXIF data and the like means nothing to who runs a command
                warnings.simplefilter("ignore")
            code = build(given)(args=given, prog_name="convoscope", standalone_mode=False)
        sys.stdout.flush()
        if code == STOPPED:  # Typer has made this of a KeyboardInterrupt
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except SystemExit as stop:  # a command that has itself said why it ends
        if isinstance(stop.__context__, BrokenPipeError):  # Click ends with 1 where the reader is gone
            quieten(sys.stdout)
            return DONE
        return stop.code if isinstance(stop.code, int) else COULD_NOT_START
    except typer.Exit as stop:
        return int(stop.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        complain("Stopped. What was done is kept.")
        return STOPPED
    except BrokenPipeError:
        # whoever read our output has seen enough (`| head`): nothing to say, and nothing to flush at exit
        quieten(sys.stdout)
        return DONE
    except ConvoscopeError as error:
        _show_traceback()
        complain(str(error))
        return COULD_NOT_START
    except Exception as error:
        _show_traceback()
        message = getattr(error, "format_message", None)  # Typer's own usage errors
        if callable(message):
            complain(_usage(error, message()))
        elif isinstance(error, ImportError) and (extra := missing(error)) is not None:
            complain(str(extra))
        else:
            complain(_unexpected(error))
        return COULD_NOT_START


def _prepare_streams() -> None:
    """Standard output that is closed, or that cannot show every letter, is no reason to lose work."""
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:  # closed by `>&-`: else the next file opened would get its number
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _limits() -> str:
    """What must be known of a limit on the address space: libraries that hit it abort, and nobody can say so then."""
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return ""
    allowed = resource.getrlimit(resource.RLIMIT_AS)[0]
    if allowed == resource.RLIM_INFINITY or allowed >= _ADDRESSES:
        return ""
    return (
        f"Note: this process may use only {allowed / 2**30:.1f} GB of addresses (ulimit -v). Lance, which keeps a "
        f"survey's store, wants {_ADDRESSES / 2**30:.0f} GB, and ends the program (Aborted) where it gets less."
    )


def _usage(error: Exception, message: str) -> str:
    if not message.strip():  # `convoscope` alone has printed its help
        return ""
    context = getattr(error, "ctx", None)
    path = getattr(context, "command_path", "convoscope")
    said = message.strip().rstrip(".")
    return f"{said}{'' if said.endswith('?') else '.'} `{path} --help` shows how it is used."


def _unexpected(error: Exception) -> str:
    lower = str(error).lower()
    if isinstance(error, (ImportError, OSError)) and ("failed to map segment" in lower or "cannot allocate" in lower):
        return f"The memory that this process may use is too small to load its libraries: raise ulimit -v. ({error})"
    short = isinstance(error, OSError) and error.errno == errno.ENOMEM
    if isinstance(error, MemoryError) or short or any(one in lower for one in _OUT_OF_MEMORY):
        return "Out of memory: use a smaller --batch-size or --size, or --device cpu."
    if isinstance(error, OSError) and (why := disk_trouble(error)):
        return why
    said = " ".join(str(error).split())[:300]
    return (
        f"Something went wrong that should not ({type(error).__name__}{': ' + said if said else ''}). "
        "Set CONVOSCOPE_TRACEBACK=1 and run it again to see where; please report it."
    )


def _wants_traceback() -> bool:
    return os.environ.get("CONVOSCOPE_TRACEBACK", "") not in ("", "0")


def _show_traceback() -> None:
    if _wants_traceback():
        import traceback

        traceback.print_exc()


def main() -> None:
    """The ``convoscope`` command, in a process of its own."""
    tune_allocator()
    collect_rarely()
    sys.exit(run())

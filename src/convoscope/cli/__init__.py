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
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .common import COULD_NOT_START, DONE, STOPPED, complain, quieten

if TYPE_CHECKING:
    import typer

#: the commands' modules in the order of the help; others follow by name
_ORDER = (
    "explain",
    "look",
    "occlude",
    "visualize",
    "survey",
    "trust",
    "diagnose",
    "serve",
    "report",
    "toybox",
    "demo",
)
_ORDER = ("explain", "look", "occlude", "visualize", "survey", "diff", "trust", "serve", "report", "toybox", "demo")
_HELP = (
    "A microscope for convolutional networks: what is inside, why it decides as it does, how it would be improved. "
    "MODEL is toybox, toybox-robust, toybox-cheat, a torchvision name (resnet50), timm:NAME, or path/net.py:function."
)


def build() -> typer.Typer:
    """The application with every module's commands."""
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

    names = [module.name for module in pkgutil.iter_modules(__path__)]
    for name in sorted(names, key=lambda n: (_ORDER.index(n) if n in _ORDER else len(_ORDER), n)):
        register = getattr(importlib.import_module(f".{name}", __name__), "register", None)
        if register is not None:
            register(app)
    return app


def _print_version(value: bool) -> None:
    if value:
        import typer

        from ..version import __version__

        typer.echo(f"convoscope {__version__}")
        raise typer.Exit


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 some pictures failed, 2 could not start, 130 stopped.

    Whatever is raised becomes one sentence on standard error; ``CONVOSCOPE_TRACEBACK=1`` shows the traceback too.
    """
    import typer

    from ..errors import ConvoscopeError

    _prepare_streams()
    try:
        given = list(sys.argv[1:] if arguments is None else arguments)
        with warnings.catch_warnings():
            if not _wants_traceback():
                # what libraries mumble of damaged EXIF data and the like means nothing to who runs a command
                warnings.simplefilter("ignore")
            code = build()(args=given, prog_name="convoscope", standalone_mode=False)
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


def _usage(error: Exception, message: str) -> str:
    if not message.strip():  # `convoscope` alone has printed its help
        return ""
    context = getattr(error, "ctx", None)
    path = getattr(context, "command_path", "convoscope")
    return f"{message.strip().rstrip('.')}. `{path} --help` shows how it is used."


def _unexpected(error: Exception) -> str:
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "Out of memory: use a smaller --batch-size or --size, or --device cpu."
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}the disk is full. Make room and run the same command again: what was done is kept."
    if isinstance(error, OSError) and error.errno == errno.EIO:
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}the disk, or standard output, reported an error (input/output error)."
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}."
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
    """The ``convoscope`` command."""
    sys.exit(run())

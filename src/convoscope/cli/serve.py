"""``convoscope serve``: the page, on this machine."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import MissingExtra, UsageError
from .common import ModelArgument, ModelOptions, complain, open_from, say, takes_model

if TYPE_CHECKING:
    from ..models.model import Model

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(serve)


@takes_model
def serve(
    model: ModelArgument,
    options: ModelOptions,
    images: Annotated[
        str | None, typer.Option("--images", metavar="DIR", help="Folder of pictures to show; nothing else is read.")
    ] = None,
    survey: Annotated[
        str | None,
        typer.Option("--survey", metavar="STORE", help="Store of `convoscope survey`: units, map, mistakes."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against", metavar="MODEL2", help="A second network, shown beside it; with --against-weights."
        ),
    ] = None,
    against_weights: Annotated[
        str | None, typer.Option("--against-weights", metavar="FILE", help="Weights of the second network.")
    ] = None,
    diagnosis: Annotated[
        list[str] | None,
        typer.Option(
            "--diagnosis", metavar="DIR", help="What diagnose, diff, shortcuts, audit, concepts wrote with --out."
        ),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; beyond this machine a token is asked.")
    ] = ("127.0.0.1"),
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    token: Annotated[
        str | None, typer.Option("--token", help="Ask for this token; default: one is made where needed.")
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option("--name", help="Further host name under which this machine is reached.")
    ] = None,
    browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Show the network as a page: decisions, layers, units, the collection.

    Only this machine can reach it unless --host says otherwise, and then only with the token. Pictures that are
    dropped in stay in memory. Ctrl-C ends it.
    """
    if token is not None and len(token) < 8:
        raise UsageError("--token must have at least 8 characters.")
    listening = _listen(host, port)
    try:
        second = _second(against, against_weights, options)
        app = _app(model, options, images, survey, _token(host, token), [host, *(name or [])], second, diagnosis)
        _run(app, listening, host, browser, model)
    finally:
        listening.close()


def _second(against: str | None, weights: str | None, options: ModelOptions) -> Model | None:
    """The network of --against: the first one's flags (size, labels, ...) hold for it, too, but for its weights."""
    from dataclasses import replace

    if against is None:
        if weights is not None:
            raise UsageError("--against-weights goes with --against MODEL2.")
        return None
    return open_from(against, replace(options, weights=weights))


def _token(host: str, token: str | None) -> str | None:
    return token or (None if host in _LOOPBACK else secrets.token_urlsafe(18))


def _listen(host: str, port: int) -> socket.socket:
    """The bound socket: before the network is opened, so that a port that is taken is said at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise UsageError(
            f"Cannot listen on {host}:{port} ({error.strerror or error}): choose another --port."
        ) from None
    return found


def _app(
    spec: str, options: ModelOptions, images: str | None, survey: str | None, token: str | None, hosts: list[str],
    against: Model | None = None, diagnosis: list[str] | None = None,
) -> Any:  # fmt: skip
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise MissingExtra("fastapi and uvicorn", "web", "The page") from None
    from ..web.app import create_app
    from ..web.build_survey import store_for, there
    from .common import flags_of

    if images is not None and not Path(images).is_dir():
        raise UsageError(f"--images {images}: there is no such folder.")
    model = open_from(spec, options)
    folder = Path(images) if images is not None else _bundled(spec)
    into = None if folder is None or survey is not None else store_for(model, folder)
    store: Any = survey
    if store is None and into is not None and there(into):
        store = _opened(model, into)
    app = create_app(
        model, folder, store, token, hosts=hosts, survey_into=into, title=spec, against=against,
        diagnosis=diagnosis or (), findings_into=_findings(survey or into), flags=flags_of(options),
    )  # fmt: skip
    app.state.token = token
    # a network that cannot be shown is refused here, and not by every page that opens
    from ..web.routes.about import about
    from ..web.routes.layers import rows_of

    about(app.state.app_state)
    rows_of(app.state.app_state)
    if store is None and images is None and folder is not None and _classifies(spec):
        _survey_now(app)
    return app


def _findings(store: str | None) -> str | None:
    """Where the page keeps what it finds: beside the store, so that it is there again the next time."""
    return None if store is None or "://" in store else f"{store.rstrip('/')}.findings"


def _bundled(spec: str) -> Path | None:
    """The toybox's own pictures for the toybox's networks: they are drawn on first use."""
    from ..toybox import NAMES

    if spec not in NAMES:
        return None
    from ..web.build_survey import toybox_pictures
    from .common import patience

    with patience("Drawing the toybox"):
        return toybox_pictures(spec)


def _classifies(spec: str) -> bool:
    from ..toybox import card

    return card(spec).kind == "classifier"


def _opened(model: Model, into: str) -> Any:
    """The kept survey; ``None`` where it cannot be read any more, since it can be made again."""
    from ..errors import ConvoscopeError
    from ..web.build_survey import open_store

    try:
        return open_store(model, into).store
    except ConvoscopeError as error:
        complain(f"The kept survey cannot be used: {error}")
        return None


def _survey_now(app: Any) -> None:
    """Begin the bundled survey; the page is there meanwhile, and shows how far it is."""
    from ..errors import ConvoscopeError
    from ..web.schemas import JobRequest
    from ..web.work import prepare

    app_state = app.state.app_state
    try:
        key, title, work = prepare(app_state, JobRequest(kind="survey"))
        app_state.jobs.submit("survey", key, title, work, lasting=True)
    except ConvoscopeError as error:
        complain(str(error))


def _run(app: Any, listening: socket.socket, host: str, browser: bool, spec: str) -> None:
    import uvicorn

    token = app.state.token
    number = listening.getsockname()[1]
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{number}/" + (f"?token={token}" if token else "")
    say(f"Convoscope shows {spec} at {address}")
    if host not in _LOOPBACK:
        complain("Other machines can reach it: whoever has the whole address sees the network and the pictures.")
    complain("Ctrl-C ends it.")
    if browser:
        import webbrowser

        webbrowser.open(address)
    settings = uvicorn.Config(
        app, log_level="warning", timeout_graceful_shutdown=2, server_header=False, limit_concurrency=512
    )
    uvicorn.Server(settings).run(sockets=[listening])

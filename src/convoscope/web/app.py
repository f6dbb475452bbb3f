"""The app: the rooms, the guard at the door, the static page."""

from __future__ import annotations

import mimetypes
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtra

try:
    from fastapi import FastAPI, HTTPException, Request, Response
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
except ImportError:
    raise MissingExtra("fastapi", "web", "The page") from None

from ..errors import ConvoscopeError
from ..files import disk_trouble
from ..names import shown
from ..version import __version__
from . import schemas
from .jobs import Jobs
from .picture_library import UPLOAD_BYTES, PictureLibrary
from .request_queue import BusyError
from .routes import browse, collection, decide, improve, layers, pictures, teach, units
from .routes import jobs as line
from .security import Guard
from .serving import bench_of, json
from .shelf import Shelf
from .state import AppState

if TYPE_CHECKING:
    from ..models.model import Model

STATIC = resources.files("convoscope.web") / "static"
_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".json": "application/json",
          ".svg": "image/svg+xml", ".webmanifest": "application/manifest+json"}  # fmt: skip


def create_app(
    model: Model | Any,
    images: str | Path | None = None,
    store: str | Path | Any = None,
    token: str | None = None,
    *,
    hosts: Iterable[str] = (),
    survey_into: str | None = None,
    title: str = "",
    against: Model | Any = None,
    diagnosis: Iterable[str | Path] = (),
    findings_into: str | Path | None = None,
    flags: Iterable[str] = (),
    framed: bool = False,
) -> FastAPI:
    """The page of ``model`` (a :class:`~convoscope.Model` or a spec) as an ASGI app.

    ``images`` is the folder whose pictures are shown; nothing outside it is read. ``store`` is a survey's store (a
    path or an open one). ``token`` is asked of everybody. ``hosts`` are names that the server answers to besides the
    loopback's. ``survey_into``: where a survey of ``images`` may be written when somebody asks for one.
    ``against`` is a second network that is shown beside it on the same pictures. ``diagnosis`` are folders of what
    ``diagnose``, ``diff``, ``shortcuts``, ``audit`` and ``concepts`` wrote with ``--out``; what the page finds itself
    is kept in ``findings_into`` (None: while it runs). ``flags`` are the model's flags that next commands repeat.
    ``framed``: a notebook on this machine may show the page in a frame.

    Raises :class:`ConvoscopeError` subclasses: no such folder, a store of another network.
    """
    from ..models.model import Model as Opened
    from ..models.opening import open_model

    opened = model if isinstance(model, Opened) else open_model(model)
    app_state = AppState(
        opened, PictureLibrary(images), survey_into=survey_into, title=title, shelf=Shelf(diagnosis, findings_into),
        flags=tuple(flags),
    )  # fmt: skip
    app_state.jobs = Jobs()
    if store is not None:
        app_state.take(_gathered(store, opened))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        app_state.close()

    app = FastAPI(
        title="Convoscope",
        version=__version__,
        description="A microscope for convolutional networks: the same functions as the command line, over HTTP. "
        "Maps come as npy or PNG; long work goes through /api/jobs.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.app_state = app_state
    for room in (pictures, decide, layers, units, collection, browse, improve, teach, line):
        app.include_router(room.router)
    if against is not None:
        _rival(app, against)
    _page(app)
    _errors(app)
    app.add_middleware(Guard, hosts=tuple(hosts), token=token, upload=UPLOAD_BYTES, framed=framed)
    return app


def _rival(app: FastAPI, against: Model | Any) -> None:
    """The second network at ``/b``: the same rooms over the same pictures, with a cache and a line of its own."""
    from ..models.model import Model as Opened
    from ..models.opening import open_model

    first: AppState = app.state.app_state
    opened = against if isinstance(against, Opened) else open_model(against)
    second = AppState(opened, first.album, title=opened.name)
    second.jobs = Jobs()
    first.rival = second
    other = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    other.state.app_state = second
    for room in (decide, layers, teach, line):
        other.include_router(room.router)
    _about(other)
    _errors(other)
    app.mount("/b", other)


def _gathered(store: Any, model: Model) -> Any:
    from .survey_view import SurveyView

    if not isinstance(store, (str, Path)):
        return SurveyView(store, model)
    from .build_survey import open_store

    return open_store(model, store)


def _about(app: FastAPI) -> None:
    @app.get("/api/model", tags=["model"], responses=schemas.REFUSALS, response_model=schemas.Model)
    async def model(request: Request) -> Response:
        """The network, and what can be done with it here."""
        from .routes.about import about

        app_state = bench_of(request)
        return await json(app_state, f"model-{app_state.survey_stamp}", lambda: schemas.Model(**about(app_state)))


def _page(app: FastAPI) -> None:
    _about(app)

    @app.get("/api/colours/{name}", tags=["model"], responses=schemas.REFUSALS)
    async def colours(name: str) -> list[list[int]]:
        """A colour map as 511 rows of red, green, blue: the library's own, so that the page draws alike."""
        from ..draw import colour

        found: list[list[int]] = colour.colours(name[:40]).tolist()
        return found

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return _file("index.html")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return _file("docs.html")

    @app.get("/favicon.ico", include_in_schema=False)
    async def favicon() -> Response:
        return _file("icon.svg")

    @app.get("/static/{path:path}", include_in_schema=False)
    async def static(path: str) -> Response:
        return _file(path)

    @app.get("/plot/{name}", include_in_schema=False)
    async def plot(name: str) -> Response:
        if name == "plotly.min.js":
            from ..surveys.ask.map_html import plotly_source

            return Response(plotly_source(), media_type="text/javascript", headers={"cache-control": "max-age=86400"})
        if name in ("frame.html", "frame.js"):
            return _file(f"plot/{name}")
        raise HTTPException(404, "There is no such file.")


def _file(path: str) -> Response:
    """A file of the page itself, by a name that can only lead down."""
    parts = path.split("/")
    if any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts):
        raise HTTPException(404, "There is no such file.")
    file = STATIC.joinpath(*parts)
    if not file.is_file():
        raise HTTPException(404, "There is no such file.")
    ending = Path(path).suffix
    kind = _TYPES.get(ending) or mimetypes.guess_type(path)[0] or "application/octet-stream"
    return Response(file.read_bytes(), media_type=kind, headers={"cache-control": "no-cache"})


def _errors(app: FastAPI) -> None:
    @app.exception_handler(BusyError)
    async def busy(request: Request, error: BusyError) -> JSONResponse:
        return JSONResponse({"detail": shown(str(error))}, 429, {"retry-after": "1"})

    @app.exception_handler(ConvoscopeError)
    async def refused(request: Request, error: ConvoscopeError) -> JSONResponse:
        return JSONResponse({"detail": shown(str(error))}, 400)

    @app.exception_handler(OSError)
    async def disk(request: Request, error: OSError) -> JSONResponse:
        return JSONResponse(
            {"detail": shown(disk_trouble(error)) or "The disk, or the network, reported an error."}, 500
        )

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        said = [
            f"{'.'.join(str(p) for p in one['loc'][1:]) or 'the request'}: {one['msg']}" for one in error.errors()
        ]
        text = "; ".join(said)[:500].encode("utf-8", "replace").decode()
        return JSONResponse({"detail": text}, 422)


__all__ = ["create_app"]

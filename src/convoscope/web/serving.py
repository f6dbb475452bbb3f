"""Small things that the rooms share: the app_state of a request, and answers with their cache headers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from fastapi import Request, Response
from pydantic import BaseModel

if TYPE_CHECKING:
    from .state import AppState

Responses = dict[int | str, dict[str, Any]]
#: answers that depend on nothing but their address and what tells networks apart in it
FOREVER = "private, max-age=86400, immutable"


def bench_of(request: Request) -> AppState:
    """The app_state that the app was made with."""
    app_state: AppState = request.app.state.app_state
    return app_state


def lasts(request: Request) -> bool:
    """Whether an address names the network as it is served now: only then may the browser keep the answer.

    Another network, or the same one trained further, is often served at the same port the next time.
    """
    return request.query_params.get("v", "").startswith(bench_of(request).version)


def data(content: bytes, kind: str, *, lasting: bool = True, name: str | None = None) -> Response:
    """Bytes of a kind; ``lasting`` lets the browser keep them, since the address changes when they would."""
    headers = {"cache-control": FOREVER if lasting else "no-store"}
    if name is not None:
        headers["content-disposition"] = f'inline; filename="{name}"'
    return Response(content, media_type=kind, headers=headers)


def png(content: bytes, *, lasting: bool = True) -> Response:
    """A PNG."""
    return data(content, "image/png", lasting=lasting)


def npy(content: bytes, *, lasting: bool = True) -> Response:
    """A NumPy array file."""
    return data(content, "application/x-npy", lasting=lasting)


def address(path: str, app_state: AppState, **query: Any) -> str:
    """A path of this API with its query; empty values are left out, what tells networks apart is put in."""
    pairs: list[tuple[str, Any]] = []
    for name, value in query.items():
        if isinstance(value, (list, tuple)):
            pairs += [(name, one) for one in value]
        elif value is not None:
            pairs.append((name, value))
    pairs.append(("v", app_state.version))
    return f"{path}?{urlencode(pairs)}"


async def json(app_state: AppState, key: str, make: Callable[[], BaseModel], room: str = "network") -> Response:
    """What ``make`` answers, as JSON: written once, kept as bytes, sent again without another look."""

    def written() -> bytes:
        return make().model_dump_json().encode()

    content: bytes = await app_state.desk.once(f"json-{key}", written, room)
    return Response(content, media_type="application/json", headers={"cache-control": "no-store"})


NPY: Responses = {200: {"content": {"application/x-npy": {}}, "description": "A NumPy array file (float32)."}}
PNG: Responses = {200: {"content": {"image/png": {}}, "description": "A picture."}}
JPEG: Responses = {200: {"content": {"image/jpeg": {}}, "description": "A picture."}}

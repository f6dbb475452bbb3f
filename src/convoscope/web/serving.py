"""Small things that the rooms share: the bench of a request, and answers with their cache headers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from fastapi import Request, Response

if TYPE_CHECKING:
    from .bench import Bench

#: answers that depend on nothing but their address and the network's fingerprint in it
FOREVER = "private, max-age=86400, immutable"


def bench_of(request: Request) -> Bench:
    """The bench that the app was made with."""
    bench: Bench = request.app.state.bench
    return bench


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


def address(path: str, bench: Bench, **query: Any) -> str:
    """A path of this API with its query; empty values are left out, the fingerprint is put in."""
    pairs: list[tuple[str, Any]] = []
    for name, value in query.items():
        if isinstance(value, (list, tuple)):
            pairs += [(name, one) for one in value]
        elif value is not None:
            pairs.append((name, value))
    pairs.append(("v", bench.model.fingerprint[:8]))
    return f"{path}?{urlencode(pairs)}"


NPY: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/x-npy": {}}, "description": "A NumPy array file (float32)."}
}
PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}, "description": "A picture."}}
JPEG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/jpeg": {}}, "description": "A picture."}}

"""``cs.serve``: the page inside a notebook, or behind a script, in a thread of its own."""

from __future__ import annotations

import socket
import threading
import time
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..extras import need

if TYPE_CHECKING:
    from torch import nn

    from ..models.model import Model
    from ..surveys.store.store import Store

#: seconds that a server may take to begin or to end
_PATIENCE = 20.0


class Served:
    """A page that is running. A notebook shows it; :meth:`stop` ends it, as the end of the program does.

    Attributes:
        url: where it is, on this machine.
        height: of its frame in a notebook, in pixels.
    """

    def __init__(self, app: Any, height: int, port: int) -> None:
        uvicorn = need("uvicorn", "The page")
        self.height = height
        self._socket = _bound(port)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        settings = uvicorn.Config(app, log_level="warning", server_header=False, timeout_graceful_shutdown=2)
        self._server = uvicorn.Server(settings)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="convoscope-page", daemon=True
        )
        self._thread.start()
        until = time.monotonic() + _PATIENCE
        while not self._server.started and self._thread.is_alive() and time.monotonic() < until:
            time.sleep(0.02)
        if not self._server.started:
            self.stop()
            raise UsageError("The page could not be started; `convoscope serve` says more.")

    @property
    def running(self) -> bool:
        """Whether the page still answers."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End the page; the pictures that were dropped in are forgotten."""
        self._server.should_exit = True
        self._thread.join(_PATIENCE)
        self._socket.close()

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"Served({self.url}{'' if self.running else ', stopped'}): .stop() ends it"

    def _repr_html_(self) -> str:
        if not self.running:
            return "<p>The page was stopped.</p>"
        link = f'<p><a href="{escape(self.url)}" target="_blank" rel="noopener">{escape(self.url)}</a></p>'
        return (
            f'<iframe src="{escape(self.url)}/" style="width:100%;height:{self.height}px;border:1px solid #ddd" '
            f'title="Convoscope"></iframe>{link}'
        )


def serve(
    model: Model | nn.Module | str,
    pictures: str | Path | None = None,
    *,
    store: str | Path | Store | None = None,
    port: int = 0,
    height: int = 760,
) -> Served:
    """The microscope's page, on this machine, while the program goes on; a notebook shows it in a frame.

    Only this machine can reach it. A notebook whose kernel runs elsewhere needs a tunnel to the port.

    Args:
        model: an open model, a module, or a spec.
        pictures: a folder; nothing else is read. For the toybox's networks the default is its own pictures.
        store: a survey's store, for units, neighbours and the map.
        port: 0 takes a free one.
        height: of the frame in a notebook, in pixels.

    Returns:
        The running page: its ``url``, and ``stop()``; also a context manager.

    Raises:
        UsageError: no such folder, or the port is taken.
        MissingExtra: the extra ``web`` is not installed.
    """
    need("fastapi", "The page")
    need("uvicorn", "The page")
    from ..models.model import Model as Opened
    from ..models.opening import open_model
    from .app import create_app

    if pictures is not None and not Path(pictures).is_dir():
        raise UsageError(f"{pictures}: there is no such folder of pictures.")
    if not 100 <= height <= 10_000:
        raise UsageError(f"The frame's height is between 100 and 10000 pixels, not {height}.")
    opened = model if isinstance(model, Opened) else open_model(model)
    folder = Path(pictures) if pictures is not None else _own(opened)
    return Served(create_app(opened, folder, store, title=opened.name, framed=True), height, port)


def _own(model: Model) -> Path | None:
    """The toybox's own pictures for its networks; drawn at first use."""
    from ..toybox import NAMES

    if model.spec not in NAMES:
        return None
    from .build_survey import toybox_pictures

    return toybox_pictures(str(model.spec))


def _bound(port: int) -> socket.socket:
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        found.bind(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        found.close()
        raise UsageError(f"Cannot listen on port {port} ({error}): choose another, or 0 for a free one.") from None
    return found

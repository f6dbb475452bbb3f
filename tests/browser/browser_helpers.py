"""What the tests in the browser share."""

from __future__ import annotations

import asyncio
import os
import random
import re
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ARGUMENTS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    # a camera that shows a test picture, for those who are allowed one
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
]  # fmt: skip


#: width, height, language, colours: every width in both languages and both colours, each pair of them once at least
WAYS = [
    (*size, language, "dark" if (row + column) % 2 else "light")
    for row, size in enumerate([(390, 844), (1024, 768), (1440, 900), (2560, 1300)])
    for column, language in enumerate(["en", "ko"])
]


def ways(fault: str) -> list[Any]:
    """All ways of looking at the page, for ``parametrize``: one at each run, the others among the long sweeps.

    Which one it is depends on the fault, so that a short run sees several widths, languages and colours.
    """
    own = zlib.crc32(fault.encode()) % len(WAYS)
    return [
        pytest.param(way, id="-".join(map(str, way)), marks=() if at == own else pytest.mark.slow)
        for at, way in enumerate(WAYS)
    ]


def looking(way: tuple[Any, ...], **more: Any) -> dict[str, Any]:
    """How a browser's context is made for a way of looking: ``chromium.new_context(**looking(way))``."""
    width, height, language, scheme = (*way, "en", "light")[:4] if len(way) < 4 else way
    locale = "ko-KR" if language == "ko" else "en-US"
    return {"viewport": {"width": width, "height": height}, "locale": locale, "color_scheme": scheme, **more}


def word(page: Any, key: str, **gaps: Any) -> str:
    """A phrase of the page in the language that it speaks."""
    asked = "([key, gaps]) => import('/static/js/i18n.js').then((it) => it.t(key, gaps))"
    return str(page.evaluate(asked, [key, gaps]))


@dataclass
class Server:
    """A running page: its address, the app, the library's model, and the folder that it shows."""

    url: str
    app: Any
    model: Any
    folder: Path
    store: Any = None


def until(page: Any, expression: str, arg: Any = None, timeout: float = 30.0) -> None:
    """Wait until an expression (or a function of ``arg``) is true.

    Playwright's own ``wait_for_function`` evaluates strings inside the page, which the page's policy forbids.
    """
    end = time.monotonic() + timeout
    function = expression if re.match(r"(\(\)|\w+) => ", expression) else None
    while time.monotonic() < end:
        try:
            if page.evaluate(function, arg) if function else page.evaluate(expression):
                return
        except Exception as error:  # the page went to another address, or loaded itself anew, while it was asked
            if "context was destroyed" not in str(error):
                raise
        page.wait_for_timeout(50)
    raise AssertionError(f"waited {timeout:.0f} s for: {expression}")


class Held:
    """Answers of an address that wait until they are let go; those that are asked for afterwards do not wait."""

    def __init__(self, page: Any, pattern: str) -> None:
        self.page, self.pattern, self.holding = page, pattern, True
        self.waiting: list[Any] = []
        page.route(pattern, lambda route: self.waiting.append(route) if self.holding else route.continue_())

    def arrived(self) -> None:
        """Wait until it was asked for; from now on, others pass."""
        for _ in range(600):
            if self.waiting:
                self.holding = False
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"{self.pattern} was not asked for")

    def let_go(self) -> None:
        """Let the first ones go, and let the page hear their answers."""
        for route in self.waiting:
            with self.page.expect_response(route.request.url):
                route.continue_()
        self.page.wait_for_timeout(150)


def forget_uploads(server: Server) -> None:
    """What one test has dropped in is not the first picture of the next."""
    album = server.app.state.app_state.album
    with album._lock:
        for id in album._uploads:
            album._entries.pop(id, None)
        album._uploads.clear()


def delayed(app: Any, longest: float) -> Any:
    """The app with every answer held back by up to ``longest`` seconds, so that answers overtake each other."""
    draw = random.Random(7)

    async def held(scope: Any, receive: Any, send: Any) -> None:
        async def late(message: Any) -> None:
            if message["type"] == "http.response.start":
                await asyncio.sleep(draw.uniform(0, longest))
            await send(message)

        await app(scope, receive, late if scope["type"] == "http" else send)

    return held


@contextmanager
def running(app: Any, port: int = 0) -> Iterator[str]:
    """The app behind a real socket on this machine, as long as the block lasts; yields its address.

    ``CONVOSCOPE_TEST_DELAY=0.4 pytest tests/browser`` holds each answer back by up to so many seconds.
    """
    import uvicorn

    if longest := float(os.environ.get("CONVOSCOPE_TEST_DELAY") or 0):
        app = delayed(app, longest)

    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    end = time.monotonic() + 30
    while not server.started and time.monotonic() < end:
        time.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()


def missing_images(page: Any) -> list[str]:
    """The pictures of a page that cannot be shown; those further down, which wait to be seen, are fetched first."""
    return list(
        page.evaluate(
            """async () => {
              const images = [...document.images];
              for (const one of images) one.loading = 'eager';
              const shown = await Promise.all(images.map((one) => one.decode().then(() => true, () => false)));
              return images.filter((one, i) => !shown[i]).map((one) => one.src.slice(0, 80));
            }"""
        )
    )


def violations(page: Any, axe: str, scheme: str | None = None) -> list[str]:
    """What axe-core finds on the page that is serious, each as a sentence with the elements; in these colours."""
    if scheme:
        page.emulate_media(color_scheme=scheme)
    if page.evaluate("typeof axe === 'undefined'"):
        page.evaluate(axe)
    found = page.evaluate(
        "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']})"
    )
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:120] for node in one['nodes']][:3]}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]


def nothing_leaves(chromium: Any, folder: Path) -> int:
    """Open every HTML file of a folder, wide and narrow; returns how many there were."""
    files = sorted(folder.rglob("*.html"))
    for file in files:
        context = chromium.new_context(viewport={"width": 390, "height": 844})
        page = context.new_page()
        asked: list[str] = []
        errors: list[str] = []
        page.on("request", lambda one, asked=asked: asked.append(one.url))
        page.on("pageerror", lambda one, errors=errors: errors.append(str(one)))
        page.goto(file.as_uri())
        page.wait_for_load_state("load")
        own = (folder.as_uri(), "data:", "blob:")
        assert not [url for url in asked if not url.startswith(own)], (file.name, asked)
        policy = page.evaluate("document.querySelector('meta[http-equiv=Content-Security-Policy]')?.content ?? ''")
        assert "default-src 'none'" in policy, file.name
        assert page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')") == "refused"
        assert not missing_images(page), file.name
        assert not errors, (file.name, errors)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390, f"{file.name} is {wide} pixels wide on a phone"
        context.close()
    return len(files)

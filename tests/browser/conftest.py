"""The page over a real server, in the system's Chromium."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # browser_helpers

from browser_helpers import ARGUMENTS, Server, forget_uploads, looking, running, until


def missing(reason: str) -> None:
    """Skip, but not in CI: there the browser is installed, and its absence is a failure."""
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(f"{reason}: in CI this is a failure")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    import convoscope
    from convoscope.toybox import write
    from convoscope.web import create_app

    folder = tmp_path_factory.mktemp("browser") / "pictures"
    write(folder, 30, seed=11)
    model = convoscope.open_model("toybox")
    store = None
    try:
        from convoscope.surveys import survey

        store = survey(
            model, folder, folder.parent / "store", ["layer1", "layer3.1.relu#2"], truth=folder / "truth.csv"
        )
    except convoscope.ConvoscopeError:
        store = None
    app = create_app(model, folder, store)
    with running(app) as url:
        yield Server(url, app, model, folder, store)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("Playwright is not installed")
    path = os.environ.get("CONVOSCOPE_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        missing("no Chromium (apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@dataclass
class NetworkTrace:
    """A tab, with everything that went wrong in it."""

    page: Any
    server: Server
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def open(self, query: str = "") -> Any:
        """Go to the page and wait until its maps are there."""
        self.page.goto(f"{self.server.url}/?{query}")
        self.page.wait_for_selector("#centre .panel")
        if "tab=" not in query or "tab=decide" in query:
            self.settled()
        return self.page

    def settled(self) -> None:
        """Wait until nothing on the page is stale and every map has its legend."""
        until(
            self.page,
            """() => { const panel = document.querySelector('.panel');
            return panel && !panel.classList.contains('stale')
            && [...document.querySelectorAll('#maps .frame')].length > 0
            && [...document.querySelectorAll('#maps .frame')].every((f) => f.querySelector('.legend canvas')
            || f.classList.contains('refused')) }""",
            timeout=60,
        )


@pytest.fixture
def tab(chromium: Any, server: Server, request: pytest.FixtureRequest) -> Iterator[NetworkTrace]:
    """A fresh tab, 1280×860 in English or as parametrized; nothing may leave the machine, nothing may go wrong."""
    context = chromium.new_context(**looking(getattr(request, "param", (1280, 860))))
    context.add_init_script("try { localStorage.setItem('convoscope-toured', '1') } catch {}")
    page = context.new_page()
    page.set_default_timeout(30_000)
    watched = NetworkTrace(page, server)
    page.on("console", lambda message: watched.errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: watched.errors.append(str(error)))
    page.on(
        "request",
        lambda asked: (
            None
            if asked.url.startswith((server.url, "data:", "blob:", "about:"))
            else watched.foreign.append(asked.url)
        ),
    )
    yield watched
    context.close()
    forget_uploads(server)
    assert not watched.errors, watched.errors
    assert not watched.foreign, watched.foreign


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """axe-core's source, from ``CONVOSCOPE_AXE`` or fetched by npm; it is not part of this repository."""
    given = os.environ.get("CONVOSCOPE_AXE")
    if given:
        return Path(given).read_text(encoding="utf-8")
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("axe-core: no npm here (set CONVOSCOPE_AXE to axe.min.js)")
    folder = tmp_path_factory.mktemp("axe")
    done = subprocess.run(
        [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts", "axe-core@4"],
        capture_output=True, timeout=180, check=False,
    )  # fmt: skip
    file = folder / "node_modules" / "axe-core" / "axe.min.js"
    if done.returncode or not file.is_file():
        pytest.skip("axe-core: npm could not fetch it (set CONVOSCOPE_AXE to axe.min.js)")
    return file.read_text(encoding="utf-8")

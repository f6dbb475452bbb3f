"""Screenshots of the page for the docs: every tab, wide and on a phone, light and dark.

    python examples/screenshots.py [--out docs/pictures] [--only toybox clinic photos]

``photos`` is SqueezeNet on scikit-image's public-domain photos (needs its weights: the torchvision cache, or
``CONVOSCOPE_DATA``), and is made only when it is named. Needs Playwright and the system's Chromium
(``CONVOSCOPE_CHROMIUM`` names another).
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

ARGUMENTS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
SEEN = """() => [...document.images].every((one) => {
  const box = one.getBoundingClientRect();
  const seen = box.width > 0 && box.top < innerHeight && box.bottom > 0;
  return !seen || (one.complete && one.naturalWidth > 0);
})"""
WIDE, PHONE = (1440, 900), (390, 844)


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """The app on a free port of this machine."""
    import uvicorn

    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


class Camera:
    """Opens views of a page and writes what they look like."""

    def __init__(self, browser: Any, url: str, out: Path) -> None:
        self.browser, self.url, self.out = browser, url, out

    def shoot(
        self,
        name: str,
        query: str,
        ready: str,
        act: Callable[[Any], None] | None = None,
        size: tuple[int, int] = WIDE,
        scheme: str = "light",
        language: str = "en",
    ) -> None:
        """One picture: go to ``query``, wait for the selector ``ready``, do ``act``, write ``name``.jpg."""
        context = self.browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        preferences = f"'convoscope-toured', '1'); localStorage.setItem('convoscope-language', '{language}'"
        context.add_init_script(f"try {{ localStorage.setItem({preferences}) }} catch {{}}")
        page = context.new_page()
        page.goto(f"{self.url}/{query}")
        page.wait_for_selector(ready, timeout=120_000)
        page.wait_for_load_state("networkidle")
        if act is not None:
            act(page)
        # what is seen has arrived: a picture of grey tiles shows nothing
        for _ in range(100):
            page.wait_for_timeout(200)
            if page.evaluate(SEEN):
                break
        page.wait_for_timeout(600)
        page.screenshot(path=self.out / f"{name}.jpg", type="jpeg", quality=78)
        context.close()
        print(f"{name}.jpg")


def mask(page: Any) -> None:
    """Cover the middle of the photo."""
    page.get_by_role("button", name="Mask").click()
    box = page.locator(".frame.photo .stage").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.55)
    page.wait_for_selector(".answers .change")


def point(page: Any) -> None:
    """Rest the cursor on a map."""
    box = page.locator("#maps .frame .stage").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.45, box["y"] + box["height"] * 0.6)


def lasso(page: Any) -> None:
    """Draw around a part of the map."""
    frame = page.frame_locator("iframe.plot")
    frame.locator(".scatterlayer path.point").first.wait_for(state="attached")
    page.wait_for_timeout(1500)
    box = page.locator("iframe.plot").bounding_box()
    spots = [(0.05, 0.05), (0.5, 0.05), (0.5, 0.55), (0.05, 0.55), (0.05, 0.08)]
    page.mouse.move(box["x"] + spots[0][0] * box["width"], box["y"] + spots[0][1] * box["height"])
    page.mouse.down()
    for x, y in spots[1:]:
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=6)
    page.mouse.up()


def unit(page: Any) -> None:
    """Open a unit's large card and wait until the picture that it likes best is made."""
    page.locator("#right h2 .small").click()
    page.wait_for_selector(".unit-sheet .wanted:not([hidden])")
    page.wait_for_selector(".unit-sheet progress", state="hidden", timeout=120_000)


def toybox(browser: Any, out: Path) -> None:
    """The views of the bundled network and its collection."""
    import convoscope
    from convoscope.web import create_app
    from convoscope.web.build_survey import collect, store_for, toybox_pictures

    model = convoscope.open_model("toybox")
    folder = toybox_pictures("toybox")
    into = store_for(model, folder)
    app = create_app(model, folder, collect(model, str(folder), into).store, survey_into=into)
    maps = "#maps .legend canvas"
    with serving(app) as url:
        camera = Camera(browser, url, out)
        camera.shoot("page-decide", "", maps, point)
        camera.shoot("page-mask", "?methods=grad-cam,hirescam,guided-grad-cam,saliency", maps, mask)
        camera.shoot(
            "page-decide-dark", "?methods=grad-cam,hirescam,guided-backprop,saliency", maps, point, scheme="dark"
        )
        camera.shoot("page-decide-korean", "", maps, point, language="ko")
        camera.shoot("page-decide-phone", "", maps, size=PHONE)
        layer = "?tab=layer&layer=layer3&unit=layer3:23"
        camera.shoot("page-layer", layer, ".patch-row img")
        camera.shoot("page-layer-phone", "?tab=layer&layer=layer2", ".tile canvas", size=PHONE)
        camera.shoot("page-layer-patches", f"{layer}&tiles=patch", ".patch-row img", scheme="dark")
        camera.shoot("page-unit", layer, ".patch-row img", unit)
        camera.shoot("page-blocks", f"{layer}&blocks=1", ".blocks .block")
        camera.shoot("page-present", "?present=1&methods=grad-cam,saliency", "dialog.present canvas[data-drawn]")
        camera.shoot("page-collection", "?tab=collection&thumbs=1", "iframe.plot", lasso)
        camera.shoot("page-collection-phone", "?tab=collection&map=pca", "iframe.plot", size=PHONE)
        camera.shoot("page-api", "docs", ".operation")
    with serving(create_app("toybox-detector", toybox_pictures("toybox-detector"))) as url:
        Camera(browser, url, out).shoot("page-detector", "", maps)


class Quiet:
    """Work outside of the line of jobs: nobody is told how far it is, and nobody stops it."""

    stopped = False

    def check(self) -> None:
        """Nothing stops it."""

    def progress(self, *given: Any) -> None:
        """Nobody is told."""


def clinic(browser: Any, out: Path) -> None:
    """The third question: a network that cheats, its mistakes, and what is found of them."""
    import convoscope
    from convoscope.web import create_app
    from convoscope.web.build_survey import collect, toybox_pictures
    from convoscope.web.schemas import JobRequest
    from convoscope.web.work import prepare

    cheat = convoscope.open_model("toybox-cheat")
    tagged = toybox_pictures("toybox-cheat")
    out = out.resolve()
    # the commands on the page name the store as it was given: no folder of this machine
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        found = collect(cheat, str(tagged), "photos.store")
        app = create_app(cheat, tagged, found.store, against="toybox", findings_into="found", title="toybox-cheat")
        for asked in (
            JobRequest(kind="diagnose", only=["data", "shortcuts"]), JobRequest(kind="diff"),
            JobRequest(kind="shortcuts", only=["patch"]), JobRequest(kind="audit"),
            JobRequest(kind="craft", target="cup"),
        ):  # fmt: skip
            prepare(app.state.app_state, asked)[2](Quiet())  # type: ignore[arg-type]
        with serving(app) as url:
            camera = Camera(browser, url, out)
            camera.shoot("page-mistakes", "?tab=collection&colour=error", ".confusions", lasso)
            camera.shoot("page-grid", "?tab=collection&view=grid&right=wrong", ".pic")
            camera.shoot("page-confusions", "?tab=collection&view=confusion", ".confusion")
            camera.shoot("page-findings", "?tab=improve&part=findings", ".finding")
            camera.shoot("page-labels", "?tab=improve&part=labels", ".suspect h2")
            camera.shoot("page-concepts", "?tab=improve&part=concepts", ".concept-parts .finding")
            camera.shoot("page-hand", "?tab=improve&part=shortcuts&spot=cup", ".said .hand-bars li")
            camera.shoot("page-flips", "?tab=improve&part=compare&methods=grad-cam", ".flip canvas[data-drawn]")
            camera.shoot("page-numbers", "?tab=layer&layer=stem.0&tiles=how", ".how-total.value")


def photos(browser: Any, out: Path) -> None:
    """SqueezeNet on scikit-image's photos, all in the public domain."""
    from PIL import Image
    from skimage import data

    import convoscope
    from convoscope.web import create_app

    place = os.environ.get("CONVOSCOPE_DATA")
    weights = Path(place) / "weights" / "squeezenet1_0.safetensors" if place else None
    model = convoscope.open_model("squeezenet1_0", weights=weights if weights and weights.is_file() else None)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("chelsea", "coffee", "rocket", "astronaut"):
            Image.fromarray(getattr(data, name)()).save(Path(folder) / f"{name}.png")
        app = create_app(model, folder)
        cat = next(entry.id for entry in app.state.app_state.album.entries() if entry.name == "chelsea.png")
        with serving(app) as url:
            camera = Camera(browser, url, out)
            shown = f"?picture={cat}&methods=grad-cam,hirescam,guided-grad-cam,cam"
            camera.shoot("page-photo", shown, "#maps .legend canvas", point)
            camera.shoot("page-photo-rather", f"{shown}&against=282", "#maps .legend canvas", point)


def main() -> None:
    """Take them all."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--out", default="docs/pictures")
    reader.add_argument("--only", nargs="+", choices=["toybox", "clinic", "photos"], default=["toybox", "clinic"])
    given = reader.parse_args()
    path = os.environ.get("CONVOSCOPE_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        sys.exit("No Chromium found: install it (apt-get install chromium), or name it with CONVOSCOPE_CHROMIUM.")
    from playwright.sync_api import sync_playwright

    out = Path(given.out)
    out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        for name in given.only:
            {"toybox": toybox, "clinic": clinic, "photos": photos}[name](browser, out)
        browser.close()


if __name__ == "__main__":
    main()

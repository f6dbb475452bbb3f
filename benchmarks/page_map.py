"""How the page's map of a large collection moves: seconds until it is drawn, milliseconds a frame while it is dragged.

    python benchmarks/page_map.py [POINTS ...]     default: 10,000 and 100,000

In the system's Chromium (or ``CONVOSCOPE_CHROMIUM``), drawn by the processor alone (SwiftShader) where there is no GPU,
which is the slowest that a person can have. The store is made by writing rows. A frame is the time between two of the
browser's animation frames; *longest* is the pause that a person feels.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "browser"))

from browser_helpers import ARGUMENTS, running, until
from large_store import large_store

import convoscope
from convoscope.web import create_app

RECORD = """() => {
  window.frames_ = []; window.recording = true;
  let last = performance.now();
  const tick = (now) => {
    window.frames_.push(now - last);
    last = now;
    if (window.recording) requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);
}"""


def frames(page: Any, frame: Any, act: Any) -> tuple[float, float]:
    """Median and longest frame in milliseconds while ``act`` moves the mouse."""
    frame.evaluate(RECORD)
    act()
    page.wait_for_timeout(200)
    taken = frame.evaluate("() => { window.recording = false; return window.frames_; }")
    return statistics.median(taken), max(taken)


def measure(count: int, arguments: list[str]) -> None:
    """One line for one size of collection."""
    from playwright.sync_api import sync_playwright

    model = convoscope.open_model("toybox")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        store = large_store(model, Path(folder) / "pictures", Path(folder) / "store", count, files=False)
        path = os.environ.get("CONVOSCOPE_CHROMIUM") or shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        with running(create_app(model, None, store)) as url:
            page: Any = browser.new_context(viewport={"width": 1440, "height": 900}, locale="en-US").new_page()
            page.set_default_timeout(600_000)
            page.goto(f"{url}/?tab=collection&map=pca&tour=0")
            began = time.perf_counter()
            until(page, "document.querySelector('iframe.plot')", timeout=600)
            frame: Any = page.locator("iframe.plot").element_handle().content_frame()
            frame.wait_for_selector(".main-svg", state="attached")
            # the map may be drawn anew when its measures come: wait until it has been
            until(page, "document.querySelector('.map-words')?.textContent.includes('Neighbours kept')", timeout=900)
            first = time.perf_counter() - began
            page.wait_for_timeout(3000)
            box: Any = page.locator("iframe.plot").bounding_box()
            x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

            def drag() -> None:
                frame.evaluate("Plotly.relayout(document.getElementById('map'), { dragmode: 'pan' })")
                page.mouse.move(x, y)
                page.mouse.down()
                for step in range(60):
                    page.mouse.move(x + 3 * step, y + step)
                page.mouse.up()

            def zoom() -> None:
                page.mouse.move(x, y)
                for _ in range(10):
                    page.mouse.wheel(0, -40)
                    page.wait_for_timeout(30)

            def lasso() -> None:
                frame.evaluate("Plotly.relayout(document.getElementById('map'), { dragmode: 'lasso' })")
                page.mouse.move(x - 100, y - 100)
                page.mouse.down()
                for dx, dy in ((100, -100), (100, 100), (-100, 100), (-100, -90)):
                    page.mouse.move(x + dx, y + dy, steps=6)
                page.mouse.up()
                until(page, "document.querySelector('.selected')?.textContent.includes('chosen')", timeout=60)

            def point() -> None:
                for step in range(40):
                    page.mouse.move(x + 4 * step, y - 2 * step)

            told = [f"{count:,}", f"{first:.1f} s"]
            for act in (drag, zoom, point, lasso):
                median, longest = frames(page, frame, act)
                told.append(f"{median:.0f} ({longest:.0f}) ms")
            print("| " + " | ".join(told) + " |", flush=True)
            browser.close()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("points", nargs="*", type=int, default=[10_000, 100_000])
    given = parser.parse_args()
    print("| points | drawn after | drag: frame (longest) | zoom | point | lasso |\n|---|---|---|---|---|---|")
    for count in given.points:
        measure(count, [*ARGUMENTS, "--enable-unsafe-swiftshader"])


if __name__ == "__main__":
    main()

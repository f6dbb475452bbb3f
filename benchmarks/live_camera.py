"""How many frames a second of a camera go through a network and come back with their Grad-CAM, in a real browser.

    python benchmarks/live_camera.py [--seconds 15] [--threads 1,2] SPEC [--weights FILE]

The page is served by ``convoscope serve`` in a process of its own; Chromium's fake camera (640×480) is the camera. The
browser draws on the same processors. Needs Playwright and the system's Chromium (or ``CONVOSCOPE_CHROMIUM``).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "browser"))

from browser_helpers import ARGUMENTS, until


def rate(spec: list[str], threads: int, seconds: float) -> tuple[float, float]:
    """Frames a second, and milliseconds a frame in the network, once the page is warm."""
    from playwright.sync_api import sync_playwright

    from convoscope.toybox import write

    quiet = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as folder:
        write(folder, 1, seed=1)
        command = [sys.executable, "-m", "convoscope", "serve", *spec, "--images", folder, "--port", "0"]
        server = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, **quiet}
        )
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split()[-1].rstrip("/")
            with sync_playwright() as playwright:
                path = os.environ.get("CONVOSCOPE_CHROMIUM") or shutil.which("chromium")
                browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
                page = browser.new_context(permissions=["camera"], locale="en-US").new_page()
                page.goto(f"{url}/?tab=layer&tiles=filter&tour=0")
                page.get_by_role("button", name="Camera").click()
                frames = "Number(document.querySelector('.rate')?.dataset.frames ?? 0)"
                until(page, f"{frames} >= 20", timeout=60)
                before, began = page.evaluate(frames), time.perf_counter()
                page.wait_for_timeout(1000 * seconds)
                count, took = page.evaluate(frames) - before, time.perf_counter() - began
                told = page.locator(".rate").inner_text()
                browser.close()
        finally:
            server.terminate()
            server.wait(20)
    return count / took, float(re.findall(r"(\d+) ms", told)[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--threads", default="1,2")
    given, spec = parser.parse_known_args()
    for threads in map(int, given.threads.split(",")):
        frames, inside = rate(spec or ["toybox"], threads, given.seconds)
        print(
            f"{' '.join(spec) or 'toybox'}, {threads} threads: {frames:.1f} frames a second, {inside:.0f} ms a frame"
        )


if __name__ == "__main__":
    main()

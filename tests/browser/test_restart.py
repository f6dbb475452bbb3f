"""A server that stops and starts again under an open page; a page that is closed under running work."""

from __future__ import annotations

import socket
from typing import Any

import numpy as np
import pytest
from browser_helpers import looking, running, until, ways, word
from PIL import Image

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

import convoscope
from convoscope.toybox import draw, write
from convoscope.web import create_app

pytestmark = pytest.mark.browser


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.parametrize("way", ways("restart"))
def test_the_page_lives_on_when_the_server_comes_back(chromium: Any, tmp_path: Any, way: Any) -> None:
    write(tmp_path / "pictures", 4, seed=4)
    model = convoscope.open_model("toybox")
    port = free_port()
    context = chromium.new_context(**looking(way))
    context.add_init_script("try { localStorage.setItem('convoscope-toured', '1') } catch {}")
    page = context.new_page()
    page.set_default_timeout(30_000)
    mine = tmp_path / "mine.png"
    Image.fromarray(draw(771, label="boat").image).save(mine)
    with running(create_app(model, tmp_path / "pictures"), port) as url:
        page.goto(f"{url}/?methods=grad-cam,rise&set=rise.samples=500000")
        page.wait_for_selector("#strip .thumb")
        page.locator("#choose").set_input_files(str(mine))
        until(page, "document.querySelector('#strip .thumb')?.getAttribute('aria-label') === 'mine.png'")
        page.locator('[data-method="rise"] progress').wait_for()
        silent, again, gone_words = (word(page, key) for key in ("offline", "serverBack", "pictureGone"))
    # the work that was running is over, and does not count on
    page.locator('[data-method="rise"] .problem').wait_for(timeout=60_000)
    assert page.locator('[data-method="rise"] progress').count() == 0
    page.wait_for_selector(".toast.error")
    assert silent in page.locator(".toast.error").inner_text()
    page.locator("#strip .thumb").nth(2).click()
    with running(create_app(model, tmp_path / "pictures"), port):
        page.get_by_text(again).wait_for(timeout=60_000)
        until(page, "document.querySelectorAll('#strip .thumb').length === 4")
        page.locator('[data-method="grad-cam"] .legend canvas').wait_for()
        # a link to what was dropped into the server before says so, and shows another picture
        gone = convoscope.Picture.of(mine).sha256[:16]
        page.goto(f"http://127.0.0.1:{port}/?picture={gone}&methods=grad-cam")
        page.get_by_text(gone_words).wait_for()
        page.locator('[data-method="grad-cam"] .legend canvas').wait_for()
    context.close()


def test_another_network_at_the_same_address_is_shown_anew(chromium: Any, tmp_path: Any) -> None:
    """Who trains on and serves again sees the new weights, not those that the browser has kept."""
    write(tmp_path / "pictures", 2, seed=4)
    port = free_port()
    page = chromium.new_context(**looking((1280, 860))).new_page()
    page.set_default_timeout(30_000)

    def drawn() -> str:
        """What the browser has at the address of the picture on the page: from its memory, if it kept it."""
        address = page.locator("img.filters").get_attribute("src")
        return str(page.evaluate("(at) => fetch(at).then((r) => r.blob()).then((b) => b.text())", address))

    with running(create_app(convoscope.open_model("toybox"), tmp_path / "pictures"), port) as url:
        page.goto(f"{url}/?tab=layer&layer=stem.0&tiles=filter&tour=0")
        before = drawn()
        page.evaluate("window.first = true")
    page.locator("#strip .thumb").nth(1).click()
    page.wait_for_selector(".toast.error")
    with running(create_app(convoscope.open_model("toybox-cheat"), tmp_path / "pictures"), port):
        page.locator("#top .model", has_text="toybox-cheat").wait_for(timeout=60_000)  # it loads itself anew
        until(page, "!window.first && document.querySelector('img.filters')")
        assert drawn() != before
    page.context.close()


def test_work_ends_when_its_page_is_closed(chromium: Any, tmp_path: Any) -> None:
    write(tmp_path / "pictures", 2, seed=4)
    app = create_app(convoscope.open_model("toybox"), tmp_path / "pictures")
    jobs = app.state.app_state.jobs
    jobs.abandoned = 0.5
    with running(app) as url:
        context = chromium.new_context()
        page = context.new_page()
        page.goto(f"{url}/?methods=grad-cam,rise&set=rise.samples=900000")
        page.locator('[data-method="rise"] progress').wait_for()
        until(page, "document.querySelector('[data-method=\"rise\"] .work .soft')?.textContent.includes('900000')")
        (job,) = [one for one in jobs.listed() if one.kind == "map"]
        context.close()
        other = chromium.new_context().new_page()
        other.goto(f"{url}/?methods=grad-cam,lime&set=lime.samples=20")
        # the line is free again: the next one's work is done
        other.locator('[data-method="lime"] .legend canvas').wait_for(timeout=60_000)
        assert job.state == "cancelled"
        other.context.close()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("restart") / "many"
    folder.mkdir()
    for number in range(640):
        Image.fromarray(np.full((8, 8, 3), [number % 256, number // 256, 7], np.uint8)).save(
            folder / f"{number:04}.png"
        )
    with running(create_app(convoscope.open_model("toybox"), folder)) as url:
        yield url


@pytest.mark.parametrize("way", ways("five hundred"))
def test_pictures_behind_the_five_hundredth_can_be_reached(chromium: Any, many: str, way: Any) -> None:
    context = chromium.new_context(**looking(way))
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.goto(f"{many}/?methods=grad-cam&tour=0")
    page.wait_for_selector("#strip .thumb")
    assert "520" in page.locator("#strip .more").inner_text()
    for _ in range(2):
        page.locator("#strip .more").click()
        if page.locator("#strip .thumb").count() == 640:
            break
        until(page, "document.querySelectorAll('#strip .thumb').length >= 620")
    until(page, "document.querySelectorAll('#strip .thumb').length === 640")
    last = page.locator("#strip .thumb").last
    assert last.get_attribute("aria-label") == "0639.png"
    last.click()
    until(page, "document.querySelector('#right h2')?.textContent === '0639.png'")
    link = page.url
    page.goto(link)
    until(page, "document.querySelector('#right h2')?.textContent === '0639.png'")
    context.close()

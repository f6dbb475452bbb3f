"""Every HTML file that is written, opened in a browser: nothing is asked of any network, nothing can be sent."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from browser_helpers import missing_images

import convoscope

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def files(server: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from PIL import Image

    from convoscope.html import page
    from convoscope.reports.report import report

    folder = tmp_path_factory.mktemp("files")
    pictures = sorted(server.folder.rglob("*.png"))[:2]
    made = {
        "report": report(server.model, pictures, methods=["grad-cam"], store=server.store).save(folder / "r.html")
    }
    Image.new("RGB", (40, 40), "red").save(folder / "a.png")
    section = page.Section("One", "A picture", [page.Item("a.png", "red")])
    (folder / "beside").mkdir()
    Image.new("RGB", (40, 40), "red").save(folder / "beside" / "a.png")
    made["pictures"] = page.write(folder / "beside", "Title", "Words", [section])
    made["embedded"] = page.embed(folder / "e.html", "Title", "Words", [section])
    if server.store is not None:
        server.store.map("pca").save(folder / "map.html")
        made["map"] = folder / "map.html"
    return made


def test_nothing_leaves(chromium: Any, files: dict[str, Path]) -> None:
    context = chromium.new_context()
    for name, file in files.items():
        page = context.new_page()
        asked: list[str] = []
        page.on("request", lambda one, asked=asked: asked.append(one.url))
        page.goto(file.as_uri())
        page.wait_for_load_state("load")
        own = file.parent.as_uri()
        assert not [url for url in asked if not url.startswith((own, "data:", "blob:"))], (name, asked)
        assert page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')") == "refused"
        # what is drawn is there: the policy forbids nothing that the page needs
        assert not missing_images(page), name
        page.close()
    context.close()


def test_the_map_has_no_button_that_sends_and_fits_a_phone(chromium: Any, files: dict[str, Path]) -> None:
    if "map" not in files:
        pytest.skip("no survey extra")
    context = chromium.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(files["map"].as_uri())
    page.wait_for_selector(".modebar-btn", state="attached")
    titles = page.evaluate("[...document.querySelectorAll('.modebar-btn')].map((one) => one.dataset.title)")
    assert titles
    assert not [one for one in titles if "loud" in one or "hare" in one], titles
    plot = page.locator("#plot").bounding_box()
    assert plot["width"] > 370
    assert plot["height"] > 450
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()


def test_the_report_prints_on_few_pages(chromium: Any, files: dict[str, Path], tmp_path: Path) -> None:
    context = chromium.new_context()
    page = context.new_page()
    page.goto(files["report"].as_uri())
    pdf = page.pdf(format="A4", prefer_css_page_size=True)
    count = len(re.findall(rb"/Type\s*/Page\b", pdf))
    assert 1 <= count <= 6, count
    text = page.inner_text("main")
    assert "e+0" not in text
    assert "Label: " in text
    context.close()


def test_the_report_names_what_it_shows(server: Any, files: dict[str, Path]) -> None:
    text = files["report"].read_text(encoding="utf-8")
    label = convoscope.Picture.of(sorted(server.folder.rglob("*.png"))[0]).name.split("-")[0]
    assert f"Label: <b>{label}</b>" in text

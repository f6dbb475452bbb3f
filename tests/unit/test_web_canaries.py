"""Whatever is put into the page's questions, no file outside its folder is opened: canaries are watched.

A canary file's access time and Python's own audit events say whether it was read; a pipe among the canaries would keep
its reader waiting.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")

import convoscope
from convoscope.web import create_app

#: longer ago than any file system's rule for access times that are not worth a write
LONG_AGO = 946_684_800
#: columns of the collection that a list can be asked by
COLUMNS = ("search", "label", "prediction", "tag", "alike", "layer", "state", "order", "finding", "map")
#: questions that are sent; each goes to one endpoint with the canary in one of its fields
CASES = 520

FORMS = (
    "{}", "similar:{}", "distance:{}", "1*similar:{}", "2 * distance:{} - boat", "boat - similar:{}",
    "direction:layer3@{}", "1*direction:layer3@{}", "-1*direction:layer1@{}", "similar:{}@layer3", "similar:file://{}",
    "layer3:{}", "{}:0", "layer3:0@{}", "instance:{}", "segment:{}", "landmark:{}", "top1@{}", " SIMILAR : {}",
    "similar:{},boat", "../../../../../../..{}", "{}\x00.png", "background={}", "saliency@{}", "{}.npy",
    "gradient-shap.background={}", "deep-shap.background={}", "occlusion.fill={}", "rise.fill={}", "lime.regions={}",
    "lime.background={}", "occlusion.regions={}", "grad-cam.layer={}", "integrated-gradients.baseline={}",
    "integrated-gradients.background={}", "extremal.fill={}", "deep-shap.background=@{}", "tcav.examples={}",
)  # fmt: skip


@dataclass
class Watch:
    """Canaries, and whether anything touched them."""

    folder: Path
    paths: list[Path]
    opened: list[str] = field(default_factory=list)
    on: bool = True

    def hears(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.on or event not in ("open", "os.listdir", "os.scandir"):
            return
        path = os.fsdecode(args[0]) if args and isinstance(args[0], (str, bytes)) else ""
        if path.startswith(str(self.folder)):
            self.opened.append(f"{event} {path}")

    def touched(self) -> list[str]:
        late = [str(path) for path in self.paths if path.stat().st_atime != LONG_AGO]
        return [*self.opened, *late]


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    folder = tmp_path / "secret"
    folder.mkdir()
    Image.new("RGB", (96, 96), "red").save(folder / "canary.png")
    np.save(folder / "canary.npy", np.ones(64, np.float32))
    (folder / "canary.txt").write_text("boat\n")
    files = sorted(folder.iterdir())
    os.mkfifo(folder / "canary-pipe")
    for file in files:
        os.utime(file, (LONG_AGO, LONG_AGO))
    found = Watch(folder, files)
    sys.addaudithook(lambda event, args: found.hears(event, args))
    yield found
    found.on = False  # a hook can never be taken out again


def questions(ids: list[str], canaries: list[str]) -> list[tuple[str, str, dict[str, Any]]]:
    """Method, path and fields of every question; the same at every run."""
    chance = random.Random(19)
    box = {"x0": 0, "y0": 0, "x1": 9, "y1": 9}

    def one() -> tuple[str, str, dict[str, Any]]:
        text = chance.choice(FORMS).replace("{}", chance.choice(canaries))
        picture = chance.choice(ids)
        name = text.partition(".")[0] if ".background=" in text or ".fill=" in text else "saliency"
        ways: list[tuple[str, str, dict[str, Any]]] = [
            ("GET", "/api/predict", {"picture": picture, "target": text}),
            ("GET", "/api/predict", {"picture": picture, "target": "boat", "against": text}),
            ("GET", "/api/explain", {"picture": picture, "target": text, "methods": "saliency"}),
            ("GET", "/api/explain", {"picture": picture, "methods": name, "set": text}),
            ("GET", "/api/explain", {"picture": picture, "methods": text}),
            ("GET", "/api/explain", {"picture": picture, "methods": "grad-cam", "layer": text}),
            ("GET", f"/api/maps/{name}.npy", {"picture": picture, "set": text}),
            ("GET", f"/api/maps/{name}.png", {"picture": picture, "target": text}),
            ("GET", "/api/cover", {"picture": picture, "target": text, "fill": "mean", **box}),
            ("GET", "/api/cover", {"picture": picture, "fill": text[:20], **box}),
            ("GET", "/api/activations", {"picture": picture, "layer": text}),
            ("GET", "/api/activations.npy", {"picture": picture, "layer": text, "channels": "0"}),
            ("GET", "/api/filters", {"layer": text}),
            ("GET", "/api/filters.png", {"layer": text}),
            ("GET", "/api/unit", {"picture": picture, "unit": text}),
            ("GET", "/api/patches", {"unit": text}),
            ("GET", "/api/top-patch", {"unit": text}),
            ("GET", "/api/ablate", {"picture": picture, "units": [text]}),
            ("GET", "/api/ablate", {"picture": picture, "units": ["layer3:0"], "target": text}),
            ("GET", "/api/pictures/" + quote(text, safe=""), {}),
            ("GET", "/static/" + quote(text), {}),
            ("GET", "/plot/" + quote(text), {}),
            ("GET", "/api/colours/" + quote(text, safe=""), {}),
            (
                "GET",
                "/api/paste",
                {"source": picture, "onto": picture, "x": 1, "y": 1, "to_x": 9, "to_y": 9, "side": 8, "target": text},
            ),
            ("GET", "/api/piece", {"picture": picture, "box": text}),
            ("GET", "/api/convolution", {"picture": picture, "layer": text}),
            ("GET", "/api/convolution/cell", {"picture": picture, "layer": text, "channel": 0, "row": 1, "col": 1}),
            ("GET", "/api/convolution/input.npy", {"picture": picture, "layer": text, "channels": "0"}),
            ("GET", "/api/convolution/" + quote(text, safe="") + ".npy", {"picture": picture, "channels": "0"}),
            ("GET", "/api/collection/pictures", {chance.choice(COLUMNS): text}),
            ("GET", "/api/collection/ids", {"map": "pca", "lasso": "0,0;1,0;1,1", "layer": text}),
            ("GET", "/api/collection/pictures.csv", {chance.choice(COLUMNS): text}),
            ("GET", "/api/collection/next", {chance.choice(COLUMNS): text}),
            ("GET", "/api/collection/confusion", {chance.choice(COLUMNS): text}),
            ("GET", "/api/collection/near", {"picture": picture, "layer": text}),
            ("GET", "/api/collection/map", {"method": "pca", "layer": text}),
            ("GET", "/api/collection/marks", {"about": text}),
            ("POST", "/api/collection/marks", {"kind": "note", "about": [text], "value": text}),
            ("POST", "/api/collection/marks", {"kind": "tag", "query": f"search={text}", "value": "t"}),
            ("GET", "/api/improve/concepts", {"unit": text}),
            ("GET", "/api/improve/" + quote(text, safe=""), {}),
            ("POST", "/api/improve/answer", {"label": text[:200], "is_part": True}),
            ("POST", "/api/live?target=" + quote(text, safe=""), {}),
            ("POST", "/api/jobs", {"kind": "diagnose", "only": [text]}),
            ("POST", "/api/jobs", {"kind": "shortcuts", "only": [text]}),
            ("POST", "/api/jobs", {"kind": "dissect", "layer": text}),
            ("POST", "/api/jobs", {"kind": "craft", "target": text}),
            ("POST", "/api/jobs", {"kind": "craft", "target": "boat", "layer": text}),
            ("POST", "/api/jobs", {"kind": "tcav", "tags": [text], "target": text}),
            ("POST", "/api/jobs", {"kind": "report", "pictures": [picture], "methods": [text]}),
            ("POST", "/api/jobs", {"kind": "sheets", "pictures": [text], "methods": ["grad-cam"]}),
            ("POST", "/api/jobs", {"kind": "sheets", "pictures": [picture], "methods": [name], "settings": [text]}),
            ("POST", "/api/jobs", {"kind": "map", "picture": picture, "methods": ["occlusion"], "target": text}),
            ("POST", "/api/jobs", {"kind": "map", "picture": picture, "methods": [name], "settings": [text]}),
            ("POST", "/api/jobs", {"kind": "map", "picture": picture, "methods": ["rise"], "layer": text}),
            ("POST", "/api/jobs", {"kind": "visualize", "targets": [text]}),
            ("POST", "/api/jobs", {"kind": "visualize", "target": "boat", "recipe": text}),
            ("POST", "/api/jobs", {"kind": "visualize", "objective": "invert", "picture": picture, "layer": text}),
            ("POST", "/api/jobs", {"kind": "trust", "picture": picture, "methods": ["saliency"], "against": text}),
        ]
        return chance.choice(ways)

    return [one() for _ in range(CASES)]


def test_no_canary_is_touched(
    watch: Watch, toybox_model: Any, toybox_folder: Path, toybox_store: Any, tmp_path: Path
) -> None:
    from fastapi.testclient import TestClient

    from convoscope.surveys.store.store import Store

    # what is noted is kept in the store: the others' stays as it is
    store = Store.open(shutil.copytree(str(toybox_store.path), tmp_path / "store"))
    app = create_app(toybox_model, toybox_folder, store, against="toybox", findings_into=tmp_path / "found")
    app.state.app_state.jobs.waiting = 0  # a job is read and refused at the door: what it would open, it opens there
    web = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)
    ids = [entry.id for entry in app.state.app_state.album.entries()]
    canaries = [str(path) for path in (*watch.paths, watch.folder, watch.folder / "canary-pipe")]
    codes: dict[int, int] = {}

    def send_all() -> None:
        for verb, path, fields in questions(ids, canaries):
            answer = web.request(verb, path, **({"json": fields} if verb == "POST" else {"params": fields}))
            assert answer.status_code < 500, (verb, path, fields, answer.text[:300])
            codes[answer.status_code] = codes.get(answer.status_code, 0) + 1
            assert not watch.touched(), (verb, path, fields, watch.touched())
        done.append(True)

    done: list[bool] = []
    thread = threading.Thread(target=send_all, daemon=True)
    thread.start()
    thread.join(240)
    assert done, "a question failed, or waits at a pipe for ever"
    assert codes.get(400, 0) > CASES / 3, codes


def test_the_watch_would_see_it(watch: Watch) -> None:
    """The check can fail: what the command line may read, the watch notices."""
    assert not watch.touched()
    with pytest.raises(convoscope.ConvoscopeError, match="pipe"):
        convoscope.Picture.of(watch.folder / "canary-pipe")
    convoscope.Picture.of(watch.folder / "canary.png")
    assert any("canary.png" in one for one in watch.touched())

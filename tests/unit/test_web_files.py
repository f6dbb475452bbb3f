"""Whatever names a file of this machine is refused by the page, and nothing but regular files is ever opened."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")

from web_helpers import first

import convoscope as cs
from convoscope.files import read_regular

TARGETS = (
    "similar:{}", "distance:{}", "1*similar:{}", "0.5 * distance:{}", "direction:layer3@{}", "1*direction:layer3@{}",
    "boat - similar:{}", "similar:{} + boat", "boat - 2*direction:layer3@{}", " Similar:{}", "similar:{}@layer3",
)  # fmt: skip
BOX = {"x0": 0, "y0": 0, "x1": 9, "y1": 9}
SETTINGS = ("gradient-shap.background={}", "deep-shap.background={}")


@pytest.fixture
def canaries(tmp_path: Path) -> dict[str, str]:
    """A picture, a vector, a folder and a pipe that must not be looked into."""
    from PIL import Image

    Image.new("RGB", (96, 96), "red").save(tmp_path / "canary.png")
    np.save(tmp_path / "canary.npy", np.ones(64, np.float32))
    os.mkfifo(tmp_path / "canary-pipe")
    return {
        "picture": str(tmp_path / "canary.png"),
        "vector": str(tmp_path / "canary.npy"),
        "folder": str(tmp_path),
        "pipe": str(tmp_path / "canary-pipe"),
        "nothing": str(tmp_path / "no-such-file"),
    }


def within(seconds: float, run: Any) -> Any:
    """What ``run`` returns; a reader that waits at a pipe for ever fails here, and does not stop the tests."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(run()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert found, "it waits for ever"
    return found[0]


@pytest.mark.parametrize("target", TARGETS)
def test_targets_that_name_a_file_are_refused(web: Any, canaries: dict[str, str], target: str) -> None:
    id = first(web)
    answers = set()
    for path in canaries.values():
        text = target.format(path)
        for room in ("/api/predict", "/api/explain", "/api/cover"):
            for asked in ({"target": text}, {"target": "boat", "against": text}):
                answer = within(60, lambda r=room, a=asked: web.get(r, params={"picture": id, **a, **BOX}))
                assert answer.status_code == 400
                answers.add(answer.json()["detail"])
        units = {"picture": id, "target": text, "units": ["layer3:0"]}
        assert within(60, lambda u=units: web.get("/api/ablate", params=u)).status_code == 400
        for body in (
            {"kind": "visualize", "targets": [text]},
            {"kind": "visualize", "target": text},
            {"kind": "map", "picture": id, "target": text, "methods": ["occlusion"]},
            {"kind": "trust", "picture": id, "target": text, "methods": ["saliency"]},
        ):
            assert within(60, lambda b=body: web.post("/api/jobs", json=b)).status_code == 400
    # one sentence, whether a file is there or not: the page tells nothing about this machine
    assert answers == {"Targets that name files are for the command line, not for the page."}


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_that_name_a_file_are_refused(web: Any, canaries: dict[str, str], setting: str) -> None:
    id, method = first(web), setting.partition(".")[0]
    for path in canaries.values():
        text = setting.format(path)
        asked = {"picture": id, "methods": method, "set": text}
        answers = [
            within(60, lambda a=asked: web.get("/api/explain", params=a)),
            within(60, lambda a=asked: web.get(f"/api/maps/{method}.npy", params=a)),
            within(60, lambda b={"kind": "map", "picture": id, "methods": [method], "settings": [text]}: web.post(
                "/api/jobs", json=b)),
        ]  # fmt: skip
        for answer in answers:
            assert answer.status_code == 400
            assert answer.json()["detail"] == "Settings that name files are for the command line, not for the page."
    patterns = web.get("/api/explain", params={"picture": id, "methods": "saliency"})
    assert patterns.status_code == 200


def test_a_pipe_is_never_read(canaries: dict[str, str]) -> None:
    def refused() -> str:
        with pytest.raises(OSError, match="pipe"):
            read_regular(canaries["pipe"])
        with pytest.raises(cs.PictureError, match="pipe"):
            cs.Picture.of(canaries["pipe"])
        picture = np.zeros((96, 96, 3), np.uint8)
        for target in (f"similar:{canaries['pipe']}", f"direction:layer3@{canaries['pipe']}"):
            with pytest.raises(cs.ConvoscopeError, match="pipe"):
                cs.explain("toybox", picture, "saliency", target=target)
        return "done"

    assert within(120, refused) == "done"
    with pytest.raises(IsADirectoryError):
        read_regular(canaries["folder"])
    assert read_regular(canaries["picture"])[:4] == b"\x89PNG"

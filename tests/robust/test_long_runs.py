"""Long runs: memory does not grow with what was done, only with what is kept on purpose."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import convoscope as cs

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc"),
]

MOST = 30  # MB beyond what the first fifth has taken


def resident() -> float:
    """Memory of this process in MB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def growth(act: Callable[[int], Any], times: int) -> float:
    """By how many MB the process grows after a fifth of ``times``, which fills every cache."""
    warm = times // 5
    for number in range(warm):
        act(number)
    before = resident()
    for number in range(warm, times):
        act(number)
    return resident() - before


def model() -> cs.Model:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 4),
    )  # fmt: skip
    return cs.wrap(net.eval(), size=24)


def photo(number: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(number).integers(0, 255, (24, 24, 3), dtype=np.uint8)


def test_two_thousand_explanations() -> None:
    opened = model()
    methods = ["grad-cam", "guided-backprop", cs.Occlusion(12, 12), "lrp"]
    found = growth(lambda number: cs.explain(opened, photo(number), methods[number % 4]), 2000)
    assert found <= MOST, f"grew by {found:.0f} MB"


def test_three_thousand_requests(tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    from web_helpers import client, write_pictures

    from convoscope.web import create_app

    folder = write_pictures(tmp_path / "p", 3)
    app = create_app(cs.open_model("toybox"), folder)
    with client(app) as web:
        listed = [one["id"] for one in web.get("/api/pictures").json()["pictures"]]
        asked = [
            "/", "/api/pictures", "/api/model", "/api/layers", "/api/nowhere", f"/api/pictures/{listed[0]}",
            f"/api/explain?picture={listed[1]}&methods=grad-cam,saliency",
            f"/api/explain?picture={listed[2]}&methods=nothing",
        ]  # fmt: skip

        def ask(number: int) -> None:
            answer = web.get(asked[number % len(asked)])
            assert answer.status_code < 500, (asked[number % len(asked)], answer.text)

        found = growth(ask, 3000)
    assert found <= MOST, f"grew by {found:.0f} MB"


def test_three_hundred_times_open_and_close(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    for number in range(6):
        Image.fromarray(photo(number)).save(tmp_path / "p" / f"{number}.png")
    cs.survey(model(), tmp_path / "p", tmp_path / "s")

    def again(number: int) -> None:
        with cs.Store.open(tmp_path / "s", write=number % 3 == 0) as store:
            assert len(store) == 6
            assert store.state().pictures == 6
            len(store.table().to_pylist())

    found = growth(again, 300)
    assert found <= MOST, f"grew by {found:.0f} MB"

"""A lasso of pictures becomes a concept on the page: drawn on the map, tagged, tested."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("lance")

from web_helpers import client, events, write_pictures

import convoscope as cs
from convoscope.web import create_app


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Any:
    base = tmp_path_factory.mktemp("concepts")
    folder = write_pictures(base / "pictures", 40)
    cs.survey("toybox-cheat", str(folder), base / "store", layers=["layer3"]).close()
    with client(create_app("toybox-cheat", folder, base / "store", findings_into=base / "found")) as opened:
        yield opened, Path(base)


def test_a_lasso_becomes_a_concept(asked: Any) -> None:
    page, base = asked
    made = page.get("/api/collection/map", params={"method": "pca"}).json()
    x, y = np.asarray(made["x"]), np.asarray(made["y"])
    right = float(np.sort(x)[15] + np.sort(x)[16]) / 2
    left, low, high = float(x.min()) - 1, float(y.min()) - 1, float(y.max()) + 1
    lasso = f"{left:.3f},{low:.3f};{right:.3f},{low:.3f};{right:.3f},{high:.3f};{left:.3f},{high:.3f}"
    held = page.get("/api/collection/ids", params={"lasso": lasso, "map": "pca"}).json()["ids"]
    assert len(held) == 16
    page.post("/api/collection/marks", json={"kind": "tag", "query": f"lasso={lasso}&map=pca", "value": "mine"})
    assert page.get("/api/collection/marks").json()["tags"] == {"mine": 16}
    job = page.post("/api/jobs", json={"kind": "tcav", "target": "cup", "tags": ["mine"]}).json()
    assert json.loads(events(page, job["id"])[-1][1])["state"] == "done"
    found = page.get("/api/improve/tcav").json()
    assert len(found["rows"]) + len(found["refused"]) >= 1
    assert all(row["concept"] == "mine" and row["target"] == "cup" for row in found["rows"])
    assert json.loads((base / "found" / "tcav.json").read_text())["rows"] == found["rows"]

"""The third question over HTTP: documents from disk, pieces pasted by hand, answers, notes, a second network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")

from web_helpers import client, events, write_pictures

import convoscope as cs
from convoscope import ask
from convoscope.errors import UsageError
from convoscope.web import create_app


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Any:
    base = tmp_path_factory.mktemp("improve")
    folder = write_pictures(base / "pictures", 12)
    given = base / "given"
    given.mkdir()
    files = sorted(folder.glob("*.png"))
    finding = {
        "kind": "slice", "class": None, "sentence": "Night fails.", "size": 0.4, "low": 0.2, "high": 0.6,
        "pictures": [str(files[0]), "/elsewhere/x.png"], "doubt": "d", "next": "convoscope repair",
    }  # fmt: skip
    (given / "diagnosis.json").write_text(json.dumps({
        "findings": [finding], "tests": 9, "stopped": None, "missed": "m", "pictures": 12, "right": None,
        "settings": [{"family": "x", "share": {"mean": 0.5, "low": 0.4, "high": 0.6}, "rows": [1, 2]}],
    }))  # fmt: skip
    app = create_app(
        "toybox", folder, against="toybox-cheat", diagnosis=[given], findings_into=base / "found", title="toybox"
    )
    with client(app) as asked:
        yield asked, app, files


def test_documents_are_read_from_disk_with_the_pages_pictures(served: Any) -> None:
    asked, _, files = served
    about = asked.get("/api/improve").json()
    assert about["there"]["diagnosis"]
    assert not about["there"]["audit"]
    assert about["against"] == "toybox-cheat"
    found = asked.get("/api/improve/diagnosis").json()
    one = found["findings"][0]
    assert one["pictures"][0]["name"] == files[0].name
    assert len(one["pictures"][0]["id"]) == 16
    assert one["pictures"][1] == {"id": None, "name": "x.png"}, "what is not served has no id, and no path"
    assert one["facts"] == {"family": "x", "share": {"mean": 0.5, "low": 0.4, "high": 0.6}}
    assert asked.get("/api/improve/audit").json() == {"there": False}


def test_a_document_that_is_none_is_refused_in_one_sentence(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", 3)
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "diff.json").write_text('{"pairs": 3}')
    (tmp_path / "given" / "audit.json").write_text("nonsense")
    with client(create_app("toybox", folder, diagnosis=[tmp_path / "given"])) as asked:
        answer = asked.get("/api/improve/diff")
        assert answer.status_code == 400
        assert "make it anew" in answer.json()["detail"]
        assert asked.get("/api/improve/audit").json() == {"there": False}
    with pytest.raises(UsageError, match="no such folder"):
        create_app("toybox", folder, diagnosis=[tmp_path / "nowhere"])


def test_a_piece_pasted_by_hand_is_what_pasting_the_pixels_gives(served: Any) -> None:
    asked, app, _ = served
    first, second = (one["id"] for one in asked.get("/api/pictures").json()["pictures"][:2])
    told = asked.get(
        "/api/paste", params={"source": first, "onto": second, "x": 10, "y": 20, "to_x": 30, "to_y": 5, "side": 25}
    ).json()
    album, model = app.state.app_state.album, app.state.app_state.model
    inputs = [np.array(album.picture(id).image.convert("RGB")) for id in (first, second)]
    made = inputs[1].copy()
    made[5:30, 30:55] = inputs[0][20:45, 10:35]
    want = ask.read(model, made, count=5)
    assert [row["label"] for row in told["after"]["classes"]] == [row["label"] for row in want.classes]
    np.testing.assert_allclose(
        [row["score"] for row in told["after"]["classes"]], [row["score"] for row in want.classes], atol=1e-3
    )
    assert told["facts"]["control_take"] == [71, 71], "the corner that lies farthest away"
    far = asked.get(
        "/api/paste", params={"source": first, "onto": second, "x": 900, "y": -9, "to_x": 0, "to_y": 0, "side": 25}
    ).json()
    assert far["facts"]["take"] == [71, 0], "brought inside"
    assert (
        asked.get(
            "/api/paste", params={"source": first, "onto": second, "x": 0, "y": 0, "to_x": 0, "to_y": 0, "side": 97}
        ).status_code
        == 400
    )
    same = asked.get(
        "/api/paste", params={"source": second, "onto": second, "x": 7, "y": 7, "to_x": 7, "to_y": 7, "side": 9}
    ).json()
    assert same["before"]["classes"] == same["after"]["classes"]


def test_answers_become_flags(served: Any) -> None:
    asked, _, _ = served
    told = asked.post("/api/improve/answer", json={"label": "cup", "is_part": False}).json()
    assert told["answers"] == {"cup": False}
    assert told["commands"]["repair"].endswith("--not-part cup")
    assert "--not-part cup" in asked.get("/api/improve").json()["commands"]["shortcuts"]
    assert asked.post("/api/improve/answer", json={"label": "nothing", "is_part": True}).status_code == 400
    assert asked.post("/api/improve/answer", json={"label": "cup", "is_part": None}).json()["answers"] == {}


def test_the_second_network_answers_at_b(served: Any) -> None:
    asked, app, _ = served
    picture = asked.get("/api/pictures").json()["pictures"][0]["id"]
    opened = app.state.app_state.album.picture(picture)
    for path, name in (("", "toybox"), ("/b", "toybox-cheat")):
        told = asked.get(f"{path}/api/explain", params={"picture": picture, "methods": "grad-cam"}).json()
        want = cs.explain(cs.open_model(name), opened, "grad-cam")
        assert told["score"] == pytest.approx(want.score, abs=1e-4)
        assert asked.get(f"{path}/api/model").json()["name"] == name
    assert (
        asked.get("/b/api/explain", params={"picture": picture, "target": "direction:fc@/etc/x"}).status_code == 400
    )
    assert asked.get("/b/api/model", headers={"host": "elsewhere.example"}).status_code == 421
    assert asked.get("/b/api/model", headers={"sec-fetch-site": "cross-site"}).status_code == 403


def test_jobs_keep_what_they_find_and_refuse_what_cannot_be(served: Any) -> None:
    asked, app, _ = served
    job = asked.post("/api/jobs", json={"kind": "diagnose", "only": ["data"]}).json()
    assert json.loads(events(asked, job["id"])[-1][1])["state"] == "done"
    into = Path(str(app.state.app_state.shelf.into))
    assert json.loads((into / "diagnosis.json").read_text())["pictures"] == 12
    assert asked.get("/api/improve/diagnosis").json()["pictures"] == 12, "the newest counts"
    assert "--only takes" in asked.post("/api/jobs", json={"kind": "diagnose", "only": ["nonsense"]}).json()["detail"]
    assert "Choose the pictures" in asked.post("/api/jobs", json={"kind": "report"}).json()["detail"]
    assert "tag" in asked.post("/api/jobs", json={"kind": "tcav", "target": "cup", "tags": ["no"]}).json()["detail"]


def test_a_report_and_sheets_of_some_pictures_are_files_of_their_jobs(served: Any) -> None:
    asked, _, _ = served
    chosen = [one["id"] for one in asked.get("/api/pictures").json()["pictures"][:2]]
    for kind, name, start in (("sheets", "sheets.zip", b"PK"), ("report", "report.html", b"<!doctype html>")):
        job = asked.post("/api/jobs", json={"kind": kind, "pictures": chosen}).json()
        result = json.loads(events(asked, job["id"])[-1][1])["result"]
        assert (result["file"], result["pictures"], result["failed"]) == (name, 2, [])
        file = asked.get(f"/api/jobs/{job['id']}/files/{name}")
        assert file.content.startswith(start)
        assert "attachment" in file.headers["content-disposition"]
        assert asked.get(f"/api/jobs/{job['id']}/files/other").status_code == 404


def test_a_frame_of_the_camera_is_answered_and_forgotten(served: Any) -> None:
    asked, app, files = served
    before = len(app.state.app_state.album.entries())
    answer = asked.post("/api/live", content=files[3].read_bytes())
    said = json.loads(answer.headers["x-reading"])
    want = cs.explain(app.state.app_state.model, files[3], "grad-cam")
    assert said["prediction"][0]["label"] == want.prediction[0]["label"]
    values = np.frombuffer(answer.content[-96 * 96 * 4 :], "<f4").reshape(96, 96)
    np.testing.assert_allclose(values, want["grad-cam"].values, atol=1e-4)
    assert len(app.state.app_state.album.entries()) == before
    assert asked.post("/api/live", content=b"nothing").status_code == 400


def test_the_cell_of_a_convolution_over_http(served: Any) -> None:
    asked, _, _ = served
    picture = asked.get("/api/pictures").json()["pictures"][0]["id"]
    about = asked.get("/api/convolution", params={"picture": picture, "layer": "layer1"}).json()
    assert about["layer"].startswith("layer1.0")
    told = asked.get(
        "/api/convolution/cell", params={"picture": picture, "layer": "layer1", "channel": 3, "row": 2, "col": 1}
    ).json()
    assert abs(told["residual"]) < 1e-4
    plane = asked.get("/api/convolution/output.npy", params={"picture": picture, "layer": "layer1", "channels": "3"})
    _, rows, cols = about["output"]
    values = np.frombuffer(plane.content[-rows * cols * 4 :], "<f4").reshape(rows, cols)
    assert values[2, 1] == np.float32(told["value"])
    assert (
        asked.get(
            "/api/convolution/cell",
            params={"picture": picture, "layer": "layer1", "channel": 999, "row": 0, "col": 0},
        ).status_code
        == 400
    )
    assert len(asked.get("/api/blocks").json()) == 21


def test_the_report_has_the_same_findings_frozen(served: Any, tmp_path: Path) -> None:
    from convoscope.improve.documents import read_documents
    from convoscope.reports.report import report

    _, _, files = served
    documents = read_documents([files[0].parent.parent / "given"])
    made = report(cs.open_model("toybox"), files[:1], methods=["grad-cam"], found_before=documents)
    assert "Night fails." in made.html
    assert '<a href="#diagnosis">What is wrong with it?</a>' in made.html
    assert made.html.count("<script") == 1, "the numbers, which no browser runs"
    assert files[0].name in made.html.split('id="diagnosis"')[1]
    with pytest.raises(UsageError, match="none of diagnosis"):
        read_documents([tmp_path])
    with pytest.raises(UsageError, match="not of this version"):
        report(cs.open_model("toybox"), files[:1], methods=["grad-cam"], found_before={"craft": {"target": "cup"}})

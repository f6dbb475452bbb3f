"""Long work: progress and pictures as events, stopping, equal work once, a bounded line."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")

from web_helpers import client, events, first

import convoscope
from convoscope.errors import UsageError
from convoscope.web import create_app
from convoscope.web.jobs import Handle, Job, Jobs
from convoscope.web.request_queue import BusyError


def wait(job: Job, seconds: float = 20) -> Job:
    end = time.monotonic() + seconds
    while not job.ended_already and time.monotonic() < end:
        time.sleep(0.01)
    assert job.ended_already
    return job


@pytest.fixture
def jobs() -> Any:
    found = Jobs(waiting=3)
    yield found
    found.close()


def counting(steps: int, gate: threading.Event | None = None) -> Any:
    def work(handle: Handle) -> dict[str, Any]:
        for step in range(steps):
            handle.progress(step, steps)
            time.sleep(0.005)
        if gate is not None:
            gate.wait(5)
        return {"steps": steps}

    return work


def test_a_job_runs_and_ends(jobs: Jobs) -> None:
    job = wait(jobs.submit("map", "a", "A", counting(3)))
    assert job.state == "done"
    assert job.result == {"steps": 3}
    assert job.to_dict()["seconds"] > 0


def test_a_running_job_stops_at_its_next_step(jobs: Jobs) -> None:
    job = jobs.submit("map", "long", "long", counting(10_000))
    while job.state != "running":
        time.sleep(0.01)
    before = time.monotonic()
    jobs.cancel(job)
    wait(job)
    assert job.state == "cancelled"
    assert time.monotonic() - before < 1


def test_a_waiting_job_is_stopped_at_once_and_never_runs(jobs: Jobs) -> None:
    gate = threading.Event()
    first_job = jobs.submit("map", "gate", "gate", counting(1, gate))
    ran: list[int] = []
    second = jobs.submit("map", "second", "second", lambda handle: ran.append(1) or {})
    jobs.cancel(second)
    assert second.state == "cancelled"
    gate.set()
    wait(first_job)
    time.sleep(0.05)
    assert not ran


def test_equal_work_is_one_job_until_it_failed_or_was_stopped(jobs: Jobs) -> None:
    gate = threading.Event()
    a = jobs.submit("map", "same", "a", counting(1, gate))
    assert jobs.submit("map", "same", "b", counting(1)) is a
    gate.set()
    wait(a)
    assert jobs.submit("map", "same", "c", counting(1)) is a  # done: the answer is there

    def fails(handle: Handle) -> dict[str, Any]:
        raise UsageError("It cannot be done.")

    bad = wait(jobs.submit("map", "bad", "bad", fails))
    assert (bad.state, bad.error) == ("failed", "It cannot be done.")
    assert jobs.submit("map", "bad", "bad", counting(1)) is not bad


def test_work_that_breaks_does_not_end_the_line(jobs: Jobs) -> None:
    def breaks(handle: Handle) -> dict[str, Any]:
        raise ZeroDivisionError("oops")

    assert wait(jobs.submit("map", "breaks", "", breaks)).state == "failed"
    assert wait(jobs.submit("map", "next", "", counting(1))).state == "done"


def test_the_line_is_bounded(jobs: Jobs) -> None:
    gate = threading.Event()
    running = jobs.submit("map", "0", "", counting(1, gate))
    while running.state != "running":
        time.sleep(0.01)
    for number in range(3):
        jobs.submit("map", f"waits {number}", "", counting(1))
    with pytest.raises(BusyError, match="wait already"):
        jobs.submit("map", "too many", "", counting(1))
    gate.set()


def test_old_jobs_are_forgotten() -> None:
    found = Jobs()
    for number in range(80):
        wait(found.submit("map", str(number), "", counting(0)))
    assert len(found.listed()) <= 49
    found.close()


def test_one_who_comes_late_hears_where_it_stands(jobs: Jobs) -> None:
    gate = threading.Event()

    def work(handle: Handle) -> dict[str, Any]:
        handle.frame({"n": 1})
        handle.frame({"n": 2})
        handle.progress(1, 2)
        gate.wait(5)
        return {}

    job = jobs.submit("map", "late", "", work)
    while not job.latest:
        time.sleep(0.01)
    known = job.listen(lambda event, data: None)
    assert known[0][0] == "state"
    assert known[0][1]["progress"]["done"] == 1
    assert known[-1] == ("frame", {"n": 2})  # the newest picture only
    gate.set()


def test_occlusion_streams_a_coarse_map_then_the_real_one(web: Any) -> None:
    id = first(web)
    request = {
        "kind": "map",
        "picture": id,
        "methods": ["occlusion"],
        "settings": ["occlusion.window=24", "occlusion.stride=6"],
    }
    job = web.post("/api/jobs", json=request).json()
    heard = events(web, job["id"])
    kinds = [name for name, _ in heard]
    frames = [json.loads(data) for name, data in heard if name == "frame"]
    end = json.loads(heard[-1][1])
    assert end["state"] == "done"
    assert "progress" in kinds
    assert frames
    assert frames[0]["map"]["stride"] > 6
    values = web.get(end["result"]["map"]["values"])
    assert values.status_code == 200
    params = {"picture": id, "methods": "occlusion", "set": request["settings"]}
    now = web.get("/api/explain", params=params).json()
    assert now["slow"] == []  # it was made: it comes with the others
    assert now["maps"][0]["max"] == pytest.approx(end["result"]["map"]["max"])


def test_a_long_job_is_stopped_and_what_is_half_done_is_not_kept(web: Any) -> None:
    id = first(web)
    settings = ["rise.samples=40000"]
    job = web.post("/api/jobs", json={"kind": "map", "picture": id, "methods": ["rise"], "settings": settings}).json()
    end = time.monotonic() + 30
    while not (web.get(f"/api/jobs/{job['id']}").json()["progress"] or {}).get("done") and time.monotonic() < end:
        time.sleep(0.02)
    before = time.monotonic()
    web.delete(f"/api/jobs/{job['id']}")
    while web.get(f"/api/jobs/{job['id']}").json()["state"] == "running":
        time.sleep(0.02)
        assert time.monotonic() - before < 15
    assert web.get(f"/api/jobs/{job['id']}").json()["state"] == "cancelled"
    found = web.get("/api/explain", params={"picture": id, "methods": "rise", "set": settings}).json()
    assert found["slow"] == ["rise"]


def test_clicks_are_answered_while_long_work_runs(web: Any) -> None:
    ids = [one["id"] for one in web.get("/api/pictures").json()["pictures"]]
    job = web.post("/api/jobs", json={"kind": "visualize", "target": "layer3:3", "steps": 1500}).json()
    try:
        while web.get(f"/api/jobs/{job['id']}").json()["state"] == "queued":
            time.sleep(0.02)
        for id in ids[3:6]:
            assert web.get("/api/explain", params={"picture": id, "methods": "saliency"}).status_code == 200
        assert web.get(f"/api/jobs/{job['id']}").json()["state"] == "running"
    finally:
        web.delete(f"/api/jobs/{job['id']}")


def test_a_visualisation_streams_frames_and_ends_with_its_figures(web: Any) -> None:
    job = web.post("/api/jobs", json={"kind": "visualize", "target": "car", "steps": 24, "seed": 3}).json()
    heard = events(web, job["id"])
    end = json.loads(heard[-1][1])
    assert end["state"] == "done", end
    made = end["result"]["visualizations"][0]
    assert made["target"] == "car"
    assert made["picture"].startswith("data:image/png;base64,")
    assert np.isfinite(made["score"])
    assert any(name == "frame" for name, _ in heard)


def test_trust_is_the_librarys_verdict(web: Any, toybox_model: Any, toybox_folder: Path) -> None:
    from convoscope import explain
    from convoscope.trust.verdict import verdicts

    id = first(web)
    job = web.post("/api/jobs", json={"kind": "trust", "picture": id, "methods": ["grad-cam"]}).json()
    end = json.loads(events(web, job["id"])[-1][1])
    assert end["state"] == "done", end
    name = web.get(f"/api/pictures/{id}").json()["name"]
    found = explain(toybox_model, toybox_folder / name, ["grad-cam"])
    expected = verdicts(toybox_model, found)["grad-cam"].to_dict()
    assert end["result"]["trust"]["grad-cam"]["gain"] == pytest.approx(expected["gain"], abs=1e-5)
    assert end["result"]["trust"]["grad-cam"]["sentence"] == expected["sentence"]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"kind": "map"}, "which picture"),
        ({"kind": "visualize"}, "what to visualise"),
        ({"kind": "visualize", "objective": "dream"}, "starts from a picture"),
        ({"kind": "survey"}, "--images"),
        ({"kind": "embedding"}, "no survey"),
    ],
)
def test_work_that_cannot_be_done_is_refused_at_once(web: Any, request_: dict[str, Any], said: str) -> None:
    answer = web.post("/api/jobs", json=request_)
    assert answer.status_code == 400, answer.text
    assert said in answer.json()["detail"]


def test_an_unknown_job_is_404(web: Any) -> None:
    assert web.get(f"/api/jobs/{'a' * 16}").status_code == 404
    assert web.delete(f"/api/jobs/{'a' * 16}").status_code == 404
    assert web.get(f"/api/jobs/{'a' * 16}/events").status_code == 404
    assert web.get("/api/jobs/zzz").status_code == 422


def test_a_survey_is_made_by_a_job(toybox_model: Any, toybox_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("lance")
    pytest.importorskip("faiss")
    app = create_app(toybox_model, toybox_folder, survey_into=str(tmp_path / "store"))
    with client(app) as found:
        before = found.get("/api/collection").json()
        assert not before["there"]
        assert before["can_survey"]
        job = found.post("/api/jobs", json={"kind": "survey"}).json()
        end = json.loads(events(found, job["id"])[-1][1])
        assert end["state"] == "done", end
        about = found.get("/api/collection").json()
        assert about["there"]
        assert about["pictures"] == 24
        assert 0.5 < about["accuracy"] <= 1


def endless(handle: Handle) -> dict[str, Any]:
    for step in range(100_000):
        handle.progress(step, 100_000)
        time.sleep(0.005)
    return {}


def test_work_that_nobody_watches_any_more_ends() -> None:
    jobs = Jobs(abandoned=0.1)
    try:
        watched = jobs.submit("map", "w", "W", endless)
        told: list[str] = []

        def listener(event: str, data: Any) -> None:
            told.append(event)

        watched.listen(listener)
        end = time.monotonic() + 20
        while len(told) < 60 and time.monotonic() < end:  # many times longer than it would be left alone
            time.sleep(0.01)
        assert watched.state == "running"
        after = jobs.submit("map", "n", "N", counting(2))
        assert after.to_dict()["ahead"] == 1
        after.listen(lambda event, data: None)
        watched.unlisten(listener)
        assert wait(watched).state == "cancelled"
        assert wait(after).state == "done"
    finally:
        jobs.close()


def test_what_others_use_goes_on_without_a_watcher() -> None:
    jobs = Jobs(abandoned=0.01)
    try:
        assert wait(jobs.submit("survey", "s", "S", counting(60), lasting=True)).state == "done"
    finally:
        jobs.close()


def test_the_time_that_is_left_follows_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("convoscope.web.jobs.time.monotonic", lambda: now[0])
    job = Job("a" * 16, "k", "map", "T", lambda handle: {})
    handle = Handle(job)
    left = []
    for step in range(60):
        # the first ten steps take ten times as long: they build what the others use
        now[0] += 2.0 if step < 10 else 0.2
        handle.progress(step, 200)
        left.append(job.latest["left"])
    assert left[0] is None
    truth = (200 - 59) * 0.2
    assert truth / 1.5 < left[-1] < truth * 1.5


def test_serve_begins_the_bundled_survey(toybox_model: Any, toybox_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("lance")
    from convoscope.cli.serve import _survey_now

    app = create_app(toybox_model, toybox_folder, survey_into=str(tmp_path / "store"))
    jobs = app.state.app_state.jobs
    _survey_now(app)
    (job,) = jobs.listed()
    assert job.kind == "survey"
    assert job.patience is None  # it goes on while nobody looks
    jobs.close()


def test_serve_refuses_at_the_start_what_no_page_could_show(tmp_path: Path) -> None:
    from convoscope.cli.common import ModelOptions
    from convoscope.cli.serve import _app

    (tmp_path / "net.py").write_text(
        "import torch\n\n\ndef build():\n    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(),"
        " torch.nn.Linear(4 * 30 * 30, 10))\n"
    )
    with pytest.raises(convoscope.ConvoscopeError, match="--size"):
        _app(f"{tmp_path / 'net.py'}:build", ModelOptions(weights="none"), None, None, None, [])

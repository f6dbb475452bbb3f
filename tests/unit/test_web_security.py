"""The page's door: hosts, origins, token, policy, sizes, paths."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

from web_helpers import HOST, client, first, write_pictures

from convoscope.errors import PictureError
from convoscope.web import create_app
from convoscope.web.picture_library import PictureLibrary
from convoscope.web.security import Guard


def test_only_known_hosts_are_answered(web: Any) -> None:
    for host in (
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "",
        "[::1",
        "127.0.0.1@evil.example:80",
    ):
        answer = web.get("/api/model", headers={"host": host})
        assert answer.status_code == 421, host
        assert "does not answer to the name" in answer.json()["detail"]
    for host in ("127.0.0.1", "localhost:8000", "[::1]:8000", "LOCALHOST"):
        assert web.get("/api/pictures", headers={"host": host}).status_code == 200, host


def test_an_address_bound_everywhere_takes_addresses_but_no_names() -> None:
    guard = Guard(None, hosts=["0.0.0.0"])  # type: ignore[arg-type]
    assert guard._known("192.168.1.7:8000")
    assert guard._known("[fe80::1]:8000")
    assert not guard._known("rebound.example:8000")
    assert not Guard(None, hosts=["127.0.0.1"])._known("192.168.1.7:8000")  # type: ignore[arg-type]


def test_other_sites_are_refused(web: Any) -> None:
    body = {"kind": "visualize", "target": "car"}
    for origin in (
        "http://evil.example",
        "null",
        "https://localhost.evil.example",
        "http://127.0.0.1:9999",
        "file://",
    ):
        assert web.post("/api/jobs", json=body, headers={"origin": origin}).status_code == 403, origin
        assert web.get("/api/model", headers={"origin": origin}).status_code == 403, origin
    assert web.get("/api/model", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert web.get("/", headers={"sec-fetch-site": "cross-site"}).status_code == 200  # a link from elsewhere
    assert web.get("/api/model", headers={"origin": HOST, "sec-fetch-site": "same-origin"}).status_code == 200


def test_every_answer_carries_the_policy(web: Any) -> None:
    for path in ("/", "/docs", "/api/model", "/static/js/main.js", "/nothing", "/api/pictures/zz"):
        headers = web.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["x-frame-options"] == "DENY"
    refused = web.get("/", headers={"host": "evil.example"})
    assert "default-src 'none'" in refused.headers["content-security-policy"]


def test_the_plot_has_a_frame_of_its_own(web: Any) -> None:
    policy = web.get("/plot/frame.html").headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts;")
    assert "allow-same-origin" not in policy
    assert "connect-src" not in policy  # default-src 'none' holds: it can reach nothing
    assert f"script-src {HOST}/plot/ 'unsafe-eval'" in policy


def test_the_token_is_asked_and_leaves_the_address(toybox_model: Any, toybox_folder: Path) -> None:
    app = create_app(toybox_model, toybox_folder, token="a-long-token", hosts=["0.0.0.0"])
    with client(app) as found:
        for path in ("/", "/docs", "/api/model", "/openapi.json", f"/api/pictures/{'0' * 16}/photo"):
            assert found.get(path).status_code == 401, path
        assert found.get("/?token=another-token").status_code == 401
        assert found.get("/static/js/main.js").status_code == 200  # the program itself is no secret
        assert found.get("/api/model", headers={"authorization": "Bearer a-long-token"}).status_code == 200
        assert found.get("/api/model", headers={"cookie": "convoscope=a-long-toke"}).status_code == 401
        entered = found.get("/?token=a-long-token&tab=layer&layer=layer3", follow_redirects=False)
        assert entered.status_code == 303
        assert entered.headers["location"] == "/?tab=layer&layer=layer3"
        cookie = entered.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie
        assert found.get("/api/model").status_code == 200  # by the cookie
        assert found.get("/api/model", headers={"origin": "http://evil.example"}).status_code == 403


def test_paths_never_lead_out(web: Any) -> None:
    attempts = [
        "/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/app.py", "/static/....//app.py",
        "/static//etc/passwd",
        "/static/js/..%5c..%5capp.py", "/static/%00", "/plot/..%2f..%2fapp.py", "/plot/plotly.min.js/..", "/static/",
        "/api/pictures/..%2f..%2fetc%2fpasswd/photo", "/api/pictures/%2e%2e/photo", "/static/js", "/static/C:/x",
    ]  # fmt: skip
    for path in attempts:
        answer = web.get(path)
        assert answer.status_code in (404, 422), (path, answer.status_code)
        assert "create_app" not in answer.text
        assert "root:" not in answer.text


def test_links_that_lead_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    folder, secret = write_pictures(tmp_path / "shown", 2), write_pictures(tmp_path / "secret", 2)
    inside = next(folder.glob("*.png"))
    os.symlink(next(secret.glob("*.png")), folder / "link.png")
    os.symlink(secret, folder / "folder-link")
    os.symlink(inside, folder / "own-link.png")
    album = PictureLibrary(folder)
    names = {entry.name for entry in album.entries()}
    assert "link.png" not in names
    assert not any("folder-link" in name for name in names)
    assert len(names) == 2  # the link to a picture of the folder itself is that picture again


def test_a_file_that_is_swapped_for_a_link_is_not_read(tmp_path: Path) -> None:
    folder, secret = write_pictures(tmp_path / "shown", 1), write_pictures(tmp_path / "secret", 1)
    album = PictureLibrary(folder)
    entry = album.entries()[0]
    assert entry.path is not None
    entry.path.unlink()
    os.symlink(next(secret.glob("*.png")), entry.path)
    with pytest.raises(PictureError, match="not there any more"):
        album.picture(entry.id)


def test_a_file_that_changed_is_not_passed_off_as_the_old_one(tmp_path: Path) -> None:
    folder, other = write_pictures(tmp_path / "shown", 1), write_pictures(tmp_path / "other", 3)
    album = PictureLibrary(folder)
    entry = album.entries()[0]
    assert entry.path is not None
    entry.path.write_bytes(sorted(other.glob("*.png"))[-1].read_bytes() + b"more")
    with pytest.raises(PictureError, match="changed since"):
        album.picture(entry.id)


@pytest.mark.parametrize("target", ["similar:/etc/passwd", "distance:/", " SIMILAR:x", "similar:../../secret"])
def test_targets_that_name_files_are_refused(web: Any, target: str) -> None:
    id = first(web)
    for path in ("/api/predict", "/api/explain", "/api/cover"):
        answer = web.get(path, params={"picture": id, "target": target, "x0": 0, "y0": 0, "x1": 9, "y1": 9})
        assert answer.status_code == 400
        assert "for the command line" in answer.json()["detail"]
        assert "passwd" not in answer.text
    job = web.post("/api/jobs", json={"kind": "visualize", "targets": [target]})
    assert job.status_code == 400


def test_bodies_are_bounded(web: Any) -> None:
    assert web.post("/api/jobs", content=b"x" * (2 << 20)).status_code == 413
    assert web.post("/api/pictures", headers={"content-length": str(1 << 40)}, content=b"x").status_code == 413
    assert web.post("/api/jobs", headers={"content-length": "many"}, content=b"x").status_code == 400


def test_a_body_that_lies_about_its_length_is_cut(web: Any) -> None:
    def endless() -> Any:
        for _ in range(40):
            yield b"x" * (1 << 20)

    # chunked: no length is told at all
    assert web.post("/api/pictures", content=endless()).status_code in (400, 413)
    assert web.get("/api/pictures").status_code == 200


def test_no_model_and_no_pickle_can_be_asked_for(web: Any) -> None:
    paths = web.get("/openapi.json").json()["paths"]
    assert not any("weights" in path or "open" in path for path in paths)
    fields = web.get("/openapi.json").json()["components"]["schemas"]["JobRequest"]["properties"]
    assert not {"spec", "weights", "model", "path", "folder", "trust_pickle"} & set(fields)
    answer = web.post("/api/jobs", json={"kind": "survey", "folder": "/etc"})
    assert answer.status_code == 422


def test_an_archive_is_no_picture(web: Any, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "weights.pt", "w") as archive:
        archive.writestr("archive/data.pkl", b"cos\nsystem\n(S'true'\ntR.")
    answer = web.post("/api/pictures", content=(tmp_path / "weights.pt").read_bytes())
    assert answer.status_code == 400
    assert "not a picture" in answer.json()["detail"]

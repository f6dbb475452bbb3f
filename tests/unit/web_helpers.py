"""What the tests of the page share: a small folder of toybox pictures, the app over it, and a client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

HOST = "http://127.0.0.1"


def client(app: Any, **headers: str) -> TestClient:
    """A client that speaks to the app as a browser on this machine does."""
    return TestClient(app, base_url=HOST, headers=headers, raise_server_exceptions=False)


def first(client: TestClient) -> str:
    """The id of the folder's first picture; what another test has dropped in stands before it."""
    listed = client.get("/api/pictures").json()["pictures"]
    return str(next(one["id"] for one in listed if one["source"] == "folder"))


def write_pictures(folder: Path, count: int = 6) -> Path:
    """Some toybox pictures with their truth."""
    from convoscope.toybox import write

    write(folder, count, seed=3)
    return folder


def events(client: TestClient, job: str) -> list[tuple[str, str]]:
    """All events of a job until it ends."""
    found, name = [], ""
    with client.stream("GET", f"/api/jobs/{job}/events") as stream:
        for line in stream.iter_lines():
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                found.append((name, line[6:]))
    return found

"""What the browser may keep: only what names this network, this run and this collection in its address."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

from fastapi.testclient import TestClient

import convoscope
from convoscope.web import create_app

#: answers that another network, another size of its input, or another collection makes otherwise
PATHS = (
    "/api/pictures/{id}/input", "/api/filters.png?layer=stem.0", "/api/piece?picture={id}&box=0,0,9,9",
    "/api/convolution/output.npy?picture={id}&layer=stem.0&channels=0", "/api/top-patch?unit=layer3:23",
    "/api/collection/atlas/0", "/api/maps/grad-cam.npy?picture={id}", "/api/maps/grad-cam.png?picture={id}",
    "/api/activations.npy?picture={id}&layer=layer3&channels=0",
)  # fmt: skip


def kept(answer: Any) -> bool:
    assert answer.status_code == 200, answer.text
    return "immutable" in answer.headers["cache-control"]


@pytest.fixture
def clients(toybox_model: Any, toybox_folder: Path, toybox_store: Any) -> tuple[TestClient, TestClient]:
    """The same network served twice, as by a server that was started anew."""
    made = [create_app(toybox_model, toybox_folder, toybox_store) for _ in range(2)]
    first, second = (TestClient(app, base_url="http://127.0.0.1") for app in made)
    return first, second


@pytest.mark.parametrize("path", PATHS)
def test_only_what_names_this_run_is_kept(clients: tuple[TestClient, TestClient], path: str) -> None:
    first, second = clients
    id = first.get("/api/pictures").json()["pictures"][0]["id"]
    stamps = [one.get("/api/model").json()["stamp"] for one in clients]
    assert stamps[0] != stamps[1]
    asked = path.replace("{id}", id)
    joined = f"{asked}{'&' if '?' in asked else '?'}v="
    assert kept(first.get(f"{joined}{stamps[0]}"))
    assert not kept(first.get(asked))
    assert not kept(second.get(f"{joined}{stamps[0]}"))


def test_a_map_of_a_network_with_another_input_is_never_the_one_kept_before(toybox_folder: Path) -> None:
    small, large = (
        TestClient(create_app(convoscope.open_model("toybox", size=size), toybox_folder), base_url="http://127.0.0.1")
        for size in ((96, 96), (128, 128))
    )
    assert small.get("/api/model").json()["fingerprint"] == large.get("/api/model").json()["fingerprint"]
    id = small.get("/api/pictures").json()["pictures"][0]["id"]
    maps = [
        client.get("/api/explain", params={"picture": id, "methods": "grad-cam"}).json()["maps"][0]
        for client in (small, large)
    ]
    assert maps[0]["values"] != maps[1]["values"], "one address, two answers: the browser would show the former"
    assert kept(large.get(maps[1]["values"]))
    assert not kept(large.get(maps[0]["values"]))


def test_photos_are_kept_since_their_names_are_their_content(clients: tuple[TestClient, TestClient]) -> None:
    first, _ = clients
    id = first.get("/api/pictures").json()["pictures"][0]["id"]
    assert kept(first.get(f"/api/pictures/{id}/photo"))
    assert kept(first.get(f"/api/pictures/{id}/thumbnail"))

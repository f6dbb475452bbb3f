"""The page's app is made once for all its tests: a model, a folder of pictures, a survey."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # web_helpers


@pytest.fixture(scope="session")
def toybox_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("fastapi")
    from web_helpers import write_pictures

    return write_pictures(tmp_path_factory.mktemp("pictures") / "toybox", 24)


@pytest.fixture(scope="session")
def toybox_model() -> Any:
    from convoscope import open_model

    return open_model("toybox")


@pytest.fixture(scope="session")
def toybox_store(toybox_model: Any, toybox_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    pytest.importorskip("lance")
    pytest.importorskip("faiss")
    from convoscope.surveys import survey

    folder = tmp_path_factory.mktemp("store") / "store"
    return survey(
        toybox_model, toybox_folder, folder, ["layer1", "layer3.1.relu#2"], truth=toybox_folder / "truth.csv"
    )


@pytest.fixture(scope="session")
def web(toybox_model: Any, toybox_folder: Path) -> Any:
    """A client of the page without a survey."""
    from web_helpers import client

    from convoscope.web import create_app

    with client(create_app(toybox_model, toybox_folder)) as found:
        yield found


@pytest.fixture(scope="session")
def surveyed(toybox_model: Any, toybox_folder: Path, toybox_store: Any) -> Any:
    """A client of the page with a survey."""
    from web_helpers import client

    from convoscope.web import create_app

    with client(create_app(toybox_model, toybox_folder, toybox_store)) as found:
        yield found

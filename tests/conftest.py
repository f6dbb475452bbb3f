"""What all tests share: the real data, one thread, and the rotation of the long sweeps."""

from __future__ import annotations

import json
import os
import subprocess
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
# tests read and write no cache of the user's; those of the cache itself say where theirs is
os.environ["CONVOSCOPE_CACHE"] = "off"

#: files of minutes, which begin first: at the end one of them would keep one worker busy and leave the other idle
LONG = ("test_ward.py", "test_demo_page.py", "test_shortcuts_repair.py", "test_stress.py", "test_saved_graphs.py")
#: of the tests marked slow, one in so many runs for each commit; `make test-all` runs every one
ROTATION = 14


def _turn() -> int:
    """Which part of the long sweeps runs: told by the commit, so that one commit gives one result on every day."""
    if named := os.environ.get("CONVOSCOPE_ROTATION"):
        return int(named)
    asked = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return int(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip(), 16)
    except (OSError, subprocess.CalledProcessError, ValueError):
        return 0  # no checkout (a source package): always the first part


def pytest_configure(config: pytest.Config) -> None:
    import torch

    torch.set_num_threads(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)
    if os.environ.get("CONVOSCOPE_ALL") == "1":
        return
    turn = _turn()
    rest = pytest.mark.skip(reason="a long sweep whose turn it is not (make test-all runs every one)")
    for item in items:
        slow = item.get_closest_marker("slow")
        # by name, so that the turns do not move when tests are added
        if slow and (zlib.crc32(item.nodeid.encode()) + turn) % slow.kwargs.get("one_in", ROTATION):
            item.add_marker(rest)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The real weights and photos: ``CONVOSCOPE_DATA``, else ``../shared/data`` beside the checkout."""
    named = os.environ.get("CONVOSCOPE_DATA")
    places = [Path(named)] if named else [Path(__file__).resolve().parents[2] / "shared" / "data"]
    found = next((place for place in places if (place / "weights").is_dir()), None)
    if found is None:
        reason = f"no real data at {places[0]} (set CONVOSCOPE_DATA)"
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(f"{reason}: in CI this is a failure")
        pytest.skip(reason)
    return found


@pytest.fixture(scope="session")
def squeezenet_weights(data_dir: Path) -> Path:
    """SqueezeNet 1.0 trained on ImageNet."""
    return data_dir / "weights" / "squeezenet1_0.safetensors"


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON document."""
        return json.loads(self.out)


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run a command in this process, as the console script would."""
    from convoscope.cli import run

    def call(*arguments: object) -> Answer:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Answer(code, out, err)

    return call


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six toybox pictures with their truth; not to be written to."""
    from convoscope.toybox import write

    folder = tmp_path_factory.mktemp("toys")
    write(folder, 6, seed=3)
    return folder

"""Folders, links and pictures that are not what they were: one true sentence, and the next run gives the whole."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_faults import NET, content, same

import convoscope as cs
from convoscope.surveys.gather import collections
from convoscope.surveys.store import layout as stores
from convoscope.surveys.store.upkeep import verify

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="links and users are those of Linux")

FLAGS = ["--labels", "labels.txt", "--size", "20", "--batch-size", "4"]
MODEL = ["net.py:build"]
#: every command that writes where it is told
WRITERS: dict[str, list[str]] = {
    "survey": ["survey", *MODEL, "few", *FLAGS],
    "explain": ["explain", *MODEL, "few", *FLAGS, "-m", "saliency"],
    "evaluate": ["evaluate", *MODEL, *FLAGS, "--images", "few", "--method", "saliency"],
    "report": ["report", *MODEL, "few", *FLAGS, "-m", "saliency"],
    "map": ["map", "s"],
    "visualize": ["visualize", *MODEL, *FLAGS, "-t", "red", "--steps", "2"],
    "diagnose": ["diagnose", *MODEL, "few", *FLAGS],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from convoscope.cli import run

    root = tmp_path_factory.mktemp("places")
    (root / "net.py").write_text(NET)
    (root / "labels.txt").write_text("red\ngreen\nblue\n")
    draw = np.random.default_rng(0)
    for kind, name in enumerate(("red", "green", "blue")):
        (root / "few" / name).mkdir(parents=True)
        for number in range(3):
            image = draw.integers(0, 120, (20, 20, 3))
            image[..., kind] += 100
            Image.fromarray(image.astype(np.uint8)).save(root / "few" / name / f"{number}.png")
    before = os.getcwd()
    os.chdir(root)
    try:
        assert run([*WRITERS["survey"], "--out", "s", "--shard-size", "3"]) == 0
    finally:
        os.chdir(before)
    return root


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own with network, pictures and store, in which the commands are called."""
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def ended(answer: Any) -> str:
    """All that was said, by a command that was not our fault."""
    assert answer.code in (0, 1, 2), answer.err
    assert "should not" not in answer.err
    return str(answer.out + answer.err)


@pytest.mark.parametrize("command", WRITERS)
def test_a_place_to_write_that_is_none(cli: Callable[..., Any], here: Path, command: str) -> None:
    ending = {"visualize": ".png", "map": ".html", "report": ".html"}.get(command, "")
    names = {kind: f"{kind}{ending}" for kind in ("file", "loop", "dangling", "folder")}
    (here / names["file"]).write_text("mine")
    (here / names["loop"]).symlink_to(names["loop"])
    (here / names["dangling"]).symlink_to("no/where/at/all")
    said = {kind: ended(cli(*WRITERS[command], "--out", name)) for kind, name in names.items() if kind != "folder"}
    said["below"] = ended(cli(*WRITERS[command], "--out", f"{names['file']}/x{ending}"))
    if not ending:  # what is a file stays one, and what leads nowhere is called so
        assert (here / names["file"]).read_text() == "mine"
        for kind in ("loop", "dangling"):
            assert "leads nowhere" in said[kind], said[kind]
            assert (here / names[kind]).is_symlink()
    assert "not a folder" in said["below"].lower() or "not a directory" in said["below"].lower(), said["below"]
    if ending:
        (here / names["folder"]).mkdir()
        answer = cli(*WRITERS[command], "--out", names["folder"])
        assert answer.code == 2
        assert "folder" in ended(answer)
        assert not any((here / names["folder"]).iterdir())


@pytest.mark.parametrize("command", ["survey", "explain", "report", "diagnose"])
def test_links_in_a_circle_among_the_pictures(cli: Callable[..., Any], here: Path, command: str) -> None:
    red = here / "few" / "red"
    (red / "self").symlink_to(".")
    (red / "up").symlink_to("..")
    (red / "a.png").symlink_to("b.png")
    (red / "b.png").symlink_to("a.png")
    out = "o.html" if command == "report" else "o"
    answer = cli(*WRITERS[command], "--out", out)
    said = ended(answer)
    assert answer.code == 1, said
    assert "a.png" in said
    assert "b.png" in said
    (red / "a.png").unlink()
    (red / "b.png").unlink()
    assert cli(*WRITERS[command], "--out", out).code == 0


@pytest.mark.parametrize("what", ["deleted", "replaced", "cut off", "turned into a folder"])
def test_pictures_that_change_while_they_are_surveyed(
    cli: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    ended(cli(*WRITERS["survey"], "--out", "whole", "--shard-size", "3"))
    files = sorted((here / "few").rglob("*.png"))
    kept = {file: file.read_bytes() for file in files}
    real, count = collections.read, 0

    def read(uri: str) -> bytes:
        nonlocal count
        count += 1
        if count == 4:
            for file in files[5:8]:
                file.unlink()
                if what == "replaced":
                    Image.new("RGB", (20, 20), (count, 9, 9)).save(file)
                elif what == "cut off":
                    file.write_bytes(kept[file][:60])
                elif what == "turned into a folder":
                    file.mkdir()
        return real(uri)

    monkeypatch.setattr(collections, "read", read)
    ended(cli(*WRITERS["survey"], "--out", "new", "--shard-size", "3"))
    assert count >= 4
    monkeypatch.setattr(collections, "read", real)
    for file, data in kept.items():
        if file.is_dir():
            file.rmdir()
        file.write_bytes(data)
    answer = cli(*WRITERS["survey"], "--out", "new", "--shard-size", "3")
    assert answer.code == 0, answer.err
    assert verify(here / "new").whole
    with cs.Store.open(here / "new") as store:
        found = {row["sha256"] for row in store.table().to_pylist() if row["error"] is None}
    with cs.Store.open(here / "whole") as store:
        wanted = {row["sha256"] for row in store.table().to_pylist()}
    assert wanted <= found
    if what != "replaced":
        assert same(content(here / "new"), content(here / "whole"))


def test_a_store_that_was_copied_goes_on_where_it_is(cli: Callable[..., Any], here: Path) -> None:
    shutil.copytree(here / "s", here / "else" / "s")
    assert cli("store", "verify", "else/s").code == 0
    answer = cli(*WRITERS["survey"], "--out", "else/s", "--shard-size", "3")
    assert answer.code == 0, answer.err
    assert same(content(here / "else" / "s"), content(here / "s"))


def test_a_store_whose_pictures_are_gone_still_answers(cli: Callable[..., Any], here: Path) -> None:
    (here / "few").rename(here / "away")
    for line in (["units", "s"], ["map", "s", "--out", "m.html"], ["store", "verify", "s"], ["mistakes", "s"]):
        answer = cli(*line)
        assert answer.code in (0, 1), (line, ended(answer))
        ended(answer)
    answer = cli(*WRITERS["survey"], "--out", "s")
    assert answer.code == 2
    assert "few" in answer.err


def kept(store: Path) -> dict[Path, bytes]:
    """Every file of a store, but for who holds it."""
    return {
        file: file.read_bytes()
        for file in store.rglob("*")
        if file.is_file() and file.name not in ("lock", "writer.json")
    }


@pytest.mark.parametrize(("by", "said"), [(-1, "newer one, so update"), (1, "survey again")])
def test_a_store_of_another_version(
    cli: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch, by: int, said: str
) -> None:
    before = kept(here / "s")
    monkeypatch.setattr(stores, "FORMAT", stores.FORMAT + by)
    for line in (["units", "s"], ["map", "s", "--out", "m.html"], [*WRITERS["survey"], "--out", "s"]):
        answer = cli(*line)
        assert answer.code == 2, line
        assert said in answer.err, (line, answer.err)
    ended(cli("store", "verify", "s"))
    assert kept(here / "s") == before


@pytest.mark.parametrize("step", [-3600.0, -(10.0**9), 10.0**9])
def test_a_clock_that_jumps(
    cli: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    ended(cli(*WRITERS["survey"], "--out", "whole", "--shard-size", "3"))
    real, count = time.time, 0

    def clock() -> float:
        nonlocal count
        count += 1
        return real() + (step if count % 2 else 0)

    monkeypatch.setattr(time, "time", clock)
    answer = cli(*WRITERS["survey"], "--out", "jumped", "--shard-size", "3")
    assert answer.code == 0, answer.err
    assert cli("store", "compact", "jumped").code == 0
    assert same(content(here / "jumped"), content(here / "whole"))
    answer = cli(*WRITERS["explain"], "--out", "e")
    assert answer.code == 0, answer.err
    assert "9 were done already" in cli(*WRITERS["explain"], "--out", "e").out


@pytest.mark.slow
def test_a_folder_that_may_only_be_read(here: Path) -> None:
    """Reading works, writing gets a sentence, nothing is called our fault, and nothing changes."""
    powerless: list[str] = []
    if os.geteuid() == 0:  # who may do everything does without that here
        if shutil.which("setpriv") is None:
            pytest.skip("root, and no setpriv to be less")
        powerless = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-all"]
    lines = [
        (["units", "s"], 0), (["store", "verify", "s"], 0), (["mistakes", "s"], 0),
        ([*WRITERS["explain"], "--out", "e"], 2), ([*WRITERS["survey"], "--out", "new"], 2),
        ([*WRITERS["report"], "--out", "r.html"], 2), (["map", "s", "--out", "m.html"], 2),
        ([*WRITERS["diagnose"], "--out", "d"], 2), ([*WRITERS["visualize"], "--out", "v.png"], 2),
        ([*WRITERS["survey"], "--out", "s", "--shard-size", "3"], None), (["store", "compact", "s"], 2),
        (["store", "repair", "s"], 2),
    ]  # fmt: skip
    program = f"""
import io, sys, contextlib
sys.path[:0] = {[path for path in sys.path if path]!r}
sys.dont_write_bytecode = True
from convoscope.cli import run
for line, code in {lines!r}:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        found = run(line)
    assert code is None or found == code, (line, found, said.getvalue())
    assert "should not" not in said.getvalue(), (line, said.getvalue())
    print(line[0], found, said.getvalue()[-200:])
"""
    places = [here, *(path for path in here.rglob("*") if path.is_dir())]
    shown = sorted(here.rglob("*"))
    for place in places:
        place.chmod(0o555)
    for file in (here / "s").rglob("*"):
        if file.is_file():
            file.chmod(0o444)
    try:
        command = [*powerless, sys.executable, "-c", program]
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=300)
    finally:
        for place in places:
            place.chmod(0o755)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert sorted(here.rglob("*")) == shown

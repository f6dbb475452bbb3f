"""A pipe that nobody writes to, given to every command wherever it takes a file: a sentence, and nobody waits."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_lines import commands
from PIL import Image

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="named pipes are those of Linux")

#: options that name files, by their parameter
FILES = {
    "weights", "labels", "truth", "boxes", "masks", "voc", "images", "prove", "groups", "finding_from", "init",
    "pictures", "image", "store", "target", "concept", "examples", "survey", "folder", "model", "config",
}  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p").mkdir()
    for number, colour in enumerate(("red", "green")):
        Image.new("RGB", (64, 64), colour).save(tmp_path / "p" / f"{number}.png")
    for name in ("pipe", "pipe.png", "pipe.py"):
        os.mkfifo(tmp_path / name)
    return tmp_path


def lines(path: tuple[str, ...]) -> Iterator[list[str]]:
    """The command with a pipe for every argument in turn, and for every option that names a file."""
    command = commands()[path]
    arguments = [one for one in command.params if getattr(one, "param_type_name", "") == "argument"]
    right = {"model": "toybox", "a": "toybox", "b": "toybox"}
    usual = [right.get(str(one.name), "p") for one in arguments]
    out = next((one.opts[0] for one in command.params if one.name == "out" and one.opts[0].startswith("-")), None)
    written = [] if out is None else [out, "made"]
    for at in range(len(arguments)):
        for pipe in ("pipe", "pipe.png"):
            yield [*path, *usual[:at], pipe, *usual[at + 1 :], *written]
    for one in command.params:
        if one not in arguments and one.name in FILES and not getattr(one, "is_flag", False):
            yield [*path, *usual, one.opts[0], "pipe", *written]


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(commands()), ids=" ".join)
@pytest.mark.filterwarnings("ignore")
def test_no_command_waits_for_a_pipe(cli: Callable[..., Any], place: Path, path: tuple[str, ...]) -> None:
    waited: list[bool] = []

    def late(*_: object) -> None:
        waited.append(True)  # what is raised may be taken for a file that cannot be read
        raise TimeoutError("it waits for the pipe")

    before = signal.signal(signal.SIGALRM, late)
    try:
        for line in lines(path):
            signal.alarm(120)
            answer = cli(*line)
            signal.alarm(0)
            assert not waited, line
            assert "should not" not in answer.err, (line, answer.err)
            assert answer.code in (0, 1, 2), (line, answer.err)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", ["pipe.png", "text.png"])
def test_a_label_map_that_is_none_is_named(place: Path, name: str) -> None:
    from convoscope.concepts.truth import read_truth
    from convoscope.errors import UsageError

    (place / "maps").mkdir()
    (place / "text.png").write_text("no picture")
    (place / name).rename(place / "maps" / name)
    with pytest.raises(UsageError, match=rf"{name}: the label map cannot be read \((it is a pipe|no picture)"):
        read_truth(place / "maps")


@pytest.mark.parametrize("kind", ["pipe", "text", "mask"])
def test_a_mask_that_is_none_is_named(place: Path, kind: str) -> None:
    from convoscope.errors import UsageError
    from convoscope.improve.shortcuts.masks import read_masks
    from convoscope.pictures.preprocessing import Preprocessing

    (place / "m").mkdir()
    file = place / "m" / "0.png"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "text":
        file.write_text("no picture")
    else:
        Image.new("1", (8, 8), 1).save(file)
    plain = SimpleNamespace(preprocessing=Preprocessing((8, 8), None, "squash"))
    bench: Any = SimpleNamespace(model=plain, pictures=SimpleNamespace(uris=[str(place / "p" / "0.png")]))
    if kind == "mask":
        assert read_masks(place / "m", bench).all()
        return
    with pytest.raises(UsageError, match=r"0\.png: the mask cannot be read \((it is a pipe|no picture)"):
        read_masks(place / "m", bench)

"""200 random faults of the disk under eight commands: nothing lost, nothing false.

After the fault is gone, the same command gives exactly what an undisturbed one gives; a store that was damaged while
nobody looked is named by ``verify`` and made whole by ``repair`` and the same survey. While the fault lasts, the
answer is a sentence and an exit code that is promised, and every file is whole or not there.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import re
import shutil
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import KINDS, Disk, Fault, cut, files_below, flip
from PIL import Image
from safetensors import safe_open

import convoscope as cs
from convoscope.cli import run
from convoscope.errors import StoreError
from convoscope.surveys.store.upkeep import verify

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and paths are those of Linux")

NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.head = nn.Conv2d(3, 6, 3, stride=2), nn.Conv2d(6, 8, 3), nn.Linear(8, 3)
        self.head.weight.data *= 30  # far too sure: calibration has something to repair

    def forward(self, x):
        return self.head(self.two(self.one(x).relu()).relu().mean((2, 3)))


def build():
    return Net()
"""
#: faults of each command, 200 in all
COUNTS = {
    "survey": 36, "explain": 36, "evaluate": 28, "report": 24, "map": 20, "visualize": 20, "diagnose": 18, "repair": 18,
}  # fmt: skip
EACH = 6


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network and 180 small pictures of three classes."""
    root = tmp_path_factory.mktemp("faults")
    (root / "net.py").write_text(NET)
    (root / "labels.txt").write_text("red\ngreen\nblue\n")
    draw = np.random.default_rng(0)
    for kind, name in enumerate(("red", "green", "blue")):
        for number in range(60):
            image = draw.integers(0, 120, (20, 20, 3))
            image[..., kind] += int(draw.integers(40, 130))
            for folder in ("many", *(["few"] if number < 3 else [])):
                (root / folder / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(image.astype(np.uint8)).save(root / folder / name / f"{number}.png")
    return root


def arguments(command: str, place: Path, out: Path) -> list[str]:
    """The command, whose results lie in ``out`` and nowhere else."""
    model = [f"{place}/net.py:build"]
    flags = ["--labels", f"{place}/labels.txt", "--size", "20", "--batch-size", "4"]
    few, many = f"{place}/few", f"{place}/many"
    return {
        "survey": ["survey", *model, few, *flags, "--out", f"{out}/s", "--shard-size", "3"],
        "explain": ["explain", *model, few, *flags, "-m", "grad-cam,saliency", "--out", f"{out}/e"],
        "evaluate": ["evaluate", *model, *flags, "--images", few, "--method", "grad-cam", "--out", f"{out}/ev"],
        "report": ["report", *model, few, *flags, "-m", "grad-cam", "--out", f"{out}/r.html"],
        "map": ["map", f"{out}/s", "--out", f"{out}/m.html"],
        "visualize": ["visualize", *model, *flags, "-t", "red", "-t", "blue", "--steps", "4", "--out", f"{out}/v.png"],
        "diagnose": ["diagnose", *model, few, *flags, "--out", f"{out}/d"],
        "repair": ["repair", *model, many, *flags, "--how", "calibrate", "--out", f"{out}/fixed.safetensors"],
    }[command]  # fmt: skip


def called(arguments: list[str]) -> tuple[int, str]:
    """Exit code and everything said; the answer is always one of the promised."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = run(arguments)
    assert code in (0, 1, 2), said.getvalue()
    assert "should not" not in said.getvalue(), said.getvalue()
    return code, said.getvalue()


#: what no two runs have alike
_OWN = {
    "seconds", "date", "made", "when", "committed", "estimate", "took", "digest", "digests", "host", "process", "since",
    "peak_bytes", "plan", "forwards", "backwards",
}  # fmt: skip


def timeless(document: Any) -> Any:
    """A JSON document without times, counts of passes and checksums of pictures that hold roundings."""
    if isinstance(document, dict):
        kept = {name: value for name, value in document.items() if name not in _OWN and "seconds" not in name}
        return {name: timeless(value) for name, value in kept.items()}
    return [timeless(one) for one in document] if isinstance(document, list) else document


_CLOCK = re.compile(
    r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?|\d+(\.\d+)?(\u202f|\u00a0|&nbsp;| )(s|ms|min)\b|id=\"[^\"]*\""
    r"|\"seconds\": [\d.e+-]+"
)


def results(out: Path) -> dict[str, Any]:
    """All that a command has written, without times and the places of temporary folders."""
    found: dict[str, Any] = {}
    for file in files_below(out):
        name = str(file.relative_to(out))
        if any(part.startswith(".") for part in file.relative_to(out).parts) or name.startswith("s/"):
            continue
        if file.suffix == ".npz":
            with np.load(file) as arrays:
                found[name] = {key: arrays[key] for key in arrays.files}
        elif file.suffix in (".png", ".webp"):
            with Image.open(file) as image:
                found[name] = np.asarray(image.convert("RGBA"))
        elif file.suffix == ".json":
            found[name] = timeless(json.loads(file.read_text(encoding="utf-8").replace(str(out), "OUT")))
        elif file.suffix == ".safetensors":  # whose library writes the header's entries in any order
            with safe_open(file, "np") as opened:
                names = list(opened.keys())
                found[name] = {"metadata": opened.metadata(), **{key: opened.get_tensor(key) for key in names}}
        elif file.suffix == ".jsonl":  # of each case the last line counts
            rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
            found[name] = {row["case"]: timeless(row) for row in rows}
        elif file.suffix in (".html", ".csv", ".md"):
            text = file.read_text(encoding="utf-8").replace(str(out), "OUT")
            found[name] = _CLOCK.sub("", text)
        else:
            found[name] = file.read_bytes()
    if (out / "s" / "units.lance").is_dir():
        found["s"] = content(out / "s")
    return found


def content(store: Path) -> Any:
    """What a store holds, whatever the shards that it came in."""
    with cs.Store.open(store) as opened:
        rows = [
            {
                name: np.array(value, np.float16) if name.startswith("embedding_") else value
                for name, value in row.items()
                if name not in ("unit", "digest")
            }
            for row in opened.table().to_pylist()
        ]
        state = opened.state()
        kept = {name: [getattr(state.top, name), getattr(state.lowest, name)] for name in ("values", "keys")}
        return sorted(rows, key=lambda row: str(row["sha256"])), kept, state.histogram, state.pictures


_NUMBER = re.compile(r"-?\d+\.\d+(?:e[-+]?\d+)?")


def same(one: Any, other: Any) -> bool:
    """Equal, but for the rounding of batches that were put together otherwise."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        if one.dtype == np.uint8:  # a picture: a colour's rounding
            return int(np.abs(one.astype(int) - other.astype(int)).max(initial=0)) <= 2
        if one.dtype.kind != "f":
            return bool(np.array_equal(one, other))
        size = float(np.abs(np.nan_to_num(one)).max(initial=0))
        share = 2e-3 if one.dtype == np.float16 else 1e-4
        return bool(np.allclose(one, other, rtol=share, atol=share * size / 10, equal_nan=True))
    if isinstance(one, float):
        return bool(np.isclose(one, other, rtol=1e-4, atol=1e-6, equal_nan=True))
    if isinstance(one, str):
        if _NUMBER.sub("#", one) != _NUMBER.sub("#", other):
            return False
        pairs = zip(_NUMBER.findall(one), _NUMBER.findall(other), strict=True)
        return all(same(float(a), float(b)) for a, b in pairs)
    return bool(one == other)


def difference(one: Any, other: Any, where: str = "") -> str:
    """Where two results part, for a person who reads a failure."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in {**one, **other}:
            if not same(one.get(name), other.get(name)):
                return difference(one.get(name), other.get(name), f"{where}.{name}")
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            if not same(a, b):
                return difference(a, b, f"{where}[{number}]")
    if isinstance(one, str) and isinstance(other, str):
        at = next((k for k, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
        one, other = one[max(0, at - 60) : at + 60], other[max(0, at - 60) : at + 60]
    return f"{where}: {one!r:.200} / {other!r:.200}"


def is_whole(file: Path) -> bool:
    """Whether a file is not cut off, by its own kind."""
    data = file.read_bytes()
    if file.suffix == ".html":
        return data.rstrip().endswith(b"</html>")
    if file.suffix == ".json":
        json.loads(data)
    elif file.suffix == ".npz":
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is None
    elif file.suffix == ".png":
        with Image.open(file) as image:
            image.load()
    elif file.suffix == ".safetensors":
        return len(data) > 8 + int.from_bytes(data[:8], "little")
    return bool(data)


def begin(command: str, place: Path, out: Path, kept: Path | None) -> None:
    """The folder of results before the command: empty, or with the store that it asks."""
    out.mkdir()
    if command == "map":
        assert kept is not None
        shutil.copytree(kept, out / "s")


class Runs:
    """Undisturbed runs, each made once: what they give, and how often they read and write."""

    def __init__(self, place: Path) -> None:
        self.place, self.known = place, dict[str, tuple[dict[str, Any], int, int, int]]()
        self.store = place / "kept"

    def of(self, command: str) -> tuple[dict[str, Any], int, int, int]:
        """Results, reads, writes, exit code."""
        if command not in self.known:
            if command == "map" and not self.store.is_dir():
                asked = arguments("survey", self.place, self.place / "making")
                called(asked)
                shutil.copytree(self.place / "making" / "s", self.store)
            out = self.place / f"whole-{command}"
            begin(command, self.place, out, self.store)
            called(arguments(command, self.place, out))  # caches are filled before anything is counted
            shutil.rmtree(out)
            begin(command, self.place, out, self.store)
            with Disk(None, under=self.place) as disk:
                code, said = called(arguments(command, self.place, out))
            assert code < 2, said
            if command == "repair":  # its gate is passed: what it writes is met by faults, too
                assert (out / "fixed.safetensors").is_file(), said
            self.known[command] = results(out), disk.reads, disk.writes, code
        return self.known[command]


@pytest.fixture(scope="module")
def runs(place: Path) -> Runs:
    return Runs(place)


def drawn(command: str, part: int, reads: int, writes: int) -> Iterator[tuple[int, Fault | None, random.Random]]:
    """The faults of one part; ``None`` is damage to what was written."""
    for number in range(part * EACH, min((part + 1) * EACH, COUNTS[command])):
        draw = random.Random(zlib.crc32(f"{command} {number}".encode()))
        kind = (*KINDS, "flip", "cut")[number % 7]
        if kind in ("flip", "cut"):
            yield number, None, draw
        elif kind == "limit":
            yield number, Fault(kind, draw.choice([100, 1000, 4000, 20_000])), draw
        else:
            most = reads if kind in ("missing", "unreadable") else writes
            yield number, Fault(kind, draw.randint(1, max(1, most)), draw.randint(1, 4)), draw


def parts() -> list[Any]:
    listed = [(command, part) for command, count in COUNTS.items() for part in range(-(-count // EACH))]
    return [pytest.param(*one, marks=pytest.mark.slow(one_in=7)) for one in listed]


@pytest.mark.parametrize(("command", "part"), parts())
def test_faults_that_pass_leave_nothing_behind(runs: Runs, command: str, part: int) -> None:
    whole, reads, writes, usual = runs.of(command)
    for number, fault, draw in drawn(command, part, reads, writes):
        out = runs.place / f"{command}-{number}"
        begin(command, runs.place, out, runs.store)
        asked = arguments(command, runs.place, out)
        why = f"{command} {number}: {fault}"
        if fault is None:
            damage = flip if number % 7 == 5 else cut
            called(asked)
            written = [file for file in files_below(out) if command != "map" or file.suffix == ".html"]
            if written:  # a repair that is refused writes nothing
                damage(draw.choice(written), draw)
            _mended(out, asked, why)
        else:
            with Disk(fault, under=runs.place) as disk:
                code, said = called(asked)
            if disk.struck and fault.kind in ("full", "torn"):
                assert code == 2, (why, said)
                assert "full" in said or "No space left" in said, (why, said)
            for file in files_below(out):
                hidden = any(part.startswith(".") for part in file.relative_to(out).parts)
                if not hidden and f"{out}/s/" not in str(file) and file.suffix != ".jsonl":
                    assert is_whole(file), (why, file)
            if code == usual == 0:
                assert same(results(out), whole), why
        code, said = called(asked)
        if code == 2 and fault is None and "this file is damaged" in said:  # it is named, and what to do
            shutil.rmtree(out)
            begin(command, runs.place, out, runs.store)
            code, said = called(asked)
        assert code == usual, (why, said)
        again = results(out)
        assert again.keys() == whole.keys(), why
        for name in whole:
            assert same(again[name], whole[name]), (why, name, difference(again[name], whole[name]))
        leftovers = [file for file in out.rglob(".*") if file.is_file()]
        assert not leftovers, (why, leftovers)
        shutil.rmtree(out)


def _mended(out: Path, asked: list[str], why: str) -> None:
    """Damage in a store is named by ``verify`` and undone by ``repair``, or it changed nothing."""
    if not (out / "s").is_dir():
        return
    if asked[0] != "survey":
        return
    try:
        fine = verify(out / "s").whole
    except StoreError:
        fine = False
    if fine:
        return
    code, said = called(["store", "verify", str(out / "s")])
    assert code != 0, (why, said)
    code, said = called(["store", "repair", str(out / "s")])
    if code == 2:  # beyond mending: it says so, and a new survey is made
        assert "survey again" in said, (why, said)
        shutil.rmtree(out / "s")


def test_the_harness_itself_fails_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("hello")

    def fails(kind: str, act: Callable[[], Any], code: int) -> None:
        with Disk(Fault(kind, 1), under=tmp_path) as disk:
            with pytest.raises(OSError) as caught:
                act()
            assert caught.value.errno == code
        assert disk.struck

    fails("missing", (tmp_path / "a").read_bytes, 2)
    fails("unreadable", (tmp_path / "a").read_text, 5)
    fails("full", lambda: (tmp_path / "b").write_text("x"), 28)
    assert not (tmp_path / "b").exists()
    fails("torn", lambda: (tmp_path / "b").write_text("four"), 28)
    assert (tmp_path / "b").read_text() == "fo"
    with Disk(Fault("limit", 3), under=tmp_path), pytest.raises(OSError, match="too large"):
        (tmp_path / "c").write_bytes(b"12345")
    with Disk(None, under=tmp_path) as disk:
        (tmp_path / "d").write_bytes((tmp_path / "a").read_bytes())
    assert (disk.reads, disk.writes) == (1, 1)
    assert (tmp_path / "d").read_text() == "hello"

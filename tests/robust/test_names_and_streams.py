"""Names that are not UTF-8, and standard output that is closed, full, or cannot show every letter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import convoscope as cs
from convoscope.names import in_json, shown

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "p").mkdir()
    Image.new("RGB", (64, 64), (90, 120, 30)).save(tmp_path / "p" / "ok.png")
    try:
        with open(os.fsencode(tmp_path) + b"/p/\xfcber.png", "wb") as file:
            file.write((tmp_path / "p" / "ok.png").read_bytes())
    except OSError:
        pytest.skip("this file system takes no such names")
    return tmp_path


def program(*arguments: str, cwd: Path, shell: str = "", **settings: str) -> subprocess.CompletedProcess[bytes]:
    command: Any = [sys.executable, "-m", "convoscope", *arguments]
    if shell:
        command = ["bash", "-c", f'set -o pipefail; "$@" {shell}', "bash", *command]
    return subprocess.run(command, cwd=cwd, capture_output=True, env={**os.environ, **settings}, timeout=300)


def test_shown_and_in_json() -> None:
    name = os.fsdecode(b"\xfcber \xc3\xbc.png")
    assert shown(name) == "\\xfcber ü.png"
    assert shown("plain ü") == "plain ü"
    assert shown("\ud83d alone") == "\\ud83d alone"
    assert json.loads(in_json(json.dumps({name: name}, ensure_ascii=False)).encode("utf-8")) == {name: name}


def test_such_a_picture_is_explained_and_its_name_survives_json(
    folder: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convoscope.cli import run

    monkeypatch.chdir(folder)
    asked = ["explain", "toybox", "p", "-m", "saliency", "--out", "e"]
    assert run([*asked, "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    paths = [os.fsencode(record["path"]) for record in records]
    assert sorted(paths) == [b"p/ok.png", b"p/\xfcber.png"]
    assert {record["picture"] for record in records} == {"ok.png", "\\xfcber.png"}
    written = [json.loads(file.read_text(encoding="utf-8")) for file in (folder / "e").rglob("explain.json")]
    assert sorted(os.fsencode(record["path"]) for record in written) == sorted(paths)
    assert run(asked) == 0
    assert "2 were done already" in capsys.readouterr().out
    assert run(["report", "toybox", "p", "--out", "r.html"]) == 0
    assert "\\xfcber.png" in (folder / "r.html").read_text(encoding="utf-8")


def test_such_a_picture_in_a_store_and_on_the_page(folder: Path) -> None:
    pytest.importorskip("fastapi")
    sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
    from web_helpers import client

    from convoscope.web import create_app

    (folder / "p" / "100%25.png").write_bytes((folder / "p" / "ok.png").read_bytes())
    with open(os.fsencode(folder) + b"/p/\xff%20.png", "wb") as file:
        Image.effect_noise((64, 64), 90).convert("RGB").save(file, "PNG")
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Linear(4, 2),
    )  # fmt: skip
    model = cs.wrap(net.eval(), size=32)
    store = cs.survey(model, folder / "p", folder / "s")
    assert len(store) == 2  # two contents in four files
    assert len(store.files()) == 4
    uris = [row["uri"] for row in store.table(["uri"]).to_pylist()]
    assert any(uri.startswith("file://") and uri.endswith("/p/%FF%2520.png") for uri in uris), uris
    found = store.patches("1:0")
    assert all(patch.crop is not None for patch in found.of("top")), [patch.error for patch in found.items]
    assert len(cs.survey(model, folder / "p", folder / "s").ledger()) == len(store.ledger())
    with client(create_app(model, folder / "p", folder / "s")) as web:
        listed = web.get("/api/pictures").json()["pictures"]
        assert "\\xff%20.png" in {one["name"] for one in listed}
        for one in listed:
            asked = web.get("/api/explain", params={"picture": one["id"], "methods": "saliency"})
            assert asked.status_code == 200, asked.text


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp1252"])
def test_standard_output_of_any_encoding(folder: Path, encoding: str) -> None:
    done = program(
        "explain", "toybox", "p", "-m", "saliency", "--out", "e", "--json", cwd=folder, PYTHONIOENCODING=encoding
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout.decode(encoding))) == 2
    (folder / "ü.txt").write_text("\n".join(f"名{i}" for i in range(10)), encoding="utf-8")
    said = program(
        "explain",
        "toybox",
        "p",
        "-m",
        "saliency",
        "--out",
        "f",
        "--labels",
        "ü.txt",
        cwd=folder,
        PYTHONIOENCODING=encoding,
    )
    assert said.returncode == 0, said.stderr
    assert b"2 explained" in said.stdout


@pytest.mark.slow
@pytest.mark.parametrize("shell", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "| head -c 1", "| true"])
def test_output_that_nobody_reads_ends_no_work(folder: Path, shell: str) -> None:
    done = program("explain", "toybox", "p", "-m", "saliency", "--out", "e", cwd=folder, shell=shell)
    assert done.returncode == 0, done.stderr
    assert len(list((folder / "e").rglob("explain.json"))) == 2


@pytest.mark.parametrize("command", [("methods",), ("methods", "--json"), ("--help",)])
@pytest.mark.parametrize("shell", ["| head -c 1", "| true", ">&-"])
def test_head_is_no_failure(tmp_path: Path, command: tuple[str, ...], shell: str) -> None:
    done = program(*command, cwd=tmp_path, shell=shell)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


def test_a_full_disk_behind_standard_output_gets_a_sentence(tmp_path: Path) -> None:
    done = program("methods", cwd=tmp_path, shell="> /dev/full")
    assert done.returncode == 2
    assert b"disk is full" in done.stderr
    assert b"should not" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1_000_000, 2_000_000, 3_000_000, 4_000_000])
def test_a_limit_on_addresses_is_named_as_the_reason(folder: Path, limit: int) -> None:
    line = ["bash", "-c", f'ulimit -v {limit}; exec "$@"', "bash", sys.executable, "-m", "convoscope"]
    done = subprocess.run(
        [*line, "explain", "toybox", "p", "-m", "saliency", "--out", "e"],
        cwd=folder, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300,
    )  # fmt: skip
    said = done.stderr.decode()
    if done.returncode != 0:
        assert "ulimit -v" in said or "emory" in said, said
    assert "should not" not in said


@pytest.mark.parametrize("seed", [str(2**63), str(2**80), "-1"])
def test_seeds_beyond_64_bits(seed: str, capsys: Any) -> None:
    from convoscope.cli import run

    assert run(["layers", "toybox", "--seed", seed]) == 2
    assert "seed must be" in capsys.readouterr().err


@pytest.mark.parametrize(
    "ending", ["sys.exit()", "sys.exit(0)", "sys.exit('no network today')", "raise SystemExit(7)", "exit(3)"]
)
@pytest.mark.parametrize("place", ["in the builder", "at the top"])
def test_a_builder_that_ends_the_program(tmp_path: Path, ending: str, place: str) -> None:
    body = f"def build():\n    {ending}\n" if place == "in the builder" else f"{ending}\ndef build():\n    pass\n"
    (tmp_path / "net.py").write_text(f"import sys\n{body}")
    with pytest.raises(cs.ModelError, match="ended the program"):
        cs.open_model(f"{tmp_path}/net.py:build")


def test_a_pipe_named_as_a_picture_on_the_command_line(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convoscope.cli import run

    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "ok.png")
    assert run(["explain", "toybox", "pipe.png", "ok.png", "-m", "saliency", "--out", "e"]) == 1
    assert "pipe or a device" in capsys.readouterr().err
    assert (tmp_path / "e" / "ok" / "explain.json").is_file()


@pytest.mark.parametrize(
    "line",
    [
        ["survey", "toybox", "p", "--out", "s"],
        ["survey", "toybox", "ok.png", "--truth", "pipe", "--out", "s"],
        ["report", "toybox", "p", "--out", "r.html"],
        ["activations", "toybox", "pipe.png", "--out", "a.png"],
        ["layers", "pipe:build"],
        ["layers", "pipe"],
        ["layers", "toybox", "--weights", "pipe"],
        ["layers", "toybox", "--labels", "pipe"],
        ["evaluate", "toybox", "--boxes", "pipe", "--out", "ev"],
        ["evaluate", "toybox", "--masks", "pipe", "--out", "ev"],
        ["repair", "toybox", "p", "--from", "pipe", "--out", "f.safetensors"],
        ["explain", "toybox", "ok.png", "--target", "similar:pipe.png", "--out", "e"],
        ["visualize", "toybox", "--target", "cat", "--init", "pipe.png", "--out", "v.png"],
    ],
    ids=" ".join,
)
def test_a_pipe_named_anywhere_keeps_nobody_waiting(
    tmp_path: Path, line: list[str], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import signal

    from convoscope.cli import run

    monkeypatch.chdir(tmp_path)
    (tmp_path / "p").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "ok.png")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "p" / "ok.png")
    for name in ("pipe", "pipe.png", "pipe.py", "p/pipe.png"):
        os.mkfifo(tmp_path / name)

    def late(*_: object) -> None:
        raise TimeoutError("it waits for the pipe")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(120)
    try:
        code = run(line)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    err = capsys.readouterr().err
    assert "waits" not in err
    assert "should not" not in err
    assert code in (0, 1, 2)


def test_tensors_and_arrays_still_have_plain_names() -> None:
    assert cs.Picture.of(torch.rand(3, 4, 4)).name == "picture"

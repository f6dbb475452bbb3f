"""The command line's frame: instant help, exit codes, one sentence on errors, pure JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from convoscope.cli import common, run
from convoscope.cli.settings import fields, read_methods
from convoscope.errors import UsageError
from convoscope.methods import METHODS

SOURCE = Path(__file__).resolve().parents[2] / "src"


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, "PYTHONPATH": str(SOURCE), **environment}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=given, timeout=120)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["explain", "--help"], ["methods"], []])
def test_help_needs_no_torch(arguments):
    code = (
        "import sys; from convoscope.cli import run\n"
        f"code = run({arguments!r})\n"
        "heavy = {'torch', 'numpy', 'PIL', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_version(cli):
    import convoscope

    answer = cli("--version")
    assert (answer.code, answer.out.strip()) == (0, f"convoscope {convoscope.__version__}")


def test_python_m_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "convoscope", "methods", "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        timeout=120,
    )
    assert done.returncode == 0
    assert {row["name"] for row in json.loads(done.stdout)} == set(METHODS)


def test_every_command_has_a_help_with_its_flags(cli):
    top = cli("--help").out
    for command in ("explain", "layers", "filters", "activations", "methods", "doctor", "toybox", "demo"):
        assert command in top
        answer = cli(command, "--help")
        assert answer.code == 0
        assert "--help" in answer.out


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (UsageError("One clear sentence."), 2, "One clear sentence.\n"),
        (KeyboardInterrupt(), 130, "Stopped. What was done is kept.\n"),
        (RuntimeError("CUDA out of memory. Tried"), 2, "Out of memory: use a smaller --batch-size"),
        (OSError(28, "No space left on device", "/some/file"), 2, "/some/file: the disk is full"),
        (ZeroDivisionError("division by zero"), 2, "ZeroDivisionError: division by zero"),
    ],
)
def test_whatever_is_raised_becomes_a_sentence(cli, monkeypatch, raised, code, said):
    def explode() -> None:
        raise raised

    monkeypatch.setattr("convoscope.methods.describe", explode)
    answer = cli("methods")
    assert answer.code == code
    assert said in answer.err
    assert "Traceback" not in answer.err
    assert answer.out == ""


def test_the_traceback_is_there_for_those_who_ask(cli, monkeypatch):
    monkeypatch.setattr("convoscope.methods.describe", lambda: 1 / 0)
    monkeypatch.setenv("CONVOSCOPE_TRACEBACK", "1")
    assert "Traceback" in cli("methods").err


def test_a_reader_that_stops_reading_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -m convoscope methods --json | head -c 5",
        shell=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        timeout=120,
    )
    assert done.stdout == "[\n  {"
    assert done.stderr == ""


def test_json_holds_no_nan_and_any_array():
    import torch

    text = common.dump_json(
        {
            "a": float("nan"),
            "b": [1.5, float("inf")],
            "c": np.arange(3),
            "d": torch.ones(2),
            "e": Path("x"),
            3: (True,),
        }
    )
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": None, "b": [1.5, None], "c": [0, 1, 2], "d": [1.0, 1.0], "e": "x", "3": [True],
    }  # fmt: skip


def test_json_puts_short_lists_on_one_line_and_leaves_text_alone():
    document = {"rf": {"size": [7, 7]}, "said": "[\n 1,\n 2 ]", "nested": [[1, 2], ["a", "b"]], "empty": []}
    text = common.dump_json(document)
    assert '"size": [7, 7]' in text
    assert json.loads(text) == document


@pytest.mark.parametrize(
    ("text", "size"), [("224", 224), ("224x320", (224, 320)), (" 32 × 64 ", (32, 64)), (None, None)]
)
def test_sizes(text, size):
    assert common.read_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "x", "224x", "224x0", "-5", "1.5", "1x2x3"])
def test_sizes_that_are_none(text):
    with pytest.raises(UsageError, match="--size must be"):
        common.read_size(text)


def test_numbers():
    assert common.read_numbers("mean", "0.5, 0.25 1") == (0.5, 0.25, 1.0)
    for text in ("", "a,b", "nan", "0.5;0.5"):
        with pytest.raises(UsageError, match="--mean must be"):
            common.read_numbers("mean", text)


def test_columns_line_up_and_nothing_is_cut_in_a_pipe():
    text = common.columns(("name", "what"), [("a", "x" * 300), ("longer", "y")])
    lines = text.splitlines()
    assert len(lines) == 3
    assert {line.index(mark) for line, mark in zip(lines, ("what", "x", "y"), strict=True)} == {8}
    assert "x" * 300 in text


def test_progress_stays_silent_without_a_terminal(capfd):
    with common.progress("Working", 3) as bar:
        for _ in range(3):
            bar.advance()
        bar.at(3, what="Still")
    assert capfd.readouterr() == ("", "")


def test_progress_shows_after_two_seconds_on_a_terminal(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    shown = []
    monkeypatch.setattr(common.Bar, "_start", lambda self: shown.append(self) or setattr(self, "shown", _Screen()))
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with common.progress("Working", 3) as bar:
        bar.advance()
        assert not shown
        now[0] += 2.5
        bar.advance()
        assert len(shown) == 1
    with common.progress("Working", 3, quiet=True) as bar:
        now[0] += 5
        bar.advance()
    assert len(shown) == 1


class _Screen:
    def update(self, *_args, **_settings) -> None:
        pass

    def stop(self) -> None:
        pass


# --- settings -----------------------------------------------------------------------------------------------------


def test_every_field_of_every_method_is_a_flag():
    import dataclasses

    flags = fields()
    for name, kind in METHODS.items():
        for field in dataclasses.fields(kind):
            if field.name not in ("layer", "parts", "resize"):
                assert name in [owner for owner, _ in flags[field.name]]


def test_flags_reach_all_methods_that_have_them_and_set_one():
    methods, left_out = read_methods("occlusion,rise,lime", (), {"fill": "blur"}, ["lime.fill=0.5", "rise.samples=7"])
    by_name = {one.about.name: one for one in methods}
    assert (by_name["occlusion"].fill, by_name["rise"].fill, by_name["lime"].fill) == ("blur", "blur", "0.5")
    assert by_name["rise"].samples == 7
    assert left_out == []


def test_all_leaves_out_slow_methods_unless_named():
    methods, left_out = read_methods("all", (), {}, [])
    names = {one.about.name for one in methods}
    assert names == {name for name, kind in METHODS.items() if not kind.about.slow}
    assert set(left_out) == set(METHODS) - names
    methods, left_out = read_methods("all,occlusion", (), {}, [])
    assert "occlusion" in {one.about.name for one in methods}
    assert "occlusion" not in left_out


def test_a_method_named_twice_is_asked_once():
    assert len(read_methods("grad-cam,GRAD-CAM, grad-cam", (), {}, [])[0]) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_interrupt_is_remembered_and_the_handler_put_back():
    from convoscope.interrupts import interruptible

    before = signal.getsignal(signal.SIGINT)
    interrupt = None
    try:
        with interruptible() as interrupt:
            assert not interrupt.stopped
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
            pytest.fail("the signal raised nothing")
    except KeyboardInterrupt:
        pass
    assert interrupt is not None
    assert interrupt.stopped
    assert signal.getsignal(signal.SIGINT) is before


def test_run_takes_the_arguments_of_the_process_by_default(monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["convoscope", "--version"])
    assert run() == 0
    assert capfd.readouterr().out.startswith("convoscope ")


def test_toybox_takes_its_folder_as_other_commands_do(cli, tmp_path):
    assert cli("toybox", "--out", tmp_path / "a", "--count", 2).code == 0
    assert cli("toybox", tmp_path / "b", "--count", 2).code == 0
    assert sorted(one.name for one in (tmp_path / "a").iterdir()) == sorted(
        one.name for one in (tmp_path / "b").iterdir()
    )
    both, neither = cli("toybox", tmp_path / "c", "-o", tmp_path / "d"), cli("toybox")
    assert both.code == neither.code == 2
    assert "Two folders are named" in both.err
    assert "Name the folder to write into: `convoscope toybox DIR`." in neither.err
    assert not (tmp_path / "c").exists()
    assert "tag-corner" in cli("toybox", "--ward", "--list").out

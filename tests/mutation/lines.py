"""A plugin of pytest that writes down which lines of some files each test runs, so that a mutant meets only those.

    pytest -p lines ...   with MUTATION_LINES=out.jsonl, MUTATION_ROOT=src/package and MUTATION_FILES=a.py:b.py

One line of JSON a test: its name, seconds, outcome and lines by file, as it is called below the root. What runs while
tests are collected (constants, default values) stands under the name "".
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

ROOT = os.environ.get("MUTATION_ROOT", "") + os.sep
FILES = frozenset(ROOT + name for name in os.environ.get("MUTATION_FILES", "").split(os.pathsep))
OUT = Path(os.environ.get("MUTATION_LINES", os.devnull))

_seen: dict[str, set[int]] = {}
_passed: dict[str, bool] = {}


def _call(frame: FrameType, event: str, _: Any) -> Any:
    name = frame.f_code.co_filename
    if name == "<string>":  # what a dataclass has had made: it is used, though no line of the file runs
        name = frame.f_globals.get("__file__", "")
        if name in FILES:
            _seen.setdefault(name, set()).add(0)
        return None
    if name not in FILES:
        return None
    lines = _seen.setdefault(name, set())
    lines.add(frame.f_lineno)

    def line(inner: FrameType, event: str, _: Any) -> Any:
        lines.add(inner.f_lineno)
        return line

    return line


def _on() -> None:
    threading.settrace(_call)
    sys.settrace(_call)


def _off() -> None:
    sys.settrace(None)
    threading.settrace(None)  # type: ignore[arg-type]


def _write(name: str, seconds: float, passed: bool) -> None:
    row = {"test": name, "seconds": round(seconds, 2), "passed": passed}
    with OUT.open("a", encoding="utf-8") as file:
        file.write(
            json.dumps({**row, "lines": {name.removeprefix(ROOT): sorted(lines) for name, lines in _seen.items()}})
            + "\n"
        )
    _seen.clear()


def pytest_configure() -> None:
    _on()


def pytest_collection_finish() -> None:
    _off()
    _write("", 0, True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    _seen.clear()
    began = time.perf_counter()
    _on()
    try:
        return (yield)
    finally:
        _off()
        _write(item.nodeid, time.perf_counter() - began, _passed.pop(item.nodeid, False))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.failed:
        _passed[report.nodeid] = report.passed

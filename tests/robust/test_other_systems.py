"""Windows and macOS as far as they can be had here: nothing imports what only POSIX has, and processes are spawned."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src"
POSIX_ONLY = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "readline", "crypt")

#: every module of the program, imported where POSIX's own modules are not to be found
CHILD = """
import sys
# what the libraries need for themselves on this system is theirs
import torch, torchvision, PIL.Image, typer, rich.progress, matplotlib.colors, scipy.stats, safetensors.torch
import lance, pyarrow
import fastapi, uvicorn, sklearn.cluster, openTSNE, faiss, plotly, fontTools.ttLib, jinja2, pathlib
import asyncio, subprocess, multiprocessing
import tempfile, tarfile, shutil, getpass, filelock, fsspec, timm, transformers, concurrent.futures.process

blocked = set(sys.argv[1].split(","))
for name in blocked:
    sys.modules[name] = None  # an import now raises ModuleNotFoundError
import importlib, pkgutil
import convoscope
count = 0
for module in pkgutil.walk_packages(convoscope.__path__, "convoscope."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
        count += 1
print(count)
"""


def test_every_module_imports_without_what_only_posix_has():
    done = subprocess.run(
        [sys.executable, "-c", CHILD, ",".join(POSIX_ONLY)],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 250


def test_posix_only_calls_stand_behind_a_question():
    """``os.fork``, ``os.getuid`` and kin do not exist on Windows: nobody calls them."""
    absent = {"fork", "getuid", "geteuid", "getgid", "chown", "mkfifo", "setsid", "killpg", "getpgid", "nice", "sync"}
    wrong = []
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                if node.value.id == "os" and node.attr in absent:
                    wrong.append(f"{file.name}:{node.lineno} os.{node.attr}")
                if node.value.id == "signal" and node.attr in {"SIGKILL", "SIGHUP", "SIGALRM", "alarm"}:
                    wrong.append(f"{file.name}:{node.lineno} signal.{node.attr}")
    assert wrong == []


def test_processes_are_spawned_everywhere():
    """A fork copies threads' locks, and Windows has none: every pool names ``spawn``."""
    pools = {"ProcessPoolExecutor", "Pool"}
    wrong = []
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in pools and "spawn" not in ast.unparse(node):
                wrong.append(f"{file.name}:{node.lineno} {ast.unparse(node)}")
            if called == "DataLoader" and "num_workers" in ast.unparse(node):
                wrong.append(f"{file.name}:{node.lineno} {ast.unparse(node)}")
    assert wrong == []


def test_text_is_read_and_written_as_utf8():
    """Windows' own encoding is another: whoever opens text says which."""
    wrong = []
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute | ast.Name):
                continue
            named = {keyword.arg for keyword in node.keywords}
            words = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            if isinstance(node.func, ast.Attribute) and node.func.attr in ("read_text", "write_text"):
                given = len(node.args) + (node.func.attr == "read_text")
                text = "encoding" not in named and given < 2
            elif isinstance(node.func, ast.Name) and node.func.id == "open":
                text = "encoding" not in named and not any("b" in word for word in words[-1:])
            else:
                continue
            if text and not (isinstance(node.func, ast.Attribute) and ast.unparse(node.func).startswith("files.")):
                wrong.append(f"{file.relative_to(SOURCE)}:{node.lineno} {ast.unparse(node)[:80]}")
    assert wrong == []

"""Random command lines, drawn from what every command itself says that it takes: right, nearly right, and wrong.

Nothing here knows a command by name: flags and arguments are read from the application, so that a new command is drawn
from the day that it is there.
"""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Any

import typer.main

from convoscope.cli import build

#: what would wait for people, or for minutes
LEFT_OUT = {"serve", "demo", "watch"}
NUMBERS = ["0", "1", "2", "-1", "3", "7", "1e3", "2.5", "nan", "inf", "", "many", str(2**63), str(2**70), "0x10", "١"]
WORDS = [
    "", " ", "x", "red", "grad-cam", "saliency", "one", "two", "one:0", "one:99", "nowhere:1", "none", "all", "0", "1",
    "-1", "../..", "a,b,,c", "é", "🦊", "\\", "'; --", "%s", "{}", "*", "1,2,3", "0.5,0.5,0.5", "20x20", "20", "crop",
    "mean", "cpu", "float32", "float16", "cuda:9", "top2", "similar:few", "one@1,1", "n" * 300, "\udcfc",
]  # fmt: skip


@cache
def commands() -> dict[tuple[str, ...], Any]:
    """Every command with its path of names."""
    found: dict[tuple[str, ...], Any] = {}

    def walk(command: Any, path: tuple[str, ...]) -> None:
        members = getattr(command, "commands", None)
        if members:
            for name in sorted(members):
                walk(members[name], (*path, name))
        elif not set(path) & LEFT_OUT:
            found[path] = command

    walk(typer.main.get_command(build()), ())
    return found


def things(place: Path) -> dict[str, list[str]]:
    """What lies in ``place`` by what it is: networks, pictures, stores, files of all kinds, and what is not there."""
    models = [
        "toybox",
        f"{place}/net.py:build",
        f"{place}/net.py:nothing",
        f"{place}/no.py:build",
        "resnet0",
        "",
        "net",
    ]
    pictures = [f"{place}/few", f"{place}/few/red/0.png", f"{place}/empty", f"{place}/nowhere", f"{place}/net.py", ""]
    others = [f"{place}/store", f"{place}/labels.txt", f"{place}/truth.csv", f"{place}/weights.pth", "/dev/null"]
    return {"model": models, "pictures": pictures, "other": [*others, f"{place}/broken.json", f"{place}/few"]}


def draw_line(draw: random.Random, place: Path, out: Path) -> list[str]:
    """One command line; what it writes goes below ``out``."""
    path = draw.choice(sorted(commands()))
    command = commands()[path]
    kinds = things(place)
    line: list[str] = list(path)
    flags: list[str] = []
    for parameter in command.params:
        kind = getattr(parameter, "param_type_name", "option")
        if kind == "argument":
            if not parameter.required and draw.random() < 0.5:
                continue
            if draw.random() < 0.04:  # forgotten
                continue
            line.append(_argument(draw, str(parameter.name), kinds, out))
            continue
        if parameter.name in ("help", "ray", "workers", "ward"):  # processes of their own, and minutes
            continue
        names = [name for name in parameter.opts if name.startswith("-")]
        wanted = 0.9 if parameter.name == "out" else 0.3 if parameter.name == "json" else 0.07
        if not names or draw.random() > wanted:
            continue
        flags.append(draw.choice(names))
        if not getattr(parameter, "is_flag", False):
            flags.append(_value(draw, parameter, kinds, out))
    if draw.random() < 0.5:
        flags += ["--size", "20"] if any(p.name == "size" for p in command.params) and "--size" not in flags else []
    if draw.random() < 0.03:
        flags.append(draw.choice(["--nonsense", "-Z", "--", "extra"]))
    return line + flags


def _argument(draw: random.Random, name: str, kinds: dict[str, list[str]], out: Path) -> str:
    wanted = (
        "model" if "model" in name else "pictures" if name in ("images", "pictures", "image", "folder") else "other"
    )
    if name in ("a", "b"):
        wanted = "model"
    if name in ("store", "path"):
        return draw.choice([kinds["other"][0], kinds["other"][0], *kinds["other"], *kinds["pictures"]])
    listed = kinds[wanted]
    right = listed[:2] if wanted != "other" else [*listed, str(out / "made")]
    return draw.choice(right if draw.random() < 0.75 else [*listed, *WORDS])


def _value(draw: random.Random, parameter: Any, kinds: dict[str, list[str]], out: Path) -> str:
    name = str(parameter.name)
    kind = str(parameter.display_type if hasattr(parameter, "display_type") else parameter.type).lower()
    if name == "out":
        ending = draw.choice(["", "", ".png", ".html", ".safetensors", ".xyz", "/deep/er.png", ".csv", ".json"])
        return str(out / f"made{draw.randrange(3)}{ending}") if draw.random() < 0.93 else draw.choice(WORDS)
    if name in ("cache", "folder"):
        return str(out / "cache")
    if any(part in kind for part in ("int", "float")):
        return draw.choice(NUMBERS[:6] if draw.random() < 0.6 else NUMBERS)
    if name in ("weights", "labels", "truth", "boxes", "masks", "voc", "images", "prove", "groups", "finding_from"):
        return draw.choice([*kinds["other"], *kinds["pictures"], *WORDS])
    return draw.choice(WORDS)

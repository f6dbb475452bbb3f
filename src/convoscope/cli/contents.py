"""Which commands each module has, read from its source: the help of all, without importing any.

A module says it in ``register``: ``app.command()(explain)``, ``app.command("map")(map_)``, or ``app.add_typer(group,
name="concepts")``. One that cannot be read so is imported, which takes longer and shows the same.
"""

from __future__ import annotations

import re
from pathlib import Path

_REGISTER = re.compile(r"^def register\(.*?(?=^\S|\Z)", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"\bapp\.command\((?:\"([\w-]+)\")?\)\((\w+)\)")
_GROUP = re.compile(r"\bapp\.add_typer\((\w+), name=\"([\w-]+)\"\)")


def commands(file: Path) -> dict[str, str] | None:
    """The commands of one module by name, each with its sentence; ``None`` where the source does not tell."""
    try:
        source = file.read_text(encoding="utf-8")
    except OSError:
        return None
    register = _REGISTER.search(source)
    if register is None:
        return {}
    found: dict[str, str | None] = {}
    for name, function in _COMMAND.findall(register[0]):
        found[name or function.replace("_", "-")] = _sentence(source, function)
    for variable, name in _GROUP.findall(register[0]):
        said = re.search(rf"\b{variable} = typer\.Typer\([^\n]*help=\"([^\"\n]+)\"", register[0])
        found[name] = said[1] if said else None
    whole = {name: sentence for name, sentence in found.items() if sentence}
    return whole if found and len(whole) == len(found) else None


def _sentence(source: str, function: str) -> str | None:
    """The first paragraph of a function's docstring, in one line."""
    told = re.search(
        rf"^def {function}\((?:[^\n]|\n(?!def ))*?\n    \"\"\"(.+?)(?:\n\n|\"\"\")", source, re.MULTILINE | re.DOTALL
    )
    return " ".join(told[1].split()) if told else None

"""Every command, subcommand and flag that a page names is there. Cheap: nothing is run."""

from __future__ import annotations

import re
import shlex

import pytest
from snippets import blocks, inline, pages


@pytest.fixture(scope="module")
def known():
    """command path -> its flags."""
    import typer

    from convoscope.cli import build

    found: dict[tuple[str, ...], set[str]] = {}

    def go(command, path):
        flags = {"--help", "-h"}
        for one in command.params:
            if one.param_type_name == "option":
                flags |= {*one.opts, *one.secondary_opts}
        found[path] = flags
        for name, child in getattr(command, "commands", {}).items():
            go(child, (*path, name))

    go(typer.main.get_command(build()), ())
    return found


def faults(command, known):
    """What is wrong with ``convoscope ...`` as it stands in a page; empty: nothing."""
    try:
        words = shlex.split(command, comments=True)[1:]
    except ValueError:
        words = command.split()[1:]
    path: tuple[str, ...] = ()
    while words and (*path, words[0]) in known:
        path = (*path, words.pop(0))
    if not path and words and re.fullmatch(r"[a-z-]+", words[0]) and not words[0].startswith("-"):
        return [f"there is no command {words[0]}"]
    flags = [re.sub(r"[=\])},.;:]+.*$", "", word.strip("[]()")) for word in words if re.match(r"\[?--[a-z]", word)]
    return [f"{' '.join(path)} has no {flag}" for flag in flags if flag not in known[path]]


@pytest.mark.parametrize("name", pages())
def test_every_command_and_flag_that_a_page_names_is_there(name, known):
    page = pages()[name]
    told = inline(page)
    for block in blocks(page):
        told += [
            line.strip()
            for line in block.text.replace("\\\n", " ").splitlines()
            if line.strip().startswith("convoscope ")
        ]
    wrong = {command: found for command in told if (found := faults(command, known))}
    assert wrong == {}


def test_a_wrong_command_is_found(known):
    assert faults("convoscope explayn toybox a.png", known) == ["there is no command explayn"]
    assert faults("convoscope explain toybox a.png --colour red", known) == ["explain has no --colour"]
    assert faults("convoscope store verify STORE --quick", known) == []

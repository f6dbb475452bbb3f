"""What starting costs: modules that are not needed are not imported. Counted in a new process, never timed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from convoscope.cli import _HELP, build, contents
from convoscope.draw import colour, fonts

SOURCE = Path(__file__).resolve().parents[2] / "src"
#: imports of more than a tenth of a second
HEAVY = ("torch", "torch._dynamo", "torchvision", "matplotlib", "scipy", "sympy", "convoscope.methods")


def loaded(code: str, **environment: str) -> dict[str, bool]:
    """Which of the heavy modules a new process has imported when it has run ``code``."""
    whole = f"import sys\n{code}\nimport json\nprint(json.dumps({{n: n in sys.modules for n in {HEAVY!r}}}))"
    done = subprocess.run(
        [sys.executable, "-c", whole], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE), **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, bool] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_help_of_the_program_imports_nothing_of_weight():
    found = loaded("from convoscope.cli import run\nassert run(['--help']) == 0")
    assert not any(found.values()), found


def test_explaining_the_toybox_needs_torch_alone(tmp_path):
    from convoscope.toybox import draw

    file = tmp_path / "car.png"
    draw(7, label="car").picture().save(file)
    asked = ["explain", "toybox", str(file), "--out", str(tmp_path)]
    found = loaded(f"from convoscope.cli import run\nassert run({asked!r}) == 0")
    assert found.pop("torch")
    assert found.pop("convoscope.methods")
    assert not any(found.values()), found
    assert (tmp_path / "car" / "sheet.png").is_file()


def test_a_command_imports_its_own_module_only():
    code = (
        "from convoscope.cli import run\nassert run(['methods']) == 0\n"
        "here = [n for n in sys.modules if n.startswith('convoscope.cli.')]\n"
        "assert 'convoscope.cli.look' in here and 'convoscope.cli.survey' not in here, here"
    )
    assert not loaded(code)["torch"]


def test_the_help_that_is_read_is_the_help_that_is_imported():
    """Every command, with the same sentence, whether its module is imported or only read."""

    def listed(given):
        import typer

        group = typer.main.get_command(build(given))
        context = typer.Context(group)
        return {n: group.get_command(context, n).get_short_help_str(1000) for n in group.list_commands(context)}

    read, imported = listed(["--help"]), listed(None)
    assert read == imported
    assert {"explain", "map", "concepts", "store", "diagnose"} <= set(read)


def test_every_module_of_commands_can_be_read():
    """One that cannot is imported for every help: say in ``register`` what it has, as cli/contents.py tells."""
    unread = [
        file.name for file in sorted((SOURCE / "convoscope" / "cli").glob("*.py")) if contents.commands(file) is None
    ]
    assert not unread


def test_a_module_that_cannot_be_read_is_imported(tmp_path):
    file = tmp_path / "odd.py"
    file.write_text("def register(app):\n    app.command()(made())\n")
    assert contents.commands(file) is None or contents.commands(file) == {}
    file.write_text("def register(app):\n    app.command()(one)\n\n\ndef one():\n    pass\n")
    assert contents.commands(file) is None
    assert contents.commands(tmp_path / "missing.py") is None


def test_one_command_of_many_is_found_and_a_wrong_one_is_told(cli):
    assert cli("explian").code == 2
    assert "Did you mean 'explain'? `convoscope --help` shows" in cli("explian").err
    assert _HELP.split()[0] in cli("--help").out


@pytest.mark.parametrize("name", [colour.SEQUENTIAL, colour.DIVERGING, "viridis"])
def test_shipped_colours_are_matplotlibs(name):
    assert (colour.TABLES / f"{name}.rgb").is_file()
    np.testing.assert_array_equal(colour.colours(name), colour.computed(name))


def test_other_colour_maps_are_computed():
    np.testing.assert_array_equal(colour.colours("magma"), colour.computed("magma"))


@pytest.mark.parametrize("bold", [False, True])
def test_widths_read_from_the_table_are_fonttools(bold):
    face = fonts.primary(bold)
    metrics = face.font["hmtx"].metrics
    for character in "aW 1…−é·λ⁻":
        assert face.advance(character) * face.units == metrics[face.cmap[ord(character)]][0]
    assert face.advance("\ue000") * face.units == metrics[".notdef"][0]

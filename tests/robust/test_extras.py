"""Installed without extras: every command that lacks one says which, in one sentence, and what needs none works.

One child process cannot find any optional package, and runs every command as the script would.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from convoscope.extras import EXTRAS

SOURCE = Path(__file__).resolve().parents[2] / "src"

#: nobody finds the modules that are blocked, as if they were not installed
CHILD = """
import json, sys
blocked, commands = json.loads(sys.argv[1])

class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            return None
        return self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
import contextlib, io
from convoscope.cli import run
answers = []
for command in commands:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(command.split())
    answers.append([command, code, out.getvalue() + err.getvalue()])
print(json.dumps(answers))
"""

#: extra -> commands that need it ({toys} is a folder of pictures, {out} a place to write, {hf} a folder of a network)
NEED = {
    "survey": [
        "survey toybox {toys} --out {out}/store",
        "neighbors {toys} a.png",
        "map {toys} --out {out}/map.png",
        "patches {toys} layer3:0 --out {out}/p.png",
        "units {toys}",
        "mistakes {toys}",
        "report toybox {toys}/key-00000.png --survey {toys} --out {out}/r.html",
        "store verify {toys}",
        "store repair {toys}",
        "store compact {toys}",
        "concepts dissect {toys}",
        "concepts craft toybox {out}/many --target cup",
        "audit toybox {out}/many --out {out}/audit --truth {out}/many/truth.csv",
        "depth toybox {out}/many --out {out}/depth --truth {out}/many/truth.csv",
        "diagnose toybox {out}/many --out {out}/d --truth {out}/many/truth.csv --only data",
    ],
    "web": ["serve toybox --port 0"],
    "ray": [
        "explain toybox {toys} --out {out}/e --ray local",
        "evaluate toybox --out {out}/league --ray local --measure pointing --limit 2",
    ],
    "timm": ["layers timm:resnet18 --weights none"],
    "hf": ["layers hf:{hf}"],
    "superpixels": ["explain toybox {toys}/key-00000.png --method lime --out {out}/e"],
}
#: what answers the first question needs nothing but the core
CORE = [
    "--version",
    "methods",
    "layers toybox",
    "explain toybox {toys}/key-00000.png --out {out}/e",
    "occlude toybox {toys}/key-00000.png --out {out}/o --window 24 --stride 24",
    "filters toybox --out {out}/f.png",
    "activations toybox {toys}/key-00000.png --out {out}/a.png",
    "visualize toybox --target cup --steps 2 --out {out}/v.png",
    "report toybox {toys}/key-00000.png --out {out}/r.html",
    "toybox {out}/many --count 120",
    "evaluate toybox --out {out}/l --measure pointing --limit 2 --method saliency --no-cheat",
]


@pytest.fixture(scope="module")
def answers(toys, tmp_path_factory):
    """command -> (exit code, what it printed), where no optional package can be found."""
    out = tmp_path_factory.mktemp("bare")
    (out / "hf").mkdir()
    (out / "hf" / "config.json").write_text('{"model_type": "resnet"}')
    places = {"toys": toys, "out": out, "hf": out / "hf"}
    templates = [*CORE, *(command for commands in NEED.values() for command in commands)]
    blocked = [module for needed in EXTRAS.values() for module in needed]
    given = json.dumps([blocked, [command.format(**places) for command in templates]])
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, given], capture_output=True, text=True, cwd=out, env=environment
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return {template: (code, said) for template, (_, code, said) in zip(templates, found, strict=True)}


@pytest.mark.parametrize(("extra", "command"), [(extra, one) for extra, several in NEED.items() for one in several])
def test_a_command_without_its_extra_says_which(answers, extra, command):
    code, said = answers[command]
    assert f"pip install 'convoscope[{extra}]'" in said
    assert "Something went wrong" not in said
    assert "Traceback" not in said
    assert code in (1, 2)


@pytest.mark.parametrize("command", CORE)
def test_without_any_extra_the_first_question_is_answered(answers, command):
    code, said = answers[command]
    assert code == 0, said

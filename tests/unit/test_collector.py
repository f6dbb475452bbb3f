"""The garbage collector at the start of our own processes: rare while all stays, then as before."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"


def child(code: str, *arguments: str) -> Any:
    """What a new process says last, in JSON."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n{code}", *arguments],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


STATE = "print(json.dumps([list(gc.get_threshold()), gc.isenabled(), gc.get_freeze_count() > 0]))"


def test_as_before_once_the_network_is_open():
    rare, settled, again = child(
        "import gc, json\n"
        "from convoscope.collector import collect_rarely, settle\n"
        "state = lambda: [gc.get_threshold()[0], gc.get_freeze_count() > 0]\n"
        "gc.set_threshold(321, 7, 8)\n"
        "collect_rarely(); collect_rarely(); a = state()\n"
        "settle(); b = state()\n"
        "gc.unfreeze(); settle(); c = state()\n"
        "print(json.dumps([a, b, c]))"
    )
    assert rare[0] > 100 * 321
    assert not rare[1]
    assert settled == [321, True]
    assert again == [321, False]


@pytest.mark.parametrize("code", ["settle()", "gc.disable(); collect_rarely(); settle()"])
def test_a_collector_that_is_not_ours_is_left_alone(code: str):
    threshold, _, frozen = child(
        "import gc, json\nfrom convoscope.collector import collect_rarely, settle\n"
        f"gc.set_threshold(321)\n{code}\n{STATE}"
    )
    assert threshold[0] == 321
    assert not frozen


def test_the_library_never_touches_it():
    threshold, enabled, frozen = child(
        f"import gc, json\ngc.set_threshold(321)\nimport convoscope\nconvoscope.open_model('toybox')\n{STATE}"
    )
    assert threshold[0] == 321
    assert enabled
    assert not frozen


def test_a_command_lets_it_come_rarely_and_then_as_before():
    code = (
        "import atexit, gc, json\n"
        "rounds = [0]\n"
        "gc.callbacks.append(lambda phase, info: rounds.__setitem__(0, rounds[0] + (info['generation'] == 2)))\n"
        "import convoscope.collector as c\n"
        "settle, at, begin = c.settle, [], c.collect_rarely\n"
        "c.collect_rarely = lambda: (rounds.__setitem__(0, 0), begin())\n"
        "c.settle = lambda: (at.append(rounds[0]), settle())\n"
        "atexit.register(lambda: print(json.dumps([at, gc.get_threshold()[0], gc.get_freeze_count() > 0])))\n"
        "from convoscope.cli import main\n"
        "sys.argv = ['convoscope', 'layers', 'toybox']\n"
        "main()"
    )
    rounds, threshold, frozen = child(code)
    assert rounds == [0]  # through everything; importing torch alone takes three otherwise
    assert threshold == 700 if sys.version_info < (3, 13) else threshold > 0
    assert frozen


def test_no_tensor_is_frozen_that_nobody_holds():
    """What is garbage when everything is frozen would never be freed."""
    lost = child(
        "import gc, json, torch\n"
        "import convoscope\n"
        "gc.collect(); gc.disable(); gc.set_debug(gc.DEBUG_SAVEALL)\n"
        "model = convoscope.open_model('squeezenet1_0', weights='none', device='cpu')\n"
        "gc.collect()\n"
        "held = {id(one) for one in model.module.parameters()}\n"
        "print(json.dumps([tuple(one.shape) for one in gc.garbage\n"
        "                  if isinstance(one, torch.Tensor) and one.numel() > 1000 and id(one) not in held]))"
    )
    assert lost == []

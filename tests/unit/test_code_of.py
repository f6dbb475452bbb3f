"""The same weights under other code are another network: what is kept of one is not taken for the other's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import convoscope as cs
from convoscope.models.code import code_of, same_code, told

NET = '''
import dataclasses
import enum
import torch
from torch import nn

SLOPE = 0.1


class Kind(enum.Enum):
    SOFT = 1
    HARD = 2


@dataclasses.dataclass
class Settings:
    kind: Kind
    share: float


SETTINGS = Settings(Kind.SOFT, 0.5)


class Double(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return x * 2

    @staticmethod
    def backward(context, gradient):
        return gradient * 2


def finish(x):
    return Double.apply(x) * SETTINGS.share


def bend(x):
    return nn.functional.leaky_relu(x, SLOPE)


class Net(nn.Module):
    """A docstring."""

    def __init__(self, scale=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head, self.scale = nn.Conv2d(3, 4, 3), nn.Linear(4, 3), scale

    def forward(self, x):
        return finish(self.head(bend(self.conv(x)).mean((2, 3))) * self.scale)


def build():
    return Net()
'''

CHANGES = {
    "its forward": ("mean((2, 3))", "amax((2, 3))"),
    "a function that it calls": ("leaky_relu(x, SLOPE)", "elu(x, SLOPE)"),
    "an operation of its own": ("return x * 2", "return x * 3"),
    "settings of the file": ("Settings(Kind.SOFT, 0.5)", "Settings(Kind.SOFT, 0.6)"),
    "a kind": ("Settings(Kind.SOFT", "Settings(Kind.HARD"),
    "a number of the file": ("SLOPE = 0.1", "SLOPE = 0.2"),
    "how it is built": ("return Net()", "return Net(2.0)"),
    "a setting of a layer": ("nn.Conv2d(3, 4, 3)", "nn.Conv2d(3, 4, 3, padding=1)"),
}
SAME = {
    "nothing": ("", ""),
    "a comment": ("    def forward", "    # a comment\n    def forward"),
    "a function that it does not call": ("def build", "def other(x):\n    return x\n\n\ndef build"),
    "line breaks": ("def bend(x):\n", "def bend(\n    x\n):\n"),
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    for number in range(3):
        image = np.random.default_rng(number).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        (tmp_path / "p").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "p" / f"{number}.png")
    return tmp_path


def changed(place: Path, old: str, new: str) -> None:
    text = NET.replace(old, new) if old else NET
    (place / "net.py").write_text(text)
    os.utime(place / "net.py", (1, len(text)))  # else byte code of the same second and size would pass for it


def opened(place: Path) -> cs.Model:
    return cs.open_model(f"{place}/net.py:build", size=16)


@pytest.mark.parametrize("what", [*CHANGES, *SAME])
def test_code_is_told_by_what_is_computed(place: Path, what: str) -> None:
    before = opened(place)
    changed(place, *(CHANGES | SAME)[what])
    after = opened(place)
    assert before.fingerprint == after.fingerprint
    assert (before.code == after.code) == (what in SAME)


@pytest.mark.parametrize("what", ["its forward", "a comment"])
def test_a_folders_maps_are_those_of_the_code(place: Path, cli: Any, what: str) -> None:
    command = ("explain", f"{place}/net.py:build", place / "p", "-m", "saliency", "--size", 16, "-o", place / "o")
    assert cli(*command).code == 0
    kept = np.load(place / "o" / "0" / "maps.npz")["saliency"]
    changed(place, *(CHANGES | SAME)[what])
    again = cli(*command)
    now = np.load(place / "o" / "0" / "maps.npz")["saliency"]
    fresh = cs.explain(opened(place), place / "p" / "0.png", "saliency")["saliency"].values
    np.testing.assert_allclose(now, fresh, atol=1e-6)
    assert (np.abs(kept - fresh).max() < 1e-6) == (what in SAME)
    assert ("3 were done already" in again.out + again.err) == (what in SAME)


@pytest.mark.parametrize("what", ["its forward", "a comment"])
def test_a_survey_is_that_of_the_code(place: Path, cli: Any, what: str) -> None:
    command = ("survey", f"{place}/net.py:build", place / "p", "--size", 16, "-o", place / "s")
    assert cli(*command).code == 0
    changed(place, *(CHANGES | SAME)[what])
    Image.new("RGB", (16, 16), "red").save(place / "another.png")
    again, asked = cli(*command), cli("neighbors", place / "s", place / "another.png")
    if what in SAME:
        assert again.code == asked.code == 0
    else:
        assert again.code == asked.code == 2
        assert "the network's code" in again.err
        assert "its code (its classes, or how it is put together) was changed" in asked.err


def test_what_differs_is_told_when_maps_are_made_again(place: Path, cli: Any) -> None:
    cli("explain", f"{place}/net.py:build", place / "p" / "0.png", "-m", "saliency", "--size", 16, "-o", place / "o")
    record = next((place / "o").rglob("explain.json"))
    assert "code" not in cli("rerun", record).out
    changed(place, *CHANGES["its forward"])
    assert "the network's code" in cli("rerun", record).out


def test_code_is_the_same_in_another_process(place: Path) -> None:
    asked = f"import convoscope as cs; print(cs.open_model({f'{place}/net.py:build'!r}, size=16).code)"
    told = {opened(place).code}
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        found = subprocess.run([sys.executable, "-c", asked], env=env, capture_output=True, text=True, check=True)
        told.add(found.stdout.strip())
    assert len(told) == 1


def test_wrappers_of_the_whole_network_are_no_other_code() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    assert code_of(nn.DataParallel(net)) == code_of(net) == code_of(torch.compile(net))
    assert code_of(net) != code_of(nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU()))


def test_a_forward_or_a_call_of_a_persons_own_is_a_part_of_it() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    plain = code_of(net)
    assert code_of(net, lambda network, pictures, rows: network(pictures)) != plain
    assert code_of(net, lambda network, pictures, rows: network(pictures)) != code_of(
        net, lambda network, pictures, rows: network(pictures * 2)
    )
    net[1].forward = lambda x: x.abs()  # type: ignore[method-assign, assignment]
    assert code_of(net) != plain


def test_codes_of_other_pythons_and_of_older_stores_do_not_compare() -> None:
    assert same_code("3.11:a", "3.11:a")
    assert not same_code("3.11:a", "3.11:b")
    assert same_code("3.11:a", "3.12:b")
    assert same_code("", "3.12:b")


def test_functions_that_call_each_other_are_told_once(tmp_path: Path) -> None:
    """Rungs, each of which calls both of the next: two to the sixtieth ways down, and a ladder as long as files are."""
    rungs = "".join(f"def f{k}(x):\n    return f{k + 1}(x) + f{k + 2}(x)\n" for k in range(60))
    rungs += "".join(f"def g{k}(x):\n    return g{k + 1}(x)\n" for k in range(900))
    ends = "def f60(x):\n    return f0\ndef f61(x):\n    return [NAMES, x, g0]\nNAMES = [f0]\nNAMES.append(NAMES)\n"
    net = (
        "from torch import nn\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.conv = nn.Conv2d(3, 2, 3)\n    def forward(self, x):\n        f0\n"
        "        return self.conv(x).mean((2, 3))\n"
    )
    (tmp_path / "net.py").write_text(rungs + ends + net)
    first = cs.open_model(f"{tmp_path}/net.py:Net", size=8).code
    (tmp_path / "net.py").write_text(rungs + ends.replace("NAMES, x", "x, NAMES") + net)
    os.utime(tmp_path / "net.py", (1, 1))
    assert cs.open_model(f"{tmp_path}/net.py:Net", size=8).code != first


def test_forwards_that_are_counted_and_modules_of_another_name_are_no_other_code(place: Path) -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.calls = nn.Conv2d(3, 2, 3), 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return self.conv(x).mean((2, 3))

    model = cs.wrap(Counts(), size=8)
    cs.explain(model, np.zeros((8, 8, 3), np.uint8), "saliency", target=0)
    assert model.code == cs.wrap(Counts(), size=8).code
    (place / "other.py").write_text(NET)
    assert cs.open_model(f"{place}/other.py:build", size=16).code == opened(place).code


def test_what_cannot_be_told_opens_and_runs_all_the_same() -> None:
    class Odd(nn.Conv2d):
        def extra_repr(self) -> str:
            raise AttributeError("not yet")

    net = nn.Sequential(Odd(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = cs.wrap(net, size=8)
    assert model.code == ""
    assert "saliency" in cs.explain(model, np.zeros((8, 8, 3), np.uint8), "saliency", target=0)
    for held in (torch.empty(2, device="meta"), torch.eye(2).to_sparse(), nn.LazyLinear(2)):
        assert code_of(nn.Flatten(), lambda network, x, rows, held=held: x)
        assert told(lambda output, held=held: output)


def test_scripts_are_told_by_their_code() -> None:
    def traced(scale: float) -> Any:
        net = nn.ModuleDict({"conv": nn.Conv2d(3, 2, 3), "rest": nn.ModuleList([nn.ReLU()])})

        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.parts = net

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.parts["rest"][0](self.parts["conv"](x)) * scale

        return torch.jit.trace(Net().eval(), torch.zeros(1, 3, 8, 8))

    assert code_of(traced(2.0)) == code_of(traced(2.0)) != code_of(traced(3.0))
    assert code_of(traced(2.0))

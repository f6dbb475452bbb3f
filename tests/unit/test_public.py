"""The public names: all there, imported lazily, and functions stay functions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import convoscope as cs

SOURCE = Path(__file__).resolve().parents[2] / "src"


@pytest.mark.parametrize("name", cs.__all__)
def test_every_public_name_is_there(name):
    assert getattr(cs, name) is not None
    assert name in dir(cs)


def test_a_function_named_as_its_module_stays_a_function():
    code = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n"
        "import convoscope as cs, convoscope.explanation\n"
        "from convoscope.explanation import DEFAULT_METHODS\n"
        "assert callable(cs.explain), cs.explain\n"
        "from convoscope import explain\n"
        "assert callable(explain)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        cs.nonsense  # noqa: B018


def test_importing_the_package_imports_no_torch():
    code = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); import convoscope; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

"""What the tests in the browser share."""

from __future__ import annotations

import re
import time
from typing import Any


def until(page: Any, expression: str, arg: Any = None, timeout: float = 30.0) -> None:
    """Wait until an expression (or a function of ``arg``) is true.

    Playwright's own ``wait_for_function`` evaluates strings inside the page, which the page's policy forbids.
    """
    end = time.monotonic() + timeout
    function = expression if re.match(r"(\(\)|\w+) => ", expression) else None
    while time.monotonic() < end:
        if page.evaluate(function, arg) if function else page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"waited {timeout:.0f} s for: {expression}")

"""In a notebook long work shows one progress bar by itself; elsewhere nothing happens here."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import time
from collections.abc import Callable
from html import escape
from typing import Any, ParamSpec, TypeVar
from uuid import uuid4

P = ParamSpec("P")
R = TypeVar("R")

#: seconds before a bar appears, and between two of its steps
PATIENCE, STEP = 2.0, 0.2
_WIDTH = 30
_running: list[Line] = []


def in_notebook() -> bool:
    """Whether a kernel runs this, whose front end shows HTML."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and getattr(shell, "kernel", None) is not None


def shows_progress(what: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Give a function with ``progress=None`` a bar of its own in a notebook.

    What calls other such functions shows one bar, not several: the outermost one's.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def wrapped(*args: P.args, **settings: P.kwargs) -> R:
            if settings.get("progress") is not None or _running or not in_notebook() or _given(function, args):
                return function(*args, **settings)
            line = Line(what)
            _running.append(line)
            settings["progress"] = line
            try:
                return function(*args, **settings)
            finally:
                _running.clear()
                line.close()

        return wrapped

    return decorate


def _given(function: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    """Whether ``progress`` is among the arguments that were given by their place."""
    names = list(inspect.signature(function).parameters)
    return "progress" in names and names.index("progress") < len(args)


class Line:
    """One line of text under a cell, changed in place, and gone when the work is done.

    Called as any of our progress functions is: ``(done, total)``, ``(what, done, total)``, or with one object that has
    ``done`` and ``total``.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._began = self._last = time.monotonic()
        self._shown: str | None = None

    def __call__(self, *said: Any) -> None:
        """So much is done."""
        now = time.monotonic()
        if now - self._began < PATIENCE or now - self._last < STEP:
            return
        self._last = now
        self._show(self.text(*said))

    def text(self, *said: Any) -> str:
        """The line: what, a bar, the numbers, and how long it has taken."""
        words = [one for one in said if isinstance(one, str)]
        numbers = [one for one in said if isinstance(one, (int, float)) and not isinstance(one, bool)]
        if not numbers and said:
            numbers = [getattr(said[-1], "done", 0), getattr(said[-1], "total", 0)]
        done, total = (*numbers, 0, 0)[:2]
        share = min(1.0, done / total) if total else 0.0
        filled = round(_WIDTH * share)
        bar = "█" * filled + "░" * (_WIDTH - filled)
        named = f"{self.what}: {words[0]}" if words else self.what
        return f"{named}  {bar}  {done:g} of {total:g}, {time.monotonic() - self._began:.0f} s"

    def _show(self, text: str) -> None:
        library = importlib.import_module("IPython.display")
        shown = library.HTML(f"<pre>{escape(text)}</pre>" if text else "")
        if self._shown is None:
            self._shown = uuid4().hex
            library.display(shown, display_id=self._shown)
        else:
            library.display(shown, display_id=self._shown, update=True)

    def close(self) -> None:
        """Take the line away."""
        if self._shown is not None:
            self._show("")

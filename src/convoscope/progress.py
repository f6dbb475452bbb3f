"""What a person sees of work that takes time: a bar, a line every ten seconds, or a spinner."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: seconds between two lines where there is no terminal
EVERY = 10.0


class Bar:
    """Progress of one piece of work on standard error, shown only once it has taken two seconds.

    On a terminal it is a bar; elsewhere a line every ten seconds, so that a log is never silent for minutes.
    """

    def __init__(self, what: str, total: int | None, quiet: bool) -> None:
        self.what, self.total, self.done = what, total, 0
        self.shown: Any = None
        self.task: Any = None
        self._since = time.monotonic()
        self._quiet, self._terminal = quiet, sys.stderr is not None and sys.stderr.isatty()
        self._said = self._since

    def advance(self, count: int = 1) -> None:
        """``count`` more are done."""
        self.at(self.done + count)

    def at(self, done: int, total: int | None = None, what: str | None = None) -> None:
        """``done`` of ``total`` are done."""
        self.done, self.total, self.what = done, total or self.total, what or self.what
        if not self._terminal:
            self._line()
            return
        if self._quiet or (self.shown is None and time.monotonic() - self._since < 2):
            return
        if self.shown is None:
            self._start()
        self.shown.update(self.task, completed=self.done, total=self.total, description=self.what)

    def _line(self) -> None:
        now = time.monotonic()
        if self._quiet or now - self._said < EVERY:
            return
        self._said = now
        of = "" if not self.total else f" of {self.total}"
        left = (now - self._since) * (self.total - self.done) / self.done if self.total and self.done else None
        tail = "" if left is None else f", {left:.0f} s left"
        print(f"{self.what}: {self.done}{of}{tail}", file=sys.stderr, flush=True)

    def _start(self) -> None:
        from rich import progress
        from rich.console import Console

        self.shown = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("left"),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self.shown.start()
        self.task = self.shown.add_task(self.what, total=self.total)
        # the time before the bar was shown counts for the estimate
        self.shown.tasks[0].start_time = self.shown.get_time() - (time.monotonic() - self._since)

    def stop(self) -> None:
        if self.shown is not None:
            self.shown.stop()


@contextmanager
def progress(what: str, total: int | None = None, *, quiet: bool = False) -> Iterator[Bar]:
    """A :class:`Bar` for the block; ``quiet`` (``--json``) never shows it."""
    bar = Bar(what, total, quiet)
    try:
        yield bar
    finally:
        bar.stop()


@contextmanager
def patience(what: str) -> Iterator[None]:
    """A spinner on a terminal for work without steps (opening a network)."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(f"{what} ..."):
        yield

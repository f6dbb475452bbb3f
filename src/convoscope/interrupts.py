"""Ctrl-C: remembered, so that work which keeps what it has done stops afterwards."""

from __future__ import annotations

import signal
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


class Interrupt:
    """Whether the user has asked to stop."""

    stopped = False


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Ctrl-C raises ``KeyboardInterrupt`` as ever, and is remembered.

    Work of many passes keeps what it has done when it is interrupted, and returns: whoever called it must stop, too.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return

    def handle(number: int, frame: types.FrameType | None) -> None:
        interrupt.stopped = True
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)

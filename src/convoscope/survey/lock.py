"""The one writer of a local store."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path


class Lock:
    """The one writer's lock of a local store: the operating system lets it go when the process ends, however
    it ends.
    """

    def __init__(self, handle: int) -> None:
        self._handle: int | None = handle

    @classmethod
    def take(cls, path: str, *, wait: bool) -> Lock | None:
        """The lock; ``None`` where another process has it. ``wait`` gives a reader half a second's patience."""
        import fcntl

        try:
            handle = os.open(os.path.join(path, "lock"), os.O_RDWR | os.O_CREAT, 0o644)
        except OSError:
            return None  # a store on a read-only disk has no writer
        for attempt in range(5 if wait else 1):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if attempt < 4 and wait:
                    time.sleep(0.1)
                continue
            if not wait:
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"{os.getpid()} {socket.gethostname()} {time.time():.0f}".encode(), 0)
            return cls(handle)
        os.close(handle)
        return None

    @staticmethod
    def refusal(path: str) -> str:
        """The sentence for who comes second."""
        who = ""
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid, host, since = Path(path, "lock").read_text().split()
            who = f" (process {pid} on {host}, for {max(0, time.time() - float(since)):.0f} s)"
        return f"{path} is being written by another survey{who}: wait until it ends, or give another --out."

    def release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

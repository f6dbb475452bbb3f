"""Python's garbage collector at the start of a process of ours.

Importing torch and opening a network makes a million objects, all of which stay. While they are made the collector
goes through all of them again and again: up to a tenth of a second each time, a second in all. A command, the server
and a worker let it come rarely until the network is open; what is there by then is left out of later rounds. A
library's user keeps the collector that the process has.
"""

from __future__ import annotations

import gc

#: objects made since the last round, before the next
RARELY = 200_000

_before: tuple[int, int, int] | None = None


def collect_rarely() -> None:
    """Until :func:`settle`. Where someone has switched the collector off it stays off."""
    global _before
    if _before is None and gc.isenabled():
        _before = gc.get_threshold()
        gc.set_threshold(RARELY, *_before[1:])


def settle() -> None:
    """What has been imported and opened stays; from now on the collector comes as often as before.

    Nothing where :func:`collect_rarely` was not called in this process.
    """
    global _before
    if _before is not None:
        gc.freeze()
        gc.set_threshold(*_before)
        _before = None

"""Memory that is kept for the next pass, instead of being given back to the kernel after each one.

A network's large temporaries are taken and given back at every layer. The C library hands such pieces back to the
kernel at once, which clears every page again before the next layer gets it: up to a third of the time of a pass.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

#: names of glibc's mallopt parameters (malloc.h)
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8
#: free memory at the end of the heap that is kept, and the size from which a piece is mapped by itself: the most that
#: mallopt takes
_KEPT = 2**31 - 1
#: older versions of glibc take no more than half of an arena here
_MAPPED_OLD = 2**25
#: bytes by which the heap grows at least
_STEP = 2**26
#: with one arena for all threads, what one of them has given back serves the others; with one each, every thread would
#: keep as much as it ever held
_ARENAS = 1

_in_force = ""


def tune_allocator() -> bool:
    """Let this process keep the memory that passes give back, for the next pass.

    The command line, the page's server and the workers of Ray do so when they start. The library never does it by
    itself: the process is yours. Call it before the first pass. On glibc (most Linux systems) it saves a tenth to a
    third of the processor time of work of many passes, and takes up to a quarter more memory at the peak; elsewhere it
    does nothing. It holds for the whole process and cannot be taken back. Where ``MALLOC_`` variables or
    ``GLIBC_TUNABLES`` of the environment set the allocator, or another one is preloaded, those are left as they are.

    Returns:
        whether it is in force now.
    """
    global _in_force
    if _in_force:
        return True
    libc = _glibc()
    if libc is None or chosen_by_user():
        return False
    mallopt = libc.mallopt
    mallopt.argtypes, mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    if not (mallopt(_MMAP_THRESHOLD, _KEPT) or mallopt(_MMAP_THRESHOLD, _MAPPED_OLD)):
        return False
    if not mallopt(_TRIM_THRESHOLD, _KEPT):
        return False
    mallopt(_TOP_PAD, _STEP)
    mallopt(_ARENA_MAX, _ARENAS)
    _in_force = "memory is kept between passes"
    return True


def chosen_by_user() -> str:
    """The variable of the environment by which someone has set the allocator already; "" where there is none."""
    environment = os.environ
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_"):
        if environment.get(name):
            return name
    if "glibc.malloc." in environment.get("GLIBC_TUNABLES", ""):
        return "GLIBC_TUNABLES"
    if any(name in environment.get("LD_PRELOAD", "") for name in ("jemalloc", "tcmalloc", "mimalloc")):
        return "LD_PRELOAD"
    return ""


def in_force() -> str:
    """What holds for this process's memory, in a few words."""
    if _in_force:
        return _in_force
    if name := chosen_by_user():
        return f"as {name} says"
    if _glibc() is None:
        return "the system's own (only glibc can be tuned)"
    return "glibc's own settings"


def _glibc() -> Any:
    """The C library, where it is glibc."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        libc = ctypes.CDLL(None)
        return libc if hasattr(libc, "gnu_get_libc_version") and hasattr(libc, "mallopt") else None
    except OSError:
        return None

"""Where is kept what is dear to make and can be made again: exported graphs, surveys of the page, the ward."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path

#: values of ``CONVOSCOPE_CACHE`` that say: keep nothing
NOTHING = ("", "off", "0", "none")


def cache_folder() -> Path | None:
    """The folder that ``CONVOSCOPE_CACHE`` names, else ``convoscope`` in the user's cache folder of this platform.

    Returns:
        The folder, which need not be there yet; ``None`` where nothing may be kept (``CONVOSCOPE_CACHE=off``, or a
        user without a home).
    """
    named = os.environ.get("CONVOSCOPE_CACHE")
    if named is not None:
        return None if named.lower() in NOTHING else Path(named)
    try:
        if sys.platform == "win32":
            return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "convoscope"
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "convoscope"
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "convoscope"
    except RuntimeError:
        return None


def working_folder() -> Path:
    """The cache folder; where nothing may be kept, a folder that ends with this process."""
    return cache_folder() or _of_this_process()


@cache
def _of_this_process() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="convoscope-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder

"""What a person is told when something cannot be done: one clear sentence, never a traceback."""

from __future__ import annotations

import os
import traceback


class ConvoscopeError(Exception):
    """Base of all errors that are meant to be read by a user. ``str(error)`` is one clear sentence."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: the sentence, and not thirty lines of our insides (CONVOSCOPE_TRACEBACK=1 does)."""
        if os.environ.get("CONVOSCOPE_TRACEBACK", "") not in ("", "0"):
            return traceback.format_exception(self)
        return [f"{type(self).__name__}: {self}"]


class UsageError(ConvoscopeError, ValueError):
    """A setting, flag or argument does not fit (exit code 2)."""


class ModelError(ConvoscopeError):
    """The network or its weights cannot be opened (exit code 2)."""


class PictureError(ConvoscopeError):
    """One picture cannot be read; other pictures go on (exit code 1)."""


class TargetError(ConvoscopeError, ValueError):
    """The target does not name anything that this network can score (exit code 2)."""


class NotInPicture(TargetError):
    """This picture does not hold what the target names; other pictures go on (exit code 1)."""


class LayerError(ConvoscopeError, ValueError):
    """No such layer, or the layer does not fit the method (exit code 2)."""


class StoreError(ConvoscopeError):
    """A survey's store cannot be opened, read or written (exit code 2)."""


class MethodRefused(ConvoscopeError):
    """The method does not exist for this kind of network; the sentence says why and names another."""


class MissingExtra(ConvoscopeError, ImportError):
    """An optional part is not installed; the sentence names the extra."""

    def __init__(self, package: str, extra: str, why: str) -> None:
        super().__init__(f"{why} needs {package}: install it with  pip install 'convoscope[{extra}]'")

"""One pass over a collection: what every hidden unit fires for, and which pictures the network finds alike.

:func:`survey` fills a :class:`Store`; its methods answer: ``neighbors``, ``map``, ``patches``, ``units``,
``mistakes``.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

_PUBLIC = {"Progress": "driver", "Store": "store", "run_unit": "work", "compute": "work"}

if TYPE_CHECKING:
    from .driver import Progress as Progress
    from .driver import survey as survey
    from .store import Store as Store


def __getattr__(name: str) -> Any:
    if name == "survey":
        return importlib.import_module(".driver", __name__).survey
    if name not in _PUBLIC:
        raise AttributeError(f"module 'convoscope.survey' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    globals()[name] = value
    return value


class _Package(types.ModuleType):
    """Makes ``convoscope.survey`` both this package and the function that everybody wants of it."""

    def __call__(self, *args: Any, **settings: Any) -> Any:
        from .driver import survey

        return survey(*args, **settings)


sys.modules[__name__].__class__ = _Package

__all__ = ["Progress", "Store", "compute", "run_unit", "survey"]

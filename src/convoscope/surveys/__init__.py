"""One pass over a collection: what every hidden unit fires for, and which pictures the network finds alike.

:func:`survey` fills a :class:`Store`; its methods answer: ``neighbors``, ``map``, ``patches``, ``units``,
``mistakes``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

#: public name -> the module it lives in
_PUBLIC = {
    "Progress": "gather.driver", "survey": "gather.driver", "Store": "store.store", "run_shard": "gather.work",
    "compute": "gather.work",
}  # fmt: skip

if TYPE_CHECKING:
    from .gather.driver import Progress as Progress
    from .gather.driver import survey as survey
    from .store.store import Store as Store


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'convoscope.surveys' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    globals()[name] = value
    return value


__all__ = ["Progress", "Store", "compute", "run_shard", "survey"]

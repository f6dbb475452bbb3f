"""What was computed, kept while there is room: least recently used first out, bounded in bytes."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from typing import Any


class Cache:
    """A thread-safe store of results by key, of at most ``room`` bytes."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.bytes = 0
        self.hits = self.misses = 0
        self._kept: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> Any:
        """What was kept under ``key``; ``None`` where there is nothing."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                self.misses += 1
                return None
            self.hits += 1
            self._kept.move_to_end(key)
            return found[0]

    def put(self, key: str, value: Any, size: int) -> None:
        """Keep ``value`` of ``size`` bytes; what is larger than the whole room is not kept."""
        with self._lock:
            old = self._kept.pop(key, None)
            if old is not None:
                self.bytes -= old[1]
            if size > self.room:
                return
            self._kept[key] = (value, size)
            self.bytes += size
            while self.bytes > self.room:
                _, (_, freed) = self._kept.popitem(last=False)
                self.bytes -= freed

    def __len__(self) -> int:
        return len(self._kept)


def key_of(*parts: Any) -> str:
    """A hash of plain data: equal questions have equal keys."""
    text = json.dumps(parts, sort_keys=True, default=str, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def size_of(value: Any) -> int:
    """Bytes of a result, roughly: arrays and bytes are counted, small things estimated."""
    if isinstance(value, (bytes, bytearray, str)):
        return len(value) + 64
    if hasattr(value, "nbytes"):
        return int(value.nbytes) + 128
    if isinstance(value, dict):
        return 256 + sum(size_of(v) + 64 for v in value.values())
    if isinstance(value, (list, tuple, set)):
        return 128 + sum(size_of(v) for v in value)
    if hasattr(value, "__dict__"):
        return 256 + sum(size_of(v) for v in vars(value).values())
    return 64

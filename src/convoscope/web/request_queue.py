"""Who works when: one thread for the network, a bounded line before it, and each question asked once only."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ..errors import ConvoscopeError
from .cache import Cache, size_of


class BusyError(ConvoscopeError):
    """Too many questions wait: the person is asked to try again in a moment."""


class RequestQueue:
    """Runs what is not in the cache, one network question at a time, at most ``waiting`` in line.

    Two people who ask the same wait for the same answer. An answer is kept under its key, bounded by the cache.
    Errors are not kept: the next who asks tries again.
    """

    def __init__(self, cache: Cache, waiting: int = 64) -> None:
        self.cache = cache
        self.waiting = waiting
        self.runs = 0
        # the network has one lock anyway; files and stores may be read beside it
        self._rooms = {"network": ThreadPoolExecutor(1, "network"), "files": ThreadPoolExecutor(2, "files")}
        self._asked: dict[str, Future[Any]] = {}
        self._lock = threading.Lock()

    async def once(self, key: str, make: Callable[[], Any], room: str = "network") -> Any:
        """The answer under ``key``: from the cache, from whoever computes it now, or from ``make`` in its room.

        Raises :class:`BusyError` where the line is full.
        """
        found = self.cache.get(key)
        if found is not None:
            return found
        return await asyncio.wrap_future(self._future(key, make, room))

    def _future(self, key: str, make: Callable[[], Any], room: str) -> Future[Any]:
        with self._lock:
            future = self._asked.get(key)
            if future is not None and not future.cancelled():
                return _follow(future)
            if len(self._asked) >= self.waiting:
                raise BusyError(f"{len(self._asked)} questions wait for the network already: try again in a moment.")
            future = self._rooms[room].submit(self._run, key, make)
            self._asked[key] = future
        future.add_done_callback(lambda _: self._forget(key))
        return _follow(future)

    def _run(self, key: str, make: Callable[[], Any]) -> Any:
        # it may have come in while this question stood in line
        found = self.cache.get(key)
        if found is not None:
            return found
        self.runs += 1
        value = make()
        self.cache.put(key, value, size_of(value))
        return value

    def _forget(self, key: str) -> None:
        with self._lock:
            self._asked.pop(key, None)

    async def now(self, work: Callable[[], Any], room: str = "files") -> Any:
        """Run ``work`` in a room without keeping its answer."""
        return await asyncio.wrap_future(self._rooms[room].submit(work))

    def close(self) -> None:
        """Let the threads go when they are done."""
        for pool in self._rooms.values():
            pool.shutdown(wait=False, cancel_futures=True)


def _follow(future: Future[Any]) -> Future[Any]:
    """A future of its own for each who waits: one who goes away must not cancel it for the others."""
    mine: Future[Any] = Future()

    def tell(done: Future[Any]) -> None:
        if not mine.set_running_or_notify_cancel():
            return
        if done.cancelled():
            mine.set_exception(BusyError("The server is shutting down."))
        elif (error := done.exception()) is not None:
            mine.set_exception(error)
        else:
            mine.set_result(done.result())

    future.add_done_callback(tell)
    return mine

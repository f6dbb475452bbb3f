"""Three things at once: the next pictures are read while the network runs and while what it made is drawn.

What a consumer sees is as if they came one after the other: the same order, and an error where it would have come. No
stage is ever more than a chunk ahead, so memory does not grow with the number of pictures.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Generic, TypeVar

From = TypeVar("From")
To = TypeVar("To")


def ahead(make: Callable[[From], To], items: Iterable[From], *, most: int = 1) -> Generator[To, None, None]:
    """``map(make, items)``, made in a thread of its own, at most ``most`` items before they are asked for."""
    waiting: deque[Future[To]] = deque()
    rest = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="convoscope-read") as thread:
        try:
            while True:
                while len(waiting) <= most:
                    try:
                        item = next(rest)
                    except StopIteration:
                        break
                    waiting.append(thread.submit(make, item))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()


class Later(Generic[To]):
    """Work done in a thread of its own, handed back in the order given: ``with Later(most=32) as later``.

    Who would have to wait for it does some of it: with work that takes longer than what it was made from, both threads
    are busy. Leaving the block by an exception gives up what has not begun; what is being done is finished first, so
    that no thread is left behind.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._waiting: deque[tuple[Future[To], Callable[[], To]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="convoscope-write")
        self._failed = False

    def __enter__(self) -> Later[To]:
        return self

    def __exit__(self, *raised: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def put(self, work: Callable[[], To]) -> None:
        """Do ``work`` once all that was put before it has begun, and not at all where any of that has failed."""
        self._waiting.append((self._thread.submit(self._do, work), work))

    def _do(self, work: Callable[[], To]) -> To:
        if self._failed:
            raise CancelledError
        try:
            return work()
        except BaseException:
            self._failed = True
            raise

    def ready(self) -> Iterator[To]:
        """What is done, in order, until no more than ``most`` are under way."""
        while self._waiting and (len(self._waiting) > self.most or self._waiting[0][0].done()):
            yield self._first()

    def rest(self) -> Iterator[To]:
        """All that is left, in order."""
        while self._waiting:
            yield self._first()

    def _first(self) -> To:
        while not self._waiting[0][0].done() and self._helped():
            pass
        return self._waiting.popleft()[0].result()

    def _helped(self) -> bool:
        """Whether something had not begun, and is now done here."""
        for place, (future, work) in enumerate(self._waiting):
            if future.cancel():
                here: Future[To] = Future()
                self._waiting[place] = here, work
                try:
                    here.set_result(self._do(work))
                except Exception as error:
                    here.set_exception(error)
                return True
        return False

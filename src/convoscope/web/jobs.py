"""Long work: a bounded line, progress and pictures as server-sent events, and a way to stop.

Equal jobs are one job: who asks for what runs already watches the same work. Jobs run one at a time, on the network's
twin, so that clicks are answered meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConvoscopeError
from ..files import disk_trouble
from .request_queue import BusyError

#: jobs in line, and jobs that are remembered when they have ended
WAITING, REMEMBERED = 16, 48
#: pictures that one who comes late is shown again
FRAMES = 1
#: seconds after which work that nobody watches any more is stopped: a page that was closed must not block the line
ABANDONED = 20.0


class StopWork(KeyboardInterrupt):
    """Raised inside the work when somebody stops it: what passes keep on Ctrl-C, they keep here too."""


class Handle:
    """What a job's work tells: progress, pictures; and where it learns that it should stop."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._pace: deque[tuple[float, int]] = deque(maxlen=40)
        self._stage = ""

    def check(self) -> None:
        """Raise :class:`StopWork` where somebody asked to stop, or nobody watches any more."""
        if self._job.abandoned:
            self._job.stop.set()
        if self._job.stop.is_set():
            raise StopWork

    @property
    def stopped(self) -> bool:
        return self._job.stop.is_set()

    def progress(self, done: int, total: int | None, what: str = "", left: float | None = None) -> None:
        """``done`` of ``total`` steps; stops the work where that was asked for.

        Without a time that is ``left`` it is taken from the pace of the last steps, where there are enough of them.
        """
        if left is None and total is not None and total > 4:
            left = self._left(done, total, what)
        self._job.tell("progress", {"done": done, "total": total, "what": what, "left": left})
        self.check()

    def _left(self, done: int, total: int, what: str) -> float | None:
        now = time.monotonic()
        if what != self._stage or (self._pace and done < self._pace[-1][1]):
            self._pace.clear()
            self._stage = what
        self._pace.append((now, done))
        began, first = self._pace[0]
        # what was seen of less than a second tells nothing of the rest
        return (now - began) * (total - done) / (done - first) if now - began >= 1 and done > first else None

    def file(self, name: str, kind: str, content: bytes) -> None:
        """A file that the job made, to be fetched by its name while the job is remembered."""
        self._job.files[name] = (kind, content)

    def frame(self, data: dict[str, Any]) -> None:
        """An intermediate picture."""
        self._job.tell("frame", data)
        self.check()


Work = Callable[[Handle], dict[str, Any]]


@dataclass(eq=False)
class Job:
    """One piece of long work. ``state``: queued, running, done, failed or cancelled."""

    id: str
    key: str
    kind: str
    title: str
    work: Work = field(repr=False)
    state: str = "queued"
    result: dict[str, Any] | None = None
    error: str | None = None
    started: float | None = None
    ended: float | None = None
    latest: dict[str, Any] = field(default_factory=dict)
    files: dict[str, tuple[str, bytes]] = field(default_factory=dict, repr=False)
    stop: threading.Event = field(default_factory=threading.Event, repr=False)
    #: how long it goes on while nobody watches; ``None``: to its end, since others use what it makes
    patience: float | None = None
    ahead: int = 0
    _seen: float = field(default_factory=time.monotonic, repr=False)
    _events: deque[tuple[str, Any]] = field(default_factory=lambda: deque(maxlen=FRAMES), repr=False)
    _listeners: list[Callable[[str, Any], None]] = field(default_factory=list, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def ended_already(self) -> bool:
        return self.state in ("done", "failed", "cancelled")

    @property
    def abandoned(self) -> bool:
        """Whether nobody has watched or asked for longer than its patience."""
        if self.patience is None or self._listeners:
            return False
        return time.monotonic() - self._seen > self.patience

    def seen(self) -> None:
        """Somebody asked how far it is."""
        self._seen = time.monotonic()

    def tell(self, event: str, data: Any) -> None:
        """Send an event to all who listen, and remember the latest."""
        with self._lock:
            if event == "progress":
                self.latest = data
            elif event == "frame":
                self._events.append((event, data))
            listeners = list(self._listeners)
        for listener in listeners:
            listener(event, data)

    def listen(self, listener: Callable[[str, Any], None]) -> list[tuple[str, Any]]:
        """Hear what comes from now on; returns what a late-comer must know."""
        with self._lock:
            self._listeners.append(listener)
            return [("state", self.to_dict()), *self._events]

    def unlisten(self, listener: Callable[[str, Any], None]) -> None:
        with self._lock:
            if listener in self._listeners:
                self._listeners.remove(listener)
            self._seen = time.monotonic()

    def to_dict(self) -> dict[str, Any]:
        """What the page is told."""
        seconds = None if self.started is None else (self.ended or time.time()) - self.started
        return {
            "id": self.id,
            "kind": self.kind,
            "title": self.title,
            "state": self.state,
            "progress": self.latest or None,
            "result": self.result,
            "error": self.error,
            "seconds": seconds,
            "ahead": self.ahead if self.state == "queued" else 0,
        }


class Jobs:
    """The line of long work."""

    def __init__(self, waiting: int = WAITING, abandoned: float = ABANDONED) -> None:
        self.waiting, self.abandoned = waiting, abandoned
        self._busy = False
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._line: deque[Job] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="long work", daemon=True)
        self._thread.start()

    def submit(self, kind: str, key: str, title: str, work: Work, *, lasting: bool = False) -> Job:
        """Put work in line; the same work that waits, runs or is done already is returned instead.

        Work that is not ``lasting`` ends when nobody has watched it for a while. Raises :class:`BusyError` where the
        line is full.
        """
        with self._wake:
            for job in self._jobs.values():
                if job.key == key and job.state in ("queued", "running", "done") and not job.stop.is_set():
                    job.seen()
                    return job
            if len(self._line) >= self.waiting:
                raise BusyError(f"{len(self._line)} long jobs wait already: wait for one to end, or stop one.")
            job = Job(uuid.uuid4().hex[:16], key, kind, title, work)
            job.patience = None if lasting else self.abandoned
            job.ahead = len(self._line) + self._busy
            self._jobs[job.id] = job
            self._line.append(job)
            ended = [j.id for j in self._jobs.values() if j.ended_already]
            for id in ended[: max(0, len(self._jobs) - REMEMBERED)]:
                del self._jobs[id]
            self._wake.notify()
        return job

    def get(self, id: str) -> Job | None:
        """The job, where it is remembered."""
        with self._wake:
            return self._jobs.get(id)

    def listed(self) -> list[Job]:
        """All jobs that are remembered, the newest last."""
        with self._wake:
            return list(self._jobs.values())

    def cancel(self, job: Job) -> None:
        """Stop a job: at once where it waits, at its next step where it runs."""
        with self._wake:
            job.stop.set()
            if job in self._line:
                self._line.remove(job)
                self._end(job, "cancelled")

    def close(self) -> None:
        """Stop everything; called when the server ends."""
        with self._wake:
            self._closed = True
            for job in self._jobs.values():
                job.stop.set()
            self._wake.notify_all()

    def _serve(self) -> None:
        while True:
            with self._wake:
                while not self._line and not self._closed:
                    self._wake.wait()
                if self._closed:
                    return
                job = self._line.popleft()
                job.state, job.started = "running", time.time()
                self._busy = True
                moved = [*self._line]
                for one in moved:
                    one.ahead = moved.index(one) + 1
            job.tell("state", job.to_dict())
            for one in moved:
                one.tell("state", one.to_dict())
            try:
                handle = Handle(job)
                handle.check()
                job.result = job.work(handle)
                self._end(job, "cancelled" if job.stop.is_set() else "done")
            except KeyboardInterrupt:
                self._end(job, "cancelled")
            except ConvoscopeError as error:
                job.error = str(error)
                self._end(job, "failed")
            except Exception as error:  # one job that breaks must not end the line
                said = disk_trouble(error) if isinstance(error, OSError) else ""
                job.error = said or f"{type(error).__name__}: {error}"[:400]
                self._end(job, "failed")
            finally:
                self._busy = False

    @staticmethod
    def _end(job: Job, state: str) -> None:
        job.state, job.ended = state, time.time()
        job.tell("state", job.to_dict())


async def events(job: Job) -> AsyncIterator[bytes]:
    """The job as server-sent events, until it has ended; a comment every ten seconds keeps the line open."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[str, Any]] = asyncio.Queue(maxsize=64)

    def put(event: str, data: Any) -> None:
        if queue.full():  # one who reads slowly misses pictures, never the end
            if event != "state":
                return
            queue.get_nowait()
        queue.put_nowait((event, data))

    def listener(event: str, data: Any) -> None:
        loop.call_soon_threadsafe(put, event, data)

    for event, data in job.listen(listener):
        put(event, data)
    try:
        while True:
            try:
                event, data = await asyncio.wait_for(queue.get(), 10)
            except TimeoutError:
                yield b": still here\n\n"
                continue
            yield f"event: {event}\ndata: {json.dumps(data, allow_nan=False)}\n\n".encode()
            if event == "state" and data["state"] in ("done", "failed", "cancelled"):
                return
    finally:
        job.unlisten(listener)

"""The one writer of a store: a lock of the operating system on a local disk, a lease on an object store."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import uuid
from pathlib import Path
from typing import Any

from ...errors import StoreError
from ...extras import need
from ...files import write_whole

#: seconds after which a lease that was not renewed is void: its writer has died
LEASE = 600.0
#: seconds that a writer waits for the lock
PATIENCE = 2.0


class Lock:
    """The one writer's lock of a local store: the operating system lets it go when the process ends, however
    it ends.
    """

    def __init__(self, held: Any) -> None:
        self._held: Any = held

    @classmethod
    def take(cls, path: str, *, wait: bool) -> Lock | Lease | None:
        """The lock; ``None`` where another process has it, after a moment's patience (a reader may be mending).

        On an object store a :class:`Lease`, and readers (``wait``) take none.

        Raises:
            StoreError: nothing can be written there at all (a read-only disk, another's folder).
        """
        if "://" in path:
            return None if wait else Lease.take(path)
        library = need("filelock", "A survey's store")
        held = library.FileLock(os.path.join(path, "lock"))
        try:
            held.acquire(timeout=PATIENCE, poll_interval=0.05)
        except library.Timeout:
            return None
        except OSError as error:
            if wait:
                return None  # a store on a read-only disk has no writer
            raise StoreError(f"{path} cannot be written ({error.strerror or error}): give another --out.") from None
        if not wait:
            who = {"process": os.getpid(), "host": socket.gethostname(), "since": time.time()}
            with contextlib.suppress(OSError):  # only for the sentence of whoever comes second
                write_whole(Path(path, "writer.json"), json.dumps(who))
        return cls(held)

    @staticmethod
    def refusal(path: str) -> str:
        """The sentence for who comes second."""
        who = ""
        with contextlib.suppress(OSError, ValueError, IndexError, KeyError):
            if "://" in path:
                found = Lease.found(path)
                pid, host, since = (found[0][name] for name in ("process", "host", "since")) if found else ("?",) * 3
            else:
                said = json.loads(Path(path, "writer.json").read_text(encoding="utf-8"))
                pid, host, since = (said[name] for name in ("process", "host", "since"))
            who = f" (process {pid} on {host}, for {max(0, time.time() - float(since)):.0f} s)"
        return f"{path} is being written by another survey{who}: wait until it ends, or give another --out."

    def renew(self) -> bool:
        """A lock of the operating system lasts as long as its process."""
        return True

    def release(self) -> None:
        if self._held is not None:
            self._held.release()
            self._held = None


class Lease:
    """The one writer's claim on a store in an object store: an object that is written only where there is none, and
    renewed with every commit. A writer that died is known by a lease older than :data:`LEASE` seconds.

    Between taking over a dead writer's lease and the first renewal of a writer that only seemed dead, two may write;
    every commit renews first, and stops where the lease is another's.
    """

    def __init__(self, path: str, token: str) -> None:
        self.path, self.token = path, token
        self.since = self.renewed = time.time()

    @classmethod
    def take(cls, path: str) -> Lease | None:
        """The lease; ``None`` where another process holds one. Raises :class:`StoreError` without access."""
        from .lance_table import _clear_errors

        lease = cls(path, uuid.uuid4().hex)
        with _clear_errors(path):
            found = cls.found(path)
            if found is not None and time.time() - found[1] < LEASE:
                return None
            fs, where = cls._file(path)
            try:
                fs.pipe_file(where, lease._text(), mode="overwrite" if found is not None else "create")
            except FileExistsError:
                return None
            now = cls.found(path)
        return lease if now is not None and now[0].get("token") == lease.token else None

    @staticmethod
    def _file(path: str) -> tuple[Any, str]:
        from ..addresses import filesystem

        fs, where = filesystem(f"{path.rstrip('/')}/lock")
        fs.invalidate_cache()
        return fs, where

    @classmethod
    def found(cls, path: str) -> tuple[dict[str, Any], float] | None:
        """What the lease of a store says, and when it was renewed."""
        fs, where = cls._file(path)
        try:
            said = json.loads(fs.cat_file(where))
            return said, float(said["renewed"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            return {}, 0.0

    def _text(self) -> bytes:
        said = {"token": self.token, "process": os.getpid(), "host": socket.gethostname(), "since": self.since}
        return json.dumps({**said, "renewed": time.time()}).encode()

    def renew(self) -> bool:
        """Renew the lease where it has aged; ``False`` where another writer has taken it over."""
        if time.time() - self.renewed < LEASE / 10:
            return True
        found = self.found(self.path)
        if found is None or found[0].get("token") != self.token:
            return False
        fs, where = self._file(self.path)
        fs.pipe_file(where, self._text())
        self.renewed = time.time()
        return True

    def release(self) -> None:
        """Give the lease back, where it is still ours."""
        with contextlib.suppress(OSError):
            found = self.found(self.path)
            if found is not None and found[0].get("token") == self.token:
                fs, where = self._file(self.path)
                fs.rm_file(where)

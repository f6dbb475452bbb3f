"""Work in several processes: one kind of worker and one pool, for explanations, evaluations, surveys, diagnoses.

The caller's list of tasks is the ledger: what is not written down is a task, and a task is a pure function of its
pictures, so nothing depends on who did what, or how often. A worker that dies is replaced and its task done again; a
task that takes much longer than the others is repeated on an idle worker, and the first result counts.

Ray: Moritz et al. 2018, "Ray: A Distributed Framework for Emerging AI Applications".
"""

from __future__ import annotations

import os
import re
import socket
import statistics
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import errors
from .allocator import tune_allocator
from .collector import collect_rarely, settle
from .errors import ConvoscopeError, MissingExtra, ModelError, UsageError
from .models.model import Model

if TYPE_CHECKING:
    from .pictures.picture import Preprocessing

#: what Ray may keep of results on the way; a shard's result is a few megabytes
OBJECT_STORE = 256 * 2**20
#: a task that has taken so many times the median is repeated elsewhere, once nothing else is to be done
SLOW = 2.0
#: seconds that no task is too slow for, however short the others were
SLOW_AT_LEAST = 5.0
#: copies of one task that run at a time, at most
COPIES = 3
#: a task that so many workers died of is given up
DEATHS = 3
#: seconds until the first worker must have started
PATIENCE = 300.0


@dataclass(frozen=True)
class Task:
    """Some pictures' work; ``id`` is its own among all tasks."""

    id: str
    what: Any


@dataclass(frozen=True)
class Done:
    """What a worker made of a task; ``id`` is the task's."""

    id: str
    value: Any


@dataclass(frozen=True)
class Refused:
    """What a worker says instead of a result: the kind of error, and its sentence."""

    kind: str
    sentence: str

    def error(self) -> ConvoscopeError:
        """The error to be raised in the driver."""
        if self.kind == "MissingExtra":
            return ConvoscopeError(self.sentence)
        kind = getattr(errors, self.kind, ConvoscopeError)
        return kind(self.sentence)


class Worker:
    """One network in a process of its own; Ray makes an actor of this class."""

    def __init__(
        self, opening: Callable[[str], Model], do: Callable[[Model, Any], Any], fingerprint: str, threads: int
    ) -> None:
        tune_allocator()  # a process of ours, before its first pass
        collect_rarely()
        import torch

        torch.set_num_threads(threads)
        self.opening, self.do, self.fingerprint = opening, do, fingerprint
        self.model: Model | None = None

    def ready(self) -> int:
        """The process, once it has started."""
        return os.getpid()

    def work(self, task: Task) -> Done | Refused:
        """The result, or the sentence that says why there is none."""
        try:
            if self.model is None:
                self.model = self.opening(device())
                settle()
            if self.model.fingerprint != self.fingerprint:  # results of two networks must not be mixed
                raise ModelError("A worker opened another network than the one here: are the weights random (none)?")
            return Done(task.id, self.do(self.model, task.what))
        except ConvoscopeError as error:
            return Refused(type(error).__name__, str(error))


def device() -> str:
    """The GPU that Ray gave this actor, else the CPU."""
    import torch

    return "cuda" if torch.cuda.is_available() and _ray().get_gpu_ids() else "cpu"


@dataclass(frozen=True, eq=False)
class Shipped:
    """A network that has no spec by which a worker could open it: the object itself, as Ray's pickle carries it."""

    module: Any
    preprocessing: Preprocessing
    labels: tuple[str, ...] | None
    name: str
    batch_size: int
    call: Callable[..., Any] | None
    seed: int = 0

    @classmethod
    def of(cls, model: Model) -> Shipped:
        return cls(
            model.module, model.preprocessing, model.labels, model.name, model.batch_size, model.call, model.seed
        )

    def model(self, device: str) -> Model:
        return Model(
            self.module.to(device), self.preprocessing, self.labels, self.name, batch_size=self.batch_size,
            call=self.call, seed=self.seed,
        )  # fmt: skip


def _ray() -> Any:
    # before the import: with this, Ray's own servers listen on the loopback interface alone in a local run
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise MissingExtra("ray", "ray", "--ray") from None
    return ray


def send(ray: Any, value: Any, name: str) -> Any:
    """``value`` where every worker can read it. Raises :class:`UsageError` that names the network ``name``."""
    try:
        return ray.put(value)
    except TypeError as error:  # Ray's report of many lines begins with what cannot be sent
        why = str(error).splitlines()[0][:200]
        raise UsageError(
            f"{name} cannot be sent to other processes ({why}): put it into a file and name it as net.py:build."
        ) from None


def _no_cluster(address: str, error: Exception) -> str:
    said = " ".join(str(error).split())
    if address == "local" and "timed out" in said.lower():
        return (
            "--ray local: Ray's own processes did not start in time, most often because this machine is busy: run "
            "again when it is less so, with fewer --workers, or without --ray."
        )
    return f"--ray {address}: no Ray cluster can be had there ({said[:200]})."


def check_cluster(address: str, workers: int | None) -> None:
    """Refuse what cannot work before anything is written: no Ray, no worker, or an address where nobody listens.

    Raises :class:`UsageError`; :class:`MissingExtra` without Ray. Ray itself would try an address for minutes.
    """
    if workers is not None and workers < 1:
        raise UsageError(f"--workers must be at least 1, not {workers}.")
    if address == "local":
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # read when Ray is imported
    _ray()
    found = re.fullmatch(r"(?:ray://)?\[?(?P<host>[^/\[\]]+)\]?:(?P<port>\d+)", address)
    if found is None:
        return
    try:
        socket.create_connection((found["host"], int(found["port"])), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"--ray {address}: nothing answers there ({getattr(error, 'strerror', None) or error}). `ray start --head` "
            "starts a cluster and says its address; --ray local needs none."
        ) from None


@contextmanager
def connected(address: str, workers: int | None) -> Iterator[tuple[Any, int, bool]]:
    """Ray, the number of workers to start, and whether each gets a GPU. Leaves a Ray that was there as it was.

    ``address`` is ``local`` for this machine alone (Ray is started, without dashboard, and listens on the loopback
    interface), else that of a running cluster (``auto``, ``host:6379``, ``ray://host:10001``). One CPU is always left
    free: with all of them in actors Ray's own tasks wait for ever. Raises :class:`UsageError`.
    """
    check_cluster(address, workers)
    ray, local = _ray(), address == "local"
    ours = not ray.is_initialized()
    if ours:
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if local:
            cores = os.cpu_count() or 1
            settings |= {
                "address": "local",
                "num_cpus": max(cores, (workers or 1) + 1),
                "include_dashboard": False,
                "object_store_memory": OBJECT_STORE,
                "_node_ip_address": "127.0.0.1",
            }
        else:
            settings["address"] = address
        try:
            ray.init(**settings)
        except (ConnectionError, RuntimeError, ValueError, OSError, TimeoutError) as error:
            raise UsageError(_no_cluster(address, error)) from None
    try:
        have = ray.cluster_resources()
        gpus, cpus = int(have.get("GPU", 0)), int(have.get("CPU", 1))
        room = max(1, min(gpus, cpus - 1) if gpus else cpus - 1)
        yield ray, min(workers or room, room), gpus > 0
    finally:
        if ours:
            ray.shutdown()


@dataclass
class _Running:
    worker: Any
    task: Task
    started: float


class Scheduler:
    """The workers, what each is at, and what is still to be done. :meth:`results` gives every task's result once."""

    def __init__(
        self,
        ray: Any,
        make: Callable[[], Any],
        count: int,
        tasks: Sequence[Task],
        slow_at_least: float = SLOW_AT_LEAST,
    ) -> None:
        self.ray, self.make, self.slow_at_least = ray, make, slow_at_least
        self.queue = deque(tasks)
        self.left = {task.id for task in tasks}
        self.idle = [make() for _ in range(min(count, len(tasks)))]
        self.running: dict[Any, _Running] = {}
        self.seconds: deque[float] = deque(maxlen=64)
        self.deaths: Counter[str] = Counter()
        self.given_up: list[str] = []
        self.replaced = self.repeated = 0

    def start(self) -> None:
        """Wait for the first worker. Raises :class:`UsageError` where the cluster gives none."""
        asked = [worker.ready.remote() for worker in self.idle]
        started, _ = self.ray.wait(asked, num_returns=1, timeout=PATIENCE)
        if not started:
            raise UsageError(f"Ray started no worker within {PATIENCE:.0f} s: the cluster has no CPU or GPU free.")

    def results(self) -> Iterator[list[Done]]:
        """Results as they come, some at a time; every worker has its next task before they are handed out.

        Raises what a worker refused with, and :class:`ConvoscopeError` at the end where tasks were given up.
        """
        while self.left:
            self._hand_out()
            if not self.running:
                break
            # several may have come in while the last ones were written down
            ready, _ = self.ray.wait(list(self.running), num_returns=1, timeout=0.5)
            if ready:
                ready, _ = self.ray.wait(list(self.running), num_returns=len(self.running), timeout=0)
            got = [result for ref in ready if (result := self._take(ref)) is not None]
            self._hand_out()
            if got:
                yield got
        if self.given_up:
            raise ConvoscopeError(
                f"{len(self.given_up)} pieces of work were given up, as {DEATHS} workers died of each (out of "
                "memory?); all others are done and kept. Run again with a smaller --batch-size."
            )

    def _take(self, ref: Any) -> Done | None:
        run = self.running.pop(ref)
        try:
            result = self.ray.get(ref)
        except self.ray.exceptions.RayTaskError:
            raise  # a fault in the program
        except self.ray.exceptions.RayError:
            self._died(run)
            return None
        self.idle.append(run.worker)
        if isinstance(result, Refused):
            raise result.error()
        assert isinstance(result, Done)
        if result.id not in self.left:
            return None  # a copy was faster
        self.left.discard(result.id)
        self.seconds.append(time.monotonic() - run.started)
        return result

    def _died(self, run: _Running) -> None:
        self.replaced += 1
        self.idle.append(self.make())
        name = run.task.id
        if name not in self.left:
            return
        self.deaths[name] += 1
        if self.deaths[name] >= DEATHS:
            self.left.discard(name)
            self.given_up.append(name)
        elif not any(other.task.id == name for other in self.running.values()):
            self.queue.appendleft(run.task)

    def _hand_out(self) -> None:
        while self.idle:
            task = self.queue.popleft() if self.queue else self._slow()
            if task is None:
                return
            worker = self.idle.pop()
            self.running[worker.work.remote(task)] = _Running(worker, task, time.monotonic())

    def _slow(self) -> Task | None:
        """A task in hand that takes far longer than others did."""
        if not self.seconds:
            return None
        limit = max(self.slow_at_least, SLOW * statistics.median(self.seconds))
        now = time.monotonic()
        copies = Counter(run.task.id for run in self.running.values())
        latest: dict[str, _Running] = {}
        for run in self.running.values():
            if run.task.id in self.left:
                before = latest.setdefault(run.task.id, run)
                if run.started > before.started:
                    latest[run.task.id] = run
        slow = [r for name, r in latest.items() if now - r.started > limit and copies[name] < COPIES]
        if not slow:
            return None
        self.repeated += 1
        return min(slow, key=lambda run: run.started).task

    def stop(self) -> None:
        """End all workers, also those that are still at a copy."""
        for worker in [*self.idle, *(run.worker for run in self.running.values())]:
            self.ray.kill(worker)


@dataclass(frozen=True)
class RayPool:
    """Where the work goes: ``local`` or a cluster's address, how many workers, and how each opens the network.

    ``opening(device)`` opens it in a worker; without one the network itself is sent, which needs a class that can be
    imported there. Default of ``workers``: one for every GPU of the cluster, or every CPU but one.
    """

    address: str = "local"
    workers: int | None = None
    opening: Callable[[str], Model] | None = None

    def run(self, model: Model, do: Callable[[Model, Any], Any], tasks: Sequence[Task]) -> Iterator[Done]:
        """``do(model, task.what)`` of every task, as they come, each once; see :meth:`crew`."""
        with self.crew(model, do, tasks) as crew:
            for results in crew.results():
                yield from results

    @contextmanager
    def crew(self, model: Model, do: Callable[[Model, Any], Any], tasks: Sequence[Task]) -> Iterator[Scheduler]:
        """The workers, started, with their tasks; all are ended when the block ends.

        Raises:
            MissingExtra: Ray is not installed.
            UsageError: no cluster can be had, or the network cannot be sent.
            ConvoscopeError: what a task raises, as far as it is ours.
        """
        ray = _ray()
        if not tasks:
            yield Scheduler(ray, object, 0, [])
            return
        with connected(self.address, self.workers) as (ray, count, gpu):
            opening = send(ray, self.opening or Shipped.of(model).model, model.name)
            work = send(ray, do, model.name)
            # on one machine the workers share its cores; on a cluster each has the one that Ray counts for it
            threads = max(1, (os.cpu_count() or 1) // count) if self.address == "local" else 1
            actor = ray.remote(num_cpus=1, num_gpus=1 if gpu else 0, max_restarts=0)(Worker)
            crew = Scheduler(ray, lambda: actor.remote(opening, work, model.fingerprint, threads), count, tasks)
            try:
                crew.start()
                yield crew
            finally:
                crew.stop()

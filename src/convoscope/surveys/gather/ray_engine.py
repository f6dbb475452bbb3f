"""The shards of a survey on Ray: actors with one network each, one committer in the driver.

The list of shards that the store has not committed is the ledger; Ray only runs them. A worker that dies is replaced
and its shard done again; a shard that takes much longer than the others is repeated on an idle worker, and the first
result counts. As a shard is a pure function of its pictures, nothing depends on who did what, or how often.

Ray: Moritz et al. 2018, "Ray: A Distributed Framework for Emerging AI Applications".
"""

from __future__ import annotations

import os
import statistics
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ... import errors
from ...errors import ConvoscopeError, MissingExtra, UsageError
from ...models.model import Model
from ..store.recipe import Recipe, reopen
from ..store.store import Store
from .shards import Shard
from .work import ShardResult, compute

if TYPE_CHECKING:
    from ...pictures.picture import Preprocessing

#: what Ray may keep of results on the way; a shard's result is a few megabytes
OBJECT_STORE = 256 * 2**20
#: a shard that has taken so many times the median is repeated elsewhere, once nothing else is to be done
SLOW = 2.0
#: copies of one shard that run at a time, at most
COPIES = 3
#: a shard that so many workers died of is given up
DEATHS = 3
#: seconds until the first worker must have started
PATIENCE = 300.0


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

    def __init__(self, recipe: Recipe, shipped: Shipped | None, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.recipe, self.shipped = recipe, shipped
        self.model: Model | None = None

    def ready(self) -> int:
        """The process, once it has started."""
        return os.getpid()

    def work(self, shard: Shard) -> ShardResult | Refused:
        """The shard's result, or the sentence that says why there is none."""
        try:
            if self.model is None:
                self.model = self.shipped.model(device()) if self.shipped else reopen(self.recipe, device())
            return compute(self.model, self.recipe, shard)
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


@contextmanager
def connected(address: str, workers: int | None) -> Iterator[tuple[Any, int, bool]]:
    """Ray, the number of workers to start, and whether each gets a GPU. Leaves a Ray that was there as it was.

    ``address`` is ``local`` for this machine alone (Ray is started, without dashboard, and listens on the loopback
    interface), else that of a running cluster (``auto``, ``host:6379``, ``ray://host:10001``). One CPU is always left
    free: with all of them in actors Ray's own tasks wait for ever. Raises :class:`UsageError`.
    """
    if workers is not None and workers < 1:
        raise UsageError(f"--workers must be at least 1, not {workers}.")
    local = address == "local"
    if local:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # read when Ray is imported
    ray = _ray()
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
            said = " ".join(str(error).split())[:200]
            raise UsageError(f"--ray {address}: no Ray cluster can be had there ({said}).") from None
    try:
        have = ray.cluster_resources()
        gpus, cpus = int(have.get("GPU", 0)), int(have.get("CPU", 1))
        room = max(1, min(gpus, cpus - 1) if gpus else cpus - 1)
        yield ray, min(workers or room, room), gpus > 0
    finally:
        if ours:
            ray.shutdown()


class Piece(Protocol):
    """A piece of work with an id of its own; what comes of it has that id as ``shard``."""

    @property
    def id(self) -> str: ...


@dataclass
class _Task:
    worker: Any
    shard: Piece
    started: float


class Scheduler:
    """The workers, what each is at, and what is still to be done. :meth:`results` gives every shard's result once."""

    def __init__(self, ray: Any, make: Callable[[], Any], count: int, shards: Sequence[Piece]) -> None:
        self.ray, self.make = ray, make
        self.queue = deque(shards)
        self.left = {shard.id for shard in shards}
        self.idle = [make() for _ in range(min(count, len(shards)))]
        self.running: dict[Any, _Task] = {}
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

    def results(self) -> Iterator[list[Any]]:
        """Results as they come, some at a time; every worker has its next shard before they are handed out.

        Raises what a worker refused with, and :class:`ConvoscopeError` at the end where shards were given up.
        """
        while self.left:
            self._hand_out()
            if not self.running:
                break
            # several may have come in while the last ones were committed
            ready, _ = self.ray.wait(list(self.running), num_returns=1, timeout=0.5)
            if ready:
                ready, _ = self.ray.wait(list(self.running), num_returns=len(self.running), timeout=0)
            got = [result for ref in ready if (result := self._take(ref)) is not None]
            self._hand_out()
            if got:
                yield got
        if self.given_up:
            raise ConvoscopeError(
                f"{len(self.given_up)} shards were given up, as {DEATHS} workers died of each (out of memory?); all "
                "others are done and kept. Run again with a smaller --shard-size or --batch-size."
            )

    def _take(self, ref: Any) -> Any:
        task = self.running.pop(ref)
        try:
            result = self.ray.get(ref)
        except self.ray.exceptions.RayTaskError:
            raise  # a fault in the program
        except self.ray.exceptions.RayError:
            self._died(task)
            return None
        self.idle.append(task.worker)
        if isinstance(result, Refused):
            raise result.error()
        if result.shard not in self.left:
            return None  # a copy was faster
        self.left.discard(result.shard)
        self.seconds.append(time.monotonic() - task.started)
        return result

    def _died(self, task: _Task) -> None:
        self.replaced += 1
        self.idle.append(self.make())
        shard = task.shard.id
        if shard not in self.left:
            return
        self.deaths[shard] += 1
        if self.deaths[shard] >= DEATHS:
            self.left.discard(shard)
            self.given_up.append(shard)
        elif not any(other.shard.id == shard for other in self.running.values()):
            self.queue.appendleft(task.shard)

    def _hand_out(self) -> None:
        while self.idle:
            shard = self.queue.popleft() if self.queue else self._slow()
            if shard is None:
                return
            worker = self.idle.pop()
            self.running[worker.work.remote(shard)] = _Task(worker, shard, time.monotonic())

    def _slow(self) -> Piece | None:
        """A shard in hand that takes far longer than others did."""
        if not self.seconds:
            return None
        limit = SLOW * statistics.median(self.seconds)
        now = time.monotonic()
        copies = Counter(task.shard.id for task in self.running.values())
        latest: dict[str, _Task] = {}
        for task in self.running.values():
            if task.shard.id in self.left:
                before = latest.setdefault(task.shard.id, task)
                if task.started > before.started:
                    latest[task.shard.id] = task
        slow = [t for u, t in latest.items() if now - t.started > limit and copies[u] < COPIES]
        if not slow:
            return None
        self.repeated += 1
        return min(slow, key=lambda task: task.started).shard

    def stop(self) -> None:
        """End all workers, also those that are still at a copy."""
        for worker in [*self.idle, *(task.worker for task in self.running.values())]:
            self.ray.kill(worker)


def run(
    store: Store,
    model: Model,
    shards: Sequence[Shard],
    address: str = "local",
    workers: int | None = None,
    tell: Callable[[ShardResult], None] | None = None,
) -> Scheduler | None:
    """Do ``shards`` on Ray and commit them to ``store``, which this process writes alone.

    ``workers``: default one for every GPU of the cluster, or every CPU but one. ``tell`` is called with each
    committed result. Returns the crew, which counts replaced workers and repeated shards; ``None`` where there was
    nothing to do.

    Raises :class:`MissingExtra` without Ray, :class:`UsageError` where no cluster can be had, and what a shard raises.
    """
    if not shards:
        _ray()
        return None
    with connected(address, workers) as (ray, count, gpu):
        shipped = Shipped.of(model) if store.recipe.spec is None else None
        carried = None if shipped is None else send(ray, shipped, model.name)
        # on one machine the workers share its cores; on a cluster each has the one that Ray counts for it
        threads = max(1, (os.cpu_count() or 1) // count) if address == "local" else 1
        actor = ray.remote(num_cpus=1, num_gpus=1 if gpu else 0, max_restarts=0)(Worker)
        crew = Scheduler(ray, lambda: actor.remote(store.recipe, carried, threads), count, shards)
        try:
            crew.start()
            for results in crew.results():
                store.commit_all(results)
                for result in results:
                    if tell is not None:
                        tell(result)
        finally:
            crew.stop()
        return crew

"""Many pictures on Ray, for ``explain`` and ``evaluate``: the survey's crew, with other work.

The caller's list of tasks is the ledger: what is not written down is a task, and a task is a pure function of its
pictures. Deaths, replacement and repetition are those of :mod:`convoscope.surveys.gather.ray_engine`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import ConvoscopeError, ModelError

if TYPE_CHECKING:
    from .models.model import Model


@dataclass(frozen=True)
class Task:
    """Some pictures' work; ``id`` is its own among all tasks."""

    id: str
    what: Any


@dataclass(frozen=True)
class Done:
    """What a worker made of the task ``shard``."""

    shard: str
    value: Any


class Hand:
    """One network in a process of its own; Ray makes an actor of this class."""

    def __init__(
        self, opening: Callable[[str], Model], do: Callable[[Model, Any], Any], fingerprint: str, threads: int
    ) -> None:
        import torch

        torch.set_num_threads(threads)
        self.opening, self.do, self.fingerprint = opening, do, fingerprint
        self.model: Model | None = None

    def ready(self) -> int:
        """The process, once it has started."""
        return os.getpid()

    def work(self, task: Task) -> Any:
        """The result, or the sentence that says why there is none."""
        from .surveys.gather.ray_engine import Refused, device

        try:
            if self.model is None:
                self.model = self.opening(device())
            if self.model.fingerprint != self.fingerprint:  # results of two networks must not be mixed
                raise ModelError("A worker opened another network than the one here: are the weights random (none)?")
            return Done(task.id, self.do(self.model, task.what))
        except ConvoscopeError as error:
            return Refused(type(error).__name__, str(error))


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
        """``do(model, task.what)`` of every task, as they come, each once.

        Raises :class:`MissingExtra` without Ray, :class:`UsageError` where no cluster can be had, and what a task
        raises, as far as it is ours.
        """
        from .surveys.gather.ray_engine import Scheduler, Shipped, _ray, connected, send

        if not tasks:
            _ray()
            return
        with connected(self.address, self.workers) as (ray, count, gpu):
            opening = send(ray, self.opening or Shipped.of(model).model, model.name)
            work = send(ray, do, model.name)
            threads = max(1, (os.cpu_count() or 1) // count) if self.address == "local" else 1
            actor = ray.remote(num_cpus=1, num_gpus=1 if gpu else 0, max_restarts=0)(Hand)
            crew = Scheduler(ray, lambda: actor.remote(opening, work, model.fingerprint, threads), count, tasks)
            try:
                crew.start()
                for results in crew.results():
                    yield from results
            finally:
                crew.stop()

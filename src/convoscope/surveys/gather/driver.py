"""``survey``: one pass over a collection, resumable, into a store."""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ...errors import ConvoscopeError, StoreError
from ...models.formats import best_format
from ...models.model import Model
from ...models.opening import open_model
from ...notebook import shows_progress
from ...session import protected
from ..store.layout import begun
from ..store.recipe import Recipe, make_recipe, reopen
from ..store.store import Store
from .collections import is_collection, read_text
from .shards import Found, Item, Shard, class_of, cut, folder_labels, scan, truth_labels, unreadable
from .work import ShardResult, compute

#: seconds of work in a shard: what a kill loses at most
SHARD_SECONDS = 30.0
#: pictures in a shard at most
LARGEST_SHARD = 1024


@dataclass(frozen=True)
class Progress:
    """Where a survey stands: ``done`` of ``total`` pictures in this run, and what is left in seconds, where known."""

    stage: str
    done: int
    total: int
    failed: int = 0
    per_second: float | None = None
    seconds_left: float | None = None


Tell = Callable[[Progress], None]


@shows_progress("Survey")
def survey(
    model: Model | torch.nn.Module | str,
    folder: str | Path | Sequence[str | Path],
    store: str | Path,
    layers: Sequence[str] | None = None,
    embed: Sequence[str] = (),
    top: int = 9,
    truth: str | Path | Mapping[str, Any] | bool | None = None,
    progress: Tell | None = None,
    *,
    shard_size: int | None = None,
    memory_format: str = "auto",
    ray: str | None = None,
    workers: int | None = None,
) -> Store:
    """Gather, in one forward a picture, what every hidden unit responds to and what the network makes of every
    picture.

    Running it again does only what is missing: pictures that are new, and shards that were not committed when the last
    run ended, however it ended. Ctrl-C (``KeyboardInterrupt``) loses at most the shard in hand.

    Args:
        model: an open model, a module, or a spec.
        folder: is walked; or a list of folders, files, globs, URIs, tar shards, tables.
        store: where it is kept: a folder, or a URI.
        layers: default every activation with a grid, after its ReLU where there is one.
        embed: further layers whose (pooled) output is kept as an embedding, beside the one before the classifier.
        top: pictures kept at each end of each unit.
        truth: a CSV file or a mapping of file to label; None takes ``truth.csv`` in the folder, else folder names where
            all pictures lie in named folders; False takes none.
        progress: is called with a :class:`Progress`.
        shard_size: pictures in a shard; default: about half a minute's work.
        memory_format: ``contiguous``, ``channels_last``, or ``auto``: whichever is faster, decided once for a store.
        ray: ``local`` does the shards in several processes of this machine; else the address of a Ray cluster.
        workers: how many processes.

    Returns:
        The store, open for reading.

    Raises:
        ConvoscopeError: a store that holds another survey or is being written, layers that do not exist, a folder
            without pictures.
    """
    opened = open_model(model) if not isinstance(model, Model) else model
    recipe = make_recipe(opened, layers, embed, top)
    ours = "://" not in str(store) and not Path(store).exists()
    target, rate = _open(store, recipe, opened, memory_format)
    try:
        try:
            items, found = _list(target, opened, folder, truth, progress)
            todo = _missing(target, items)
            if todo and all(item.error for item in items):
                raise unreadable(found)
        except ConvoscopeError:
            if ours:  # refused before any work: no empty store is left
                target.close()
                shutil.rmtree(store, ignore_errors=True)
            raise
        shards = _units(target, todo, shard_size, rate)
        if ray is None:
            _run(target, opened, shards, progress)
        else:
            _run_on_ray(target, opened, shards, progress, ray, workers)
        target.fold()
    finally:
        target.close()
    target.use_model(opened)
    return target


def _open(path: str | Path, recipe: Recipe, model: Model, memory_format: str) -> tuple[Store, float]:
    """The store for writing, new or fitting, and how many pictures a second to expect."""
    if "://" in str(path) or begun(path):
        try:
            store = Store.open(path, write=True)
        except StoreError:
            if "://" not in str(path):
                raise
        else:
            try:
                store.recipe.refuse_other(recipe, str(path))
            except BaseException:
                store.close()
                raise
            return store, _rate(store)
    chosen, seconds = choose_format(model, recipe.batch_size, memory_format)
    # decoding and bookkeeping take about as much as a small network's forward
    return Store.create(path, replace(recipe, memory_format=chosen)), 1.0 / (seconds + 0.004)


def _list(
    store: Store, model: Model, folder: Any, truth: Any, progress: Tell | None
) -> tuple[list[Item], list[Found]]:
    """Every picture of the collection by content, each once, with its label; new files are noted in the store."""
    known = store.files()

    def tell(done: int, total: int) -> None:
        if progress is not None:
            progress(Progress("listing", done, total))

    found = list(scan(folder, known, tell))
    uris = [one.uri for one in found]
    if truth is None and isinstance(folder, (str, Path)) and Path(folder).is_dir() and not is_collection(folder):
        beside = Path(folder, "truth.csv")
        labels = truth_labels(beside, uris) if beside.is_file() else folder_labels(folder, uris)
    elif truth is None and (beside_uri := _truth_uri(folder)) is not None:
        labels = truth_labels(beside_uri, uris)
    elif truth is None or truth is False:
        labels = {one.uri: one.label for one in found if one.label is not None} if truth is None else {}
    else:
        labels = truth_labels(truth, uris)
    named = {uri: class_of(label, model.labels, None) for uri, label in labels.items()}
    found = [replace(one, label=named.get(one.uri, (None, None))[0]) for one in found]
    store.record_files([one for one in found if known.get(one.uri) != one])
    items: dict[str, Item] = {}
    conflicts = 0
    for one in found:
        if one.sha256 in items:
            conflicts += one.label is not None and items[one.sha256].label not in (None, one.label)
            continue
        name, index = named.get(one.uri, (None, None))
        items[one.sha256] = Item(one.sha256, one.uri, name, index, one.error)
    if conflicts:
        store.notes.append(f"{conflicts} pictures lie under two labels: the first counts.")
    return list(items.values()), found


def _truth_uri(folder: Any) -> str | None:
    """The ``truth.csv`` in a folder that is given as a URI."""
    if not isinstance(folder, str) or "://" not in folder or Path(folder).suffix or any(m in folder for m in "*?[{"):
        return None
    uri = f"{folder.rstrip('/')}/truth.csv"
    return uri if read_text(uri) is not None else None


def _missing(store: Store, items: Sequence[Item]) -> list[Item]:
    """The pictures that no committed shard holds, and those that could not be read when they were last tried."""
    store.forget_failures()
    rows = store.table(["sha256", "label"]).to_pylist()
    done = {row["sha256"]: row["label"] for row in rows}
    other = sum(
        1 for item in items if item.sha256 in done and item.label is not None and done[item.sha256] != item.label
    )
    if other:
        store.notes.append(
            f"{other} pictures were surveyed under another label or none, which the store keeps: "
            "survey into a new store to use the labels given now."
        )
    return [item for item in items if item.sha256 not in done]


def _units(store: Store, todo: Sequence[Item], shard_size: int | None, rate: float) -> list[Shard]:
    """The shards to be done: those planned before where all their pictures are still wanted, the rest cut anew."""
    wanted = {item.sha256: item for item in todo}
    done = store.units_done
    kept = [
        shard
        for shard in store.plan()
        if shard.id not in done and all(wanted.get(item.sha256) == item for item in shard.items)
    ]
    if not store.check_plan(kept):
        kept = []
    for shard in kept:
        for item in shard.items:
            del wanted[item.sha256]
    if wanted:
        batch = store.recipe.batch_size
        size = shard_size or min(LARGEST_SHARD, max(1, round(rate * SHARD_SECONDS / batch)) * batch)
        kept += cut(store.recipe.space, list(wanted.values()), size)
        store.set_plan(kept)
    return kept


def _rate(store: Store) -> float:
    """Pictures per second of the shards done so far."""
    ledger = store.ledger()
    seconds = sum(row["seconds"] for row in ledger)
    return sum(row["pictures"] for row in ledger) / seconds if seconds else 8.0


def choose_format(model: Model, batch_size: int, memory_format: str = "auto") -> tuple[str, float]:
    """The memory format of a survey's inputs, and the seconds per picture of one forward in it.

    ``auto`` follows from the network alone, so that the same survey gives the same numbers everywhere: on a CPU
    channels_last where most multiply-adds are in ungrouped convolutions of 16 channels and more (what oneDNN is fast
    at), contiguous elsewhere, and where the network minds (it views its activations).
    """
    size = model.preprocessing.size or (224, 224)
    count = min(batch_size, 8)
    generator = torch.Generator().manual_seed(0)
    dtype = model.dtype if model.dtype.is_floating_point else torch.float32
    inputs = torch.randn((count, model.preprocessing.channels, *size), generator=generator).to(model.device, dtype)
    chosen = memory_format
    if memory_format == "auto":
        chosen = "channels_last" if best_format(model) is torch.channels_last else "contiguous"
    with protected(model):
        for name in dict.fromkeys((chosen, "contiguous")):
            given = inputs.contiguous(memory_format=torch.channels_last) if name == "channels_last" else inputs
            try:
                return name, _seconds(model, given) / count
            except RuntimeError:
                if memory_format != "auto" or name == "contiguous":
                    raise
    raise AssertionError("contiguous is always tried")


def _seconds(model: Model, inputs: torch.Tensor) -> float:
    started = time.perf_counter()
    model.run(inputs)
    if inputs.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _run(store: Store, model: Model, shards: Sequence[Shard], progress: Tell | None) -> None:
    """Do the shards one after the other, committing each."""
    total = sum(len(shard.items) for shard in shards)
    meter = _Meter(total, progress)
    meter.tell()
    for shard in shards:
        result = compute(model, store.recipe, shard, meter.advance)
        store.commit(result)
        meter.failed += result.pictures.num_rows - result.pictures["error"].null_count
    meter.tell()


def _run_on_ray(
    store: Store, model: Model, shards: Sequence[Shard], progress: Tell | None, address: str, workers: int | None
) -> None:
    """Do the shards in other processes, committing each here: this process alone writes the store."""
    from ...parallel import RayPool, Task

    meter = _Meter(sum(len(shard.items) for shard in shards), progress)
    meter.tell()
    recipe = store.recipe
    pool = RayPool(address, workers, None if recipe.spec is None else partial(reopen, recipe))
    with pool.crew(model, partial(_compute, recipe), [Task(shard.id, shard) for shard in shards]) as crew:
        for results in crew.results():
            made = [one.value for one in results]
            store.commit_all(made)
            for result in made:
                meter.failed += result.pictures.num_rows - result.pictures["error"].null_count
                meter.advance(result.pictures.num_rows)
        if crew.replaced:
            store.notes.append(f"{crew.replaced} workers died and were replaced; their shards were done again.")


def _compute(recipe: Recipe, model: Model, shard: Shard) -> ShardResult:
    """One shard's work in another process."""
    return compute(model, recipe, shard)


class _Meter:
    """Pictures per second over the last half minute, and the time left."""

    def __init__(self, total: int, progress: Tell | None) -> None:
        self.total, self.progress = total, progress
        self.done = self.failed = 0
        self.marks: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])

    def advance(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        self.marks.append((now, self.done))
        while len(self.marks) > 2 and now - self.marks[0][0] > 30:
            self.marks.popleft()
        self.tell()

    def tell(self) -> None:
        if self.progress is None:
            return
        (before, had), (now, have) = self.marks[0], self.marks[-1]
        rate = (have - had) / (now - before) if now > before and have > had else None
        left = (self.total - self.done) / rate if rate else None
        self.progress(Progress("surveying", self.done, self.total, self.failed, rate, left))
